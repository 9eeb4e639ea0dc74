//! A relay at work gets another configuration, or other certificates. Everything that can fail is tried first; from then on
//! nothing is refused.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::parts::{
    bind_listener, ingest_policy, listen_options, new_forwarder, prepare_listener, read_connector, read_options,
    refuse_strays, renewals_of,
};
use super::running::{RunningForward, RunningListener, RunningRelay};
use crate::config::Config;
use crate::tls::{Renewed, Watch};

/// How long a forward that has changed may take to end its connection in good order before it is cut off.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

impl RunningRelay {
    /// Makes `new` the configuration. An error: nothing has changed.
    pub async fn reload(&mut self, new: Config) -> Result<(), String> {
        self.config.needs_no_restart(&new)?;
        refuse_strays(&new).map_err(|error| error.to_string())?;
        let certificates = Watch::new(&new, &self.metrics);
        let mut kept = Vec::new();
        let mut added = Vec::new();
        let mut gone: Vec<usize> = (0..self.listeners.len()).collect();
        for settings in &new.listen {
            let becomes = |index: &usize| self.listeners[*index].settings.address.can_become(&settings.address);
            let same = gone.iter().position(becomes);
            match same.map(|place| gone.remove(place)) {
                Some(index) => {
                    let options = read_options(settings).map_err(|error| error.to_string())?;
                    options.check().map_err(|error| error.to_string())?;
                    kept.push((index, settings, options));
                }
                None => {
                    let listener = bind_listener(settings, &self.metrics).and_then(prepare_listener);
                    added.push((settings, listener.map_err(|error| error.to_string())?));
                }
            }
        }
        let connectors = new.forward.iter().map(read_connector).collect::<Result<Vec<_>, _>>();
        let connectors = connectors.map_err(|error| error.to_string())?;

        // From here on nothing is refused any more.
        self.renewals = renewals_of(certificates);
        let told = self.stop_loss_reporter().await;
        self.policies.send_replace(ingest_policy(&new));
        for (index, settings, options) in kept {
            let listener = &mut self.listeners[index];
            if listener.settings.address != settings.address {
                tracing::info!(
                    "listen: {} is {} from now on, for new connections",
                    listener.settings.address,
                    settings.address
                );
            }
            listener.running.change(options, self.metrics.listener(&settings.address.to_string()));
            listener.settings = settings.clone();
        }
        for index in gone.into_iter().rev() {
            let RunningListener { settings, running, stop, .. } = self.listeners.remove(index);
            stop.send_replace(true);
            tracing::info!("listen: {} is no longer listened on", settings.address);
            self.leaving.retain(|task| !task.is_finished());
            self.leaving.push(tokio::spawn(running.stopped()));
        }
        for (settings, listener) in added {
            self.start_listener(settings, listener);
        }
        self.spool.set_limits(new.spool.max_size, new.spool.when_full);
        self.change_forwards(&new, connectors).await;
        self.config = new;
        self.start_loss_reporter(told);
        if let Some((_, hostname)) = &self.log_stream {
            hostname.send_replace(self.config.hostname.clone());
        }
        self.publish_topology();
        Ok(())
    }

    /// Ends the forwards that are not in `new`, or not as they were; starts those that are new, or not as they were. Those
    /// that stay use the certificates of now for their next connection.
    async fn change_forwards(&mut self, new: &Config, connectors: Vec<Option<TlsConnector>>) {
        let all_change = self.config.resolve != new.resolve || self.config.syslog.sd_id != new.syslog.sd_id;
        let stays = |forward: &RunningForward| !all_change && new.forward.contains(&forward.settings);
        let (staying, leaving): (Vec<_>, Vec<_>) = std::mem::take(&mut self.forwards).into_iter().partition(stays);
        self.forwards = staying;
        for forward in &leaving {
            forward.control.leave.send_replace(true);
        }
        let end = Instant::now() + LEAVE_WITHIN;
        for RunningForward { settings, mut task, .. } in leaving {
            if timeout_at(end, &mut task).await.is_err() {
                tracing::warn!("forward {}: cut off in the middle; some lines may come twice", settings.name);
                task.abort();
                let _ = task.await;
            }
            if new.forward.iter().all(|forward| forward.name != settings.name) {
                self.forget_forward(&settings.name);
                self.metrics.forget_forward(&settings.name);
            }
        }
        for (settings, connector) in new.forward.iter().zip(connectors) {
            if let Some(staying) = self.forwards.iter().find(|forward| forward.settings.name == settings.name) {
                staying.control.connector.send_replace(connector);
                continue;
            }
            match self.spool.add_reader(&settings.name, &self.metrics) {
                Ok(reader) => {
                    let (forwarder, control) =
                        new_forwarder(new, (settings, connector), reader, &self.metrics, &self.deadline);
                    self.start_forward(settings, forwarder, control);
                }
                Err(error) => tracing::error!("forward {}: cannot be started, reload again: {error}", settings.name),
            }
        }
    }

    /// Hands what was read from changed files to those it is for. Connections that stand do not notice.
    pub fn renew(&self, renewed: Vec<Renewed>) {
        const RENEWED: &str = "its certificates have changed; new connections use the new ones";
        for renewed in renewed {
            self.metrics.tls().reloads_applied.inc();
            match renewed {
                Renewed::Listen(settings, acceptor) => {
                    let metrics = self.metrics.listener(&settings.address.to_string());
                    for listener in self.listeners.iter().filter(|listener| listener.settings == settings) {
                        let options = listen_options(&settings, Some(acceptor.clone()));
                        listener.running.change(options, metrics.clone());
                    }
                    tracing::info!("listen {}: {RENEWED}", settings.address);
                }
                Renewed::Forward(settings, connector) => {
                    for forward in self.forwards.iter().filter(|forward| forward.settings == settings) {
                        forward.control.connector.send_replace(Some(connector.clone()));
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
                    reader.pending()
                );
                reader.forget();
            }
            Err(error) => tracing::error!("spool: cannot forget forward {name}, which may hold lines back: {error}"),
        }
    }
}
