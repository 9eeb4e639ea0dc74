//! The demo's name server: one name, one IPv4 address that can change, a TTL of one second. It implements only the parts of
//! RFC 1035 that the demo needs.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

const HEADER: usize = 12;
const TYPE_A: [u8; 2] = [0, 1];
/// Response, recursion desired and available, no error.
const FLAGS_OK: [u8; 2] = [0x81, 0x80];
const FLAGS_NXDOMAIN: [u8; 2] = [0x81, 0x83];

/// A name server on a thread of its own.
pub struct NameServer {
    address: SocketAddr,
    points_to: Arc<AtomicU32>,
}

impl NameServer {
    /// Answers queries on a free port of loopback until the process ends.
    pub fn start(name: &str, points_to: Ipv4Addr) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = socket.local_addr()?;
        let points_to = Arc::new(AtomicU32::new(points_to.to_bits()));
        let (wanted, current) = (wire_name(name), points_to.clone());
        thread::Builder::new().name("name server".to_owned()).spawn(move || {
            let mut query = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut query) {
                let address = Ipv4Addr::from_bits(current.load(Ordering::Relaxed));
                if let Some(answer) = answer(&query[..length], &wanted, address) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        })?;
        Ok(Self { address, points_to })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn point_to(&self, address: Ipv4Addr) {
        self.points_to.store(address.to_bits(), Ordering::Relaxed);
    }
}

/// Encodes a name as labels with their lengths; the root's empty label ends the name.
fn wire_name(name: &str) -> Vec<u8> {
    let mut wire = Vec::with_capacity(name.len() + 2);
    for label in name.split('.') {
        wire.push(label.len() as u8);
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    wire
}

/// Answers a query. `None`: the query cannot be parsed.
fn answer(query: &[u8], wanted: &[u8], address: Ipv4Addr) -> Option<Vec<u8>> {
    let id = query.get(..2)?;
    let question = query.get(HEADER..)?;
    let name_length = question.iter().position(|byte| *byte == 0)? + 1;
    let (name, kind) = (question.get(..name_length)?, question.get(name_length..name_length + 2)?);
    let question = question.get(..name_length + 4)?;
    let known = name.eq_ignore_ascii_case(wanted);
    let answers = known && kind == TYPE_A;
    let mut reply = Vec::with_capacity(64);
    reply.extend_from_slice(id);
    reply.extend_from_slice(if known { &FLAGS_OK } else { &FLAGS_NXDOMAIN });
    reply.extend_from_slice(&[0, 1, 0, u8::from(answers), 0, 0, 0, 0]);
    reply.extend_from_slice(question);
    if answers {
        // A pointer to the question's name, type A, class IN, TTL 1 s, four bytes of data.
        reply.extend_from_slice(&[0xc0, HEADER as u8, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        reply.extend_from_slice(&address.octets());
    }
    Some(reply)
}
