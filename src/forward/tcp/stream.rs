//! A TCP connection to a collector, with TLS over it or without, and what its peer's kernel has acknowledged.
//!
//! When `write()` returns, the bytes are in our own kernel. `SIOCOUTQ` tells how many of them the peer has not acknowledged; the
//! peer has the rest. `SIOCOUTQ` stays readable after the connection broke, as long as the file descriptor is open. A FIN of ours
//! counts as one byte, so the value is read before closing.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use nix::libc;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::read_estimator::{TcpSample, Window};
use super::silence::{Owes, SignsOfLife};
use crate::http::Carrier;
use crate::sys;

/// Keepalive finds a dead peer while nothing is outstanding; otherwise the driver does. `TCP_USER_TIMEOUT` would end the connection
/// to a program that reads slowly: its window stays closed for longer, although its kernel answers each probe.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_PROBES: u32 = 3;

/// `struct tcp_info` of linux/tcp.h, which only ever grows at its end: its bytes up to and with `tcpi_snd_wnd` (since Linux 5.4), and
/// the offsets of the fields that we read.
const TCP_INFO_BYTES: usize = 232;
const TCPI_PROBES: usize = 3;
const TCPI_UNACKED: usize = 24;
const TCPI_LAST_DATA_SENT: usize = 44;
const TCPI_LAST_ACK_RECV: usize = 56;
const TCPI_RWND_LIMITED: usize = 176;
const TCPI_SND_WND: usize = 228;

/// A connection, with TLS over it or without.
pub enum Stream {
    Tcp(CountedStream),
    Tls(Box<TlsStream<CountedStream>>),
}

/// A TCP stream that counts the bytes it handed to the kernel. Under TLS these are ciphertext, handshake included.
pub struct CountedStream {
    stream: TcpStream,
    written: u64,
}

/// Opens a TCP connection with the options that tell a dead peer from a quiet one.
pub async fn connect(to: SocketAddr, within: Duration) -> io::Result<CountedStream> {
    let stream = match timeout(within, TcpStream::connect(to)).await {
        Ok(connected) => connected?,
        Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {within:?}"))),
    };
    // A connection to a closed port of this machine can connect to itself (RFC 9293 3.5, simultaneous open): the kernel picks the
    // dialed port as the local port. We would deliver to ourselves.
    if stream.local_addr()? == to {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    // Otherwise Nagle's algorithm holds small batches back until the last one is acknowledged: 30 ms at the 99th percentile.
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    Ok(CountedStream { stream, written: 0 })
}

impl Stream {
    pub fn counted(&self) -> &CountedStream {
        match self {
            Self::Tcp(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }

    /// The stream in the form that hyper takes.
    pub fn boxed(self) -> Box<dyn Carrier> {
        match self {
            Self::Tcp(stream) => Box::new(stream),
            Self::Tls(stream) => stream,
        }
    }

    /// TLS close_notify and FIN.
    pub async fn say_goodbye(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown().await,
            Self::Tls(stream) => stream.shutdown().await,
        }
    }

    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }

    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }
}

impl CountedStream {
    fn counting(&mut self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(written)) = &polled {
            self.written += *written as u64;
        }
        polled
    }

    pub fn written(&self) -> u64 {
        self.written
    }

    /// Closing then drops unsent bytes, and the reset tells the peer that something is missing.
    pub fn reset_on_close(&self) -> io::Result<()> {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))
    }

    /// Samples the connection.
    pub fn sample(&self) -> io::Result<TcpSample> {
        let info = sys::socket_option::<TCP_INFO_BYTES>(self.stream.as_fd(), libc::IPPROTO_TCP, libc::TCP_INFO)?;
        let acknowledged = self.written.saturating_sub(sys::unacknowledged(self.stream.as_fd())?);
        let number = |info: &[u8], at: usize| u32::from_ne_bytes(info[at..][..4].try_into().unwrap_or_default());
        let window = info.map(|info| {
            let bytes = number(&info, TCPI_SND_WND);
            let limited = u64::from_ne_bytes(info[TCPI_RWND_LIMITED..][..8].try_into().unwrap_or_default());
            Window { bytes: bytes.into(), limited: Duration::from_micros(limited) }
        });
        let signs = info.map(|info| {
            let milliseconds = |at| Duration::from_millis(number(&info, at).into());
            let (asked, last) = (milliseconds(TCPI_LAST_DATA_SENT), milliseconds(TCPI_LAST_ACK_RECV));
            let owes = match (info[TCPI_PROBES], number(&info, TCPI_UNACKED)) {
                (2.., _) => Owes::Probes,
                (_, 1..) if asked < last => Owes::Bytes,
                _ => Owes::Nothing,
            };
            SignsOfLife { last, owes }
        });
        Ok(TcpSample { acknowledged, window, signs })
    }
}

impl AsyncRead for CountedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for CountedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.counting(polled)
    }

    /// TLS writes several records at a time: one system call for all of them.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.counting(polled)
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
