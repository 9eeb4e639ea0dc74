//! Properties that must hold for all bytes that may be sent to HEC. As functions, they make a unit test, a property test and a fuzz target
//! one line each.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;

use super::event::Event;
use super::{Acks, Body, Channel, Given, Head, Limits, MAX_DEPTH, Message, Post, Refused, Request, Tokens};
use crate::protocol::session::ToRecord;
use crate::protocol::syslog::{Senders, Settings};
use crate::record::properties::any_record;
use crate::record::{Record, UnixMicros};

/// The lines of a body's records, and how the body ends.
pub type Found = (Vec<Vec<u8>>, Result<(), Refused>);

/// The result for a body that comes in pieces of the given lengths. The last piece is the rest.
pub fn found(post: &Post, body: &[u8], limits: Limits, pieces: impl IntoIterator<Item = usize>) -> Found {
    found_with(post, body, limits, pieces, |_| {})
}

fn found_with(
    post: &Post,
    body: &[u8],
    limits: Limits,
    pieces: impl IntoIterator<Item = usize>,
    mut check: impl FnMut(&Record<'_>),
) -> Found {
    let settings = Settings::default();
    let options = settings.line_options(true);
    let senders = if body.len().is_multiple_of(2) { Senders::Anybody } else { Senders::Docker };
    let mut lines = Vec::new();
    let mut take = |message: &Message<'_>| {
        let record = message.to_record(&settings, UnixMicros(1_795_898_357_357_000));
        assert!(record.cut == message.is_cut() && record.message.unwrap_or_default().len() <= limits.max_message);
        check(&record);
        let mut line = Vec::new();
        record.write_line(&options, &mut line);
        lines.push(line);
    };
    let mut read = Body::new(post.clone(), limits, senders);
    let mut rest = body;
    let mut end = Ok(());
    for piece in pieces.into_iter().chain([usize::MAX]) {
        let (now, later) = rest.split_at(piece.min(rest.len()));
        rest = later;
        end = end.and_then(|()| read.feed(now, &mut take));
        let most = limits.max_event.max(limits.max_message).max(if post.is_gzip { limits.max_body } else { 0 });
        assert!(read.held() <= most, "{} bytes are held of {most}", read.held());
    }
    while end == Ok(()) {
        match read.finish(&mut take) {
            Ok(true) => {}
            Ok(false) => break,
            Err(why) => end = Err(why),
        }
    }
    assert_eq!(lines.len() as u64, read.found());
    (lines, end)
}

/// Panics unless the records and the end of a body are the same wherever it is cut, equal those of a stateless reader, and each record
/// comes back from its line.
pub fn any_body(post: &Post, body: &[u8], limits: Limits, pieces: &[usize]) {
    let options = Settings::default().line_options(true);
    let whole = found_with(post, body, limits, [], |record| any_record(record, &options));
    let shown = body.escape_ascii();
    assert_eq!(found(post, body, limits, pieces.iter().copied()), whole, "cut after {pieces:?} of {shown}");
    if let Err(why) = whole.1 {
        any_answer(why, Some(whole.0.len() as u64));
    }
    if post.is_gzip {
        return;
    }
    let (by_the_book, is_whole) = match post.is_raw {
        true => (body.split(|byte| *byte == b'\n').filter(|line| !matches!(**line, [] | [b'\r'])).count(), true),
        false => events(body, limits.max_event),
    };
    assert_eq!((whole.0.len(), whole.1.is_ok()), (by_the_book, is_whole && by_the_book > 0), "{:?} {shown}", whole.1);
}

/// The number of events before the first refused one, and whether none is refused.
fn events(body: &[u8], limit: usize) -> (usize, bool) {
    let (mut count, mut rest, mut in_list) = (0, body, false);
    loop {
        rest = rest.trim_ascii_start();
        match (in_list, rest) {
            (_, []) => return (count, !in_list),
            (false, [b'[', behind @ ..]) => {
                rest = behind.trim_ascii_start();
                in_list = !rest.starts_with(b"]");
                rest = if in_list { rest } else { &rest[1..] };
                continue;
            }
            (_, [b'{', ..]) => {}
            _ => return (count, false),
        }
        let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<&RawValue>();
        let Some(Ok(object)) = values.next() else { return (count, false) };
        let object = object.get().as_bytes();
        if object.len() > limit || depth(object) > MAX_DEPTH || Event::read(object).is_err() {
            return (count, false);
        }
        (count, rest) = (count + 1, rest[object.len()..].trim_ascii_start());
        if in_list {
            rest = match rest {
                [b',', behind @ ..] if behind.trim_ascii_start().starts_with(b"{") => behind,
                [b']', behind @ ..] => {
                    in_list = false;
                    behind
                }
                _ => return (count, false),
            };
        }
    }
}

fn depth(json: &[u8]) -> usize {
    crate::record::json_depth(std::str::from_utf8(json).unwrap_or_default())
}

/// Panics unless HTTP clients and Splunk's libraries can read an answer.
fn any_answer(why: Refused, event: Option<u64>) {
    let answer = why.answer(event);
    assert!((400..600).contains(&answer.status) && !why.name().is_empty());
    let body: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    assert!(body["text"].is_string() && body["code"].is_u64(), "{body}");
}

/// Panics unless a head is read, or refused with an answer. LF separates its parts.
pub fn any_head(text: &[u8]) {
    let tokens = [Tokens::any(), Tokens::list(vec!["t".to_owned(), "token".to_owned()]), Tokens::list(vec![])];
    let part = |at: usize| text.split(|byte| *byte == b'\n').nth(at);
    let word = |at: usize| std::str::from_utf8(part(at).unwrap_or_default()).unwrap_or_default();
    let head = Head {
        method: word(0),
        path: word(1),
        query: word(2),
        authorization: part(3),
        channel: part(4),
        encoding: part(5),
    };
    for tokens in tokens {
        match Request::read(&head, &tokens) {
            Ok(Request::Post(post)) => assert!(tokens.is_any() || head.authorization.is_some(), "{post:?}"),
            Ok(_) => {}
            Err(why) => any_answer(why, None),
        }
    }
}

/// Panics unless every number that is called safe was stored, and the number of channels stays within the limit. Two bytes choose an
/// action.
pub fn any_acks(data: &[u8], now: Instant) {
    let (limit, idle) = (4, Duration::from_secs(10));
    let (mut acks, mut now) = (Acks::new(limit, idle), now);
    // The number of requests stored in each channel.
    let mut given: HashMap<u8, u64> = HashMap::new();
    for step in data.as_chunks::<2>().0 {
        let [what, id] = *step;
        let name = what & 7;
        let channel = Channel::read(format!("{name:032x}").as_bytes()).expect("a GUID");
        now += Duration::from_secs(u64::from(what >> 6));
        if what & 8 == 0 {
            let number = acks.stored(channel, now).expect("a number");
            let most = given.entry(name).or_default();
            assert!(number <= *most);
            *most = (*most).max(number + 1);
        } else {
            let body = format!(r#"{{"acks":[{id},0]}}"#);
            let answer = acks.answer(Some(channel), body.as_bytes(), now).expect("an answer");
            let said: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
            let is_safe = said["acks"][id.to_string()].as_bool().expect("a word");
            assert!(!is_safe || u64::from(id) < given.get(&name).copied().unwrap_or_default());
        }
        assert!(acks.channels() <= limit);
    }
    acks.expire(now + idle);
    assert_eq!(acks.channels(), 0);
}

/// Tests one of these properties with bytes that choose which.
pub fn any_bytes(data: &[u8], now: Instant) {
    let [what, limit, cut, another, bytes @ ..] = data else { return };
    let max_event = 16 + usize::from(*limit) * 8;
    let limits = Limits { max_event, max_message: max_event / 2, max_body: 4096 };
    let given = Given { host: Some("host 1".to_owned()), index: Some("main".to_owned()), ..Given::default() };
    let given = if what & 16 == 0 { Given::default() } else { given };
    let post = Post { is_raw: what & 4 != 0, is_gzip: what & 8 != 0, channel: None, given };
    match what & 3 {
        0 => any_head(bytes),
        1 => any_acks(bytes, now),
        _ => any_body(&post, bytes, limits, &[*cut, *another].map(usize::from)),
    }
}
