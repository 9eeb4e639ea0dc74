//! The resender: sends dead letters of a forward again, beside the forward and over a connection of its own. When the collector still
//! refuses everything, the letters wait and the forward does not.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::backoff::Backoff;
use super::forwarder::Forwarder;
use super::half_closed::HalfClosed;
use super::lines::Lines;
use super::log_limiter::LogLimiter;
use super::names::Resolver;
use super::{Deadline, Orders};
use crate::config;
use crate::loops::LoopGuard;
use crate::metrics::ForwardMetrics;
use crate::spool::{ResendReader, Resends};
use crate::status::SharedForwardStatus;
use crate::tls::Connector;

/// Waits before letters are tried again, after a disk error or after the connection ended.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

pub struct Resender {
    pub resends: Resends,
    pub settings: config::Forward,
    pub resolver: Resolver,
    pub sd_id: String,
    /// The forward's own.
    pub metrics: ForwardMetrics,
    pub deadline: Deadline,
    pub connectors: watch::Receiver<Option<Connector>>,
    pub loops: Arc<LoopGuard>,
}

impl Resender {
    /// Sends letters whenever there are some, until `leaving` is true.
    pub async fn run(self, mut leaving: watch::Receiver<bool>) {
        let limiter = Arc::new(LogLimiter::of_resend(&self.settings.name));
        let mut waits = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        loop {
            let wait = match self.resends.open(&self.metrics.resent, &self.metrics.resend_pending).await {
                Ok(None) => None,
                Ok(Some(letters)) => match self.send(letters, &limiter, leaving.clone()).await {
                    Ok(true) => {
                        tracing::info!(parent: limiter.span(), "all dead letters were sent again");
                        waits.reset();
                        continue;
                    }
                    Ok(false) => Some(waits.wait()),
                    Err(error) => Some(says(&limiter, &error, &mut waits)),
                },
                Err(error) => Some(says(&limiter, &error, &mut waits)),
            };
            let again = async {
                match wait {
                    None => self.resends.appear().await,
                    Some(wait) => sleep(wait).await,
                }
            };
            tokio::select! {
                () = again => {}
                _ = leaving.wait_for(|left| *left) => return,
            }
        }
    }

    /// Sends these letters. True: none is left.
    async fn send(
        &self,
        letters: ResendReader,
        limiter: &Arc<LogLimiter>,
        leaving: watch::Receiver<bool>,
    ) -> io::Result<bool> {
        tracing::info!(parent: limiter.span(), "sending {} dead letters again", letters.remaining());
        let orders = Orders {
            deadline: self.deadline.clone(),
            leaving,
            half_closed: HalfClosed::default(),
            connectors: self.connectors.clone(),
            loops: self.loops.clone(),
        };
        let says = (self.metrics.of_resend(), SharedForwardStatus::default(), limiter.clone());
        let lines = Lines::Resent(Box::new(letters));
        let mut forwarder =
            Forwarder::of(self.settings.clone(), lines, self.resolver.clone(), &self.sd_id, says, orders);
        self.send_with_progress(&mut forwarder, limiter).await;
        forwarder.finish().await
    }

    /// Sends the letters, and says now and then how many are left.
    async fn send_with_progress(&self, forwarder: &mut Forwarder, limiter: &LogLimiter) {
        let mut work = pin!(forwarder.forward());
        let mut said = self.metrics.resend_pending.get();
        loop {
            tokio::select! {
                () = &mut work => return,
                () = sleep(SAY_EVERY) => {}
            }
            let left = self.metrics.resend_pending.get();
            // No log line while letters wait for their collector.
            if left != said {
                tracing::info!(parent: limiter.span(), "{left} dead letters are still to be sent again");
                said = left;
            }
        }
    }
}

/// The time between two log lines about letters that are still to be sent again.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Logs the error, and returns how long to wait.
fn says(limiter: &LogLimiter, error: &io::Error, waits: &mut Backoff) -> Duration {
    let problem = format!("cannot send dead letters again: {error}; trying again");
    if limiter.is_new(&problem) {
        tracing::error!(parent: limiter.span(), "{problem}");
    }
    waits.wait()
}
