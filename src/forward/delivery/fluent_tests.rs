use std::ops::Range;

use super::fluent::FluentDelivery;
use super::refusals::MAX_TRIES;
use super::*;
use crate::protocol::fluent::properties::arrays;
use crate::protocol::fluent::{Batch, Limits, Packer, append_ack};
use crate::record::{Rule, Severities};
use crate::shape::Shape;
use crate::spool::Chunk;

const PATIENCE: Duration = Duration::from_secs(10);
const BATCH: usize = 1 << 16;

/// Lines with these numbers, of two containers in turn. Each line contains its number.
fn chunk(session: u32, numbers: Range<u64>) -> FilteredChunk {
    let line = |number: u64| format!("<13>1 - - app-{} - - - {number}", number % 2).into_bytes();
    let lines: Vec<Vec<u8>> = numbers.clone().map(line).collect();
    FilteredChunk::new(
        Chunk::of(session, numbers.start, lines.iter().map(Vec::as_slice)),
        &Shape::of_rules(Vec::new(), "docker@32473"),
    )
}

/// A connection, and what its collector has received.
struct Connection {
    delivery: FluentDelivery,
    progress: Progress,
    now: Instant,
    /// Chunks without an answer: their names and the lines in them.
    asked: Vec<(Vec<u8>, Vec<u64>)>,
}

impl Connection {
    fn new() -> Self {
        let packer = Packer::new("{app}".parse().expect("a template"), "docker@32473".to_owned(), "0123/x".to_owned());
        let now = Instant::now();
        let delivery = FluentDelivery::new(packer, None, (BATCH, PATIENCE), now);
        Self { delivery, progress: Progress::default(), now, asked: Vec::new() }
    }

    fn push(&mut self, lines: FilteredChunk, refusals: &Refusals) {
        assert!(self.delivery.has_capacity());
        self.delivery.push(lines, self.now, refusals, &mut self.progress);
        self.sends();
    }

    /// The collector receives the output.
    fn sends(&mut self) {
        for array in arrays(self.delivery.output(), usize::MAX, []).0 {
            let mut inflated = Vec::new();
            let limits = Limits { inflated: 0, lines: usize::MAX };
            let batch = Batch::read(&array, limits, &mut inflated).expect("a chunk");
            let number = |entry: crate::protocol::fluent::Entry<'_>| {
                let (_, text) = entry.pairs().next().expect("a text");
                String::from_utf8_lossy(text.text().expect("a text")).parse().expect("a number")
            };
            let lines = batch.entries().map(|entry| number(entry.expect("an entry"))).collect();
            self.asked.push((batch.chunk.expect("a name").to_vec(), lines));
        }
        self.delivery.flushed();
    }

    fn hears(&mut self, bytes: &[u8], refusals: &mut Refusals) -> Result<(), DeliveryError> {
        let heard = self.delivery.heard(bytes, self.now, refusals, &mut self.progress);
        self.sends();
        heard
    }

    /// The collector acknowledges the chunk with this line.
    fn answers(&mut self, line: u64, refusals: &mut Refusals) {
        let at = self.asked.iter().position(|(_, lines)| lines.contains(&line)).expect("it was sent");
        let mut answer = Vec::new();
        append_ack(&self.asked.remove(at).0, &mut answer);
        self.hears(&answer, refusals).expect("an answer");
    }

    fn ends(mut self, refusals: &mut Refusals) -> Progress {
        self.delivery.failed(self.now, refusals, &mut self.progress);
        self.delivery.left(refusals);
        self.progress
    }

    fn safe(&self) -> Option<u64> {
        self.progress.safe.map(|position| position.line)
    }

    fn lines(&self) -> Vec<Vec<u64>> {
        self.asked.iter().map(|(_, lines)| lines.clone()).collect()
    }
}

#[test]
fn lines_are_delivered_when_each_of_their_chunks_is_acknowledged() {
    let (mut connection, mut refusals) = (Connection::new(), Refusals::default());
    for first in [10, 14, 18, 22] {
        connection.push(chunk(7, first..first + 4), &refusals);
    }
    assert!(!connection.delivery.has_capacity(), "the window is full");
    assert_eq!(connection.lines()[..3], [vec![10, 12], vec![11, 13], vec![14, 16]]);
    connection.answers(14, &mut refusals);
    connection.answers(15, &mut refusals);
    assert!(connection.delivery.has_capacity());
    connection.answers(11, &mut refusals);
    assert_eq!(connection.safe(), None, "half of the first ones is missing");
    connection.answers(10, &mut refusals);
    assert_eq!(connection.safe(), Some(18));
    for line in [18, 19, 22, 23] {
        connection.answers(line, &mut refusals);
    }
    assert_eq!((connection.safe(), connection.delivery.is_settled()), (Some(26), true));
    assert_eq!(connection.delivery.awaits(), None);
}

#[test]
fn what_is_filtered_is_passed_with_what_is_before_it() {
    let (mut connection, mut refusals) = (Connection::new(), Refusals::default());
    let filtered = |numbers: Range<u64>| {
        let severity = Severities::new(vec!["warning or worse".to_owned()]).expect("a rule");
        let rule = Rule { severity, ..Rule::default() };
        let lines: Vec<Vec<u8>> = numbers.clone().map(|_| b"<15>1 - - - - - - x".to_vec()).collect();
        FilteredChunk::new(
            Chunk::of(7, numbers.start, lines.iter().map(Vec::as_slice)),
            &Shape::of_rules(vec![rule], "docker@32473"),
        )
    };
    connection.push(filtered(5..10), &refusals);
    assert_eq!(connection.safe(), Some(10));
    connection.push(chunk(7, 10..12), &refusals);
    connection.push(filtered(12..20), &refusals);
    connection.answers(10, &mut refusals);
    connection.answers(11, &mut refusals);
    assert_eq!(connection.safe(), Some(20));
}

/// The names do not depend on how many lines there are to send by then.
#[test]
fn chunks_that_come_again_have_the_same_names() {
    let (mut connection, mut refusals) = (Connection::new(), Refusals::default());
    connection.push(chunk(7, 10..14), &refusals);
    connection.push(chunk(7, 14..15), &refusals);
    connection.push(chunk(7, 15..20), &refusals);
    connection.answers(10, &mut refusals);
    connection.answers(11, &mut refusals);
    let asked = connection.asked.clone();
    assert_eq!(connection.ends(&mut refusals).safe.map(|position| position.line), Some(14));
    let mut again = Connection::new();
    again.push(chunk(7, 14..100), &refusals);
    assert_eq!(again.asked[..3], asked);
    assert_eq!(again.asked.len(), 5, "and two with the rest");
    // Another session of the spool.
    let mut other = Connection::new();
    other.push(chunk(8, 14..100), &refusals);
    assert!(asked.iter().all(|(name, _)| other.asked.iter().all(|(other, _)| other != name)));
}

#[test]
fn a_collector_that_is_silent_is_left() {
    let (mut connection, mut refusals) = (Connection::new(), Refusals::default());
    assert_eq!(connection.delivery.timer(connection.now), Ok(None));
    connection.push(chunk(7, 0..4), &refusals);
    connection.now += PATIENCE / 2;
    connection.answers(0, &mut refusals);
    let silent_at = connection.now + PATIENCE;
    assert_eq!(connection.delivery.timer(silent_at - Duration::from_millis(1)), Ok(Some(silent_at)));
    assert_eq!(connection.delivery.timer(silent_at), Err(Broken::Silent(PATIENCE).into()));
}

#[test]
fn what_nobody_asked_ends_the_connection() {
    let broken = |bytes: &[u8]| {
        let (mut connection, mut refusals) = (Connection::new(), Refusals::default());
        connection.push(chunk(7, 0..4), &refusals);
        match connection.hears(bytes, &mut refusals) {
            Err(DeliveryError::Broken(broken)) => broken,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(broken(b"\x81\xa3ack\xa1x"), Broken::UnknownChunk);
    assert_eq!(broken(b"\x92\xa4HELO\x81\xa5nonce\xa4abcd"), Broken::AsksForKey);
    assert_eq!(broken(b"HTTP/1.1 400"), BadAnswer.into());
}

/// The line is found in smaller and smaller parcels. It is a dead letter when it has ended connections that took another line.
#[test]
fn a_line_that_ends_connections_is_found_and_given_up() {
    let mut refusals = Refusals::default();
    let (mut cursor, mut delivered, mut connections) = (100, Vec::new(), 0);
    let poison = 777;
    let rejected = loop {
        connections += 1;
        assert!(connections < 20, "{delivered:?}");
        let mut connection = Connection::new();
        connection.push(chunk(7, cursor..1000), &refusals);
        while let Some((_, lines)) = connection.asked.first().filter(|(_, lines)| !lines.contains(&poison)).cloned() {
            connection.answers(lines[0], &mut refusals);
            delivered.extend(lines);
        }
        let progress = connection.ends(&mut refusals);
        cursor = progress.safe.map_or(cursor, |position| position.line);
        if let Some(rejected) = progress.rejected.front() {
            break rejected.clone();
        }
        assert!(cursor <= poison);
    };
    assert_eq!((rejected.session, rejected.line, cursor), (7, poison, poison + 1));
    assert!(rejected.bytes.ends_with(b" 777") && rejected.why.contains("ends each connection"));
    let twice = delivered.iter().filter(|line| **line == poison + 1).count();
    assert!(twice >= MAX_TRIES as usize, "the line behind it has shown that the collector takes lines");
    assert!((100..777).all(|line| delivered.contains(&line)) && !delivered.contains(&poison));
    let mut connection = Connection::new();
    connection.push(chunk(7, cursor..1000), &refusals);
    while let Some((_, lines)) = connection.asked.first().cloned() {
        connection.answers(lines[0], &mut refusals);
    }
    assert_eq!(connection.safe(), Some(1000), "the rest goes on");
}

/// No line is to blame for the end of such a connection.
#[test]
fn a_collector_that_takes_nothing_costs_no_line() {
    let mut refusals = Refusals::default();
    for _ in 0..1000 {
        let mut connection = Connection::new();
        connection.push(chunk(7, 100..200), &refusals);
        let progress = connection.ends(&mut refusals);
        assert!(progress.safe.is_none() && progress.rejected.is_empty());
    }
    let mut connection = Connection::new();
    connection.push(chunk(7, 100..200), &refusals);
    while let Some((_, lines)) = connection.asked.first().cloned() {
        connection.answers(lines[0], &mut refusals);
    }
    assert_eq!(connection.safe(), Some(200));
}

/// Dead letters get new numbers each time they are sent again. A collector that looks at names must not confuse them.
#[test]
fn dead_letters_have_names_of_their_own() {
    let names = |numbers: [u64; 2]| {
        let lines = chunk(7, 0..2);
        let letters: Vec<Vec<u8>> = lines.lines().map(|(line, _)| line.to_vec()).collect();
        let chunk = Chunk::of(7, 0, letters.iter().map(Vec::as_slice));
        let mut connection = Connection::new();
        let ids = numbers.map(|number| (7, number)).to_vec();
        connection.push(
            FilteredChunk::resent(chunk, ids, &Shape::of_rules(Vec::new(), "docker@32473")),
            &Refusals::default(),
        );
        connection.asked.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(names([100, 200]), names([100, 200]));
    let all: Vec<_> = [[0, 1], [100, 200], [300, 400]].into_iter().flat_map(names).collect();
    let mut known = all.clone();
    known.sort();
    known.dedup();
    assert_eq!(known.len(), all.len(), "{all:?}");
}
