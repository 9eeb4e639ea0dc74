//! The opening of a connection before its first message: distinguishes plain text and TLS, and makes the handshake.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use tokio::sync::watch;
use tokio::time::timeout;

use super::super::ingest::Ingest;
use super::super::refusal::RefusalReason;
use super::super::{Rules, stopping};
use super::accepted::{AcceptedSocket, Connection};

/// The first byte of a TLS connection (content type "handshake"). No syslog message starts with it.
const TLS_HANDSHAKE: u8 = 0x16;

/// Detects plain text or TLS. `None`: the connection has ended before a message could come.
pub async fn open(
    mut socket: AcceptedSocket,
    rules: &Rules,
    sender: &Ingest,
    shutdown: &mut watch::Receiver<bool>,
) -> Option<Connection> {
    let Some(acceptor) = &rules.tls else { return Some(Connection::Plain(socket)) };
    let first = if rules.plaintext {
        // No deadline: a container that logs in plain text may be silent for a week.
        first_byte(&mut socket, shutdown).await
    } else {
        match timeout(rules.limits.handshake_timeout, first_byte(&mut socket, shutdown)).await {
            Ok(first) => first,
            Err(_) => {
                rules.refusals.refuse(sender.peer(), &RefusalReason::HandshakeTimeout);
                return None;
            }
        }
    };
    match first {
        Ok(Some(TLS_HANDSHAKE)) => {}
        Ok(Some(_)) if rules.plaintext => return Some(Connection::Plain(socket)),
        Ok(Some(_)) => {
            rules.refusals.refuse(sender.peer(), &RefusalReason::Plaintext);
            socket.reset_on_close();
            return None;
        }
        Ok(None) | Err(_) => return None,
    }
    let handshake = async {
        // No bytes of a handshake are read before its turn. The semaphore is never closed.
        let _place = rules.handshakes.acquire().await;
        acceptor.accept(socket).await
    };
    // Boxed, because the state of a handshake is large, and most connections have none.
    let handshake = Box::pin(timeout(rules.limits.handshake_timeout, handshake));
    tokio::select! {
        biased;
        () = stopping(shutdown) => None,
        done = handshake => {
            let reason = match done {
                Ok(Ok(stream)) => return Some(Connection::Tls(Box::new(stream))),
                Ok(Err(error)) => RefusalReason::of_handshake(&error),
                Err(_) => RefusalReason::HandshakeTimeout,
            };
            rules.refusals.refuse(sender.peer(), &reason);
            None
        }
    }
}

/// Waits for the first byte, without taking it. At a shutdown, only checks whether it is there.
async fn first_byte(socket: &mut AcceptedSocket, shutdown: &mut watch::Receiver<bool>) -> io::Result<Option<u8>> {
    tokio::select! {
        biased;
        () = stopping(shutdown) => {}
        first = poll_fn(|cx| socket.poll_first_byte(cx)) => return first,
    }
    socket.held_only();
    socket.reset_on_close();
    poll_fn(|cx| match socket.poll_first_byte(cx) {
        Poll::Pending => Poll::Ready(Ok(None)),
        first => first,
    })
    .await
}
