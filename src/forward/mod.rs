//! STAGE 4: lines from the spool to a collector.
//!
//! A [`Forwarder`] owns one cursor of the spool. It finds its collector by name (`names`) and connects (`dial`). A `link` carries
//! the lines, while `target_watch` looks for a better place. When the link ends, the forwarder goes back to the first line that the
//! collector may not have, and starts again, for ever. Nothing here ends the process: the spool holds the lines of a collector
//! that is away.
//!
//! In reading order:
//!
//! - `forwarder`.
//! - `source`, `lines` and `filtered_chunk`: where lines come from.
//! - `resender`: sends dead letters again.
//! - `link`: the closed set of ways to a place.
//! - `driver`: the one loop for TCP, TLS, RELP, NATS and the Forward protocol; `delivery`: the protocols; `stall`.
//! - `tcp`: the connection and its acknowledgements.
//! - `nats`: how a session with a NATS server begins.
//! - `half_closed`: connections that were left and that the collector has not closed.
//! - `datagram`, `http` and `file`: the other links.
//! - `encode`, and `shown` for `logferry explain`.
//! - `names`, `dial`, `target_watch` and `backoff`.
//! - `log_limiter`.
//! - `attempt`: checks only whether a collector can be reached.
//! - `read_back`, and `jetstream` for NATS: read delivered lines back.

mod attempt;
mod backoff;
mod datagram;
pub(crate) mod delivery;
mod dial;
mod driver;
pub(crate) mod encode;
mod file;
pub(crate) mod filtered_chunk;
mod forwarder;
mod half_closed;
mod http;
mod jetstream;
mod lines;
mod link;
mod log_limiter;
mod names;
mod nats;
mod read_back;
mod resender;
mod shown;
mod source;
mod stall;
mod target_watch;
pub(crate) mod tcp;

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::loops::LoopGuard;
use crate::tls::Connector;

pub use attempt::{Attempt, attempt};
pub use dial::tls_connector;
pub use encode::{encoding, shape};
pub use forwarder::Forwarder;
pub use half_closed::HalfClosed;
pub use names::{Endpoint, Patience, Resolver, SenderNames};
pub use read_back::ReadBack;
pub use shown::{Shown, shown};

/// What a forward listens to while it runs.
pub struct Orders {
    pub deadline: Deadline,
    /// True ends the forward. Lines in flight are brought to an end, and the rest stays in the spool.
    pub leaving: watch::Receiver<bool>,
    /// The connections that the previous forward of this name has left.
    pub half_closed: HalfClosed,
    /// The forward's TLS, see [`tls_connector`]. Each new connection uses the current value.
    pub connectors: watch::Receiver<Option<Connector>>,
    /// Knows forwards that lead back to this relay.
    pub loops: Arc<LoopGuard>,
}

/// When a stopping relay gives up on delivering. Unset while it runs.
#[derive(Clone)]
pub struct Deadline(watch::Receiver<Option<Instant>>);

impl Deadline {
    pub fn new(watch: watch::Receiver<Option<Instant>>) -> Self {
        Self(watch)
    }

    /// Waits until the deadline is set and has passed.
    pub async fn reached(&mut self) {
        loop {
            let deadline = *self.0.borrow_and_update();
            match deadline {
                Some(deadline) => return sleep_until(deadline).await,
                // The sender half is gone, so no deadline will come. The caller drops this future.
                None if self.0.changed().await.is_err() => std::future::pending().await,
                None => {}
            }
        }
    }

    /// Waits until the relay begins to stop.
    async fn announced(&mut self) {
        if self.0.wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn passed(&self) -> bool {
        self.0.borrow().is_some_and(|deadline| deadline <= Instant::now())
    }
}
