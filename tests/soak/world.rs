//! The processes of the soak: the relay, two collectors behind one name, one behind a name with many addresses, and
//! their certificate files.
//!
//! The two collectors are relays too. They receive by RELP over mutual TLS, so that acknowledged lines are never lost,
//! however they end, and forward to a sink that counts. The third collector is such a sink itself, over TCP. It never
//! ends, so it gets each line once.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use super::Size;
use super::happens::Event;
use super::names::{MANY, Names};
use super::support::disk::Device;
use super::support::http::get;
use super::support::program::SIGHUP;
use super::support::{Certs, Descriptors, Door, Held, Relay, Setup, Sink, TlsClient, Wire, dns, eventually, installed};

const FILES: [&str; 4] = ["server.pem", "server-key.pem", "client.pem", "client-key.pem"];
/// The last bytes of the addresses that the name has, in turn.
const PLACES: [u8; 2] = [2, 3];
/// The label of the forward to the name with many addresses, in metrics.
const TO_MANY: &str = "forward=\"many\"";
/// The size of the spool's disk. It is sparse, so it occupies only the written blocks.
const DISK_BYTES: u64 = 1 << 30;
/// The bytes that the slow collector reads ten times a second.
const SLOW_BYTES: usize = 400;
/// The number of waiting lines that counts as the effect of a slow collector.
const FELT: i64 = 1000;

/// The relay's listeners.
#[derive(Clone)]
pub struct Doors {
    pub udp: Door,
    /// Accepts TLS as well.
    pub tcp: Door,
    pub relp: Door,
    pub trusted: Arc<Certs>,
}

pub struct World {
    pub relay: Relay,
    /// The spool's device, if root can mount one. It is dropped after the relay, and before the directory that it is
    /// mounted in.
    disk: Option<Device>,
    /// The sink of the two collectors.
    pub sink: Sink,
    /// The collector behind the name with many addresses.
    pub many: Sink,
    pub doors: Doors,
    /// The relay's config at its start.
    setup: Setup,
    /// The config with one more listener, for reloads.
    other: Setup,
    is_other: bool,
    collectors: [Collector; 2],
    /// The index of the collector that the name points to.
    current: usize,
    names: Names,
    certs: TempDir,
    _held: Held,
}

struct Collector {
    setup: Setup,
    runs: Option<Relay>,
}

impl Doors {
    fn of(doors: &[Door], trusted: Certs) -> Self {
        let [udp, tcp, relp] = doors else { panic!("{doors:?}") };
        Self { udp: udp.clone(), tcp: tcp.clone(), relp: relp.clone(), trusted: Arc::new(trusted) }
    }

    /// Connects by TLS to the port that also accepts plain text.
    pub fn connect_tls(&self) -> Wire {
        self.tcp.connect_tls_as(TlsClient::ANONYMOUS, &self.trusted, None)
    }
}

impl World {
    pub fn begins(size: &Size) -> Self {
        let ips = PLACES.map(|last| IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)));
        let names = Names::start(PLACES[0]);
        let certs = TempDir::new().expect("a directory");
        let trusted = signed(certs.path(), None);
        let (held, sink, many) = (Held::on(&ips), Sink::new(), Sink::everywhere());
        let collectors = ips.map(|ip| {
            let setup = Setup::new().listen_with(&format!("relp+tls://{ip}:{}", held.port()), &server(certs.path()));
            let setup = setup.forward_with(&sink.url(), "");
            Collector { runs: Some(setup.start()), setup }
        });
        let relay_setup = || relay(size, &names, held.port(), many.port(), certs.path());
        let (setup, other) = (relay_setup(), relay_setup().listen("unix://{dir}/more.sock"));
        let disk = installed("fsfreeze", "util-linux").and_then(|_| Device::with_room(&setup, DISK_BYTES));
        let relay = setup.start();
        let doors = Doors::of(relay.doors(), trusted);
        let (is_other, current, _held) = (false, 0, held);
        Self { relay, sink, many, doors, setup, other, is_other, collectors, current, names, certs, _held, disk }
    }

    /// The events that are possible here. Only root can freeze a file system; without root that event is left out,
    /// which has been reported.
    pub fn events(&self) -> Vec<Event> {
        Event::ALL.into_iter().filter(|event| *event != Event::DiskFrozen || self.disk.is_some()).collect()
    }

    /// Runs an event to its end. `meanwhile` waits while a collector is away or slow, or the disk is frozen.
    pub fn lives_through(&mut self, event: Event, meanwhile: impl FnOnce()) {
        match event {
            Event::CollectorKilled => {
                self.collectors[self.current].runs.take().expect("it runs").kill();
                meanwhile();
                self.collector_comes();
            }
            Event::CollectorRestarted => {
                self.collectors[self.current].runs.take().expect("it runs").stops();
                meanwhile();
                self.collector_comes();
            }
            Event::CertificatesRenewed => {
                let fresh = TempDir::new().expect("a directory");
                let renewed = signed(fresh.path(), Some(self.certs.path()));
                let read = |world: &Self| world.relay.metrics().with("tls_reloads_total", "applied");
                let before = read(self);
                renewed.put(&FILES, self.certs.path());
                // One reload of the listener, and one of the forward.
                eventually("the new certificates are read", || (read(self) >= before + 2).then_some(()));
            }
            Event::Reloaded => self.reloads(),
            Event::NameMoved => {
                self.current = 1 - self.current;
                let moved = |world: &Self| world.relay.metrics().sum("forward_moves_total");
                let before = moved(self);
                self.names.moves_to(PLACES[self.current]);
                eventually("the relay goes after its name", || (moved(self) > before).then_some(()));
            }
            Event::DiskFrozen => {
                let frozen = self.disk.as_ref().expect("events() has left it out").freeze();
                meanwhile();
                self.is_ready_or_not(503);
                drop(frozen);
                self.is_ready_or_not(200);
            }
            Event::AnswersRotate => {
                self.names.rotate();
                self.has_one_connection_to_many();
            }
            Event::CollectorSlow => {
                self.many.reads_slowly(SLOW_BYTES);
                meanwhile();
                let waiting = || self.relay.metrics().with("forward_pending", TO_MANY);
                eventually("lines wait for the slow collector", || (waiting() > FELT).then_some(()));
                self.many.reads_on();
                eventually("it has caught up", || (waiting() < FELT).then_some(()));
                self.has_one_connection_to_many();
            }
        }
    }

    /// Whatever the events, the relay has connected once to the collector that never ends, and sent no line again.
    pub fn has_one_connection_to_many(&self) {
        let metrics = self.relay.metrics();
        let found = ["moves", "connects", "resent"].map(|name| metrics.with(&format!("forward_{name}_total"), TO_MANY));
        assert_eq!(found, [0, 1, 0], "moves, connections and lines sent again");
        assert_eq!(self.many.tally().repeated, 0);
    }

    fn is_ready_or_not(&self, status: u16) {
        eventually(&format!("/ready answers {status}"), || (get(&self.relay, "/ready").status == status).then_some(()));
    }

    /// Restores the config that the relay started with.
    pub fn is_as_it_was(&mut self) {
        if self.is_other {
            self.reloads();
        }
    }

    fn reloads(&mut self) {
        self.is_other = !self.is_other;
        let applied = |world: &Self| world.relay.metrics().with("config_reloads_total", "applied");
        let before = applied(self);
        (if self.is_other { &self.other } else { &self.setup }).replaces(&self.setup);
        self.relay.signal(SIGHUP);
        eventually("the relay reads its config again", || (applied(self) > before).then_some(()));
    }

    fn collector_comes(&mut self) {
        let collector = &mut self.collectors[self.current];
        collector.runs = Some(collector.setup.start());
        self.relay.counts("forward_connected", 2);
    }

    /// The relay's open descriptors when no sender is connected and no line waits.
    pub fn quiet_descriptors(&self) -> Descriptors {
        eventually("nobody is connected", || {
            let metrics = self.relay.metrics();
            let waits = ["listen_connections", "forward_pending"].map(|name| metrics.sum(name));
            (waits == [0, 0]).then_some(())
        });
        self.relay.descriptors()
    }
}

fn relay(size: &Size, names: &Names, port: u16, port_of_many: u16, certs: &Path) -> Setup {
    let setup = Setup::new().listen("udp://127.0.0.1:0").listen_with("tcp://127.0.0.1:0", &pair(certs));
    let keys = format!(
        "ca = \"{0}/ca.pem\"\ncert = \"{0}/client.pem\"\nkey = \"{0}/client-key.pem\"\n{1}",
        certs.display(),
        if size.defaults { "" } else { "max-backoff = \"200ms\"" },
    );
    let to = format!("relp+tls://{}:{port}", dns::NAME);
    let setup = setup.listen("relp://127.0.0.1:0").section(&names.section(!size.defaults));
    let setup = setup.section(&format!("[[forward]]\nname = \"central\"\nto = \"{to}\"\n{keys}"));
    setup.section(&format!("[[forward]]\nname = \"many\"\nto = \"tcp://{MANY}:{port_of_many}\""))
}

fn pair(certs: &Path) -> String {
    format!("cert = \"{0}/server.pem\"\nkey = \"{0}/server-key.pem\"\n", certs.display())
}

fn server(certs: &Path) -> String {
    format!("{}client-ca = \"{}/ca.pem\"\n", pair(certs), certs.display())
}

/// Creates certificates for a server and a client, signed by a new CA or by the one in `ca`.
fn signed(dir: &Path, ca: Option<&Path>) -> Certs {
    let names = format!("127.0.0.1,127.0.0.2,127.0.0.3,{}", dns::NAME);
    let mut arguments = vec!["--name".to_owned(), names, "--client".to_owned(), "client".to_owned()];
    arguments.extend(ca.into_iter().flat_map(|ca| ["--ca".to_owned(), ca.join("ca.pem").display().to_string()]));
    Certs::made(dir, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
}
