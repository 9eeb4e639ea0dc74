pub mod metrics;
pub mod spool;
pub mod syslog;
