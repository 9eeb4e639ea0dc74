//! Reads the input as a sender of each protocol sends it, with the sessions and readers of the listeners.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use super::explanation::{Explainer, Finding};
use crate::config::Limits;
use crate::listen;
use crate::protocol::framing::{self, Framer};
use crate::protocol::gelf::{self, Chunks, Datagrams};
use crate::protocol::inflate::{is_gzip, is_zlib};
use crate::protocol::journal::ExportReader;
use crate::protocol::session::{Ack, AnySession, Closed, Numbers, Protocol, Session, Sink, ToRecord, Violation};
use crate::protocol::splunk::{self, Body, Given, Post};
use crate::protocol::syslog::{Frame, Senders};
use crate::record::UnixMicros;

/// The protocol that the input is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ReadAs {
    /// Messages one after the other, by newline or octet count, as in TCP
    Syslog,
    /// The Forward protocol, of Docker's fluentd driver, Fluentd and Fluent Bit: msgpack
    Fluent,
    /// A datagram (JSON, gzip, zlib), or JSON objects one after the other
    Gelf,
    /// The body of a request to Splunk's HTTP Event Collector: JSON, or gzip
    Splunk,
    /// Journal Export Format, as of systemd-journal-upload and `journalctl -o export`
    Journal,
}

impl ReadAs {
    /// The kind of input that senders of this protocol send.
    pub fn of(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Syslog | Protocol::Relp => Self::Syslog,
            Protocol::Fluent => Self::Fluent,
            Protocol::Gelf => Self::Gelf,
            Protocol::Splunk => Self::Splunk,
            Protocol::Journal => Self::Journal,
        }
    }

    /// The name in JSON.
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Syslog => "syslog",
            Self::Fluent => "fluent",
            Self::Gelf => "gelf",
            Self::Splunk => "splunk",
            Self::Journal => "journal",
        }
    }
}

/// The input of a listener.
pub struct Input<'i> {
    pub bytes: &'i [u8],
    pub limits: &'i Limits,
    pub senders: Senders,
    pub received: UnixMicros,
}

impl Input<'_> {
    /// Calls `each` with all findings, in order.
    pub fn read(&self, as_what: ReadAs, explainer: &mut Explainer<'_>, each: &mut dyn FnMut(Finding)) {
        let mut to = Findings { as_what, received: self.received, explainer, each, has_refused: false };
        match as_what {
            ReadAs::Syslog => self.frames(&mut to),
            ReadAs::Fluent => self.session(Protocol::Fluent, &mut to),
            ReadAs::Gelf if self.is_gelf_datagram() => self.gelf_datagram(&mut to),
            ReadAs::Gelf => self.session(Protocol::Gelf, &mut to),
            ReadAs::Splunk => self.events(&mut to),
            ReadAs::Journal => self.entries(&mut to),
        }
    }

    /// Reads with a framer, which reports the framing of each message.
    fn frames(&self, to: &mut Findings<'_, '_>) {
        let mut framer = match self.senders {
            Senders::Anybody => Framer::new(self.limits.max_frame),
            Senders::Docker => Framer::of_docker(self.limits.max_frame),
        };
        let received = self.received;
        let mut on_frame = |framing::Found { bytes, cut, framing }: framing::Found<'_>| {
            let message = to.explainer.explain(&Frame { bytes, cut, received }, framing);
            (to.each)(Finding::Message(Box::new(message)));
        };
        framer.feed(self.bytes, &mut on_frame);
        framer.finish(&mut on_frame);
    }

    fn session(&self, protocol: Protocol, to: &mut Findings<'_, '_>) {
        let session = AnySession::new(protocol, listen::bounds(self.limits, self.senders));
        let mut session = session.expect("a protocol with sessions");
        let mut answers = Vec::new();
        let now = Instant::now();
        session.opened(now, &mut answers);
        match session.feed(self.bytes, now, to, &mut answers) {
            Ok(()) => {
                let is_unfinished = session.unfinished();
                session.closed(Closed::Clean, to);
                if is_unfinished && !to.has_refused {
                    to.refused(Violation { name: "unfinished", why: "the input ends inside a message".into() });
                }
            }
            Err(why) => {
                session.closed(Closed::Broken, to);
                to.refused(why);
            }
        }
    }

    fn is_gelf_datagram(&self) -> bool {
        Chunks::is_chunk(self.bytes) || is_gzip(self.bytes) || is_zlib(self.bytes)
    }

    fn gelf_datagram(&self, to: &mut Findings<'_, '_>) {
        let mut datagrams = Datagrams::new(self.limits.max_unfinished);
        let from = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        let taken = datagrams.take(from, self.bytes, Instant::now(), |json| {
            to.record(&gelf::Message::read(json)?.at_most(self.limits.max_frame));
            Ok(())
        });
        let missing = (datagrams.unfinished() > 0).then_some(gelf::Refused::Expired);
        if let Some(why) = taken.err().or(missing) {
            to.refused(why.into());
        }
    }

    fn events(&self, to: &mut Findings<'_, '_>) {
        let post = Post { is_raw: false, is_gzip: is_gzip(self.bytes), channel: None, given: Given::default() };
        let mut body = Body::new(post, listen::hec_limits(self.limits), self.senders);
        let mut take = |message: &splunk::Message<'_>| {
            to.record(message);
        };
        let mut read = body.feed(self.bytes, &mut take).map(|()| true);
        while let Ok(true) = read {
            read = body.finish(&mut take);
        }
        if let Err(why) = read {
            to.refused(Violation { name: why.name(), why: why.to_string().into() });
        }
    }

    fn entries(&self, to: &mut Findings<'_, '_>) {
        let mut reader = ExportReader::new(self.limits.max_frame);
        let read = reader.feed(self.bytes, &mut |entry| {
            to.record(&entry);
        });
        if let Err(why) = read.and_then(|()| reader.finish()) {
            to.refused(Violation { name: why.name(), why: why.to_string().into() });
        }
    }
}

/// Passes the findings of sessions and readers to the explainer.
struct Findings<'f, 'c> {
    as_what: ReadAs,
    received: UnixMicros,
    explainer: &'f mut Explainer<'c>,
    each: &'f mut dyn FnMut(Finding),
    has_refused: bool,
}

impl Sink for Findings<'_, '_> {
    /// Only syslog and RELP have frames.
    fn frame(&mut self, _bytes: &[u8], _cut: bool) -> bool {
        false
    }

    fn record(&mut self, message: &impl ToRecord) -> bool {
        let message = self.explainer.explain_record(message, self.as_what, self.received);
        (self.each)(Finding::Message(Box::new(message)));
        true
    }

    fn refused(&mut self, why: Violation) {
        self.has_refused = true;
        (self.each)(Finding::Refused(self.explainer.refuse(&why)));
    }

    fn ticket(&mut self, _ack: Ack, _numbers: Option<Numbers<'_>>) {}
}
