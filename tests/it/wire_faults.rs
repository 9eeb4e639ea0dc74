//! JetStream and the Forward protocol × faults of a collector or of the relay: no line is lost, and no line blocks the others. The NATS
//! server is real, and the Forward receiver is scripted. A proxy between them and the relay can withhold answers.
//!
//! `LOGFERRY_LINES=5000 cargo test --test it wire_faults:: -- --nocapture --test-threads=1` prints the rows of docs/design/faults.md.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;
use socket2::SockRef;

use crate::elasticsearch::rejected;
use crate::support::dns::NAME;
use crate::support::program::{SIGCONT, SIGSTOP};
use crate::support::{FluentReceiver, NameServer, NatsClient, NatsServer, Relay, Setup, eventually, own_port, says};

/// The default number of lines per test.
const LINES: usize = 300;
/// Maximum number of chunks in flight.
const WINDOW: usize = 4;
const KEYS: &str = "dead-after = \"1s\"\nconnect-timeout = \"500ms\"";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Away,
    Hung,
    Killed,
    AnswerCut,
    NeverAnswered,
    NameMoves,
    RelayKilled,
    NoStream,
    Poison,
    Full,
    Forbidden,
}

/// Faults for every protocol with acknowledgements.
const FAULTS: [Fault; 7] = [
    Fault::Away,
    Fault::Hung,
    Fault::Killed,
    Fault::AnswerCut,
    Fault::NeverAnswered,
    Fault::NameMoves,
    Fault::RelayKilled,
];
/// Faults only for JetStream.
const OF_JETSTREAM: [Fault; 4] = [Fault::NoStream, Fault::Poison, Fault::Full, Fault::Forbidden];

/// The proxy's handling of the server's answers.
#[derive(Clone, Copy)]
enum Answers {
    Pass,
    /// Answers are discarded.
    Vanish,
    /// The first half of the next answer passes, and the connection ends.
    Break,
}

/// A proxy between the relay and a server. Dropping it ends its connections.
struct Between {
    address: SocketAddr,
    answers: Arc<AtomicU8>,
    is_over: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
    thread: Option<JoinHandle<()>>,
}

impl Between {
    fn at(address: SocketAddr, server: SocketAddr) -> Option<Self> {
        let listener = TcpListener::bind(address).ok()?;
        let address = listener.local_addr().expect("bound");
        let (answers, is_over) = (Arc::new(AtomicU8::new(Answers::Pass as u8)), Arc::<AtomicBool>::default());
        let streams = Arc::<Mutex<Vec<TcpStream>>>::default();
        let (orders, is_done, known) = (answers.clone(), is_over.clone(), streams.clone());
        let thread = std::thread::spawn(move || {
            while let Ok((relay, _)) = listener.accept() {
                if is_done.load(Ordering::Relaxed) {
                    return;
                }
                // If the server is down, the connection ends at once.
                let Ok(server) = TcpStream::connect(server) else { continue };
                known.lock().extend([&relay, &server].map(|stream| stream.try_clone().expect("a socket")));
                hands_on(relay, server, orders.clone());
            }
        });
        Some(Self { address, answers, is_over, streams, thread: Some(thread) })
    }

    fn orders(&self, answers: Answers) {
        self.answers.store(answers as u8, Ordering::Relaxed);
    }

    /// Waits until a connection has ended in the middle of an answer.
    fn has_broken(&self) {
        eventually("an answer breaks off", || {
            (self.answers.load(Ordering::Relaxed) == Answers::Pass as u8).then_some(())
        });
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        self.thread.take().expect("it runs").join().expect("it hands on");
        for stream in &*self.streams.lock() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn hands_on(relay: TcpStream, server: TcpStream, answers: Arc<AtomicU8>) {
    // A reset discards an incomplete message at the end, so that the server does not read it.
    let _ = SockRef::from(&server).set_linger(Some(Duration::ZERO));
    let (mut from_relay, mut to_server) = (relay.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_relay, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Both);
    });
    std::thread::spawn(move || {
        let (mut server, mut relay, mut bytes) = (server, relay, [0; 4096]);
        while let Ok(length @ 1..) = server.read(&mut bytes) {
            let now = answers.load(Ordering::Relaxed);
            if now == Answers::Break as u8 {
                let _ = relay.write_all(&bytes[..length / 2]);
                answers.store(Answers::Pass as u8, Ordering::Relaxed);
                break;
            }
            if now == Answers::Pass as u8 && relay.write_all(&bytes[..length]).is_err() {
                break;
            }
        }
        for stream in [&server, &relay] {
            let _ = stream.shutdown(Shutdown::Both);
        }
    });
}

/// The server or receiver.
enum Far {
    JetStream(NatsServer),
    Forward(Arc<Shelf>),
}

/// The lines that a Forward receiver has accepted.
#[derive(Default)]
struct Shelf {
    /// How often each line was accepted, by its number.
    there: Mutex<BTreeMap<usize, usize>>,
    /// Number of lines in the largest chunk.
    largest: Mutex<usize>,
    /// Number of accepted connections.
    accepted: AtomicUsize,
    is_hung: AtomicBool,
    is_over: AtomicBool,
}

impl Shelf {
    fn start(receiver: FluentReceiver) -> (Arc<Self>, JoinHandle<()>) {
        let shelf = Arc::<Self>::default();
        let kept = shelf.clone();
        let thread = std::thread::spawn(move || {
            let mut peers = Vec::new();
            while let Some(mut peer) = receiver.accepts_unless(&kept.is_over) {
                let kept = kept.clone();
                kept.accepted.fetch_add(1, Ordering::Relaxed);
                peers.push(std::thread::spawn(move || {
                    while let Some(chunk) = peer.next() {
                        eventually("it goes on", || (!kept.is_hung.load(Ordering::Relaxed)).then_some(()));
                        let numbers = chunk.numbers();
                        let mut largest = kept.largest.lock();
                        *largest = numbers.len().max(*largest);
                        numbers.iter().for_each(|number| *kept.there.lock().entry(*number).or_default() += 1);
                        if !peer.acknowledged(&chunk) {
                            return;
                        }
                    }
                }));
            }
            peers.into_iter().for_each(|peer| peer.join().expect("nothing that no receiver takes"));
        });
        (shelf, thread)
    }
}

const ADMIN: &str = "{ user: admin, password: secret }";

fn server(fault: Fault) -> Option<NatsServer> {
    let relay = match fault {
        Fault::Forbidden => {
            "{ user: relay, password: secret, permissions: { publish: [\"none\"], subscribe: [\"_INBOX.>\"] } }"
        }
        _ => "{ user: relay, password: secret }",
    };
    NatsServer::start(&format!("max_payload: 20000\nauthorization {{ users: [ {ADMIN}, {relay} ] }}"))
}

fn admin(server: &NatsServer) -> NatsClient {
    server.client_as(|_| json!({"user": "admin", "pass": "secret"}))
}

impl Far {
    fn has(&self) -> BTreeMap<usize, usize> {
        match self {
            Self::JetStream(server) => {
                let mut there = BTreeMap::new();
                let stored = admin(server).stored();
                // A message without a number is from the relay itself.
                let numbers = stored.iter().filter_map(|stored| stored.record["message"].as_str()?.parse().ok());
                numbers.for_each(|number: usize| *there.entry(number).or_default() += 1);
                there
            }
            Self::Forward(shelf) => shelf.there.lock().clone(),
        }
    }

    fn count(&self) -> usize {
        match self {
            Self::JetStream(server) => admin(server).count() as usize,
            Self::Forward(shelf) => shelf.there.lock().len(),
        }
    }

    fn hangs(&self, is_hung: bool) {
        match self {
            Self::JetStream(server) => server.signal(if is_hung { SIGSTOP } else { SIGCONT }),
            Self::Forward(shelf) => shelf.is_hung.store(is_hung, Ordering::Relaxed),
        }
    }
}

/// Waits until the relay has closed a connection and tried another one.
fn is_left(relay: &Relay) {
    let count =
        || relay.metrics().sum("forward_connects_total") + relay.metrics().sum("forward_connect_failures_total");
    eventually("it is left", || (count() > 1).then_some(()));
}

fn told(wire: &str, fault: Fault, lines: usize) {
    let (mut far, server_address, thread) = match wire {
        "jetstream" => {
            let Some(server) = server(fault) else { return };
            let also = match fault {
                Fault::Full => json!({"max_msgs": lines / 3, "discard": "new"}),
                _ => json!({}),
            };
            if fault != Fault::NoStream {
                admin(&server).makes_stream("logs.>", also);
            }
            let address = server.address();
            (Far::JetStream(server), address, None)
        }
        _ => {
            let receiver = FluentReceiver::new();
            let address = receiver.address();
            let (shelf, thread) = Shelf::start(receiver);
            (Far::Forward(shelf), address, Some(thread))
        }
    };
    let between = Between::at(own_port(), server_address).expect("an address of our own");
    let at = between.address;
    let names = match fault {
        Fault::NameMoves => match NameServer::start(&[&at.ip().to_string()]) {
            Some(names) => Some(names),
            None => return,
        },
        _ => None,
    };
    let (scheme, login) = match wire {
        "jetstream" => ("nats", "user = \"relay\"\npassword = \"${PASSWORD}\"\nwindow = 64"),
        _ => ("fluent", "batch = \"4KiB\""),
    };
    let host = if names.is_some() { NAME.to_owned() } else { at.ip().to_string() };
    let section = names.as_ref().map(NameServer::section).unwrap_or_default();
    let mut setup = Setup::new().listen("tcp://127.0.0.1:0").section(&section);
    if wire == "jetstream" {
        setup = setup.variable("PASSWORD", "secret");
    }
    let setup = setup.forward_with(&format!("{scheme}://{host}:{}", at.port()), &format!("{KEYS}\n{login}"));
    let half = lines / 2;
    let relay = match fault {
        Fault::Away => {
            drop(between);
            let relay = setup.start();
            says(&relay, 0..lines);
            relay.counts_up_to("forward_connect_failures_total", 1);
            let _between = eventually("it comes", || Between::at(at, server_address));
            return is_there(wire, fault, &setup, relay, far, lines, thread);
        }
        _ => setup.start(),
    };
    match fault {
        Fault::NoStream | Fault::Full | Fault::Forbidden => {}
        _ => says(&relay, 0..half),
    }
    match fault {
        // Unacknowledged lines are in the second half from here on.
        Fault::NeverAnswered | Fault::RelayKilled => relay.counts("forward_delivered_total", half as u64),
        Fault::NoStream | Fault::Full | Fault::Forbidden => {}
        _ => relay.counts_up_to("forward_delivered_total", 1),
    }
    let mut kept = None;
    let relay = match fault {
        Fault::Away => relay,
        Fault::Hung => {
            far.hangs(true);
            says(&relay, half..lines);
            is_left(&relay);
            far.hangs(false);
            relay
        }
        Fault::Killed => {
            if let Far::JetStream(server) = &mut far {
                server.kill();
            }
            drop(between);
            says(&relay, half..lines);
            relay.counts_up_to("forward_connect_failures_total", 1);
            if let Far::JetStream(server) = &mut far {
                server.starts_again();
            }
            kept = Some(eventually("it is there again", || Between::at(at, server_address)));
            relay
        }
        Fault::AnswerCut => {
            between.orders(Answers::Break);
            says(&relay, half..lines);
            between.has_broken();
            kept = Some(between);
            relay
        }
        Fault::NeverAnswered => {
            between.orders(Answers::Vanish);
            says(&relay, half..lines);
            eventually("some have no answer", || (far.count() > half).then_some(()));
            is_left(&relay);
            between.orders(Answers::Pass);
            kept = Some(between);
            relay
        }
        Fault::NameMoves => {
            let names = names.as_ref().expect("a name");
            let new = SocketAddr::new(own_port().ip(), at.port());
            let there = eventually("the same port elsewhere", || Between::at(new, server_address));
            names.moves_to(&new.ip().to_string());
            relay.counts("forward_moves_total", 1);
            drop(between);
            says(&relay, half..lines);
            kept = Some(there);
            relay
        }
        Fault::RelayKilled => {
            between.orders(Answers::Vanish);
            says(&relay, half..lines);
            relay.has_spooled(lines);
            eventually("some have no answer", || (far.count() > half).then_some(()));
            relay.kill();
            between.orders(Answers::Pass);
            kept = Some(between);
            setup.start()
        }
        Fault::NoStream => {
            says(&relay, 0..lines);
            relay.counts("forward_stopped", 1);
            let Far::JetStream(server) = &far else { panic!("no server") };
            admin(server).makes_stream("logs.>", json!({}));
            kept = Some(between);
            relay
        }
        Fault::Poison => {
            relay.door().connect().send(format!("<14>1 - - - - - - {}\n", "x".repeat(30_000)).as_bytes());
            relay.has_spooled(half + 1);
            says(&relay, half..lines);
            kept = Some(between);
            relay
        }
        Fault::Full => {
            says(&relay, 0..lines);
            relay.fails_because("maximum messages exceeded");
            let Far::JetStream(server) = &far else { panic!("no server") };
            let change = json!({"name": "LOGS", "subjects": ["logs.>"], "storage": "file", "num_replicas": 1});
            admin(server).asks("$JS.API.STREAM.UPDATE.LOGS", &change);
            kept = Some(between);
            relay
        }
        Fault::Forbidden => {
            says(&relay, 0..lines);
            relay.counts("forward_stopped", 1);
            let Far::JetStream(server) = &mut far else { panic!("no server") };
            server.is_told(&format!(
                "max_payload: 20000\nauthorization {{ users: [ {ADMIN}, {{ user: relay, password: secret }} ] }}"
            ));
            kept = Some(between);
            relay
        }
    };
    is_there(wire, fault, &setup, relay, far, lines, thread);
    drop(kept);
}

fn is_there(
    wire: &str,
    fault: Fault,
    setup: &Setup,
    relay: Relay,
    far: Far,
    lines: usize,
    thread: Option<JoinHandle<()>>,
) {
    relay.counts("forward_pending", 0);
    relay.counts("forward_stopped", 0);
    let dead = usize::from(fault == Fault::Poison);
    let given_up = rejected(&relay, setup);
    assert_eq!(given_up.len(), dead, "{wire}, {fault:?}: {given_up:?}");
    relay.stops();
    let there = far.has();
    assert!(there.keys().copied().eq(0..lines), "{wire}, {fault:?}: {} of {lines} lines are there", there.len());
    let twice: usize = there.values().map(|times| times - 1).sum();
    println!("| {fault:?} | {wire} | {lines} | 0 | {dead} | {twice} |");
    let may_be_twice = match far {
        Far::JetStream(_) => 0,
        Far::Forward(shelf) => {
            shelf.is_over.store(true, Ordering::Relaxed);
            thread.expect("it takes chunks").join().expect("nothing that no receiver takes");
            // A window of chunks for each connection that has ended.
            WINDOW * *shelf.largest.lock() * (shelf.accepted.load(Ordering::Relaxed) - 1)
        }
    };
    assert!(twice <= may_be_twice, "{wire}, {fault:?}: {twice} lines are there twice, more than {may_be_twice}");
}

fn all(wire: &str, faults: impl IntoIterator<Item = Fault>) {
    let lines = std::env::var("LOGFERRY_LINES").map_or(LINES, |lines| lines.parse().expect("a number"));
    faults.into_iter().for_each(|fault| told(wire, fault, lines));
}

#[test]
fn jetstream() {
    all("jetstream", FAULTS.into_iter().chain(OF_JETSTREAM));
}

#[test]
fn forward() {
    all("forward", FAULTS);
}
