//! What runs: the relay, two collectors behind one name, and the files of their certificates.
//!
//! The collectors are relays too, by RELP over mutual TLS, so that what they have answered is never lost however they
//! end; what they take goes on to a sink that counts.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use super::Size;
use super::happens::Event;
use super::support::program::SIGHUP;
use super::support::{
    Certs, Descriptors, Door, Held, NameServer, Relay, Setup, Sink, TlsClient, Wire, dns, eventually,
};

const FILES: [&str; 4] = ["server.pem", "server-key.pem", "client.pem", "client-key.pem"];
/// Where the name points, in turn.
const PLACES: [u8; 2] = [2, 3];

/// The ways in.
#[derive(Clone)]
pub struct Doors {
    pub udp: Door,
    /// Takes TLS as well.
    pub tcp: Door,
    pub relp: Door,
    pub trusted: Arc<Certs>,
}

pub struct World {
    pub relay: Relay,
    pub sink: Sink,
    pub doors: Doors,
    /// The relay's, as it was started.
    setup: Setup,
    /// What it becomes at a reload: one listener more.
    other: Setup,
    is_other: bool,
    collectors: [Collector; 2],
    /// Where the name points.
    current: usize,
    names: NameServer,
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

    /// By the port that takes plain text too.
    pub fn connect_tls(&self) -> Wire {
        self.tcp.connect_tls_as(TlsClient::ANONYMOUS, &self.trusted, None)
    }
}

impl World {
    /// `None`: there is no name server here.
    pub fn begins(size: &Size) -> Option<Self> {
        let ips = PLACES.map(|last| IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)));
        let names = NameServer::start(&[&ips[0].to_string()])?;
        let certs = TempDir::new().expect("a directory");
        let trusted = signed(certs.path(), None);
        let (held, sink) = (Held::on(&ips), Sink::new());
        let collectors = ips.map(|ip| {
            let setup = Setup::new().listen_with(&format!("relp+tls://{ip}:{}", held.port()), &server(certs.path()));
            let setup = setup.forward_with(&sink.url(), "");
            Collector { runs: Some(setup.start()), setup }
        });
        let relay_setup = || relay(size, &names, held.port(), certs.path());
        let (setup, other) = (relay_setup(), relay_setup().listen("unix://{dir}/more.sock"));
        let relay = setup.start();
        let doors = Doors::of(relay.doors(), trusted);
        let is_other = false;
        Some(Self { relay, sink, doors, setup, other, is_other, collectors, current: 0, names, certs, _held: held })
    }

    /// Happens, and has happened when it returns. `meanwhile` is for how long a collector is away.
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
                // The listener's, and the forward's.
                eventually("the new certificates are read", || (read(self) >= before + 2).then_some(()));
            }
            Event::Reloaded => self.reloads(),
            Event::NameMoved => {
                self.current = 1 - self.current;
                let moved = |world: &Self| world.relay.metrics().sum("forward_moves_total");
                let before = moved(self);
                self.names.moves_to(&format!("127.0.0.{}", PLACES[self.current]));
                eventually("the relay goes after its name", || (moved(self) > before).then_some(()));
            }
        }
    }

    /// Back to the configuration it was started with.
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
        self.relay.counts("forward_connected", 1);
    }

    /// What the relay has open when nobody is connected and nothing waits.
    pub fn quiet_descriptors(&self) -> Descriptors {
        eventually("nobody is connected", || {
            let metrics = self.relay.metrics();
            let waits = ["listen_connections", "forward_waiting"].map(|name| metrics.sum(name));
            (waits == [0, 0]).then_some(())
        });
        self.relay.descriptors()
    }
}

fn relay(size: &Size, names: &NameServer, port: u16, certs: &Path) -> Setup {
    let setup = Setup::new().listen("udp://127.0.0.1:0").listen_with("tcp://127.0.0.1:0", &pair(certs));
    let keys = format!(
        "ca = \"{0}/ca.pem\"\ncert = \"{0}/client.pem\"\nkey = \"{0}/client-key.pem\"\n{1}",
        certs.display(),
        if size.defaults { "" } else { "max-backoff = \"200ms\"" },
    );
    let to = format!("relp+tls://{}:{port}", dns::NAME);
    let resolve =
        if size.defaults { format!("[resolve]\nnameservers = \"{}\"", names.address()) } else { names.section() };
    setup.listen("relp://127.0.0.1:0").section(&format!("[[forward]]\nto = \"{to}\"\n{keys}")).section(&resolve)
}

fn pair(certs: &Path) -> String {
    format!("cert = \"{0}/server.pem\"\nkey = \"{0}/server-key.pem\"\n", certs.display())
}

fn server(certs: &Path) -> String {
    format!("{}client-ca = \"{}/ca.pem\"\n", pair(certs), certs.display())
}

/// Certificates for a server and a client, of a new CA or of the one in `ca`.
fn signed(dir: &Path, ca: Option<&Path>) -> Certs {
    let names = format!("127.0.0.1,127.0.0.2,127.0.0.3,{}", dns::NAME);
    let mut arguments = vec!["--name".to_owned(), names, "--client".to_owned(), "client".to_owned()];
    arguments.extend(ca.into_iter().flat_map(|ca| ["--ca".to_owned(), ca.join("ca.pem").display().to_string()]));
    Certs::made(dir, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
}
