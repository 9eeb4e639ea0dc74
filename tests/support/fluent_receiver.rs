//! A receiver of the Forward protocol whose answers the test chooses. Strict: input that no real receiver accepts, or that is not in the
//! specification, fails the test. Shares no code with the relay.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

use super::fluent::Value;
use super::{PATIENCE, eventually, own_port};

/// A receiver that accepts connections on demand.
pub struct FluentReceiver(TcpListener);

/// A connection; the relay is the other end.
pub struct ReceiverPeer {
    stream: TcpStream,
    held: Vec<u8>,
}

/// A chunk: `[tag, bin, {chunk, size}]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    pub tag: String,
    pub name: String,
    /// Time and record of each entry.
    pub entries: Vec<(Value, Vec<(String, Value)>)>,
}

impl FluentReceiver {
    pub fn new() -> Self {
        let listener = TcpListener::bind(own_port()).expect("a free port");
        listener.set_nonblocking(true).expect("a socket option");
        Self(listener)
    }

    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("bound")
    }

    pub fn url(&self) -> String {
        format!("fluent://{}", self.address())
    }

    /// The next connection.
    #[track_caller]
    pub fn accepts(&self) -> ReceiverPeer {
        Self::begins(eventually("the relay connects", || self.0.accept().ok()).0)
    }

    /// The next connection; `None` if `is_over` is set first.
    pub fn accepts_unless(&self, is_over: &AtomicBool) -> Option<ReceiverPeer> {
        let next = || match self.0.accept() {
            Ok((stream, _)) => Some(Some(stream)),
            Err(_) => is_over.load(Ordering::Relaxed).then_some(None),
        };
        eventually("the relay connects, or it is over", next).map(Self::begins)
    }

    fn begins(stream: TcpStream) -> ReceiverPeer {
        stream.set_nonblocking(false).expect("a socket option");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        ReceiverPeer { stream, held: Vec::new() }
    }
}

impl ReceiverPeer {
    /// The next value; `None`: the relay has ended the connection.
    #[track_caller]
    pub fn next_value(&mut self) -> Option<Value> {
        loop {
            if let Some((value, rest)) = Value::read(&self.held) {
                self.held = rest.to_vec();
                return Some(value);
            }
            let mut bytes = [0; 65_536];
            match self.stream.read(&mut bytes) {
                Ok(0) => {
                    assert!(self.held.is_empty(), "half a value");
                    return None;
                }
                Ok(length) => self.held.extend_from_slice(&bytes[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("nothing comes: {error}"),
            }
        }
    }

    #[track_caller]
    pub fn next(&mut self) -> Option<Chunk> {
        self.next_value().map(|value| Chunk::read(&value))
    }

    #[track_caller]
    pub fn hears(&mut self) -> Chunk {
        self.next().expect("a chunk")
    }

    pub fn says(&mut self, value: &Value) {
        self.stream.write_all(&value.bytes()).expect("the relay reads");
    }

    pub fn acknowledges(&mut self, chunk: &Chunk) {
        self.says(&Value::Map(vec![("ack".into(), (&*chunk.name).into())]));
    }

    /// As [`acknowledges`](Self::acknowledges), but the relay may have ended the connection. False: it has.
    pub fn acknowledged(&mut self, chunk: &Chunk) -> bool {
        let answer = Value::Map(vec![("ack".into(), (&*chunk.name).into())]);
        self.stream.write_all(&answer.bytes()).is_ok()
    }

    /// Reads and acknowledges lines until `count` have come; returns their numbers in the order of arrival.
    #[track_caller]
    pub fn takes(&mut self, count: usize) -> Vec<usize> {
        let mut numbers = Vec::new();
        while numbers.len() < count {
            let chunk = self.hears();
            numbers.extend(chunk.numbers());
            self.acknowledges(&chunk);
        }
        numbers
    }
}

impl Chunk {
    #[track_caller]
    fn read(value: &Value) -> Self {
        let Value::Array(parts) = value else { panic!("{value:?} is no array") };
        let [Value::Str(tag), Value::Bin(entries), Value::Map(options)] = &parts[..] else {
            panic!("{parts:?} is no PackedForward")
        };
        let (mut rest, mut read) = (&entries[..], Vec::new());
        while !rest.is_empty() {
            let (entry, behind) = Value::read(rest).expect("a whole entry");
            rest = behind;
            let Value::Array(pair) = entry else { panic!("{entry:?} is no entry") };
            let [time @ (Value::Time(..) | Value::Int(_)), Value::Map(record)] = &pair[..] else {
                panic!("{pair:?} is no pair of a time and a record")
            };
            let pair = |(key, value): &(Value, Value)| {
                let Value::Str(key) = key else { panic!("{key:?} is no key") };
                (String::from_utf8(key.clone()).expect("UTF-8"), value.clone())
            };
            let record: Vec<_> = record.iter().map(pair).collect();
            let mut keys: Vec<_> = record.iter().map(|(key, _)| key).collect();
            keys.sort();
            keys.dedup();
            assert_eq!(keys.len(), record.len(), "a key is there twice: {record:?}");
            read.push((time.clone(), record));
        }
        let [(chunk_key, Value::Str(name)), (size_key, Value::Int(size))] = &options[..] else { panic!("{options:?}") };
        assert_eq!((chunk_key.text(), size_key.text()), (&b"chunk"[..], &b"size"[..]));
        assert_eq!(*size, read.len() as i64);
        let name = String::from_utf8(name.clone()).expect("base64");
        assert!(name.len() == 24 && name.ends_with("=="), "{name} is no base64 of 128 bits");
        assert!(!tag.is_empty() && !read.is_empty());
        Self { tag: String::from_utf8(tag.clone()).expect("UTF-8"), name, entries: read }
    }

    /// The messages' texts.
    pub fn texts(&self) -> Vec<String> {
        let text = |(_, record): &(Value, Vec<(String, Value)>)| {
            let log = record.iter().find(|(key, _)| key == "log").expect("a message");
            String::from_utf8_lossy(log.1.text()).into_owned()
        };
        self.entries.iter().map(text).collect()
    }

    /// The messages' texts, as numbers.
    #[track_caller]
    pub fn numbers(&self) -> Vec<usize> {
        self.texts().iter().map(|text| text.parse().expect("a number")).collect()
    }
}
