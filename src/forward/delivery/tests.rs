use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use proptest::prelude::*;

use super::refusals::{MAX_IN_A_ROW, MAX_TRIES, RETRY_AFTER};
use super::*;
use crate::config::Framing;
use crate::forward::encode::Encoding;
use crate::forward::tcp::{Replay, TcpSample};
use crate::protocol::relp::properties::frames;
use crate::protocol::relp::{self, Command, Numbered, Numbering, Offers, Prover, statement};
use crate::record::{Format, Rule, Severities};
use crate::shape::Shape;
use crate::spool::Chunk;

const PATIENCE: Duration = Duration::from_secs(10);
const WINDOW: usize = 1000;
const NO: &str = "500 not this one";

/// Lines with these numbers, as the spool has them. Each line contains its number.
fn chunk(session: u32, numbers: Range<u64>) -> FilteredChunk {
    let lines: Vec<Vec<u8>> =
        numbers.clone().map(|number| format!("<13>1 - - - - - - {number}").into_bytes()).collect();
    FilteredChunk::new(
        Chunk::of(session, numbers.start, lines.iter().map(Vec::as_slice)),
        &Shape::of_rules(Vec::new(), "docker@32473"),
    )
}

/// The number in a line.
fn number(line: &[u8]) -> u64 {
    String::from_utf8_lossy(line).rsplit(' ').next().and_then(|word| word.parse().ok()).expect("a number")
}

/// A session, and what its collector has received.
struct Session {
    delivery: RelpDelivery,
    refusals: Refusals,
    progress: Progress,
    now: Instant,
    /// Frames without an answer: their number, and the lines in them.
    asked: Vec<(u32, Vec<u64>)>,
}

impl Session {
    /// An open session, with a collector that takes numbered frames or not.
    fn opened(numbered: bool) -> Self {
        let (now, name) =
            (Instant::now(), Numbering { stream: "0123/central".to_owned(), prover: None, is_told: true });
        let encoding =
            Encoding { format: Some(Format::Rfc5424), framing: None, escaped: false, sd_id: "docker@32473".to_owned() };
        let mut session = Self {
            delivery: RelpDelivery::new(encoding, name, (Some(WINDOW), PATIENCE), now),
            refusals: Refusals::default(),
            progress: Progress::default(),
            now,
            asked: Vec::new(),
        };
        let (open, _) = frames(session.delivery.output(), usize::MAX, []);
        assert_eq!((open[0].0, open[0].1), (1, Command::Open));
        assert!(!session.delivery.has_capacity());
        let offers =
            if numbered { String::from_utf8_lossy(&open[0].2).into_owned() } else { "commands=syslog".to_owned() };
        session.delivery.flushed();
        session.says(1, &format!("200 OK\n{offers}")).expect("it is opened");
        assert!(session.delivery.has_capacity());
        session
    }

    fn push(&mut self, lines: FilteredChunk) {
        self.delivery.push(lines, self.now, &self.refusals, &mut self.progress);
        self.sends();
    }

    /// The collector receives the output.
    fn sends(&mut self) {
        let (sent, _) = frames(self.delivery.output(), usize::MAX, []);
        for (txnr, command, data, _) in sent {
            let lines = match command {
                Command::Syslog => vec![number(&data)],
                Command::Numbered => {
                    let frame = Numbered::read(&data).expect("a numbered frame");
                    let lines: Vec<u64> = frame.lines().flatten().map(number).collect();
                    assert!(lines.iter().copied().eq(frame.first_line..frame.first_line + lines.len() as u64));
                    lines
                }
                _ => continue,
            };
            self.asked.push((txnr, lines));
        }
        self.delivery.flushed();
    }

    fn hears(&mut self, bytes: &[u8]) -> Result<(), DeliveryError> {
        let heard = self.delivery.heard(bytes, self.now, &mut self.refusals, &mut self.progress);
        self.sends();
        heard
    }

    fn says(&mut self, txnr: u32, text: &str) -> Result<(), DeliveryError> {
        let mut bytes = Vec::new();
        relp::append(txnr, "rsp", text.as_bytes(), &mut bytes);
        self.hears(&bytes)
    }

    /// The collector answers the frame with this line.
    fn answers(&mut self, line: u64, text: &str) {
        let at = self.asked.iter().position(|(_, lines)| lines.contains(&line)).expect("it was sent");
        let (txnr, _) = self.asked.remove(at);
        self.says(txnr, text).expect("an answer");
    }

    fn timer(&mut self) -> Result<Option<Instant>, DeliveryError> {
        let next = self.delivery.timer(self.now, &mut self.progress);
        self.sends();
        next
    }

    /// Waits until a refused line is sent again.
    fn waits_to_retry(&mut self) {
        let next = self.timer().expect("it answers").expect("something waits");
        assert!(next > self.now);
        self.now = next;
        self.timer().expect("it answers");
    }

    fn safe(&self) -> Option<u64> {
        self.progress.safe.map(|position| position.line)
    }

    fn rejected(&self) -> Vec<u64> {
        self.progress.rejected.iter().map(|rejected| rejected.line).collect()
    }

    fn has_asked(&self) -> Vec<u64> {
        self.asked.iter().flat_map(|(_, lines)| lines.clone()).collect()
    }
}

#[test]
fn a_refused_line_is_sent_again_and_then_a_dead_letter_while_the_rest_goes_on() {
    let mut session = Session::opened(false);
    session.push(chunk(7, 10..13));
    session.answers(10, "200 OK");
    session.answers(11, NO);
    session.answers(12, "200 OK");
    assert_eq!(session.safe(), Some(11), "the cursor stays before the refused one");
    session.push(chunk(7, 13..14));
    session.answers(13, "200 OK");
    for again in 1..MAX_TRIES {
        assert_eq!(session.has_asked(), [0; 0], "not before a moment has passed");
        assert_eq!(session.delivery.awaits(), None, "it is us who wait, not the collector");
        session.waits_to_retry();
        assert_eq!((session.has_asked(), session.progress.resent), (vec![11], again.into()));
        assert_eq!(session.rejected(), [0; 0]);
        session.answers(11, NO);
    }
    assert_eq!(session.safe(), Some(14));
    let letter = Rejected {
        session: 7,
        line: 11,
        reason: Reason::Refused,
        why: NO.to_owned(),
        bytes: b"<13>1 - - - - - - 11".to_vec(),
    };
    assert_eq!(session.progress.rejected, [letter]);
    assert!(session.delivery.is_settled() && session.timer() == Ok(None));
}

/// A collector refuses a line while its queue is full, as rsyslog does, and takes the line a moment later.
#[test]
fn a_line_that_is_taken_at_last_is_no_dead_letter() {
    let mut session = Session::opened(false);
    session.push(chunk(7, 0..1));
    for _ in 1..MAX_TRIES {
        session.answers(0, NO);
        session.waits_to_retry();
    }
    session.answers(0, "200 OK");
    assert_eq!((session.safe(), session.rejected()), (Some(1), vec![]));
}

/// Each line is sent without its number: the collector may have taken higher numbers, and would take the line for known.
#[test]
fn a_refused_batch_is_split_until_the_poison_stands_alone() {
    let mut session = Session::opened(true);
    session.push(chunk(7, 0..4));
    session.push(chunk(7, 4..8));
    assert_eq!(session.asked.len(), 2);
    session.answers(0, NO);
    session.answers(4, "200 OK");
    assert_eq!((session.has_asked(), session.safe()), (vec![0, 1, 2, 3], None));
    assert!(session.asked.iter().all(|(_, lines)| lines.len() == 1));
    for line in [0, 1, 3] {
        session.answers(line, "200 OK");
    }
    assert_eq!(session.safe(), Some(2));
    session.answers(2, NO);
    for _ in 1..MAX_TRIES {
        session.waits_to_retry();
        session.answers(2, NO);
    }
    assert_eq!((session.safe(), session.rejected()), (Some(8), vec![2]));
    // The lines that follow are numbered again.
    session.push(chunk(7, 8..10));
    assert_eq!(session.asked.len(), 1);
}

#[test]
fn a_collector_that_refuses_everything_stops_the_forward_and_gets_nothing_killed() {
    let mut session = Session::opened(false);
    let count = u64::from(MAX_IN_A_ROW) + 50;
    session.push(chunk(7, 0..count));
    (0..count - 1).for_each(|line| session.answers(line, NO));
    let (txnr, _) = session.asked.remove(0);
    assert_eq!(session.says(txnr, NO), Err(DeliveryError::Stop(NO.to_owned())), "not before the last had its chance");
    assert_eq!((session.safe(), session.rejected()), (None, vec![]));
    // The next session sends the lines again, and goes on when one is taken.
    let mut next = Session { refusals: std::mem::take(&mut session.refusals), ..Session::opened(false) };
    next.push(chunk(7, 0..3));
    next.answers(0, NO);
    next.answers(1, "200 OK");
    next.answers(2, NO);
    assert!(!next.refusals.are_a_stop());
    while next.rejected() != [0, 2] {
        next.waits_to_retry();
        next.has_asked().into_iter().for_each(|line| next.answers(line, NO));
    }
    assert_eq!(next.safe(), Some(3));
}

/// A hundred lines of one container, for example, that the collector refuses.
#[test]
fn many_refusals_are_no_stop_while_others_are_taken() {
    let mut session = Session::opened(false);
    let count = 2 * u64::from(MAX_IN_A_ROW);
    session.push(chunk(7, 0..count + 1));
    (0..count).for_each(|line| session.answers(line, NO));
    session.answers(count, "200 OK");
    assert!(!session.refusals.are_a_stop());
}

#[test]
fn lines_of_another_session_wait() {
    let mut session = Session::opened(true);
    session.push(chunk(7, 0..2));
    session.push(chunk(8, 2..4));
    assert!(!session.delivery.has_capacity());
    assert_eq!(session.has_asked(), [0, 1]);
    session.answers(0, "200 OK");
    assert_eq!(session.has_asked(), [2, 3]);
    session.answers(2, "200 OK");
    assert_eq!(session.safe(), Some(4));
    assert!(session.delivery.has_capacity());
}

#[test]
fn what_is_filtered_goes_with_what_was_sent_before_it() {
    let severity = Severities::new(vec!["err or worse".to_owned()]).expect("severities");
    let rules = [Rule { severity, ..Rule::default() }];
    let none = |numbers: Range<u64>| {
        let lines: Vec<Vec<u8>> = numbers.clone().map(|_| b"<15>1 - - - - - - debug".to_vec()).collect();
        FilteredChunk::new(
            Chunk::of(7, numbers.start, lines.iter().map(Vec::as_slice)),
            &Shape::of_rules(rules.to_vec(), "docker@32473"),
        )
    };
    let mut session = Session::opened(false);
    session.push(none(0..5));
    assert_eq!((session.safe(), session.progress.delivered), (Some(5), false), "nothing is sent for it");
    session.push(chunk(7, 5..6));
    session.push(none(6..9));
    session.answers(5, "200 OK");
    assert_eq!(session.safe(), Some(9));
    assert!(session.delivery.is_settled());
}

#[test]
fn a_collector_that_says_nothing_is_left() {
    let mut session = Session::opened(false);
    assert_eq!(session.timer(), Ok(None), "it owes nothing");
    session.push(chunk(7, 0..2));
    let silent_at = session.now + PATIENCE;
    assert_eq!(session.timer(), Ok(Some(silent_at)));
    session.now = silent_at - RETRY_AFTER;
    session.answers(1, "200 OK");
    assert_eq!(session.timer(), Ok(Some(session.now + PATIENCE)), "each answer is a sign of life");
    session.answers(0, NO);
    session.now += RETRY_AFTER;
    assert_eq!(session.timer(), Ok(Some(session.now + PATIENCE)), "it was asked just now");
    session.now += PATIENCE;
    assert_eq!(session.timer(), Err(Broken::Silent(PATIENCE).into()));
}

#[test]
fn no_more_is_on_its_way_than_a_window_or_some_bytes() {
    let mut session = Session::opened(false);
    session.push(chunk(7, 0..WINDOW as u64));
    assert!(!session.delivery.has_capacity());
    session.answers(0, "200 OK");
    assert!(session.delivery.has_capacity());
    let mut session = Session::opened(false);
    let long = vec![b'x'; 1 << 20];
    for line in 0..4 {
        assert!(session.delivery.has_capacity());
        let lines = FilteredChunk::new(Chunk::of(7, line, [&long[..]]), &Shape::of_rules(Vec::new(), "docker@32473"));
        session.delivery.push(lines, session.now, &session.refusals, &mut session.progress);
        session.delivery.flushed();
    }
    assert!(!session.delivery.has_capacity());
    session.says(2, "200 OK").expect("an answer");
    assert!(session.delivery.has_capacity());
}

#[test]
fn what_is_no_session_is_said() {
    let said = |bytes: &[u8]| {
        let mut session = Session::opened(false);
        session.push(chunk(7, 0..2));
        let error = session.hears(bytes).expect_err("it is over");
        (error.to_string(), session.safe())
    };
    let ended = "the collector ended the session".to_owned();
    assert_eq!(said(b"0 serverclose 0\n"), (ended.clone(), None));
    assert_eq!(said(b"2 rsp 6 200 OK\n0 serverclose 0\n"), (ended, Some(1)), "what came before counts");
    assert_eq!(said(b"9 rsp 6 200 OK\n").0, "the collector answered what nobody asked (number 9)");
    assert_eq!(said(b"2 rsp 6 200 OK\n2 rsp 6 200 OK\n").0, "the collector answered what nobody asked (number 2)");
    assert_eq!(said(b"2 syslog 1 x\n").0, "the collector sends commands instead of answers");
    assert_eq!(said(b"HTTP/1.1 400 Bad Request\r\n").0, "this is no RELP: a transaction number");
}

#[test]
fn a_session_is_opened_and_closed() {
    let encoding =
        Encoding { format: Some(Format::Json), framing: None, escaped: false, sd_id: "docker@32473".to_owned() };
    let now = Instant::now();
    let mut delivery = RelpDelivery::new(
        encoding,
        Numbering { stream: "0123/central".to_owned(), prover: None, is_told: true },
        (Some(WINDOW), PATIENCE),
        now,
    );
    let (open, _) = frames(delivery.output(), usize::MAX, []);
    assert!(!String::from_utf8_lossy(&open[0].2).contains("stream="), "what is written anew has no number");
    delivery.flushed();
    let (mut refusals, mut progress) = (Refusals::default(), Progress::default());
    let mut hears =
        |delivery: &mut RelpDelivery, bytes: &[u8]| delivery.heard(bytes, now, &mut refusals, &mut progress);
    for byte in b"1 rsp 6 200 OK" {
        hears(&mut delivery, &[*byte]).expect("a piece of an answer");
        assert!(!delivery.is_open());
    }
    hears(&mut delivery, b"\n").expect("the answer");
    assert!(delivery.is_open());
    delivery.goodbye();
    assert_eq!(delivery.output(), b"2 close 0\n");
    hears(&mut delivery, b"2 rsp 6 200 OK\n0 serverclose 0\n").expect("the goodbye");
    assert!(delivery.is_over() && progress.is_empty());
}

/// Makes signatures from the signed statement alone.
struct Signs;

impl Prover for Signs {
    fn key(&self) -> [u8; 32] {
        [7; 32]
    }

    fn sign(&self, statement: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.iter_mut().zip(statement.iter().rev()).for_each(|(signed, byte)| *signed = *byte);
        signature
    }
}

fn proves() -> RelpDelivery {
    let encoding =
        Encoding { format: Some(Format::Rfc5424), framing: None, escaped: false, sd_id: "docker@32473".to_owned() };
    let numbering = Numbering { stream: "0123/central".to_owned(), prover: Some(Arc::new(Signs)), is_told: true };
    RelpDelivery::new(encoding, numbering, (Some(WINDOW), PATIENCE), Instant::now())
}

/// The frames for the collector.
fn said(delivery: &mut RelpDelivery) -> Vec<(Command, Vec<u8>)> {
    let (sent, _) = frames(delivery.output(), usize::MAX, []);
    delivery.flushed();
    sent.into_iter().map(|(_, command, data, _)| (command, data)).collect()
}

fn hears(delivery: &mut RelpDelivery, txnr: u32, says: &str) -> Result<(), DeliveryError> {
    let mut bytes = Vec::new();
    relp::append(txnr, "rsp", says.as_bytes(), &mut bytes);
    delivery.heard(&bytes, Instant::now(), &mut Refusals::default(), &mut Progress::default())
}

/// Pushes lines, and returns the command of the first frame.
fn sends(delivery: &mut RelpDelivery) -> Command {
    delivery.push(chunk(7, 0..2), Instant::now(), &Refusals::default(), &mut Progress::default());
    said(delivery)[0].0
}

#[test]
fn who_numbers_the_lines_is_proven_to_who_asks() {
    let mut delivery = proves();
    let open = Offers::read(&said(&mut delivery)[0].1);
    assert_eq!((open.key, open.proof), (Some([7; 32]), None));
    let nonce = [9; 32];
    let mut answer = b"200 OK\n".to_vec();
    Offers { stream: open.stream.clone(), nonce: Some(nonce), ..Offers::default() }.write(&mut answer);
    hears(&mut delivery, 1, &String::from_utf8_lossy(&answer)).expect("an answer");
    assert!(!delivery.is_open());
    let (command, data) = said(&mut delivery).remove(0);
    let proof = Offers::read(&data);
    assert_eq!(command, Command::Open);
    assert_eq!(proof.proof, Some(Signs.sign(&statement(&nonce, "0123/central"))));
    assert_eq!((proof.key, proof.stream), (open.key, open.stream));
    hears(&mut delivery, 2, "200 OK\ncommands=syslog,numbered\nstream=0123/central").expect("an answer");
    assert!(delivery.is_open());
    assert_eq!(sends(&mut delivery), Command::Numbered);
}

#[test]
fn a_collector_of_before_asks_for_no_proof() {
    for (offers, command) in [
        ("commands=syslog,numbered\nstream=0123/central", Command::Numbered),
        ("commands=syslog", Command::Syslog),
        ("", Command::Syslog),
    ] {
        let mut delivery = proves();
        said(&mut delivery);
        hears(&mut delivery, 1, &format!("200 OK\n{offers}")).expect("an answer");
        assert_eq!(sends(&mut delivery), command, "{offers}");
    }
}

#[test]
fn a_session_that_is_refused_says_why() {
    let encoding =
        Encoding { format: Some(Format::Rfc5424), framing: None, escaped: false, sd_id: "docker@32473".to_owned() };
    let now = Instant::now();
    let mut delivery = RelpDelivery::new(
        encoding,
        Numbering { stream: "0123/central".to_owned(), prover: None, is_told: true },
        (Some(WINDOW), PATIENCE),
        now,
    );
    let refused = delivery.heard(b"1 rsp 6 500 no\n", now, &mut Refusals::default(), &mut Progress::default());
    assert_eq!(refused.expect_err("it is refused").to_string(), "RELP's open was answered with: 500 no");
}

/// Answers to some of ten frames, out of order. Some of them refuse.
fn answers_of_ten() -> Vec<u8> {
    let mut bytes = Vec::new();
    for (txnr, text) in [(3, "200 OK"), (2, NO), (4, "200 OK"), (6, "500"), (5, "200 OK"), (7, NO), (11, "200 OK")] {
        relp::append(txnr, "rsp", text.as_bytes(), &mut bytes);
    }
    relp::append(0, "serverclose", b"", &mut bytes);
    bytes
}

#[test]
fn answers_count_wherever_they_are_cut() {
    let bytes = answers_of_ten();
    let after = |pieces: [&[u8]; 3]| {
        let mut session = Session::opened(false);
        session.push(chunk(7, 0..10));
        let start = session.now;
        let heard = pieces.map(|piece| session.hears(piece)).into_iter().find(Result::is_err);
        let next = session.timer().expect("it answers").map(|next| next - start);
        (heard, session.safe(), session.rejected(), session.delivery.awaits(), next)
    };
    let whole = after([&bytes, b"", b""]);
    assert_eq!(whole.0, Some(Err(Broken::SessionEnded(None).into())));
    for first in 0..=bytes.len() {
        for second in first..=bytes.len() {
            assert_eq!(after([&bytes[..first], &bytes[first..second], &bytes[second..]]), whole);
        }
    }
}

/// A collector that ends each session at the frame with line 123, with a reason or without. The refusals go on to the next
/// session.
fn ends_at_123(numbered: bool, why: &[u8]) -> (Vec<usize>, Vec<(u64, String)>) {
    let (mut safe, mut sizes, mut rejected, mut refusals) = (0, Vec::new(), Vec::new(), Refusals::default());
    for _ in 0..30 {
        let mut session = Session { refusals, ..Session::opened(numbered) };
        session.push(chunk(7, safe..1000));
        while let Some((txnr, lines)) = session.asked.first().cloned() {
            if lines.contains(&123) {
                sizes.push(session.asked.iter().map(|(_, lines)| lines.len()).sum());
                break;
            }
            session.asked.remove(0);
            session.says(txnr, "200 OK").expect("an answer");
        }
        let is_over = session.asked.is_empty();
        if !is_over {
            let mut ends = Vec::new();
            relp::append(0, "serverclose", why, &mut ends);
            let ended = session.hears(&ends).expect_err("it ends the session").to_string();
            assert!(ended.ends_with(&*String::from_utf8_lossy(why)), "{ended}");
            session.delivery.failed(&mut session.refusals);
        }
        rejected.extend(session.progress.rejected.drain(..).map(|dead| (dead.line, dead.why)));
        safe = session.safe().unwrap_or(safe);
        refusals = session.refusals;
        if is_over {
            assert_eq!(safe, 1000);
            return (sizes, rejected);
        }
    }
    (sizes, rejected)
}

#[test]
fn what_ends_sessions_is_cut_down_to_the_line_that_does() {
    let (sizes, rejected) = ends_at_123(true, b"numbered lines that nobody can read");
    // The lines in flight each time: twice all of them, then at most an eighth of a frame, and so on down to one line.
    assert!(sizes[0] == sizes[1] && sizes[2] > 1 && sizes[2] <= sizes[1] / 8 && sizes[3] <= sizes[2] / 8, "{sizes:?}");
    let alone = sizes.iter().filter(|size| **size == 1).count();
    assert!(alone >= MAX_TRIES as usize && sizes.len() < 10, "{sizes:?}");
    assert_eq!(rejected.len(), 1);
    assert_eq!(rejected[0].0, 123);
    assert!(rejected[0].1.contains("nobody can read"), "{rejected:?}");
}

/// No line is to blame when a network breaks.
#[test]
fn a_session_that_ends_without_a_word_makes_no_dead_letter() {
    for numbered in [true, false] {
        let (sizes, rejected) = ends_at_123(numbered, b"");
        assert_eq!((sizes.len(), rejected), (30, Vec::new()));
        assert_eq!(sizes[29], 1, "{sizes:?}");
    }
}

/// There are no answers: lines that the peer's kernel has acknowledged count, and are kept for a while.
#[test]
fn plain_syslog_goes_by_what_is_acknowledged() {
    const KEPT_FOR: Duration = Duration::from_secs(30);
    let framing = Some(Framing::Newline);
    let encoding =
        Encoding { format: Some(Format::Rfc5424), framing, escaped: false, sd_id: "docker@32473".to_owned() };
    let start = Instant::now();
    let replay = Replay { bytes: 1 << 16, time: KEPT_FOR, limit: 1 << 24 };
    let mut delivery = SyslogDelivery::new(encoding, replay, start);
    let after = |delivery: &mut SyslogDelivery, acknowledged: u64, now: Instant| {
        let mut progress = Progress::default();
        delivery.acknowledged(&TcpSample { acknowledged, ..TcpSample::default() }, now, &mut progress);
        [progress.acknowledged, progress.safe].map(|position| position.map(|position| position.line))
    };
    assert!(delivery.has_capacity() && !delivery.wants_sample());
    delivery.push(&chunk(7, 0..2), &mut Progress::default());
    assert_eq!(delivery.output(), b"<13>1 - - - - - - 0\n<13>1 - - - - - - 1\n");
    assert!(!delivery.has_capacity() && delivery.wants_sample());
    assert_eq!(delivery.awaits(), Some(0));
    let bytes = delivery.output().len() as u64;
    delivery.flushed(bytes);
    assert!(delivery.has_capacity() && delivery.output().is_empty());
    assert_eq!(after(&mut delivery, bytes - 1, start), [None, None]);
    assert_eq!(delivery.awaits(), Some(bytes - 1));
    assert_eq!(after(&mut delivery, bytes, start), [Some(2), None], "acknowledged, but it may not be read");
    assert_eq!(delivery.awaits(), None);
    assert_eq!(delivery.look_again(start), Some(start + KEPT_FOR));
    assert_eq!(after(&mut delivery, bytes, start + KEPT_FOR), [None, Some(2)]);
    // The collector closes its side in answer to our goodbye, so it has read everything.
    delivery.push(&chunk(7, 2..3), &mut Progress::default());
    delivery.flushed(2 * bytes);
    let mut progress = Progress::default();
    delivery.closed(true, start, &mut progress);
    assert_eq!((progress.delivered, progress.safe.map(|position| position.line)), (true, Some(3)));
}

/// The progress of a slow link is known to the second, and small batches do not hold up a fast one.
#[test]
fn batches_of_plain_syslog_are_what_a_slow_link_carries_in_a_second() {
    let encoding = Encoding {
        format: Some(Format::Rfc5424),
        framing: Some(Framing::Newline),
        escaped: false,
        sd_id: "docker@32473".to_owned(),
    };
    let start = Instant::now();
    let replay = Replay { bytes: 1 << 16, time: PATIENCE, limit: 1 << 24 };
    let mut delivery = SyslogDelivery::new(encoding, replay, start);
    let acknowledges = |delivery: &mut SyslogDelivery, acknowledged: u64, after: Duration| {
        let sample = TcpSample { acknowledged, ..TcpSample::default() };
        delivery.acknowledged(&sample, start + after, &mut Progress::default());
        delivery.batch_bytes()
    };
    const FULL: usize = 64 << 10;
    let second = Duration::from_secs(1);
    delivery.push(&chunk(7, 0..2), &mut Progress::default());
    // The kernel does not take the batch.
    assert_eq!(acknowledges(&mut delivery, 0, Duration::ZERO), FULL);
    assert_eq!(acknowledges(&mut delivery, 5_000, second / 2), FULL, "too early to tell");
    assert_eq!(acknowledges(&mut delivery, 10_000, second), 10_000);
    assert_eq!(acknowledges(&mut delivery, 10_100, second * 2), 4 << 10);
    assert_eq!(acknowledges(&mut delivery, 10_010_000, second * 3), FULL);
    assert_eq!(acknowledges(&mut delivery, 10_010_000, second * 4), 4 << 10);
    let bytes = delivery.output().len() as u64;
    delivery.flushed(bytes);
    assert_eq!(acknowledges(&mut delivery, 10_010_000, second * 5), FULL);
}

/// What a collector does: with which of the unanswered frames, and whether it takes the frame.
fn deeds() -> impl Strategy<Value = Vec<(prop::sample::Index, bool)>> {
    prop::collection::vec((any::<prop::sample::Index>(), prop::bool::weighted(0.6)), 0..200)
}

proptest! {
    /// The cursor passes lines that were taken and dead letters, and nothing else. In the end it has passed everything.
    #[test]
    fn whatever_a_collector_answers_nothing_is_passed_over(
        numbered in any::<bool>(),
        sizes in prop::collection::vec(1..6u64, 1..12),
        deeds in deeds(),
    ) {
        let mut session = Session::opened(numbered);
        let (mut end, mut safe) = (0, 0);
        let (mut taken, mut rejected) = (BTreeSet::new(), BTreeSet::new());
        for size in sizes {
            prop_assert!(session.delivery.has_capacity());
            session.push(chunk(7, end..end + size));
            end += size;
        }
        // In the end the collector takes everything.
        let deeds = deeds.into_iter().map(Some).chain([None; 1000]);
        for deed in deeds {
            if session.asked.is_empty() {
                if session.delivery.is_settled() {
                    break;
                }
                session.waits_to_retry();
                continue;
            }
            let (at, takes) = deed.map_or((0, true), |(which, takes)| (which.index(session.asked.len()), takes));
            let (txnr, lines) = session.asked.remove(at);
            if takes {
                taken.extend(lines.iter().copied());
            }
            prop_assert_eq!(session.says(txnr, if takes { "200 OK" } else { NO }), Ok(()));
            for letter in std::mem::take(&mut session.progress.rejected) {
                prop_assert_eq!(number(&letter.bytes), letter.line);
                prop_assert!(rejected.insert(letter.line), "a dead letter is written once");
            }
            let now_safe = session.safe().unwrap_or_default();
            prop_assert!(now_safe >= safe);
            safe = now_safe;
            prop_assert!((0..safe).all(|line| taken.contains(&line) || rejected.contains(&line)));
        }
        prop_assert_eq!(safe, end);
        prop_assert!(taken.is_disjoint(&rejected), "what was taken is no dead letter");
    }
}
