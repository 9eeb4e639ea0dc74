//! Senders and receivers by other authors, from PyPI.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::skip;

/// A Python that has this package of PyPI with its module: the one of `.ci/run`, or the machine's own.
#[track_caller]
pub fn python_with(package: &str, module: &str) -> Option<PathBuf> {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/cache/peers/bin/python3");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).map(|place| place.join("python3"));
    let has_it = |python: &PathBuf| {
        let mut command = Command::new(python);
        command.args(["-c", &format!("import {module}")]);
        let status = command.stdin(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    let found = [ours].into_iter().chain(places).filter(|python| python.is_file()).find(has_it);
    if found.is_none() {
        skip(package, &format!("{package} is not installed (pip install {package})"));
    }
    found
}
