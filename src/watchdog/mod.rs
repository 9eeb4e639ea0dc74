//! The watchdog finds parts of the relay that stand still, and reports them in the log, in `/status` and in `/ready`.
//!
//! Its thread looks once a second, so that an idle relay hardly wakes the processor. The thread depends on no part that it watches:
//! it takes only locks that are held for arithmetic, reads no file on a disk, and reads no state of the runtime while the runtime
//! stands still. Time is counted in looks, so that a paused process (`docker pause`, a suspended laptop) does not count as one that
//! stood still.
//!
//! - the **runtime**: each look asks a task for an answer, and the task counts its answers. While the count does not grow, no request
//!   is answered, `/live` and `/ready` included: a health check (`logferry health`, Kubernetes) fails by its timeout. systemd gets no
//!   keep-alive either.
//! - a **thread** in an uninterruptible wait (`threads`), as behind a disk that hangs.
//! - a **listener** that cannot accept.
//! - a **forward** with pending lines of which none is delivered, filtered, rejected or found damaged.
//! - **numbered lines** that count as repeated although no relay has connected again: another sender may have used their numbers.

mod threads;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::{Pid, gettid};
use prometheus_client::metrics::counter::Counter;
use sd_notify::NotifyState;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::metrics::Metrics;
use crate::status::{self, ForwardStatus, Part, Phase, Standstill, Standstills, StatusRegistry};
use crate::tasks::spawn;
use threads::ThreadWatch;

/// The time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A runtime, thread or listener without progress for so long stands still.
const STANDSTILL: Duration = Duration::from_secs(2);
/// A forward without progress for so long stands still. By default a dead collector is found earlier (`dead-after`).
const FORWARD_STANDSTILL: Duration = Duration::from_secs(15);
/// How long lines may be repeated after a relay has connected: it sends again the lines without an acknowledgement.
const REPEATS: Duration = Duration::from_secs(60);
/// How long the standstill of numbered lines lasts after the last repetition without such a connection.
const REPEATED: Duration = Duration::from_secs(10);
/// Each part is logged this often at most.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// The watching thread, and the task that answers it on the runtime. Dropping the value ends both.
pub struct Watchdog {
    heartbeat: JoinHandle<()>,
    _stop: mpsc::Sender<()>,
}

impl Watchdog {
    /// Watches the current runtime, and the listeners and forwards of `registry` by their `metrics`. Writes into `standstills`.
    pub fn start(metrics: Arc<Metrics>, registry: Arc<StatusRegistry>, standstills: Standstills) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let heartbeat = Arc::<Heartbeat>::default();
        let mut watch = Watch::new(metrics.clone(), registry, heartbeat.clone());
        let mut manager = ServiceManager::new();
        let look = move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(LOOK_EVERY) {
                let found = watch.look();
                watch.heartbeat.asked.notify_one();
                for line in watch.log.update(&found, Instant::now()) {
                    tracing::warn!("watchdog: {line}");
                }
                if found.iter().all(|found| found.standstill.part != Part::Runtime) {
                    manager.tell_alive();
                }
                metrics.standstills.set(found.len() as i64);
                standstills.publish(found.into_iter().map(|found| found.standstill).collect());
            }
        };
        thread::Builder::new().name("watchdog".into()).spawn(look)?;
        Ok(Self { heartbeat: spawn(heartbeat.run()), _stop: stop })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.heartbeat.abort();
    }
}

/// The service manager, if it asks for keep-alives (systemd's `WatchdogSec=`). Without them it kills the relay and starts it again.
struct ServiceManager {
    /// How often a keep-alive is due; `None` when none is asked for.
    every: Option<Duration>,
    told: Option<Instant>,
}

impl ServiceManager {
    fn new() -> Self {
        Self { every: sd_notify::watchdog_enabled().map(|limit| limit / 2), told: None }
    }

    fn tell_alive(&mut self) {
        if let Some(every) = self.every
            && self.told.is_none_or(|told| told.elapsed() + LOOK_EVERY > every)
        {
            self.told = Some(Instant::now());
            // `run` has warned of a manager that cannot be reached.
            let _ = sd_notify::notify(&[NotifyState::Watchdog]);
        }
    }
}

/// The answers of a task on the runtime, and the ID of the runtime's thread.
#[derive(Default)]
struct Heartbeat {
    /// Asks for the next answer. A timer of the runtime would wake it twice for each.
    asked: Notify,
    beats: AtomicU64,
    thread: AtomicI32,
}

impl Heartbeat {
    async fn run(self: Arc<Self>) {
        self.thread.store(gettid().as_raw(), Ordering::Relaxed);
        loop {
            self.beats.fetch_add(1, Ordering::Relaxed);
            self.asked.notified().await;
        }
    }
}

/// A standstill, and whether the log should have it.
#[derive(Debug)]
struct Found {
    standstill: Standstill,
    /// Has the part itself logged what is wrong?
    is_logged_elsewhere: bool,
}

/// A count that should grow, and the number of looks since it last grew.
#[derive(Clone, Copy, Default)]
struct Progress {
    count: u64,
    looks: u32,
}

impl Progress {
    /// Notes the present count. Returns for how long the count has not grown.
    fn look(&mut self, count: u64) -> Duration {
        *self = Self { count, looks: if count == self.count { self.looks + 1 } else { 0 } };
        LOOK_EVERY * self.looks
    }
}

/// The watched parts, and their counts at the last look.
struct Watch {
    metrics: Arc<Metrics>,
    registry: Arc<StatusRegistry>,
    heartbeat: Arc<Heartbeat>,
    runtime: Progress,
    threads: ThreadWatch,
    /// Forwards with pending lines, by name.
    forwards: HashMap<String, Progress>,
    /// Accepted connections of RELP listeners, and lines that count as repeated.
    accepted: Progress,
    repeated: Progress,
    log: StandstillLog,
}

impl Watch {
    fn new(metrics: Arc<Metrics>, registry: Arc<StatusRegistry>, heartbeat: Arc<Heartbeat>) -> Self {
        Self {
            metrics,
            registry,
            heartbeat,
            runtime: Progress::default(),
            threads: ThreadWatch::default(),
            forwards: HashMap::new(),
            accepted: Progress::default(),
            repeated: Progress::default(),
            log: StandstillLog::default(),
        }
    }

    /// Returns the parts that stand still now.
    fn look(&mut self) -> Vec<Found> {
        let mut found = self.threads();
        match self.runtime() {
            // The runtime may hold the locks of its state.
            Some(runtime) => found.push(runtime),
            None => {
                let topology = self.registry.topology();
                found.extend(topology.listeners.iter().filter_map(listener));
                found.extend(self.forwards(&topology.forwards));
                found.extend(self.numbered());
            }
        }
        found
    }

    fn threads(&mut self) -> Vec<Found> {
        let waiting = self.threads.look().into_iter().map(|(name, place, looks)| (name, place, LOOK_EVERY * looks));
        let standing = waiting.filter(|(_, _, time)| *time >= STANDSTILL);
        standing.map(|(name, place, time)| Found::new(Part::Thread(name), place, time)).collect()
    }

    fn runtime(&mut self) -> Option<Found> {
        let time = self.runtime.look(self.heartbeat.beats.load(Ordering::Relaxed));
        let thread = Pid::from_raw(self.heartbeat.thread.load(Ordering::Relaxed));
        (time >= STANDSTILL).then(|| Found::new(Part::Runtime, threads::place(thread), time))
    }

    /// A standstill of another relay's lines: they count as repeated although no connection was accepted that could repeat them.
    fn numbered(&mut self) -> Option<Found> {
        let is_relp = |(address, _): &(String, _)| address.starts_with("relp");
        let accepted =
            self.metrics.listeners().iter().filter(|one| is_relp(one)).map(|(_, one)| one.accepted.get()).sum();
        let quiet = self.accepted.look(accepted);
        let (before, repeated) = (self.repeated.count, self.metrics.spool().dropped_repeated.get());
        if repeated > before && quiet < REPEATS {
            // A relay that has connected again repeats lines.
            self.repeated = Progress { count: repeated, looks: u32::MAX / 2 };
            return None;
        }
        let since = self.repeated.look(repeated);
        let is_so = repeated > 0 && since < REPEATED;
        is_so.then(|| Found::new(Part::Numbered, WAITS_FOR_NUMBERS.to_owned(), quiet))
    }

    fn forwards(&mut self, forwards: &[status::Forward]) -> Vec<Found> {
        let before = std::mem::take(&mut self.forwards);
        let mut found = Vec::new();
        for forward in forwards {
            let metrics = self.metrics.forward_metrics(&forward.name);
            if metrics.pending() == 0 {
                continue;
            }
            let gone = [&metrics.delivered, &metrics.filtered, &metrics.rejected, &metrics.damaged];
            let gone = gone.map(Counter::get).iter().sum();
            let Some(mut progress) = before.get(&forward.name).copied() else {
                self.forwards.insert(forward.name.clone(), Progress { count: gone, looks: 0 });
                continue;
            };
            let time = progress.look(gone);
            self.forwards.insert(forward.name.clone(), progress);
            let status = forward.state.now();
            // A target that gathers lines for an object may wait for longer.
            if time >= FORWARD_STANDSTILL && !status.gathers {
                // The forward itself logs why no collector can be connected.
                let has_failed = status.last_error.as_ref().is_some_and(|error| error.at.elapsed() <= time);
                let is_logged_elsewhere = status.stopped || (status.phase != Phase::Connected && has_failed);
                let part = Part::Forward(forward.name.clone());
                found.push(Found { is_logged_elsewhere, ..Found::new(part, awaited(&status), time) });
            }
        }
        found
    }
}

const WAITS_FOR_NUMBERS: &str = "numbers that were not taken: its lines count as repeated \
    (logferry_spool_dropped, reason \"repeated\") although no relay has connected since, so that somebody else may have used its \
    numbers; see who can reach the relp:// listeners, and set their `numbered = \"proven\"`";

fn listener(listener: &status::Listener) -> Option<Found> {
    let failure = listener.state.failure()?;
    let (time, waits_for) = (failure.since.elapsed(), format!("this to end: {}", failure.why));
    (time >= STANDSTILL).then(|| Found::new(Part::Listener(listener.address.clone()), waits_for, time))
}

/// What a forward waits for, by its status.
fn awaited(status: &ForwardStatus) -> String {
    let error = status.last_error.as_ref().map_or(String::new(), |error| format!(" ({})", error.says));
    match (&status.peer, status.phase) {
        _ if status.stopped => format!("a collector that takes lines{error}"),
        (Some(peer), Phase::Connected) => match peer.address {
            Some(address) => format!("an acknowledgement of {} at {address}", peer.target),
            None => format!("an acknowledgement of {}", peer.target),
        },
        _ => format!("a connection to a collector{error}"),
    }
}

impl Found {
    fn new(part: Part, waits_for: String, time: Duration) -> Self {
        Self { standstill: Standstill { part, waits_for, seconds: time.as_secs() }, is_logged_elsewhere: false }
    }
}

/// The log lines of standstills: one when a standstill begins, one when it is over.
#[derive(Default)]
struct StandstillLog {
    /// Parts whose standstill has begun in the log, and is not over there.
    open: HashMap<Part, Instant>,
    /// When each part was last logged.
    logged: HashMap<Part, Instant>,
}

impl StandstillLog {
    fn update(&mut self, found: &[Found], now: Instant) -> Vec<String> {
        let mut lines = Vec::new();
        self.open.retain(|part, since| {
            let goes_on = found.iter().all(|found| found.standstill.part != *part);
            if goes_on {
                lines.push(format!("{part} goes on, after {} s", now.duration_since(*since).as_secs()));
            }
            !goes_on
        });
        for Found { standstill, is_logged_elsewhere } in found {
            let part = &standstill.part;
            let is_due = self.logged.get(part).is_none_or(|logged| now.duration_since(*logged) >= LOG_EVERY);
            if !is_logged_elsewhere && is_due && !self.open.contains_key(part) {
                let since = now.checked_sub(Duration::from_secs(standstill.seconds)).unwrap_or(now);
                self.open.insert(part.clone(), since);
                self.logged.insert(part.clone(), now);
                lines.push(standstill.to_string());
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests;
