//! The rows of the table: a fault, a transport, a collector and the relay between them, and the size of a story.

use std::fmt;
use std::time::Duration;

use super::fault::Fault;
use super::support::rsyslog::Input;

/// One story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub relay: Make,
    pub transport: Transport,
    pub collector: Make,
    pub fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Make {
    Logferry,
    Rsyslog,
    SyslogNg,
    /// No program: the relay writes files itself.
    Files,
}

/// The protocol between senders and relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Senders {
    Udp,
    Tcp,
    Unix,
    Relp,
}

/// Messages in 256 KiB, the most that may be in flight on a connection. A message has about 250 bytes as the relay
/// writes it.
const UNDER_WAY: usize = 1000;

/// The protocol between relay and collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Tls,
    Relp,
    Udp,
    File,
}

/// Durations are counted in messages that were due: a story follows the load, not the clock.
#[derive(Clone, Copy)]
pub struct Size {
    /// Messages per second, of all senders.
    pub rate: usize,
    /// The minimum number of messages of a story.
    pub messages: usize,
    /// The time before the first fault and between two faults.
    pub calm: usize,
    /// The time between the end of a program and its next start.
    pub pause: usize,
    /// How long a collector is away.
    pub away: usize,
    /// How long a collector hangs before it is killed. It is longer than the relay keeps acknowledged lines by default.
    pub hang: usize,
    /// How long a link is cut.
    pub cut: usize,
    /// How long a disk is frozen.
    pub frozen: usize,
    /// How long a link or a collector is slow, or a name rotates.
    pub slow: usize,
    /// A relay that has not recovered after this time counts as never recovering.
    pub patience: Duration,
    /// The allowed delay of messages and senders that the fault does not affect.
    pub delay: Duration,
    /// After this time without new messages, missing messages count as lost.
    pub quiet: Duration,
    /// Whether the relay runs with its defaults. If not, its timeouts are shorter than in practice.
    pub defaults: bool,
}

impl Row {
    pub fn senders(&self) -> Senders {
        match self.fault {
            Fault::SocketNameGone => Senders::Unix,
            Fault::DiskFrozenRelp => Senders::Relp,
            _ if self.transport == Transport::Udp => Senders::Udp,
            _ => Senders::Tcp,
        }
    }

    /// Whether the table has this row. Peers have no row with a rotating name, because they look a name up only when
    /// they connect. syslog-ng has no row with RELP, which it does not support.
    pub fn is_one(&self) -> bool {
        let Self { relay, transport, collector, fault } = *self;
        let ours = relay == Make::Logferry;
        let may = ours || fault != Fault::NameRotates && (relay, fault) != (Make::SyslogNg, Fault::DiskFrozenRelp);
        may && fault.applies(transport, collector)
    }

    /// How many lines may be lost: one per restart of the relay. A plain TCP sender may write it between the stopping
    /// relay's last read and its reset. No receiver can prevent that.
    pub fn most_lost(&self) -> usize {
        if self.fault == Fault::RelayRestarted { 3 } else { 0 }
    }

    /// How many connections our relay may make in its last life. `None`: the row does not test whether the relay keeps
    /// its connection.
    pub fn most_connects(&self) -> Option<usize> {
        match (self.fault, self.transport) {
            (Fault::NameRotates, _) => Some(1),
            (Fault::CollectorSlow, _) | (Fault::LinkSlow, Transport::Relp) => Some(2),
            _ => None,
        }
    }

    /// The maximum number of repeated messages.
    ///
    /// Between two logferry relays with RELP, no message is repeated, because the collector knows the lines it has. An
    /// exception is a collector at another address: it does not know the lines of the first one. With other protocols,
    /// each broken connection repeats the lines in flight and the acknowledged lines still kept: those in the replay
    /// window, and all of a connection's first second. A killed relay repeats the lines delivered since it last wrote
    /// its cursor, about 5 ms, and those still kept.
    pub fn most_repeated(&self, size: &Size) -> usize {
        let exactly_once = self.transport == Transport::Relp && self.collector == Make::Logferry;
        if exactly_once && !self.fault.moves_a_name() {
            return 0;
        }
        self.fault.breaks() * (2 * size.rate + UNDER_WAY)
    }
}

impl Size {
    /// The size for every day.
    pub const SMALL: Self = Self {
        rate: 2000,
        messages: 4000,
        calm: 1200,
        pause: 200,
        away: 1600,
        hang: 4000,
        cut: 3000,
        frozen: 3000,
        slow: 5000,
        patience: Duration::from_secs(20),
        delay: Duration::from_secs(20),
        quiet: Duration::from_secs(4),
        defaults: false,
    };

    /// The size for the table.
    pub const FULL: Self = Self {
        rate: 5000,
        messages: 60_000,
        calm: 12_500,
        pause: 2500,
        away: 50_000,
        hang: 50_000,
        cut: 75_000,
        frozen: 45_000,
        slow: 150_000,
        patience: Duration::from_secs(40),
        delay: Duration::from_secs(5),
        quiet: Duration::from_secs(10),
        defaults: true,
    };
}

impl Transport {
    pub fn input(self) -> Input {
        match self {
            Self::Tcp => Input::Tcp,
            Self::Tls => Input::Tls,
            Self::Relp => Input::Relp,
            Self::Udp => Input::Udp,
            Self::File => unreachable!("nobody listens"),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Relp => "relp",
            Self::Udp => "udp",
            Self::File => "file",
        }
    }
}

impl Make {
    pub fn name(self) -> &'static str {
        match self {
            Self::Logferry => "logferry",
            Self::Rsyslog => "rsyslog",
            Self::SyslogNg => "syslog-ng",
            Self::Files => "files",
        }
    }
}

/// The name that a filter matches: relay, transport, collector, fault.
impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { relay, transport, collector, fault } = self;
        write!(f, "{}/{}/{}/{}", relay.name(), transport.name(), collector.name(), fault.name())
    }
}
