//! A real syslog-ng: how to find and start it. Each test has its own config for it.
//!
//! Debian's packages of syslog-ng and rsyslog exclude each other. An unpacked syslog-ng works too: `apt-get download syslog-ng-core
//! libivykis0 libnet1 libpcre3 libwrap0`, then `dpkg -x` each into `target/syslog-ng`.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::installed;
use super::rsyslog::without_nul_at_the_end;

#[derive(Clone)]
pub struct SyslogNg {
    program: PathBuf,
    /// The directory it was unpacked in.
    unpacked: Option<PathBuf>,
}

impl SyslogNg {
    pub fn find() -> Option<Self> {
        let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/syslog-ng");
        let program = unpacked.join("usr/sbin/syslog-ng");
        if program.is_file() {
            return Some(Self { program, unpacked: Some(unpacked) });
        }
        installed("syslog-ng", "syslog-ng-core").map(|program| Self { program, unpacked: None })
    }

    /// In the foreground, with the config `conf` of this directory.
    pub fn command(&self, dir: &Path) -> Command {
        let dir = dir.display();
        let mut command = Command::new(&self.program);
        command.args(["--foreground", "--stderr", "--no-caps"]).arg(format!("--cfgfile={dir}/conf"));
        command.arg(format!("--pidfile={dir}/pid")).arg(format!("--control={dir}/control"));
        command.arg(format!("--persist-file={dir}/persist"));
        if let Some(root) = &self.unpacked {
            let root = root.display();
            command.arg(format!("--module-path={root}/usr/lib/syslog-ng/3.38"));
            let machines = ["x86_64-linux-gnu", "aarch64-linux-gnu"];
            let libraries = machines.map(|machine| format!("{root}/usr/lib/{machine}:{root}/lib/{machine}")).join(":");
            command.env("LD_LIBRARY_PATH", format!("{libraries}:{root}/usr/lib/syslog-ng"));
        }
        command
    }
}

/// A message's text in syslog-ng's output, by every protocol: a NUL at the end is removed, and so is a BOM at the start, which RFC 5424
/// defines as a mark and not as text.
pub fn kept(text: &[u8]) -> Vec<u8> {
    let text = without_nul_at_the_end(text);
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text).to_vec()
}
