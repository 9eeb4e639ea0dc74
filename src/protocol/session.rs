//! A session: the protocol state of one connection of a sender. Pure: bytes and the time go in, messages and answers come out. A driver
//! (`listen::stream`) owns everything else: the socket, the limits, the turns, the waiting, the end.
//!
//! The messages and answers of a session do not depend on where its bytes were cut.

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

/// The interface of a stream protocol. The set of protocols is closed: [`AnySession`] is one of them, and this trait documents what all of
/// them do.
pub trait Session {
    /// How the driver treats this kind of session.
    fn conduct(&self) -> &'static Conduct;

    /// How far the session has come.
    fn phase(&self) -> Phase;

    /// The connection is established. Appends a greeting, if the listener speaks first.
    fn opened(&mut self, now: Instant, answers: &mut Vec<u8>);

    /// Takes the next bytes. Appends answers that wait for nothing to `answers`. The answers to messages come with [`committed`].
    ///
    /// An error: the bytes violate the protocol, and the connection has to end at once. In [`Phase::Closing`] it ends after the owed
    /// answers. Messages found before the violation count.
    ///
    /// [`committed`]: Self::committed
    fn feed(&mut self, bytes: &[u8], now: Instant, to: &mut impl Sink, answers: &mut Vec<u8>) -> Result<(), Violation>;

    /// The batch with this ticket, and all before it, are in the spool: appends their answers.
    fn committed(&mut self, ack: Ack, answers: &mut Vec<u8>);

    /// The batch with this ticket is not in the spool, and will not be. Later batches must not be answered either: for senders an answer
    /// confirms everything before it.
    fn refused(&mut self, ack: Ack, why: Refusal);

    /// Does what is due: gives up a message whose end has not come in time. Returns when it wants to be called next.
    ///
    /// An error: the session cannot continue without the end of that message.
    fn timer(&mut self, now: Instant, to: &mut impl Sink) -> Result<Option<Instant>, Violation>;

    /// Gives up the unfinished message, for lack of memory. An error: as in [`timer`](Self::timer).
    fn give_up(&mut self, to: &mut impl Sink) -> Result<(), Violation>;

    /// The relay stops. Appends a goodbye, if the protocol has one. No more bytes follow.
    fn stopping(&mut self, answers: &mut Vec<u8>);

    /// The connection has ended. An unfinished message counts if it is complete enough.
    fn closed(&mut self, how: Closed, to: &mut impl Sink);

    /// Whether a message has begun that has neither ended nor been given up.
    fn unfinished(&self) -> bool;

    /// Bytes of memory in use: by the unfinished message, and by waiting answers.
    fn memory(&self) -> usize;

    /// Bytes of answers that wait for messages.
    fn owed(&self) -> usize;
}

/// The receiver of a session's messages.
pub trait Sink {
    /// One message as received, without its framing (a trailing LF may remain), and whether it was truncated. False: the message is not in
    /// the batch, because it was refused or waits for the rest of its line.
    fn frame(&mut self, bytes: &[u8], cut: bool) -> bool;

    /// One message of a protocol that carries more than a syslog frame. False: as in [`frame`](Self::frame).
    fn record(&mut self, message: &impl ToRecord) -> bool;

    /// One message that may share most of its content with earlier ones, so that it need not be read to its end. The result is as in
    /// [`frame`](Self::frame). `None`: the message is new; the session must read it and pass it to [`record`](Self::record).
    fn known(&mut self, _outline: &Outline<'_>) -> Option<bool> {
        None
    }

    /// The session has received something that is no message. The connection goes on.
    fn refused(&mut self, _why: Violation) {}

    /// Reports on the stream beside its messages: how much was thrown away from truncated messages.
    fn notes(&mut self, _notes: Notes) {}

    /// The first message is JSON without a priority: the sender may mean another port.
    fn json(&mut self) {}

    /// From now on messages are answered, so the sender can be made to wait.
    fn answers_messages(&mut self) {}

    /// Whether this chunk, the first of its connection, is already in the spool, from a connection that ended before the answer arrived.
    fn comes_again(&mut self, _chunk: &[u8]) -> bool {
        false
    }

    /// The connection ends. This chunk is in the spool, but its answer may not have arrived.
    fn unconfirmed(&mut self, _chunk: &[u8]) {}

    /// Ends the batch. Its sender is answered when the batch is in the spool. `numbers`: the numbers of its lines, if they have some.
    fn ticket(&mut self, ack: Ack, numbers: Option<Numbers<'_>>);
}

/// A message of a protocol other than syslog.
pub trait ToRecord {
    /// The record of the message. HOSTNAME is empty if the message names no host. `received`: when the message was read.
    fn to_record<'a>(&'a self, settings: &'a Settings, received: UnixMicros) -> Record<'a>;

    /// The message in two parts, if its record describes a container and depends on nothing else.
    fn outline(&self) -> Option<Outline<'_>> {
        None
    }

    /// Whether the message was truncated.
    fn is_cut(&self) -> bool {
        false
    }

    /// Whether the protocol marks messages that are pieces of one. Otherwise the length tells: a Docker message as long as Docker's pieces
    /// may be one.
    fn tells_pieces(&self) -> bool {
        false
    }
}

/// The ticket of a batch that is to be acknowledged. The tickets of a session are consecutive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ack(pub u64);

/// The numbers that lines have at their origin: the number of the first line, and one more for each following line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers<'a> {
    /// The spool and the forward that the lines come from.
    pub stream: &'a str,
    pub session: u32,
    pub first_line: u64,
    /// The stream's name before it proved its identity.
    pub was: Option<&'a str>,
}

/// How the driver treats the connections of a protocol.
#[derive(Debug)]
pub struct Conduct {
    /// Each message is answered when it is in the spool. The sender keeps it until then, so the sender may be made to wait. Messages
    /// without an answer are sent again on the next connection. At a stop the relay reads nothing more, and the session says goodbye.
    ///
    /// Without answers the relay cannot make a sender wait. At a stop it reads everything that the kernel holds. Then it resets the
    /// connection, because such senders notice nothing else.
    pub answers: bool,
    /// The sender goes on without answers, up to a window that the sender chooses.
    pub pipelines: bool,
    /// A turn ends with the read that reaches this number of bytes. Then other connections have their turns.
    pub turn_bytes: usize,
    /// The sender waits for an answer at most as long as the spool's `max-wait`. Then the connection is reset.
    pub holds_briefly: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Only an opening may come.
    Opening,
    Open,
    /// Nothing more may come. Owed answers are still sent.
    Closing,
    /// The connection can be closed.
    Over,
}

/// Why a batch is not in the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The spool does not take the batch, or the task that waits for the spool is gone.
    NotSpooled,
    /// The relay stops.
    Stopping,
}

/// How a connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The peer closed the connection in good order.
    Clean,
    /// The connection broke, or the peer has not closed it in good order.
    Broken,
    /// The relay stops.
    Stopped,
}

/// The sender violates the protocol, or the rest of a message has not come in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The label for counters.
    pub name: &'static str,
    pub why: Cow<'static, str>,
}

/// The label of violations without a name of their own.
pub const UNNAMED: &str = "protocol";

impl Violation {
    /// A violation that counters do not distinguish from others.
    pub const fn new(why: &'static str) -> Self {
        Self { name: UNNAMED, why: Cow::Borrowed(why) }
    }
}

/// The protocol that senders speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Syslog as RFC 5424, RFC 3164 and Docker write it: nothing is answered.
    Syslog,
    /// Syslog messages, each with a number and an answer.
    Relp,
    /// Fluentd's Forward protocol: entries with keys and values. Entries are answered if the sender asks for it.
    Fluent,
    /// GELF: JSON objects. Nothing is answered.
    Gelf,
    /// Splunk's HTTP Event Collector: HTTP requests, each with an answer.
    Splunk,
    /// systemd's journal, uploaded in HTTP requests, each with an answer.
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

/// The limits of a session.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of a message that are kept.
    pub max_frame: usize,
    /// Maximum bytes of an array of messages.
    pub max_array: usize,
    /// Maximum bytes of a line from another logferry.
    pub max_line: usize,
    /// How long a session waits for the end of a message.
    pub frame_timeout: Duration,
    /// How long a session waits for `open`.
    pub open_timeout: Duration,
    /// Which senders' line numbers are trusted.
    pub proofs: Proofs,
    /// The kind of senders.
    pub senders: Senders,
}

/// A session of one of the protocols.
#[derive(Debug)]
pub enum AnySession {
    Syslog(SyslogSession),
    /// Boxed: most connections speak syslog and should not pay for the size of the others.
    Relp(Box<RelpSession>),
    Fluent(Box<FluentSession>),
    Gelf(Box<GelfSession>),
}

/// Calls a method of the current variant.
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
    /// The session of a new connection. `None`: the protocol is carried by HTTP requests.
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

    /// Whether the sender has sent something valid in its protocol.
    pub fn has_begun(&self) -> bool {
        match self {
            Self::Syslog(_) => true,
            Self::Relp(session) => session.has_begun(),
            Self::Fluent(session) => session.has_begun(),
            Self::Gelf(session) => session.has_begun(),
        }
    }

    /// The foreign protocol that the sender speaks, if it is a known one.
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

/// The deadline for the end of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct MessageDeadline {
    timeout: Duration,
    at: Option<Instant>,
}

impl MessageDeadline {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout, at: None }
    }

    /// Bytes were read. `unfinished`: a message has not ended. `another`: an earlier message has ended in these bytes.
    pub(super) fn after_feed(&mut self, unfinished: bool, another: bool, now: Instant) {
        self.at = match self.at {
            _ if !unfinished => None,
            // A deadline that has passed did so while nothing was read. That is not the sender's fault, so the time starts anew.
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
