//! From a target's name to addresses: `resolve` asks name servers, `answer` puts in order what they said, `rotation` tells a
//! move from answers that take turns.

mod answer;
mod resolve;
mod rotation;

pub use answer::{Answer, Endpoint};
pub use resolve::{Patience, ResolveError, Resolver};
pub use rotation::{Rotation, Whereabouts};
