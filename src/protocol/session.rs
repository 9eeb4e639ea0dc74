//! A session: what one connection of a sender says, and what it is answered. Pure: bytes and the time in, messages and answers
//! out. A driver (`listen::stream`) owns everything else: the socket, the limits, the turns, the waiting, the end.
//!
//! What a session finds and answers does not depend on where its bytes were cut.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, Instant};

use super::fluent::FluentSession;
use super::foreign::Foreign;
use super::framing::Notes;
use super::gelf::GelfSession;
use super::outline::Outline;
use super::relp::{Proofs, RelpSession};
use super::syslog::{Senders, Settings, SyslogSession};
use crate::record::{Record, UnixMicros};

/// What a protocol must say about the connections that speak it. A closed set: [`AnySession`] is one of them, and this writes
/// down what each of them does.
pub trait Session {
    /// How the driver treats such a session, where it has a choice.
    fn conduct(&self) -> &'static Conduct;

    /// How far the session has come.
    fn phase(&self) -> Phase;

    /// The connection stands. Appends what is said first, where the listener speaks first.
    fn opened(&mut self, now: Instant, answers: &mut Vec<u8>);

    /// Takes the next bytes. Appends answers that wait for nothing to `answers`; those of messages come with [`committed`].
    ///
    /// An error: this is not the protocol, and the connection has to end: at once, or where the session is closing, when what it
    /// owes is answered. What was found before it counts.
    ///
    /// [`committed`]: Self::committed
    fn feed(&mut self, bytes: &[u8], now: Instant, to: &mut impl Sink, answers: &mut Vec<u8>) -> Result<(), Violation>;

    /// The batch with this ticket, and all before it, are in the spool: appends their answers.
    fn committed(&mut self, ack: Ack, answers: &mut Vec<u8>);

    /// The batch with this ticket is not in the spool, and will not be. Nothing behind it may be answered either: senders
    /// take an answer for one of everything before it.
    fn refused(&mut self, ack: Ack, why: Refusal);

    /// Does what is due by now: gives up a message whose end has not come in time. Returns when it wants to be called next.
    ///
    /// An error: without that end there is no way to go on.
    fn timer(&mut self, now: Instant, to: &mut impl Sink) -> Result<Option<Instant>, Violation>;

    /// Gives up the message that has not ended, for want of memory. An error: as of [`timer`](Self::timer).
    fn give_up(&mut self, to: &mut impl Sink) -> Result<(), Violation>;

    /// The relay stops: appends a goodbye, where the protocol has one. No more bytes will come.
    fn stopping(&mut self, answers: &mut Vec<u8>);

    /// The connection has ended. What was begun and is whole enough is a message.
    fn closed(&mut self, how: Closed, to: &mut impl Sink);

    /// Whether a message has begun that has neither ended nor been given up.
    fn unfinished(&self) -> bool;

    /// Bytes of memory that it takes: of a message that has not ended, and of answers that wait.
    fn memory(&self) -> usize;

    /// Bytes of answers that wait for a message before them.
    fn owed(&self) -> usize;
}

/// Where a session's messages go.
pub trait Sink {
    /// One message as it came, its framing removed (a trailing LF may be there), and whether it was cut. False: it is not in
    /// the batch, because it was refused, or waits for the rest of its line.
    fn frame(&mut self, bytes: &[u8], cut: bool) -> bool;

    /// One message of a protocol that says more than a frame of syslog can. False: as of [`frame`](Self::frame).
    fn record(&mut self, message: &impl ToRecord) -> bool;

    /// One message, if most of it came before, so that it need not be read to its end. What it returns is as of [`frame`](Self::frame);
    /// `None`: it is to be read and handed to [`record`](Self::record).
    fn known(&mut self, _outline: &Outline<'_>) -> Option<bool> {
        None
    }

    /// What came is no message, and does not end the connection.
    fn refused(&mut self, _why: Violation) {}

    /// What is to be told of the stream beside its messages: what was thrown away of those that were cut.
    fn notes(&mut self, _notes: Notes) {}

    /// The first message is JSON without a priority, which some mean for another port.
    fn json(&mut self) {}

    /// From now on messages are answered, and their sender can be made to wait.
    fn answers_messages(&mut self) {}

    /// Whether this chunk, the first of its connection, is in the spool already, by a connection that ended before its answer arrived.
    fn comes_again(&mut self, _chunk: &[u8]) -> bool {
        false
    }

    /// The connection ends, and the answer to this chunk, which is in the spool, may not have arrived.
    fn unconfirmed(&mut self, _chunk: &[u8]) {}

    /// Ends the batch: its sender is answered once it is in the spool. `numbers`: those of its lines, where they have some.
    fn ticket(&mut self, ack: Ack, numbers: Option<Numbers<'_>>);
}

/// What a protocol other than syslog has read of a message.
pub trait ToRecord {
    /// What the message says. HOSTNAME stays empty where the message names no host. `received` is when it was read.
    fn to_record<'a>(&'a self, settings: &'a Settings, received: UnixMicros) -> Record<'a>;

    /// The message in two parts, where its record is one of a container and depends on nothing else.
    fn outline(&self) -> Option<Outline<'_>> {
        None
    }

    /// Whether there was more of the message than is kept.
    fn is_cut(&self) -> bool {
        false
    }

    /// Whether the protocol says which messages are pieces of one. Otherwise a message of Docker's as long as its pieces are may be one.
    fn tells_pieces(&self) -> bool {
        false
    }
}

/// A batch of one session that is to be acknowledged. They follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ack(pub u64);

/// The numbers that lines have where they come from: the first one's, and one more for each that follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers<'a> {
    /// Names the spool and the forward that they come from.
    pub stream: &'a str,
    pub session: u32,
    pub first_line: u64,
    /// What the stream was called before it proved who it is.
    pub was: Option<&'a str>,
}

/// Where protocols differ in how a connection is treated.
#[derive(Debug)]
pub struct Conduct {
    /// Each message is answered once it is in the spool. Its sender keeps it until then, so it may be made to wait, and what
    /// has no answer when the connection ends comes again: at a stop nothing more is read, and the session says goodbye.
    ///
    /// Otherwise nobody can be made to wait, at a stop everything that the kernel holds is read, and the connection is reset,
    /// because that is the only thing such senders notice.
    pub answers: bool,
    /// A turn ends with the read that brings its bytes to so many, and others have theirs.
    pub turn_bytes: usize,
    /// A sender that waits for an answer waits as long as the spool's `max-wait` at most. Then the connection is reset.
    pub holds_briefly: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing but an opening may come.
    Opening,
    Open,
    /// Nothing more may come; what is owed is answered.
    Closing,
    /// The connection is of no more use.
    Over,
}

/// Why a batch is not in the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The spool does not take it, or nobody is left who waits for that.
    NotSpooled,
    /// The relay stops.
    Stopping,
}

/// How a connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The peer closed the connection in good order.
    Clean,
    /// The connection broke, or the peer has not said that this was all.
    Broken,
    /// The relay stops.
    Stopped,
}

/// What the sender says is not the protocol, or not all of it came in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// For counters.
    pub name: &'static str,
    pub why: Cow<'static, str>,
}

/// What counters call a violation that is not told from others.
pub const UNNAMED: &str = "protocol";

impl Violation {
    /// One that is not told from others by counters.
    pub const fn new(why: &'static str) -> Self {
        Self { name: UNNAMED, why: Cow::Borrowed(why) }
    }
}

/// The protocol that senders speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Syslog as RFC 5424, RFC 3164 and Docker write it: nothing is answered.
    Syslog,
    /// Syslog messages that are answered, each by its number.
    Relp,
    /// Fluentd's Forward protocol: entries with keys and values, of which those are answered whose sender asks for it.
    Fluent,
    /// GELF: JSON objects, of which none is answered.
    Gelf,
    /// Splunk's HTTP Event Collector: requests, of which each is answered.
    Splunk,
    /// systemd's journal, uploaded in requests, of which each is answered.
    Journal,
}

impl Protocol {
    /// The protocols that have sessions.
    pub const WITH_SESSIONS: [Self; 4] = [Self::Syslog, Self::Relp, Self::Fluent, Self::Gelf];

    /// Whether its sessions may answer messages.
    pub fn may_answer(self) -> bool {
        matches!(self, Self::Relp | Self::Fluent)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Syslog => "syslog",
            Self::Relp => "RELP",
            Self::Fluent => "the Forward protocol",
            Self::Gelf => "GELF",
            Self::Splunk => "Splunk's HEC",
            Self::Journal => "the journal's HTTP",
        })
    }
}

/// What a session may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of a message that are kept.
    pub max_frame: usize,
    /// Bytes of an array of messages.
    pub max_array: usize,
    /// Bytes of the longest line that another logferry may have.
    pub max_line: usize,
    /// How long the end of a message is waited for.
    pub frame_timeout: Duration,
    /// How long `open` is waited for.
    pub open_timeout: Duration,
    /// Whose numbers of lines are believed.
    pub proofs: Proofs,
    /// What kind of senders there are.
    pub senders: Senders,
}

/// A session of one of the protocols.
#[derive(Debug)]
pub enum AnySession {
    Syslog(SyslogSession),
    /// Boxed: most connections speak syslog and should not pay for it.
    Relp(Box<RelpSession>),
    Fluent(Box<FluentSession>),
    Gelf(Box<GelfSession>),
}

/// Calls the same method of whichever session it is.
macro_rules! each {
    ($any:expr, $session:ident => $call:expr) => {
        match $any {
            AnySession::Syslog($session) => $call,
            AnySession::Relp($session) => $call,
            AnySession::Fluent($session) => $call,
            AnySession::Gelf($session) => $call,
        }
    };
}

impl AnySession {
    /// The session of a new connection. `None`: the protocol is one of requests, which HTTP carries.
    pub fn new(protocol: Protocol, bounds: Bounds) -> Option<Self> {
        Some(match protocol {
            Protocol::Syslog => {
                Self::Syslog(SyslogSession::new(bounds.max_frame, bounds.frame_timeout, bounds.senders))
            }
            Protocol::Relp => Self::Relp(Box::new(RelpSession::new(bounds))),
            Protocol::Fluent => Self::Fluent(Box::new(FluentSession::new(bounds))),
            Protocol::Gelf => Self::Gelf(Box::new(GelfSession::new(bounds))),
            Protocol::Splunk | Protocol::Journal => return None,
        })
    }
}

impl AnySession {
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::Syslog(_) => Protocol::Syslog,
            Self::Relp(_) => Protocol::Relp,
            Self::Fluent(_) => Protocol::Fluent,
            Self::Gelf(_) => Protocol::Gelf,
        }
    }

    /// Whether the sender has said something that was its protocol.
    pub fn has_begun(&self) -> bool {
        match self {
            Self::Syslog(_) => true,
            Self::Relp(session) => session.has_begun(),
            Self::Fluent(session) => session.has_begun(),
            Self::Gelf(session) => session.has_begun(),
        }
    }

    /// What is spoken instead, where that is known.
    pub fn foreign(&self) -> Option<Foreign> {
        match self {
            Self::Syslog(session) => session.foreign(),
            Self::Relp(_) => None,
            Self::Fluent(session) => session.foreign(),
            Self::Gelf(session) => session.foreign(),
        }
    }
}

impl Session for AnySession {
    fn conduct(&self) -> &'static Conduct {
        each!(self, session => session.conduct())
    }

    fn phase(&self) -> Phase {
        each!(self, session => session.phase())
    }

    fn opened(&mut self, now: Instant, answers: &mut Vec<u8>) {
        each!(self, session => session.opened(now, answers));
    }

    fn feed(&mut self, bytes: &[u8], now: Instant, to: &mut impl Sink, answers: &mut Vec<u8>) -> Result<(), Violation> {
        each!(self, session => session.feed(bytes, now, to, answers))
    }

    fn committed(&mut self, ack: Ack, answers: &mut Vec<u8>) {
        each!(self, session => session.committed(ack, answers));
    }

    fn refused(&mut self, ack: Ack, why: Refusal) {
        each!(self, session => session.refused(ack, why));
    }

    fn timer(&mut self, now: Instant, to: &mut impl Sink) -> Result<Option<Instant>, Violation> {
        each!(self, session => session.timer(now, to))
    }

    fn give_up(&mut self, to: &mut impl Sink) -> Result<(), Violation> {
        each!(self, session => session.give_up(to))
    }

    fn stopping(&mut self, answers: &mut Vec<u8>) {
        each!(self, session => session.stopping(answers));
    }

    fn closed(&mut self, how: Closed, to: &mut impl Sink) {
        each!(self, session => session.closed(how, to));
    }

    fn unfinished(&self) -> bool {
        each!(self, session => session.unfinished())
    }

    fn memory(&self) -> usize {
        each!(self, session => session.memory())
    }

    fn owed(&self) -> usize {
        each!(self, session => session.owed())
    }
}

/// Until when the end of a message is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct MessageDeadline {
    timeout: Duration,
    at: Option<Instant>,
}

impl MessageDeadline {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout, at: None }
    }

    /// Something was read. `unfinished`: a message has not ended; `another`: and one before it has.
    pub(super) fn after_feed(&mut self, unfinished: bool, another: bool, now: Instant) {
        self.at = match self.at {
            _ if !unfinished => None,
            // One that has run out did so while nothing was read, and that was not the sender's fault.
            Some(at) if !another && at > now => Some(at),
            _ => now.checked_add(self.timeout),
        };
    }

    pub(super) fn at(&self) -> Option<Instant> {
        self.at
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.at.is_some_and(|at| at <= now)
    }

    pub(super) fn clear(&mut self) {
        self.at = None;
    }
}
