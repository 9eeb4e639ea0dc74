//! Problems that `logferry check` finds before a relay starts: bad certificates, small disks and buffers, names that do not resolve. Errors
//! in the config itself: `refuses.rs`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use chrono::{Datelike, TimeDelta, Utc};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::support::relay::logferry;
use crate::support::{Certs, Setup, root_can, run};

const CONFIG: i32 = 78;

/// A relay would not start with bad secrets.
#[test]
fn secrets_of_senders_are_read_and_not_shown() {
    let dir = TempDir::new().expect("a directory");
    let file = |name: &str, text: &str, mode: u32| {
        let path = dir.path().join(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
        path.display().to_string()
    };
    let checks = |key: &str, users: &str| {
        let keys = format!("shared-key-file = \"{key}\"\nusers-file = \"{users}\"");
        Checked::of(&mut Setup::new().listen_with("fluent://127.0.0.1:0", &keys).forward("stdout:").command())
    };
    let (key, users) = (file("key", "hunter2\n", 0o600), file("users", "alice:hunter2\n", 0o600));
    checks(&key, &users).says_nothing_of("problem: ").says_nothing_of("hunter2");
    for (key, users, says) in [
        ("/nowhere", &*users, &["/nowhere", "cannot read the secret in it"][..]),
        (&file("empty", " \n", 0o600), &users, &["there is no secret in it"]),
        (&key, &file("bad", "alice:a\nhunter2\n", 0o600), &["line 2 is no `name:password`"]),
    ] {
        let checked = checks(key, users);
        checked.says("problem: listen fluent://", says).says_nothing_of("hunter2").ends(CONFIG);
    }
    let open = file("open", "alice:hunter2\n", 0o644);
    checks(&key, &open).says("warning: listen fluent://", &["everybody on this machine can read the key", &open]);
}

/// `check` does not send secrets to a store either.
#[test]
fn secrets_of_forwards_are_read_and_not_shown() {
    let setup = Setup::new().listen("tcp://127.0.0.1:0");
    for (name, text) in [("token", "hunter2\n"), ("empty", "\n")] {
        fs::write(setup.path(name), text).expect("written");
        fs::set_permissions(setup.path(name), fs::Permissions::from_mode(0o600)).expect("a mode");
    }
    let key = |key: &str, name: &str| format!("{key} = \"{}\"", setup.path(name).display());
    let checks = |keys: &str| {
        let setup = Setup::new().listen("tcp://127.0.0.1:0");
        Checked::of(&mut setup.forward_with("http://127.0.0.1:1", &format!("api = \"loki\"\n{keys}")).command())
    };
    checks(&key("token-file", "token")).says_nothing_of("problem: ").says_nothing_of("hunter2");
    let password = |name: &str| format!("user = \"alice\"\n{}", key("password-file", name));
    for (keys, says) in [
        (key("token-file", "nowhere"), "nowhere: cannot read the secret in it"),
        (key("token-file", "empty"), "empty: there is no secret in it"),
        (password("nowhere"), "nowhere: cannot read the secret in it"),
        (password("empty"), "empty: there is no secret in it"),
    ] {
        checks(&keys).says("problem: forward central: ", &[says]).ends(CONFIG);
    }
    fs::set_permissions(setup.path("token"), fs::Permissions::from_mode(0o644)).expect("a mode");
    checks(&key("token-file", "token"))
        .says("warning: forward central: ", &["everybody on this machine can read the key"]);
}

/// The result of `check`: its exit code, and its lines.
struct Checked {
    code: Option<i32>,
    said: String,
}

impl Checked {
    fn of(command: &mut Command) -> Self {
        let output = run(command.arg("check"));
        Self { code: output.status.code(), said: String::from_utf8(output.stderr).expect("text") }
    }

    /// Expects a line of this kind (`problem: `, `warning: `, or neither) that contains all of these words.
    #[track_caller]
    fn says(&self, kind: &str, words: &[&str]) -> &Self {
        let found =
            self.said.lines().any(|line| line.starts_with(kind) && words.iter().all(|word| line.contains(word)));
        assert!(found, "no `{kind}` with {words:?} in\n{}", self.said);
        self
    }

    #[track_caller]
    fn says_nothing_of(&self, word: &str) -> &Self {
        assert!(!self.said.contains(word), "{word} in\n{}", self.said);
        self
    }

    /// Expects this exit code and a correct summary.
    #[track_caller]
    fn ends(&self, code: i32) {
        let count = |kind: &str| self.said.lines().filter(|line| line.starts_with(kind)).count();
        let plural = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
        let (problems, warnings) = (count("problem: "), count("warning: "));
        let summary = match (problems, warnings) {
            (0, 0) => "good".to_owned(),
            _ => format!("{}, {}", plural(problems, "problem"), plural(warnings, "warning")),
        };
        assert_eq!(self.said.lines().last(), Some(summary.as_str()), "{}", self.said);
        assert_eq!((self.code, problems > 0), (Some(code), code == CONFIG), "{}", self.said);
    }
}

fn udp() -> Setup {
    Setup::new().listen("udp://127.0.0.1:0")
}

/// A CA for one test, and the certificates that it signs.
struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// Validity in days from today: from, until.
type Days = (i64, i64);
const NOW: Days = (-1, 365);

fn params(name: &str, names: &[&str], days: Days) -> CertificateParams {
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    let date = |days: i64| {
        let date = Utc::now().date_naive() + TimeDelta::days(days);
        rcgen::date_time_ymd(date.year(), date.month() as u8, date.day() as u8)
    };
    (params.not_before, params.not_after) = (date(days.0), date(days.1));
    params
}

fn ca_params(name: &str, days: Days) -> CertificateParams {
    let mut params = params(name, &[], days);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

impl Authority {
    /// A CA with its certificate in `ca.pem`.
    fn new(name: &str, days: Days) -> Self {
        let (dir, key) = (TempDir::new().expect("a directory"), KeyPair::generate().unwrap());
        let params = ca_params(name, days);
        fs::write(dir.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).expect("written");
        Self { dir, issuer: Issuer::new(params, key) }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().expect("UTF-8").to_owned()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join(name)).expect("a file")
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        fs::write(self.dir.path().join(name), text).expect("written");
        fs::set_permissions(self.dir.path().join(name), fs::Permissions::from_mode(mode)).expect("our file");
    }

    /// Makes `own.pem` and `own-key.pem`.
    fn signs(self, params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        self.write("own.pem", &params.signed_by(&key, &self.issuer).unwrap().pem(), 0o644);
        self.write("own-key.pem", &key.serialize_pem(), 0o600);
        self
    }

    /// The config lines for the pair.
    fn keys(&self) -> String {
        format!("cert = \"{}\"\nkey = \"{}\"\n", self.path("own.pem"), self.path("own-key.pem"))
    }

    fn listens(&self) -> Setup {
        Setup::new().listen_with("tcp+tls://127.0.0.1:0", &self.keys()).forward("stdout:")
    }
}

/// The name counts as a container's ID only in a container: the test creates podman's mark for containers in a mount namespace.
#[test]
fn a_host_name_that_is_the_container_s_own_id() {
    if !root_can("change the host name") {
        return;
    }
    let dir = TempDir::new().expect("a directory");
    let check = |variable: &str| {
        let mut command = Command::new("unshare");
        command.args([
            "--uts",
            "--mount",
            "sh",
            "-c",
            "mount -t tmpfs none /run && touch /run/.containerenv && hostname 2a9052a5c36e && exec \"$0\" \"$@\"",
            env!("CARGO_BIN_EXE_logferry"),
        ]);
        command.env("LOGFERRY_SPOOL_DIR", dir.path()).env("LOGFERRY_LISTEN", "tcp://127.0.0.1:0");
        command.env("LOGFERRY_HOSTNAME", variable);
        if variable.is_empty() {
            command.env_remove("LOGFERRY_HOSTNAME");
        }
        Checked::of(&mut command)
    };
    check("").says("warning: ", &["2a9052a5c36e", "the ID of this container", "LOGFERRY_HOSTNAME"]);
    check("node-7").says_nothing_of("the ID of this container");
}

/// `check` does not block on a pipe without a writer, and does not read an endless device into memory.
#[test]
fn what_is_no_file_is_a_problem_at_once() {
    let authority = Authority::new("Example CA", NOW).signs(params("relay", &["relay"], NOW));
    mkfifo(authority.path("pipe").as_str(), Mode::S_IRWXU).expect("a pipe");
    let keys = authority.keys().replace("own.pem", "pipe");
    let setup = Setup::new().listen_with("tcp+tls://127.0.0.1:0", &keys).forward("stdout:");
    let checked = Checked::of(&mut setup.command());
    checked.says("problem: ", &["/pipe: cannot read it: it is a pipe"]).ends(CONFIG);
    let keys = authority.keys() + "client-ca = \"/dev/zero\"\n";
    let setup = Setup::new().listen_with("tcp+tls://127.0.0.1:0", &keys).forward("stdout:");
    Checked::of(&mut setup.command()).says("problem: ", &["/dev/zero: cannot read it: it is a device"]).ends(CONFIG);
    let checked = Checked::of(logferry().env("LOGFERRY_CONFIG", authority.path("pipe")));
    assert_eq!(checked.code, Some(CONFIG), "{}", checked.said);
    assert!(checked.said.contains("/pipe: cannot read the config file: it is a pipe"), "{}", checked.said);
}

#[test]
fn a_good_config_is_good() {
    let certs = Certs::get();
    let setup = Setup::new()
        .listen_with("tcp+tls://127.0.0.1:0", &format!("{}client-ca = \"{}\"", certs.listen(), certs.path("ca.pem")))
        .forward("stdout:");
    let checked = Checked::of(&mut setup.command());
    checked
        .says(
            "listen tcp+tls://127.0.0.1:0: ",
            &["server.pem", "for 127.0.0.1, ::1, localhost, collector.test, until 20"],
        )
        .says("listen tcp+tls://127.0.0.1:0: ", &["server.pem: leads to `logferry trial CA", "ca.pem"])
        .says_nothing_of("problem: ")
        .ends(0);
    assert!(!setup.path("spool").exists(), "it makes nothing");
}

/// Such keys do not prevent an upgrade, but each is reported.
#[test]
fn keys_that_mean_nothing_and_old_names() {
    let keys = "return-after = \"1m\"\nwindow = 10\nreplay = \"1KiB\"";
    Checked::of(&mut udp().forward_with("relp://127.0.0.1:2514", keys).command())
        .says("warning: ", &["forward.return-after: its name is `failback-after` now"])
        .says("warning: ", &["forward.replay: forward central has no target that uses it (tcp://, tcp+tls://, gelf+tcp:// or gelf+tls://)"])
        .says_nothing_of("window")
        .ends(0);
    let both = "return-after = \"1m\"\nfailback-after = \"1m\"";
    Checked::of(&mut udp().forward_with("relp://127.0.0.1:2514", both).command())
        .says("problem: ", &["forward.return-after: it is the old name of `failback-after`, which is there too"])
        .ends(CONFIG);
    let relay = udp().forward_with("stdout:", "window = 10").start();
    relay.says("config: ");
    relay.says("forward.window: forward central has no target that uses it (relp://, relp+tls://, nats:// or nats+tls://); take it out");
}

#[test]
fn a_certificate_that_has_ended() {
    let authority = Authority::new("CA", NOW).signs(params("logs", &["logs.example.com"], (-400, -10)));
    let checked = Checked::of(&mut authority.listens().command());
    checked.says(
        "problem: listen tcp+tls://127.0.0.1:0: ",
        &["own.pem: `logs` ended on ", " days ago; have it signed anew"],
    );
    checked.ends(CONFIG);

    let soon = Authority::new("CA", NOW).signs(params("logs", &["logs.example.com"], (-400, 29)));
    let checked = Checked::of(&mut soon.listens().command());
    checked.says("warning: ", &["own.pem: `logs` ends on ", "in 28 days"]).ends(0);

    let later = Authority::new("CA", NOW).signs(params("logs", &["logs.example.com"], (-400, 40)));
    Checked::of(&mut later.listens().command()).says_nothing_of("own.pem: `logs` ends").ends(0);

    let early = Authority::new("CA", NOW).signs(params("logs", &["logs.example.com"], (3, 400)));
    let checked = Checked::of(&mut early.listens().command());
    checked.says("problem: ", &["own.pem: `logs` is valid from ", "clock"]).ends(CONFIG);
}

#[test]
fn a_ca_that_has_ended() {
    let authority = Authority::new("CA", (-800, -2)).signs(params("logs", &["logs.example.com"], NOW));
    let keys = format!("{}client-ca = \"{}\"", authority.keys(), authority.path("ca.pem"));
    let setup = Setup::new().listen_with("tcp+tls://127.0.0.1:0", &keys).forward("stdout:");
    Checked::of(&mut setup.command()).says("warning: ", &["ca.pem: the CA `CA` ended on "]).ends(0);
}

#[test]
fn a_certificate_for_no_name() {
    let authority = Authority::new("CA", NOW).signs(params("logs.example.com", &[], NOW));
    Checked::of(&mut authority.listens().command()).says("warning: ", &["own.pem: it is for no name"]).ends(0);
}

#[test]
fn a_key_of_another_pair() {
    let authority = Authority::new("CA", NOW).signs(params("logs", &["logs.example.com"], NOW));
    authority.write("own-key.pem", &KeyPair::generate().unwrap().serialize_pem(), 0o600);
    let checked = Checked::of(&mut authority.listens().command());
    checked.says("problem: ", &["own.pem and ", "own-key.pem do not work together"]).ends(CONFIG);
}

/// A chain starts with the server's own certificate.
#[test]
fn a_chain_in_the_wrong_order() {
    let root = Authority::new("root", NOW);
    let (middle_key, own_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let middle_params = ca_params("middle", NOW);
    let middle = middle_params.signed_by(&middle_key, &root.issuer).unwrap().pem();
    let middle_issuer = Issuer::new(middle_params, middle_key);
    let own = params("logs", &["logs.example.com"], NOW).signed_by(&own_key, &middle_issuer).unwrap().pem();
    root.write("own-key.pem", &own_key.serialize_pem(), 0o600);
    let checked = |parts: &[&str]| {
        root.write("own.pem", &parts.concat(), 0o644);
        Checked::of(&mut root.listens().command())
    };
    let ca = root.read("ca.pem");
    checked(&[&own, &middle]).says_nothing_of("signed by `middle`, and behind it").ends(0);
    checked(&[&own, &middle, &ca]).says_nothing_of("and behind it").ends(0);
    checked(&[&own, &ca, &middle])
        .says("warning: ", &["`logs` is signed by `middle`, and behind it stands `root`"])
        .ends(0);
    checked(&[&middle, &own])
        .says("problem: ", &["do not work together"])
        .says("problem: ", &["its own certificate must come first"])
        .ends(CONFIG);
}

/// A new CA with the name of an old CA: certificates of the old CA are invalid.
#[test]
fn a_certificate_of_the_ca_before() {
    let before = Authority::new("CA", NOW).signs(params("relay", &["relay.example.com"], NOW));
    let anew = Authority::new("CA", NOW);
    let forward = |ca: &Authority| {
        udp().forward_with("tcp+tls://127.0.0.1:6514", &format!("{}ca = \"{}\"", before.keys(), ca.path("ca.pem")))
    };
    Checked::of(&mut forward(&before).command()).says("forward central: ", &["own.pem: leads to `CA`"]).ends(0);
    let checked = Checked::of(&mut forward(&anew).command());
    checked.says("warning: forward central: ", &["own.pem: it names `CA`", "was the CA made anew"]).ends(0);
    // A different CA is no problem: the collector may have a separate CA for its senders.
    let other = Authority::new("another CA", NOW);
    Checked::of(&mut forward(&other).command()).says_nothing_of("warning: forward central: ").ends(0);
}

#[test]
fn a_certificate_for_servers_shown_by_a_client() {
    let mut server = params("relay", &["relay.example.com"], NOW);
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let authority = Authority::new("CA", NOW).signs(server);
    let keys = format!("{}ca = \"{}\"", authority.keys(), authority.path("ca.pem"));
    let setup = udp().forward_with("tcp+tls://127.0.0.1:6514", &keys);
    Checked::of(&mut setup.command()).says("warning: ", &["own.pem: it names `CA`", "for another use"]).ends(0);
}

#[test]
fn a_key_that_everybody_can_read() {
    let authority = Authority::new("CA", NOW).signs(params("logs", &["logs.example.com"], NOW));
    let key = authority.read("own-key.pem");
    let checked = |mode: u32| {
        authority.write("own-key.pem", &key, mode);
        Checked::of(&mut authority.listens().command())
    };
    checked(0o644)
        .says("warning: ", &["everybody on this machine can read the key ", "own-key.pem; chmod o= "])
        .ends(0);
    for mode in [0o600, 0o640, 0o444] {
        checked(mode).says_nothing_of("everybody").ends(0);
    }
    // As the kubelet mounts a secret: files with mode 0644 behind symbolic links.
    let hidden = authority.dir.path().join("..2026_11_21");
    fs::create_dir(&hidden).expect("made");
    fs::write(hidden.join("own-key.pem"), &key).expect("written");
    fs::set_permissions(hidden.join("own-key.pem"), fs::Permissions::from_mode(0o644)).expect("our file");
    fs::remove_file(authority.path("own-key.pem")).expect("ours");
    symlink(hidden.join("own-key.pem"), authority.path("own-key.pem")).expect("linked");
    Checked::of(&mut authority.listens().command()).says_nothing_of("everybody").ends(0);
}

#[test]
fn plain_text_to_a_public_address() {
    // TEST-NET-3 (RFC 5737): a public address that no host has. An IP address needs no name server.
    for scheme in ["tcp", "udp", "relp"] {
        let checked = Checked::of(&mut udp().forward(&format!("{scheme}://203.0.113.9:514")).command());
        let target = format!("forward central: {scheme}://203.0.113.9");
        checked.says("warning: ", &[&target, "plain text to 203.0.113.9, a public address", "tcp+tls://"]).ends(0);
    }
    let ca = format!("ca = \"{}\"", Certs::get().path("ca.pem"));
    for (to, keys) in [
        ("tcp+tls://203.0.113.9:6514", ca.as_str()),
        ("relp+tls://203.0.113.9:2514", &ca),
        ("tcp://192.168.7.7:514", ""),
        ("udp://[fd00::7]:514", ""),
        ("tcp://localhost:514", ""),
        ("stdout:", ""),
    ] {
        Checked::of(&mut udp().forward_with(to, keys).command()).says_nothing_of("public address").ends(0);
    }
}

#[test]
fn an_open_listener_is_no_mistake() {
    let setup = Setup::new().listen("udp://0.0.0.0:514").listen("tcp://[::]:514").forward("stdout:");
    let checked = Checked::of(&mut setup.command());
    checked.says("listen udp://0.0.0.0:514: plain text, on every address", &[]);
    checked.says("listen tcp://[::]:514: plain text, on every address", &[]).ends(0);
}

#[test]
fn a_port_that_is_taken_is_the_running_relay_s() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let setup = Setup::new().listen(&format!("udp://{}", taken.local_addr().unwrap())).forward("stdout:");
    Checked::of(&mut setup.command()).says_nothing_of("in use").ends(0);
}

/// `check` reports the buffer that the kernel would grant this user. Whether that is too small depends on the machine.
#[test]
fn a_small_receive_buffer() {
    let setup = Setup::new().listen_with("udp://127.0.0.1:0", "receive-buffer = \"16KiB\"").forward("stdout:");
    let checked = Checked::of(&mut setup.command());
    checked.says("listen udp://127.0.0.1:0: receive buffer 32 KiB", &[]).ends(0);
    let limit: usize = fs::read_to_string("/proc/sys/net/core/rmem_max").unwrap().trim().parse().unwrap();
    let dir = TempDir::new().expect("a directory");
    let Some(mut command) = crate::support::as_nobody(&dir) else { return };
    let granted = 2 * limit.min(8 << 20) / 1024;
    let checked = Checked::of(command.env("LOGFERRY_LISTEN", "udp://127.0.0.1:0"));
    if granted < 1024 {
        let words = [&format!("receive buffer of only {granted} KiB"), "net.core.rmem_max", "NET_ADMIN"];
        checked.says("warning: listen udp://127.0.0.1:0: ", &words);
    } else {
        checked.says(&format!("listen udp://127.0.0.1:0: receive buffer {granted} KiB"), &[]);
    }
}

#[test]
fn a_spool_that_is_no_directory() {
    let setup = udp().forward("stdout:");
    fs::write(setup.path("spool"), "").expect("written");
    Checked::of(&mut setup.command()).says("problem: spool: ", &["spool is no directory"]).ends(CONFIG);
}

#[test]
fn a_spool_that_is_not_ours() {
    let dir = TempDir::new().expect("a directory");
    let Some(mut command) = crate::support::as_nobody(&dir) else { return };
    let spool = dir.path().join("spool");
    command.env("LOGFERRY_LISTEN", "udp://127.0.0.1:0").env("LOGFERRY_SPOOL_DIR", &spool);
    let checked = Checked::of(&mut command);
    checked
        .says("problem: spool: ", &["cannot write to", "Permission denied", "make it first (install -d -o 65534 "])
        .ends(CONFIG);
    // The directory is writable, but the lock file is not, because a relay of root has created it.
    fs::create_dir(&spool).expect("made");
    fs::set_permissions(&spool, fs::Permissions::from_mode(0o777)).expect("ours");
    fs::write(spool.join("lock"), "").expect("written");
    let Some(mut command) = crate::support::as_nobody(&dir) else { return };
    command.env("LOGFERRY_LISTEN", "udp://127.0.0.1:0").env("LOGFERRY_SPOOL_DIR", &spool);
    Checked::of(&mut command)
        .says("problem: spool: ", &["cannot write to", "spool/lock: Permission denied"])
        .ends(CONFIG);
}

#[test]
fn a_socket_that_cannot_be_made() {
    for scheme in ["unix", "unixgram"] {
        let setup = Setup::new().listen(&format!("{scheme}://{{dir}}/sub/log.sock")).forward("stdout:");
        let (sub, problem) = (setup.path("sub"), format!("problem: listen {scheme}://"));
        let checked = || Checked::of(&mut setup.command());
        checked().says(&problem, &["/sub is not there; make it"]).ends(CONFIG);
        fs::write(&sub, "").expect("written");
        checked().says(&problem, &["/sub is no directory"]).ends(CONFIG);
        fs::remove_file(&sub).expect("ours");
        fs::create_dir(&sub).expect("made");
        checked().ends(0);
        fs::write(sub.join("log.sock"), "").expect("written");
        checked().says(&problem, &["no socket; move it away"]).ends(CONFIG);
        // A socket of a running relay, or of systemd.
        fs::remove_file(sub.join("log.sock")).expect("ours");
        let _socket = std::os::unix::net::UnixListener::bind(sub.join("log.sock")).expect("made");
        checked().ends(0);
    }
}

#[test]
fn a_file_that_cannot_be_written() {
    for template in ["sub/central.log", "sub/{host}/{name}.log", "sub/deeper/x-{host}.log"] {
        let setup = udp().forward(&format!("file://{{dir}}/{template}"));
        let sub = setup.path("sub");
        let checked = || Checked::of(&mut setup.command());
        checked().ends(0);
        assert!(!sub.exists(), "it makes nothing");
        fs::write(&sub, "").expect("written");
        checked().says("problem: forward central: file://", &[template, "/sub is no directory"]).ends(CONFIG);
    }
    let setup = udp().forward("file://{dir}/central.log");
    fs::create_dir(setup.path("central.log")).expect("made");
    Checked::of(&mut setup.command()).says("problem: forward central: ", &["central.log is a directory"]).ends(CONFIG);
    Checked::of(&mut udp().forward("file:///dev/null").command()).ends(0);
}

#[test]
fn places_that_are_not_ours() {
    let dir = TempDir::new().expect("a directory");
    let checked = |socket: &Path, file: &Path| {
        let mut command = crate::support::as_nobody(&dir)?;
        let listen = format!("unixgram://{}", socket.display());
        command.env("LOGFERRY_LISTEN", listen).env("LOGFERRY_FORWARD", format!("file://{}", file.display()));
        Some(Checked::of(command.env("LOGFERRY_SPOOL_DIR", dir.path().join("open/spool"))))
    };
    let open = dir.path().join("open");
    fs::create_dir(&open).expect("made");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).expect("ours");
    let Some(refused) = checked(&dir.path().join("log.sock"), &dir.path().join("logs/{host}.log")) else { return };
    let words = ["cannot write to", "Permission denied; it must be writable for uid 65534"];
    refused.says("problem: listen unixgram://", &words).says("problem: forward ", &words).ends(CONFIG);
    // An existing file does not need a writable directory.
    let file = dir.path().join("central.log");
    fs::write(&file, "").expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).expect("ours");
    let good = checked(&open.join("log.sock"), &file).expect("as before");
    good.says_nothing_of("cannot write to").ends(0);
}

/// A separate file system; dropping this unmounts it.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

#[test]
fn a_spool_on_a_disk_that_is_too_small() {
    if !root_can("mount a small disk") {
        return;
    }
    let setup = |max_size: &str| udp().spool(&format!("max-size = \"{max_size}\"")).forward("stdout:");
    let small = setup("64MiB");
    let at = small.path("spool");
    fs::create_dir(&at).expect("made");
    let mount = |options: &str| {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&at).status();
        assert!(mounted.expect("mount is everywhere").success());
        Mounted(&at)
    };
    let disk = mount("size=8m");
    let checked = Checked::of(&mut small.command());
    checked.says("warning: spool: ", &["has room for 8MiB and `max-size` is 64MiB", "set `max-size`"]);
    checked.says("spool: ", &["is in memory (tmpfs)"]).ends(0);
    // Spooled data already occupies its room, so it is not missing.
    fs::write(at.join("00000000000000000001.seg"), vec![0; 7 << 20]).expect("written");
    let checked = Checked::of(&mut small.command());
    checked.says("warning: spool: ", &["has room for 8MiB and"]).ends(0);
    fs::rename(at.join("00000000000000000001.seg"), at.join("something else")).expect("renamed");
    fs::write(at.join("more"), vec![0; 512 << 10]).expect("written");
    Checked::of(&mut small.command()).says("warning: spool: ", &["is full", "make room"]).ends(0);
    drop(disk);
    let _disk = mount("size=8m,ro");
    Checked::of(&mut small.command())
        .says("problem: spool: ", &["Read-only file system", "mount it writable"])
        .ends(CONFIG);
}

/// `check` reports problems of several kinds in one run, in the order of the sections.
#[test]
fn everything_is_said_at_once() {
    let authority = Authority::new("CA", NOW).signs(params("logs", &["logs.example.com"], (-400, -10)));
    let setup = Setup::new()
        .listen_with("tcp+tls://127.0.0.1:0", &authority.keys())
        .listen_with("relp+tls://127.0.0.1:0", "cert = \"/nonexistent.pem\"\nkey = \"/nonexistent.pem\"")
        .forward_with("tcp+tls://127.0.0.1:6514", "ca = \"/nonexistent.pem\"");
    fs::write(setup.path("spool"), "").expect("written");
    let checked = Checked::of(&mut setup.command());
    let begins = ["listen tcp+tls://", "listen relp+tls://", "spool: ", "forward central: "];
    let problems: Vec<&str> = checked.said.lines().filter_map(|line| line.strip_prefix("problem: ")).collect();
    assert_eq!(problems.len(), begins.len(), "{}", checked.said);
    assert!(problems.iter().zip(begins).all(|(problem, begin)| problem.starts_with(begin)), "{}", checked.said);
    checked.ends(CONFIG);
}
