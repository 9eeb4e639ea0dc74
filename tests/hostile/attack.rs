//! The attacks of strangers, and the memory that each may cost.

use super::crowd::Crowd;
use super::stand::{Doors, Way};
use super::support::fluent::{self, Value, map};
use super::support::{TlsClient, relp};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// Connects and sends nothing.
    Silence,
    /// Bytes without an LF.
    Garbage,
    /// An octet count, and the frame without its last byte.
    HalfFrames,
    /// Bytes of an endless frame, one at a time.
    Dribble,
    /// Complete lines, each from another container.
    NewHeaders,
    /// Complete lines with container names of the maximum length.
    LongHeaders,
    /// Half a ClientHello.
    HalfHello,
    /// A complete handshake, then silence.
    Handshakes,
    /// RELP: a `syslog` frame without its end.
    RelpHalfFrame,
    /// RELP: a `numbered` frame without its end, as another logferry sends it. It carries a batch of lines and may be
    /// much longer.
    RelpHalfBatch,
    /// RELP: thousands of commands from a peer that does not read the answers.
    RelpCommands,
    /// UDP: datagrams, each from a new container, from a few sockets at full speed.
    ForgedTags,
    /// GELF over TCP: objects without the last brace.
    GelfHalfObjects,
    /// GELF over UDP: the first chunks of always new messages, from a few sockets at full speed.
    GelfFirstChunks,
    /// Forward: an array without its last byte.
    ForwardHalfArrays,
    /// Forward: the first bytes of an array, one at a time.
    ForwardDribble,
    /// Forward: deep nesting, a declared length of 4 GiB, entries that end in the middle, invalid UTF-8.
    ForwardBadArrays,
    /// Forward: gzip data that expands beyond the limit.
    ForwardBombs,
    /// HTTP: a request that is answered, then silence.
    HttpSilence,
    /// HTTP: a head without an end.
    HttpHalfHeads,
    /// HEC: an event without an end.
    HttpHalfEvents,
    /// HEC: a compressed body that expands beyond the limit.
    HttpBombs,
    /// HEC: a compressed body that expands to nearly the limit, all of it one unfinished line.
    HttpLargeBodies,
    /// systemd's journal: an entry without an end.
    JournalHalfEntries,
}

/// Bytes of a frame slightly shorter than the default of `max-frame`.
const LONG: usize = 60_000;
/// Bytes of a batch of lines between two relays.
const BATCH: usize = 1_000_000;
/// How many container names each connection invents.
const CONTAINERS: usize = 20;
const COMMANDS: usize = 3000;
/// How many single bytes each connection sends.
const BYTES: usize = 20;
const SOCKETS: usize = 3;

impl Attack {
    /// The attack's name in the output.
    pub fn title(self) -> &'static str {
        match self {
            Self::Silence => "silence",
            Self::Garbage => "garbage without an end",
            Self::HalfFrames => "half frames",
            Self::Dribble => "a byte now and then",
            Self::NewHeaders => "new headers",
            Self::LongHeaders => "new headers with long names",
            Self::HalfHello => "half a ClientHello",
            Self::Handshakes => "TLS handshakes and nothing more",
            Self::RelpHalfFrame => "half frames by RELP",
            Self::RelpHalfBatch => "half batches by RELP",
            Self::RelpCommands => "commands by RELP, answers unread",
            Self::ForgedTags => "forged tags by UDP",
            Self::GelfHalfObjects => "half objects of GELF",
            Self::GelfFirstChunks => "first chunks of GELF by UDP",
            Self::ForwardHalfArrays => "half arrays of Forward",
            Self::ForwardDribble => "a byte of Forward now and then",
            Self::ForwardBadArrays => "arrays of Forward that are none",
            Self::ForwardBombs => "gzip bombs by Forward",
            Self::HttpSilence => "a request by HTTP, and silence",
            Self::HttpHalfHeads => "half heads by HTTP",
            Self::HttpHalfEvents => "half events of HEC",
            Self::HttpBombs => "gzip bombs by HEC",
            Self::HttpLargeBodies => "large bodies in gzip by HEC",
            Self::JournalHalfEntries => "half entries of a journal",
        }
    }

    /// The memory that this many strangers may cost in addition to the relay's memory at its start, in KiB: a common
    /// part, and a part for each. For unfinished messages, the common part is `max-unfinished` (16 MiB), a full queue
    /// to the spool (8 MiB), the spool's latest lines in memory (2 MiB), and memory that the allocator keeps. A TLS or
    /// RELP session costs more by itself.
    pub fn most_kib(self, strangers: usize) -> u64 {
        let (together, each_of_them) = match self {
            Self::Silence | Self::Dribble => (2 << 10, 3 << 10),
            Self::Garbage | Self::HalfFrames | Self::ForgedTags | Self::GelfFirstChunks => (30 << 10, 3 << 10),
            Self::NewHeaders | Self::LongHeaders => (16 << 10, 4 << 10),
            Self::HalfHello => (8 << 10, 4 << 10),
            Self::Handshakes => (4 << 10, 11 << 10),
            Self::RelpHalfFrame | Self::RelpCommands | Self::GelfHalfObjects | Self::ForwardHalfArrays => {
                (28 << 10, 5 << 10)
            }
            Self::ForwardDribble => (4 << 10, 5 << 10),
            Self::ForwardBadArrays => (8 << 10, 5 << 10),
            // `max-unfinished` for the received bytes, and one array of twice the size: arrays are inflated one after
            // the other.
            Self::ForwardBombs => (56 << 10, 5 << 10),
            // hyper keeps 8 KiB for each connection.
            Self::HttpSilence | Self::HttpHalfHeads => (8 << 10, 18 << 10),
            Self::HttpHalfEvents | Self::JournalHalfEntries => (40 << 10, 18 << 10),
            // Like `ForwardBombs`, but none of the inflated data is kept.
            Self::HttpBombs => (80 << 10, 18 << 10),
            // Four at a time, each of twice `max-unfinished`. As each grows, half of its size stays with the allocator.
            Self::HttpLargeBodies => (176 << 10, 18 << 10),
            // Twice `max-unfinished`: as each of these messages grows, its size stays with the allocator once more.
            Self::RelpHalfBatch => (32 << 10, 5 << 10),
        };
        together + each_of_them * strangers as u64 / 1024
    }

    /// How many of `of` strangers come: fewer for costly attacks, so that a test takes reasonable time.
    pub fn strangers(self, of: usize) -> usize {
        match self {
            // Fewer strangers send as many bytes in total.
            Self::RelpHalfBatch => of / 10,
            // Each body inflates to up to 32 MiB.
            Self::ForwardBombs | Self::HttpBombs | Self::HttpLargeBodies => of / 20,
            // Each costs a debug build 10 ms.
            Self::Handshakes | Self::RelpCommands if cfg!(debug_assertions) => of / 5,
            _ => of,
        }
    }

    /// The listener that the strangers use.
    pub fn way(self) -> Way {
        match self {
            Self::Silence | Self::Garbage | Self::HalfFrames | Self::Dribble | Self::NewHeaders | Self::LongHeaders => {
                Way::Tcp
            }
            Self::HalfHello | Self::Handshakes => Way::Tls,
            Self::RelpHalfFrame | Self::RelpHalfBatch | Self::RelpCommands => Way::Relp,
            Self::ForgedTags => Way::Udp,
            Self::GelfHalfObjects => Way::Gelf,
            Self::GelfFirstChunks => Way::GelfUdp,
            Self::ForwardHalfArrays | Self::ForwardDribble | Self::ForwardBadArrays | Self::ForwardBombs => {
                Way::Forward
            }
            Self::HttpSilence
            | Self::HttpHalfHeads
            | Self::HttpHalfEvents
            | Self::HttpBombs
            | Self::HttpLargeBodies => Way::Http,
            Self::JournalHalfEntries => Way::Journal,
        }
    }

    /// The strangers connect and attack. They stay until the result is dropped.
    pub fn begins(self, doors: &Doors, strangers: usize) -> Crowd {
        match self {
            Self::Silence => Crowd::comes(doors.tcp, strangers),
            Self::Garbage => Crowd::comes(doors.tcp, strangers).sends(&[0xff; LONG]),
            Self::HalfFrames => {
                let frame = [format!("{LONG} ").as_bytes(), &[b'x'; LONG - 1]].concat();
                Crowd::comes(doors.tcp, strangers).sends(&frame)
            }
            Self::Dribble => (0..BYTES).fold(Crowd::comes(doors.tcp, strangers), |crowd, _| crowd.sends(b"y")),
            Self::NewHeaders => {
                let says = |stranger| (0..CONTAINERS).flat_map(move |number| forged(stranger, number, 20)).collect();
                Crowd::comes(doors.tcp, strangers).each_sends(says)
            }
            Self::LongHeaders => {
                Crowd::comes(doors.tcp, strangers).each_sends(|stranger| forged(stranger, 0, LONG / 4))
            }
            Self::HalfHello => {
                let hello = TlsClient::ANONYMOUS.hello();
                Crowd::comes(doors.tls, strangers).sends(&hello[..hello.len() / 2])
            }
            Self::Handshakes => Crowd::comes(doors.tls, strangers).shakes_hands(),
            Self::RelpHalfFrame => {
                let frame = relp::frame(2, "syslog", &[b'x'; LONG]);
                Crowd::comes(doors.relp, strangers).sends(&[OPEN, &frame[..frame.len() - 2]].concat())
            }
            Self::RelpHalfBatch => {
                let frame = relp::frame(2, "numbered", &[b'x'; BATCH]);
                let crowd = Crowd::comes(doors.relp, strangers).each_sends(opens_as_a_relay);
                crowd.sends(&frame[..frame.len() - 2])
            }
            Self::RelpCommands => {
                let commands: Vec<u8> =
                    (0..COMMANDS).flat_map(|number| relp::frame(2 + number as u32, "x", b"")).collect();
                Crowd::comes_and_reads_little(doors.relp, strangers).sends(&[OPEN, &commands].concat())
            }
            Self::ForgedTags => Crowd::shouts(doors.udp, SOCKETS, 3 * strangers, |number| forged(number, 0, LONG / 2)),
            Self::GelfHalfObjects => {
                let object = [b"{\"short_message\":\"", &[b'x'; LONG][..], b"\""].concat();
                Crowd::comes(doors.gelf, strangers).sends(&object)
            }
            Self::GelfFirstChunks => Crowd::shouts(doors.gelf_udp, SOCKETS, 3 * strangers, first_chunk),
            Self::ForwardHalfArrays => {
                let array = fluent::line([b'x'; LONG], None);
                Crowd::comes(doors.forward, strangers).sends(&array[..array.len() - 1])
            }
            Self::ForwardDribble => {
                let array = fluent::line([b'x'; LONG], None);
                let crowd = Crowd::comes(doors.forward, strangers);
                array[..BYTES].chunks(1).fold(crowd, |crowd, byte| crowd.sends(byte))
            }
            Self::ForwardBadArrays => Crowd::comes(doors.forward, strangers).each_sends(bad_array),
            Self::ForwardBombs => Crowd::comes(doors.forward, strangers).sends(&bomb()),
            Self::HttpSilence => {
                let asks = b"OPTIONS /services/collector HTTP/1.1\r\nHost: x\r\n\r\n";
                Crowd::comes(doors.http, strangers).sends(asks)
            }
            Self::HttpHalfHeads => {
                let head = [b"POST /services/collector HTTP/1.1\r\nX: ", &[b'x'; LONG / 10][..]].concat();
                Crowd::comes(doors.http, strangers).sends(&head)
            }
            Self::HttpHalfEvents => {
                let event = [b"{\"event\":\"", &[b'x'; LONG][..]].concat();
                Crowd::comes(doors.http, strangers).sends(&posted("/services/collector", "", event.len() + 1, &event))
            }
            Self::HttpBombs => {
                let body = fluent::zipped(&vec![b' '; 128 << 20]);
                let request = posted("/services/collector", "Content-Encoding: gzip\r\n", body.len(), &body);
                Crowd::comes(doors.http, strangers).sends(&request)
            }
            Self::HttpLargeBodies => {
                let body = fluent::zipped(&vec![b'x'; 31 << 20]);
                let request = posted("/services/collector/raw", "Content-Encoding: gzip\r\n", body.len(), &body);
                Crowd::comes(doors.http, strangers).sends(&request)
            }
            Self::JournalHalfEntries => {
                let entry = [b"PRIORITY=6\nMESSAGE=", &[b'x'; LONG][..]].concat();
                Crowd::comes(doors.journal, strangers).sends(&posted("/upload", "", entry.len() + 1, &entry))
            }
        }
    }
}

const OPEN: &[u8] = b"1 open 46 relp_version=0\nrelp_software=x\ncommands=syslog\n";

/// A line of a new container.
fn forged(stranger: usize, number: usize, length: usize) -> Vec<u8> {
    let name = "n".repeat(length);
    format!("<30>Nov 20 17:28:47 image-{stranger}-{number}/{name}-{stranger}-{number}/2a9052a5c36e[1]: x\n")
        .into_bytes()
}

/// The first of 128 chunks of a message.
fn first_chunk(number: usize) -> Vec<u8> {
    [b"\x1e\x0f", &number.to_be_bytes()[..], &[0, 128], &[b'x'; LONG / 2]].concat()
}

/// The stranger's number selects the kind of array.
fn bad_array(stranger: usize) -> Vec<u8> {
    match stranger % 4 {
        0 => vec![0x91; LONG],
        1 => [b"\x93\xa1t\x01\xdb\xff\xff\xff\xff", &[b'x'; LONG][..]].concat(),
        2 => {
            let entries = Value::Array(vec![Value::Int(1), map([("log", "x")])]).bytes().repeat(CONTAINERS);
            let cut = entries[..entries.len() - 1].to_vec();
            Value::Array(vec!["t".into(), Value::Bin(cut)]).bytes()
        }
        _ => {
            let text = [&b"\xff\xc3\x28\x80"[..], &stranger.to_be_bytes()].concat();
            let record = Value::Map(vec![("log".into(), text[..].into()), (text[..].into(), text[..].into())]);
            Value::Array(vec![text[..].into(), Value::Int(1), record]).bytes()
        }
    }
}

/// Compressed data of a few hundred KiB that inflates to many times the limit of an array.
fn bomb() -> Vec<u8> {
    let option = map([("compressed", "gzip")]);
    Value::Array(vec!["t".into(), Value::Bin(fluent::zipped(&vec![0; 128 << 20])), option]).bytes()
}

/// A POST request that declares this length of its body.
fn posted(path: &str, header: &str, length: usize, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{header}Content-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// Opens a session as another logferry does. The relay then allows batches.
fn opens_as_a_relay(stranger: usize) -> Vec<u8> {
    relp::frame(
        1,
        "open",
        format!("relp_version=0\nrelp_software=x\ncommands=syslog,numbered\nstream={stranger:04}/x").as_bytes(),
    )
}
