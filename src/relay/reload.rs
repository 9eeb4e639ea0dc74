//! Applies another configuration, or other certificates, to a running relay. Everything that can fail is tried first. After that,
//! nothing is refused.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::StartError;
use super::parts::{
    ListenerPart, Parts, fitted, ingest_policy, listen_options, new_forwarder, refuse_strays, renewals_of,
};
use super::running::{RunningForward, RunningListener, RunningRelay, Shutdown};
use crate::config::{self, Config};
use crate::listen::watch_local_addresses;
use crate::spool::Reader;
use crate::tasks::{spawn, spawn_blocking};
use crate::tls::{Connector, Renewed};

/// How long a changed forward may take to end its connection in good order. After that it is aborted.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// The timeout for reading certificates and keys, and for binding sockets.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// The timeout for finding the position at which a new forward begins.
const ADD_READER_WITHIN: Duration = Duration::from_secs(5);

/// Why a configuration is not in force.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error("not reloaded, the old one stays in force: {0}")]
    Refused(String),
    /// Forwards that were stopped for the change could not be started again.
    #[error("in force, but reload again, because {0}")]
    Partly(String),
}

impl From<StartError> for ReloadError {
    fn from(error: StartError) -> Self {
        Self::Refused(error.to_string())
    }
}

impl RunningRelay {
    /// Makes `new` the configuration. A shutdown that is requested while forwards end begins at once.
    pub async fn reload(&mut self, new: Config, shutdown: &mut Shutdown) -> Result<(), ReloadError> {
        self.config.needs_no_restart(&new).map_err(ReloadError::Refused)?;
        refuse_strays(&new)?;
        let new = fitted(new);
        let mut gone: Vec<usize> = (0..self.listeners.len()).collect();
        let becomes = |settings: &config::Listen| {
            let same = |index: &usize| self.listeners[*index].settings.address.can_become(&settings.address);
            gone.iter().position(same).map(|place| gone.remove(place))
        };
        let kept: Vec<Option<usize>> = new.listen.iter().map(becomes).collect();
        let parts = self.read_parts(&new, kept, shutdown).await?;
        let Parts { certificates, local, container_hostname, listeners, connectors } = parts;
        let readers = self.add_readers(&new).await?;

        // From here on, nothing is refused.
        self.renewals = renewals_of(certificates);
        let reporter = self.reporter.take();
        let reporter = self.while_stoppable(shutdown, async {
            let (task, stop) = reporter?;
            drop(stop);
            task.await.ok()
        });
        let reporter = reporter.await;
        self.note_mistakes(container_hostname);
        self.local_addresses = watch_local_addresses(local.clone());
        self.policies.send_replace(ingest_policy(&new, local));
        let mut added = Vec::new();
        for (settings, part) in new.listen.iter().zip(listeners) {
            let (index, options) = match part {
                ListenerPart::Kept(index, options) => (index, options),
                ListenerPart::Added(listener) => {
                    added.push((settings, *listener));
                    continue;
                }
            };
            let listener = &mut self.listeners[index];
            if listener.settings.address != settings.address {
                tracing::info!(
                    "listen: {} is {} from now on, for new connections",
                    listener.settings.address,
                    settings.address
                );
            }
            listener.running.change(*options, self.metrics.listener(&settings.address.to_string()));
            listener.settings = settings.clone();
        }
        for index in gone.into_iter().rev() {
            let RunningListener { settings, running, stop, .. } = self.listeners.remove(index);
            stop.send_replace(true);
            tracing::info!("listen: {} is no longer listened on", settings.address);
            self.leaving.retain(|task| !task.is_finished());
            self.leaving.push(spawn(running.stopped()));
        }
        for (settings, listener) in added {
            self.start_listener(settings, listener);
        }
        self.spool.set_limits(new.spool.max_size, new.spool.when_full);
        self.inlet.fit();
        self.spool.coalescing().set_latency(new.latency);
        let failed = self.change_forwards(&new, connectors, readers, shutdown).await;
        self.config = new;
        self.start_loss_reporter(reporter);
        if let Some((_, hostname)) = &self.log_stream {
            hostname.send_replace(self.config.hostname.clone());
        }
        self.publish_topology();
        match failed.is_empty() {
            true => Ok(()),
            false => Err(ReloadError::Partly(failed.join("; "))),
        }
    }

    /// Reads the files and binds the sockets that a configuration names. Another thread does this, so that a disk that hangs holds
    /// up nothing else.
    async fn read_parts(
        &mut self,
        new: &Config,
        kept: Vec<Option<usize>>,
        shutdown: &mut Shutdown,
    ) -> Result<Parts, ReloadError> {
        let (new, metrics) = (new.clone(), self.metrics.clone());
        let read = spawn_blocking(move || Parts::read(&new, &kept, &metrics));
        match self.while_stoppable(shutdown, timeout(READ_WITHIN, read)).await {
            Ok(Ok(parts)) => Ok(parts?),
            Ok(Err(error)) => Err(ReloadError::Refused(error.to_string())),
            Err(_) => Err(ReloadError::Refused(format!(
                "its files cannot be read and its sockets bound within {READ_WITHIN:?}; is a disk hanging?"
            ))),
        }
    }

    /// A reader in the spool for one forward. Waits for the disk only if the name is new, and at most [`ADD_READER_WITHIN`].
    async fn add_reader(&self, name: &str) -> io::Result<Reader> {
        let added = timeout(ADD_READER_WITHIN, self.spool.add_reader(name, &self.metrics)).await;
        added.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "the spool's disk hangs")))
    }

    /// A reader in the spool for each forward whose name is new. On an error, all of them are given up again.
    async fn add_readers(&self, new: &Config) -> Result<HashMap<String, Reader>, ReloadError> {
        let mut readers = HashMap::new();
        for name in new.forward.iter().map(|forward| &forward.name) {
            if self.forwards.iter().any(|forward| forward.settings.name == *name) {
                continue;
            }
            match self.add_reader(name).await {
                Ok(reader) => drop(readers.insert(name.clone(), reader)),
                Err(error) => {
                    for (name, reader) in readers {
                        reader.forget();
                        self.metrics.forget_forward(&name);
                    }
                    return Err(ReloadError::Refused(format!("forward {name}: {error}")));
                }
            }
        }
        Ok(readers)
    }

    /// Ends the forwards that are removed or changed in `new`, and starts those that are added or changed. The others use the new
    /// certificates for their next connection. Returns the reasons why some forwards could not be started again.
    async fn change_forwards(
        &mut self,
        new: &Config,
        connectors: Vec<Option<Connector>>,
        mut readers: HashMap<String, Reader>,
        shutdown: &mut Shutdown,
    ) -> Vec<String> {
        let all_change = self.config.resolve != new.resolve || self.config.syslog.sd_id != new.syslog.sd_id;
        let stays = |forward: &RunningForward| !all_change && new.forward.contains(&forward.settings);
        let (staying, leaving): (Vec<_>, Vec<_>) = std::mem::take(&mut self.forwards).into_iter().partition(stays);
        self.forwards = staying;
        for forward in &leaving {
            forward.control.leave.send_replace(true);
        }
        let end = Instant::now() + LEAVE_WITHIN;
        let mut half_closed = HashMap::new();
        for RunningForward { settings, mut task, control } in leaving {
            half_closed.insert(settings.name.clone(), control.half_closed.clone());
            if self.while_stoppable(shutdown, timeout_at(end, &mut task)).await.is_err() {
                tracing::warn!("forward {}: cut off in the middle; some lines may come twice", settings.name);
                task.abort();
                let _ = task.await;
            }
            if new.forward.iter().all(|forward| forward.name != settings.name) {
                self.forget_forward(&settings.name).await;
                self.metrics.forget_forward(&settings.name);
            }
        }
        let mut failed = Vec::new();
        for (settings, connector) in new.forward.iter().zip(connectors) {
            if let Some(staying) = self.forwards.iter().find(|forward| forward.settings.name == settings.name) {
                staying.control.connector.send_replace(connector);
                continue;
            }
            let reader = match readers.remove(&settings.name) {
                Some(reader) => Ok(reader),
                None => self.add_reader(&settings.name).await,
            };
            match reader {
                Ok(reader) => {
                    let half_closed = half_closed.remove(&settings.name).unwrap_or_default();
                    let (forwarder, control) = new_forwarder(
                        new,
                        (settings, connector),
                        (reader, half_closed),
                        (&self.metrics, &self.admission.loops),
                        &self.deadline,
                    );
                    self.start_forward(settings, forwarder, control);
                }
                // A system call that does not return still holds the reader of the aborted forward.
                Err(error) => failed.push(format!("forward {} cannot be started: {error}", settings.name)),
            }
        }
        failed
    }

    /// Gives the contents of changed files to the listeners and forwards that use them. Established connections are not affected.
    pub fn renew(&self, renewed: Vec<Renewed>) {
        const RENEWED: &str = "its certificates or secrets have changed; new connections use the new ones";
        for renewed in renewed {
            self.metrics.tls().reloads_applied.inc();
            match renewed {
                Renewed::Listen(settings, credentials) => {
                    let metrics = self.metrics.listener(&settings.address.to_string());
                    for listener in self.listeners.iter().filter(|listener| listener.settings == *settings) {
                        let options = listen_options(&settings, credentials.clone());
                        listener.running.change(options, metrics.clone());
                    }
                    tracing::info!("listen {}: {RENEWED}", settings.address);
                }
                Renewed::Forward(settings, connector) => {
                    for forward in self.forwards.iter().filter(|forward| forward.settings == *settings) {
                        forward.control.connector.send_replace(Some(connector.clone()));
                    }
                    tracing::info!("forward {}: {RENEWED}", settings.name);
                }
            }
        }
    }

    /// Removes the forward's cursor from the spool, so that it holds no lines back.
    async fn forget_forward(&self, name: &str) {
        match self.add_reader(name).await {
            Ok(reader) => {
                tracing::warn!(
                    "forward {name}: no longer configured; {} lines were not delivered to it",
                    reader.pending()
                );
                reader.forget();
            }
            Err(error) => tracing::error!("spool: cannot forget forward {name}, which may hold lines back: {error}"),
        }
    }
}
