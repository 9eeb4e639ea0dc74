pub mod listen;
pub mod metrics;
pub mod spool;
pub mod syslog;
