//! The name of a unix socket, and the watch over it. Cleaners of temporary files remove names, and volumes are recreated. Then
//! senders find no socket, and the socket itself does not notice. So the relay looks for the name, and binds it again.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use socket2::Socket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{error, warn};

use super::{BindError, open};
use crate::config::ListenAddress;
use crate::log::Throttle;
use crate::status::SharedListenerStatus;
use crate::tasks::{spawn, spawn_blocking};

/// How often the relay looks for the name.
const WATCH_EVERY: Duration = Duration::from_secs(2);
/// The least time between two log entries about a name that was bound again: a user who may write to the directory could fill the
/// log.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// How long a stop waits for the name to be removed: its file system may hang.
const REMOVE_WITHIN: Duration = Duration::from_secs(1);

/// A unix socket's name in the file system. Dropping it removes the name, unless another file has replaced it.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// Watches the name of a listener's unix socket. Other listeners, and sockets that were handed over, have no name to watch.
pub struct NameWatch<T> {
    file: Arc<Mutex<Option<SocketFile>>>,
    task: Option<JoinHandle<()>>,
    rebound: mpsc::Receiver<T>,
}

impl SocketFile {
    pub fn of(path: &Path) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: found.dev(), inode: found.ino() })
    }

    /// Whether the name is gone, or belongs to another file. An unclear case (a failing disk, a directory without access) counts as
    /// not lost. The open socket keeps its inode, so no other file can have its number.
    fn is_lost(&self) -> bool {
        match fs::symlink_metadata(&self.path) {
            Ok(found) => (found.dev(), found.ino()) != (self.device, self.inode),
            Err(error) => matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = |found: fs::Metadata| (found.dev(), found.ino()) == (self.device, self.inode);
        if fs::symlink_metadata(&self.path).is_ok_and(ours) {
            // On an error, the next start finds that nothing answers at the name.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl<T: Send + 'static> NameWatch<T> {
    /// `prepare` makes a reader of a socket. Must be called inside the runtime.
    pub fn start(
        address: &ListenAddress,
        file: Option<SocketFile>,
        (rebinds, state): (Counter, SharedListenerStatus),
        prepare: fn(Socket) -> io::Result<T>,
    ) -> Self {
        let (sender, rebound) = mpsc::channel(1);
        let is_named = file.is_some();
        let file = Arc::new(Mutex::new(file));
        let watch = Watch { address: address.clone(), file: file.clone(), rebinds, state, prepare };
        let task = is_named.then(|| spawn(watch.run(sender)));
        Self { file, task, rebound }
    }

    /// Waits for the reader of a new socket that is bound to the name. The previous socket has no name any more.
    pub async fn rebound(&mut self) -> T {
        match self.rebound.recv().await {
            Some(reader) => reader,
            None => std::future::pending().await,
        }
    }

    /// Ends the watch and removes the name.
    pub async fn remove(self) {
        if let Some(task) = self.task {
            task.abort();
            let file = self.file;
            // Not on the runtime's thread. A name that stays is removed by the next relay.
            let _ = timeout(REMOVE_WITHIN, spawn_blocking(move || drop(file.lock().take()))).await;
        }
    }
}

struct Watch<T> {
    address: ListenAddress,
    file: Arc<Mutex<Option<SocketFile>>>,
    rebinds: Counter,
    /// The listener's status: whether senders find the socket.
    state: SharedListenerStatus,
    prepare: fn(Socket) -> io::Result<T>,
}

impl<T> Watch<T> {
    async fn run(self, rebound: mpsc::Sender<T>) {
        let (mut trouble, mut throttle): (Option<String>, _) = (None, Throttle::new(WARN_EVERY));
        loop {
            sleep(WATCH_EVERY).await;
            let (address, file) = (self.address.clone(), self.file.clone());
            let Ok(bound) = spawn_blocking(move || bind_again(&address, &file)).await else { continue };
            let Some(bound) = bound else { continue };
            let prepared = bound.and_then(|socket| {
                let failed = |error| BindError::Other(self.address.clone(), "making ready to read", error);
                (self.prepare)(socket).map_err(failed)
            });
            match prepared {
                Ok(reader) => {
                    self.rebinds.inc();
                    self.state.works();
                    trouble = None;
                    if throttle.allows(Instant::now()) {
                        warn!(
                            "listen: {}: the socket's name was removed (a cleaner of temporary files, a volume made anew); \
                             bound again. Senders that came meanwhile found nobody",
                            self.address
                        );
                    }
                    if rebound.send(reader).await.is_err() {
                        return;
                    }
                }
                Err(problem) => {
                    if let BindError::Other(..) = problem {
                        // A name without a reader is useless. It is removed, so that it is bound again.
                        let file = self.file.clone();
                        let _ = spawn_blocking(move || remove(&file)).await;
                    }
                    let problem = problem.to_string();
                    self.state.fails(&problem);
                    if trouble.as_ref() != Some(&problem) {
                        error!(
                            "{problem}; the socket's name was removed, no new sender finds the relay, and it is tried again \
                             every {WATCH_EVERY:?}"
                        );
                        trouble = Some(problem);
                    }
                }
            }
        }
    }
}

/// Binds the name again if it is lost. `None`: it is not lost, or the listener has ended.
fn bind_again(address: &ListenAddress, file: &Mutex<Option<SocketFile>>) -> Option<Result<Socket, BindError>> {
    let mut file = file.lock();
    if !file.as_ref()?.is_lost() {
        return None;
    }
    let bound = open(address).map(|(socket, bound)| {
        *file = bound;
        socket
    });
    Some(bound)
}

/// Removes the name, and keeps the watch over it.
fn remove(file: &Mutex<Option<SocketFile>>) {
    if let Some(file) = file.lock().as_ref()
        && !file.is_lost()
    {
        let _ = fs::remove_file(&file.path);
    }
}
