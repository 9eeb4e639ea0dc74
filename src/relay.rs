//! The wiring: the only file that knows every room. What is started in which order, and how it ends.
//!
//! Sockets are bound before anything else, so that containers find the relay while names do not resolve and collectors
//! are down. Stopping walks the way a message walks: listeners read out what the kernel holds, the spool's writer ends
//! when no listener is left, forwards end when the spool is delivered or the grace period is over.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::admin::{self, Admin};
use crate::config::{self, Config, ListenAddress};
use crate::forward::{Deadline, Forwarder, Resolver};
use crate::listen::{self, Bound, Intake};
use crate::metrics::Metrics;
use crate::spool::{self, Reader, Spool, Writer};
use crate::syslog::Translator;
use crate::tls;

/// How long after the grace period the parts may take to notice. A relay that does not end in time is killed by Docker.
const WIND_DOWN: Duration = Duration::from_secs(2);

/// A relay whose sockets are open and whose spool is locked; nothing moves yet.
pub struct Relay {
    config: Config,
    metrics: Arc<Metrics>,
    listeners: Vec<Bound>,
    admin: Option<Admin>,
    spool: Writer,
    forwarders: Vec<Forwarder>,
    deadline: watch::Sender<Option<Instant>>,
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
        let metrics = Arc::new(Metrics::new());
        let listeners =
            config.listen.iter().map(|listener| bind_listener(listener, &metrics)).collect::<Result<Vec<_>, _>>()?;
        let admin = bind_admin(&config.admin, &metrics)?;
        let (spool, readers) = open_spool(&config, &metrics)?;
        let (deadline, deadline_seen) = watch::channel(None);
        let resolver = Resolver::new(config.resolve.clone());
        let forwarders = config
            .forward
            .iter()
            .zip(readers)
            .map(|(forward, reader)| {
                Forwarder::new(
                    forward.clone(),
                    reader,
                    resolver.clone(),
                    &config.syslog.sd_id,
                    metrics.forward(&forward.name),
                    Deadline::new(deadline_seen.clone()),
                    tokio::sync::watch::channel(false).1,
                )
                .map_err(|error| StartError(format!("forward {}: {error}", forward.name)))
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { config, metrics, listeners, admin, spool, forwarders, deadline })
    }

    /// Where it listens, with the real ports where 0 was asked for. In the config's order.
    pub fn addresses(&self) -> Vec<ListenAddress> {
        self.listeners.iter().map(Bound::address).collect()
    }

    /// Where `/metrics`, `/live` and `/ready` are.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Admin::address)
    }

    pub fn metrics(&self) -> Arc<Metrics> {
        self.metrics.clone()
    }

    /// Relays until `shutdown` ends, then drains within the grace period. Must be called inside a tokio runtime.
    ///
    /// Boxed, so that the whole of it is compiled once and not for each way of stopping.
    pub async fn run(self, shutdown: Pin<Box<dyn Future<Output = ()>>>) -> Result<(), StartError> {
        let Self { config, metrics, listeners, admin, spool, forwarders, deadline } = self;
        let (stop, stopping) = watch::channel(false);
        let (inlet, spool_thread) = spool
            .spawn(Some(config.spool.max_wait))
            .map_err(|error| StartError(format!("spool: cannot start its thread: {error}")))?;
        let (_translators, translator) = watch::channel(Translator::new(Arc::new(config.syslog_settings())));
        let listeners: Vec<_> = listeners
            .into_iter()
            .map(|bound| {
                let intake = Intake::new(translator.clone(), inlet.clone(), metrics.shapes());
                bound.start(intake, stopping.clone())
            })
            .collect();
        drop(inlet);
        let forwards: Vec<_> = forwarders.into_iter().map(|forwarder| tokio::spawn(forwarder.run())).collect();
        let admin = admin.map(|admin| tokio::spawn(admin.serve()));

        shutdown.await;

        tracing::info!("stopping: reading out the listeners, then sending for up to {:?}", config.grace);
        let end = Instant::now() + config.grace;
        deadline.send_replace(Some(end));
        stop.send_replace(true);
        let end = end + WIND_DOWN;
        for listener in listeners {
            if timeout_at(end, listener.stopped()).await.is_err() {
                tracing::warn!("listen: a listener did not end within the grace period; its last messages may be lost");
            }
        }
        let spool_closed = tokio::task::spawn_blocking(move || spool_thread.join());
        if timeout_at(end, spool_closed).await.is_err() {
            tracing::warn!("spool: {} was not synced within the grace period", config.spool.dir.display());
        }
        for (forward, settings) in forwards.into_iter().zip(&config.forward) {
            if timeout_at(end, forward).await.is_err() {
                let name = &settings.name;
                tracing::warn!(
                    "forward {name}: did not end within the grace period; what it had not sent stays in the spool"
                );
            }
        }
        if let Some(admin) = admin {
            admin.abort();
        }
        tracing::info!("stopped");
        Ok(())
    }
}

fn bind_listener(listener: &config::Listen, metrics: &Metrics) -> Result<Bound, StartError> {
    let acceptor = listener
        .tls
        .as_ref()
        .map(tls::acceptor)
        .transpose()
        .map_err(|error| StartError(format!("listen {}: {error}", listener.address)))?;
    let options = listen::Options {
        address: listener.address.clone(),
        tls: acceptor,
        plaintext: listener.plaintext,
        max_frame: listener.max_frame,
        receive_buffer: listener.receive_buffer,
        max_connections: listener.max_connections,
        handshake_timeout: listener.handshake_timeout,
    };
    let counted = metrics.listener(&listener.address.to_string());
    listen::bind(options, counted).map_err(|error| StartError(error.to_string()))
}

/// The default port being taken must not keep messages from being relayed; one that was asked for must be had.
fn bind_admin(admin: &config::Admin, metrics: &Arc<Metrics>) -> Result<Option<Admin>, StartError> {
    let Some(address) = admin.listen else { return Ok(None) };
    match admin::bind(address, metrics.clone()) {
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

fn open_spool(config: &Config, metrics: &Metrics) -> Result<(Writer, Vec<Reader>), StartError> {
    let forwards = config.forward.iter().map(|forward| forward.name.clone()).collect();
    let options = spool::Options {
        when_full: config.spool.when_full,
        sync: config.spool.sync,
        ..spool::Options::new(&config.spool.dir, config.spool.max_size, forwards)
    };
    let Spool { writer, readers, .. } = Spool::open(options, metrics).map_err(|error| StartError(error.to_string()))?;
    Ok((writer, readers))
}
