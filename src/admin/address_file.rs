//! The file of `[admin] address-file`. It contains the admin address while the admin port answers, so that a relay on a free port
//! can be found: `curl "http://$(cat FILE)/status"` shows the addresses of its listeners.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;

use crate::files;
use crate::tasks::{Blocking, spawn_blocking};

/// How long a stop waits for the file to be removed: its disk may hang.
const REMOVE_WITHIN: Duration = Duration::from_secs(1);

/// The written file. Dropping the value removes the file; a relay that is killed leaves its file behind.
pub struct AddressFile(PathBuf);

impl AddressFile {
    /// Removes the file, even if it is still being written.
    pub async fn remove(written: Blocking<Self>) {
        let removed = async {
            let file = written.await?;
            spawn_blocking(move || drop(file)).await
        };
        // The next relay overwrites a file that stays behind.
        let _ = timeout(REMOVE_WITHIN, removed).await;
    }
    /// Writes `ADDRESS:PORT` and a newline. A reader finds the whole file, an older one, or none.
    pub fn write(path: PathBuf, address: SocketAddr) -> Self {
        if let Err(error) = put(&path, address) {
            tracing::warn!("admin: cannot write the address into {}: {error}", path.display());
        }
        Self(path)
    }
}

fn put(path: &Path, address: SocketAddr) -> std::io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    writeln!(files::create(Path::new(&aside))?, "{address}")?;
    fs::rename(aside, path)
}

impl Drop for AddressFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
