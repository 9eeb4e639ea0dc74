//! Looks for a better place while a connection stands. The name may have moved away from the connected address, or a collector that
//! comes earlier in order may be back. The new connection stands before the old one is left. An error here never ends the old
//! connection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::backoff::Backoff;
use super::dial::{DialError, Dialer};
use super::link::{Link, Place};
use super::names::{Endpoint, Patience, Whereabouts};
use crate::config::{Destination, Target};

/// How long a connection to a collector that was away must stand before the forward moves to it. A proxy without a backend accepts
/// connections and drops them at once.
const PROBATION: Duration = Duration::from_secs(1);

/// Why a link is left before it ends.
pub enum Leave {
    /// There is a better place, and a connection to it stands.
    For(Moved),
    /// A connection that was left has broken. Its lines come before those on this link, and have to be sent again.
    ToSendAgain,
}

/// A better place, and the connection to it.
pub struct Moved {
    pub why: Why,
    pub link: Link,
    pub place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The name does not point to the old address any more.
    NameMoved,
    /// A collector that comes earlier in `to`, or by the priority of its SRV record, can be connected again.
    Failback,
}

pub struct TargetWatch {
    dialer: Dialer,
    /// Where the connection that stands leads to.
    place: Place,
    /// Notified when the connection that stands has stalled: the time to look the name up.
    stalled: Arc<Notify>,
    /// Waits between two attempts to reach an earlier collector.
    failback: Backoff,
}

impl TargetWatch {
    pub fn new(dialer: Dialer, place: Place, stalled: Arc<Notify>, failback: Backoff) -> Self {
        Self { dialer, place, stalled, failback }
    }

    /// Waits until there is a better place.
    pub async fn elsewhere(self) -> Moved {
        tokio::select! {
            moved = self.moved_away() => moved,
            moved = self.earlier_is_back() => moved,
        }
    }

    /// Looks the name up when its answer has expired, and when the connection stalls. Ends when the name has moved away from
    /// the endpoint and one of the new endpoints is connected.
    async fn moved_away(&self) -> Moved {
        let target = self.target(self.place.target);
        let (Some(to), Some(old)) = (target.reached_at(), &self.place.endpoint) else {
            return std::future::pending().await;
        };
        let dead_after = self.dialer.settings.dead_after;
        let mut ttl = self.place.ttl;
        let mut whereabouts = Whereabouts::new(old.clone(), Instant::now());
        loop {
            let is_stalled = tokio::select! {
                () = sleep(ttl) => false,
                // The link repeats the notice after each fifth of `dead-after`, as long as the stall lasts.
                () = self.stalled.notified() => true,
            };
            if is_stalled {
                self.dialer.state.stalled(dead_after * 2 / 5);
            }
            // A look-up that failed says nothing about where the name points.
            let Ok(answer) = self.dialer.look_up(to, Patience::BothFamilies).await else { continue };
            ttl = answer.ttl;
            if !self.dialer.has_moved(to, &mut whereabouts, &answer, is_stalled) {
                self.dialer.state.resolved_again(ttl);
                continue;
            }
            let limits = self.dialer.standstill(0, answer.endpoints.len());
            match self.dialer.connect_any(target, answer.endpoints.iter(), limits).await {
                Ok((link, endpoint)) => {
                    let place = Place { target: self.place.target, endpoint: Some(endpoint), ttl };
                    return Moved { why: Why::NameMoved, link, place };
                }
                Err(problem) => {
                    let peer = old.peer;
                    let trouble = format!("{target} no longer points to {peer}, but: {problem}");
                    self.dialer.state.failed(&trouble);
                    if self.dialer.limiter.is_new(&trouble) {
                        tracing::warn!(parent: self.dialer.limiter.span(), "{trouble}; going on with {peer}");
                    }
                }
            }
        }
    }

    /// Tries the collectors before the connected one, again and again. Ends when one of them is connected and keeps the connection.
    async fn earlier_is_back(&self) -> Moved {
        let mut failback = self.failback.clone();
        loop {
            sleep(failback.wait()).await;
            for target in 0..=self.place.target {
                if let Some(moved) = self.try_better(target).await {
                    return moved;
                }
            }
        }
    }

    async fn try_better(&self, target: usize) -> Option<Moved> {
        let (to_try, is_ours) = (self.target(target), target == self.place.target);
        let to = to_try.reached_at()?;
        // A connection proves that the collector is back. For UDP it proves nothing, and each attempt would cost a line.
        let is_proof = !to_try.address.is_udp();
        if !is_proof || is_ours && matches!(to, Destination::Host(_)) {
            return None;
        }
        let answer = self.dialer.look_up_or_remember(to).await.ok()?;
        let ours = self.place.endpoint.as_ref().filter(|_| is_ours);
        let better = |endpoint: &&Endpoint| ours.is_none_or(|ours| endpoint.priority < ours.priority);
        let limits = self.dialer.standstill(0, answer.endpoints.len());
        let connected = self.dialer.connect_any(to_try, answer.endpoints.iter().filter(better), limits).await;
        let say = |problem: &DialError| self.dialer.state.failed(&format!("{to_try} is still away: {problem}"));
        let (mut link, endpoint) = connected.inspect_err(say).ok()?;
        if timeout(PROBATION, link.ends()).await.is_ok() {
            return None;
        }
        let place = Place { target, endpoint: Some(endpoint), ttl: answer.ttl };
        Some(Moved { why: Why::Failback, link, place })
    }

    fn target(&self, at: usize) -> &Target {
        &self.dialer.settings.to[at]
    }
}
