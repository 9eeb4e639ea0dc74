//! A scripted name server, for answers that dnsmasq cannot give. It implements just enough of RFC 1035.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::dns::NAME;
use super::{eventually, own_port};

pub const A: u16 = 1;
pub const AAAA: u16 = 28;
pub const SRV: u16 = 33;
const CNAME: u16 = 5;

pub const SERVFAIL: u8 = 2;
pub const NXDOMAIN: u8 = 3;
pub const REFUSED: u8 = 5;

/// A query.
pub struct Question {
    pub name: String,
    pub kind: u16,
    /// Over TCP, as after a truncated answer.
    pub tcp: bool,
}

#[derive(Clone)]
pub enum Reply {
    /// These records, without an error. An empty list: the name exists and has no record of this type.
    Records(Vec<Record>),
    Code(u8),
    Silence,
    /// Answers only after so many further questions that the resolver has given up.
    Late(Box<Reply>),
    /// Answers with another query's ID.
    WrongId(Box<Reply>),
    /// Bytes that are not a DNS message.
    Garbage,
    /// Over UDP a truncated answer (TC), over TCP the full reply.
    Cut(Box<Reply>),
}

#[derive(Clone)]
pub struct Record {
    pub name: String,
    pub ttl: u32,
    pub data: Data,
}

#[derive(Clone)]
pub enum Data {
    Address(IpAddr),
    Alias(String),
    Service { priority: u16, weight: u16, port: u16, target: String },
}

/// A look-up sends a query for each address family, and repeats both if no answer comes.
const LATE: usize = 8;

type Script = Box<dyn FnMut(&Question) -> Reply + Send>;

/// Stops when dropped.
pub struct ScriptedServer {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    asked: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// A reply with the addresses of the family in question.
pub fn addresses(question: &Question, ttl: u32, all: &[&str]) -> Reply {
    let parsed = all.iter().map(|address| address.parse::<IpAddr>().expect("an address"));
    let asked = parsed.filter(|address| question.kind == if address.is_ipv4() { A } else { AAAA });
    let record = |address| Record { name: question.name.clone(), ttl, data: Data::Address(address) };
    Reply::Records(asked.map(record).collect())
}

impl ScriptedServer {
    pub fn start(script: impl FnMut(&Question) -> Reply + Send + 'static) -> Self {
        let (udp, tcp) = eventually("a port that is free for UDP and TCP", || {
            let udp = UdpSocket::bind(own_port()).ok()?;
            let tcp = TcpListener::bind(udp.local_addr().ok()?).ok()?;
            Some((udp, tcp))
        });
        let address = udp.local_addr().expect("bound");
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(Box::new(script)));
        let (asked, over) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let answerer = || Answerer { script: script.clone(), asked: asked.clone(), over: over.clone() };
        let (by_udp, by_tcp) = (answerer(), answerer());
        let threads = vec![
            std::thread::spawn(move || by_udp.serve_udp(&udp)),
            std::thread::spawn(move || by_tcp.serve_tcp(&tcp)),
        ];
        Self { address, script, asked, over, threads }
    }

    /// A server that resolves [`NAME`] to these addresses.
    pub fn with(all: &'static [&str]) -> Self {
        Self::start(move |question| addresses(question, 1, all))
    }

    /// Replaces the script.
    pub fn says(&self, script: impl FnMut(&Question) -> Reply + Send + 'static) {
        *self.script.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(script);
    }

    /// Changes the addresses of [`NAME`].
    pub fn points_to(&self, all: &'static [&str]) {
        self.says(move |question| addresses(question, 1, all));
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Number of questions so far.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// Waits for `more` further questions.
    #[track_caller]
    pub fn is_asked(&self, more: usize) {
        let goal = self.asked() + more;
        eventually("the name server is asked", || (self.asked() >= goal).then_some(()));
    }

    /// A relay's config section that uses this server, with short TTLs for impatient tests.
    pub fn section(&self) -> String {
        self.section_with("min-ttl = \"100ms\"\nmax-ttl = \"100ms\"")
    }

    pub fn section_with(&self, keys: &str) -> String {
        format!("[resolve]\nnameservers = \"{}\"\ntimeout = \"400ms\"\n{keys}", self.address)
    }
}

impl Drop for ScriptedServer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // An empty datagram and an empty connection wake the threads that wait for questions.
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let _ = (socket.send_to(&[], self.address), TcpStream::connect(self.address));
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

struct Answerer {
    script: Arc<Mutex<Script>>,
    asked: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
}

impl Answerer {
    fn serve_udp(&self, socket: &UdpSocket) {
        let mut packet = [0; 512];
        let mut late: VecDeque<(Vec<u8>, SocketAddr)> = VecDeque::new();
        while let Ok((length, from)) = socket.recv_from(&mut packet) {
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            if late.len() > LATE
                && let Some((answer, to)) = late.pop_front()
            {
                let _ = socket.send_to(&answer, to);
            }
            let Some((question, reply)) = self.reply(&packet[..length], false) else { continue };
            let is_late = matches!(reply, Reply::Late(_));
            let Some(answer) = answer(&packet[..length], &question, &reply) else { continue };
            if is_late {
                late.push_back((answer, from));
            } else {
                let _ = socket.send_to(&answer, from);
            }
        }
    }

    /// One question for each connection.
    fn serve_tcp(&self, listener: &TcpListener) {
        while let Ok((mut stream, _)) = listener.accept() {
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            let mut length = [0; 2];
            let mut packet = Vec::new();
            let read = stream.read_exact(&mut length).and_then(|()| {
                packet.resize(u16::from_be_bytes(length).into(), 0);
                stream.read_exact(&mut packet)
            });
            let Some((question, reply)) = read.ok().and_then(|()| self.reply(&packet, true)) else { continue };
            if let Some(answer) = answer(&packet, &question, &reply) {
                let length = u16::try_from(answer.len()).expect("a short answer");
                let _ = stream.write_all(&[&length.to_be_bytes()[..], &answer].concat());
            }
        }
    }

    fn reply(&self, packet: &[u8], tcp: bool) -> Option<(Question, Reply)> {
        let question = read_question(packet, tcp)?;
        let reply = (self.script.lock().unwrap_or_else(PoisonError::into_inner))(&question);
        self.asked.fetch_add(1, Ordering::Relaxed);
        Some((question, reply))
    }
}

fn read_question(packet: &[u8], tcp: bool) -> Option<Question> {
    let (mut labels, mut at) = (Vec::new(), 12);
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(packet.get(at..at + length)?).to_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?);
    Some(Question { name: labels.join("."), kind, tcp })
}

/// `None`: no answer.
fn answer(packet: &[u8], question: &Question, reply: &Reply) -> Option<Vec<u8>> {
    match reply {
        Reply::Records(records) => Some(message(packet, question, 0, records)),
        Reply::Code(code) => Some(message(packet, question, *code, &[])),
        Reply::Silence => None,
        Reply::Late(reply) => answer(packet, question, reply),
        Reply::WrongId(reply) => {
            let mut message = answer(packet, question, reply)?;
            message[0] ^= 0x55;
            Some(message)
        }
        Reply::Garbage => Some([&packet[..2], &[0xff; 40]].concat()),
        Reply::Cut(reply) if question.tcp => answer(packet, question, reply),
        Reply::Cut(_) => {
            let mut message = message(packet, question, 0, &[]);
            message[2] |= 0x02;
            Some(message)
        }
    }
}

fn message(packet: &[u8], question: &Question, code: u8, records: &[Record]) -> Vec<u8> {
    let count = u16::try_from(records.len()).expect("few");
    let mut out = packet[..2].to_vec();
    // The header: a response (QR) with recursion desired and available (RD, RA); one question.
    out.extend_from_slice(&[0x81, 0x80 | code, 0, 1]);
    out.extend_from_slice(&count.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    write_name(&question.name, &mut out);
    out.extend_from_slice(&question.kind.to_be_bytes());
    out.extend_from_slice(&[0, 1]);
    for record in records {
        write_name(&record.name, &mut out);
        let (kind, data) = written(&record.data);
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&[0, 1]);
        out.extend_from_slice(&record.ttl.to_be_bytes());
        out.extend_from_slice(&u16::try_from(data.len()).expect("short").to_be_bytes());
        out.extend_from_slice(&data);
    }
    out
}

fn written(data: &Data) -> (u16, Vec<u8>) {
    let mut out = Vec::new();
    match data {
        Data::Address(IpAddr::V4(address)) => (A, Ipv4Addr::octets(address).to_vec()),
        Data::Address(IpAddr::V6(address)) => (AAAA, Ipv6Addr::octets(address).to_vec()),
        Data::Alias(name) => {
            write_name(name, &mut out);
            (CNAME, out)
        }
        Data::Service { priority, weight, port, target } => {
            [priority, weight, port].iter().for_each(|number| out.extend_from_slice(&number.to_be_bytes()));
            write_name(target, &mut out);
            (SRV, out)
        }
    }
}

/// `.` is the root.
fn write_name(name: &str, out: &mut Vec<u8>) {
    for label in name.split('.').filter(|label| !label.is_empty()) {
        out.push(u8::try_from(label.len()).expect("a short label"));
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
}

/// A reply that reaches [`NAME`]'s address through this many aliases (CNAME).
pub fn aliases(question: &Question, count: usize, address: &str) -> Reply {
    let name = |at: usize| if at == 0 { NAME.to_owned() } else { format!("alias{at}.test") };
    let mut records: Vec<Record> =
        (0..count).map(|at| Record { name: name(at), ttl: 1, data: Data::Alias(name(at + 1)) }).collect();
    if question.kind == A {
        let data = Data::Address(address.parse().expect("an address"));
        records.push(Record { name: name(count), ttl: 1, data });
    }
    Reply::Records(records)
}
