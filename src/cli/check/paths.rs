//! Checks whether this user may create the files and unix sockets that the config names. The check creates nothing.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, eaccess, geteuid};

use super::Report;
use crate::config::{self, ForwardAddress, ListenAddress};

/// Checks the path of a unix socket. A relay does not create the directory, so the directory must exist.
pub fn of_listener(address: &ListenAddress, report: &mut Report) {
    let Some(path) = address.path() else { return };
    let dir = path.parent().unwrap_or(path);
    let trouble = match fs::symlink_metadata(path) {
        // The socket belongs to a running relay, or to systemd, which can create sockets where the relay cannot.
        Ok(found) if found.file_type().is_socket() => None,
        Ok(_) => Some("there is a file of this name, and it is no socket; move it away".to_owned()),
        Err(_) => match fs::metadata(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(format!(
                "{} is not there; make it (systemd: RuntimeDirectory=), writable for uid {}",
                dir.display(),
                geteuid()
            )),
            _ => trouble_in(dir),
        },
    };
    if let Some(says) = trouble {
        report.problem(format!("listen {address}: {says}"));
    }
}

/// Checks the paths of files. A relay creates missing directories, so the lowest existing one must be writable.
pub fn of_forward(settings: &config::Forward, report: &mut Report) {
    for target in &settings.to {
        let ForwardAddress::File(template) = &target.address else { continue };
        if let Some(says) = trouble_with_file(template) {
            report.problem(format!("forward {}: {target}: {says}", settings.name));
        }
    }
}

fn trouble_with_file(template: &Path) -> Option<String> {
    // The part before the first name with a field of a message.
    let has_field = |name: &std::ffi::OsStr| name.to_string_lossy().contains('{');
    let known: PathBuf = template.components().take_while(|name| !has_field(name.as_os_str())).collect();
    if known == template && known.exists() {
        // The directory does not matter if the file exists: it may be a pipe, or /dev/null.
        return if known.is_dir() { Some(format!("{} is a directory", known.display())) } else { refused(&known) };
    }
    let dir = if known == template { known.parent()? } else { &known };
    trouble_in(dir.ancestors().find(|dir| dir.exists())?)
}

fn trouble_in(dir: &Path) -> Option<String> {
    match fs::metadata(dir) {
        Ok(found) if !found.is_dir() => Some(format!("{} is no directory; name another", dir.display())),
        Ok(_) => refused(dir),
        Err(error) => Some(format!("cannot look at {}: {error}", dir.display())),
    }
}

/// Why this user may not write to a file, or into a directory.
pub fn refusal(path: &Path) -> Option<Errno> {
    let wanted = if path.is_dir() { AccessFlags::W_OK | AccessFlags::X_OK } else { AccessFlags::W_OK };
    // A file that has disappeared between two looks is no problem.
    eaccess(path, wanted).err().filter(|error| *error != Errno::ENOENT)
}

fn refused(path: &Path) -> Option<String> {
    let error = refusal(path)?;
    let what_to_do = match error {
        Errno::EROFS => "its file system is read-only; mount it writable, or name another".to_owned(),
        _ => format!("it must be writable for uid {}", geteuid()),
    };
    Some(format!("cannot write to {}: {}; {what_to_do}", path.display(), error.desc()))
}
