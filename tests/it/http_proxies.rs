//! Log stores behind an HTTP proxy: a real tinyproxy, and a scripted proxy.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;

use tempfile::TempDir;

use crate::support::collector::LOCAL;
use crate::support::{
    Certs, Held, Program, Relay, Setup, Store, StorePeer, StoreRequest, eventually, installed, says, splice,
};

const KEYS: &str = "api = \"json\"\nbatch-wait = \"50ms\"";
const CREDENTIALS: &str = "relay:hunter2";
/// `relay:hunter2` in base64, by `printf relay:hunter2 | base64`.
const AUTHORIZATION: &str = "Basic cmVsYXk6aHVudGVyMg==";
const VARIABLE: &str = "proxy = \"${THE_PROXY}\"";

/// tinyproxy with required authentication.
struct TinyProxy {
    port: Held,
    dir: TempDir,
    program: Program,
}

impl TinyProxy {
    /// `None`: it is not installed.
    fn start() -> Option<Self> {
        installed("tinyproxy", "tinyproxy-bin")?;
        let (port, dir) = (Held::on(&[LOCAL]), TempDir::new().expect("a directory"));
        let program = Self::run(&port, &dir);
        Some(Self { port, dir, program })
    }

    fn run(port: &Held, dir: &TempDir) -> Program {
        let (user, password) = CREDENTIALS.split_once(':').expect("both");
        let file = dir.path().join("conf");
        let port = port.port();
        let config =
            format!("Port {port}\nListen 127.0.0.1\nTimeout 600\nMaxClients 20\nBasicAuth {user} {password}\n");
        std::fs::write(&file, config).expect("written");
        let mut program = Program::start(Command::new("tinyproxy").arg("-d").arg("-c").arg(&file));
        eventually("tinyproxy listens", || {
            assert!(program.has_ended().is_none(), "{}", program.stderr());
            TcpStream::connect((LOCAL, port)).is_ok().then_some(())
        });
        program
    }

    fn url(&self, credentials: &str) -> String {
        format!("http://{credentials}@127.0.0.1:{}", self.port.port())
    }

    fn starts_again(&mut self) {
        self.program.kill();
        self.program = Self::run(&self.port, &self.dir);
    }
}

fn through(proxy: &str, store: &Store, keys: &str) -> Setup {
    let keys = format!("{KEYS}\n{VARIABLE}\n{keys}");
    Setup::new().listen("tcp://127.0.0.1:0").forward_with(&store.url(), &keys).variable("THE_PROXY", proxy)
}

/// Accepts `count` lines; returns their texts, and the last request.
fn takes(peer: &mut StorePeer, count: usize) -> (Vec<String>, StoreRequest) {
    let mut texts = Vec::new();
    loop {
        let request = peer.hears();
        texts.extend(request.ndjson().iter().map(|line| line["message"].as_str().expect("a text").to_owned()));
        peer.answers(200, "");
        if texts.len() >= count {
            return (texts, request);
        }
    }
}

fn in_order(texts: &[String], numbers: std::ops::Range<usize>) {
    assert!(texts.iter().map(|text| text.parse::<usize>().expect("a number")).eq(numbers), "{texts:?}");
}

fn shows_no_password(relay: &Relay) {
    let page = crate::support::http::status(relay).to_string();
    assert!(!page.contains("hunter2") && !relay.stderr().contains("hunter2"), "{page}\n{}", relay.stderr());
}

#[test]
fn a_server_with_tls_is_reached_through_a_tunnel() {
    let Some(mut proxy) = TinyProxy::start() else { return };
    let store = Store::with_tls(Certs::get());
    let relay = through(&proxy.url(CREDENTIALS), &store, &Certs::trusted(&store.url())).start();
    says(&relay, 0..10);
    let (texts, request) = takes(&mut store.accepts(), 10);
    in_order(&texts, 0..10);
    assert_eq!(request.header("host"), Some(format!("localhost:{}", store.address().port()).as_str()));
    assert_eq!(request.header("proxy-authorization"), None, "that is the proxy's, not the server's");
    relay.has_delivered(10, 0);
    proxy.starts_again();
    says(&relay, 10..20);
    in_order(&takes(&mut store.accepts(), 10).0, 10..20);
    relay.has_delivered(20, 0);
    shows_no_password(&relay);
    relay.stops();
}

/// Without TLS the proxy sees the complete request.
#[test]
fn a_server_without_tls_is_asked_by_the_proxy() {
    let Some(proxy) = TinyProxy::start() else { return };
    let store = Store::new();
    let relay = through(&proxy.url(CREDENTIALS), &store, "").start();
    says(&relay, 0..10);
    let (mut texts, mut count) = (Vec::new(), 0);
    // This proxy opens a new connection to the server for each request.
    while texts.len() < 10 {
        let mut peer = store.accepts();
        let request = peer.hears();
        peer.answers_with(200, "Connection: close\r\n", "");
        count += 1;
        assert!(request.header("via").is_some_and(|via| via.contains("tinyproxy")), "through the proxy");
        assert_eq!(request.header("proxy-authorization"), None);
        texts.extend(request.ndjson().iter().map(|line| line["message"].as_str().expect("a text").to_owned()));
    }
    assert!(count >= 1);
    in_order(&texts, 0..10);
    relay.has_delivered(10, 0);
    shows_no_password(&relay);
    relay.stops();
}

#[test]
fn a_proxy_that_does_not_let_us_in_is_told_and_costs_nothing() {
    let Some(proxy) = TinyProxy::start() else { return };
    for (store, says_so) in [
        (Store::with_tls(Certs::get()), "it answers CONNECT localhost:"),
        (Store::new(), "HTTP 401; no line is given up"),
    ] {
        let keys = Certs::trusted(&store.url());
        let relay = through(&proxy.url("relay:hunter22"), &store, &keys).start();
        says(&relay, 0..10);
        relay.says(says_so);
        relay.counts("forward_pending", 10);
        shows_no_password(&relay);
        relay.kill();
    }
}

/// The proxy resolves the server's name: no name server knows this one.
#[test]
fn the_proxy_is_told_the_server_s_name() {
    let dir = TempDir::new().expect("a directory");
    let certs = Certs::made(&dir.path().join("certs"), &["--name", "es.example.invalid"]);
    let store = Store::with_tls(&certs);
    let (proxy, asked) = scripted_proxy(store.address());
    let keys = format!("{KEYS}\nca = \"{}\"", certs.path("ca.pem"));
    let setup = Setup::new().listen("tcp://127.0.0.1:0").forward_with("https://es.example.invalid:9243", &keys);
    let setup = setup.variable("HTTPS_PROXY", &format!("http://{CREDENTIALS}@{proxy}"));
    let relay = setup.variable("NO_PROXY", "localhost,.example.com").start();
    says(&relay, 0..10);
    let (texts, request) = takes(&mut store.accepts(), 10);
    in_order(&texts, 0..10);
    assert_eq!(request.header("host"), Some("es.example.invalid:9243"));
    let head = asked.recv().expect("it was asked");
    let lines: Vec<&str> = head.trim_end().split("\r\n").collect();
    assert_eq!(lines[0], "CONNECT es.example.invalid:9243 HTTP/1.1");
    for expected in ["host: es.example.invalid:9243", &format!("proxy-authorization: {AUTHORIZATION}")] {
        assert!(lines.contains(&expected), "{head}");
    }
    relay.has_delivered(10, 0);
    shows_no_password(&relay);
    relay.stops();
}

/// A proxy that connects every client to one server, and the requests that it has received.
fn scripted_proxy(to: SocketAddr) -> (SocketAddr, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind((LOCAL, 0)).expect("a port");
    let at = listener.local_addr().expect("bound");
    let (tells, asked) = std::sync::mpsc::channel();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let mut reader = BufReader::new(client);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                assert!(reader.read_line(&mut head).expect("a head") > 0, "it ends in a head: {head}");
            }
            assert!(reader.buffer().is_empty(), "the client waits for the answer");
            let (mut client, server) = (reader.into_inner(), TcpStream::connect(to).expect("the server is there"));
            client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").expect("the client reads");
            splice(client, server);
            if tells.send(head).is_err() {
                return;
            }
        }
    });
    (at, asked)
}
