//! From a target's name to addresses: `resolve` asks name servers, `answer` puts in order what they said, `rotation` tells a
//! move from answers that take turns. And from the address of a sender to its name: `senders`.

mod answer;
mod resolve;
mod rotation;
mod senders;

pub use answer::{Answer, Endpoint};
pub use resolve::{Patience, ResolveError, Resolver};
pub use rotation::{Rotation, Whereabouts};
pub use senders::SenderNames;
