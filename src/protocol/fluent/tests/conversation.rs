//! Helpers for tests of sessions: arrays as senders write them, and a sink that keeps the output of a session.

use std::time::{Duration, Instant};

use super::*;
use crate::protocol::relp::{NumberedStreams, Proofs};
use crate::protocol::session::{Ack, Bounds, Numbers, Session, Sink, Violation};
use crate::protocol::syslog::Senders;
use crate::record::LineOptions;

/// How long a session waits for the end of an array.
pub const TIMEOUT: Duration = Duration::from_secs(60);
/// How long a session waits for a PING.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest array, in bytes.
pub const MAX_ARRAY: usize = 1 << 20;
/// The sink refuses a message that contains this.
const REFUSED: &str = "refused";

/// A session, with a sender and a sink.
pub struct Talk {
    pub session: FluentSession,
    pub heard: Heard,
    pub answers: Vec<u8>,
    pub now: Instant,
}

/// The output of a session.
#[derive(Default)]
pub struct Heard {
    /// Texts, and whether each record says that it is a piece.
    pub messages: Vec<(Vec<u8>, bool)>,
    pub lines: Vec<String>,
    cut: usize,
    pub tickets: Vec<Ack>,
    /// Records since the last ticket.
    taken: usize,
    /// The names under which entries were refused.
    pub refused: Vec<&'static str>,
    pub answers_messages: usize,
    /// Chunks that another connection has put into the spool.
    pub known: Vec<Vec<u8>>,
    pub asked: Vec<Vec<u8>>,
    pub unconfirmed: Vec<Vec<u8>>,
}

pub fn bounds() -> Bounds {
    Bounds {
        max_frame: usize::MAX,
        max_array: MAX_ARRAY,
        max_line: 0,
        frame_timeout: TIMEOUT,
        open_timeout: OPEN_TIMEOUT,
        proofs: Proofs { streams: NumberedStreams::Any, nonce: [7; 32], signer: |_, _, _| None },
        senders: Senders::Anybody,
    }
}

impl Talk {
    pub fn new() -> Self {
        Self::with_max_frame(usize::MAX)
    }

    pub fn with_max_frame(max_frame: usize) -> Self {
        Self::of(FluentSession::new(Bounds { max_frame, ..bounds() }))
    }

    pub fn of(session: FluentSession) -> Self {
        Self { session, heard: Heard::default(), answers: Vec::new(), now: Instant::now() }
    }

    /// Feeds valid bytes in one read.
    #[track_caller]
    pub fn hears(&mut self, bytes: &[u8]) {
        self.reads(bytes).expect("the Forward protocol");
    }

    pub fn reads(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        self.session.feed(bytes, self.now, &mut self.heard, &mut self.answers)
    }

    /// Reports so many batches as committed, the oldest first.
    pub fn commits(&mut self, batches: usize) {
        let acks: Vec<_> = self.heard.tickets.drain(..batches).collect();
        acks.into_iter().for_each(|ack| self.session.committed(ack, &mut self.answers));
    }

    /// The answers since the last call.
    pub fn answered(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.answers)
    }

    pub fn messages(&self) -> Vec<(String, bool)> {
        self.heard.messages.iter().map(|(text, piece)| (String::from_utf8_lossy(text).into_owned(), *piece)).collect()
    }

    pub fn lines(&self) -> &[String] {
        &self.heard.lines
    }

    pub fn cut(&self) -> usize {
        self.heard.cut
    }
}

impl Heard {
    pub fn without_ticket(&self) -> usize {
        self.taken
    }

    /// The number of records without a ticket.
    pub fn hands_on(&mut self) -> usize {
        std::mem::take(&mut self.taken)
    }
}

impl Sink for Heard {
    fn frame(&mut self, _bytes: &[u8], _cut: bool) -> bool {
        unreachable!("it is no syslog")
    }

    fn record(&mut self, message: &impl ToRecord) -> bool {
        let settings = Settings { hostname: "relay-1".to_owned(), ..Settings::default() };
        let record = message.to_record(&settings, RECEIVED);
        let mut line = Vec::new();
        record.write_line(&LineOptions { sd_id: settings.sd_id.clone(), peer: false }, &mut line);
        let line = String::from_utf8_lossy(&line).into_owned();
        if line.contains(REFUSED) {
            return false;
        }
        let is_piece = record.fields.iter().any(|field| field.name == "partial_id");
        self.messages.push((record.message.unwrap_or_default().to_vec(), is_piece));
        self.cut += usize::from(message.is_cut());
        self.lines.push(line);
        self.taken += 1;
        true
    }

    fn refused(&mut self, why: Violation) {
        self.refused.push(why.name);
    }

    fn answers_messages(&mut self) {
        self.answers_messages += 1;
    }

    fn comes_again(&mut self, chunk: &[u8]) -> bool {
        self.asked.push(chunk.to_vec());
        self.known.iter().any(|known| known == chunk)
    }

    fn unconfirmed(&mut self, chunk: &[u8]) {
        self.unconfirmed.push(chunk.to_vec());
    }

    fn ticket(&mut self, ack: Ack, numbers: Option<Numbers<'_>>) {
        assert!(std::mem::take(&mut self.taken) > 0, "a ticket for nothing");
        assert!(numbers.is_none());
        self.tickets.push(ack);
    }
}

/// A record of texts.
pub fn event(pairs: &[(&str, &[u8])]) -> Vec<u8> {
    let mut map = vec![0x80 | u8::try_from(pairs.len()).expect("few")];
    for (key, value) in pairs {
        map.extend_from_slice(&str_(key));
        map.extend_from_slice(&bin(value));
    }
    map
}

/// The record of a piece, as Docker's driver writes it.
pub fn partial(id: &str, source: &str, ordinal: u32, is_last: bool, text: &[u8]) -> Vec<u8> {
    event(&[
        ("partial_message", b"true"),
        ("partial_id", id.as_bytes()),
        ("partial_ordinal", ordinal.to_string().as_bytes()),
        ("partial_last", is_last.to_string().as_bytes()),
        ("source", source.as_bytes()),
        ("log", text),
    ])
}

/// `[tag, 1, record, {chunk}?]`
pub fn message(tag: &str, record: &[u8], chunk: Option<&[u8]>) -> Vec<u8> {
    match chunk {
        None => array(&[&str_(tag), b"\x01", record]),
        Some(chunk) => array(&[&str_(tag), b"\x01", record, &asking(chunk)]),
    }
}

/// `[tag, [[1, record], …], {chunk}?]`
pub fn forward(tag: &str, records: &[Vec<u8>], chunk: Option<&[u8]>) -> Vec<u8> {
    let entries: Vec<Vec<u8>> = records.iter().map(|record| array(&[b"\x01", record])).collect();
    let entries = array(&entries.iter().map(Vec::as_slice).collect::<Vec<_>>());
    match chunk {
        None => array(&[&str_(tag), &entries]),
        Some(chunk) => array(&[&str_(tag), &entries, &asking(chunk)]),
    }
}

pub fn asking(chunk: &[u8]) -> Vec<u8> {
    [&b"\x81\xa5chunk"[..], &bin(chunk)].concat()
}

/// Bytes that a person can read.
pub fn text_of(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
