//! The wiring, and the only folder that knows every stage: the order in which parts start, what can change while the relay runs,
//! and how it ends.
//!
//! Sockets are bound before anything else, so that containers find the relay while names do not resolve and collectors are down.
//! Parts stop in the order in which a message passes them: listeners read out what the kernel holds; the spool's writer ends when
//! no listener is left; forwards end when the spool is delivered or the grace period is over.
//!
//! A changed configuration is applied in two steps: first everything that can fail is tried, then the changes are made. Listeners
//! that stay keep their sockets and connections. Forwards that stay are not interrupted.
//!
//! - here: from a configuration to a relay that listens, and its main loop
//! - `parts`: makes the parts of the stages from the settings
//! - `running`: the running relay: its parts, how they start and how they end
//! - `reload`: applies another configuration, or other certificates

mod parts;
mod reload;
mod running;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::admin::{AddressFile, Admin};
use crate::coalescing::Coalescing;
use crate::config::{Config, ConfigErrors, ListenAddress, SecretError};
use crate::descriptors;
use crate::forward::{Forwarder, HalfClosed};
use crate::listen::{
    BindError, Bound, PendingMessages, Quiet, Reassembler, Repeats, Samples, SharedAdmission, local_addresses,
    watch_local_addresses,
};
use crate::log;
use crate::loops::LoopGuard;
use crate::metrics::Metrics;
use crate::protocol::syslog::LocalAddresses;
use crate::spool::{self, OpenError, Writer};
use crate::status::{Mistakes, Standstills};
use crate::tasks::spawn;
use crate::tls::CredentialsError;
use crate::tls::{TlsError, Watch};
use crate::watchdog::Watchdog;
pub use parts::container_hostname;
use parts::{
    bind_admin, bind_listener, fitted, ingest_policy, new_forwarder, open_spool, prepare_listener, read_connector,
    refuse_strays, renewals_of,
};
use reload::ReloadError;
use running::{ForwardControl, RunningRelay, Shutdown, flush_pending};

/// A relay whose sockets are bound and whose spool is locked. Nothing runs yet.
pub struct Relay {
    config: Config,
    metrics: Arc<Metrics>,
    listeners: Vec<Bound>,
    admin: Option<Admin>,
    spool: Writer,
    spool_handle: spool::Handle,
    forwarders: Vec<(Forwarder, ForwardControl)>,
    deadline: watch::Sender<Option<Instant>>,
    log_stream: Option<log::Stream>,
    certificates: Watch,
    /// The addresses of this machine.
    local: LocalAddresses,
    loops: Arc<LoopGuard>,
    container_hostname: Option<String>,
}

/// Why a relay cannot start, in one line for a person.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Listen(#[from] BindError),
    #[error("listen {0}: {1}")]
    Credentials(ListenAddress, Box<CredentialsError>),
    /// The forward's name, and what is wrong with its certificates.
    #[error("forward {0}: {1}")]
    ForwardTls(String, Box<TlsError>),
    #[error("admin: cannot listen on {0}: {1}{advice}", advice = who_listens(*.0, .1))]
    Admin(SocketAddr, io::Error),
    /// The token of the live tail.
    #[error("admin: {0}")]
    TailToken(SecretError),
    #[error(transparent)]
    Spool(#[from] OpenError),
    #[error("spool: cannot start its thread: {0}")]
    SpoolThread(io::Error),
}

/// What to do if the address of the admin port is in use.
fn who_listens(address: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("; `ss -ltnp 'sport = :{}'` shows by whom; or give [admin] listen another port", address.port())
        }
        _ => String::new(),
    }
}

impl Relay {
    /// Binds every socket, opens the spool and reads the certificates. No name is resolved, no connection is made, and no message
    /// is read.
    pub fn bind(config: Config) -> Result<Self, StartError> {
        Self::bind_with(config, Arc::new(Metrics::new()), None)
    }

    /// Like [`bind`](Self::bind). `log_stream` carries the relay's own log into its spool, and `metrics` counts what the relay
    /// does.
    pub fn bind_with(
        config: Config,
        metrics: Arc<Metrics>,
        log_stream: Option<log::Stream>,
    ) -> Result<Self, StartError> {
        refuse_strays(&config)?;
        if let Err(error) = descriptors::raise_limit() {
            tracing::warn!("cannot raise the limit of open files: {error}");
        }
        let config = fitted(config);
        let container_hostname = container_hostname(&config);
        let certificates = Watch::new(&config, &metrics);
        let listeners =
            config.listen.iter().map(|listener| bind_listener(listener, &metrics)).collect::<Result<Vec<_>, _>>()?;
        let admin = bind_admin(&config.admin, &metrics)?;
        let (spool, spool_handle, readers) = open_spool(&config, &metrics)?;
        spool_handle.coalescing().set_latency(config.latency);
        let (deadline, _) = watch::channel(None);
        let loops = Arc::<LoopGuard>::default();
        let forwarders = config.forward.iter().zip(readers).map(|(settings, reader)| {
            Ok(new_forwarder(
                &config,
                (settings, read_connector(settings)?),
                (reader, HalfClosed::default()),
                (&metrics, &loops),
                &deadline,
            ))
        });
        let forwarders = forwarders.collect::<Result<_, StartError>>()?;
        Ok(Self {
            config,
            metrics,
            listeners,
            admin,
            spool,
            spool_handle,
            forwarders,
            deadline,
            log_stream,
            certificates,
            local: local_addresses(),
            loops,
            container_hostname,
        })
    }

    /// The addresses of the listeners in the config's order. Port 0 is replaced by the real port.
    pub fn addresses(&self) -> Vec<ListenAddress> {
        self.listeners.iter().map(Bound::address).collect()
    }

    /// How this relay gathers messages. The runtime that it runs on calls it before it waits for events.
    pub fn coalescing(&self) -> Coalescing {
        self.spool_handle.coalescing()
    }

    /// Relays until `shutdown` ends, then drains within the grace period. A configuration from `changed` is applied, or refused
    /// with a log entry. Must be called inside a tokio runtime.
    ///
    /// `shutdown` is boxed, so that this function is compiled once and not for each type of future.
    pub async fn run(
        self,
        shutdown: Pin<Box<dyn Future<Output = ()>>>,
        mut changed: mpsc::Receiver<Result<Config, ConfigErrors>>,
    ) -> Result<(), StartError> {
        let listeners = self.listeners.into_iter().map(prepare_listener).collect::<Result<Vec<_>, _>>()?;
        let (inlet, spool_thread) =
            self.spool.spawn(Some(self.config.spool.max_wait)).map_err(StartError::SpoolThread)?;
        let (policies, _) = watch::channel(ingest_policy(&self.config, self.local.clone()));
        let mistakes = Mistakes::default();
        let admission = SharedAdmission {
            buckets: Arc::default(),
            reassembler: Arc::new(Reassembler::new(self.metrics.pieces())),
            joiner: Arc::new(PendingMessages::new(self.metrics.pieces())),
            quiet: Quiet {
                samples: Arc::new(Samples::default()),
                repeats: Arc::new(Repeats::new(self.metrics.repeat_pending())),
            },
            loops: self.loops.clone(),
            mistakes: mistakes.clone(),
        };
        let (stop, stopped) = oneshot::channel();
        let reassembly = spawn(flush_pending(admission.clone(), inlet.clone(), stopped));
        let mut running = RunningRelay {
            reassembly: (reassembly, stop),
            admission,
            metrics: self.metrics,
            registry: Arc::default(),
            standstills: Standstills::default(),
            mistakes: mistakes.clone(),
            listeners: Vec::new(),
            forwards: Vec::new(),
            policies,
            inlet,
            spool: self.spool_handle,
            deadline: self.deadline,
            reporter: None,
            log_stream: None,
            renewals: renewals_of(self.certificates),
            local_addresses: watch_local_addresses(self.local),
            leaving: Vec::new(),
            config: self.config,
        };
        let config = running.config.clone();
        for (settings, listener) in config.listen.iter().zip(listeners) {
            running.start_listener(settings, listener);
        }
        for (settings, (forwarder, control)) in config.forward.iter().zip(self.forwarders) {
            running.start_forward(settings, forwarder, control);
        }
        running.note_mistakes(self.container_hostname);
        running.start_loss_reporter(None);
        running.carry_log_stream(self.log_stream);
        running.publish_topology();
        let watchdog = Watchdog::start(running.metrics.clone(), running.registry.clone(), running.standstills.clone());
        if let Err(error) = &watchdog {
            tracing::warn!("watchdog: cannot start its thread ({error}); the relay will not report parts that stall");
        }
        let mut admin = self.admin;
        let address_file = admin.as_mut().and_then(Admin::write_address);
        let admin = admin.map(|admin| spawn(admin.serve(running.sources())));

        let mut shutdown = Shutdown::new(shutdown);
        loop {
            let new = tokio::select! {
                () = shutdown.begun() => break,
                Some(new) = changed.recv() => new,
                Some(renewed) = running.renewals.recv() => {
                    running.renew(renewed);
                    continue;
                }
                Some(local) = running.local_addresses.recv() => {
                    running.set_local(local);
                    continue;
                }
            };
            let reloaded = match new {
                Ok(new) => running.reload(new, &mut shutdown).await,
                Err(error) => Err(ReloadError::Refused(error.to_string())),
            };
            match reloaded {
                Ok(()) => {
                    running.metrics.reloads_applied.inc();
                    tracing::info!("config: read again, and in force");
                }
                Err(error) => {
                    running.metrics.reloads_refused.inc();
                    tracing::error!("config: {error}");
                }
            }
        }

        running.stop(spool_thread).await;
        if let Some(admin) = admin {
            admin.abort();
            // This releases the task's hold on the spool.
            let _ = admin.await;
        }
        if let Some(written) = address_file {
            AddressFile::remove(written).await;
        }
        drop(watchdog);
        tracing::info!("stopped");
        Ok(())
    }
}
