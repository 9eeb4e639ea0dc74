//! Takes the PROXY protocol's header off a connection, and nothing behind it.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::task::{Context, Poll, ready};

use tokio::sync::watch;
use tokio::time::timeout;

use super::super::refusal::RefusalReason;
use super::super::{Rules, stopping};
use super::accepted::AcceptedSocket;
use crate::protocol::proxy::{MAX_HEADER, Reading, read};

/// Waits for the header, and returns the client's address in it; the inner `None`: the header names no client. The outer `None`:
/// the connection has ended, because the peer has left, or the header is missing or late. At a shutdown, only bytes that the kernel
/// holds count.
pub async fn client(
    socket: &mut AcceptedSocket,
    proxy: Option<IpAddr>,
    rules: &Rules,
    shutdown: &mut watch::Receiver<bool>,
) -> Option<Option<IpAddr>> {
    let mut header = Vec::new();
    let read = async {
        tokio::select! {
            biased;
            () = stopping(shutdown) => {}
            read = poll_fn(|cx| poll_header(socket, &mut header, cx)) => return read,
        }
        socket.held_only();
        poll_fn(|cx| match poll_header(socket, &mut header, cx) {
            Poll::Pending => Poll::Ready(Ok(None)),
            read => read,
        })
        .await
    };
    let reason = match timeout(rules.limits.handshake_timeout, read).await {
        Ok(Ok(Some(Reading::Header(_, client)))) => return Some(client),
        Ok(Ok(Some(_))) => RefusalReason::NoProxyHeader,
        Err(_) => RefusalReason::ProxyHeaderTimeout,
        // The peer has disconnected, or the relay stops.
        Ok(Ok(None) | Err(_)) => {
            socket.reset_on_close();
            return None;
        }
    };
    rules.refusals.refuse(proxy, &reason);
    socket.reset_on_close();
    None
}

/// Takes the header's bytes and leaves all others. `None`: the peer has closed before the header was complete.
fn poll_header(
    socket: &mut AcceptedSocket,
    header: &mut Vec<u8>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Option<Reading>>> {
    loop {
        let before = header.len();
        let mut next = [0; 512];
        let room = next.len().min(MAX_HEADER - before);
        let count = ready!(socket.poll_peek(&mut next[..room], cx))?;
        header.extend_from_slice(&next[..count]);
        let reading = read(header);
        let (taken, is_done) = match reading {
            Reading::Header(len, _) => (len - before, true),
            Reading::Begun => (count, count == 0),
            Reading::NoHeader => return Poll::Ready(Ok(Some(reading))),
        };
        socket.take_held(&mut next[..taken])?;
        if is_done {
            return Poll::Ready(Ok((count > 0).then_some(reading)));
        }
    }
}
