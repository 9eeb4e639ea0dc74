//! `logferry run`: runs a relay until SIGTERM or SIGINT. A second signal ends the process at once. SIGHUP reads the configuration again.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use nix::libc::SIGXFSZ;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::{Failure, load, misspelt_variables, relay_runtime};
use crate::config::{Config, ConfigErrors, Overrides};
use crate::log;
use crate::metrics::Metrics;
use crate::relay::Relay;
use crate::tasks::{spawn, spawn_blocking};

/// How long reading a configuration may take before a warning.
const SLOW: Duration = Duration::from_secs(5);

/// How long writing the last words may take if the process ends at once.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_millis(100);

pub fn run(overrides: &Overrides) -> Result<(), Failure> {
    let config = load(overrides)?;
    let metrics = Arc::new(Metrics::new());
    let (_logging, log_stream) = log::start(&config.log, metrics.log());
    misspelt_variables().iter().for_each(|says| tracing::warn!("{says}"));
    log_warnings(&config);
    let relay = Relay::bind_with(config, metrics, log_stream).map_err(|error| Failure::config(&error))?;
    let runtime = relay_runtime(&relay)?;
    let (stop, changed, _file_too_large) = {
        let _inside = runtime.enter();
        // With a handler for SIGXFSZ, a write beyond the limit of `ulimit -f` fails, like a write to a full disk, and does
        // not end the process.
        let file_too_large = handler(SignalKind::from_raw(SIGXFSZ))?;
        (stop_signal()?, reloads(overrides.clone().again())?, file_too_large)
    };
    // All sockets are bound, so that senders that wait for the relay may start.
    tell_service_manager(NotifyState::Ready);
    runtime.block_on(relay.run(Box::pin(stop), changed)).map_err(|error| Failure::config(&error))?;
    // Pool threads may hang on a dead disk or a stuck pipe. They must not keep the process alive.
    runtime.shutdown_background();
    Ok(())
}

/// Logs the warnings of a config.
fn log_warnings(config: &Config) {
    config.warnings.iter().for_each(|says| tracing::warn!("config: {says}"));
}

/// Notifies systemd (`Type=notify`). Without NOTIFY_SOCKET this does nothing.
fn tell_service_manager(state: NotifyState) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!("cannot tell the service manager how we are ({error}); with Type=notify it will end us");
    }
}

/// Reads the configuration again at each SIGHUP, on another thread, because its disk may hang.
fn reloads(overrides: Overrides) -> Result<mpsc::Receiver<Result<Config, ConfigErrors>>, Failure> {
    let mut hangup = handler(SignalKind::hangup())?;
    let (changed, configs) = mpsc::channel(1);
    spawn(async move {
        while hangup.recv().await.is_some() {
            let overrides = overrides.clone();
            let mut read = spawn_blocking(move || Config::load(&overrides).inspect(log_warnings));
            let config = tokio::select! {
                config = &mut read => config,
                () = sleep(SLOW) => {
                    tracing::warn!(
                        "config: still being read after {SLOW:?}; is its disk hanging? The old one stays in force until then"
                    );
                    read.await
                }
            };
            let Ok(config) = config else { return };
            drop(changed.send(config).await);
        }
    });
    Ok(configs)
}

fn handler(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::failed(format!("cannot handle signals: {error}")))
}

/// A future that ends at the first SIGTERM or SIGINT. Without handlers, a process with PID 1 ignores both signals.
fn stop_signal() -> Result<impl Future<Output = ()>, Failure> {
    let (mut terminate, mut interrupt) = (handler(SignalKind::terminate())?, handler(SignalKind::interrupt())?);
    Ok(async move {
        either(&mut terminate, &mut interrupt).await;
        tell_service_manager(NotifyState::Stopping);
        spawn(async move {
            either(&mut terminate, &mut interrupt).await;
            log::last_words_within(
                LAST_WORDS_TIMEOUT,
                "second signal: ending at once; what is not delivered stays in the spool",
            );
            // The exit code of a shell for SIGTERM: 128 + 15.
            std::process::exit(143);
        });
    })
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
