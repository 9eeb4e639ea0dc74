//! Plain text or TLS: what a connection goes through before its first message can come.

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

/// Finds out what is spoken. Nothing if the connection is over before a message could come.
pub async fn open(
    mut socket: AcceptedSocket,
    rules: &Rules,
    sender: &Ingest,
    shutdown: &mut watch::Receiver<bool>,
) -> Option<Connection> {
    let Some(acceptor) = &rules.tls else { return Some(Connection::Plain(socket)) };
    let first = if rules.plaintext {
        // No deadline: a container that logs in plain text may say its first word in a week.
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
        // Nothing of it is read before it is its turn. The places are never closed.
        let _place = rules.handshakes.acquire().await;
        acceptor.accept(socket).await
    };
    // In a box of its own: the state of a handshake is large, and most connections never have one.
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

/// Waits for the first byte and leaves it there. At a shutdown, only looks for it.
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
