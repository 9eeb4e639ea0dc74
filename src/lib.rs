pub mod metrics;
pub mod syslog;
