//! The Forward protocol from the sender's side: arrays of msgpack, and a peer that waits for the relay's answers. Shares no code with the
//! relay.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::{Door, Wire, shown};

/// A value of msgpack.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Vec<u8>),
    Bin(Vec<u8>),
    Array(Vec<Value>),
    Map(Vec<(Value, Value)>),
    /// Seconds and nanoseconds.
    Time(u32, u32),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Str(text.into())
    }
}

impl From<&[u8]> for Value {
    fn from(text: &[u8]) -> Self {
        Self::Str(text.into())
    }
}

impl Value {
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut long = |heads: [u8; 3], len: usize| match len {
            0..=0xff => out.extend_from_slice(&[heads[0], len as u8]),
            0x100..=0xffff => out.extend_from_slice(&[&[heads[1]][..], &(len as u16).to_be_bytes()].concat()),
            _ => out.extend_from_slice(&[&[heads[2]][..], &(len as u32).to_be_bytes()].concat()),
        };
        match self {
            Self::Nil => out.push(0xc0),
            Self::Bool(value) => out.push(0xc2 + u8::from(*value)),
            Self::Int(value @ 0..=127) => out.push(*value as u8),
            Self::Int(value) => out.extend_from_slice(&[&[0xd3][..], &value.to_be_bytes()].concat()),
            Self::Float(value) => out.extend_from_slice(&[&[0xcb][..], &value.to_be_bytes()].concat()),
            Self::Str(text) => {
                match text.len() {
                    len @ 0..=31 => out.push(0xa0 | len as u8),
                    len => long([0xd9, 0xda, 0xdb], len),
                }
                out.extend_from_slice(text);
            }
            Self::Bin(bytes) => {
                long([0xc4, 0xc5, 0xc6], bytes.len());
                out.extend_from_slice(bytes);
            }
            Self::Array(items) => {
                match items.len() {
                    len @ 0..=15 => out.push(0x90 | len as u8),
                    len => out.extend_from_slice(&[&[0xdd][..], &(len as u32).to_be_bytes()].concat()),
                }
                items.iter().for_each(|item| item.write(out));
            }
            Self::Map(pairs) => {
                match pairs.len() {
                    len @ 0..=15 => out.push(0x80 | len as u8),
                    len => out.extend_from_slice(&[&[0xdf][..], &(len as u32).to_be_bytes()].concat()),
                }
                pairs.iter().for_each(|(key, value)| {
                    key.write(out);
                    value.write(out);
                });
            }
            Self::Time(seconds, nanoseconds) => {
                out.extend_from_slice(b"\xd7\0");
                out.extend_from_slice(&seconds.to_be_bytes());
                out.extend_from_slice(&nanoseconds.to_be_bytes());
            }
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    /// The first value of these bytes, and the rest. `None`: the value is incomplete.
    #[track_caller]
    pub fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (&first, rest) = bytes.split_first()?;
        let number = |len: usize| {
            let (digits, rest) = rest.split_at_checked(len)?;
            Some((digits.iter().fold(0, |value: u64, digit| value << 8 | u64::from(*digit)), rest))
        };
        let text = |(len, rest): (u64, &'_ [u8])| -> Option<(Vec<u8>, &[u8])> {
            let len = usize::try_from(len).ok()?;
            Some((rest.get(..len)?.to_vec(), &bytes[bytes.len() - rest.len() + len..]))
        };
        let several = |(count, rest): (u64, &[u8])| {
            let (mut items, mut rest) = (Vec::new(), &bytes[bytes.len() - rest.len()..]);
            for _ in 0..count {
                let (item, behind) = Self::read(rest)?;
                items.push(item);
                rest = behind;
            }
            Some((items, rest))
        };
        let pairs = |(items, rest): (Vec<Self>, _)| {
            (Self::Map(items.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()), rest)
        };
        let signed =
            |(value, rest): (u64, _), bits: u32| (Self::Int((value << (64 - bits)) as i64 >> (64 - bits)), rest);
        let twice = |(count, rest): (u64, _)| (2 * count, rest);
        Some(match first {
            0..=0x7f => (Self::Int(first.into()), rest),
            0xe0..=0xff => (Self::Int((first as i8).into()), rest),
            0xc0 => (Self::Nil, rest),
            0xc2 | 0xc3 => (Self::Bool(first == 0xc3), rest),
            0xa0..=0xbf => text((u64::from(first & 31), rest)).map(|(text, rest)| (Self::Str(text), rest))?,
            0xd9..=0xdb => text(number(1 << (first - 0xd9))?).map(|(text, rest)| (Self::Str(text), rest))?,
            0xc4..=0xc6 => text(number(1 << (first - 0xc4))?).map(|(text, rest)| (Self::Bin(text), rest))?,
            0x90..=0x9f => several((u64::from(first & 15), rest)).map(|(items, rest)| (Self::Array(items), rest))?,
            0xdc | 0xdd => several(number(2 << (first - 0xdc))?).map(|(items, rest)| (Self::Array(items), rest))?,
            0x80..=0x8f => pairs(several((2 * u64::from(first & 15), rest))?),
            0xde | 0xdf => pairs(several(twice(number(2 << (first - 0xde))?))?),
            0xca => number(4).map(|(bits, rest)| (Self::Float(f32::from_bits(bits as u32).into()), rest))?,
            0xcb => number(8).map(|(bits, rest)| (Self::Float(f64::from_bits(bits)), rest))?,
            0xcc..=0xcf => number(1 << (first - 0xcc)).map(|(value, rest)| (Self::Int(value as i64), rest))?,
            0xd0..=0xd3 => signed(number(1 << (first - 0xd0))?, 8 << (first - 0xd0)),
            // EventTime: extension type 0.
            0xd7 => {
                assert_eq!(rest.first().copied().unwrap_or_default(), 0, "the type of a time");
                let time: &[u8; 8] = rest.get(1..9)?.try_into().expect("8 bytes");
                let [a, b, c, d, e, f, g, h] = *time;
                (Self::Time(u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])), &rest[9..])
            }
            _ => panic!("nobody says {}", shown(bytes)),
        })
    }

    pub fn text(&self) -> &[u8] {
        match self {
            Self::Str(text) | Self::Bin(text) => text,
            other => panic!("{other:?} is no text"),
        }
    }
}

/// SHA-512 of the concatenated parts, in lower-case hexadecimal digits.
pub fn digest(parts: &[&[u8]]) -> String {
    let all = ring::digest::digest(&ring::digest::SHA512, &parts.concat());
    all.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn map<V: Into<Value>>(pairs: impl IntoIterator<Item = (&'static str, V)>) -> Value {
    Value::Map(pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
}

/// A container's tag, in the form that our templates expect.
pub const TAG: &str = "registry.local:5000/team/app:1.25/web/2a9052a5c36e";
pub const ID: &str = "2a9052a5c36e0123456789abcdef0123456789abcdef0123456789abcdef0123";
/// The time of all messages here: 2026-11-28T21:37:21.250000007Z.
pub const TIME: Value = Value::Time(1_795_901_841, 250_000_007);

/// A container's output as a record of Docker's driver: `source` is stdout or stderr.
pub fn said(source: &str, text: &[u8]) -> Value {
    let pairs: [(_, &[u8]); 4] =
        [("container_name", b"/web"), ("source", source.as_bytes()), ("log", text), ("container_id", ID.as_bytes())];
    map(pairs)
}

/// `[tag, time, record, {chunk}?]`
pub fn message(tag: &str, record: Value, chunk: Option<&str>) -> Vec<u8> {
    let option = Value::Map(chunk.map(|chunk| ("chunk".into(), chunk.into())).into_iter().collect());
    Value::Array(vec![tag.into(), TIME, record, option]).bytes()
}

/// A line of the container with [`TAG`]. With a chunk, it requests an acknowledgement.
pub fn line(text: impl AsRef<[u8]>, chunk: Option<&str>) -> Vec<u8> {
    message(TAG, said("stdout", text.as_ref()), chunk)
}

/// `[tag, [[time, record], …], {chunk}?]`; two elements without a chunk.
pub fn forward(tag: &str, records: impl IntoIterator<Item = Value>, chunk: Option<&str>) -> Vec<u8> {
    let entries = records.into_iter().map(|record| Value::Array(vec![TIME, record])).collect();
    let option = chunk.map(|chunk| map([("chunk", chunk)]));
    Value::Array([tag.into(), Value::Array(entries)].into_iter().chain(option).collect()).bytes()
}

/// A PackedForward message: the entries are concatenated msgpack, optionally compressed with gzip.
pub fn packed(tag: &str, records: impl IntoIterator<Item = Value>, gzip: bool, chunk: &str) -> Vec<u8> {
    let entries = records.into_iter().flat_map(|record| Value::Array(vec![TIME, record]).bytes()).collect::<Vec<_>>();
    let compressed = if gzip { "gzip" } else { "text" };
    let entries = if gzip { zipped(&entries) } else { entries };
    let option = map([("chunk", chunk), ("compressed", compressed)]);
    Value::Array(vec![tag.into(), Value::Bin(entries), option]).bytes()
}

pub fn zipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

/// A sender; the relay is the other end.
pub struct FluentPeer(Wire);

impl FluentPeer {
    #[track_caller]
    pub fn connects(door: &Door) -> Self {
        Self::on(door.connect())
    }

    pub fn on(wire: Wire) -> Self {
        Self(wire.with_patience())
    }

    pub fn wire(self) -> Wire {
        self.0
    }

    #[track_caller]
    pub fn sends(&mut self, bytes: &[u8]) {
        self.0.send(bytes);
    }

    /// Sends bytes. False: the connection is broken. True does not mean that the relay has read them.
    pub fn tries(&mut self, bytes: &[u8]) -> bool {
        match &mut self.0 {
            Wire::Tcp(stream) => stream.write_all(bytes),
            Wire::Tls(stream) => stream.write_all(bytes),
            Wire::Unix(stream) => stream.write_all(bytes),
            Wire::Udp(_) | Wire::Unixgram(_) => unreachable!("see `on`"),
        }
        .is_ok()
    }

    /// Waits for the acknowledgement of this chunk. False: the connection has ended. Any other answer fails the test.
    #[track_caller]
    pub fn hears(&mut self, chunk: &str) -> bool {
        let expected = Value::Map(vec![("ack".into(), chunk.into())]).bytes();
        let mut heard = vec![0; expected.len()];
        let mut length = 0;
        while length < heard.len() {
            match self.0.hears(&mut heard[length..]) {
                0 => {
                    assert_eq!(length, 0, "half an answer: {}", shown(&heard[..length]));
                    return false;
                }
                more => length += more,
            }
        }
        assert_eq!(shown(&heard), shown(&expected));
        true
    }

    /// Sends an array that requests an acknowledgement, and waits for it.
    #[track_caller]
    pub fn asks(&mut self, array: &[u8], chunk: &str) -> bool {
        self.tries(array) && self.hears(chunk)
    }

    /// Authenticates with the shared key and optionally user and password, by version 1 of the specification, and checks that the relay has
    /// the key. An error: the relay's reason, after which it ends the connection.
    #[track_caller]
    pub fn shakes_hands(&mut self, key: &str, user: Option<(&str, &str)>) -> Result<(), String> {
        const HOST: &[u8] = b"sender-1";
        const SALT: &[u8] = b"\xff\x00 16 raw bytes.";
        let (nonce, auth) = self.hears_hello();
        assert_eq!(auth.is_empty(), user.is_none(), "a user is asked for, or not");
        let (name, password) = match user {
            Some((name, password)) => (name, digest(&[&auth, name.as_bytes(), password.as_bytes()])),
            None => ("", String::new()),
        };
        let shown = digest(&[SALT, HOST, &nonce, key.as_bytes()]);
        let ping = ["PING".into(), HOST.into(), SALT.into(), (&*shown).into(), name.into(), (&*password).into()];
        self.sends(&Value::Array(ping.into()).bytes());
        self.hears_pong(|host| digest(&[SALT, host, &nonce, key.as_bytes()]))
    }

    /// The relay's HELO: its nonce, and its salt for passwords.
    #[track_caller]
    pub fn hears_hello(&mut self) -> (Vec<u8>, Vec<u8>) {
        let Value::Array(hello) = self.hears_value() else { panic!("no array") };
        let [name, Value::Map(options)] = &hello[..] else { panic!("{hello:?} is no HELO") };
        assert_eq!(name.text(), b"HELO");
        let option = |name: &str| &options.iter().find(|(key, _)| key.text() == name.as_bytes()).expect(name).1;
        assert_eq!(option("keepalive"), &Value::Bool(true));
        let [nonce, auth] = ["nonce", "auth"].map(|name| option(name).text().to_vec());
        assert!(nonce.len() >= 16 && (auth.is_empty() || auth.len() >= 16), "{hello:?}");
        (nonce, auth)
    }

    #[track_caller]
    pub fn hears_pong(&mut self, expected: impl FnOnce(&[u8]) -> String) -> Result<(), String> {
        let Value::Array(pong) = self.hears_value() else { panic!("no array") };
        let [name, Value::Bool(is_in), reason, host, shown] = &pong[..] else { panic!("{pong:?} is no PONG") };
        assert_eq!(name.text(), b"PONG");
        if !is_in {
            assert_eq!((host.text(), shown.text()), (&b""[..], &b""[..]), "who is refused learns nothing");
            return Err(String::from_utf8_lossy(reason.text()).into_owned());
        }
        assert_eq!((reason.text(), shown.text()), (&b""[..], expected(host.text()).as_bytes()));
        assert!(!host.text().is_empty());
        Ok(())
    }

    /// One value, which must come in a single read, because Fluent Bit reads only once.
    #[track_caller]
    fn hears_value(&mut self) -> Value {
        let mut heard = [0; 1023];
        let length = self.0.hears(&mut heard);
        let (value, behind) = Value::read(&heard[..length]).expect("a whole value");
        assert_eq!(behind, b"", "{value:?}");
        value
    }

    /// Fails unless the relay ends the connection without another word.
    #[track_caller]
    pub fn is_over(&mut self) {
        let mut heard = [0; 64];
        let length = self.0.hears(&mut heard);
        assert_eq!(length, 0, "{}", shown(&heard[..length]));
    }

    /// Fails unless the relay resets the connection: Docker's driver notices nothing else.
    #[track_caller]
    pub fn is_reset(&mut self) {
        let read = self.0.read(&mut [0; 64]);
        assert!(read.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset), "{read:?}");
    }

    /// Half-closes the connection, and waits until the relay has read everything.
    #[track_caller]
    pub fn leaves(mut self) {
        match &mut self.0 {
            Wire::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Wire::Unix(stream) => stream.shutdown(Shutdown::Write),
            Wire::Tls(stream) => {
                stream.conn.send_close_notify();
                stream.flush()
            }
            Wire::Udp(_) | Wire::Unixgram(_) => unreachable!("see `on`"),
        }
        .expect("the relay reads");
        self.is_over();
    }
}
