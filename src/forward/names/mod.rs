//! From a target's name to addresses: `resolve` asks name servers, `answer` puts in order what they said.

mod answer;
mod resolve;

pub use answer::{Answer, Endpoint};
pub use resolve::{Patience, ResolveError, Resolver};
