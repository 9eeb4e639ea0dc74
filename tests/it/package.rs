//! The Debian package, in a minimal Debian: installation, operation, upgrade, removal.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::support::{Program, eventually, installed, root_can, skip};

/// Names the image's binary: building it takes minutes, and `.ci/run` has built it already.
const BINARY: &str = "LOGFERRY_STATIC_BINARY";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A command's output. The command must succeed.
#[track_caller]
fn ran(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

/// A minimal Debian in a directory.
struct Debian(TempDir);

impl Debian {
    fn new(debootstrap: &Path) -> Self {
        let dir = TempDir::new().expect("a directory");
        ran(Command::new(debootstrap).args(["--variant=minbase", "bookworm"]).arg(dir.path()));
        Self(dir)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path.trim_start_matches('/'))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("chroot");
        command.arg(self.0.path()).arg(program).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    #[track_caller]
    fn runs(&self, words: &[&str]) -> String {
        ran(self.command(words[0]).args(&words[1..]))
    }
}

/// This checkout's program, or the machine's.
fn cargo_deb() -> Option<PathBuf> {
    let ours = root().join(".ci/cache/bin/cargo-deb");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).map(|place| place.join("cargo-deb"));
    let found = [ours].into_iter().chain(places).find(|file| file.is_file());
    if found.is_none() {
        skip("cargo-deb", "cargo-deb is not installed (cargo install --locked cargo-deb)");
    }
    found
}

/// Builds the package of a binary in a directory.
fn package(binary: &str, cargo_deb: &Path, to: &Path) -> PathBuf {
    let mut folders = vec![cargo_deb.parent().expect("a folder").to_path_buf()];
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let path = std::env::join_paths(folders).expect("a path");
    ran(Command::new(root().join("docker/build-deb.sh")).arg(to).env("LOGFERRY_BINARY", binary).env("PATH", path));
    let mut built = fs::read_dir(to).expect("our directory").map(|entry| entry.expect("our directory").path());
    built.find(|path| path.extension().is_some_and(|end| end == "deb")).expect("a package")
}

#[test]
fn the_debian_package_installs_runs_and_leaves() {
    if !root_can("install a package") {
        return;
    }
    let Some(debootstrap) = installed("debootstrap", "debootstrap") else { return };
    let Some(cargo_deb) = cargo_deb() else { return };
    let Ok(binary) = std::env::var(BINARY) else {
        return skip(
            "a static binary",
            &format!("{BINARY} names no binary to pack (docker/build-binary.sh builds one)"),
        );
    };
    let debian = Debian::new(&debootstrap);
    let package = package(&binary, &cargo_deb, &debian.path("/tmp"));
    let package = format!("/tmp/{}", package.file_name().expect("a file").to_str().expect("UTF-8"));
    debian.runs(&["dpkg", "--install", &package]);

    assert_eq!(debian.runs(&["logferry", "--version"]).trim(), concat!("logferry ", env!("CARGO_PKG_VERSION")));
    let checked = debian.runs(&["logferry", "check"]);
    assert!(checked.contains("/var/lib/logferry"), "the config of the package is not read: {checked}");
    for file in ["man/man1/logferry-check.1.gz", "bash-completion/completions/logferry", "doc/logferry/copyright"] {
        assert!(debian.path("/usr/share").join(file).is_file(), "{file} is not there");
    }
    carries_a_message(&debian);
    systemd_takes_the_units(&debian);

    // An upgrade and a removal keep the user's changes. Only a purge deletes them, and the spool.
    let config = debian.path("/etc/logferry.toml");
    let changed = fs::read_to_string(&config).expect("a config") + "# ours\n";
    fs::write(&config, &changed).expect("written");
    fs::create_dir_all(debian.path("/var/lib/private/logferry")).expect("a spool");
    debian.runs(&["dpkg", "--install", &package]);
    debian.runs(&["dpkg", "--remove", "logferry"]);
    assert!(!debian.path("/usr/bin/logferry").exists());
    assert_eq!(fs::read_to_string(&config).expect("it is kept"), changed);
    assert!(debian.path("/var/lib/private/logferry").exists());
    debian.runs(&["dpkg", "--purge", "logferry"]);
    assert!(!config.exists() && !debian.path("/var/lib/private/logferry").exists());
}

/// Runs the package's program with the package's config, except for parts that need systemd: the socket, and the path of the spool.
fn carries_a_message(debian: &Debian) {
    let socket = "/run/log.sock";
    let mut command = debian.command("logferry");
    command.args(["run", "--listen", &format!("unix://{socket}"), "--spool-dir", "/run/spool", "--admin", "off"]);
    let program = Program::start(&mut command);
    let mut sender = eventually("it listens", || UnixStream::connect(debian.path(socket)).ok());
    sender.write_all(b"<14>1 2026-11-18T12:00:00Z host app - - - from a package\n").expect("sent");
    eventually("it prints the message", || {
        String::from_utf8_lossy(&program.stdout()).contains("from a package").then_some(())
    });
}

/// Checks the units, with the program's path replaced, because that Debian has no systemd.
fn systemd_takes_the_units(debian: &Debian) {
    let Some(analyze) = installed("systemd-analyze", "systemd") else { return };
    let dir = TempDir::new().expect("a directory");
    let program = debian.path("/usr/bin/logferry");
    for unit in ["logferry.service", "logferry.socket"] {
        let text = fs::read_to_string(debian.path("/usr/lib/systemd/system").join(unit)).expect(unit);
        assert!(!text.contains("/usr/local") && !text.contains("Environment=LOGFERRY"), "{unit}: {text}");
        let text = text.replace("/usr/bin/logferry", program.to_str().expect("UTF-8"));
        fs::write(dir.path().join(unit), text).expect("a fresh directory");
    }
    let said = ran(Command::new(analyze)
        .args(["verify", "--man=no"])
        .args([dir.path().join("logferry.service"), dir.path().join("logferry.socket")]));
    // systemd-analyze also warns about other units of this machine.
    assert!(!said.contains("logferry"), "{said}");
}
