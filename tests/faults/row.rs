//! What is told: a fault, a transport, a collector, and the relay between them. And how large.

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
    /// No program: what the relay itself writes.
    Files,
}

/// How the senders speak to the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Senders {
    Udp,
    Tcp,
    Unix,
    Relp,
}

/// Messages in 256 KiB, which may be under way on a connection, of some 250 bytes as we write them.
const UNDER_WAY: usize = 1000;

/// Between the relay and the collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Tls,
    Relp,
    Udp,
    File,
}

/// Lengths of time are counted in messages that were due: a story waits for the load, not for the clock.
#[derive(Clone, Copy)]
pub struct Size {
    /// Messages a second, of all senders.
    pub rate: usize,
    /// The least a story sends.
    pub messages: usize,
    /// Before the first fault, and between two.
    pub calm: usize,
    /// Between the end of a program and its next start.
    pub pause: usize,
    /// How long a collector is away.
    pub away: usize,
    /// How long one hangs that is going to die: longer than anything that was acknowledged is kept as a matter of course.
    pub hang: usize,
    /// How long a link is cut.
    pub cut: usize,
    /// How long a disk is frozen.
    pub frozen: usize,
    /// How long a link or a collector is slow, and a name rotates.
    pub slow: usize,
    /// When a relay that has not recovered is taken to never do so.
    pub patience: Duration,
    /// How long those may be delayed, and senders held, that a fault is not about.
    pub delay: Duration,
    /// When whatever has not come is taken to be lost.
    pub quiet: Duration,
    /// Whether the relay runs on its defaults, or with shorter waits than anybody would set.
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

    /// Whether there is such a row. A peer looks a name up when it connects, so that one which rotates is nothing to it, and
    /// syslog-ng does not speak RELP.
    pub fn is_one(&self) -> bool {
        let Self { relay, transport, collector, fault } = *self;
        let ours = relay == Make::Logferry;
        let may = ours || fault != Fault::NameRotates && (relay, fault) != (Make::SyslogNg, Fault::DiskFrozenRelp);
        may && fault.applies(transport, collector)
    }

    /// Lines that may be lost: one that a sender of plain TCP writes between a stopping relay's last look at its connection
    /// and the reset, which no receiver can prevent. One for each restart.
    pub fn most_lost(&self) -> usize {
        if self.fault == Fault::RelayRestarted { 3 } else { 0 }
    }

    /// How many connections our relay may make in its last life, where that says whether it has kept them.
    pub fn most_connects(&self) -> Option<usize> {
        match (self.fault, self.transport) {
            (Fault::NameRotates, _) => Some(1),
            (Fault::CollectorSlow, _) | (Fault::LinkSlow, Transport::Relp) => Some(2),
            _ => None,
        }
    }

    /// How many messages may come again at most.
    ///
    /// Between two of ours by RELP, none, for the collector knows what it has; but another collector, at another address,
    /// does not know what the first one had. Elsewhere each broken connection brings again what it had under way and what
    /// is kept of what was acknowledged: the replay window, and all of a connection's first second. A relay that is killed
    /// brings again what it had delivered since it last wrote down how far it is, some 5 ms, or was still keeping.
    pub fn most_repeated(&self, size: &Size) -> usize {
        let exactly_once = self.transport == Transport::Relp && self.collector == Make::Logferry;
        if exactly_once && !self.fault.moves_a_name() {
            return 0;
        }
        self.fault.breaks() * (2 * size.rate + UNDER_WAY)
    }
}

impl Size {
    /// For every day.
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

    /// For the table.
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

/// What a substring picks it by: relay, transport, collector, fault.
impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { relay, transport, collector, fault } = self;
        write!(f, "{}/{}/{}/{}", relay.name(), transport.name(), collector.name(), fault.name())
    }
}
