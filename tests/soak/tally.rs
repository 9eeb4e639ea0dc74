//! The streams of numbered messages, and the check for missing ones.

use super::support::sink::{Tally, mark};

/// The stream of a sender that stays, or of all guests of a kind.
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

/// The number of messages sent, by stream.
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

/// Whether all messages of reliable streams have arrived.
pub fn all_came(tally: &Tally, sent: &Sent) -> bool {
    let mut reliable = Stream::ALL.into_iter().filter(|stream| stream.is_reliable());
    reliable.all(|stream| tally.has(stream as usize, sent[stream as usize]))
}

/// The missing messages, by stream: the first one, and their number.
pub fn missing(tally: &Tally, sent: &Sent) -> Vec<(Stream, usize, usize)> {
    let missing = Stream::ALL.into_iter().filter_map(|stream| {
        let mut missing = tally.missing(stream as usize, sent[stream as usize]);
        Some((stream, missing.next()?, 1 + missing.count()))
    });
    missing.collect()
}
