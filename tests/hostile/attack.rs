//! What strangers do, and what it may cost.

use super::crowd::Crowd;
use super::stand::Doors;
use super::support::{TlsClient, relp};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// Connects and says nothing.
    Silence,
    /// Bytes without an LF.
    Garbage,
    /// An octet count, and all bytes but the last.
    HalfFrames,
    /// Bytes of a frame without an end, one at a time.
    Dribble,
    /// Complete lines, each of another container.
    NewHeaders,
    /// The same with names as long as they can be.
    LongHeaders,
    /// Half a ClientHello.
    HalfHello,
    /// A whole handshake, and then nothing.
    Handshakes,
    /// RELP: all bytes of a message but the last.
    RelpHalfFrame,
    /// The same with a batch of lines as another logferry sends it, which may be much longer.
    RelpHalfBatch,
    /// RELP: thousands of commands, and nobody who reads the answers.
    RelpCommands,
    /// UDP: datagrams of ever new containers, from a few sockets at full speed.
    ForgedTags,
}

/// Bytes of a frame that is nearly as long as the default of `max-frame`.
const LONG: usize = 60_000;
/// Of a batch of lines between two relays.
const BATCH: usize = 1_000_000;
/// Containers that each connection invents.
const CONTAINERS: usize = 20;
const COMMANDS: usize = 3000;
/// Rounds of single bytes.
const BYTES: usize = 20;
const SOCKETS: usize = 3;

impl Attack {
    /// How one is called in what is printed.
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
        }
    }

    /// What so many strangers may cost beyond what the relay has at its start, in KiB: together, and each of them. Where
    /// they begin messages that never end, that is `max-unfinished` (16 MiB), a full queue to the spool (8 MiB), the spool's last
    /// lines in memory (2 MiB), and what the allocator has left over. A session of TLS or RELP is more all by itself.
    pub fn most_kib(self, strangers: usize) -> u64 {
        let (together, each_of_them) = match self {
            Self::Silence | Self::Dribble => (2 << 10, 3 << 10),
            Self::Garbage | Self::HalfFrames | Self::ForgedTags => (28 << 10, 3 << 10),
            Self::NewHeaders | Self::LongHeaders => (16 << 10, 4 << 10),
            Self::HalfHello => (8 << 10, 4 << 10),
            Self::Handshakes => (4 << 10, 11 << 10),
            Self::RelpHalfFrame | Self::RelpCommands => (28 << 10, 5 << 10),
            // Twice `max-unfinished`: each of these messages leaves behind, while it grows, as much as it is.
            Self::RelpHalfBatch => (32 << 10, 5 << 10),
        };
        together + each_of_them * strangers as u64 / 1024
    }

    /// How many come, where so many do who say little: not more than can be dealt with in a test.
    pub fn strangers(self, of: usize) -> usize {
        match self {
            // As many bytes from fewer of them.
            Self::RelpHalfBatch => of / 10,
            // Each takes a debug build 10 ms.
            Self::Handshakes | Self::RelpCommands if cfg!(debug_assertions) => of / 5,
            _ => of,
        }
    }

    /// They come, and do it. They stay until what is returned is dropped.
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
        }
    }
}

const OPEN: &[u8] = b"1 open 46 relp_version=0\nrelp_software=x\ncommands=syslog\n";

/// A line of a container that nobody has heard of.
fn forged(stranger: usize, number: usize, length: usize) -> Vec<u8> {
    let name = "n".repeat(length);
    format!("<30>Nov 20 17:28:47 image-{stranger}-{number}/{name}-{stranger}-{number}/2a9052a5c36e[1]: x\n")
        .into_bytes()
}

/// As another logferry opens a session, which is then allowed batches.
fn opens_as_a_relay(stranger: usize) -> Vec<u8> {
    relp::frame(
        1,
        "open",
        format!("relp_version=0\nrelp_software=x\ncommands=syslog,numbered\nstream={stranger:04}/x").as_bytes(),
    )
}
