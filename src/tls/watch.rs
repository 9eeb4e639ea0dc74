//! The files of certificates, keys and CAs: whether they have changed since they were read, and reading them again.
//!
//! A file is known by its inode, size and times, through links: Kubernetes swaps a link to a whole directory. To ask for
//! these every few seconds costs nothing, and works on every file system.
//!
//! Files that cannot be used (half written, a key of another certificate) change nothing: what was read before stays in
//! force, and they are tried again at each look until they are good.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{TlsError, acceptor, connector};
use crate::config::{self, Config, ForwardAddress};
use crate::metrics::{Metrics, TlsMetrics};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// What was read from files that have changed, for the connections to come of whoever has these settings.
pub enum Renewed {
    Listen(config::Listen, TlsAcceptor),
    Forward(config::Forward, TlsConnector),
}

/// Looks after the files of a configuration.
pub struct Watch {
    places: Vec<Watched>,
    metrics: TlsMetrics,
}

struct Watched {
    place: Place,
    /// What the files were when they were read.
    read: Vec<Option<Identity>>,
    /// What is wrong with the files as they are now. It has been said.
    trouble: Option<String>,
}

/// Where TLS is spoken.
enum Place {
    Listen(config::Listen),
    Forward(config::Forward),
}

/// What changes when a file is written, replaced, or may be read by others.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Watch {
    /// To be made before the files are read: what changes while they are is seen at the next look.
    pub fn new(config: &Config, metrics: &Metrics) -> Self {
        let listeners = config.listen.iter().filter(|listen| listen.tls.is_some());
        let forwards = config.forward.iter().filter(|forward| forward.to.iter().any(ForwardAddress::is_tls));
        let places = listeners.cloned().map(Place::Listen).chain(forwards.cloned().map(Place::Forward));
        Self { places: places.map(Watched::new).collect(), metrics: metrics.tls() }
    }

    /// Looks again and again, until nobody wants to know any more.
    pub async fn run(mut self, renewals: mpsc::Sender<Vec<Renewed>>) {
        while !self.places.is_empty() {
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                () = renewals.closed() => return,
            }
            // Not on the thread that carries messages: files may be on a network.
            let looked = spawn_blocking(move || {
                let renewed = self.look();
                (self, renewed)
            });
            let Ok((watch, renewed)) = looked.await else { return };
            self = watch;
            if !renewed.is_empty() && renewals.send(renewed).await.is_err() {
                return;
            }
        }
    }

    fn look(&mut self) -> Vec<Renewed> {
        self.places.iter_mut().filter_map(|watched| watched.look(&self.metrics)).collect()
    }
}

impl Watched {
    fn new(place: Place) -> Self {
        Self { read: place.identities(), place, trouble: None }
    }

    fn look(&mut self, metrics: &TlsMetrics) -> Option<Renewed> {
        let now = self.place.identities();
        if now == self.read && self.trouble.is_none() {
            return None;
        }
        match self.place.read() {
            Ok(renewed) => {
                tracing::info!("{}: its certificates have changed; new connections use the new ones", self.place);
                metrics.reloads_applied.inc();
                self.read = now;
                self.trouble = None;
                Some(renewed)
            }
            Err(error) => {
                let trouble = error.to_string();
                if self.trouble.as_ref() != Some(&trouble) {
                    tracing::warn!(
                        "{}: its certificates have changed and cannot be used; the old ones stay in force, and these \
                         are tried again every {LOOK_EVERY:?}: {trouble}",
                        self.place
                    );
                    metrics.reloads_refused.inc();
                    self.trouble = Some(trouble);
                }
                None
            }
        }
    }
}

impl Place {
    fn read(&self) -> Result<Renewed, TlsError> {
        match self {
            Self::Listen(settings) => {
                let files = settings.tls.as_ref().expect("a listener without TLS is not watched");
                Ok(Renewed::Listen(settings.clone(), acceptor(files)?))
            }
            Self::Forward(settings) => Ok(Renewed::Forward(settings.clone(), connector(&settings.tls)?)),
        }
    }

    fn files(&self) -> Vec<&Path> {
        match self {
            Self::Listen(settings) => settings
                .tls
                .iter()
                .flat_map(|tls| [Some(&tls.cert), Some(&tls.key), tls.client_ca.as_ref()])
                .flatten()
                .map(|path| path.as_path())
                .collect(),
            Self::Forward(settings) => {
                let identity = settings.tls.identity.iter().flat_map(|(cert, key)| [cert, key]);
                identity.chain(&settings.tls.ca).map(|path| path.as_path()).collect()
            }
        }
    }

    fn identities(&self) -> Vec<Option<Identity>> {
        self.files().into_iter().map(Identity::of).collect()
    }
}

/// As it is called in the log, and as a metric's label.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(settings) => write!(f, "listen {}", settings.address),
            Self::Forward(settings) => write!(f, "forward {}", settings.name),
        }
    }
}

impl Identity {
    /// `None`: it is not there, or not to be seen.
    fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}
