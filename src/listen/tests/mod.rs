//! Tests of this stage with real sockets and a real spool. This module is the harness; the stories are told from the sender's view:
//!
//! - `binding`   refusals and clean-up at start
//! - `datagram`  udp and unixgram
//! - `gelf`      GELF by UDP
//! - `stream`    tcp and unix
//! - `tls`       TLS, and plain text and TLS on one port
//!
//! Nothing here waits for a fixed time: a test waits for the effect that it expects, and fails if it does not come.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{
    AdmissionPolicy, Bound, Ingest, IngestPolicy, Options, PendingMessages, Quiet, Reassembler, Repeats, Running,
    SharedAdmission, bind,
};
use crate::config::{DEFAULT_RECEIVE_BUFFER, Limits, ListenAddress};
use crate::eventually::eventually;
use crate::metrics::{ListenMetrics, Metrics};
use crate::protocol::syslog::Senders;
use crate::protocol::syslog::{Settings, Translator};
use crate::record::Record;
use crate::skip::has_ipv6;
use crate::spool::{self, Inlet, Reader, Spool};
use crate::status::Mistakes;
use crate::tls::Credentials;

mod binding;
mod datagram;
mod gelf;
mod stream;
mod tls;

/// Long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A listener in a test, and its observable effects.
struct Trial {
    address: ListenAddress,
    metrics: ListenMetrics,
    taken: Taken,
    stop: watch::Sender<bool>,
    running: Running,
}

/// The loopback addresses of both families, or of IPv4 alone on a machine without IPv6.
fn loopbacks() -> &'static [&'static str] {
    if has_ipv6() { &["127.0.0.1", "[::1]"] } else { &["127.0.0.1"] }
}

fn options(address: &str) -> Options {
    Options {
        address: address.parse().unwrap(),
        credentials: Credentials::none(),
        plaintext: true,
        receive_buffer: DEFAULT_RECEIVE_BUFFER,
        limits: Limits::default(),
        senders: Senders::Anybody,
    }
}

fn limited(address: &str, limits: Limits) -> Options {
    Options { limits, ..options(address) }
}

fn bound(options: Options) -> (Bound, ListenMetrics) {
    let metrics = Metrics::new().listener("trial");
    (bind(options, metrics.clone()).unwrap_or_else(|error| panic!("{error}")), metrics)
}

fn listen(address: &str) -> Trial {
    listen_with(options(address))
}

fn listen_with(options: Options) -> Trial {
    let (bound, metrics) = bound(options);
    start(bound, metrics)
}

fn start(bound: Bound, metrics: ListenMetrics) -> Trial {
    let (inlet, taken) = Taken::new();
    let (stop, stopping) = watch::channel(false);
    let address = bound.address();
    let prepared = bound.prepare().unwrap_or_else(|error| panic!("{error}"));
    Trial { address, metrics, taken, stop, running: prepared.start(ingest(inlet), stopping) }
}

/// The ingest of a listener without rules.
fn ingest(inlet: Inlet) -> Ingest {
    let metrics = Metrics::new();
    let policy = IngestPolicy {
        translator: Translator::new(Arc::new(Settings { hostname: "relay".into(), ..Settings::default() })),
        admission: AdmissionPolicy::default(),
        listeners: Arc::new([]),
        rejoin: None,
    };
    let shared = SharedAdmission {
        buckets: Arc::default(),
        reassembler: Arc::new(Reassembler::new(metrics.pieces())),
        joiner: Arc::new(PendingMessages::new(metrics.pieces())),
        quiet: Quiet { samples: Arc::default(), repeats: Arc::new(Repeats::new(metrics.repeat_pending())) },
        loops: Arc::default(),
        mistakes: Mistakes::default(),
    };
    Ingest::new(watch::channel(policy).1, inlet, &metrics, &options("tcp://:0").address, &shared)
}

/// A spool, and the messages in it.
struct Taken {
    spooled: Mutex<(Reader, Vec<String>)>,
    writer: Option<JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

impl Taken {
    fn new() -> (Inlet, Self) {
        let dir = tempfile::tempdir().unwrap();
        let options = spool::Options::new(dir.path(), 256 << 20, vec!["trial".to_owned()]);
        let Spool { writer, mut readers, .. } = Spool::open(options, &Metrics::new()).unwrap();
        let (inlet, writer) = writer.spawn(None).unwrap();
        (inlet, Self { spooled: Mutex::new((readers.remove(0), Vec::new())), writer: Some(writer), _dir: dir })
    }

    /// The messages so far, in order, as they were sent. The priority is left out if it is the default of messages without one. `~`
    /// marks a cut message.
    fn frames(&self) -> Vec<String> {
        let mut spooled = self.spooled.lock();
        let (reader, frames) = &mut *spooled;
        while let Some(chunk) = reader.next(1 << 20).unwrap() {
            frames.extend(chunk.lines().map(|(line, _)| shown(line)));
            reader.retire(chunk.end);
        }
        frames.clone()
    }
}

fn shown(line: &[u8]) -> String {
    let record = Record::from_line(line, "docker@32473");
    let pri = match record.facility * 8 + record.severity {
        13 => String::new(),
        pri => format!("<{pri}>"),
    };
    let cut = if record.cut { "~" } else { "" };
    pri + &String::from_utf8_lossy(record.message.unwrap_or_default()) + cut
}

impl Trial {
    fn at(&self) -> SocketAddr {
        self.address.socket_address().unwrap_or_else(|| panic!("{} has no port", self.address))
    }

    fn frames(&self) -> Vec<String> {
        self.taken.frames()
    }

    fn count(&self) -> usize {
        self.frames().len()
    }

    /// Waits until exactly these frames are there.
    async fn expect(&self, frames: &[&str]) {
        eventually(|| self.count() >= frames.len(), || format!("{frames:?}, but there is only {:?}", self.frames()))
            .await;
        assert_eq!(self.frames(), frames);
        assert_eq!(self.metrics.received.get(), frames.len() as u64);
    }

    /// Waits until `seen` holds.
    async fn until(&self, what: &str, seen: impl Fn(&Self) -> bool) {
        eventually(|| seen(self), || what.to_owned()).await;
    }

    /// Stops the listener, and returns the messages that it has taken.
    async fn stopped(self) -> Vec<String> {
        self.stop.send_replace(true);
        tokio::time::timeout(PATIENCE, self.running.stopped()).await.expect("it should have stopped");
        assert_eq!(self.metrics.connections.get(), 0);
        let mut taken = self.taken;
        // The writer ends with the last inlet.
        let writer = taken.writer.take().expect("it is joined once");
        tokio::task::spawn_blocking(|| writer.join().unwrap()).await.unwrap();
        taken.frames()
    }
}
