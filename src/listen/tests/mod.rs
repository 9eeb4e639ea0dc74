//! What the room promises, tried on real sockets. Here is the harness; the stories are told by what a sender sees:
//!
//! - `binding`   what is refused, or cleaned up, at start
//! - `datagram`  udp and unixgram
//! - `stream`    tcp and unix
//! - `tls`       tls, and both on one port
//!
//! Nothing here waits for a time to pass: a test waits for what it wants to see, and fails if it does not come.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::ingest::Intake;
use super::{Bound, Options, Running, bind};
use crate::config::{DEFAULT_RECEIVE_BUFFER, Limits, ListenAddress};
use crate::metrics::{ListenMetrics, Metrics};
use crate::skip::has_ipv6;

mod binding;
mod datagram;
mod stream;
mod tls;

/// Long enough for a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(20);

/// A frame and whether it was cut.
type Frame = (Vec<u8>, bool);

/// A listener in a test, and everything that can be seen of it.
struct Trial {
    address: ListenAddress,
    metrics: ListenMetrics,
    taken: Arc<Mutex<Vec<Frame>>>,
    stop: watch::Sender<bool>,
    running: Running,
}

/// Of both families, where this machine has both.
fn loopbacks() -> &'static [&'static str] {
    if has_ipv6() { &["127.0.0.1", "[::1]"] } else { &["127.0.0.1"] }
}

fn options(address: &str) -> Options {
    Options {
        address: address.parse().unwrap(),
        tls: None,
        plaintext: true,
        receive_buffer: DEFAULT_RECEIVE_BUFFER,
        limits: Limits::default(),
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
    let (intake, taken) = Intake::for_tests();
    let (stop, stopping) = watch::channel(false);
    let address = bound.address();
    let prepared = bound.prepare().unwrap_or_else(|error| panic!("{error}"));
    Trial { address, metrics, taken, stop, running: prepared.start(intake, stopping) }
}

impl Trial {
    fn at(&self) -> SocketAddr {
        self.address.socket_address().unwrap_or_else(|| panic!("{} has no port", self.address))
    }

    /// The frames so far, in order; `~` marks a cut one.
    fn frames(&self) -> Vec<String> {
        let show = |(frame, cut): &Frame| {
            String::from_utf8_lossy(frame).trim_end_matches('\n').to_owned() + if *cut { "~" } else { "" }
        };
        self.taken.lock().iter().map(show).collect()
    }

    fn count(&self) -> usize {
        self.taken.lock().len()
    }

    /// Waits until exactly these frames are there.
    async fn expect(&self, frames: &[&str]) {
        eventually(|| self.count() >= frames.len(), || format!("{frames:?}, but there is only {:?}", self.frames()))
            .await;
        assert_eq!(self.frames(), frames);
        assert_eq!(self.metrics.received.get(), frames.len() as u64);
    }

    /// Waits for a counter, or whatever else can be seen.
    async fn until(&self, what: &str, seen: impl Fn(&Self) -> bool) {
        eventually(|| seen(self), || what.to_owned()).await;
    }

    /// Stops it and returns what it had taken by then.
    async fn stopped(self) -> Vec<String> {
        self.stop.send_replace(true);
        let frames = self.taken.clone();
        tokio::time::timeout(PATIENCE, self.running.stopped()).await.expect("it should have stopped");
        assert_eq!(self.metrics.connections.get(), 0);
        frames.lock().iter().map(|(frame, _)| String::from_utf8_lossy(frame).trim_end().to_owned()).collect()
    }
}

async fn eventually(seen: impl Fn() -> bool, what: impl Fn() -> String) {
    let deadline = Instant::now() + PATIENCE;
    while !seen() {
        assert!(Instant::now() < deadline, "waited in vain for {}", what());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
