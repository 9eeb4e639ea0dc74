//! TCP and TLS to a collector: `stream` the connection, `acked` what its peer's kernel has acknowledged and what is kept
//! to be sent again, `read_estimator` whether the program behind it reads.

pub mod acked;
mod read_estimator;
pub mod stream;
