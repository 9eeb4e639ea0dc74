//! Invariants of every session, as functions, so that a unit test, a property test and a fuzz target are one line each.

use std::time::{Duration, Instant};

use super::foreign::Foreign;
use super::framing::properties::Event;
use super::framing::{Notes, SMALLEST_LIMIT, Skipped};
use super::relp::{NumberedStreams, Proofs};
use super::session::{Ack, AnySession, Bounds, Closed, Numbers, Phase, Protocol, Session, Sink, ToRecord, Violation};
use super::syslog::{Senders, Settings};
use crate::record::{LineOptions, UnixMicros};

/// The test sink refuses messages that contain this byte.
pub const REFUSED: u8 = b'!';
/// The time of receipt of all messages.
const RECEIVED: UnixMicros = UnixMicros(1_795_898_247_000_000);

/// A message, whether it was truncated, and its number (stream, session, line), if it has one.
pub type Message = (Vec<u8>, bool, Option<(String, u32, u64)>);

/// Records everything that a session finds.
#[derive(Debug, Default)]
pub struct Collected {
    /// Messages that are in the spool, or will be.
    pub messages: Vec<Message>,
    /// Messages since the last ticket.
    batch: Vec<(Vec<u8>, bool)>,
    tickets: Vec<Ack>,
    skipped: Skipped,
    miscounts: usize,
    /// How often the session has reported that the first message is JSON.
    json: usize,
}

impl Sink for Collected {
    fn frame(&mut self, bytes: &[u8], cut: bool) -> bool {
        let taken = !bytes.contains(&REFUSED);
        if taken {
            self.batch.push((bytes.to_vec(), cut));
        }
        taken
    }

    /// Keeps the message as its line. A message without a timestamp gets the time of receipt.
    fn record(&mut self, message: &impl ToRecord) -> bool {
        let settings = Settings { hostname: "relay-1".to_owned(), ..Settings::default() };
        let record = message.to_record(&settings, RECEIVED);
        let mut line = Vec::new();
        record.write_line(&LineOptions { sd_id: settings.sd_id.clone(), peer: true }, &mut line);
        let taken = !line.contains(&REFUSED);
        if taken {
            self.batch.push((line, message.is_cut()));
        }
        taken
    }

    fn notes(&mut self, notes: Notes) {
        self.skipped = self.skipped + notes.skipped;
        self.miscounts += notes.miscounts;
    }

    fn json(&mut self) {
        self.json += 1;
    }

    fn ticket(&mut self, ack: Ack, numbers: Option<Numbers<'_>>) {
        assert!(!self.batch.is_empty(), "a ticket for nothing");
        self.tickets.push(ack);
        let number = |at| numbers.map(|of| (of.stream.to_owned(), of.session, of.first_line + at));
        let numbered = (0..).zip(self.batch.drain(..)).map(|(at, (bytes, cut))| (bytes, cut, number(at)));
        self.messages.extend(numbered);
    }
}

impl Collected {
    /// Messages that need no ticket are kept. In a session with answers, messages without a ticket are lost.
    fn end_batch(&mut self, answers: bool) {
        if !answers {
            self.messages.extend(self.batch.drain(..).map(|(bytes, cut)| (bytes, cut, None)));
        }
        self.batch.clear();
    }
}

/// The result of a session that reads a stream.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    pub messages: Vec<Message>,
    pub answers: Vec<u8>,
    pub skipped: Skipped,
    pub miscounts: usize,
    pub json: usize,
    /// The final phase, whether a message is unfinished, the violation, and the foreign protocol.
    pub end: (Phase, bool, Option<Violation>, Option<Foreign>),
    /// How long after the event the session wants its timer to be called again.
    pub due: Option<Duration>,
}

/// When the test reports batches as spooled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    AfterEachFeed,
    AtTheEnd,
    Never,
}

/// Feeds a stream to a session in pieces of the given lengths, and returns the result. The last piece takes the rest. `event` happens at a
/// place in the stream.
pub fn outcome(
    mut session: AnySession,
    stream: &[u8],
    pieces: impl IntoIterator<Item = usize>,
    event: Option<(usize, Event)>,
    commit: Commit,
    mut now: Instant,
) -> Outcome {
    let (mut to, mut answers) = (Collected::default(), Vec::new());
    session.opened(now, &mut answers);
    let (mut violation, mut due) = (None, None);
    for step in steps(stream, pieces, event) {
        let went = match step {
            Step::Feed(fed) => session.feed(fed, now, &mut to, &mut answers),
            Step::Happens(Event::GiveUp) => session.give_up(&mut to),
            Step::Happens(event) => {
                now += if event == Event::Pause { Duration::from_secs(2) } else { 2 * TIMEOUT };
                session.timer(now, &mut to).map(|at| due = at.map(|at| at - now))
            }
        };
        to.end_batch(session.conduct().answers);
        if commit == Commit::AfterEachFeed {
            to.tickets.drain(..).for_each(|ack| session.committed(ack, &mut answers));
        }
        violation = went.err();
        if violation.is_some() {
            break;
        }
    }
    if commit == Commit::AtTheEnd {
        to.tickets.drain(..).for_each(|ack| session.committed(ack, &mut answers));
    }
    if commit != Commit::Never {
        assert_eq!(session.owed(), 0, "an answer that nobody waits for");
    }
    let is_broken = violation.is_some();
    let end = (session.phase(), session.unfinished() && !is_broken, violation, session.foreign());
    session.closed(if is_broken { Closed::Broken } else { Closed::Clean }, &mut to);
    to.end_batch(session.conduct().answers);
    let Collected { messages, skipped, miscounts, json, .. } = to;
    Outcome { messages, answers, skipped, miscounts, json, end, due }
}

enum Step<'a> {
    Feed(&'a [u8]),
    Happens(Event),
}

/// Splits the stream into steps. A piece ends where the event happens.
fn steps(stream: &[u8], pieces: impl IntoIterator<Item = usize>, mut event: Option<(usize, Event)>) -> Vec<Step<'_>> {
    let (mut steps, mut rest) = (Vec::new(), stream);
    for piece in pieces.into_iter().chain([usize::MAX]) {
        let (piece, behind) = rest.split_at(piece.min(rest.len()));
        let at = stream.len() - rest.len();
        let here = event.take_if(|(place, _)| *place <= at + piece.len());
        let (before, piece) = piece.split_at(here.map_or(0, |(place, _)| place - at));
        if let Some((_, event)) = here {
            steps.extend([Step::Feed(before), Step::Happens(event)]);
        }
        steps.push(Step::Feed(piece));
        rest = behind;
    }
    steps
}

/// How long a session waits for the end of a message.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A session of a protocol with this message limit.
fn session(protocol: Protocol, max_frame: usize, senders: Senders) -> AnySession {
    let proofs = Proofs { streams: NumberedStreams::Any, nonce: [7; 32], signer: |_, _, _| None };
    let bounds = Bounds {
        max_frame,
        max_array: 10_000,
        max_line: 1000,
        frame_timeout: TIMEOUT,
        open_timeout: TIMEOUT,
        proofs,
        senders,
    };
    AnySession::new(protocol, bounds).expect("a protocol with sessions")
}

/// Panics unless `stream` in pieces has the same result as the whole, in each protocol and whenever the spool commits. Also panics unless
/// answers wait for the spool.
pub fn any_cut(stream: &[u8], max_frame: usize, pieces: &[usize], now: Instant) {
    any_cut_between(stream, max_frame, Senders::Anybody, pieces, None, now);
}

/// Like [`any_cut`], with an event at a place in the stream.
pub fn any_cut_between(
    stream: &[u8],
    max_frame: usize,
    senders: Senders,
    pieces: &[usize],
    event: Option<(usize, Event)>,
    now: Instant,
) {
    for protocol in Protocol::WITH_SESSIONS {
        let session = || session(protocol, max_frame, senders);
        let whole = outcome(session(), stream, [], event, Commit::AtTheEnd, now);
        if protocol == Protocol::Syslog {
            let longest = whole.messages.iter().map(|(bytes, ..)| bytes.len()).max();
            assert!(longest.unwrap_or_default() <= max_frame.max(SMALLEST_LIMIT), "{whole:?}");
        }
        for commit in [Commit::AfterEachFeed, Commit::AtTheEnd, Commit::Never] {
            let mut cut = outcome(session(), stream, pieces.iter().copied(), event, commit, now);
            if commit == Commit::Never {
                assert!(whole.answers.starts_with(&cut.answers), "answers come in their order");
                cut.answers.clone_from(&whole.answers);
            }
            let shown = String::from_utf8_lossy(stream);
            assert_eq!(
                cut, whole,
                "{commit:?}, at most {max_frame} from {senders:?}, pieces {pieces:?}, {event:?}, stream {shown:?}"
            );
        }
    }
}

/// [`any_cut_between`] with everything chosen by `data`: the limit, the number of cuts, the kind of senders, the event, the cuts, and the
/// stream.
pub fn any_bytes(data: &[u8], now: Instant) {
    let [limit, how, rest @ ..] = data else { return };
    let (cuts, stream) = rest.split_at(usize::from(how % 16).min(rest.len()));
    let cuts: Vec<_> = cuts.iter().map(|&cut| usize::from(cut)).collect();
    let senders = if how & 0x80 == 0 { Senders::Anybody } else { Senders::Docker };
    let event = [None, Some(Event::Pause), Some(Event::TimeOut), Some(Event::GiveUp)][usize::from(how >> 4 & 3)];
    for opening in [&b""[..], b"1 open 26 commands=numbered\nstream=a\n"] {
        let stream = [opening, stream].concat();
        let event = event.map(|event| (stream.len().min(opening.len() + cuts.iter().sum::<usize>() / 2), event));
        any_cut_between(&stream, usize::from(*limit), senders, &cuts, event, now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::relp::{Key, Numbered, Offers, Signature, append};
    use super::super::session::Refusal;
    use super::*;

    fn every_two_cuts(stream: &[u8], max_frame: usize) {
        let now = Instant::now();
        for first in 0..=stream.len() {
            for second in 0..=stream.len() - first {
                any_cut(stream, max_frame, &[first, second], now);
            }
        }
    }

    /// A session for messages of 100 bytes.
    fn session_of(protocol: Protocol) -> AnySession {
        session(protocol, 100, Senders::Anybody)
    }

    fn relp(stream: &[u8], commit: Commit) -> Outcome {
        outcome(session_of(Protocol::Relp), stream, [], None, commit, Instant::now())
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    const OPEN: &[u8] = b"1 open 26 commands=numbered\nstream=a\n";

    /// The answer to `OPEN`.
    fn opened() -> Vec<u8> {
        relp(OPEN, Commit::Never).answers
    }

    /// The answers to what follows `OPEN`, without the answer to `OPEN` itself.
    fn answered(said: &[u8], commit: Commit) -> String {
        let outcome = relp(&[OPEN, said].concat(), commit);
        text(outcome.answers.strip_prefix(&opened()[..]).expect("the answer to `open` comes first"))
    }

    #[test]
    fn answers_come_in_order_and_once_it_is_in_the_spool() {
        assert!(text(&opened()).starts_with("1 rsp ") && text(&opened()).contains("\nstream=a\n"));
        let said = b"2 x 0\n3 syslog 1 a\n4 syslog 1 !\n5 y 0\n6 syslog 1 b\n7 close 0\n";
        let unknown = |txnr| format!("{txnr} rsp 19 500 unknown command\n");
        let ok = |txnr| format!("{txnr} rsp 6 200 OK\n");
        assert_eq!(answered(said, Commit::Never), unknown(2));
        let all = [unknown(2), ok(3), ok(4), unknown(5), ok(6), ok(7), "0 serverclose 0\n".to_owned()].concat();
        assert_eq!(answered(said, Commit::AtTheEnd), all);
        // A refused message waits for nothing: the answers come although nothing is committed.
        assert_eq!(answered(b"2 syslog 1 !\n3 x 0\n", Commit::Never), ok(2) + &unknown(3));
    }

    #[test]
    fn numbered_lines_keep_their_numbers() {
        let lines = b"1 a1 b1 !1 c1 !2 de";
        let mut said = OPEN.to_vec();
        append(2, "numbered", &[b"7 100\n", &lines[..]].concat(), &mut said);
        append(3, "numbered", b"7 106\n1 !1 !", &mut said);
        append(4, "syslog", b"f", &mut said);
        let outcome = relp(&said, Commit::AtTheEnd);
        let messages: Vec<_> = outcome
            .messages
            .iter()
            .map(|(bytes, _, number)| (text(bytes), number.as_ref().map(|(_, session, line)| (*session, *line))))
            .collect();
        let expected = [("a", 100), ("b", 101), ("c", 103), ("de", 105)];
        let expected = expected.map(|(line, number)| (line.to_owned(), Some((7, number))));
        assert_eq!(messages[..4], expected);
        assert_eq!(messages[4], ("f".to_owned(), None));
        assert!(text(&outcome.answers).ends_with("2 rsp 6 200 OK\n3 rsp 6 200 OK\n4 rsp 6 200 OK\n"));
        every_two_cuts(&said, 100);
    }

    #[test]
    fn what_is_not_spooled_ends_the_answers() {
        let mut session = session_of(Protocol::Relp);
        let (mut to, mut answers, now) = (Collected::default(), Vec::new(), Instant::now());
        for said in [OPEN, b"2 syslog 1 a\n", b"3 syslog 1 b\n4 x 0\n", b"5 syslog 1 c\n"] {
            session.feed(said, now, &mut to, &mut answers).expect("RELP");
        }
        answers.clear();
        let [first, second, _] = to.tickets[..] else { panic!("{:?}", to.tickets) };
        session.refused(second, Refusal::Stopping);
        session.stopping(&mut answers);
        assert_eq!((session.phase(), text(&answers)), (Phase::Closing, String::new()), "what is before it comes first");
        session.committed(first, &mut answers);
        assert_eq!(text(&answers), "2 rsp 6 200 OK\n0 serverclose 0\n");
        assert_eq!(session.owed(), 0);
        session.refused(second, Refusal::NotSpooled);
        assert_eq!(session.phase(), Phase::Over);
    }

    /// Messages before the violation are answered first.
    #[test]
    fn what_ends_an_open_session_is_said() {
        let (mut to, mut answers, now) = (Collected::default(), Vec::new(), Instant::now());
        let mut session = session_of(Protocol::Relp);
        let said = session.feed(&[OPEN, b"2 syslog 1 a\nno RELP"].concat(), now, &mut to, &mut answers);
        assert_eq!(said, Err(Violation::new("a transaction number")));
        answers.clear();
        session.committed(to.tickets[0], &mut answers);
        assert_eq!(text(&answers), "2 rsp 6 200 OK\n0 serverclose 20 a transaction number\n");
        assert_eq!((session.phase(), session.owed()), (Phase::Closing, 0));
    }

    /// A line may grow in the spool: the relay adds the listener's name, for example. So a frame of very short lines is limited.
    #[test]
    fn many_short_lines_may_grow() {
        let (mut to, mut answers, now) = (Collected::default(), Vec::new(), Instant::now());
        let lines = |line: &[u8], count: usize| {
            let mut data = Vec::new();
            Numbered::write(3, 5, std::iter::repeat_n(line, count), &mut data);
            let mut frame = OPEN.to_vec();
            append(2, "numbered", &data, &mut frame);
            frame
        };
        let mut session = session_of(Protocol::Relp);
        let shortest = b"<0>1 - - - - - -";
        session.feed(&lines(shortest, 3000), now, &mut to, &mut answers).expect("lines of a relay");
        assert_eq!(to.messages.len(), 3000);
        let mut session = session_of(Protocol::Relp);
        let refused = session.feed(&lines(b"a", 3000), now, &mut to, &mut answers);
        assert_eq!(refused, Err(Violation::new("numbered lines that are too short to be syslog")));
    }

    /// The messages and answers of a session that gets these openings and a numbered line after them.
    fn numbered_behind(streams: NumberedStreams, openings: &[Offers]) -> (Vec<Message>, String) {
        let is_signed = |_: &Key, statement: &[u8], signature: &Signature| {
            (signature[0] == 1 && statement.ends_with(b"s/f")).then(|| "abc".to_owned())
        };
        let proofs = Proofs { streams, nonce: [7; 32], signer: is_signed };
        let timeout = Duration::from_secs(60);
        let bounds = Bounds {
            max_array: 10_000,
            max_frame: 1024,
            max_line: 1000,
            frame_timeout: timeout,
            open_timeout: timeout,
            proofs,
            senders: Senders::Anybody,
        };
        let mut stream = Vec::new();
        for (txnr, offers) in (1..).zip(openings) {
            let mut data = Vec::new();
            offers.write(&mut data);
            append(txnr, "open", &data, &mut stream);
        }
        append(9, "numbered", b"3 5\n1 a", &mut stream);
        let session = AnySession::new(Protocol::Relp, bounds).expect("RELP has sessions");
        let outcome = outcome(session, &stream, [], None, Commit::AtTheEnd, Instant::now());
        (outcome.messages, text(&outcome.answers))
    }

    #[test]
    fn numbers_are_those_of_whoever_has_signed() {
        let offers = |key, proof| Offers { stream: Some("s/f".into()), key, proof, ..Offers::default() };
        let (old, first) = (offers(None, None), offers(Some([3; 32]), None));
        let (signed, forged) = (offers(Some([3; 32]), Some([1; 64])), offers(Some([3; 32]), Some([2; 64])));
        let message = |stream: &str| vec![(b"a".to_vec(), false, Some((stream.to_owned(), 3, 5)))];
        let nonce = format!("nonce={}", "07".repeat(32));
        for (streams, openings, messages) in [
            (NumberedStreams::Any, vec![old.clone()], message("s/f")),
            (NumberedStreams::Any, vec![first.clone()], message("s/f")),
            (NumberedStreams::Any, vec![first.clone(), signed.clone()], message("key:abc/f")),
            (NumberedStreams::Any, vec![first.clone(), forged.clone()], vec![]),
            (NumberedStreams::Proven, vec![old.clone()], vec![]),
            (NumberedStreams::Proven, vec![first.clone()], vec![]),
            (NumberedStreams::Proven, vec![first.clone(), signed], message("key:abc/f")),
            (NumberedStreams::Proven, vec![first.clone(), forged], vec![]),
        ] {
            let (found, answers) = numbered_behind(streams, &openings);
            assert_eq!(found, messages, "{streams:?} {openings:?}");
            assert_eq!(answers.contains(&nonce), openings.contains(&first), "{answers}");
            assert_eq!(
                answers.contains("commands=syslog,numbered"),
                streams == NumberedStreams::Any || openings != [old.clone()]
            );
            assert_eq!(answers.contains("serverclose"), messages.is_empty(), "{answers}");
        }
    }

    #[test]
    fn a_session_waits_only_so_long() {
        let (mut to, mut answers, start) = (Collected::default(), Vec::new(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut syslog = session_of(Protocol::Syslog);
        let mut relp = session_of(Protocol::Relp);
        for session in [&mut syslog, &mut relp] {
            session.opened(start, &mut answers);
        }
        assert_eq!(syslog.timer(start, &mut to), Ok(None));
        // Single bytes that trickle in do not extend the time for `open`.
        assert_eq!(relp.timer(start, &mut to), Ok(Some(after(60))));
        relp.feed(b"1 op", after(50), &mut to, &mut answers).expect("RELP");
        assert_eq!(relp.timer(after(59), &mut to), Ok(Some(after(60))));
        assert!(relp.timer(after(60), &mut to).is_err());

        let mut relp = session_of(Protocol::Relp);
        relp.opened(start, &mut answers);
        relp.feed(OPEN, start, &mut to, &mut answers).expect("RELP");
        assert_eq!(relp.timer(after(100), &mut to), Ok(None));
        for (session, begun, more) in [(&mut syslog, &b"<30>a"[..], &b"b"[..]), (&mut relp, b"2 syslog 100 ", b"x")] {
            session.feed(begun, start, &mut to, &mut answers).expect("a beginning");
            session.feed(more, after(59), &mut to, &mut answers).expect("more of it");
            assert_eq!(session.timer(after(59), &mut to), Ok(Some(after(60))), "which changes nothing");
            // The deadline has passed while nothing was read. That is not the sender's fault, so the time starts anew.
            session.feed(more, after(61), &mut to, &mut answers).expect("more of it");
            assert_eq!(session.timer(after(61), &mut to), Ok(Some(after(121))));
        }
        assert_eq!(syslog.timer(after(121), &mut to), Ok(None));
        assert_eq!((to.batch, syslog.memory()), (vec![(b"<30>abb".to_vec(), true)], 0));
        assert!(relp.timer(after(121), &mut Collected::default()).is_err());
    }

    /// Valid streams of senders, and nearly valid ones.
    fn streams() -> impl Strategy<Value = Vec<u8>> {
        let command = prop::sample::select(vec!["syslog", "syslog", "numbered", "x", "open", "close", "rsp"]);
        let data = prop_oneof![
            "[ab!\n]{0,5}".prop_map(String::into_bytes),
            Just(b"3 5\n1 a2 bc1 !1 d".to_vec()),
            Just(b"3 9\n1 !2 x\n".to_vec()),
            Just(b"commands=numbered\nstream=s".to_vec()),
        ];
        let piece = prop_oneof![
            12 => (1..99u32, command, data).prop_map(|(txnr, command, data)| {
                let mut bytes = Vec::new();
                append(txnr, command, &data, &mut bytes);
                bytes
            }),
            2 => "<[0-9]{2}>[a! ]{0,9}\n".prop_map(String::into_bytes),
            1 => "[0-9 a\n]{0,6}".prop_map(String::into_bytes),
        ];
        (any::<bool>(), prop::collection::vec(piece, 0..5)).prop_map(|(opens, pieces)| {
            let before = if opens { OPEN } else { b"" };
            [before, &pieces.concat()].concat()
        })
    }

    proptest! {
        // Each case is thousands of cuts.
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        #[test]
        fn no_two_cuts_matter(stream in streams(), max_frame in 0..40usize) {
            every_two_cuts(&stream, max_frame);
        }
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(stream in streams(), max_frame in 0..40usize, pieces in prop::collection::vec(0..12usize, 0..30)) {
            any_cut(&stream, max_frame, &pieces, Instant::now());
        }

        #[test]
        fn neither_do_bytes(data in prop::collection::vec(any::<u8>(), 0..200)) {
            any_bytes(&data, Instant::now());
        }
    }
}
