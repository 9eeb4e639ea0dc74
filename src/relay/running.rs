//! The running relay: its parts, how each of them starts, and how all of them end, in the order in which a message passes them.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use crate::admin;
use crate::config::{self, Config};
use crate::forward::{Forwarder, HalfClosed};
use crate::listen::{
    self, Held, Ingest, IngestPolicy, Moment, PENDING_CHECK_EVERY, Pending, Prepared, Quiet, Running, SharedAdmission,
};
use crate::log;
use crate::losses::LossReporter;
use crate::metrics::Metrics;
use crate::protocol::syslog::LocalAddresses;
use crate::record::UnixMicros;
use crate::spool::{self, Batch, Inlet, Prober};
use crate::status::{self, Mistake, Mistakes, SharedForwardStatus, Standstills, StatusRegistry};
use crate::tasks::{spawn, spawn_blocking};
use crate::tls::{Connector, Renewed};

/// How long the parts may take to end after the grace period. Docker kills a relay that takes too long.
const WIND_DOWN: Duration = Duration::from_secs(2);

/// How often a stopping relay logs the number of pending lines.
const SAY_PENDING_EVERY: Duration = Duration::from_secs(5);

/// A running relay: all parts that can change while it runs.
pub struct RunningRelay {
    pub config: Config,
    pub metrics: Arc<Metrics>,
    pub registry: Arc<StatusRegistry>,
    pub standstills: Standstills,
    pub mistakes: Mistakes,
    pub listeners: Vec<RunningListener>,
    pub forwards: Vec<RunningForward>,
    pub policies: watch::Sender<IngestPolicy>,
    pub admission: SharedAdmission,
    pub inlet: Inlet,
    pub spool: spool::Handle,
    pub deadline: watch::Sender<Option<Instant>>,
    pub reporter: Option<(JoinHandle<LossReporter>, oneshot::Sender<()>)>,
    /// Passes on messages that have waited long enough for their next part, and all of them when it is told to stop.
    pub reassembly: (JoinHandle<()>, oneshot::Sender<()>),
    /// Carries the relay's log into its spool, with this host name, until the sender half is dropped.
    pub log_stream: Option<(JoinHandle<()>, watch::Sender<String>)>,
    pub renewals: mpsc::Receiver<Vec<Renewed>>,
    /// The addresses of this machine, whenever they change.
    pub local_addresses: mpsc::Receiver<LocalAddresses>,
    /// Removed listeners, until they have read out what the kernel holds for them.
    pub leaving: Vec<JoinHandle<()>>,
}

pub struct RunningListener {
    pub settings: config::Listen,
    pub running: Running,
    pub stop: watch::Sender<bool>,
}

pub struct RunningForward {
    pub settings: config::Forward,
    pub task: JoinHandle<()>,
    pub control: ForwardControl,
}

/// The request to stop. It can be awaited repeatedly.
pub struct Shutdown {
    requested: Pin<Box<dyn Future<Output = ()>>>,
    begun: bool,
}

impl Shutdown {
    pub fn new(requested: Pin<Box<dyn Future<Output = ()>>>) -> Self {
        Self { requested, begun: false }
    }

    pub async fn begun(&mut self) {
        if !self.begun {
            self.requested.as_mut().await;
            self.begun = true;
        }
    }
}

/// The channels through which a forward gets orders, and the status that it writes.
pub struct ForwardControl {
    pub leave: watch::Sender<bool>,
    /// Passed on to the forward that replaces this one.
    pub half_closed: HalfClosed,
    pub connector: watch::Sender<Option<Connector>>,
    pub state: SharedForwardStatus,
}

impl RunningRelay {
    pub fn start_listener(&mut self, settings: &config::Listen, listener: Prepared) {
        let (stop, stopping) = watch::channel(false);
        let (policies, inlet) = (self.policies.subscribe(), self.inlet.clone());
        let ingest = Ingest::new(policies, inlet, &self.metrics, &settings.address, &self.admission);
        let running = listener.start(ingest, stopping);
        self.listeners.push(RunningListener { settings: settings.clone(), running, stop });
    }

    pub fn start_forward(&mut self, settings: &config::Forward, forwarder: Forwarder, control: ForwardControl) {
        let task = spawn(forwarder.run());
        self.forwards.push(RunningForward { settings: settings.clone(), task, control });
    }

    /// Notes the mistakes that show in the settings. `container_hostname`: see [`container_hostname`](super::container_hostname).
    pub fn note_mistakes(&self, container_hostname: Option<String>) {
        self.mistakes.forget();
        if let Some(says) = container_hostname {
            self.mistakes.note(Mistake::ContainerHostname, || says);
        }
    }

    /// Watches for losses at every listener and forward. `before`: the previous reporter, which knows the losses that are reported
    /// already.
    pub fn start_loss_reporter(&mut self, before: Option<LossReporter>) {
        let fresh = || LossReporter::new(&self.config.hostname, self.inlet.clone(), &self.metrics);
        let mut reporter = before.unwrap_or_else(fresh);
        reporter.set_hostname(&self.config.hostname);
        for listener in &self.listeners {
            let address = listener.settings.address.to_string();
            reporter.watch_listener(&address, &self.metrics.listener(&address));
        }
        for forward in &self.forwards {
            let name = &forward.settings.name;
            reporter.watch_forward(name, &self.metrics.forward(name));
        }
        let (stop, stopped) = oneshot::channel();
        self.reporter = Some((tokio::spawn(reporter.run(stopped)), stop));
    }

    /// From now on, senders at these addresses have this machine's name.
    pub fn set_local(&self, local: LocalAddresses) {
        self.policies.send_modify(|policy| policy.translator.set_local(Arc::new(local)));
    }

    pub fn carry_log_stream(&mut self, log_stream: Option<log::Stream>) {
        let Some(log_stream) = log_stream else { return };
        let (hostname, hostnames) = watch::channel(self.config.hostname.clone());
        let carried = log_stream.run(hostnames, self.inlet.clone(), self.metrics.listener("logferry"));
        self.log_stream = Some((spawn(carried), hostname));
    }

    pub async fn stop_loss_reporter(&mut self) -> Option<LossReporter> {
        let (task, stop) = self.reporter.take()?;
        drop(stop);
        task.await.ok()
    }

    /// Publishes the present listeners and forwards, in the config's order.
    pub fn publish_topology(&self) {
        self.admission.loops.set_listeners(self.listeners.iter().map(|listener| listener.running.address()).collect());
        // Several listeners may have the same configured address, with port 0.
        let mut rest: Vec<&RunningListener> = self.listeners.iter().collect();
        let listener = |settings: &config::Listen| {
            let at = rest.iter().position(|listener| listener.settings.address == settings.address)?;
            let listener = rest.remove(at);
            let (label, address) = (settings.address.to_string(), listener.running.address().to_string());
            let max_connections = (!settings.address.is_datagram()).then_some(settings.limits.max_connections);
            let (name, state) = (settings.name.clone(), listener.running.state());
            Some(status::Listener { label, address, name, max_connections, state })
        };
        let forward = |settings: &config::Forward| {
            let forward = self.forwards.iter().find(|forward| forward.settings.name == settings.name)?;
            let to = settings.to.iter().map(ToString::to_string).collect();
            Some(status::Forward { name: settings.name.clone(), to, state: forward.control.state.clone() })
        };
        self.registry.publish(status::Topology {
            hostname: self.config.hostname.clone(),
            listeners: self.config.listen.iter().filter_map(listener).collect(),
            forwards: self.config.forward.iter().filter_map(forward).collect(),
        });
    }

    /// The sources of `admin`'s answers.
    pub fn sources(&self) -> admin::Sources {
        admin::Sources {
            metrics: self.metrics.clone(),
            registry: self.registry.clone(),
            spool: self.spool.clone(),
            prober: Prober::new(&self.inlet),
            standstills: self.standstills.clone(),
            mistakes: self.mistakes.clone(),
            sd_id: self.config.syslog.sd_id.clone(),
            ready: self.config.admin.ready.clone(),
            tail: self.config.admin.tail.then(|| admin::Tail {
                tap: self.spool.tap(),
                token: self.config.admin.tail_token(),
                sd_id: self.config.syslog.sd_id.clone(),
            }),
        }
    }

    /// Waits for `what`. A shutdown that is requested meanwhile begins at once.
    pub async fn while_stoppable<T>(&mut self, shutdown: &mut Shutdown, what: impl Future<Output = T>) -> T {
        let mut what = pin!(what);
        tokio::select! {
            done = &mut what => return done,
            () = shutdown.begun() => {}
        }
        self.begin_stop();
        what.await
    }

    /// Begins to stop: listeners take nothing new, and the grace period begins unless it has begun. Returns its end.
    pub fn begin_stop(&self) -> Instant {
        let begun = *self.deadline.borrow();
        let end = begun.unwrap_or_else(|| {
            let grace = self.config.grace;
            tracing::info!("stopping: reading out the listeners, then sending for up to {grace:?}");
            let end = Instant::now() + grace;
            self.deadline.send_replace(Some(end));
            end
        });
        for listener in &self.listeners {
            listener.stop.send_replace(true);
        }
        end
    }

    /// Reads out the listeners, then sends until the grace period ends. It waits no longer than that for a disk that hangs.
    pub async fn stop(mut self, spool_thread: std::thread::JoinHandle<()>) {
        let end = self.begin_stop();
        let progress = spawn(say_pending(self.metrics.clone(), end));
        for leaving in std::mem::take(&mut self.leaving) {
            let _ = timeout_at(end, leaving).await;
        }
        for listener in std::mem::take(&mut self.listeners) {
            if timeout_at(end, listener.running.stopped()).await.is_err() {
                tracing::warn!("listen: a listener did not end within the grace period; its last messages may be lost");
            }
        }
        self.stop_loss_reporter().await;
        if let Some((task, hostname)) = self.log_stream.take() {
            drop(hostname);
            let _ = timeout_at(end, task).await;
        }
        let Self { config, inlet, forwards, spool, reassembly: (reassembly, stop), .. } = self;
        drop(stop);
        let _ = timeout_at(end, reassembly).await;
        drop(inlet);
        let spool_closed = spawn_blocking(move || spool_thread.join());
        let hangs = timeout_at(end, spool_closed).await.is_err();
        if hangs {
            tracing::warn!(
                "spool: {} was not written and synced within the grace period; is the disk hanging?",
                config.spool.dir.display()
            );
        }
        let end = end + WIND_DOWN;
        for RunningForward { settings, task, control } in forwards {
            if timeout_at(end, task).await.is_err() {
                let name = &settings.name;
                tracing::warn!("forward {name}: did not end within the grace period; unsent lines stay in the spool");
            }
            drop(control);
        }
        // Waits until the spool has the last positions of the forwards.
        if !hangs && timeout_at(end, spool.settled()).await.is_err() {
            tracing::warn!(
                "spool: {} does not take how far the forwards are; some lines will be sent again",
                config.spool.dir.display()
            );
        }
        progress.abort();
    }
}

/// Logs every few seconds how many lines are pending, until it is aborted.
async fn say_pending(metrics: Arc<Metrics>, end: Instant) {
    loop {
        sleep(SAY_PENDING_EVERY).await;
        let pending = metrics.forwards().iter().map(|(_, forward)| forward.pending()).max().unwrap_or(0);
        let left = end.saturating_duration_since(Instant::now()).as_secs();
        tracing::info!("stopping: {pending} lines pending, sending for up to {left} s more");
    }
}

/// Passes on messages that have waited long enough for the rest of their line or for their next line, and runs that are over. When
/// `stop` is dropped it passes on all of them.
pub async fn flush_pending(admission: SharedAdmission, inlet: Inlet, mut stop: oneshot::Receiver<()>) {
    let SharedAdmission { reassembler, joiner, quiet: Quiet { repeats, .. }, .. } = admission;
    // Lines that wait for a piece came in after the messages that wait for a line.
    let all = [&*joiner, &reassembler.pending];
    loop {
        let overdue = async {
            tokio::select! {
                () = joiner.wait() => {}
                () = reassembler.pending.wait() => {}
                () = repeats.wait() => {}
            }
            sleep(PENDING_CHECK_EVERY).await;
        };
        tokio::select! {
            () = overdue => {}
            _ = &mut stop => break,
        }
        for pending in all {
            let now = listen::now();
            inlet.send(ended(pending.overdue(now), &inlet, now)).await;
        }
        let now = listen::now();
        inlet.send(ended_runs(repeats.overdue(now), &inlet, now)).await;
    }
    for pending in all {
        inlet.send(ended(pending.all(), &inlet, listen::now())).await;
    }
    // The messages that have just ended may have become part of a run.
    inlet.send(ended_runs(repeats.all(), &inlet, listen::now())).await;
}

/// Runs the remaining checks on messages that wait no longer. Returns those that are let in.
fn ended(messages: Vec<Pending>, inlet: &Inlet, now: UnixMicros) -> Batch {
    let mut batch = Batch::new();
    for message in messages {
        let least = message.terms.gate.least(inlet.fullness());
        message.end(&mut batch, Moment { least, now, spool: inlet });
    }
    batch
}

/// The ends of runs of equal messages.
fn ended_runs(runs: Vec<Held>, inlet: &Inlet, now: UnixMicros) -> Batch {
    let mut batch = Batch::new();
    for held in runs {
        let least = held.message.terms.gate.least(inlet.fullness());
        held.end(&mut batch, Moment { least, now, spool: inlet });
    }
    batch
}
