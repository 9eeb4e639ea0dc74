//! A relay at work: what runs, how each part of it is started, and how all of it ends, in the order in which a message walks.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::TlsConnector;

use crate::admin;
use crate::board::{self, Board, ForwardState};
use crate::config::{self, Config};
use crate::forward::Forwarder;
use crate::listen::{self, Common, IngestPolicy, Intake, LOOK_FOR_PIECES_EVERY, Prepared, Reassembler, Running};
use crate::log;
use crate::losses::Teller;
use crate::metrics::Metrics;
use crate::spool::{self, Inlet, Prober};
use crate::tls::Renewed;

/// How long after the grace period the parts may take to notice. A relay that does not end in time is killed by Docker.
const WIND_DOWN: Duration = Duration::from_secs(2);

/// A relay at work: what can be changed while it is.
pub struct Working {
    pub config: Config,
    pub metrics: Arc<Metrics>,
    pub board: Arc<Board>,
    pub listeners: Vec<Listening>,
    pub forwards: Vec<Forwarding>,
    pub policies: watch::Sender<IngestPolicy>,
    pub common: Common,
    pub inlet: Inlet,
    pub spool: spool::Handle,
    pub deadline: watch::Sender<Option<Instant>>,
    pub teller: Option<(JoinHandle<Teller>, oneshot::Sender<()>)>,
    /// Hands on what has waited for the rest of its line for long enough, and when it is told to stop all of it.
    pub piecer: (JoinHandle<()>, oneshot::Sender<()>),
    /// Carries what the relay says into its spool, under this host name, until nobody can change it any more.
    pub own_words: Option<(JoinHandle<()>, watch::Sender<String>)>,
    pub renewals: mpsc::Receiver<Vec<Renewed>>,
    /// Listeners that are no longer configured, until they have read out what they hold.
    pub leaving: Vec<JoinHandle<()>>,
}

pub struct Listening {
    pub settings: config::Listen,
    pub running: Running,
    pub stop: watch::Sender<bool>,
}

pub struct Forwarding {
    pub settings: config::Forward,
    pub task: JoinHandle<()>,
    pub reins: Reins,
}

/// What a forward is told through, and where it says how it fares.
pub struct Reins {
    pub leave: watch::Sender<bool>,
    pub connector: watch::Sender<Option<TlsConnector>>,
    pub state: ForwardState,
}

impl Working {
    pub fn start_listener(&mut self, settings: &config::Listen, listener: Prepared) {
        let (stop, stopping) = watch::channel(false);
        let (policies, inlet) = (self.policies.subscribe(), self.inlet.clone());
        let intake = Intake::new(policies, inlet, &self.metrics, &settings.address, &self.common);
        let running = listener.start(intake, stopping);
        self.listeners.push(Listening { settings: settings.clone(), running, stop });
    }

    pub fn start_forward(&mut self, settings: &config::Forward, forwarder: Forwarder, reins: Reins) {
        let task = tokio::spawn(forwarder.run());
        self.forwards.push(Forwarding { settings: settings.clone(), task, reins });
    }

    /// Watches for losses, at every listener and forward there is. `before`: what has been told of already.
    pub fn start_telling(&mut self, before: Option<Teller>) {
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

    pub fn carry_own_words(&mut self, own_words: Option<log::Stream>) {
        let Some(own_words) = own_words else { return };
        let (hostname, hostnames) = watch::channel(self.config.hostname.clone());
        let carried = own_words.run(hostnames, self.inlet.clone(), self.metrics.listener("logferry"));
        self.own_words = Some((tokio::spawn(carried), hostname));
    }

    pub async fn stop_telling(&mut self) -> Option<Teller> {
        let (task, stop) = self.teller.take()?;
        drop(stop);
        task.await.ok()
    }

    /// Tells the board who is there now, in the config's order.
    pub fn call_roll(&self) {
        // Several may have been asked for the same, with port 0.
        let mut rest: Vec<&Listening> = self.listeners.iter().collect();
        let listener = |settings: &config::Listen| {
            let at = rest.iter().position(|listening| listening.settings.address == settings.address)?;
            let listening = rest.remove(at);
            let (label, address) = (settings.address.to_string(), listening.running.address().to_string());
            Some(board::Listener { label, address, name: settings.name.clone() })
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
    pub fn sources(&self) -> admin::Sources {
        admin::Sources {
            metrics: self.metrics.clone(),
            board: self.board.clone(),
            spool: self.spool.clone(),
            prober: Prober::new(&self.inlet),
        }
    }

    /// Reads out the listeners, then sends for as long as the grace period lasts.
    pub async fn stop(mut self, spool_thread: std::thread::JoinHandle<()>) {
        let config = &self.config;
        tracing::info!("stopping: reading out the listeners, then sending for up to {:?}", config.grace);
        let end = Instant::now() + config.grace;
        self.deadline.send_replace(Some(end));
        let end = end + WIND_DOWN;
        for listener in &self.listeners {
            listener.stop.send_replace(true);
        }
        for leaving in std::mem::take(&mut self.leaving) {
            let _ = timeout_at(end, leaving).await;
        }
        for listener in std::mem::take(&mut self.listeners) {
            if timeout_at(end, listener.running.stopped()).await.is_err() {
                tracing::warn!("listen: a listener did not end within the grace period; its last messages may be lost");
            }
        }
        self.stop_telling().await;
        if let Some((task, hostname)) = self.own_words.take() {
            drop(hostname);
            let _ = timeout_at(end, task).await;
        }
        let Self { config, inlet, forwards, piecer: (piecer, stop), .. } = self;
        drop(stop);
        let _ = timeout_at(end, piecer).await;
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

/// What waits for the rest of its line waits only for a moment, and not longer than until `stop` is dropped.
pub async fn hand_on_pieces(reassembler: Arc<Reassembler>, inlet: Inlet, mut stop: oneshot::Receiver<()>) {
    loop {
        let overdue = async {
            reassembler.wait().await;
            sleep(LOOK_FOR_PIECES_EVERY).await;
        };
        tokio::select! {
            () = overdue => inlet.send(reassembler.overdue(listen::now())).await,
            _ = &mut stop => break,
        }
    }
    inlet.send(reassembler.all()).await;
}
