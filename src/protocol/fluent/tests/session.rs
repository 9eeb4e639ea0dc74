//! A connection: which arrays are answered and when, repeated chunks, and the end of a connection.

use std::time::{Duration, Instant};

use super::conversation::{Heard, MAX_ARRAY, TIMEOUT, Talk, asking, event, forward, message, partial};
use super::*;
use crate::protocol::foreign::Foreign;
use crate::protocol::session::{Ack, Closed, Phase, Refusal, Session, Violation};

fn entry(text: &str) -> Vec<u8> {
    event(&[("log", text.as_bytes())])
}

/// An array with one message that asks for an answer.
fn asks(text: &str, chunk: &str) -> Vec<u8> {
    message("t", &entry(text), Some(chunk.as_bytes()))
}

fn ack(chunk: &str) -> Vec<u8> {
    let mut out = Vec::new();
    append_ack(chunk.as_bytes(), &mut out);
    out
}

fn texts(talk: &Talk) -> Vec<String> {
    talk.messages().into_iter().map(|(text, _)| text).collect()
}

/// An array that is refused: its tag is not a text.
const BAD: &[u8] = b"\x93\x07\x01\x80";

#[test]
fn a_sender_that_asks_for_nothing_hears_nothing() {
    let mut talk = Talk::new();
    talk.session.opened(talk.now, &mut talk.answers);
    assert_eq!((talk.session.phase(), talk.session.has_begun()), (Phase::Open, false));
    // A heartbeat before, between and behind.
    talk.hears(&[b"\xc0", &message("t", &entry("a"), None)[..], b"\xc0"].concat());
    talk.hears(&forward("t", &[entry("b"), entry("refused"), entry("c")], None));
    assert_eq!(texts(&talk), ["a", "b", "c"]);
    assert!(!talk.session.conduct().answers && talk.session.has_begun());
    assert_eq!((talk.heard.answers_messages, talk.heard.tickets.len(), talk.answered()), (0, 0, vec![]));
    assert_eq!((talk.session.memory(), talk.session.owed(), talk.session.unfinished()), (0, 0, false));
    talk.session.closed(Closed::Broken, &mut talk.heard);
    assert_eq!((talk.session.phase(), talk.heard.unconfirmed.len()), (Phase::Over, 0));
}

#[test]
fn an_answer_comes_once_it_is_in_the_spool_and_says_the_chunk_as_it_came() {
    let mut talk = Talk::new();
    // Names of Docker, Fluent Bit and Fluentd (with its LF), and names that no sender uses.
    let chunks: [&[u8]; 6] =
        [b"gTsLawAAAAAxL0Yhlkzj1A==", b"X9k3v0Zs0bA2mT1lqGm5nQ==", b"Xq9tTgAA\n", b"", b"\0\xff\"", &[b'c'; 300]];
    for chunk in chunks {
        talk.hears(&message("t", &entry("a"), Some(chunk)));
        assert_eq!(talk.answered(), b"", "it is not in the spool");
        assert!(talk.session.owed() > chunk.len() && talk.session.conduct().answers);
        talk.commits(1);
        let head: &[u8] = match chunk.len() {
            len @ 0..=31 => &[0xa0 | len as u8],
            _ => b"\xda\x01\x2c",
        };
        assert_eq!(talk.answered(), [b"\x81\xa3ack", head, chunk].concat());
        assert_eq!(talk.session.owed(), 0);
    }
    assert_eq!(talk.heard.answers_messages, 1, "it is said once");
}

#[test]
fn each_array_has_an_answer_and_they_come_in_order() {
    let mut talk = Talk::new();
    talk.hears(&[asks("a", "1"), asks("b", "2")].concat());
    talk.hears(&asks("c", "3"));
    talk.hears(&forward("t", &[entry("d"), entry("e")], Some(b"4")));
    // All arrays of one read form one batch.
    assert_eq!(talk.heard.tickets, [Ack(1), Ack(2), Ack(3)]);
    talk.commits(1);
    assert_eq!(talk.answered(), [ack("1"), ack("2")].concat());
    talk.commits(2);
    assert_eq!(talk.answered(), [ack("3"), ack("4")].concat());
    assert_eq!(texts(&talk), ["a", "b", "c", "d", "e"]);
}

/// Without an answer, the sender would repeat the array for ever.
#[test]
fn an_array_of_which_nothing_is_taken_is_answered_behind_those_before_it() {
    let mut talk = Talk::new();
    talk.hears(&asks("refused", "1"));
    assert_eq!((talk.answered(), talk.heard.tickets.len()), (ack("1"), 0));
    talk.hears(&asks("a", "2"));
    talk.hears(&asks("refused", "3"));
    talk.hears(&forward("t", &[], Some(b"4")));
    assert_eq!((talk.answered(), talk.heard.tickets.len()), (vec![], 1), "what is before it is not in the spool");
    talk.commits(1);
    assert_eq!(talk.answered(), [ack("2"), ack("3"), ack("4")].concat());
    // In the same read, before and behind an array that is taken.
    talk.hears(&[asks("refused", "5"), asks("b", "6"), asks("refused", "7")].concat());
    assert_eq!(talk.answered(), b"");
    talk.commits(1);
    assert_eq!(talk.answered(), [ack("5"), ack("6"), ack("7")].concat());
}

#[test]
fn a_chunk_that_comes_again_is_not_taken_twice() {
    let again = |known: &str, said: &[Vec<u8>]| {
        let mut talk = Talk::new();
        talk.heard.known = vec![known.as_bytes().to_vec()];
        said.iter().for_each(|array| talk.hears(array));
        talk
    };
    let mut talk = again("1", &[asks("a", "1"), asks("b", "2")]);
    assert_eq!((texts(&talk), talk.answered()), (vec!["b".to_owned()], ack("1")), "it is in the spool");
    assert_eq!(talk.heard.asked, [b"1"], "only the first of a connection is asked for");
    talk.commits(1);
    assert_eq!(talk.answered(), ack("2"));
    // Not the first: Fluent Bit gives equal messages equal names.
    for said in [
        [asks("b", "2"), asks("a", "1")],
        [message("t", &entry("b"), None), asks("a", "1")],
        [[&b"\xc0"[..], &asks("b", "2")].concat(), asks("a", "1")],
    ] {
        assert_eq!(texts(&again("1", &said)), ["b", "a"]);
    }
    // A heartbeat is not a message.
    assert_eq!(texts(&again("1", &[b"\xc0".to_vec(), asks("a", "1")])), [""; 0]);
}

/// An answer that the sender may not have seen is reported at the end: the chunk is in the spool and answered, and nothing came after.
#[test]
fn what_may_be_unanswered_is_told_at_the_end() {
    let unconfirmed = |how, says: &[Vec<u8>], commits| {
        let mut talk = Talk::new();
        says.iter().for_each(|array| talk.hears(array));
        talk.commits(commits);
        talk.session.closed(how, &mut talk.heard);
        talk.heard.unconfirmed.concat()
    };
    let two = [asks("a", "1"), asks("b", "2")];
    assert_eq!(unconfirmed(Closed::Broken, &two, 2), b"12");
    assert_eq!(unconfirmed(Closed::Stopped, &two, 2), b"12");
    assert_eq!(unconfirmed(Closed::Clean, &two, 2), b"", "it has read what it was answered");
    assert_eq!(unconfirmed(Closed::Broken, &two, 1), b"1", "the other one is not in the spool");
    assert_eq!(unconfirmed(Closed::Broken, &two, 0), b"");
    let mut talk = Talk::new();
    for (text, chunk) in [("a", "1"), ("b", "2")] {
        talk.hears(&asks(text, chunk));
        talk.commits(1);
    }
    talk.session.closed(Closed::Broken, &mut talk.heard);
    assert_eq!(talk.heard.unconfirmed, [b"2"], "who goes on has heard the answer before");
}

/// The entry is counted. The sender need not repeat it: it would never become good.
#[test]
fn a_bad_entry_is_counted_and_its_array_is_answered() {
    let one = |time: &[u8], record: &[u8]| array(&[time, record]);
    let good = |text: &str| one(b"\x01", &entry(text));
    let list = array(&[&good("a"), &one(b"\xc3", &entry("bad")), &b"\x07"[..], &good("b"), &one(b"\x01", b"\x90")]);
    let mut talk = Talk::new();
    talk.hears(&array(&[b"\xa1t", &list, &asking(b"1")]));
    assert_eq!((texts(&talk), talk.answered()), (vec!["a".to_owned(), "b".to_owned()], vec![]));
    assert_eq!(talk.heard.refused, ["time", "entry", "record"]);
    talk.commits(1);
    assert_eq!(talk.answered(), ack("1"));
    // Arrays without a good entry.
    talk.hears(&array(&[b"\xa1t", b"\xc3", &entry("bad"), &asking(b"2")]));
    talk.hears(&array(&[b"\xa1t", &array(&[b"\xc0"]), &asking(b"3")]));
    assert_eq!((talk.answered(), talk.heard.tickets.len()), ([ack("2"), ack("3")].concat(), 0));
    assert_eq!(talk.heard.refused[3..], ["time", "entry"]);
    assert_eq!(talk.session.phase(), Phase::Open);
}

/// The good arrays are in the spool, and their sender gets the answers.
#[test]
fn what_is_before_a_bad_array_is_answered() {
    for cut in [false, true] {
        let mut talk = Talk::new();
        let ended = match cut {
            false => talk.reads(&[&asks("a", "1")[..], BAD, &asks("b", "2")].concat()),
            true => {
                talk.hears(&asks("a", "1"));
                talk.reads(&[BAD, &asks("b", "2")[..]].concat())
            }
        };
        assert_eq!(ended, Err(Violation { name: "tag", why: BadFrame::Tag.to_string().into() }));
        assert_eq!((talk.session.phase(), talk.answered()), (Phase::Closing, vec![]));
        // Anything behind the bad array is ignored, good or bad.
        talk.hears(&asks("c", "3"));
        talk.hears(BAD);
        talk.commits(1);
        assert_eq!((talk.answered(), talk.session.owed(), texts(&talk)), (ack("1"), 0, vec!["a".to_owned()]));
    }
    let mut talk = Talk::new();
    assert!(talk.reads(&[&message("t", &entry("a"), None)[..], BAD].concat()).is_err());
    assert_eq!((talk.session.phase(), texts(&talk)), (Phase::Over, vec!["a".to_owned()]), "nobody waits for an answer");
}

#[test]
fn what_is_not_spooled_ends_the_answers() {
    let mut talk = Talk::new();
    for (text, chunk) in [("a", "1"), ("b", "2"), ("refused", "3"), ("c", "4")] {
        talk.hears(&asks(text, chunk));
    }
    let [first, second, _] = talk.heard.tickets[..] else { panic!("{:?}", talk.heard.tickets) };
    talk.session.refused(second, Refusal::Stopping);
    talk.session.stopping(&mut talk.answers);
    assert_eq!((talk.session.phase(), talk.answered()), (Phase::Closing, vec![]), "what is before it comes first");
    talk.session.committed(first, &mut talk.answers);
    assert_eq!((talk.answered(), talk.session.owed()), (ack("1"), 0));
    talk.session.refused(second, Refusal::NotSpooled);
    assert_eq!(talk.session.phase(), Phase::Over);
    talk.session.closed(Closed::Stopped, &mut talk.heard);
    assert_eq!(talk.heard.unconfirmed, [b"1"], "what is not in the spool is wanted when it comes again");
}

#[test]
fn a_stop_answers_what_is_in_the_spool_and_hears_no_more() {
    let mut talk = Talk::new();
    talk.hears(&asks("a", "1"));
    talk.session.stopping(&mut talk.answers);
    talk.hears(&asks("b", "2"));
    talk.commits(1);
    assert_eq!((talk.answered(), texts(&talk)), (ack("1"), vec!["a".to_owned()]));
    assert_eq!((talk.session.phase(), talk.session.owed()), (Phase::Closing, 0));
}

#[test]
fn an_array_that_does_not_end_is_waited_for_so_long() {
    let mut talk = Talk::new();
    let start = talk.now;
    let after = |seconds| start + Duration::from_secs(seconds);
    assert_eq!(talk.session.timer(after(1000), &mut talk.heard), Ok(None), "an idle connection may stay");
    let whole = message("t", &entry("a"), None);
    let (begun, rest) = whole.split_at(4);
    talk.hears(begun);
    talk.now = after(59);
    talk.hears(&rest[..2]);
    assert_eq!(talk.session.timer(after(59), &mut talk.heard), Ok(Some(start + TIMEOUT)), "which changes nothing");
    assert!(talk.session.unfinished());
    talk.hears(&[&rest[2..], begun].concat());
    assert_eq!(talk.session.timer(after(60), &mut talk.heard), Ok(Some(after(59) + TIMEOUT)), "another one");
    let late = talk.session.timer(after(119), &mut talk.heard);
    assert_eq!(late, Err(Violation::new("an array has not ended in time")));
    assert_eq!((talk.session.phase(), texts(&talk)), (Phase::Over, vec!["a".to_owned()]));
}

#[test]
fn what_takes_memory_is_given_up() {
    // The start of an array is needed to go on.
    let mut talk = Talk::new();
    let whole = message("t", &entry("a"), None);
    talk.hears(&whole[..5]);
    assert_eq!(talk.session.memory(), 5);
    assert!(talk.session.give_up(&mut talk.heard).is_err());
    assert_eq!(talk.session.phase(), Phase::Over);
    // Answers wait, and the sender has to repeat the array.
    let mut talk = Talk::new();
    talk.hears(&asks("a", "1"));
    assert!(talk.session.memory() >= talk.session.owed() && talk.session.owed() > 0);
    assert!(talk.session.give_up(&mut talk.heard).is_err());
    // The connection ends for any state of the spool: the outcome for a sender does not depend on that.
    let mut talk = Talk::new();
    talk.hears(&asks("a", "1"));
    talk.commits(1);
    assert!(talk.session.memory() > 0 && talk.session.owed() == 0);
    assert!(talk.session.give_up(&mut talk.heard).is_err());
    talk.session.closed(Closed::Broken, &mut talk.heard);
    assert_eq!(talk.heard.unconfirmed, [b"1"], "which is not taken twice");
    // The connection of a sender that asks for no answers stays open.
    let mut talk = Talk::new();
    talk.hears(&message("t", &partial("a", "stdout", 1, false, b"begun"), None));
    assert!(talk.session.memory() > 0);
    talk.session.give_up(&mut talk.heard).expect("the connection may stay");
    assert_eq!((talk.session.memory(), texts(&talk)), (0, vec!["begun".to_owned()]));
    // Records that were given up are not part of a later answer.
    assert_eq!(talk.heard.hands_on(), 1);
    talk.hears(&asks("refused", "1"));
    assert_eq!((talk.answered(), talk.heard.tickets.len()), (ack("1"), 0));
}

/// Arrays without entries cost their sender a dozen bytes, and their answers wait behind an array that is not in the spool.
#[test]
fn answers_that_wait_count_for_what_they_take() {
    const MANY: usize = 1000;
    let mut talk = Talk::new();
    talk.hears(&asks("a", "1"));
    talk.hears(&forward("t", &[], Some(b"")).repeat(MANY));
    assert!(talk.session.owed() >= MANY * size_of::<(Ack, Vec<u8>)>(), "{}", talk.session.owed());
    assert!(talk.session.memory() >= talk.session.owed());
    talk.commits(1);
    assert_eq!(talk.session.owed(), 0);
    // Only a limited number of answers is remembered.
    let long = [b'c'; 1000];
    talk.hears(&forward("t", &[], Some(&long)).repeat(MANY));
    assert!(talk.session.memory() < 10_000, "{}", talk.session.memory());
}

#[test]
fn an_idle_connection_holds_no_memory() {
    let mut talk = Talk::new();
    let long = message("t", &entry(&"x".repeat(50_000)), None);
    for piece in long.chunks(10_000) {
        talk.hears(piece);
    }
    assert_eq!(texts(&talk)[0].len(), 50_000);
    assert_eq!(talk.session.memory(), 0);
    let mut framer = Framer::new(MAX_ARRAY);
    for piece in long.chunks(10_000) {
        framer.feed(piece, |_| Ok::<_, BadFrame>(())).expect("an array");
    }
    assert_eq!(framer.capacity(), 0);
}

/// A few bytes on the wire would become gigabytes of lines: each entry is a line with the tag.
#[test]
fn entries_that_would_be_many_more_bytes_as_lines_are_refused() {
    let packed = |tag: &[u8], entries: &[u8]| {
        let zipped = gzip(entries);
        array(&[&bin(tag), &bin(&zipped), b"\x81\xaacompressed\xa4gzip"])
    };
    let shortest = array(&[b"\x00", b"\x80"]);
    let refused = |bytes: &[u8]| {
        let mut talk = Talk::new();
        assert!(bytes.len() < MAX_ARRAY, "{}", bytes.len());
        let ended = talk.reads(bytes).expect_err("too many").name;
        assert_eq!(talk.lines().len(), 0, "none of it is taken");
        ended
    };
    assert_eq!(refused(&packed(b"t", &shortest.repeat(1_000_000))), "entries");
    let long_tag = array(&[&bin(&[b't'; MAX_ARRAY / 2]), &bin(&shortest.repeat(100))]);
    assert_eq!(refused(&long_tag), "entries");
    assert_eq!(refused(&packed(b"t", &vec![0; 5 * MAX_ARRAY])), "inflated-size");
    // Entries of the same size with real contents are accepted.
    let mut talk = Talk::new();
    let real = array(&[b"\x00", &entry(&"x".repeat(100))]);
    talk.hears(&packed(b"t", &real.repeat(2 * MAX_ARRAY / real.len() / 4)));
    assert!(talk.lines().len() > 4000);
}

#[test]
fn who_has_come_to_the_wrong_port_is_known() {
    for (first, expected) in [
        (&b"\x16\x03\x01\x02\x00\x01"[..], Some(Foreign::Tls)),
        (b"GET / HTTP/1.1\r\n", Some(Foreign::Http)),
        (b"POST /services/collector HTTP/1.1\r\n", Some(Foreign::Http)),
        (b"1 open 85 relp_version=0\n", Some(Foreign::Relp)),
        (b"<30>Nov 20 22:28:47 web[1]: x\n", Some(Foreign::Syslog)),
        (b"57 <30>1 2003-10-11T22:14:15Z h - - - - x", Some(Foreign::Syslog)),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 1 514\r\n", Some(Foreign::ProxyProtocol)),
        (b"\r\n\r\n\0\r\nQUIT\n\x21", Some(Foreign::ProxyProtocol)),
        (b"hello\n", None),
        (b"\0\0\0\0", None),
        (b"\x80", None),
        (b"\xff\xff", None),
    ] {
        let told = |pieces: &[&[u8]]| {
            let mut talk = Talk::new();
            let ended = pieces.iter().find_map(|piece| talk.reads(piece).err());
            assert_eq!(talk.session.phase(), if ended.is_some() { Phase::Over } else { Phase::Open });
            (ended.map(|violation| violation.name), talk.session.foreign(), talk.session.has_begun())
        };
        let shown = first.escape_ascii();
        assert_eq!(told(&[first]), (Some("no-array"), expected, false), "{shown}");
        for cut in 0..first.len() {
            let (before, behind) = first.split_at(cut);
            assert_eq!(told(&[before, behind]), (Some("no-array"), expected, false), "{shown}, cut at {cut}");
        }
        assert_eq!(told(&first.chunks(1).collect::<Vec<_>>()), (Some("no-array"), expected, false), "{shown}");
    }
    // JSON is recognized. A heartbeat begins nothing.
    let mut talk = Talk::new();
    assert_eq!(talk.reads(b"[\"t\",1,{}]").expect_err("JSON").name, "json");
    let mut talk = Talk::new();
    talk.hears(b"\xc0\xc0");
    assert_eq!((talk.session.has_begun(), talk.session.unfinished(), talk.session.foreign()), (false, false, None));
    // The session waits for an undecided start as it waits for the end of an array.
    let mut talk = Talk::new();
    talk.hears(b"GE");
    assert!(talk.session.unfinished());
    assert_eq!(talk.session.timer(talk.now, &mut talk.heard), Ok(Some(talk.now + TIMEOUT)));
}

/// Arrays of all modes get the same answer, for any chunk.
#[test]
fn every_mode_is_answered() {
    let packed = array(&[b"\x01", &entry("a")]);
    let zipped = gzip(&packed);
    let gzip_option = [&b"\x82\xaacompressed\xa4gzip"[..], &asking(b"4")[1..]].concat();
    let said = [
        asks("a", "1"),
        forward("t", &[entry("a")], Some(b"2")),
        array(&[b"\xa1t", &bin(&packed), &asking(b"3")]),
        array(&[b"\xa1t", &bin(&zipped), &gzip_option]),
    ];
    let mut talk = Talk::new();
    said.iter().for_each(|array| talk.hears(array));
    talk.commits(4);
    assert_eq!(talk.answered(), ["1", "2", "3", "4"].map(ack).concat());
    assert_eq!(texts(&talk), ["a"; 4]);
}

#[test]
fn a_session_that_has_ended_wants_nothing() {
    let mut talk = Talk::new();
    talk.session.closed(Closed::Clean, &mut talk.heard);
    assert_eq!(
        (talk.session.phase(), talk.session.timer(Instant::now(), &mut Heard::default())),
        (Phase::Over, Ok(None))
    );
}
