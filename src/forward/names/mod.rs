//! From a target's name to addresses: `resolve` asks name servers, `answer` puts their answers in order, `rotation` tells a
//! move from answers that only rotate. And from the address of a sender to its name: `senders`.

mod answer;
mod resolve;
mod rotation;
mod senders;

pub use answer::{Answer, Endpoint};
pub use resolve::{Patience, ResolveError, Resolver};
pub use rotation::{Rotation, Whereabouts};
pub use senders::SenderNames;
