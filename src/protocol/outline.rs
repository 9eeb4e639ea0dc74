//! Messages that share most of their content with earlier ones: Docker's drivers describe a container identically in each of its messages.

use std::borrow::Cow;

use crate::record::LocalStamp;

/// A message in two parts: the content that it shares with other messages of its sender, and its own.
#[derive(Clone, Debug)]
pub struct Outline<'a> {
    /// The shared content. The record depends on this and on the fields below, and on nothing else.
    pub origin: [&'a [u8]; ORIGIN],
    /// `None`: the message has no timestamp.
    pub stamp: Option<LocalStamp>,
    /// Nanoseconds beyond the microseconds of `stamp`; `0 <= nanoseconds <= 999`.
    pub nanoseconds: u16,
    /// The whole text: the message is not truncated.
    pub text: Cow<'a, [u8]>,
    /// See [`ToRecord::tells_pieces`](super::session::ToRecord::tells_pieces).
    pub tells_pieces: bool,
}

/// The number of parts of the shared content.
pub const ORIGIN: usize = 4;
