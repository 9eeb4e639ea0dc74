use std::ops::Range;

use super::refusals::MAX_IN_A_ROW;
use super::*;
use crate::protocol::nats::{Info, Login, SubjectTemplate};
use crate::record::{Rule, Severities};
use crate::shape::Shape;
use crate::spool::Chunk;

const PATIENCE: Duration = Duration::from_secs(10);
const WINDOW: usize = 100;
const MAX_PAYLOAD: usize = 500;
const INBOX: &str = "_INBOX.a";
const STORED: &str = r#"{"stream":"LOGS","seq":7}"#;
const FULL: &str =
    r#"{"error":{"code":503,"err_code":10077,"description":"maximum bytes exceeded"},"stream":"LOGS","seq":0}"#;
const TOO_LARGE: &str = r#"{"error":{"code":400,"err_code":10054,"description":"message size exceeds maximum allowed"},"stream":"LOGS","seq":0}"#;

fn chunk(numbers: Range<u64>, text: &str) -> FilteredChunk {
    let lines: Vec<Vec<u8>> =
        numbers.clone().map(|number| format!("<13>1 - - web - - - {number}{text}").into_bytes()).collect();
    FilteredChunk::new(
        Chunk::of(7, numbers.start, lines.iter().map(Vec::as_slice)),
        &Shape::of_rules(Vec::new(), "docker@32473"),
    )
}

/// A session, and what its server has received.
struct Session {
    delivery: NatsDelivery,
    refusals: Refusals,
    progress: Progress,
    now: Instant,
}

impl Session {
    fn opened() -> Self {
        let publishing = Publishing {
            subject: SubjectTemplate::new("logs.{app}"),
            sd_id: "docker@32473".to_owned(),
            stream: "0123/central".to_owned(),
            inbox: INBOX.to_owned(),
        };
        let info = Info { max_payload: Some(MAX_PAYLOAD), ..Info::default() };
        let now = Instant::now();
        let mut session = Self {
            delivery: NatsDelivery::new(publishing, info, (&Login::Nobody, false), (Some(WINDOW), PATIENCE), now),
            refusals: Refusals::default(),
            progress: Progress::default(),
            now,
        };
        assert!(session.says_out().ends_with("SUB _INBOX.a.* 1\r\nPING\r\n") && !session.delivery.is_open());
        session.hears("PONG\r\n").expect("it is open");
        assert!(session.delivery.is_open() && session.delivery.has_capacity());
        session
    }

    fn says_out(&mut self) -> String {
        let output = String::from_utf8(self.delivery.output().to_vec()).expect("text");
        self.delivery.flushed();
        output
    }

    /// What was published since the last call: the number in the answer's subject, and the `Nats-Msg-Id`.
    fn published(&mut self) -> Vec<(u64, String)> {
        let output = self.says_out();
        let one = |said: &str| {
            let number = said.split_once("_INBOX.a.").and_then(|(_, rest)| rest.split_once(' ')).expect("an inbox").0;
            let id = said.split_once("Nats-Msg-Id: ").and_then(|(_, rest)| rest.split_once("\r\n")).expect("an id").0;
            (number.parse().expect("a number"), id.to_owned())
        };
        output.split("HPUB ").skip(1).map(one).collect()
    }

    fn push(&mut self, numbers: Range<u64>) {
        self.push_with(numbers, "");
    }

    fn push_with(&mut self, numbers: Range<u64>, text: &str) {
        self.delivery.push(chunk(numbers, text), self.now, &mut self.refusals, &mut self.progress);
    }

    fn hears(&mut self, said: &str) -> Result<(), DeliveryError> {
        self.delivery.heard(said.as_bytes(), self.now, &mut self.refusals, &mut self.progress)
    }

    #[track_caller]
    fn answers(&mut self, number: u64, payload: &str) {
        self.hears(&format!("MSG {INBOX}.{number} 1 {}\r\n{payload}\r\n", payload.len())).expect("an answer");
    }

    fn has_no_stream(&mut self, number: u64) {
        self.hears(&format!("HMSG {INBOX}.{number} 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n")).expect("an answer");
    }

    fn timer(&mut self) -> Result<Option<Instant>, DeliveryError> {
        self.delivery.timer(self.now, &mut self.progress)
    }

    /// Lets time pass until something is due, and does it. Returns how long that took.
    #[track_caller]
    fn waits(&mut self) -> Duration {
        let next = self.timer().expect("it goes on").expect("something is due");
        let waited = next - self.now;
        self.now = next;
        waited
    }

    fn safe(&self) -> Option<u64> {
        self.progress.safe.map(|position| position.line)
    }
}

#[test]
fn answers_come_in_any_order_and_the_cursor_waits_for_the_first() {
    let mut session = Session::opened();
    session.push(10..13);
    let ids = |numbers: Range<u64>| {
        numbers.map(|number| (number - 10, format!("0123/central-7-{number}"))).collect::<Vec<_>>()
    };
    assert_eq!(session.published(), ids(10..13));
    session.answers(2, STORED);
    session.answers(1, STORED);
    assert_eq!((session.safe(), session.progress.delivered), (None, false));
    session.answers(0, STORED);
    assert_eq!((session.safe(), session.progress.delivered), (Some(13), true));
    assert!(session.delivery.is_settled() && session.delivery.awaits().is_none());
    // Late answers, answers to others, and messages that are no answers.
    for number in [0, 1, 3, 100] {
        session.answers(number, STORED);
    }
    session.hears("MSG _INBOX.b.3 1 0\r\n\r\nMSG x 1 0\r\n\r\n+OK\r\n").expect("nothing of ours");
    session.push(13..14);
    assert_eq!(session.published(), ids(13..14));
    session.answers(3, STORED);
    assert_eq!(session.safe(), Some(14));
}

#[test]
fn no_more_is_taken_than_the_window_has() {
    let mut session = Session::opened();
    session.push(0..WINDOW as u64);
    session.published();
    assert!(!session.delivery.has_capacity());
    session.answers(0, STORED);
    assert!(session.delivery.has_capacity());
}

/// Later lines go on. Each wait is twice the one before, until something is stored.
#[test]
fn what_could_not_be_stored_is_sent_again_under_its_number() {
    let mut session = Session::opened();
    session.push(0..3);
    session.published();
    session.answers(1, FULL);
    assert_eq!(session.progress.busy.take().as_deref(), Some("maximum bytes exceeded (10077)"));
    session.answers(0, STORED);
    session.answers(2, STORED);
    assert_eq!((session.safe(), session.delivery.awaits()), (Some(1), None), "it is us who wait");
    for seconds in [0.25, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0] {
        assert_eq!(session.published(), []);
        assert_eq!(session.waits().as_secs_f64(), seconds);
        session.timer().expect("it is sent");
        assert_eq!(session.published(), [(1, "0123/central-7-1".to_owned())]);
        session.answers(1, FULL);
    }
    assert_eq!(session.progress.resent, 10);
    session.waits();
    session.timer().expect("it is sent");
    session.answers(1, STORED);
    assert_eq!(session.safe(), Some(3));
}

/// A cluster that elects a leader has no stream for a moment.
#[test]
fn a_subject_without_a_stream_is_believed_at_the_third_time() {
    let mut session = Session::opened();
    session.push(0..2);
    for _ in 0..2 {
        session.has_no_stream(0);
        session.waits();
        session.timer().expect("it is sent again");
    }
    session.has_no_stream(0);
    assert!(!session.delivery.has_capacity());
    session.timer().expect("there are answers to come");
    session.answers(1, STORED);
    let stop = DeliveryError::Stop("no JetStream stream takes the subject logs.web".to_owned());
    assert_eq!(session.timer(), Err(stop));
    assert_eq!((session.safe(), session.progress.delivered), (None, false), "it is no sign that lines are taken");
}

#[test]
fn what_is_too_large_is_a_dead_letter_and_not_sent_where_the_server_says_its_limit() {
    let mut session = Session::opened();
    session.push(0..1);
    session.push_with(1..2, &"x".repeat(MAX_PAYLOAD));
    session.push(2..3);
    assert_eq!(session.published().len(), 2);
    session.answers(0, STORED);
    assert_eq!(session.safe(), Some(2));
    session.answers(2, TOO_LARGE);
    let whys: Vec<_> =
        session.progress.rejected.iter().map(|rejected| (rejected.line, rejected.why.as_str())).collect();
    assert_eq!((whys[0].0, whys[1]), (1, (2, "message size exceeds maximum allowed (10054)")));
    assert!(whys[0].1.ends_with("the server takes 500"), "{whys:?}");
    assert_eq!(session.progress.rejected[1].bytes, b"<13>1 - - web - - - 2");
    assert_eq!(session.safe(), Some(3));
}

#[test]
fn a_stream_that_takes_nothing_gets_no_more_dead_letters() {
    let mut session = Session::opened();
    session.push(0..200);
    (0..200).for_each(|number| session.answers(number, TOO_LARGE));
    assert_eq!(session.progress.rejected.len(), MAX_IN_A_ROW as usize - 1);
    assert!(matches!(session.timer(), Err(DeliveryError::Stop(why)) if why.contains("10054")));
}

/// A user's limit that INFO does not tell: the largest message in flight exceeds it.
#[test]
fn a_limit_is_learnt_from_the_end_of_a_session() {
    let mut session = Session::opened();
    session.push(0..3);
    session.push_with(3..4, "a long one");
    let ended = session.hears("-ERR 'Maximum Payload Violation'\r\n");
    assert_eq!(ended, Err(Broken::SessionEnded(Some("Maximum Payload Violation".to_owned())).into()));
    let refusals = session.refusals;
    let mut session = Session { refusals, ..Session::opened() };
    session.push(0..3);
    session.push_with(3..4, "a long one");
    assert_eq!(session.published().len(), 3);
    (0..3).for_each(|number| session.answers(number, STORED));
    assert_eq!((session.safe(), session.progress.rejected.len()), (Some(4), 1));
}

#[test]
fn a_server_that_answers_nothing_is_left() {
    let mut session = Session::opened();
    assert_eq!(session.timer(), Ok(None), "nothing is awaited");
    session.push(0..2);
    assert_eq!(session.waits(), PATIENCE);
    assert_eq!(session.timer(), Err(Broken::Silent(PATIENCE).into()));
}

/// A missing answer is noticed even while other answers come.
#[test]
fn a_message_that_was_lost_on_its_way_ends_the_session() {
    let mut session = Session::opened();
    session.push(0..20);
    for number in 1..20 {
        session.now += PATIENCE / 10;
        if session.timer().is_err() {
            assert_eq!(number, 10);
            return;
        }
        session.answers(number, STORED);
    }
    panic!("nothing was missed");
}

#[test]
fn a_server_that_leaves_is_left_when_it_has_answered() {
    let mut session = Session::opened();
    session.push(0..1);
    session.hears("INFO {\"ldm\":true}\r\nPING\r\n").expect("it goes on");
    assert!(session.says_out().ends_with("PONG\r\n"));
    assert!(!session.delivery.has_capacity());
    session.timer().expect("it waits for the answer");
    session.answers(0, STORED);
    assert_eq!(session.timer(), Err(Broken::Leaving.into()));
}

#[test]
fn what_is_refused_as_a_whole_stops_it() {
    for (says, stops) in [
        ("Authorization Violation", true),
        ("Permissions Violation for Publish to \"logs.web\"", true),
        ("Stale Connection", false),
        ("User Authentication Expired", false),
    ] {
        let error = Session::opened().hears(&format!("-ERR '{says}'\r\n")).expect_err(says);
        assert_eq!(matches!(&error, DeliveryError::Stop(why) if why == says), stops, "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[test]
fn lines_that_are_not_meant_are_passed() {
    let mut session = Session::opened();
    let rules =
        [Rule { severity: Severities::new(vec!["err or worse".to_owned()]).expect("severities"), ..Rule::default() }];
    let lines = [&b"<13>1 - - web - - - a"[..], b"<11>1 - - web - - - b", b"<13>1 - - web - - - c"];
    let chunk = |lines: &[&[u8]], first| {
        FilteredChunk::new(Chunk::of(7, first, lines.iter().copied()), &Shape::of_rules(rules.to_vec(), "docker@32473"))
    };
    let (refusals, progress) = (&mut session.refusals, &mut session.progress);
    session.delivery.push(chunk(&lines[..1], 0), session.now, refusals, progress);
    assert_eq!(progress.safe.map(|position| position.line), Some(1));
    session.delivery.push(chunk(&lines, 1), session.now, refusals, progress);
    assert_eq!(session.published(), [(0, "0123/central-7-2".to_owned())]);
    session.answers(0, STORED);
    assert_eq!(session.safe(), Some(4));
}
