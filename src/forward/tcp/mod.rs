//! TCP to a collector, with TLS over it or without: `stream` is the connection, and knows what its peer's kernel has acknowledged;
//! `in_flight` keeps batches that may have to be sent again; `read_estimator` estimates whether the program behind the kernel reads;
//! `silence` measures how long that kernel has not answered.

mod in_flight;
mod read_estimator;
mod silence;
mod stream;

pub use in_flight::{InFlight, Replay};
pub use read_estimator::{TcpSample, Window};
pub use silence::Silence;
pub use stream::{CountedStream, Stream, connect};
