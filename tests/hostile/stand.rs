//! The relay under attack, with default settings, an honest sender, and the collector of its lines.

use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::support::http::get;
use super::support::sink::mark;
use super::support::{Certs, Descriptors, Docker, Door, Format, Relay, Setup, Sink, Wire, eventually, skip, within};

/// Time limit. A debug build needs long for the input of thousands of strangers on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// Descriptors that the test and the relay need for other purposes, with a margin.
const OTHER_DESCRIPTORS: u64 = 100;
/// The relay counts as settled after this many checks in a row without a change.
const BELIEVED: usize = 30;
/// The connection limit of listeners that are not attacked, because all listeners share the process's limit of open
/// files.
const FEW_CONNECTIONS: &str = "max-connections = 10\n";
/// Streams of the honest sender.
const BY_TCP: usize = 0;
const BY_UDP: usize = 1;

/// A transport of the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Tcp,
    Tls,
    Relp,
    Udp,
    Gelf,
    GelfUdp,
    Forward,
    Http,
    Journal,
}

/// The addresses of the listeners.
pub struct Doors {
    pub tcp: SocketAddr,
    /// Accepts TLS and plain text.
    pub tls: SocketAddr,
    pub relp: SocketAddr,
    pub udp: SocketAddr,
    pub gelf: SocketAddr,
    pub gelf_udp: SocketAddr,
    pub forward: SocketAddr,
    pub http: SocketAddr,
    pub journal: SocketAddr,
}

pub struct Stand {
    relay: Relay,
    doors: Doors,
    sink: Sink,
    honest: Honest,
}

/// The honest sender. It connects before all strangers.
struct Honest {
    tcp: Wire,
    udp: Wire,
    container: Docker,
    /// Lines so far, by transport.
    said: [usize; 2],
}

impl Stand {
    /// A relay whose listener for `crowded` is the one under attack.
    pub fn new(crowded: Way) -> Self {
        let sink = Sink::new();
        let most = |way| if way == crowded { "" } else { FEW_CONNECTIONS };
        let setup = Setup::new().listen_with("tcp://127.0.0.1:0", most(Way::Tcp)).listen("udp://127.0.0.1:0");
        let setup = setup.listen_with("relp://127.0.0.1:0", most(Way::Relp));
        let setup = setup.listen_with("tcp://127.0.0.1:0", &(Certs::get().listen() + most(Way::Tls)));
        let setup = setup.listen_with("gelf+tcp://127.0.0.1:0", most(Way::Gelf)).listen("gelf+udp://127.0.0.1:0");
        let setup = setup.listen_with("fluent://127.0.0.1:0", most(Way::Forward));
        let setup = setup.listen_with("splunk+http://127.0.0.1:0", most(Way::Http));
        let setup = setup.listen_with("journal+http://127.0.0.1:0", most(Way::Journal));
        let relay = setup.forward(&sink.url()).start();
        let [
            Door::Tcp(tcp),
            Door::Udp(udp),
            Door::Relp(relp),
            Door::Tcp(tls),
            Door::Tcp(gelf),
            Door::Udp(gelf_udp),
            Door::Tcp(forward),
            Door::Tcp(http),
            Door::Tcp(journal),
        ] = *relay.doors()
        else {
            panic!("{:?}", relay.doors())
        };
        let container = Docker::new(Format::Rfc5424Micro, "honest");
        let honest =
            Honest { tcp: relay.doors()[0].connect(), udp: relay.doors()[1].connect(), container, said: [0; 2] };
        relay.counts("listen_connections", 1);
        relay.counts("forward_connected", 1);
        Self { doors: Doors { tcp, tls, relp, udp, gelf, gelf_udp, forward, http, journal }, relay, sink, honest }
    }

    pub fn doors(&self) -> &Doors {
        &self.doors
    }

    /// The relay's peak memory so far.
    pub fn peak_kib(&self) -> u64 {
        self.relay.process().kib("VmHWM")
    }

    /// The open connections of all listeners.
    pub fn connections(&self) -> u64 {
        self.relay.metrics().sum("listen_connections")
    }

    /// Waits until the relay has processed all input as far as it will.
    pub fn settles(&self) {
        let (mut last, mut same) = (Vec::new(), 0);
        let settled = within(PATIENCE, || {
            let metrics = self.relay.metrics();
            let names = ["listen_accepted_total", "listen_connections", "listen_bytes_total", "forward_waiting"];
            let now: Vec<u64> = names.map(|name| metrics.sum(name)).to_vec();
            same = if now == last { same + 1 } else { 0 };
            last = now;
            (same >= BELIEVED).then_some(())
        });
        assert!(settled.is_some(), "something still changes: {:?}", self.relay.metrics());
    }

    /// Waits until the relay has received or refused this many messages.
    pub fn hears(&self, messages: usize) {
        let heard = || {
            let metrics = self.relay.metrics();
            metrics.sum("listen_received_total") + metrics.sum("listen_refused_total") >= messages as u64
        };
        assert!(within(PATIENCE, || heard().then_some(())).is_some(), "not even {messages} are heard");
    }

    /// Sends honest lines by TCP, and also by UDP if no crowd floods UDP. Waits until they have arrived.
    pub fn honest_lines_arrive(&mut self, lines: usize, by_udp: bool) {
        let Honest { tcp, udp, container, said } = &mut self.honest;
        for _ in 0..lines {
            tcp.says(container, mark(BY_TCP, said[BY_TCP]).as_bytes());
            said[BY_TCP] += 1;
            if by_udp {
                udp.says(container, mark(BY_UDP, said[BY_UDP]).as_bytes());
                said[BY_UDP] += 1;
            }
        }
        for stream in [BY_TCP, BY_UDP] {
            eventually("the honest sender's lines", || self.sink.tally().has(stream, said[stream]).then_some(()));
        }
    }

    /// The relay is alive, and ready in the end. While a debug build works off a flood of datagrams, its runtime may
    /// stall for some seconds, and `/ready` reports that.
    pub fn says_that_it_is_well(&self) {
        assert_eq!(get(&self.relay, "/live").status, 200, "/live");
        eventually("the relay says that it is ready", || (get(&self.relay, "/ready").status == 200).then_some(()));
    }

    /// The relay's descriptors when only the honest sender is connected.
    pub fn quiet_descriptors(&mut self) -> Descriptors {
        self.honest_lines_arrive(1, true);
        self.relay.descriptors()
    }

    /// Waits until only the honest sender is connected.
    pub fn is_left_alone(&self) {
        self.relay.counts("listen_connections", 1);
    }

    /// Waits until all is delivered, and checks the books.
    pub fn balances(self) {
        self.relay.counts("forward_waiting", 0);
        self.relay.balances(0);
        self.relay.stops();
    }
}

/// Whether the limit of open files suffices. The test and the relay each need one descriptor per stranger, and the
/// relay inherits the limit set here.
pub fn has_descriptors_for(strangers: usize) -> bool {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("not beyond the hard one");
    let suffice = hard >= strangers as u64 + OTHER_DESCRIPTORS;
    if !suffice {
        skip("descriptors", &format!("a process may open {hard} files, too few for {strangers} strangers (ulimit -n)"));
    }
    suffice
}
