//! Makes the parts of the stages from the settings. Files are read and sockets are bound here; nothing runs yet.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::StartError;
use super::running::ForwardControl;
use crate::admin::{self, Admin};
use crate::config::{self, Config};
use crate::descriptors;
use crate::forward::{self, Deadline, Forwarder, HalfClosed, Orders, Resolver, SenderNames};
use crate::listen::{self, AdmissionPolicy, Bound, IngestPolicy, Prepared, Shedding};
use crate::loops::LoopGuard;
use crate::metrics::Metrics;
use crate::protocol::syslog::{HostSource, LocalAddresses, Translator, is_container_id};
use crate::shape::Shape;
use crate::spool::{self, Reader, Spool, WhenFull, Writer};
use crate::status::SharedForwardStatus;
use crate::tasks::spawn;
use crate::tls::{Connector, Credentials, CredentialsError, Renewed, Watch};

/// The config with the limits that this process can keep. Each limit that is lowered is logged.
pub fn fitted(mut config: Config) -> Config {
    let limit = descriptors::limit();
    for lowered in descriptors::fit(&mut config, admin::max_connections(limit), limit) {
        tracing::warn!("{lowered}");
    }
    config
}

/// The parts of a changed configuration that need the system: files, sockets and addresses.
pub struct Parts {
    pub certificates: Watch,
    /// The addresses of this machine.
    pub local: LocalAddresses,
    pub container_hostname: Option<String>,
    /// In the config's order.
    pub listeners: Vec<ListenerPart>,
    /// One for each forward.
    pub connectors: Vec<Option<Connector>>,
}

pub enum ListenerPart {
    /// The running listener with this index stays, with other settings.
    Kept(usize, Box<listen::Options>),
    Added(Box<Prepared>),
}

impl Parts {
    /// Reads the parts. `kept` has, for each listener, the index of the running listener whose socket it takes over, if there is
    /// one. This blocks as long as the disk does. If one part fails, all others are released.
    pub fn read(config: &Config, kept: &[Option<usize>], metrics: &Arc<Metrics>) -> Result<Self, StartError> {
        let certificates = Watch::new(config, metrics);
        let (local, container_hostname) = (listen::local_addresses(), container_hostname(config));
        let listener = |(settings, kept): (_, &Option<usize>)| match *kept {
            None => bind_listener(settings, metrics).and_then(prepare_listener).map(Box::new).map(ListenerPart::Added),
            Some(index) => {
                let options = read_options(settings)?;
                options.check()?;
                Ok(ListenerPart::Kept(index, options.into()))
            }
        };
        let listeners = config.listen.iter().zip(kept).map(listener).collect::<Result<_, _>>()?;
        let connectors = config.forward.iter().map(read_connector).collect::<Result<_, _>>()?;
        Ok(Self { certificates, local, container_hostname, listeners, connectors })
    }
}

/// The warning for a config without `hostname`, where HOSTNAME would be the ID of the relay's own container; `None`: it is another
/// name.
pub fn container_hostname(config: &Config) -> Option<String> {
    let own = nix::unistd::gethostname().ok()?;
    let is_own = own.to_str() == Some(&*config.hostname);
    (is_own && is_container_id(&config.hostname) && is_in_container()).then(|| {
        format!(
            "config: the host of messages that name none is {}, the ID of this container, which is another one after each \
             update: write the host's name as `hostname`, or hand it in as LOGFERRY_HOSTNAME",
            config.hostname
        )
    })
}

/// Whether this process runs in a container: Docker and podman make one of these files there.
fn is_in_container() -> bool {
    ["/.dockerenv", "/run/.containerenv"].iter().any(|mark| Path::new(mark).exists())
}

/// The policy of all listeners. With `drop-oldest` a new line is worth more than an old one, so only debug messages are shed.
/// `local`: the addresses of this machine. Must be called inside the runtime.
pub fn ingest_policy(config: &Config, local: LocalAddresses) -> IngestPolicy {
    let debug_from = config.spool.shed_from.unwrap_or(Shedding::NEVER);
    let info_from = match (config.spool.shed_from, config.spool.when_full) {
        (Some(from), WhenFull::DropNewest) => from.midpoint(100),
        _ => Shedding::NEVER,
    };
    let mut translator = Translator::new(Arc::new(config.syslog_settings()));
    translator.set_local(Arc::new(local));
    if config.listen.iter().any(|listener| listener.host == HostSource::Name) {
        let names = SenderNames::start(Resolver::new(config.resolve.clone()));
        translator.set_names(Arc::new(move |address, name| names.append(address, name)));
    }
    IngestPolicy {
        translator,
        admission: AdmissionPolicy {
            drop: config.drop.clone().into(),
            sample: config.sample.clone().into(),
            sd_id: config.syslog.sd_id.clone(),
            rate: config.syslog.rate,
            shedding: Shedding { debug_from, info_from },
            masks: Shape::of_masks(config.intake_masks(), &config.syslog.sd_id).map(Arc::new),
        },
        listeners: config.listen.clone().into(),
        rejoin: config.syslog.rejoin,
    }
}

/// Reads the certificates of a forward.
pub fn read_connector(settings: &config::Forward) -> Result<Option<Connector>, StartError> {
    forward::tls_connector(settings).map_err(|error| StartError::ForwardTls(settings.name.clone(), error.into()))
}

pub fn new_forwarder(
    config: &Config,
    (settings, connector): (&config::Forward, Option<Connector>),
    (reader, half_closed): (Reader, HalfClosed),
    (metrics, loops): (&Metrics, &Arc<LoopGuard>),
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
            half_closed: half_closed.clone(),
            connectors,
            loops: loops.clone(),
        },
    );
    (forwarder, ForwardControl { leave, half_closed, connector, state })
}

/// Refuses a config that does not use every socket that a service manager has handed over.
pub fn refuse_strays(config: &Config) -> Result<(), StartError> {
    let addresses: Vec<_> = config.listen.iter().map(|listener| &listener.address).collect();
    Ok(listen::refuse_strays(&addresses)?)
}

pub fn bind_listener(settings: &config::Listen, metrics: &Metrics) -> Result<Bound, StartError> {
    let counted = metrics.listener(&settings.address.to_string());
    Ok(listen::bind(read_options(settings)?, counted)?)
}

/// Does the last steps of a listener that can fail. After that it only has to be started.
pub fn prepare_listener(bound: Bound) -> Result<Prepared, StartError> {
    Ok(bound.prepare()?)
}

/// Reads the certificates and secrets of a listener.
pub fn read_options(settings: &config::Listen) -> Result<listen::Options, StartError> {
    let failed = |error: CredentialsError| StartError::Credentials(settings.address.clone(), error.into());
    Ok(listen_options(settings, Credentials::read(settings).map_err(failed)?))
}

pub fn listen_options(settings: &config::Listen, credentials: Credentials) -> listen::Options {
    listen::Options {
        address: settings.address.clone(),
        credentials,
        plaintext: settings.plaintext,
        receive_buffer: settings.receive_buffer,
        limits: settings.limits.clone(),
        senders: settings.from,
    }
}

/// Watches the files of certificates until the receiver is dropped.
pub fn renewals_of(certificates: Watch) -> mpsc::Receiver<Vec<Renewed>> {
    let (renewals, renewed) = mpsc::channel(1);
    spawn(certificates.run(renewals));
    renewed
}

/// Binds the admin port. An error is fatal only for a port that the config names: if the default port is taken, the relay goes on
/// without it.
pub fn bind_admin(admin: &config::Admin, metrics: &Arc<Metrics>) -> Result<Option<Admin>, StartError> {
    let Some(address) = admin.listen else { return Ok(None) };
    metrics.containers().export(admin.containers);
    if let Some(token) = admin.tail_token() {
        token.read().map_err(StartError::TailToken)?;
    }
    match admin::bind(address, admin.address_file.clone(), is_in_container()) {
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
