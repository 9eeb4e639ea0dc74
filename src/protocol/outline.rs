//! Messages of which most came before: what Docker's drivers say of a container is the same in each of its messages.

use std::borrow::Cow;

use crate::record::LocalStamp;

/// A message in two parts: what other messages of its sender have too, and its own.
#[derive(Clone, Debug)]
pub struct Outline<'a> {
    /// What they have in common. Nothing that the record says depends on anything else, but for what follows here.
    pub origin: [&'a [u8]; ORIGIN],
    /// `None`: the message says no time.
    pub stamp: Option<LocalStamp>,
    /// Beside its microseconds; `0 <= nanoseconds <= 999`.
    pub nanoseconds: u16,
    /// All of it; the message is not cut.
    pub text: Cow<'a, [u8]>,
    /// As of [`ToRecord`](super::session::ToRecord).
    pub tells_pieces: bool,
}

/// In how many pieces a message says what it has in common with others.
pub const ORIGIN: usize = 4;
