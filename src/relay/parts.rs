//! What the settings say, as the parts that the stages are made of. Here files are read and sockets bound; nothing runs yet.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::StartError;
use super::running::ForwardControl;
use crate::admin::{self, Admin};
use crate::config::{self, Config};
use crate::descriptors;
use crate::forward::{self, Acknowledged, Deadline, Forwarder, Orders, Resolver};
use crate::listen::{self, AdmissionPolicy, Bound, IngestPolicy, Prepared, Shedding};
use crate::metrics::Metrics;
use crate::protocol::syslog::Translator;
use crate::spool::{self, Reader, Spool, WhenFull, Writer};
use crate::status::SharedForwardStatus;
use crate::tls::{self, Renewed, TlsError, Watch};

/// The config with the limits that this process can keep. Each limit that is lowered is logged.
pub fn fitted(mut config: Config) -> Config {
    let limit = descriptors::limit();
    for lowered in descriptors::fit(&mut config, admin::max_connections(limit), limit) {
        tracing::warn!("{lowered}");
    }
    config
}

/// What a changed configuration needs of the system.
pub struct Parts {
    pub certificates: Watch,
    /// In the config's order.
    pub listeners: Vec<ListenerPart>,
    /// One for each forward.
    pub connectors: Vec<Option<TlsConnector>>,
}

pub enum ListenerPart {
    /// The socket of this number stays, with other settings.
    Kept(usize, listen::Options),
    Added(Box<Prepared>),
}

impl Parts {
    /// `kept`: for each listener, the number of the socket that it goes on with, if there is one. Blocks while a disk does. What
    /// was had is given back when one thing is refused.
    pub fn read(config: &Config, kept: &[Option<usize>], metrics: &Arc<Metrics>) -> Result<Self, StartError> {
        let certificates = Watch::new(config, metrics);
        let listener = |(settings, kept): (_, &Option<usize>)| match *kept {
            None => bind_listener(settings, metrics).and_then(prepare_listener).map(Box::new).map(ListenerPart::Added),
            Some(index) => {
                let options = read_options(settings)?;
                options.check()?;
                Ok(ListenerPart::Kept(index, options))
            }
        };
        let listeners = config.listen.iter().zip(kept).map(listener).collect::<Result<_, _>>()?;
        let connectors = config.forward.iter().map(read_connector).collect::<Result<_, _>>()?;
        Ok(Self { certificates, listeners, connectors })
    }
}

/// With `drop-oldest` a new line is worth more than an old one, so that of new ones only debug messages are refused.
pub fn ingest_policy(config: &Config) -> IngestPolicy {
    const NEVER: u8 = 101;
    let debug_from = config.spool.shed_from.unwrap_or(NEVER);
    let info_from = match (config.spool.shed_from, config.spool.when_full) {
        (Some(from), WhenFull::DropNewest) => from.midpoint(100),
        _ => NEVER,
    };
    IngestPolicy {
        translator: Translator::new(Arc::new(config.syslog_settings())),
        admission: AdmissionPolicy {
            drop: config.drop.clone().into(),
            rate: config.syslog.rate,
            shedding: Shedding { debug_from, info_from },
        },
        listeners: config.listen.clone().into(),
        rejoin: config.syslog.rejoin,
    }
}

/// Reads the certificates of a forward.
pub fn read_connector(settings: &config::Forward) -> Result<Option<TlsConnector>, StartError> {
    forward::tls_connector(settings).map_err(|error| StartError::ForwardTls(settings.name.clone(), error.into()))
}

pub fn new_forwarder(
    config: &Config,
    (settings, connector): (&config::Forward, Option<TlsConnector>),
    (reader, acknowledged): (Reader, Acknowledged),
    metrics: &Metrics,
    deadline: &watch::Sender<Option<Instant>>,
) -> (Forwarder, ForwardControl) {
    let ((leave, leaving), (connector, connectors)) = (watch::channel(false), watch::channel(connector));
    let state = SharedForwardStatus::default();
    let forwarder = Forwarder::new(
        settings.clone(),
        reader,
        Resolver::new(config.resolve.clone()),
        &config.syslog.sd_id,
        (metrics.forward(&settings.name), state.clone()),
        Orders {
            deadline: Deadline::new(deadline.subscribe()),
            leaving,
            acknowledged: acknowledged.clone(),
            connectors,
        },
    );
    (forwarder, ForwardControl { leave, acknowledged, connector, state })
}

/// Each socket that a service manager has handed over must be read.
pub fn refuse_strays(config: &Config) -> Result<(), StartError> {
    let addresses: Vec<_> = config.listen.iter().map(|listener| &listener.address).collect();
    Ok(listen::refuse_strays(&addresses)?)
}

pub fn bind_listener(settings: &config::Listen, metrics: &Metrics) -> Result<Bound, StartError> {
    let counted = metrics.listener(&settings.address.to_string());
    Ok(listen::bind(read_options(settings)?, counted)?)
}

/// What may still be refused to a listener; after that it only has to be started.
pub fn prepare_listener(bound: Bound) -> Result<Prepared, StartError> {
    Ok(bound.prepare()?)
}

/// Reads the certificates of a listener.
pub fn read_options(settings: &config::Listen) -> Result<listen::Options, StartError> {
    let failed = |error: TlsError| StartError::ListenTls(settings.address.clone(), error.into());
    let acceptor = settings.tls.as_ref().map(tls::acceptor).transpose().map_err(failed)?;
    Ok(listen_options(settings, acceptor))
}

pub fn listen_options(settings: &config::Listen, tls: Option<TlsAcceptor>) -> listen::Options {
    listen::Options {
        address: settings.address.clone(),
        tls,
        plaintext: settings.plaintext,
        receive_buffer: settings.receive_buffer,
        limits: settings.limits.clone(),
    }
}

/// Looks after the files of certificates until what comes out is dropped.
pub fn renewals_of(certificates: Watch) -> mpsc::Receiver<Vec<Renewed>> {
    let (renewals, renewed) = mpsc::channel(1);
    tokio::spawn(certificates.run(renewals));
    renewed
}

/// The default port being taken must not keep messages from being relayed; one that was asked for must be had.
pub fn bind_admin(admin: &config::Admin, metrics: &Arc<Metrics>) -> Result<Option<Admin>, StartError> {
    let Some(address) = admin.listen else { return Ok(None) };
    metrics.containers().export(admin.containers);
    match admin::bind(address, admin.address_file.clone()) {
        Ok(bound) => Ok(Some(bound)),
        Err(error) if admin.explicit => Err(StartError::Admin(address, error)),
        Err(error) => {
            tracing::warn!(
                "admin: cannot listen on {address}: {error}; going on without the status page, /metrics and `logferry health` (set [admin] listen)"
            );
            Ok(None)
        }
    }
}

pub fn open_spool(config: &Config, metrics: &Metrics) -> Result<(Writer, spool::Handle, Vec<Reader>), StartError> {
    let forwards = config.forward.iter().map(|forward| forward.name.clone()).collect();
    let options = spool::Options {
        when_full: config.spool.when_full,
        sync: config.spool.sync,
        max_rate: config.spool.max_rate,
        ..spool::Options::new(&config.spool.dir, config.spool.max_size, forwards)
    };
    let spool = Spool::open(options, metrics)?;
    Ok((spool.writer, spool.handle, spool.readers))
}
