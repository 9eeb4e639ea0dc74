//! TCP to a collector, with TLS over it or without: `stream` is the connection and what its peer's kernel has
//! acknowledged, `in_flight` what is kept to be sent again, `read_estimator` whether the program behind the kernel reads.

mod in_flight;
mod read_estimator;
mod stream;

pub use in_flight::{InFlight, Replay};
pub use read_estimator::TcpSample;
pub use stream::{CountedStream, Stream, connect};
