//! What the peer's kernel has acknowledged on a TCP connection, in bytes on the wire and in positions of the spool.
//!
//! `write()` returning says that bytes are in our own kernel. `SIOCOUTQ` says how many of them the peer has not
//! acknowledged: written minus that is what it has. It stays readable after the connection broke, as long as the file
//! descriptor is open; a FIN of ours counts as one byte, so it is read before closing.
//!
//! What the kernel has the program may not have read. So the last acknowledged bytes are kept for a while, and more of
//! them when the program seems not to read (`read_estimator`).

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use nix::libc;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::read_estimator::{Look, Witness};
use crate::spool::Position;
use crate::sys;

/// `struct tcp_info` of linux/tcp.h, which only ever grows at its end: bytes up to and with `tcpi_snd_wnd`, which is
/// there since Linux 5.4, and where in it is what we read.
const TCP_INFO_BYTES: usize = 232;
const TCPI_RWND_LIMITED: usize = 176;
const TCPI_SND_WND: usize = 228;

/// A TCP stream that counts the bytes it handed to the kernel. Under TLS these are ciphertext, handshake included.
pub struct Wire {
    stream: TcpStream,
    written: u64,
}

impl Wire {
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, written: 0 }
    }

    fn counted(&mut self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(written)) = &polled {
            self.written += *written as u64;
        }
        polled
    }

    pub fn written(&self) -> u64 {
        self.written
    }

    /// Closing it will throw away what is unsent, and tell the peer that something is missing.
    pub fn reset_on_close(&self) -> io::Result<()> {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))
    }

    /// Bytes the peer's kernel has acknowledged since the connection was made.
    pub fn acknowledged(&self) -> io::Result<u64> {
        Ok(self.written.saturating_sub(sys::unacknowledged(self.stream.as_fd())?))
    }

    /// The same and the peer's window; `None`: this kernel does not tell.
    pub fn look(&self) -> io::Result<Option<Look>> {
        let info = sys::socket_option::<TCP_INFO_BYTES>(self.stream.as_fd(), libc::IPPROTO_TCP, libc::TCP_INFO)?;
        let Some(info) = info else { return Ok(None) };
        let acknowledged = self.acknowledged()?;
        let window = u32::from_ne_bytes(info[TCPI_SND_WND..][..4].try_into().unwrap_or_default());
        let limited = u64::from_ne_bytes(info[TCPI_RWND_LIMITED..][..8].try_into().unwrap_or_default());
        Ok(Some(Look { acknowledged, window: window.into(), limited: Duration::from_micros(limited) }))
    }
}

/// How much of what is acknowledged is kept, so that it can be sent again when the connection breaks.
#[derive(Clone, Copy, Debug)]
pub struct Replay {
    /// At least the last so many bytes on the wire.
    pub bytes: u64,
    /// But nothing that was acknowledged longer ago, while nothing says that the collector does not keep up.
    pub time: Duration,
    /// When it does not keep up, everything since, up to so many bytes on the wire: more than a peer's kernel buffers.
    pub limit: u64,
}

/// How long a connection has to live before anything on it counts as read: a proxy without a backend takes a buffer full
/// and hangs up, and does so again and again.
const YOUNG: Duration = Duration::from_secs(2);

/// What was sent on a connection and may be needed again.
#[derive(Debug)]
pub struct InFlight {
    /// Ascending in every field.
    marks: VecDeque<Mark>,
    replay: Replay,
    witness: Witness,
    born: Instant,
}

/// The end of a batch.
#[derive(Debug)]
struct Mark {
    /// The wire's byte count after the batch was flushed.
    wire_bytes: u64,
    /// Where in the spool it ends.
    position: Position,
    /// When its acknowledgement was seen, and what the connection looked like; `None`: not yet.
    acknowledged: Option<(Instant, Look)>,
}

impl InFlight {
    pub fn new(replay: Replay, born: Instant) -> Self {
        Self { marks: VecDeque::new(), replay, witness: Witness::default(), born }
    }

    /// A batch was flushed: the wire's count now, and where in the spool the batch ends.
    pub fn push(&mut self, wire_bytes: u64, position: Position) {
        // Nothing of it was sent, because nothing was wanted: it goes with what was sent before it.
        if let Some(last) = self.marks.back_mut().filter(|last| last.wire_bytes == wire_bytes) {
            last.position = position;
            return;
        }
        self.marks.push_back(Mark { wire_bytes, position, acknowledged: None });
    }

    /// Nothing is kept, for whatever reason.
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Everything is acknowledged, though some of it may still be kept.
    pub fn is_acknowledged(&self) -> bool {
        self.marks.back().is_none_or(|mark| mark.acknowledged.is_some())
    }

    /// The furthest position of those kept that the peer has acknowledged, as far as [`InFlight::safe`] was told.
    pub fn acknowledged(&self) -> Option<Position> {
        let unseen = self.marks.partition_point(|mark| mark.acknowledged.is_some());
        self.marks.get(unseen.checked_sub(1)?).map(|mark| mark.position)
    }

    /// What the connection looks like now.
    pub fn see(&mut self, look: Look, now: Instant) {
        self.witness.see(look, now);
    }

    /// The furthest position that is safe when the peer has acknowledged `bytes`; it and all before it are forgotten.
    pub fn safe(&mut self, bytes: u64, now: Instant) -> Option<Position> {
        let look = Look { acknowledged: bytes, ..self.witness.last() };
        let unseen = self.marks.partition_point(|mark| mark.acknowledged.is_some());
        for mark in self.marks.range_mut(unseen..).take_while(|mark| mark.wire_bytes <= bytes) {
            mark.acknowledged = Some((now, look));
        }
        self.forget_while(|kept, mark| kept.is_safe(mark, bytes, now))
    }

    /// The connection has ended as it does when the collector's program has read all that its kernel had: with anything
    /// left it would have been a reset. What the program made of the last bytes it read is another matter.
    pub fn closed(&mut self, now: Instant) -> Option<Position> {
        let acknowledged = self.marks.iter().rev().find(|mark| mark.acknowledged.is_some())?.wire_bytes;
        self.forget_while(|kept, mark| kept.is_believed(now) && mark.wire_bytes + kept.replay.bytes <= acknowledged)
    }

    /// The last position of all: for a collector that has read to the end and said so.
    pub fn all(&mut self) -> Option<Position> {
        self.forget_while(|_, _| true)
    }

    fn is_safe(&self, mark: &Mark, acknowledged: u64, now: Instant) -> bool {
        let Some((since, then)) = mark.acknowledged else { return false };
        let old = now.duration_since(since) >= self.replay.time && self.witness.is_calm(now);
        let read = self.is_believed(now) && then.was_read_by(&self.witness.last(), self.replay.bytes);
        old || read || mark.wire_bytes + self.replay.limit <= acknowledged
    }

    fn is_believed(&self, now: Instant) -> bool {
        now.duration_since(self.born) >= YOUNG && self.witness.is_calm(now)
    }

    fn forget_while(&mut self, safe: impl Fn(&Self, &Mark) -> bool) -> Option<Position> {
        let count = self.marks.iter().take_while(|mark| safe(self, mark)).count();
        self.marks.drain(..count).next_back().map(|mark| mark.position)
    }

    /// When to look again if nothing else happens: soon while something is not acknowledged, otherwise when the oldest
    /// batch has been kept for long enough. `None`: nothing is kept.
    pub fn look_again(&self, now: Instant, soon: Duration) -> Option<Duration> {
        let oldest = self.marks.front()?;
        match oldest.acknowledged {
            Some((since, _)) if self.is_acknowledged() => {
                let old_in = self.replay.time.saturating_sub(now.duration_since(since));
                Some(old_in.max(self.witness.calm_in(now)))
            }
            _ => Some(soon),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.counted(polled)
    }

    /// TLS has several records to write at a time: one system call for all of them.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.counted(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: u64) -> Position {
        Position { segment: 1, offset: 0, line }
    }

    const TIME: Duration = Duration::from_secs(30);
    const WINDOW: u64 = 100_000;

    /// A connection that has lived for long enough, and keeps so many bytes at least.
    fn grown(bytes: u64) -> (InFlight, Instant) {
        let born = Instant::now();
        let mut sent = InFlight::new(Replay { bytes, time: TIME, limit: 4 << 20 }, born);
        sent.see(Look { acknowledged: 0, window: WINDOW, limited: Duration::ZERO }, born);
        (sent, born + YOUNG)
    }

    /// So many bytes are acknowledged, and this is how much more would be taken.
    fn acknowledges(sent: &mut InFlight, bytes: u64, window: u64, now: Instant) -> Option<u64> {
        sent.see(Look { acknowledged: bytes, window, limited: Duration::ZERO }, now);
        sent.safe(bytes, now).map(|position| position.line)
    }

    #[test]
    fn what_is_acknowledged_is_told_long_before_it_is_safe() {
        let (mut sent, now) = grown(0);
        assert_eq!(sent.acknowledged(), None);
        (1..=3).for_each(|line| sent.push(line * 100, at(line)));
        for (bytes, line) in [(99, None), (100, Some(1)), (250, Some(2)), (300, Some(3))] {
            assert_eq!(acknowledges(&mut sent, bytes, WINDOW, now), None);
            assert_eq!(sent.acknowledged(), line.map(at));
        }
        assert_eq!(acknowledges(&mut sent, 300, WINDOW, now + TIME), Some(3));
        assert_eq!(sent.acknowledged(), None);
    }

    #[test]
    fn what_is_not_acknowledged_is_kept() {
        let (mut sent, now) = grown(0);
        sent.push(1_000, at(1));
        assert_eq!(acknowledges(&mut sent, 999, WINDOW, now + TIME), None);
        assert!(!sent.is_acknowledged());
        assert_eq!(acknowledges(&mut sent, 1_000, WINDOW, now + TIME), None, "only just acknowledged");
        assert!(sent.is_acknowledged());
        assert_eq!(acknowledges(&mut sent, 1_000, WINDOW, now + 2 * TIME), Some(1));
        assert!(sent.is_empty());
    }

    #[test]
    fn what_was_read_is_forgotten_at_once() {
        let (mut sent, now) = grown(64 << 10);
        (1..=10).for_each(|n| sent.push(n * 100_000, at(n)));
        let safe: Vec<_> = (1..=10).map(|n| acknowledges(&mut sent, n * 100_000, WINDOW, now)).collect();
        // 300,000 bytes behind.
        assert_eq!(safe[..3], [None; 3]);
        assert_eq!(safe[3..], [1, 2, 3, 4, 5, 6, 7].map(Some));
        assert_eq!(sent.look_again(now, Duration::ZERO), Some(TIME));
        // The connection ends in good order: the program has read the rest too, but for its own buffer.
        assert_eq!(sent.closed(now), Some(at(9)));
        assert_eq!(sent.closed(now), None);
    }

    #[test]
    fn what_a_window_swallows_is_kept_up_to_a_limit() {
        let (mut sent, now) = grown(0);
        let later = now + TIME;
        (1..=50).for_each(|n| sent.push(n * 100_000, at(n)));
        for n in 1..=10 {
            assert_eq!(acknowledges(&mut sent, n * 100_000, 1_000_000 - n * 100_000, now), None);
        }
        sent.see(Look { acknowledged: 1_000_000, window: 0, limited: TIME }, later);
        assert_eq!(sent.safe(1_000_000, later), None);
        assert_eq!(sent.closed(later), None);
        assert_eq!(sent.safe(5_000_000, later).map(|position| position.line), Some(8));
        // It leaves the window alone for a moment, so it goes on.
        assert!(sent.look_again(later, Duration::ZERO) > Some(Duration::ZERO));
        assert_eq!(sent.safe(5_000_000, later + TIME), Some(at(50)));
    }

    #[test]
    fn a_connection_has_to_live_before_it_is_believed() {
        let (mut sent, now) = grown(0);
        let early = now - YOUNG / 2;
        (1..=10).for_each(|n| sent.push(n * 100_000, at(n)));
        for n in 1..=10 {
            assert_eq!(acknowledges(&mut sent, n * 100_000, WINDOW, early), None);
        }
        assert_eq!(sent.closed(early), None);
        assert_eq!(acknowledges(&mut sent, 1_000_000, WINDOW, now), Some(7));
    }

    #[test]
    fn a_collector_that_read_to_the_end_has_everything() {
        let (mut sent, now) = grown(1000);
        assert_eq!(sent.all(), None);
        sent.push(100, at(1));
        sent.push(200, at(2));
        assert_eq!(sent.look_again(now, Duration::ZERO), Some(Duration::ZERO));
        assert_eq!(sent.all(), Some(at(2)));
        assert!(sent.is_empty());
    }
}
