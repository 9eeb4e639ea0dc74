//! Several collectors in order, as targets or as SRV records: failover, failback, and collectors that are not returned to.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use crate::support::dns::NAME;
use crate::support::script::{Data, NXDOMAIN, Question, Record, Reply, SRV, addresses};
use crate::support::{
    Certs, Collector, Docker, Flow, Format, Framing, Relay, ScriptedServer, Setup, all_arrived_once, eventually, says,
};

const SERVICE: &str = "_syslog._tcp.collector.test";

/// Short timeouts, and a quick failback.
const QUICK: &str = "framing = \"octet-counting\"\nconnect-timeout = \"1s\"\nmax-backoff = \"200ms\"\n\
                     replay-for = \"100ms\"\nfailback-after = \"200ms\"";

fn pair() -> [Collector; 2] {
    Collector::on_one_port(false, [2, 3].map(|last| IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))))
}

fn relay_to(targets: &[String], keys: &str, section: &str) -> Relay {
    let setup = Setup::new().listen("tcp://127.0.0.1:0").section(section);
    setup.forward_in_order(targets, &format!("{QUICK}\n{keys}")).start()
}

fn returns(relay: &Relay) -> u64 {
    relay.metrics().sum("forward_returns_total")
}

/// A server that accepts connections and is no collector. Stops when dropped.
struct Impostor {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Impostor {
    /// `receives` handles a connection before it is closed.
    fn start(receives: impl Fn(&mut TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (accepted, over) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (counter, ends) = (accepted.clone(), over.clone());
        let thread = std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                counter.fetch_add(1, Ordering::Relaxed);
                receives(&mut stream);
            }
        });
        Self { address, accepted, over, thread: Some(thread) }
    }

    /// Waits for `more` further connection attempts.
    #[track_caller]
    fn is_tried(&self, more: usize) {
        let goal = self.accepted.load(Ordering::Relaxed) + more;
        eventually("it is tried again", || (self.accepted.load(Ordering::Relaxed) >= goal).then_some(()));
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        self.thread.take().into_iter().for_each(|thread| drop(thread.join()));
    }
}

#[test]
fn the_second_target_takes_over_and_the_first_is_returned_to() {
    let [mut first, mut second] = pair();
    second.comes();
    let relay = relay_to(&[first.url(), second.url()], "", "");
    let flow = Flow::into(relay.door());
    second.frames(20);
    assert_eq!(returns(&relay), 0);
    first.comes();
    // Make before break: the flow continues, without duplicates.
    first.frames(20);
    flow.goes_on(20);
    let sent = flow.ends();
    relay.has_delivered(sent, 0);
    all_arrived_once(&[&first, &second], sent);
    assert_eq!((returns(&relay), relay.metrics().sum("forward_moves_total")), (1, 0));
    assert_eq!((first.accepted(), second.accepted()), (1, 1));
    relay.stops();
}

/// Failover and failback, repeatedly.
#[test]
fn each_outage_of_the_first_target_is_short() {
    let [mut first, mut second] = pair();
    first.comes();
    second.comes();
    let relay = relay_to(&[first.url(), second.url()], "", "");
    for round in 0..3 {
        let start = round * 20;
        says(&relay, start..start + 10);
        relay.has_delivered(start + 10, 0);
        let connects = relay.metrics().sum("forward_connects_total");
        first.goes();
        relay.counts_up_to("forward_connects_total", connects + 1);
        says(&relay, start + 10..start + 20);
        relay.has_delivered(start + 20, 0);
        assert_eq!(second.count(), (round + 1) * 10);
        first.comes();
        eventually("it has returned", || (returns(&relay) == round as u64 + 1).then_some(()));
    }
    all_arrived_once(&[&first, &second], 60);
    relay.stops();
}

/// The kernel accepts every connection for the hanging target, and bytes until the buffer is full.
#[test]
fn a_target_that_hangs_is_left_for_the_second() {
    let [mut first, mut second] = pair();
    first.comes();
    second.comes();
    first.hangs();
    let keys = "framing = \"octet-counting\"\ndead-after = \"500ms\"\nmax-backoff = \"100ms\"\nreplay-for = \"1s\"";
    let setup = Setup::new().listen("tcp://127.0.0.1:0");
    let relay = setup.forward_in_order(&[first.url(), second.url()], keys).start();
    let container = Docker::new(Format::Rfc5424Micro, "web");
    let mut wire = relay.door().connect();
    (0..1000).for_each(|number| wire.says(&container, format!("{number:08192}").as_bytes()));
    relay.has_delivered(1000, 0);
    all_arrived_once(&[&second], 1000);
    relay.stops();
}

/// A proxy without a backend accepts every connection, and drops it at once.
#[test]
fn what_drops_connections_at_once_is_not_returned_to() {
    let proxy = Impostor::start(|_| ());
    let second = Collector::tcp(Framing::OctetCounting);
    let relay = relay_to(&[format!("tcp://{}", proxy.address), second.url()], "", "");
    let flow = Flow::into(relay.door());
    second.frames(20);
    proxy.is_tried(3);
    second.frames(second.count() + 20);
    assert_eq!((returns(&relay), second.accepted()), (0, 1));
    let sent = flow.ends();
    relay.has_delivered(sent, 0);
    all_arrived_once(&[&second], sent);
    relay.stops();
}

/// The target looks healthy until it receives data.
#[test]
fn what_drops_connections_later_loses_nothing() {
    let proxy = Impostor::start(|stream| drop(stream.read(&mut [0; 512])));
    let second = Collector::tcp(Framing::OctetCounting);
    let relay = relay_to(&[format!("tcp://{}", proxy.address), second.url()], "", "");
    let flow = Flow::into(relay.door());
    eventually("it was returned to", || (returns(&relay) >= 1).then_some(()));
    second.frames(second.count() + 20);
    let sent = flow.ends();
    relay.has_delivered(sent, 0);
    // Each failback ends a connection to the second collector, which is then opened again.
    assert!(second.accepted() as u64 > returns(&relay));
    all_arrived_once(&[&second], sent);
    relay.stops();
}

/// With TLS, a failback requires a complete handshake.
#[test]
fn a_target_that_does_not_finish_its_handshake_is_not_returned_to() {
    let mute = Impostor::start(|stream| drop(stream.read(&mut [0; 512])));
    let second = Collector::tls(Framing::OctetCounting, false);
    let ca = format!("ca = \"{}\"", Certs::get().path("ca.pem"));
    let relay = relay_to(&[format!("tcp+tls://{}", mute.address), second.url()], &ca, "");
    let flow = Flow::into(relay.door());
    second.frames(20);
    mute.is_tried(2);
    second.frames(second.count() + 20);
    assert_eq!((returns(&relay), second.accepted()), (0, 1));
    let sent = flow.ends();
    relay.has_delivered(sent, 0);
    all_arrived_once(&[&second], sent);
    relay.stops();
}

/// A datagram target gives no sign of life, and each attempt to find out would cost a line.
#[test]
fn a_datagram_target_is_not_returned_to() {
    let [first, mut second] = pair();
    second.comes();
    let udp = first.url_as(NAME).replace("tcp://", "udp://");
    let names = ScriptedServer::start(|_| Reply::Code(NXDOMAIN));
    let relay = relay_to(&[udp, second.url()], "", &names.section());
    says(&relay, 0..20);
    second.frames(20);
    // The first target could be reached now.
    names.says(|question| addresses(question, 1, &["127.0.0.2"]));
    says(&relay, 20..40);
    relay.has_delivered(40, 0);
    all_arrived_once(&[&second], 40);
    assert_eq!(returns(&relay), 0);
    relay.stops();
}

/// A file takes over while no collector is available.
#[test]
fn a_file_is_left_when_the_collector_is_back() {
    let [mut first, _] = pair();
    let dir = tempfile::TempDir::new().expect("a directory");
    let file = dir.path().join("meanwhile");
    let relay = relay_to(&[first.url(), format!("file://{}", file.display())], "", "");
    let flow = Flow::into(relay.door());
    let lines = || std::fs::read_to_string(&file).unwrap_or_default().lines().count();
    eventually("lines in the file", || (lines() >= 20).then_some(()));
    first.comes();
    first.frames(20);
    let sent = flow.ends();
    relay.has_delivered(sent, 0);
    assert_eq!(first.count() + lines(), sent);
    assert_eq!(returns(&relay), 1);
    relay.stops();
}

/// Answers for a service: `(priority, host, port)`. The host names resolve to 127.0.0.2 and 127.0.0.3.
fn service(question: &Question, records: &[(u16, &str, u16)]) -> Reply {
    match (question.kind, question.name.as_str()) {
        (SRV, name) if name.starts_with('_') => {
            let record = |(priority, host, port): &(u16, &str, u16)| Record {
                name: name.to_owned(),
                ttl: 1,
                data: Data::Service { priority: *priority, weight: 1, port: *port, target: (*host).to_owned() },
            };
            Reply::Records(records.iter().map(record).collect())
        }
        (_, "a.test" | NAME) => addresses(question, 1, &["127.0.0.2"]),
        (_, "b.test") => addresses(question, 1, &["127.0.0.3"]),
        _ => Reply::Code(NXDOMAIN),
    }
}

fn target(scheme: &str) -> Vec<String> {
    vec![format!("srv+{scheme}://{NAME}")]
}

#[test]
fn srv_records_say_hosts_and_ports_in_order() {
    let [mut first, mut second] = pair();
    let port = first.port();
    let names = ScriptedServer::start(move |question| {
        assert!(!question.name.starts_with('_') || question.name == SERVICE, "{}", question.name);
        service(question, &[(20, "b.test", port), (10, "a.test", port), (5, "gone.test", port)])
    });
    first.comes();
    second.comes();
    let relay = relay_to(&target("tcp"), "", &names.section());
    says(&relay, 0..20);
    relay.has_delivered(20, 0);
    assert_eq!(first.count(), 20);
    first.goes();
    says(&relay, 20..40);
    second.frames(20);
    relay.has_delivered(40, 0);
    // The relay returns to the better priority.
    first.comes();
    eventually("it has returned", || (returns(&relay) == 1).then_some(()));
    says(&relay, 40..60);
    relay.has_delivered(60, 0);
    assert_eq!((first.count(), second.count()), (40, 20));
    all_arrived_once(&[&first, &second], 60);
    relay.stops();
}

#[test]
fn a_service_that_moves_is_followed_by_host_and_by_port() {
    let [mut first, mut second] = pair();
    let other = Collector::tcp_on(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)), Framing::OctetCounting);
    let (port, other_port) = (first.port(), other.port());
    let names = ScriptedServer::start(move |question| service(question, &[(10, "a.test", port)]));
    first.comes();
    second.comes();
    let relay = relay_to(&target("tcp"), "", &names.section());
    let flow = Flow::into(relay.door());
    first.frames(20);
    names.says(move |question| service(question, &[(10, "b.test", port)]));
    second.frames(20);
    names.says(move |question| service(question, &[(10, "a.test", other_port)]));
    other.frames(20);
    // The SRV records stay, but the query for one host fails: no reason to leave it.
    names.says(move |question| match question.kind {
        SRV => service(question, &[(10, "a.test", other_port), (20, "b.test", port)]),
        _ => Reply::Silence,
    });
    names.is_asked(10);
    other.frames(other.count() + 20);
    let sent = flow.ends();
    relay.has_delivered(sent, 0);
    all_arrived_once(&[&first, &second, &other], sent);
    assert_eq!(relay.metrics().sum("forward_moves_total"), 2);
    assert_eq!((first.accepted(), second.accepted(), other.accepted()), (1, 1, 1));
    relay.stops();
}

#[test]
fn a_service_that_is_not_offered_is_waited_for() {
    let [mut first, _] = pair();
    let port = first.port();
    let names = ScriptedServer::start(|question| service(question, &[(0, ".", 0)]));
    first.comes();
    let relay = relay_to(&target("tcp"), "", &names.section());
    says(&relay, 0..20);
    relay.fails_because("the service is not offered there");
    names.says(|_| Reply::Code(NXDOMAIN));
    relay.fails_because("cannot resolve _syslog._tcp.collector.test: the name does not exist");
    names.says(move |question| service(question, &[(0, "a.test", port)]));
    relay.has_delivered(20, 0);
    // While a connection is open, this answer is no reason to close it.
    names.says(|question| service(question, &[(0, ".", 0)]));
    names.is_asked(5);
    says(&relay, 20..40);
    relay.has_delivered(40, 0);
    assert_eq!(first.accepted(), 1);
    all_arrived_once(&[&first], 40);
    relay.stops();
}

#[test]
fn a_service_over_udp() {
    let [mut first, mut second] =
        Collector::on_one_port(true, [2, 3].map(|last| IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))));
    let port = first.port();
    let names = ScriptedServer::start(move |question| service(question, &[(10, "a.test", port)]));
    first.comes();
    second.comes();
    let relay = relay_to(&target("udp"), "", &names.section());
    let flow = Flow::into(relay.door());
    first.frames(20);
    names.says(move |question| service(question, &[(10, "b.test", port)]));
    second.frames(20);
    let sent = flow.ends();
    relay.has_delivered(sent, 0);
    all_arrived_once(&[&first, &second], sent);
    relay.stops();
}

/// The certificate must have the host name from the SRV record, unless `server-name` says otherwise.
#[test]
fn a_service_over_tls_is_who_the_record_says() {
    let collector = Collector::tls(Framing::OctetCounting, false);
    let port = collector.port();
    let at = move |host: &'static str| {
        move |question: &Question| match question.kind {
            SRV => service(question, &[(10, host, port)]),
            _ => addresses(question, 1, &["127.0.0.1"]),
        }
    };
    let ca = format!("ca = \"{}\"", Certs::get().path("ca.pem"));
    let names = ScriptedServer::start(at("b.test"));
    let relay = relay_to(&target("tcp+tls"), &ca, &names.section());
    says(&relay, 0..20);
    relay.fails_because("TLS with b.test: ");
    assert_eq!(collector.count(), 0);
    // The certificate has this name.
    names.says(at(NAME));
    relay.has_delivered(20, 0);
    relay.stops();

    names.says(at("b.test"));
    let relay = relay_to(&target("tcp+tls"), &format!("{ca}\nserver-name = \"{NAME}\""), &names.section());
    says(&relay, 20..40);
    relay.has_delivered(20, 0);
    all_arrived_once(&[&collector], 40);
    relay.stops();
}
