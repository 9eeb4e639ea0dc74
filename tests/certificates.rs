//! Files of certificates that change while a relay runs, and who is let in with which.

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustls::version::TLS13;
use tempfile::TempDir;

use support::{Certs, Collector, Docker, Format, Framing, Relay, Setup, TlsClient, Wire, eventually, says};

const PAIR: [&str; 2] = ["server.pem", "server-key.pem"];
const CLIENT: [&str; 3] = ["ca.pem", "client.pem", "client-key.pem"];
const ANONYMOUS: TlsClient = TlsClient { version: &TLS13, identified: false };
const RENEWED: &str = "its certificates have changed; new connections use the new ones";
const UNUSABLE: &str = "its certificates have changed and cannot be used";

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

/// Waits until it has said so, so often.
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
    let mut old = relay.door().connect_tls_as(ANONYMOUS, ours, None);
    say(&mut old, 0);
    collector.frames(1);

    others.put(&PAIR, dir.path());
    relay.says(RENEWED);
    // Whose certificate it is, the handshake proves: it trusts only one of them.
    let mut new = relay.door().connect_tls_as(ANONYMOUS, &others, None);
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
    let as_one_of = |certs| relay.door().connect_tls_as(ANONYMOUS, ours, Some(("client.pem", certs)));
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

    // Files that the collector would refuse, and that refuse it: the connection that stands does not notice.
    others.put(&CLIENT, dir.path());
    relay.says(RENEWED);
    says(&relay, 10..20);
    collector.frames(20);
    assert_eq!(collector.accepted(), 1);

    // The next one does, and makes no forward give up.
    relay.has_delivered(20, 0);
    collector.hangs_up();
    says(&relay, 20..30);
    relay.says("TLS with 127.0.0.1: ");
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
    let setup = setup.listen_with("tcp+tls://[::1]:0", &pair_in(beside.path()));
    let collector = Collector::tcp(Framing::Newline);
    let relay = setup.forward(&collector.url()).start();

    // The certificate is there and its key is not yet.
    others.put(&["server.pem"], dir.path());
    says_times(&relay, UNUSABLE, 1);
    relay.says("do not work together");
    // All files are looked at together: when this one was seen twice, the other was too.
    for times in 1..=2 {
        let certs = if times == 1 { &others } else { ours };
        certs.put(&PAIR, beside.path());
        says_times(&relay, RENEWED, times);
    }
    assert_eq!(count(&relay, UNUSABLE), 1, "it is said once");
    say(&mut relay.doors()[0].connect_tls_as(ANONYMOUS, ours, None), 0);
    collector.frames(1);

    // Written in place, and not to its end.
    let whole = fs::read(others.path("server.pem")).expect("a file");
    fs::write(dir.path().join("server.pem"), &whole[..whole.len() / 2]).expect("a file");
    says_times(&relay, UNUSABLE, 2);
    fs::write(dir.path().join("server.pem"), &whole).expect("a file");
    others.put(&["server-key.pem"], dir.path());
    says_times(&relay, RENEWED, 3);
    say(&mut relay.doors()[0].connect_tls_as(ANONYMOUS, &others, None), 1);
    collector.frames(2);
    // Between the last two the pair may have been looked at: whole, and with the old key.
    let refused = reloads(&relay, "refused");
    assert!((2..=3).contains(&refused), "{refused} refused");
    assert_eq!(reloads(&relay, "applied"), 3);
    relay.stops();
}

/// As Kubernetes does: files are links through `..data`, and that link is swapped.
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
    say(&mut relay.door().connect_tls_as(ANONYMOUS, &others, None), 0);
    collector.frames(1);
    relay.stops();
}
