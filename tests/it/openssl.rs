//! Requests of another TLS implementation that our TLS must refuse: OpenSSL's `s_client` tries them.

use std::io::Write;
use std::path::PathBuf;
use std::process::{ChildStdin, Command};

use serde_json::Value;

use crate::support::http::status;
use crate::support::{
    Certs, Collector, Docker, Format, Framing, Program, Relay, Setup, TlsClient, eventually, installed,
};

fn openssl() -> Option<PathBuf> {
    installed("openssl", "openssl")
}

/// A running `openssl`, and its stdin.
struct OpenSsl {
    program: Program,
    stdin: ChildStdin,
}

impl OpenSsl {
    fn client(port: u16, arguments: &[&str]) -> Self {
        let ca = Certs::get().path("ca.pem");
        Self::start(&[&["s_client", "-connect", &format!("127.0.0.1:{port}"), "-CAfile", &ca], arguments].concat())
    }

    fn start(arguments: &[&str]) -> Self {
        let openssl = openssl().expect("asked for at the start of each story");
        let (program, stdin) = Program::start_to_talk(Command::new(openssl).args(arguments));
        Self { program, stdin }
    }

    /// Its output so far.
    fn said(&self) -> String {
        String::from_utf8_lossy(&self.program.stdout()).into_owned() + &self.program.stderr()
    }

    #[track_caller]
    fn says(&self, text: &str, times: usize) {
        eventually(&format!("openssl says {times} times {text}"), || {
            (self.said().matches(text).count() == times).then_some(())
        });
    }

    fn hears(&mut self, text: &str) {
        self.stdin.write_all(text.as_bytes()).expect("it listens");
    }
}

fn relay(collector: &Collector) -> Relay {
    Setup::new().listen_with("tcp+tls://127.0.0.1:0", &Certs::get().listen()).forward(&collector.url()).start()
}

/// An OpenSSL server, and its port.
fn server(arguments: &[&str]) -> (OpenSsl, u16) {
    let certs = Certs::get();
    let (cert, key) = (certs.path("server.pem"), certs.path("server-key.pem"));
    let always = ["s_server", "-accept", "127.0.0.1:0", "-cert", &cert, "-key", &key];
    let server = OpenSsl::start(&[&always[..], arguments].concat());
    let port = eventually("openssl listens", || {
        server.said().lines().find_map(|line| line.strip_prefix("ACCEPT 127.0.0.1:")?.parse().ok())
    });
    (server, port)
}

#[test]
fn only_modern_versions_and_ciphers_are_spoken() {
    if openssl().is_none() {
        return;
    }
    let collector = Collector::tcp(Framing::Newline);
    let relay = relay(&collector);
    let modern = [&["-tls1_2"][..], &["-tls1_3"]];
    for (number, arguments) in modern.into_iter().enumerate() {
        let mut client = OpenSsl::client(relay.door().port(), arguments);
        client.says("Verify return code: 0 (ok)", 1);
        client.hears("<30>by openssl\n");
        collector.frames(number + 1);
    }
    // At its default security level OpenSSL would not offer these.
    let old = [
        &["-tls1", "-cipher", "DEFAULT@SECLEVEL=0"][..],
        &["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"],
        // Without forward secrecy, without authenticated encryption, without both.
        &["-tls1_2", "-cipher", "kRSA@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256:ECDHE-RSA-AES128-SHA256@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "AES128-SHA:DES-CBC3-SHA@SECLEVEL=0"],
    ];
    for (number, arguments) in old.into_iter().enumerate() {
        let client = OpenSsl::client(relay.door().port(), arguments);
        client.says("New, (NONE), Cipher is (NONE)", 1);
        relay.counts("listen_handshake_failures_total", number as u64 + 1);
    }
    assert_eq!(relay.metrics().sum("listen_received_total"), 2);
    relay.stops();
}

/// Each client is refused for a different reason, which the log and `/status` show.
#[test]
fn a_listener_says_whom_it_refused_and_why() {
    if openssl().is_none() {
        return;
    }
    let theirs = tempfile::TempDir::new().expect("a directory");
    let (ours, others) = (Certs::get(), Certs::others(&theirs));
    let keys = format!("{}client-ca = \"{}\"\n", ours.listen(), ours.path("ca.pem"));
    let relay = Setup::new().listen_with("tcp+tls://127.0.0.1:0", &keys).forward("tcp://127.0.0.1:1").start();
    assert_eq!(status(&relay)["listeners"][0]["last_refused"], Value::Null);
    let refuses = |reason: &str, text: &str| {
        let refused = eventually(&format!("refused: {reason}"), || {
            let refused = status(&relay)["listeners"][0]["last_refused"].clone();
            (refused["reason"] == reason).then_some(refused)
        });
        assert_eq!(refused["address"], "127.0.0.1");
        assert!(refused["text"].as_str().is_some_and(|says| says.contains(text)), "{refused}");
        relay.says(&format!("127.0.0.1 was refused: {}", refused["text"].as_str().expect("a text")));
    };
    let identity = |certs: &Certs, name: &str| {
        ["-cert".to_owned(), certs.path(name), "-key".to_owned(), certs.path(&name.replace(".pem", "-key.pem"))]
    };
    let (stranger, server) = (identity(&others, "client.pem"), identity(ours, "server.pem"));
    for version in ["-tls1_2", "-tls1_3"] {
        let client = |arguments: &[String]| {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            OpenSsl::client(relay.door().port(), &[&[version][..], &arguments].concat())
        };
        let _client = client(&[]);
        refuses("no-certificate", "it showed no certificate");
        let _client = client(&stranger);
        refuses("unknown-ca", "no CA of `client-ca` has signed its certificate");
        // A certificate that is valid for servers only.
        let _client = client(&server);
        refuses("bad-certificate", "its certificate cannot be used: ");
        let wrong_ca = others.path("ca.pem");
        let of_others = ["-CAfile", &wrong_ca, "-verify_return_error"].map(str::to_owned);
        let _client = client(&of_others);
        refuses("own-certificate", "it refused the certificate of this listener (UnknownCA)");
    }
    let _client = OpenSsl::client(relay.door().port(), &["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"]);
    refuses("old-version", "it speaks no TLS 1.2 or 1.3");
    relay.door().connect().send(b"<30>in public\n");
    refuses("plaintext", "it sent plain text, and only TLS is taken here");
    assert_eq!(relay.stderr().matches(" was refused: ").count(), 6, "each once: {}", relay.stderr());
    relay.stops();
}

/// Without session tickets and session IDs no session can be resumed, and so there is no 0-RTT data.
#[test]
fn nobody_is_given_a_session_to_resume() {
    if openssl().is_none() {
        return;
    }
    const TICKET: &str = ", NewSessionTicket";
    const ID: &str = "    Session-ID: ";
    let collector = Collector::tcp(Framing::Newline);
    let relay = relay(&collector);
    for (number, version) in ["-tls1_2", "-tls1_3"].into_iter().enumerate() {
        let mut client = OpenSsl::client(relay.door().port(), &[version, "-msg"]);
        client.says("Verify return code: 0 (ok)", 1);
        client.hears("<30>by openssl\n");
        // A ticket would arrive before the relay reads a message.
        collector.frames(number + 1);
        let said = client.said();
        assert!(!said.contains(TICKET), "{said}");
        assert!(said.lines().filter_map(|line| line.strip_prefix(ID)).all(str::is_empty), "{said}");
    }
    relay.stops();
    // The check works: OpenSSL's own server sends tickets.
    let (_server, port) = server(&[]);
    OpenSsl::client(port, &["-tls1_3", "-msg"]).says(TICKET, 2);
    OpenSsl::client(port, &["-tls1_2", "-msg"]).says(TICKET, 1);
}

#[test]
fn nobody_has_a_handshake_done_again() {
    if openssl().is_none() {
        return;
    }
    let collector = Collector::tcp(Framing::Newline);
    let relay = relay(&collector);
    let again = |port| {
        let mut client = OpenSsl::client(port, &["-tls1_2", "-msg"]);
        client.says("Verify return code: 0 (ok)", 1);
        client.hears("R\n");
        client.says("RENEGOTIATING", 1);
        client
    };
    // The check works: OpenSSL's own server renegotiates.
    let (_server, port) = server(&["-client_renegotiation"]);
    again(port).says("ServerHello\n", 2);

    let client = again(relay.door().port());
    let mut honest = relay.door().connect_tls(TlsClient::ANONYMOUS);
    for number in 0..50 {
        honest.says(&Docker::new(Format::Rfc3164, "web"), number.to_string().as_bytes());
        collector.frames(number + 1);
    }
    client.says("ServerHello\n", 1);
    relay.stops();
}
