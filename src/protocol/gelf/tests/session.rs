//! A connection: its results for messages, and for other bytes, wherever they are cut.

use std::time::{Duration, Instant};

use crate::protocol::foreign::Foreign;
use crate::protocol::gelf::{GelfSession, MAX_JSON};
use crate::protocol::properties::any_cut;
use crate::protocol::relp::{NumberedStreams, Proofs};
use crate::protocol::session::{Ack, Bounds, Closed, Numbers, Session, Sink, ToRecord, Violation};
use crate::protocol::syslog::{Senders, Settings};
use crate::record::UnixMicros;

const MAX: usize = 16;
const TIMEOUT: Duration = Duration::from_secs(60);

/// The texts of messages, with `~` behind a text that is cut, and the reasons for which others are refused, in order.
#[derive(Default)]
struct Said(Vec<String>);

impl Sink for Said {
    fn frame(&mut self, bytes: &[u8], _: bool) -> bool {
        panic!("no frame of syslog: {}", bytes.escape_ascii());
    }

    fn record(&mut self, message: &impl ToRecord) -> bool {
        let settings = Settings::default();
        let record = message.to_record(&settings, UnixMicros(1_796_000_000_000_000));
        let text = String::from_utf8_lossy(record.message.unwrap_or_default()).into_owned();
        assert_eq!(record.cut, message.is_cut());
        self.0.push(text + if record.cut { "~" } else { "" });
        true
    }

    fn refused(&mut self, why: Violation) {
        self.0.push(why.name.to_owned());
    }

    fn ticket(&mut self, _: Ack, _: Option<Numbers<'_>>) {
        panic!("nobody answers");
    }
}

/// A session, its output, and the time.
struct Rig {
    session: GelfSession,
    said: Said,
    now: Instant,
}

impl Rig {
    fn new() -> Self {
        let proofs = Proofs { streams: NumberedStreams::Any, nonce: [7; 32], signer: |_, _, _| None };
        let (max_array, max_line) = (10_000, 1000);
        let (frame_timeout, open_timeout, senders) = (TIMEOUT, TIMEOUT, Senders::Anybody);
        let bounds = Bounds { max_frame: MAX, max_array, max_line, frame_timeout, open_timeout, proofs, senders };
        Self { session: GelfSession::new(bounds), said: Said::default(), now: Instant::now() }
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        let mut answers = Vec::new();
        let fed = self.session.feed(bytes, self.now, &mut self.said, &mut answers);
        assert!(answers.is_empty());
        fed
    }

    #[track_caller]
    fn takes(&mut self, bytes: &[u8]) {
        assert_eq!(self.feed(bytes), Ok(()), "{}", bytes.escape_ascii());
    }

    /// Moves the clock on.
    fn after(&mut self, seconds: u64) -> Option<Duration> {
        self.now += Duration::from_secs(seconds);
        self.session.timer(self.now, &mut self.said).expect("it goes on").map(|due| due - self.now)
    }

    #[track_caller]
    fn said(&mut self, expected: &[&str]) {
        assert_eq!(std::mem::take(&mut self.said.0), expected);
    }
}

fn message(text: &str) -> String {
    format!(r#"{{"short_message":"{text}"}}"#)
}

/// Messages of each kind, bad ones of each kind, and the bytes between them.
fn stream() -> (Vec<u8>, Vec<&'static str>) {
    let [first, cut, last] = ["first", "longer than sixteen bytes", "last"].map(message);
    let stream = format!("{first}\0{cut}\n[]\n\0{{\"a\":\"b\n{{}}\0not JSON\r\n{last}{{\"short");
    let said = vec![
        "first",
        "longer than sixt~",
        "no-object",
        "not-json",
        "no-short-message",
        "not-json",
        "last",
        "unfinished",
    ];
    (stream.into_bytes(), said)
}

#[test]
fn what_is_no_message_is_told_and_costs_nothing_else_wherever_the_stream_is_cut() {
    let (stream, expected) = stream();
    for first in 0..=stream.len() {
        for second in first..=stream.len() {
            let mut rig = Rig::new();
            for bytes in [&stream[..first], &stream[first..second], &stream[second..]] {
                rig.takes(bytes);
            }
            rig.session.closed(Closed::Clean, &mut rig.said);
            assert_eq!(rig.said.0, expected, "at {first}, {second}");
            assert!(!rig.session.unfinished() && rig.session.memory() == 0);
        }
    }
    // The general properties hold too, for every protocol.
    let now = Instant::now();
    (0..=stream.len()).step_by(7).for_each(|first| any_cut(&stream, MAX, &[first, 11], now));
}

#[test]
fn a_message_is_waited_for_as_long_as_it_may_take() {
    let mut rig = Rig::new();
    assert_eq!(rig.after(1000), None, "nothing is begun");
    rig.takes(b"{\"short_message\":");
    assert_eq!(rig.after(59), Some(Duration::from_secs(1)));
    // More bytes of a message do not extend its deadline. Its end does: the next message has its own deadline.
    rig.takes(b"\"a");
    assert_eq!(rig.after(0), Some(Duration::from_secs(1)));
    rig.takes(b"\"}{\"short_message\":\"");
    assert_eq!(rig.after(59), Some(Duration::from_secs(1)));
    rig.said(&["a"]);
    assert_eq!(rig.after(1), None);
    rig.said(&["given-up"]);
    assert_eq!((rig.session.memory(), rig.session.unfinished()), (0, true));
    // The rest is skipped and not reported again.
    rig.takes(b"b\"}\0{\"short_message\":\"c\"}");
    rig.said(&["c"]);
    assert_eq!((rig.after(1000), rig.session.unfinished()), (None, false));
}

#[test]
fn without_memory_a_message_is_given_up_and_the_next_one_is_not() {
    let mut rig = Rig::new();
    let long = message(&"x".repeat(100_000));
    rig.takes(&long.as_bytes()[..90_000]);
    assert!((90_000..200_000).contains(&rig.session.memory()));
    assert_eq!(rig.session.give_up(&mut rig.said), Ok(()));
    assert_eq!(rig.session.memory(), 0);
    rig.takes(&long.as_bytes()[90_000..]);
    rig.takes(message("b").as_bytes());
    rig.said(&["given-up", "b"]);
    // No message has begun, and none is given up.
    assert_eq!(rig.session.give_up(&mut rig.said), Ok(()));
    rig.said(&[]);
}

#[test]
fn what_is_longer_than_a_message_may_be_is_told_and_takes_no_memory() {
    let mut rig = Rig::new();
    rig.takes(b"{\"short_message\":\"");
    for _ in 0..2 * MAX_JSON / 8192 {
        rig.takes(&[b'x'; 8192]);
        assert!(rig.session.memory() <= MAX_JSON + 8192, "{} bytes", rig.session.memory());
    }
    assert_eq!(rig.session.memory(), 0);
    rig.takes(b"\"}\0");
    rig.takes(message("b").as_bytes());
    rig.said(&["too-long", "b"]);
}

#[test]
fn the_end_of_a_connection_says_whether_a_message_was_whole() {
    for how in [Closed::Clean, Closed::Broken, Closed::Stopped] {
        let mut rig = Rig::new();
        // The brace ends the message, whether or not more follows.
        rig.takes(message("a").as_bytes());
        rig.session.closed(how, &mut rig.said);
        assert!(!rig.session.unfinished());
        rig.said(&["a"]);
        let mut rig = Rig::new();
        rig.takes(b"{\"short_message\":\"a\"");
        assert!(rig.session.unfinished());
        rig.session.closed(how, &mut rig.said);
        // If the end of the connection is not clean, the connection counts as unfinished.
        let is_clean = how == Closed::Clean;
        assert_eq!(rig.session.unfinished(), !is_clean);
        rig.said(if is_clean { &["unfinished"] } else { &[] });
    }
}

#[test]
fn another_protocol_is_known_by_its_first_bytes() {
    let check = |first: &[u8], expected: Option<Foreign>| {
        for cut in 0..=first.len() {
            let mut rig = Rig::new();
            // The refused bytes are the last that are read.
            let fed = rig.feed(&first[..cut]).and_then(|()| rig.feed(&first[cut..]));
            let refused = fed.map_err(|violation| violation.name).err();
            let shown = first.escape_ascii();
            assert_eq!((refused, rig.session.foreign()), (Some("not-json"), expected), "{shown} at {cut}");
            assert!(!rig.session.has_begun() && rig.session.memory() == 0);
            rig.said(&[]);
        }
    };
    check(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", Some(Foreign::Tls));
    check(b"GET /gelf HTTP/1.1\r\n", Some(Foreign::Http));
    check(b"POST /gelf HTTP/1.1\r\nHost: relay\r\n\r\n{}", Some(Foreign::Http));
    check(b"<30>1 2026-11-20T22:27:42Z h a - - - x\n", Some(Foreign::Syslog));
    check(b"1 open 26 commands=numbered\n", Some(Foreign::Relp));
    check(b"PROXY TCP4 192.0.2.7 192.0.2.1 1 2\r\n", Some(Foreign::ProxyProtocol));
    check(b"\x94\xacabcdefghijkl\xd2\0\0\0\0", Some(Foreign::Forward));
    check(b"[{\"short_message\":\"a\"}]", None);
    // The bytes of a datagram, not of a stream.
    check(b"\x1e\x0f12345678\0\x02{\"short_message\":\"a", None);
    check(b"\x1f\x8b\x08\0\0\0\0\0\0\xff{\"short_message", None);
}

#[test]
fn blanks_before_the_first_message_are_not_strange() {
    for before in [&b"\0"[..], b"\n", b"\r\n", b"\t ", b""] {
        let mut rig = Rig::new();
        rig.takes(before);
        rig.takes(message("a").as_bytes());
        assert!(rig.session.has_begun() && rig.session.foreign().is_none());
        rig.said(&["a"]);
    }
}
