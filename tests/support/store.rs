//! An HTTP log store whose answers the test chooses. Strict: a request that no real store accepts fails the test. Shares no code with the
//! relay.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::read::GzDecoder;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use super::collector::server_config;
use super::{Certs, PATIENCE, eventually, own_port};

/// A store that accepts connections on demand.
pub struct Store {
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
}

/// A connection; the relay is the other end.
pub struct StorePeer(BufReader<Box<dyn Way>>);

trait Way: Read + Write + Send {}

impl<T: Read + Write + Send> Way for T {}

/// A request, with its body decompressed.
pub struct StoreRequest {
    /// Method, path and query.
    pub target: String,
    /// Lower-case names and their values.
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The body as it was sent.
    pub sent: Vec<u8>,
}

impl Store {
    pub fn new() -> Self {
        Self::on(own_port()).expect("a free port")
    }

    pub fn on(address: SocketAddr) -> Option<Self> {
        let listener = TcpListener::bind(address).ok()?;
        listener.set_nonblocking(true).expect("a socket option");
        Some(Self { listener, tls: None })
    }

    /// Speaks TLS with the certificate of `localhost`.
    pub fn with_tls(certs: &Certs) -> Self {
        let plain = Self::on(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        Self { tls: Some(server_config(certs, false)), ..plain }
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("bound")
    }

    pub fn url(&self) -> String {
        match self.tls {
            Some(_) => format!("https://localhost:{}", self.address().port()),
            None => format!("http://{}", self.address()),
        }
    }

    /// The next connection.
    #[track_caller]
    pub fn accepts(&self) -> StorePeer {
        self.begins(eventually("the relay connects", || self.listener.accept().ok()).0)
    }

    /// The next connection; `None` if `is_over` is set first.
    pub fn accepts_unless(&self, is_over: &AtomicBool) -> Option<StorePeer> {
        let next = || match self.listener.accept() {
            Ok((stream, _)) => Some(Some(stream)),
            Err(_) => is_over.load(Ordering::Relaxed).then_some(None),
        };
        eventually("the relay connects, or it is over", next).map(|stream| self.begins(stream))
    }

    fn begins(&self, stream: TcpStream) -> StorePeer {
        stream.set_nonblocking(false).expect("a socket option");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        let way: Box<dyn Way> = match &self.tls {
            Some(config) => {
                Box::new(StreamOwned::new(ServerConnection::new(config.clone()).expect("a server"), stream))
            }
            None => Box::new(stream),
        };
        StorePeer(BufReader::new(way))
    }
}

impl StorePeer {
    /// The next request; `None`: the relay has ended the connection.
    pub fn next(&mut self) -> Option<StoreRequest> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.0.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let mut lines = head.trim_end().split("\r\n");
        let target = lines.next()?.strip_suffix(" HTTP/1.1").expect("HTTP/1.1").to_owned();
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").expect("a header");
            (name.to_ascii_lowercase(), value.to_owned())
        };
        let (headers, body, sent) = (lines.map(header).collect(), Vec::new(), Vec::new());
        let mut request = StoreRequest { target, headers, body, sent };
        assert!(!request.header("host").expect("a Host").is_empty());
        let length = match request.header("content-length") {
            Some(length) => length.parse().expect("a number"),
            None => {
                assert_ne!(request.target.split(' ').next(), Some("POST"), "a body without a length");
                0
            }
        };
        request.body = vec![0; length];
        self.0.read_exact(&mut request.body).ok()?;
        request.sent.clone_from(&request.body);
        match request.header("content-encoding") {
            Some("gzip") => {
                let mut body = Vec::new();
                GzDecoder::new(&*request.body).read_to_end(&mut body).expect("gzip");
                request.body = body;
            }
            other => assert_eq!(other, None, "the encoding of a body"),
        }
        // The relay sends one request at a time.
        assert!(self.0.buffer().is_empty(), "a request before the answer");
        Some(request)
    }

    #[track_caller]
    pub fn hears(&mut self) -> StoreRequest {
        self.next().expect("a request")
    }

    /// Answers with these header lines, each with its line end.
    pub fn answers_with(&mut self, status: u16, headers: &str, body: &str) {
        let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len());
        self.0.get_mut().write_all(answer.as_bytes()).expect("the relay reads");
    }

    pub fn answers(&mut self, status: u16, body: &str) {
        self.answers_with(status, "", body);
    }

    /// Ends the connection in the middle of an answer.
    pub fn breaks_off(mut self) {
        self.begins_answer();
    }

    /// Sends the first half of an answer.
    pub fn begins_answer(&mut self) {
        let half = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"errors\"";
        self.0.get_mut().write_all(half).expect("the relay reads");
    }
}

impl StoreRequest {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found: Vec<_> = self.headers.iter().filter(|(key, _)| key == name).collect();
        assert!(found.len() < 2, "{name} is there twice");
        found.first().map(|(_, value)| value.as_str())
    }

    /// The header names in lower case.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.headers.iter().map(|(name, _)| name.as_str())
    }

    /// The lines of a body of `application/x-ndjson`.
    pub fn ndjson(&self) -> Vec<Value> {
        assert_eq!(self.header("content-type"), Some("application/x-ndjson"));
        assert_eq!(self.body.last(), Some(&b'\n'));
        let lines = self.body.split_inclusive(|byte| *byte == b'\n');
        lines.map(|line| serde_json::from_slice(line).expect("JSON")).collect()
    }

    /// `_id` and document of each entry of a `_bulk` request.
    pub fn bulk(&self) -> Vec<(String, Value)> {
        assert!(self.target.starts_with("POST ") && self.target.contains("/_bulk?"), "{}", self.target);
        let lines = self.ndjson();
        assert!(lines.len().is_multiple_of(2) && !lines.is_empty(), "{} lines", lines.len());
        let pairs = lines.chunks(2).map(|pair| {
            let create = pair[0].as_object().filter(|action| action.len() == 1).expect("one action")["create"].clone();
            assert!(pair[1]["@timestamp"].is_string(), "{}", pair[1]);
            (create["_id"].as_str().expect("an _id").to_owned(), pair[1].clone())
        });
        pairs.collect()
    }

    /// The message texts of a `_bulk` request, as numbers.
    pub fn numbers(&self) -> Vec<usize> {
        let number = |(_, document): (String, Value)| document["message"].as_str()?.parse().ok();
        self.bulk().into_iter().map(|line| number(line).expect("a number")).collect()
    }
}
