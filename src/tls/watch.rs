//! Watches the files of certificates, keys, CAs and secrets: reads files again when they have changed, and warns before
//! certificates expire.
//!
//! A change is noticed by device, inode, size and times, behind links: Kubernetes swaps a link to a whole directory. Reading
//! these every few seconds costs nothing, and works on every file system.
//!
//! Files that cannot be used (half written, a key of another certificate) change nothing: the old credentials stay in force, and
//! the files are tried again at each check until they are good.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::Utc;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::Span;

use super::expiry::Expiry;
use super::{Connector, Credentials, CredentialsError, connector, facts};
use crate::config::{self, Config};
use crate::metrics::{Metrics, TlsMetrics};
use crate::tasks::spawn_blocking;

/// How often the files are checked.
const CHECK_EVERY: Duration = Duration::from_secs(3);

/// The new credentials from changed files, for new connections of the listener or forward with these settings. They are in force
/// once they are handed over; the code that does so logs it.
pub enum Renewed {
    Listen(Box<config::Listen>, Credentials),
    Forward(Box<config::Forward>, Connector),
}

/// Looks after the files of a configuration.
pub struct Watch {
    places: Vec<Watched>,
    metrics: TlsMetrics,
}

struct Watched {
    place: Place,
    /// The identities of the files when they were read.
    read: Vec<Option<Identity>>,
    /// The problem of the current files, if it is logged.
    trouble: Option<String>,
    expiries: Vec<Expiry>,
}

/// A listener or a forward with such files.
enum Place {
    Listen(Box<config::Listen>),
    Forward(Box<config::Forward>),
}

/// The metadata that changes when a file is written or replaced, or when its permissions change.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Watch {
    /// Must be called before the files are read: a change during the reading is seen at the next check.
    pub fn new(config: &Config, metrics: &Metrics) -> Self {
        let listeners = config.listen.iter().filter(|listen| !listen.credential_files().is_empty());
        let forwards = config.forward.iter().filter(|forward| forward.to.iter().any(|target| target.address.is_tls()));
        let places = listeners
            .cloned()
            .map(|listen| Place::Listen(Box::new(listen)))
            .chain(forwards.cloned().map(|forward| Place::Forward(Box::new(forward))));
        Self { places: places.map(Watched::new).collect(), metrics: metrics.tls() }
    }

    /// Checks again and again, until the receiver of the renewals is dropped.
    pub async fn run(mut self, renewals: mpsc::Sender<Vec<Renewed>>) {
        // Removes the series of files that are no longer configured.
        self.metrics.not_after.clear();
        while !self.places.is_empty() {
            // Not on the runtime's thread: the files may be on a network file system.
            let checked = spawn_blocking(move || {
                let renewed = self.check();
                (self, renewed)
            });
            let Ok((watch, renewed)) = checked.await else { return };
            self = watch;
            if !renewed.is_empty() && renewals.send(renewed).await.is_err() {
                return;
            }
            tokio::select! {
                () = sleep(CHECK_EVERY) => {}
                () = renewals.closed() => return,
            }
        }
    }

    fn check(&mut self) -> Vec<Renewed> {
        let renewed = self.places.iter_mut().filter_map(|watched| watched.check(&self.metrics)).collect();
        let now = Utc::now();
        for expiry in self.places.iter_mut().flat_map(|watched| &mut watched.expiries) {
            self.metrics.not_after(&expiry.what).set(expiry.not_after.timestamp());
            if let Some(said) = expiry.report(now) {
                tracing::warn!("{said}");
            }
        }
        renewed
    }
}

impl Watched {
    fn new(place: Place) -> Self {
        Self { read: place.identities(), expiries: place.expiries(), place, trouble: None }
    }

    fn check(&mut self, metrics: &TlsMetrics) -> Option<Renewed> {
        let now = self.place.identities();
        if now == self.read && self.trouble.is_none() {
            return None;
        }
        match self.place.read() {
            Ok(renewed) => {
                self.read = now;
                self.expiries = self.place.expiries();
                self.trouble = None;
                Some(renewed)
            }
            Err(error) => {
                let trouble = error.to_string();
                if self.trouble.as_ref() != Some(&trouble) {
                    let _place = self.place.span().entered();
                    tracing::warn!(
                        "its certificates or secrets have changed and cannot be used; the old ones stay in force, and these are \
                         tried again every {CHECK_EVERY:?}: {trouble}"
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
    fn read(&self) -> Result<Renewed, CredentialsError> {
        match self {
            Self::Listen(settings) => Ok(Renewed::Listen(settings.clone(), Credentials::read(settings)?)),
            Self::Forward(settings) => Ok(Renewed::Forward(settings.clone(), connector(&settings.tls)?)),
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::Listen(settings) => settings.credential_files(),
            Self::Forward(settings) => {
                let identity = settings.tls.identity().into_iter().flat_map(|(cert, key)| [cert, key]);
                identity.chain(&settings.tls.ca).map(|path| path.as_path().to_owned()).collect()
            }
        }
    }

    /// The expiries of our own certificate, and of the trusted CA that expires first. Files that cannot be read are reported
    /// elsewhere.
    fn expiries(&self) -> Vec<Expiry> {
        let (shown, trusted, of_ca) = match self {
            Self::Listen(settings) => {
                let tls = settings.tls.as_ref();
                (tls.map(|tls| &tls.cert), tls.and_then(|tls| tls.client_ca.as_ref()), "client-ca")
            }
            Self::Forward(forward) => {
                let tls = &forward.tls;
                (tls.identity().map(|(cert, _)| cert), tls.ca.as_ref(), "ca")
            }
        };
        let shown = shown.and_then(|path| {
            let facts = facts(path).ok()?.into_iter().next()?;
            Some(Expiry::new(self.to_string(), path, &facts))
        });
        let trusted = trusted.and_then(|path| {
            let facts = facts(path).ok()?.into_iter().min_by_key(|facts| facts.not_after)?;
            Some(Expiry::new(format!("{self} {of_ca}"), path, &facts))
        });
        shown.into_iter().chain(trusted).collect()
    }

    /// Context for log entries about its files.
    fn span(&self) -> Span {
        match self {
            Self::Listen(settings) => tracing::error_span!("listen", address = %settings.address),
            Self::Forward(settings) => tracing::error_span!("forward", name = settings.name),
        }
    }

    fn identities(&self) -> Vec<Option<Identity>> {
        self.files().iter().map(|path| Identity::of(path)).collect()
    }
}

/// Writes the name for the log and for a metric's label.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(settings) => write!(f, "listen {}", settings.address),
            Self::Forward(settings) => write!(f, "forward {}", settings.name),
        }
    }
}

impl Identity {
    /// The identity of a file; `None`: the file is not there, or not visible.
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
