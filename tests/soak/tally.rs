//! The streams of numbered messages, and which of them have not come.

use super::support::sink::{Tally, mark};

/// A sender's that stays, or that of all guests of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Udp,
    Tcp,
    Tls,
    Relp,
    GuestsByTcp,
    GuestsByTls,
    GuestsByRelp,
}

/// Of each stream, how many: the number of the next one.
pub type Sent = [usize; Stream::ALL.len()];

impl Stream {
    pub const ALL: [Self; 7] =
        [Self::Udp, Self::Tcp, Self::Tls, Self::Relp, Self::GuestsByTcp, Self::GuestsByTls, Self::GuestsByRelp];

    /// Whether none of its messages may be lost.
    fn is_reliable(self) -> bool {
        self != Self::Udp
    }

    pub fn mark(self, number: usize) -> String {
        mark(self as usize, number)
    }
}

/// Whether all have come that may not be lost.
pub fn all_came(tally: &Tally, sent: &Sent) -> bool {
    let mut reliable = Stream::ALL.into_iter().filter(|stream| stream.is_reliable());
    reliable.all(|stream| tally.has(stream as usize, sent[stream as usize]))
}

/// Those that have not, by stream: the first, and how many.
pub fn missing(tally: &Tally, sent: &Sent) -> Vec<(Stream, usize, usize)> {
    let missing = Stream::ALL.into_iter().filter_map(|stream| {
        let mut missing = tally.missing(stream as usize, sent[stream as usize]);
        Some((stream, missing.next()?, 1 + missing.count()))
    });
    missing.collect()
}
