//! Certificate files that change while a relay runs, and client certificates: which senders a listener accepts.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustls::HandshakeKind;
use rustls::version::TLS13;
use tempfile::TempDir;

use crate::support::{Certs, Collector, Docker, Format, Framing, Relay, Setup, TlsClient, Wire, eventually, says};

const PAIR: [&str; 2] = ["server.pem", "server-key.pem"];
const CLIENT: [&str; 3] = ["ca.pem", "client.pem", "client-key.pem"];
const RENEWED: &str = "its certificates or secrets have changed; new connections use the new ones";
const UNUSABLE: &str = "its certificates or secrets have changed and cannot be used";

fn directory() -> TempDir {
    TempDir::new().expect("a directory")
}

/// The keys of a listener whose files are in `dir`.
fn pair_in(dir: &Path) -> String {
    let dir = dir.display();
    format!("cert = \"{dir}/server.pem\"\nkey = \"{dir}/server-key.pem\"\n")
}

fn say(wire: &mut Wire, number: usize) {
    wire.says(&Docker::new(Format::Rfc5424Micro, "web"), number.to_string().as_bytes());
}

/// Waits until the relay has logged this text `times` times.
#[track_caller]
fn says_times(relay: &Relay, text: &str, times: usize) {
    eventually(&format!("{times} times: {text}"), || (count(relay, text) == times).then_some(()));
}

fn count(relay: &Relay, text: &str) -> usize {
    relay.stderr().matches(text).count()
}

fn reloads(relay: &Relay, result: &str) -> i64 {
    relay.metrics().with("tls_reloads_total", result)
}

#[test]
fn a_listener_shows_new_connections_its_new_certificate() {
    let theirs = directory();
    let (ours, others) = (Certs::get(), Certs::others(&theirs));
    let dir = directory();
    ours.put(&PAIR, dir.path());
    let collector = Collector::tcp(Framing::OctetCounting);
    let forward = "framing = \"octet-counting\"";
    let setup = Setup::new().listen_with("tcp+tls://127.0.0.1:0", &pair_in(dir.path()));
    let relay = setup.forward_with(&collector.url(), forward).start();
    let mut old = relay.door().connect_tls_as(TlsClient::ANONYMOUS, ours, None);
    say(&mut old, 0);
    collector.frames(1);

    others.put(&PAIR, dir.path());
    relay.says(RENEWED);
    // The handshake proves which certificate the relay uses: this client trusts only the new CA.
    let mut new = relay.door().connect_tls_as(TlsClient::ANONYMOUS, &others, None);
    say(&mut new, 1);
    collector.frames(2);
    say(&mut old, 2);
    collector.frames(3);
    assert_eq!(reloads(&relay, "refused"), 0);
    relay.has_delivered(3, 0);
    relay.stops();
}

#[test]
fn a_listener_asks_new_senders_for_certificates_of_its_new_ca() {
    let theirs = directory();
    let (ours, others) = (Certs::get(), Certs::others(&theirs));
    let dir = directory();
    ours.put(&["ca.pem"], dir.path());
    let collector = Collector::tcp(Framing::Newline);
    let keys = format!("{}client-ca = \"{}/ca.pem\"\n", ours.listen(), dir.path().display());
    let relay = Setup::new().listen_with("tcp+tls://127.0.0.1:0", &keys).forward(&collector.url()).start();
    let as_one_of = |certs| relay.door().connect_tls_as(TlsClient::ANONYMOUS, ours, Some(("client.pem", certs)));
    let mut old = as_one_of(ours);
    say(&mut old, 0);
    collector.frames(1);

    others.put(&["ca.pem"], dir.path());
    relay.says(RENEWED);
    let mut stranger = as_one_of(ours);
    say(&mut stranger, 10);
    stranger.is_closed();
    say(&mut as_one_of(&others), 1);
    collector.frames(2);
    say(&mut old, 2);
    collector.frames(3);
    assert_eq!(relay.metrics().sum("listen_handshake_failures_total"), 1);
    relay.has_delivered(3, 0);
    relay.stops();
}

#[test]
fn a_forward_connects_with_its_new_certificates() {
    let theirs = directory();
    let (ours, others) = (Certs::get(), Certs::others(&theirs));
    let dir = directory();
    ours.put(&CLIENT, dir.path());
    let collector = Collector::tls(Framing::OctetCounting, true);
    let [ca, cert, key] = CLIENT.map(|name| dir.path().join(name).display().to_string());
    let keys = format!("ca = \"{ca}\"\ncert = \"{cert}\"\nkey = \"{key}\"");
    let relay = Setup::new().listen("tcp://127.0.0.1:0").forward_with(&collector.url(), &keys).start();
    says(&relay, 0..10);
    collector.frames(10);

    // With these files neither side would accept the other's certificate. The open connection is not affected.
    others.put(&CLIENT, dir.path());
    relay.says(RENEWED);
    says(&relay, 10..20);
    collector.frames(20);
    assert_eq!(collector.accepted(), 1);

    // The next connection fails, but the forward does not give up.
    relay.has_delivered(20, 0);
    collector.hangs_up();
    says(&relay, 20..30);
    relay.fails_because("TLS with 127.0.0.1: ");
    let before = count(&relay, RENEWED);
    ours.put(&CLIENT, dir.path());
    eventually("it is said again", || (count(&relay, RENEWED) > before).then_some(()));
    eventually("all lines", || collector.numbers().ends_with(&(20..30).collect::<Vec<_>>()).then_some(()));
    assert_eq!(reloads(&relay, "refused"), 0);
    relay.stops();
}

#[test]
fn a_pair_that_cannot_be_used_changes_nothing_and_is_said_once() {
    let theirs = directory();
    let (ours, others) = (Certs::get(), Certs::others(&theirs));
    let (dir, beside) = (directory(), directory());
    ours.put(&PAIR, dir.path());
    ours.put(&PAIR, beside.path());
    let setup = Setup::new().listen_with("tcp+tls://127.0.0.1:0", &pair_in(dir.path()));
    let setup = setup.listen_with("tcp+tls://127.0.0.2:0", &pair_in(beside.path()));
    let collector = Collector::tcp(Framing::Newline);
    let relay = setup.forward(&collector.url()).start();

    // The new certificate is there before its key.
    others.put(&["server.pem"], dir.path());
    says_times(&relay, UNUSABLE, 1);
    relay.says("do not work together");
    // All files are polled together: two reloads of this pair mean two looks at the other pair.
    for times in 1..=2 {
        let certs = if times == 1 { &others } else { ours };
        certs.put(&PAIR, beside.path());
        says_times(&relay, RENEWED, times);
    }
    assert_eq!(count(&relay, UNUSABLE), 1, "it is said once");
    say(&mut relay.doors()[0].connect_tls_as(TlsClient::ANONYMOUS, ours, None), 0);
    collector.frames(1);

    // A file that is overwritten in place, half written.
    let whole = fs::read(others.path("server.pem")).expect("a file");
    fs::write(dir.path().join("server.pem"), &whole[..whole.len() / 2]).expect("a file");
    says_times(&relay, UNUSABLE, 2);
    fs::write(dir.path().join("server.pem"), &whole).expect("a file");
    others.put(&["server-key.pem"], dir.path());
    says_times(&relay, RENEWED, 3);
    say(&mut relay.doors()[0].connect_tls_as(TlsClient::ANONYMOUS, &others, None), 1);
    collector.frames(2);
    // Between the last two writes the relay may have seen the new certificate with the old key.
    let refused = reloads(&relay, "refused");
    assert!((2..=3).contains(&refused), "{refused} refused");
    assert_eq!(reloads(&relay, "applied"), 3);
    relay.stops();
}

/// As Kubernetes mounts secrets: files are symbolic links through `..data`, and that link is swapped.
#[test]
fn a_link_that_points_elsewhere_is_a_change() {
    let theirs = directory();
    let (ours, others) = (Certs::get(), Certs::others(&theirs));
    let dir = directory();
    for (version, certs) in [("..1", ours), ("..2", &others)] {
        fs::create_dir(dir.path().join(version)).expect("a directory");
        certs.put(&PAIR, &dir.path().join(version));
    }
    symlink("..1", dir.path().join("..data")).expect("a link");
    for name in PAIR {
        symlink(format!("..data/{name}"), dir.path().join(name)).expect("a link");
    }
    let collector = Collector::tcp(Framing::Newline);
    let setup = Setup::new().listen_with("tcp+tls://127.0.0.1:0", &pair_in(dir.path()));
    let relay = setup.forward(&collector.url()).start();
    symlink("..2", dir.path().join("..new")).expect("a link");
    fs::rename(dir.path().join("..new"), dir.path().join("..data")).expect("a rename");
    relay.says(RENEWED);
    say(&mut relay.door().connect_tls_as(TlsClient::ANONYMOUS, &others, None), 0);
    collector.frames(1);
    relay.stops();
}

#[test]
fn an_end_that_is_near_is_said_and_measured() {
    let dir = directory();
    Certs::made(dir.path(), &["--name", "127.0.0.1", "--days", "20"]);
    let ca = dir.path().join("ca.pem").display().to_string();
    let keys = format!("{}client-ca = \"{ca}\"\n", pair_in(dir.path()));
    let setup = Setup::new().listen_with("tcp+tls://127.0.0.1:0", &keys);
    let relay = setup.forward_with("tcp+tls://127.0.0.1:1", &format!("ca = \"{ca}\"")).start();
    relay.says("listen tcp+tls://127.0.0.1:0: ");
    relay.says("server.pem (127.0.0.1) expires in 19 days, at ");
    let ends = |what: &str| {
        let label = format!("certificate=\"{what}\"");
        eventually(what, || Some(relay.metrics().with("tls_not_after_seconds", &label)).filter(|end| *end > 0))
    };
    const DAY: i64 = 24 * 60 * 60;
    let (shown, trusted) = (ends("listen tcp+tls://127.0.0.1:0"), ends("listen tcp+tls://127.0.0.1:0 client-ca"));
    let left = shown - chrono::Utc::now().timestamp();
    assert!((19 * DAY..=20 * DAY).contains(&left), "{left} s");
    assert_eq!(trusted - shown, (3650 - 20) * DAY);
    assert_eq!(ends("forward central ca"), trusted);

    // The relay also warns about certificates that it loads later.
    let renewed = directory();
    let args = ["--name", "127.0.0.1", "--days", "5", "--ca", &ca];
    let renewed = Certs::made(renewed.path(), &args);
    renewed.put(&PAIR, dir.path());
    relay.says("server.pem (127.0.0.1) expires in 4 days, at ");
    assert_eq!(shown - ends("listen tcp+tls://127.0.0.1:0"), 15 * DAY);
    assert_eq!(count(&relay, " expires in "), 2, "once for each");
    relay.stops();
}

/// Checks a listener with these keys: accepted clients send one line each, and refused clients fail the handshake.
#[track_caller]
fn lets_in(keys: &str, welcome: &[(&str, &Certs)], refused: &[(&str, &Certs)]) {
    let ours = Certs::get();
    let collector = Collector::tcp(Framing::Newline);
    let keys = format!("{}{keys}\n", ours.listen());
    let relay = Setup::new().listen_with("tcp://127.0.0.1:0", &keys).forward(&collector.url()).start();
    for version in [&rustls::version::TLS12, &TLS13] {
        let tls = TlsClient { version, identified: false };
        for (file, certs) in refused {
            let before = relay.metrics().sum("listen_handshake_failures_total");
            relay.door().knock(tls, ours, Some((*file, *certs)));
            relay.counts("listen_handshake_failures_total", before + 1);
        }
        let before = collector.count();
        for (index, (file, certs)) in welcome.iter().enumerate() {
            say(&mut relay.door().connect_tls_as(tls, ours, Some((*file, *certs))), index);
            collector.frames(before + index + 1);
        }
        let before = relay.metrics().sum("listen_handshake_failures_total");
        relay.door().knock(tls, ours, None);
        relay.counts("listen_handshake_failures_total", before + 1);
    }
    // A listener with TLS rejects plain text.
    let mut plain = relay.door().connect();
    plain.send(b"<30>x\n");
    plain.is_closed();
    // An address is logged once per reason, however often it tries.
    let said = relay.stderr();
    let warnings: Vec<&str> = said.lines().filter(|line| line.contains(" WARN ")).collect();
    assert!(warnings.iter().all(|line| line.contains("127.0.0.1 was refused: ")) && warnings.len() <= 5, "{said}");
    relay.stops();
}

#[test]
fn senders_are_let_in_by_name() {
    let (dir, theirs) = (directory(), directory());
    let signed = ["--ca", &Certs::get().path("ca.pem"), "--client"];
    let names = "node-7,a.hosts.test,a.b.hosts.test,hosts.test,192.0.2.7,192.0.2.8";
    let hosts = Certs::made(dir.path(), &[&signed[..], &[names]].concat());
    // Another CA can sign any name.
    let strangers = Certs::made(theirs.path(), &["--name", "x", "--client", "node-7"]);
    lets_in(
        &format!(
            "client-ca = \"{}\"\nclient-names = [\"*.hosts.test\", \"NODE-7\", \"192.0.2.7\"]",
            Certs::get().path("ca.pem")
        ),
        &[("node-7.pem", &hosts), ("a.hosts.test.pem", &hosts), ("192.0.2.7.pem", &hosts)],
        &[
            ("a.b.hosts.test.pem", &hosts),
            ("hosts.test.pem", &hosts),
            ("192.0.2.8.pem", &hosts),
            ("client.pem", Certs::get()),
            ("node-7.pem", &strangers),
        ],
    );
}

#[test]
fn senders_are_let_in_by_fingerprint() {
    let theirs = directory();
    let (ours, others) = (Certs::get(), Certs::others(&theirs));
    let pinned = |certs: &Certs| format!("client-fingerprint = [\"{}\"]", certs.fingerprint("client.pem"));
    lets_in(&pinned(&others), &[("client.pem", &others)], &[("client.pem", ours), ("server.pem", &others)]);
    // With a CA, both the CA and the fingerprint must match.
    let both = |certs| format!("client-ca = \"{}\"\n{}", ours.path("ca.pem"), pinned(certs));
    lets_in(&both(ours), &[("client.pem", ours)], &[("client.pem", &others)]);
    lets_in(&both(&others), &[], &[("client.pem", &others), ("client.pem", ours)]);
}

/// A resumed session would accept a client by an old certificate, even if that certificate is not accepted any more.
#[test]
fn each_connection_shows_its_certificate_anew() {
    let ours = Certs::get();
    let collector = Collector::tcp(Framing::Newline);
    let keys = format!("{}client-ca = \"{}\"\n", ours.listen(), ours.path("ca.pem"));
    let relay = Setup::new().listen_with("tcp+tls://127.0.0.1:0", &keys).forward(&collector.url()).start();
    for version in [&rustls::version::TLS12, &TLS13] {
        // Both connections share a client config, so the second one could resume the first one's session.
        let config = TlsClient { version, identified: true }.config(ours, Some(("client.pem", ours)));
        for _ in 0..2 {
            let mut wire = relay.door().secure(config.clone());
            let before = collector.count();
            say(&mut wire, before);
            collector.frames(before + 1);
            let Wire::Tls(stream) = wire else { unreachable!("it is TLS") };
            assert_eq!(stream.conn.handshake_kind(), Some(HandshakeKind::Full), "{version:?}");
        }
    }
    relay.stops();
}

/// Certificates are public: a client must prove that it has the key.
#[test]
fn a_pinned_certificate_without_its_key_is_worth_nothing() {
    let theirs = directory();
    let (ours, others) = (Certs::get(), Certs::others(&theirs));
    let impostor = crate::support::certs::identity_with_key_of(&others, "client.pem", ours, "client-key.pem");
    let keys = format!("{}client-fingerprint = \"{}\"\n", ours.listen(), others.fingerprint("client.pem"));
    let relay = Setup::new().listen_with("tcp+tls://127.0.0.1:0", &keys).forward("tcp://127.0.0.1:1").start();
    for version in [&rustls::version::TLS12, &TLS13] {
        let before = relay.metrics().sum("listen_handshake_failures_total");
        relay.door().knock_with(version, ours, impostor.clone());
        relay.counts("listen_handshake_failures_total", before + 1);
    }
    assert_eq!(relay.metrics().sum("spool_spooled_total"), 0);
    relay.stops();

    let impostor = crate::support::certs::identity_with_key_of(&others, "server.pem", ours, "server-key.pem");
    let collector = Collector::tls_as(impostor);
    let pin = format!("server-fingerprint = \"{}\"", others.fingerprint("server.pem"));
    let relay = Setup::new().listen("tcp://127.0.0.1:0").forward_with(&collector.url(), &pin).start();
    says(&relay, 0..1);
    relay.fails_because("TLS with 127.0.0.1: ");
    assert_eq!((collector.count(), relay.metrics().sum("forward_connects_total")), (0, 0));
    relay.stops();
}

#[test]
fn collectors_are_known_by_fingerprint() {
    let theirs = directory();
    let (ours, others) = (Certs::get(), Certs::others(&theirs));
    let collector = Collector::tls_of(&others);
    let ca = |certs: &Certs| format!("ca = \"{}\"\n", certs.path("ca.pem"));
    let pin = |certs: &Certs| format!("server-fingerprint = [\"{}\"]", certs.fingerprint("server.pem"));
    let start = |keys: &str| {
        let relay = Setup::new().listen("tcp://127.0.0.1:0").forward_with(&collector.url(), keys).start();
        says(&relay, 0..1);
        relay
    };
    let mut arrived = 0;
    for good in [pin(&others), ca(&others) + &pin(&others)] {
        let relay = start(&good);
        relay.has_delivered(1, 0);
        relay.stops();
        arrived += 1;
    }
    // The error shows the certificate's fingerprint, for comparison or for the config.
    let is = format!("its certificate is {}, which is not configured", others.fingerprint("server.pem"));
    for (bad, why) in
        [(pin(ours), &is), (ca(&others) + &pin(ours), &is), (ca(ours) + &pin(&others), &"no CA of".to_owned())]
    {
        let relay = start(&bad);
        relay.fails_because(why);
        assert_eq!(relay.metrics().sum("forward_connects_total"), 0, "{bad}");
        relay.stops();
    }
    assert_eq!(collector.count(), arrived);
}

/// RFC 5425 5.2: a wildcard is the whole leftmost label, and stands for one.
#[test]
fn a_collectors_wildcard_stands_for_one_label() {
    let dir = directory();
    let certs = Certs::made(dir.path(), &["--name", "*.central.test"]);
    let collector = Collector::tls_of(&certs);
    for (name, is_right) in
        [("a.central.test", true), ("a.b.central.test", false), ("central.test", false), ("a.other.test", false)]
    {
        let keys = format!("ca = \"{}\"\nserver-name = \"{name}\"", certs.path("ca.pem"));
        let relay = Setup::new().listen("tcp://127.0.0.1:0").forward_with(&collector.url(), &keys).start();
        says(&relay, 0..1);
        if is_right {
            relay.has_delivered(1, 0);
        } else {
            relay.fails_because(&format!(
                "TLS with {name}: its certificate is for `*.central.test` and not for `{name}`"
            ));
        }
        relay.stops();
    }
    assert_eq!(collector.count(), 1);
}

fn openssl(arguments: &str, dir: &Path) -> String {
    let output = std::process::Command::new("openssl").args(arguments.split(' ')).current_dir(dir).output();
    let output = output.expect("openssl starts");
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// With any CA, ours or OpenSSL's. OpenSSL verifies the result.
#[test]
fn a_host_is_added_later() {
    if crate::support::installed("openssl", "openssl").is_none() {
        return;
    }
    let ours = directory();
    Certs::made(ours.path(), &["--name", "127.0.0.1", "--client", "node-1,node-2"]);
    assert!(!ours.path().join("client.pem").exists());
    let theirs = directory();
    let new = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -keyout ca-key.pem -out ca.pem";
    openssl(&format!("{new} -subj /CN=central"), theirs.path());
    for dir in [ours.path(), theirs.path()] {
        let ca = dir.join("ca.pem").display().to_string();
        let before = fs::read(&ca).expect("a file");
        let made = Certs::made(dir, &["--ca", &ca, "--client", "node-3,192.0.2.7"]);
        Certs::made(&dir.join("second"), &["--ca", &ca, "--name", "*.central.test,::1", "--days", "9"]);
        assert!(fs::read(&ca).expect("a file") == before);
        assert!(!dir.join("second/ca.pem").exists());
        for (file, name) in [
            ("node-3.pem", "-purpose sslclient -verify_hostname node-3"),
            ("192.0.2.7.pem", "-purpose sslclient -verify_ip 192.0.2.7"),
            ("second/server.pem", "-purpose sslserver -verify_hostname a.central.test"),
            ("second/server.pem", "-purpose sslserver -verify_ip ::1"),
        ] {
            openssl(&format!("verify -CAfile ca.pem {name} {file}"), dir);
        }
        let theirs = openssl("x509 -noout -fingerprint -sha256 -in node-3.pem", dir);
        let digits = theirs.trim().rsplit('=').next().expect("a fingerprint");
        assert_eq!(made.fingerprint("node-3.pem"), format!("sha-256:{digits}"));
    }
}

#[test]
fn what_cannot_be_signed_leaves_nothing_behind() {
    let (ours, theirs, out) = (directory(), directory(), directory());
    let ours = Certs::made(ours.path(), &["--name", "127.0.0.1"]);
    let theirs = Certs::made(theirs.path(), &["--name", "127.0.0.1"]);
    let refused = |arguments: &[&str], says: &str| {
        let mut command = crate::support::relay::logferry();
        let output = command.arg("certs").args(arguments).arg("--out").arg(out.path()).output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(says), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert_eq!(fs::read_dir(out.path()).expect("a directory").count(), 0, "{arguments:?}");
    };
    let (ca, key) = (ours.path("ca.pem"), theirs.path("ca-key.pem"));
    refused(&["--ca", &ca, "--ca-key", &key, "--client", "node-7"], "this CA cannot be signed with");
    refused(
        &["--ca", &ours.path("server.pem"), "--ca-key", &ours.path("server-key.pem"), "--client", "n"],
        "server.pem: this is no CA",
    );
    refused(&["--ca", &ca, "--ca-key", "/nowhere.pem", "--client", "node-7"], "/nowhere.pem: cannot read it");
    refused(&["--ca", &ca], "nothing to sign: give --name or --client");
    refused(&["--name", "a", "--client", "server"], "two certificates would be called server.pem");
    refused(&["--name", "a", "--client", "../b"], "`../b` is neither a DNS name nor an IP address");
    refused(&["--name", "[::1]"], "`[::1]` is neither a DNS name nor an IP address");
    refused(&["--name", "a", "--days", "0"], "--days");
}

/// The existing file may be from another run, or a key that the user has prepared.
#[test]
fn what_is_there_already_stays() {
    let dir = directory();
    let run = |says: &str| {
        let mut command = crate::support::relay::logferry();
        let output = command.args(["certs", "--name", "a", "--out"]).arg(dir.path()).output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(says) && said.lines().count() == 1, "{said}");
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 1, "{said}");
    };
    for name in ["server-key.pem", "server-key.pem.new"] {
        let path = dir.path().join(name);
        fs::write(&path, "a key").expect("written");
        run(&format!("{} is there already; nothing was written", path.display()));
        assert_eq!(fs::read(&path).expect("still there"), b"a key");
        fs::remove_file(path).expect("ours");
    }
    // A dangling link is only detected when its file is created, after other files were written.
    let path = dir.path().join("server-key.pem.new");
    symlink("nowhere", &path).expect("a link");
    run(&format!("cannot write {}: File exists", path.display()));
    assert!(path.is_symlink(), "still there");
}
