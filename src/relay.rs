//! The wiring: the only file that knows every room. What is started in which order, what changes while it runs, and how
//! it ends.
//!
//! Sockets are bound before anything else, so that containers find the relay while names do not resolve and collectors
//! are down. Stopping walks the way a message walks: listeners read out what the kernel holds, the spool's writer ends
//! when no listener is left, forwards end when the spool is delivered or the grace period is over.
//!
//! A changed configuration is taken over in two steps: everything that can fail is tried, then what has changed is
//! changed. Listeners that stay keep their sockets and connections, forwards that stay do not notice.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::admin::{self, Admin};
use crate::board::{self, Board, ForwardState};
use crate::config::{self, Config, ConfigErrors, ListenAddress};
use crate::forward::{self, Deadline, Forwarder, Orders, Resolver};
use crate::listen::{self, Bound, Common, Intake, LOOK_FOR_PIECES_EVERY, Pieces, Running, Shedding, Terms, Treatment};
use crate::log;
use crate::losses::Teller;
use crate::metrics::Metrics;
use crate::spool::{self, Inlet, Reader, Spool, WhenFull, Writer};
use crate::syslog::Translator;
use crate::tls::{self, Renewed, TlsError, Watch};

/// How long after the grace period the parts may take to notice. A relay that does not end in time is killed by Docker.
const WIND_DOWN: Duration = Duration::from_secs(2);

/// How long a forward that has changed may take to end its connection in good order before it is cut off.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// A relay whose sockets are open and whose spool is locked; nothing moves yet.
pub struct Relay {
    config: Config,
    metrics: Arc<Metrics>,
    listeners: Vec<Bound>,
    admin: Option<Admin>,
    spool: Writer,
    spool_handle: spool::Handle,
    forwarders: Vec<(Forwarder, Reins)>,
    deadline: watch::Sender<Option<Instant>>,
    own_words: Option<log::Stream>,
    certificates: Watch,
}

/// A relay at work: what can be changed while it is.
struct Working {
    config: Config,
    metrics: Arc<Metrics>,
    board: Arc<Board>,
    listeners: Vec<Listening>,
    forwards: Vec<Forwarding>,
    treatments: watch::Sender<Treatment>,
    common: Common,
    inlet: Inlet,
    spool: spool::Handle,
    deadline: watch::Sender<Option<Instant>>,
    teller: Option<(JoinHandle<Teller>, oneshot::Sender<()>)>,
    /// Hands on what has waited for the rest of its line for long enough.
    piecer: JoinHandle<()>,
    /// Carries what the relay says into its spool, under this host name, until nobody can change it any more.
    own_words: Option<(JoinHandle<()>, watch::Sender<String>)>,
    renewals: mpsc::Receiver<Vec<Renewed>>,
}

struct Listening {
    settings: config::Listen,
    /// Where it listens, with its real port.
    address: ListenAddress,
    running: Running,
    stop: watch::Sender<bool>,
}

struct Forwarding {
    settings: config::Forward,
    task: JoinHandle<()>,
    reins: Reins,
}

/// What a forward is told through, and where it says how it fares.
struct Reins {
    leave: watch::Sender<bool>,
    connector: watch::Sender<Option<TlsConnector>>,
    state: ForwardState,
}

/// Why a relay cannot start. One line for a person.
#[derive(Debug)]
pub struct StartError(String);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

impl Relay {
    /// Binds every socket, opens the spool and reads the certificates. Nothing is resolved, connected or read.
    pub fn bind(config: Config) -> Result<Self, StartError> {
        Self::bind_with(config, Arc::new(Metrics::new()), None)
    }

    /// The same, with what the relay says about itself carried into its spool, and counted by the `metrics` it counts by.
    pub fn bind_with(
        config: Config,
        metrics: Arc<Metrics>,
        own_words: Option<log::Stream>,
    ) -> Result<Self, StartError> {
        refuse_strays(&config)?;
        let certificates = Watch::new(&config, &metrics);
        let listeners =
            config.listen.iter().map(|listener| bind_listener(listener, &metrics)).collect::<Result<Vec<_>, _>>()?;
        let admin = bind_admin(&config.admin, &metrics)?;
        let (spool, spool_handle, readers) = open_spool(&config, &metrics)?;
        let (deadline, _) = watch::channel(None);
        let forwarders = config.forward.iter().zip(readers).map(|(settings, reader)| {
            Ok(new_forwarder(&config, (settings, connector(settings)?), reader, &metrics, &deadline))
        });
        let forwarders = forwarders.collect::<Result<_, _>>()?;
        Ok(Self {
            config,
            metrics,
            listeners,
            admin,
            spool,
            spool_handle,
            forwarders,
            deadline,
            own_words,
            certificates,
        })
    }

    /// Where it listens, with the real ports where 0 was asked for. In the config's order.
    pub fn addresses(&self) -> Vec<ListenAddress> {
        self.listeners.iter().map(Bound::address).collect()
    }

    /// Where the status page, `/metrics`, `/live` and `/ready` are.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Admin::address)
    }

    pub fn metrics(&self) -> Arc<Metrics> {
        self.metrics.clone()
    }

    /// Relays until `shutdown` ends, then drains within the grace period. A configuration that comes out of `changed` is
    /// taken over, or refused with a word in the log. Must be called inside a tokio runtime.
    ///
    /// Boxed, so that the whole of it is compiled once and not for each way of stopping.
    pub async fn run(
        self,
        mut shutdown: Pin<Box<dyn Future<Output = ()>>>,
        mut changed: mpsc::Receiver<Result<Config, ConfigErrors>>,
    ) -> Result<(), StartError> {
        let Self {
            config,
            metrics,
            listeners,
            admin,
            spool,
            spool_handle,
            forwarders,
            deadline,
            own_words,
            certificates,
        } = self;
        let (inlet, spool_thread) = spool
            .spawn(Some(config.spool.max_wait))
            .map_err(|error| StartError(format!("spool: cannot start its thread: {error}")))?;
        let (treatments, _) = watch::channel(treatment(&config));
        let common = Common { buckets: Arc::default(), pieces: Arc::new(Pieces::new(metrics.pieces())) };
        let mut working = Working {
            piecer: tokio::spawn(hand_on_pieces(common.pieces.clone(), inlet.clone())),
            common,
            metrics,
            board: Arc::default(),
            listeners: Vec::new(),
            forwards: Vec::new(),
            treatments,
            inlet,
            spool: spool_handle,
            deadline,
            teller: None,
            own_words: None,
            renewals: renewals_of(certificates),
            config,
        };
        let config = working.config.clone();
        for (settings, bound) in config.listen.iter().zip(listeners) {
            working.start_listener(settings, bound);
        }
        for (settings, (forwarder, reins)) in config.forward.iter().zip(forwarders) {
            working.start_forward(settings, forwarder, reins);
        }
        working.start_telling(None);
        working.carry_own_words(own_words);
        working.call_roll();
        let admin = admin.map(|admin| tokio::spawn(admin.serve(working.sources())));

        loop {
            let new = tokio::select! {
                () = &mut shutdown => break,
                Some(new) = changed.recv() => new,
                Some(renewed) = working.renewals.recv() => {
                    working.renew(renewed);
                    continue;
                }
            };
            let taken_over = match new {
                Ok(new) => working.take_over(new).await,
                Err(error) => Err(error.to_string()),
            };
            match taken_over {
                Ok(()) => {
                    working.metrics.reloads_applied.inc();
                    tracing::info!("config: read again, and in force");
                }
                Err(problem) => {
                    working.metrics.reloads_refused.inc();
                    tracing::error!("config: not reloaded, the old one stays in force: {problem}");
                }
            }
        }

        working.stop(spool_thread).await;
        if let Some(admin) = admin {
            admin.abort();
            // With it goes its hold on the spool.
            let _ = admin.await;
        }
        tracing::info!("stopped");
        Ok(())
    }
}

impl Working {
    fn start_listener(&mut self, settings: &config::Listen, bound: Bound) {
        let (stop, stopping) = watch::channel(false);
        let (treatments, configured) = (self.treatments.subscribe(), settings.address.to_string());
        let intake = Intake::new(treatments, self.inlet.clone(), &self.metrics, &configured, &self.common);
        let address = bound.address();
        let running = bound.start(intake, stopping);
        self.listeners.push(Listening { settings: settings.clone(), address, running, stop });
    }

    fn start_forward(&mut self, settings: &config::Forward, forwarder: Forwarder, reins: Reins) {
        let task = tokio::spawn(forwarder.run());
        self.forwards.push(Forwarding { settings: settings.clone(), task, reins });
    }

    /// Watches for losses, at every listener and forward there is. `before`: what has been told of already.
    fn start_telling(&mut self, before: Option<Teller>) {
        let fresh = || Teller::new(&self.config.hostname, self.inlet.clone(), &self.metrics);
        let mut teller = before.unwrap_or_else(fresh);
        teller.call(&self.config.hostname);
        for listener in &self.listeners {
            let address = listener.settings.address.to_string();
            teller.watch_listener(&address, &self.metrics.listener(&address));
        }
        for forward in &self.forwards {
            let name = &forward.settings.name;
            teller.watch_forward(name, &self.metrics.forward(name));
        }
        let (stop, stopped) = oneshot::channel();
        self.teller = Some((tokio::spawn(teller.run(stopped)), stop));
    }

    fn carry_own_words(&mut self, own_words: Option<log::Stream>) {
        let Some(own_words) = own_words else { return };
        let (hostname, hostnames) = watch::channel(self.config.hostname.clone());
        let carried = own_words.run(hostnames, self.inlet.clone(), self.metrics.listener("logferry"));
        self.own_words = Some((tokio::spawn(carried), hostname));
    }

    async fn stop_telling(&mut self) -> Option<Teller> {
        let (task, stop) = self.teller.take()?;
        drop(stop);
        task.await.ok()
    }

    /// Tells the board who is there now, in the config's order.
    fn call_roll(&self) {
        let listener = |settings: &config::Listen| {
            let listening = self.listeners.iter().find(|listening| listening.settings.address == settings.address)?;
            Some(board::Listener { name: settings.address.to_string(), address: listening.address.to_string() })
        };
        let forward = |settings: &config::Forward| {
            let forwarding = self.forwards.iter().find(|forwarding| forwarding.settings.name == settings.name)?;
            let to = settings.to.iter().map(ToString::to_string).collect();
            Some(board::Forward { name: settings.name.clone(), to, state: forwarding.reins.state.clone() })
        };
        self.board.call(board::Roll {
            hostname: self.config.hostname.clone(),
            listeners: self.config.listen.iter().filter_map(listener).collect(),
            forwards: self.config.forward.iter().filter_map(forward).collect(),
        });
    }

    /// What `admin` answers from.
    fn sources(&self) -> admin::Sources {
        admin::Sources {
            metrics: self.metrics.clone(),
            board: self.board.clone(),
            spool: self.spool.clone(),
            prober: self.inlet.prober(),
        }
    }

    /// Makes `new` the configuration. An error: nothing has changed.
    async fn take_over(&mut self, new: Config) -> Result<(), String> {
        self.config.needs_no_restart(&new)?;
        refuse_strays(&new).map_err(|error| error.to_string())?;
        let certificates = Watch::new(&new, &self.metrics);
        let mut kept = Vec::new();
        let mut added = Vec::new();
        let mut gone: Vec<usize> = (0..self.listeners.len()).collect();
        for settings in &new.listen {
            let same = gone.iter().position(|index| self.listeners[*index].settings.address == settings.address);
            match same.map(|place| gone.remove(place)) {
                Some(index) => {
                    kept.push((index, settings, read_options(settings).map_err(|error| error.to_string())?));
                }
                None => {
                    added.push((settings, bind_listener(settings, &self.metrics).map_err(|error| error.to_string())?))
                }
            }
        }
        let connectors = new.forward.iter().map(connector).collect::<Result<Vec<_>, _>>();
        let connectors = connectors.map_err(|error| error.to_string())?;

        // From here on nothing is refused any more.
        self.renewals = renewals_of(certificates);
        let told = self.stop_telling().await;
        self.treatments.send_replace(treatment(&new));
        for (index, settings, options) in kept {
            self.listeners[index].running.change(options);
            self.listeners[index].settings = settings.clone();
        }
        for index in gone.into_iter().rev() {
            let Listening { settings, running, stop, .. } = self.listeners.remove(index);
            stop.send_replace(true);
            tracing::info!("listen: {} is no longer listened on", settings.address);
            tokio::spawn(running.stopped());
        }
        for (settings, bound) in added {
            self.start_listener(settings, bound);
        }
        self.spool.set_limits(new.spool.max_size, new.spool.when_full);
        self.change_forwards(&new, connectors).await;
        self.config = new;
        self.start_telling(told);
        if let Some((_, hostname)) = &self.own_words {
            hostname.send_replace(self.config.hostname.clone());
        }
        self.call_roll();
        Ok(())
    }

    /// Ends the forwards that are not in `new`, or not as they were; starts those that are new, or not as they were. Those
    /// that stay use the certificates of now for their next connection.
    async fn change_forwards(&mut self, new: &Config, connectors: Vec<Option<TlsConnector>>) {
        let all_change = self.config.resolve != new.resolve || self.config.syslog.sd_id != new.syslog.sd_id;
        let stays = |forward: &Forwarding| !all_change && new.forward.contains(&forward.settings);
        let (staying, leaving): (Vec<_>, Vec<_>) = std::mem::take(&mut self.forwards).into_iter().partition(stays);
        self.forwards = staying;
        for forward in &leaving {
            forward.reins.leave.send_replace(true);
        }
        let end = Instant::now() + LEAVE_WITHIN;
        for Forwarding { settings, mut task, .. } in leaving {
            if timeout_at(end, &mut task).await.is_err() {
                tracing::warn!("forward {}: cut off in the middle; some lines may come twice", settings.name);
                task.abort();
                let _ = task.await;
            }
            if new.forward.iter().all(|forward| forward.name != settings.name) {
                self.forget_forward(&settings.name);
            }
        }
        for (settings, connector) in new.forward.iter().zip(connectors) {
            if let Some(staying) = self.forwards.iter().find(|forward| forward.settings.name == settings.name) {
                staying.reins.connector.send_replace(connector);
                continue;
            }
            match self.spool.add_reader(&settings.name, &self.metrics) {
                Ok(reader) => {
                    let (forwarder, reins) =
                        new_forwarder(new, (settings, connector), reader, &self.metrics, &self.deadline);
                    self.start_forward(settings, forwarder, reins);
                }
                Err(error) => tracing::error!("forward {}: cannot be started, reload again: {error}", settings.name),
            }
        }
    }

    /// Hands what was read from changed files to those it is for. Connections that stand do not notice.
    fn renew(&self, renewed: Vec<Renewed>) {
        const RENEWED: &str = "its certificates have changed; new connections use the new ones";
        for renewed in renewed {
            self.metrics.tls().reloads_applied.inc();
            match renewed {
                Renewed::Listen(settings, acceptor) => {
                    for listener in self.listeners.iter().filter(|listener| listener.settings == settings) {
                        listener.running.change(listen_options(&settings, Some(acceptor.clone())));
                    }
                    tracing::info!("listen {}: {RENEWED}", settings.address);
                }
                Renewed::Forward(settings, connector) => {
                    for forward in self.forwards.iter().filter(|forward| forward.settings == settings) {
                        forward.reins.connector.send_replace(Some(connector.clone()));
                    }
                    tracing::info!("forward {}: {RENEWED}", settings.name);
                }
            }
        }
    }

    /// Its place in the spool is given up, so that it holds nothing back.
    fn forget_forward(&self, name: &str) {
        match self.spool.add_reader(name, &self.metrics) {
            Ok(reader) => {
                tracing::warn!(
                    "forward {name}: no longer configured; {} lines were not delivered to it",
                    reader.waiting()
                );
                reader.forget();
            }
            Err(error) => tracing::error!("spool: cannot forget forward {name}, which may hold lines back: {error}"),
        }
    }

    /// Reads out the listeners, then sends for as long as the grace period lasts.
    async fn stop(mut self, spool_thread: std::thread::JoinHandle<()>) {
        let config = &self.config;
        tracing::info!("stopping: reading out the listeners, then sending for up to {:?}", config.grace);
        let end = Instant::now() + config.grace;
        self.deadline.send_replace(Some(end));
        let end = end + WIND_DOWN;
        for listener in &self.listeners {
            listener.stop.send_replace(true);
        }
        for listener in std::mem::take(&mut self.listeners) {
            if timeout_at(end, listener.running.stopped()).await.is_err() {
                tracing::warn!("listen: a listener did not end within the grace period; its last messages may be lost");
            }
        }
        self.piecer.abort();
        self.inlet.send(self.common.pieces.all()).await;
        self.stop_telling().await;
        if let Some((task, hostname)) = self.own_words.take() {
            drop(hostname);
            let _ = timeout_at(end, task).await;
        }
        let Self { config, inlet, forwards, piecer, .. } = self;
        // Its inlet would keep the writer from ending.
        let _ = piecer.await;
        drop(inlet);
        let spool_closed = tokio::task::spawn_blocking(move || spool_thread.join());
        if timeout_at(end, spool_closed).await.is_err() {
            tracing::warn!("spool: {} was not synced within the grace period", config.spool.dir.display());
        }
        for Forwarding { settings, task, reins } in forwards {
            if timeout_at(end, task).await.is_err() {
                let name = &settings.name;
                tracing::warn!(
                    "forward {name}: did not end within the grace period; what it had not sent stays in the spool"
                );
            }
            drop(reins);
        }
    }
}

/// With `drop-oldest` a new line is worth more than an old one, so that of new ones only debug messages are refused.
fn treatment(config: &Config) -> Treatment {
    const NEVER: u8 = 101;
    let debug_from = config.spool.shed_from.unwrap_or(NEVER);
    let info_from = match (config.spool.shed_from, config.spool.when_full) {
        (Some(from), WhenFull::DropNewest) => from.midpoint(100),
        _ => NEVER,
    };
    let named = |listener: &config::Listen| Some((listener.address.to_string(), listener.name.clone()?));
    Treatment {
        translator: Translator::new(Arc::new(config.syslog_settings())),
        terms: Terms {
            drop: config.drop.clone().into(),
            rate: config.syslog.rate,
            shedding: Shedding { debug_from, info_from },
            sd_id: config.syslog.sd_id.as_str().into(),
        },
        names: Arc::new(config.listen.iter().filter_map(named).collect()),
        rejoin: config.syslog.rejoin,
    }
}

/// What waits for the rest of its line waits only for a moment.
async fn hand_on_pieces(pieces: Arc<Pieces>, inlet: Inlet) {
    loop {
        pieces.wait().await;
        sleep(LOOK_FOR_PIECES_EVERY).await;
        inlet.send(pieces.overdue(listen::now())).await;
    }
}

/// Reads the certificates of a forward.
fn connector(settings: &config::Forward) -> Result<Option<TlsConnector>, StartError> {
    forward::connector(settings).map_err(|error| StartError(format!("forward {}: {error}", settings.name)))
}

fn new_forwarder(
    config: &Config,
    (settings, connector): (&config::Forward, Option<TlsConnector>),
    reader: Reader,
    metrics: &Metrics,
    deadline: &watch::Sender<Option<Instant>>,
) -> (Forwarder, Reins) {
    let ((leave, leaving), (connector, connectors)) = (watch::channel(false), watch::channel(connector));
    let state = ForwardState::default();
    let forwarder = Forwarder::new(
        settings.clone(),
        reader,
        Resolver::new(config.resolve.clone()),
        &config.syslog.sd_id,
        (metrics.forward(&settings.name), state.clone()),
        Orders { deadline: Deadline::new(deadline.subscribe()), leaving, connectors },
    );
    (forwarder, Reins { leave, connector, state })
}

/// Each socket that a service manager has handed over must be read.
fn refuse_strays(config: &Config) -> Result<(), StartError> {
    let addresses: Vec<_> = config.listen.iter().map(|listener| &listener.address).collect();
    listen::refuse_strays(&addresses).map_err(|error| StartError(error.to_string()))
}

fn bind_listener(settings: &config::Listen, metrics: &Metrics) -> Result<Bound, StartError> {
    let counted = metrics.listener(&settings.address.to_string());
    listen::bind(read_options(settings)?, counted).map_err(|error| StartError(error.to_string()))
}

/// Reads the certificates of a listener.
fn read_options(settings: &config::Listen) -> Result<listen::Options, StartError> {
    let failed = |error: TlsError| StartError(format!("listen {}: {error}", settings.address));
    let acceptor = settings.tls.as_ref().map(tls::acceptor).transpose().map_err(failed)?;
    Ok(listen_options(settings, acceptor))
}

fn listen_options(settings: &config::Listen, tls: Option<TlsAcceptor>) -> listen::Options {
    listen::Options {
        address: settings.address.clone(),
        tls,
        plaintext: settings.plaintext,
        max_frame: settings.max_frame,
        receive_buffer: settings.receive_buffer,
        max_connections: settings.max_connections,
        handshake_timeout: settings.handshake_timeout,
    }
}

/// Looks after the files of certificates until what comes out is dropped.
fn renewals_of(certificates: Watch) -> mpsc::Receiver<Vec<Renewed>> {
    let (renewals, renewed) = mpsc::channel(1);
    tokio::spawn(certificates.run(renewals));
    renewed
}

/// The default port being taken must not keep messages from being relayed; one that was asked for must be had.
fn bind_admin(admin: &config::Admin, metrics: &Arc<Metrics>) -> Result<Option<Admin>, StartError> {
    let Some(address) = admin.listen else { return Ok(None) };
    metrics.containers().export(admin.containers);
    match admin::bind(address) {
        Ok(bound) => Ok(Some(bound)),
        Err(error) if admin.explicit => Err(StartError(format!("admin: cannot listen on {address}: {error}"))),
        Err(error) => {
            tracing::warn!(
                "admin: cannot listen on {address}: {error}; going on without /metrics and `logferry health` (set [admin] listen)"
            );
            Ok(None)
        }
    }
}

fn open_spool(config: &Config, metrics: &Metrics) -> Result<(Writer, spool::Handle, Vec<Reader>), StartError> {
    let forwards = config.forward.iter().map(|forward| forward.name.clone()).collect();
    let options = spool::Options {
        when_full: config.spool.when_full,
        sync: config.spool.sync,
        ..spool::Options::new(&config.spool.dir, config.spool.max_size, forwards)
    };
    let spool = Spool::open(options, metrics).map_err(|error| StartError(error.to_string()))?;
    Ok((spool.writer, spool.handle, spool.readers))
}
