//! The TCP and TLS link: one connection, one event at a time.
//!
//! The read half is always polled: the first write after the peer's FIN "succeeds", and only reading shows the FIN
//! before it. A line is retired when the peer's kernel has acknowledged it and a moment has passed (`acked`).

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{sleep, sleep_until, timeout};
use tokio_rustls::client::TlsStream;

use super::acked::{InFlight, Replay, Wire};
use crate::forward::encode::Encoding;
use crate::forward::source::Source;
use crate::forward::stall::Stall;
use crate::forward::{Ended, Events};
use crate::spool::Position;

/// How often acknowledgements are looked at while some are outstanding. Each look is three system calls.
const ACKNOWLEDGE_EVERY: Duration = Duration::from_millis(50);
/// Reads of what a collector says, which nobody wants, before it is our turn again.
const READS_BEFORE_WRITING: usize = 16;
/// How long ending a connection in good order may take.
pub const FINISH_WITHIN: Duration = Duration::from_secs(3);
/// How long a collector may take to hear our goodbye and close its side.
pub const GOODBYE_WITHIN: Duration = Duration::from_secs(1);
/// Keepalive finds a dead peer while nothing is outstanding; `TCP_USER_TIMEOUT` while something is.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_PROBES: u32 = 3;

/// A connection, with TLS over it or without.
pub enum Stream {
    Tcp(Wire),
    Tls(Box<TlsStream<Wire>>),
}

/// A connection to a collector, with what is on its way.
pub struct StreamLink {
    stream: Stream,
    peer: SocketAddr,
    encoding: Encoding,
    outbox: Outbox,
    /// `0 <= sent <= outbox.bytes.len()`
    sent: usize,
    in_flight: InFlight,
    /// When acknowledgements were last looked at.
    looked: Option<Instant>,
    stall: Stall,
}

/// Encoded lines on their way out.
#[derive(Default)]
struct Outbox {
    bytes: Vec<u8>,
    /// The position in the spool behind the last line; `None` while empty.
    reaches: Option<Position>,
    scratch: Vec<u8>,
}

enum Progress {
    /// This many bytes of the outbox were taken.
    Wrote(usize),
    /// The whole outbox is on the wire.
    Flushed,
    /// The collector closed its side.
    Closed,
}

/// Opens a TCP connection with everything set that tells a dead peer from a quiet one.
///
/// `patience`: how long it may be owed an acknowledgement.
pub async fn connect_tcp(to: SocketAddr, within: Duration, patience: Duration) -> io::Result<TcpStream> {
    let stream = match timeout(within, TcpStream::connect(to)).await {
        Ok(connected) => connected?,
        Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {within:?}"))),
    };
    // Connecting to a closed port of this machine can meet itself (RFC 9293 3.5, simultaneous open): the kernel picks the
    // port it dials as its own. We would deliver to ourselves.
    if stream.local_addr()? == to {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    // Without it Nagle holds small batches back until the last one is acknowledged: 30 ms at the 99th percentile.
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(patience))?;
    Ok(stream)
}

impl StreamLink {
    pub fn new(stream: Stream, peer: SocketAddr, encoding: Encoding, replay: Replay, dead_after: Duration) -> Self {
        let now = Instant::now();
        Self {
            stream,
            peer,
            encoding,
            outbox: Outbox::default(),
            sent: 0,
            in_flight: InFlight::new(replay, now),
            looked: None,
            stall: Stall::new(dead_after, now),
        }
    }

    /// Carries lines until the connection ends, the name moves away or the relay stops. What is safe with the collector
    /// is retired when this returns, whatever the reason.
    pub async fn carry(&mut self, source: &mut Source, events: &mut Events) -> Ended {
        let ended = self.carry_on(source, events).await;
        if let Err(error) = self.retire(source) {
            tracing::debug!("forward: cannot ask what {} has acknowledged: {error}", self.peer);
        }
        ended
    }

    async fn carry_on(&mut self, source: &mut Source, events: &mut Events) -> Ended {
        let mut stopping = false;
        loop {
            if self.is_time_to_look() {
                if let Err(error) = self.retire(source) {
                    return Ended::Broken(error.to_string());
                }
                if self.stalls() {
                    events.stalled.notify_one();
                }
            }
            if self.outbox.is_empty() {
                self.fill_outbox(source).await;
            }
            let idle = self.outbox.is_empty();
            if stopping && idle {
                tokio::select! {
                    () = self.finish(source) => {}
                    () = events.deadline.reached() => {}
                }
                return Ended::Stopped;
            }
            let looks_at = self.looks_at(Instant::now());
            tokio::select! {
                progress = poll_fn(|cx| self.poll_progress(cx)) => match progress {
                    Ok(Progress::Wrote(bytes)) => self.sent += bytes,
                    Ok(Progress::Flushed) => self.mark_sent(),
                    Ok(Progress::Closed) => {
                        self.retire_read(source);
                        return Ended::Broken("the collector closed the connection".to_owned());
                    }
                    Err(error) => return Ended::Broken(error.to_string()),
                },
                more = source.wait(), if idle && !stopping => stopping = !more,
                () = sleep_until(looks_at.unwrap_or_else(Instant::now).into()), if looks_at.is_some() => {}
                moved = &mut events.moved => return Ended::Moved(moved),
                () = events.deadline.reached() => {
                    self.discard();
                    return Ended::Stopped;
                }
            }
        }
    }

    async fn fill_outbox(&mut self, source: &mut Source) {
        let Some(load) = source.next().await else { return };
        if load.is_empty() && self.in_flight.is_empty() {
            source.retire(load.end());
            return;
        }
        let Outbox { bytes, reaches, scratch } = &mut self.outbox;
        load.lines().for_each(|(line, _)| self.encoding.append(line, scratch, bytes));
        *reaches = Some(load.end());
    }

    /// The connection is given up in the middle of it: a reset, so that the collector does not take half a line for a
    /// whole one, and what our kernel still holds is not delivered now and again on the next connection.
    fn discard(&self) {
        let unfinished = self.sent > 0 || !self.in_flight.is_acknowledged();
        if unfinished && let Err(error) = self.wire().reset_on_close() {
            tracing::debug!("forward: {}: {error}", self.peer);
        }
    }

    /// Ends the connection in good order: sends what is half sent, waits until it is acknowledged, says goodbye and
    /// hears the collector do the same. A program that closes its side has read to the end: closing with unread bytes
    /// would have reset the connection. Nothing more is read from the spool.
    ///
    /// A collector that does not close, or stands still, is not waited for. Whatever goes wrong, or takes too long, what
    /// is not retired is sent again on another connection.
    pub async fn finish(&mut self, source: &mut Source) {
        if !self.flushes_out(source).await {
            self.discard();
        } else {
            let heard = timeout(GOODBYE_WITHIN, async {
                self.stream.say_goodbye().await?;
                // Only its end can be heard now: the outbox is empty, so there is no other progress.
                poll_fn(|cx| self.poll_progress(cx)).await
            });
            if let Ok(Ok(Progress::Closed)) = heard.await
                && let Some(position) = self.in_flight.all()
            {
                source.retire(position);
            }
        }
        // An error leaves what it leaves.
        let _ = self.retire(source);
    }

    /// Waits until the connection ends.
    pub async fn ends(&mut self) {
        // Nothing was sent, so there is nothing else to hear of.
        let _ = poll_fn(|cx| self.poll_progress(cx)).await;
    }

    /// Whether all that was taken from the spool is acknowledged within reasonable time.
    async fn flushes_out(&mut self, source: &mut Source) -> bool {
        !self.stall.stands() && matches!(timeout(FINISH_WITHIN, self.flush_out(source)).await, Ok(Ok(())))
    }

    /// Until everything that was taken from the spool is acknowledged.
    async fn flush_out(&mut self, source: &mut Source) -> io::Result<()> {
        loop {
            self.retire(source)?;
            if self.outbox.is_empty() && self.in_flight.is_acknowledged() {
                return Ok(());
            }
            if self.stalls() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            tokio::select! {
                progress = poll_fn(|cx| self.poll_progress(cx)) => match progress? {
                    Progress::Wrote(bytes) => self.sent += bytes,
                    Progress::Flushed => self.mark_sent(),
                    Progress::Closed => return Err(io::ErrorKind::UnexpectedEof.into()),
                },
                () = sleep(ACKNOWLEDGE_EVERY) => {}
            }
        }
    }

    /// Whether nothing was acknowledged for a while of what is on its way.
    pub fn stands(&self) -> bool {
        self.stall.stands()
    }

    /// Whether it has stood still for long enough just now.
    fn stalls(&mut self) -> bool {
        let awaited = !self.outbox.is_empty() || !self.in_flight.is_acknowledged();
        // What cannot be asked for any more has not moved.
        let waits_at = awaited.then(|| self.wire().acknowledged().unwrap_or_default());
        self.stall.look(waits_at, Instant::now())
    }

    fn mark_sent(&mut self) {
        if let Some(reaches) = self.outbox.reaches {
            self.in_flight.push(self.wire().written(), reaches);
        }
        self.outbox.clear();
        self.sent = 0;
    }

    fn is_time_to_look(&mut self) -> bool {
        let now = Instant::now();
        let is_time = self.looked.is_none_or(|looked| now >= looked + ACKNOWLEDGE_EVERY);
        if is_time {
            self.looked = Some(now);
        }
        is_time
    }

    /// When to look again if nothing else happens; `None`: nothing is awaited or kept.
    fn looks_at(&self, now: Instant) -> Option<Instant> {
        let kept = self.in_flight.look_again(now, ACKNOWLEDGE_EVERY).map(|wait| now + wait);
        let next = kept.into_iter().chain(self.stall.due()).min()?;
        Some(next.max(self.looked.map_or(now, |looked| looked + ACKNOWLEDGE_EVERY)))
    }

    fn retire(&mut self, source: &mut Source) -> io::Result<()> {
        if self.in_flight.is_empty() {
            return Ok(());
        }
        let now = Instant::now();
        let acknowledged = match self.wire().look()? {
            Some(look) => {
                self.in_flight.see(look, now);
                look.acknowledged
            }
            None => self.wire().acknowledged()?,
        };
        if let Some(position) = self.in_flight.safe(acknowledged, now) {
            source.retire(position);
        }
        if let Some(position) = self.in_flight.acknowledged() {
            source.acknowledged(position);
        }
        Ok(())
    }

    /// The collector has closed its side in good order.
    fn retire_read(&mut self, source: &mut Source) {
        if self.retire(source).is_ok()
            && let Some(position) = self.in_flight.closed(Instant::now())
        {
            source.retire(position);
        }
    }

    fn wire(&self) -> &Wire {
        self.stream.wire()
    }

    /// Reads (a collector has nothing to say, but its closing must be heard), then writes.
    fn poll_progress(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Progress>> {
        let mut heard = [0; 512];
        let mut talks_on = true;
        for _ in 0..READS_BEFORE_WRITING {
            let mut buf = ReadBuf::new(&mut heard);
            match self.stream.poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if buf.filled().is_empty() => return Poll::Ready(Ok(Progress::Closed)),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    talks_on = false;
                    break;
                }
            }
        }
        let progress = self.poll_write(cx);
        if progress.is_pending() && talks_on {
            // The last read was not the one that waits, so nobody else would call us for the rest.
            cx.waker().wake_by_ref();
        }
        progress
    }

    /// Writes the outbox, then flushes it.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Progress>> {
        if self.outbox.is_empty() {
            return Poll::Pending;
        }
        if self.sent < self.outbox.bytes.len() {
            let written = ready!(self.stream.poll_write(cx, &self.outbox.bytes[self.sent..]))?;
            return Poll::Ready(Ok(Progress::Wrote(written)));
        }
        ready!(self.stream.poll_flush(cx))?;
        Poll::Ready(Ok(Progress::Flushed))
    }
}

impl Outbox {
    fn is_empty(&self) -> bool {
        self.reaches.is_none()
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.reaches = None;
    }
}

impl Stream {
    pub fn wire(&self) -> &Wire {
        match self {
            Self::Tcp(wire) => wire,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }

    /// TLS close_notify and FIN.
    pub async fn say_goodbye(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(wire) => wire.shutdown().await,
            Self::Tls(stream) => stream.shutdown().await,
        }
    }

    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(wire) => Pin::new(wire).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }

    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(wire) => Pin::new(wire).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(wire) => Pin::new(wire).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }
}
