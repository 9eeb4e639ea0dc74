//! Error messages after a failed TLS handshake: of a relay and of `logferry check --connect` about a collector, and of `logferry probe`
//! about a relay. They name the peer's certificate, and the setting or argument to change.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Output};
use std::thread;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::http::status;
use crate::support::relay::logferry;
use crate::support::relp::RelpCollector;
use crate::support::{Certs, Collector, Framing, Relay, Setup, TlsClient, eventually, installed, run, says};

const CONFIG: i32 = 78;
/// A short timeout for peers that do not answer.
const IMPATIENT: &str = "connect-timeout = \"1s\"";

fn directory() -> TempDir {
    TempDir::new().expect("a directory")
}

/// A self-signed certificate as in OpenSSL's manual, which is marked as a CA. `None`: OpenSSL is not installed.
fn self_signed(dir: &Path, role: &str, name: &str) -> Option<Certs> {
    let openssl = installed("openssl", "openssl")?;
    let mut command = Command::new(openssl);
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]);
    command.args(["-subj", "/CN=central", "-addext", &format!("subjectAltName={name}")]);
    command.arg("-out").arg(dir.join(format!("{role}.pem")));
    let made = run(command.arg("-keyout").arg(dir.join(format!("{role}-key.pem"))));
    assert!(made.status.success(), "{made:?}");
    Some(Certs::of(dir))
}

fn relay_to(collector: &Collector, keys: &str) -> Relay {
    Setup::new().listen("tcp://127.0.0.1:0").forward_with(&collector.url(), keys).start()
}

/// The relay's last error about its only collector.
#[track_caller]
fn last_error(relay: &Relay) -> String {
    eventually("a forward fails", || status(relay)["forwards"][0]["last_error"]["text"].as_str().map(str::to_owned))
}

#[track_caller]
fn delivers(collector: &Collector, keys: &str) {
    let relay = relay_to(collector, keys);
    says(&relay, 0..1);
    relay.has_delivered(1, 0);
    relay.stops();
}

/// The advice works: with the suggested setting in the config, lines get through.
#[test]
fn a_collector_that_signed_its_certificate_by_itself() {
    let dir = directory();
    let Some(theirs) = self_signed(dir.path(), "server", "IP:127.0.0.1") else { return };
    let collector = Collector::tls_of(&theirs);
    let another = format!("ca = \"{}\"", Certs::get().path("ca.pem"));
    let relay = relay_to(&collector, &another);
    let said = last_error(&relay);
    relay.stops();
    let advice = format!(
        "its certificate is signed by itself; use server-fingerprint = [\"{}\"] in place of `ca`",
        theirs.fingerprint("server.pem")
    );
    assert!(said.contains(&advice), "{said}");
    let pin = advice.split(" use ").nth(1).and_then(|rest| rest.split(" in place").next()).expect("a setting");
    delivers(&collector, pin);
    // The certificate file itself works as `ca`, although OpenSSL marks it as a CA, but only for its own names.
    let ca = format!("ca = \"{}\"", theirs.path("server.pem"));
    delivers(&collector, &ca);
    let relay = relay_to(&collector, &format!("{ca}\nserver-name = \"central.test\""));
    let said = last_error(&relay);
    assert!(
        said.contains("its certificate is for `127.0.0.1` and not for `central.test`; change `server-name`"),
        "{said}"
    );
    relay.stops();
}

/// A self-signed certificate also works as `client-ca` of a listener, and no other self-signed certificate is accepted.
#[test]
fn a_sender_that_signed_its_certificate_by_itself() {
    let (dir, others) = (directory(), directory());
    let Some(theirs) = self_signed(dir.path(), "client", "DNS:node-7") else { return };
    let others = self_signed(others.path(), "client", "DNS:node-7").expect("there is an openssl");
    let collector = Collector::tcp(Framing::Newline);
    let keys = format!("{}client-ca = \"{}\"", Certs::get().listen(), theirs.path("client.pem"));
    let setup = Setup::new().listen_with("tcp+tls://127.0.0.1:0", &keys);
    let relay = setup.forward(&collector.url()).start();
    relay.door().knock(TlsClient::ANONYMOUS, Certs::get(), Some(("client.pem", &others)));
    relay.says("127.0.0.1 was refused: no CA of `client-ca` has signed its certificate");
    let mut wire = relay.door().connect_tls_as(TlsClient::ANONYMOUS, Certs::get(), Some(("client.pem", &theirs)));
    wire.send(b"<30>in\n");
    collector.frames(1);
    relay.stops();
}

/// As a CA, only a self-signed certificate can vouch for itself. Any other certificate depends on its issuer, which may be unknown by now.
#[test]
fn a_certificate_of_some_ca_s_is_no_ca() {
    let dir = directory();
    let theirs = Certs::others(&dir);
    let collector = Collector::tls_of(&theirs);
    let relay = relay_to(&collector, &format!("ca = \"{}\"", theirs.path("server.pem")));
    let said = last_error(&relay);
    assert!(said.contains("has signed its certificate (`"), "{said}");
    relay.stops();
    let keys = format!("{}client-ca = \"{}\"", Certs::get().listen(), theirs.path("client.pem"));
    let relay = Setup::new().listen_with("tcp+tls://127.0.0.1:0", &keys).forward("stdout:").start();
    relay.door().knock(TlsClient::ANONYMOUS, Certs::get(), Some(("client.pem", &theirs)));
    relay.says("127.0.0.1 was refused: no CA of `client-ca` has signed its certificate");
    relay.stops();
}

#[test]
fn a_collector_with_a_certificate_for_other_names() {
    let dir = directory();
    let certs = Certs::made(dir.path(), &["--name", "*.logs.test,central.test,192.0.2.7"]);
    let collector = Collector::tls_of(&certs);
    let ca = format!("ca = \"{}\"", certs.path("ca.pem"));
    let relay = relay_to(&collector, &ca);
    let said = last_error(&relay);
    relay.stops();
    let advice = "its certificate is for `*.logs.test`, `central.test`, `192.0.2.7` and not for `127.0.0.1`; set `server-name` to \
                  one of its names, as in server-name = \"central.test\"";
    assert!(said.contains(advice), "{said}");
    delivers(&collector, &format!("{ca}\nserver-name = \"central.test\""));
}

fn check(setup: &Setup, arguments: &[&str]) -> (Output, String) {
    let output = run(setup.command().arg("check").args(arguments));
    let said = String::from_utf8(output.stderr.clone()).expect("text");
    (output, said)
}

/// A forward to each collector, and the finding about it.
#[test]
fn check_tries_every_collector() {
    let (ours, dir) = (Certs::get(), directory());
    let ca = format!("ca = \"{}\"\n{IMPATIENT}", ours.path("ca.pem"));
    let identity = format!("{ca}\ncert = \"{}\"\nkey = \"{}\"", ours.path("client.pem"), ours.path("client-key.pem"));
    let (plain, tls) = (Collector::tcp(Framing::Newline), Collector::tls(Framing::OctetCounting, false));
    let (mutual, udp) = (Collector::tls(Framing::OctetCounting, true), Collector::udp());
    let relp = Setup::new().listen_with("relp+tls://127.0.0.1:0", &ours.listen()).forward("stdout:").start();
    let relp_url = format!("relp+tls://127.0.0.1:{}", relp.door().port());
    let name = |name: &str, keys: &str| format!("name = \"{name}\"\n{keys}");
    let good = Setup::new()
        .listen("udp://127.0.0.1:0")
        .forward_with(&plain.url(), &name("plain", ""))
        .forward_with(&tls.url(), &name("tls", &ca))
        .forward_with(&tls.url().replace("tcp+tls://", "tcp://"), &name("unsaid", ""))
        .forward_with(&mutual.url(), &name("mutual", &identity))
        .forward_with(&relp_url, &name("relp", &ca))
        .forward_with(&udp.url(), &name("udp", ""))
        .forward_with("stdout:", &name("local", ""));
    let (output, said) = check(&good, &["--connect"]);
    assert!(output.status.success() && !said.contains("problem: "), "{said}");
    for (forward, seen) in [
        // The first two cannot be distinguished until data is sent.
        (
            "plain",
            "connected. Whether syslog is read there, or TLS wanted (tcp+tls://), shows only when lines are sent",
        ),
        (
            "unsaid",
            "connected. Whether syslog is read there, or TLS wanted (tcp+tls://), shows only when lines are sent",
        ),
        ("tls", "connected; TLS is spoken there. Whether syslog is read there shows only when lines are sent"),
        ("mutual", "connected; TLS is spoken there. Whether syslog is read there shows only when lines are sent"),
        ("relp", "connected; TLS and RELP are spoken there\n"),
        ("udp", "UDP has no answers"),
    ] {
        let is_it =
            |line: &str| line.starts_with(&format!("forward {forward}: ")) && format!("{line}\n").contains(seen);
        assert!(said.lines().any(is_it), "{forward}: {seen} in {said}");
    }
    assert_eq!((plain.count(), tls.count(), relp.metrics().sum("spool_spooled_total")), (0, 0, 0), "no line is sent");
    let (output, said) = check(&good, &[]);
    assert!(output.status.success() && !said.contains("connected"), "unasked, it tries nothing: {said}");

    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent_at = silent.local_addr().expect("an address");
    let stranger = Collector::tls_of(&Certs::others(&dir));
    let bad = Setup::new()
        .listen("udp://127.0.0.1:0")
        .forward_with(&format!("tcp://{nobody}"), &name("away", ""))
        .forward_with(&stranger.url(), &name("stranger", &ca))
        .forward_with(&mutual.url(), &name("unnamed", &ca))
        .forward_with(&format!("relp://{silent_at}"), &name("silent", IMPATIENT))
        .forward_with(&format!("tcp+tls://{silent_at}"), &name("mute", &ca))
        .forward_with(&format!("tcp+tls://127.0.0.1:{}", greeter().port()), &name("not-tls", &ca))
        .forward_with(&tls.url(), &name("fine", &ca));
    let (output, said) = check(&bad, &["--connect"]);
    assert_eq!(output.status.code(), Some(CONFIG), "{said}");
    for (forward, why) in [
        ("away", "Connection refused"),
        ("stranger", "no CA of "),
        ("unnamed", "it asks for a certificate of ours; set `cert` and `key`"),
        ("silent", "no answer to RELP's open within 1s"),
        ("mute", "no handshake within 1s"),
        ("not-tls", "it does not answer in TLS; is that a TLS port?"),
    ] {
        let is_it = |line: &str| line.starts_with(&format!("problem: forward {forward}: ")) && line.contains(why);
        assert!(said.lines().any(is_it), "{forward}: {why} in {said}");
    }
    assert!(
        said.contains("forward fine: ") && said.lines().last().is_some_and(|last| last.starts_with("6 problems, ")),
        "{said}"
    );
    relp.stops();
}

/// A port that answers any input with a plain text greeting, and its address.
fn greeter() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 512]);
            let _ = stream.write_all(b"220 smtp.example.com ESMTP\r\n");
        }
    });
    address
}

/// Each collector answers only after all are connected, so sequential attempts would fail.
#[test]
fn check_tries_all_collectors_at_once() {
    let collectors: Vec<RelpCollector> = (0..4).map(|_| RelpCollector::new()).collect();
    let mut setup = Setup::new().listen("udp://127.0.0.1:0");
    for (number, collector) in collectors.iter().enumerate() {
        setup = setup.forward_with(&collector.url(), &format!("name = \"relp-{number}\""));
    }
    let all = thread::spawn(move || {
        let mut peers: Vec<_> = collectors.iter().map(RelpCollector::accepts).collect();
        for peer in &mut peers {
            assert_eq!(peer.frame().expect("a frame").command, "open");
            peer.answers(1, "200 OK\nrelp_version=0\nrelp_software=1.11.0,librelp\ncommands=syslog");
        }
        peers
    });
    let (output, said) = check(&setup, &["--connect"]);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches("connected; RELP is spoken there").count(), 4, "{said}");
    all.join().expect("all were there");
}

/// The error of `probe` for a relay that rejects its messages; `None`: all messages have arrived at `at`.
fn probed(relay: &Relay, at: &str, flags: &[&str]) -> Option<String> {
    let (from, mut command) = (format!("tcp+tls://127.0.0.1:{}", relay.door().port()), logferry());
    command.args(["probe", "--json", "--from", &from, "--at", at]);
    let output = run(command.args(["--count", "400", "--rate", "2000/s"]).args(flags));
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    (!output.status.success()).then(|| report["refused_why"].as_str().unwrap_or_else(|| panic!("{report}")).to_owned())
}

#[test]
fn a_probe_that_is_not_let_in() {
    let (ours, dir) = (Certs::get(), directory());
    let at = format!("file://{}", dir.path().join("arrived").display());
    let start = |keys: &str| {
        let scheme = if keys.is_empty() { "tcp" } else { "tcp+tls" };
        let setup = Setup::new().listen_with(&format!("{scheme}://127.0.0.1:0"), keys);
        setup.forward(&at).start()
    };
    let in_vain = |relay: &Relay, flags: &[&str]| {
        probed(relay, &at, &[flags, &["--wait", "100ms"]].concat()).expect("nothing arrives")
    };
    let (ca, others) = (ours.path("ca.pem"), Certs::others(&dir).path("ca.pem"));
    let named = &["--ca", &ca, "--server-name", "nowhere.test"][..];
    let mutual = format!("{}client-ca = \"{ca}\"\n", ours.listen());
    for (keys, flags, why) in [
        (&*ours.listen(), &["--ca", &others][..], "has signed its certificate (`"),
        (&ours.listen(), &["--ca", &others], "; name the CA that has with --ca"),
        (
            &ours.listen(),
            named,
            "not for `nowhere.test`; change --server-name to one of its names, as in --server-name ",
        ),
        ("", &["--ca", &ca], "it hung up in the middle of the handshake; is that a TLS port?"),
        (&mutual, &["--ca", &ca], "it asks for a certificate of ours; set --cert and --key"),
    ] {
        let relay = start(keys);
        let said = in_vain(&relay, flags);
        assert!(said.contains(why), "{why}: {said}");
        relay.stops();
    }
    let Some(theirs) = self_signed(dir.path(), "server", "IP:127.0.0.1") else { return };
    let relay = start(&theirs.listen());
    let said = in_vain(&relay, &["--ca", &ca]);
    let why = format!(
        "its certificate ({}) is signed by itself; name the file that has it",
        theirs.fingerprint("server.pem")
    );
    assert!(said.contains(&why), "{said}");
    assert_eq!(probed(&relay, &at, &["--ca", &theirs.path("server.pem")]), None, "the advice is good");
    relay.stops();
}
