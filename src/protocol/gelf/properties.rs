//! Properties that must hold for all bytes that may be GELF. As functions, they make a unit test and a fuzz target one line each.

use std::time::{Duration, Instant};

use core::net::SocketAddr;

use super::{
    ChunkLimits, Chunks, Datagrams, GelfFramer, MAX_CHUNKS, Message, Payloads, Refused, append, datagrams, legal,
};
use crate::protocol::api::with_own_names;
use crate::protocol::syslog::is_id;
use crate::record::properties::{any_record, chosen_line};
use crate::record::{Record, UnixMicros, Value, escape};

/// The maximum size of a message and of all unfinished messages, in bytes.
const MAX: usize = 2048;
const SMALLEST: usize = 8;
const SD_ID: &str = "docker@32473";

/// Panics unless the record of a message comes back from its line. Bytes that are not a message pass.
pub fn any_message(json: &[u8]) {
    let Ok(message) = Message::read(json) else { return };
    let record = message.record(UnixMicros(1_795_898_357_357_000));
    assert!(record.timestamp.is_some() && record.severity <= 7);
    let options = crate::record::LineOptions { sd_id: SD_ID.to_owned(), peer: true };
    any_record(&record, &options);
}

/// Panics unless our own reader reads a line back from its message, in a stream and in datagrams.
pub fn any_line(line: &[u8], now: Instant) {
    let record = Record::from_line(line, SD_ID);
    let mut json = Vec::new();
    append(&record, SD_ID, &mut json);
    let stream = [&json[..], b"\0", &json, b"\0"].concat();
    assert_eq!(found(&stream, &[], json.len() + 1), [Ok(json.clone()), Ok(json.clone())]);
    let from = SocketAddr::from(([192, 0, 2, 1], 40000));
    for max in [20, 512, 8192] {
        let Some(sent) = datagrams(json.clone(), 7, max) else {
            assert!(json.len() > MAX_CHUNKS * (max - 12), "{} bytes", json.len());
            continue;
        };
        let (mut reader, mut taken) = (Datagrams::new(1 << 20), Vec::new());
        for datagram in sent.iter().rev() {
            let read = reader.take(from, datagram, now, |json| {
                taken.push(json.to_vec());
                Ok(())
            });
            assert_eq!(read, Ok(()));
        }
        assert_eq!(taken, [&json[..]]);
    }
    says(&Message::read(&json).expect("a message").record(UnixMicros(1)), &record);
}

/// Panics unless a message that was read back has the contents of the record that was sent.
fn says(back: &Record<'_>, record: &Record<'_>) {
    let text = record.text();
    let said = match std::str::from_utf8(text) {
        _ if text.trim_ascii().is_empty() => b"-".to_vec(),
        Ok(text) => text.as_bytes().to_vec(),
        Err(_) => escape(text).into_bytes(),
    };
    assert_eq!(back.message, Some(&said[..]));
    assert_eq!(back.severity, record.severity);
    if let Some(time) = record.time().filter(|time| time.0 >= 0) {
        assert_eq!((back.time(), back.nanoseconds), (Some(time), record.nanoseconds));
    }
    let is_utf8 = |bytes: &&[u8]| std::str::from_utf8(bytes).is_ok() && !bytes.is_empty();
    if record.original_host.is_none()
        && let Some(host) = record.hostname.filter(|host| host.bytes().count() <= 255)
        && host.bytes().all(|byte| byte.is_ascii_graphic())
    {
        assert_eq!(back.hostname, Some(host));
    }
    if record.container.is_some() {
        let of = |record: &Record<'_>| {
            let parts = [record.image_name(), record.container_name(), record.tag.as_deref()];
            parts.map(|part| part.filter(is_utf8).map(<[u8]>::to_vec))
        };
        let (found, expected) = (of(back), of(record));
        assert!(found.iter().zip(&expected).all(|(found, expected)| expected.is_none() || found == expected));
        let id = record.container_id().filter(|id| is_id(id));
        assert!(id.is_none() || id == back.container_id());
    }
    if back.fields.left_out() > 0 {
        return;
    }
    let ours =
        ["id", "escaped", "container_id", "container_name", "image_name", "tag", "app_name", "proc_id", "msg_id"];
    let ours = [&ours[..], &["facility", "stream", "peer", "structured_data"]].concat();
    let is_plain = |name: &str| !ours.contains(&name.trim_end_matches('_'));
    let value = |value: &Value<'_>| match value {
        Value::Text(text) => match std::str::from_utf8(text) {
            Ok(text) => text.to_owned(),
            Err(_) => escape(text),
        },
        Value::Json(json) => json.as_str().to_owned(),
    };
    let sent = record.fields.flattened();
    let named = with_own_names(&sent, legal, |_| false);
    let named: Vec<_> = named.iter().map(|(name, of)| (name.to_string(), value(of))).collect();
    let found: Vec<_> = back.fields.iter().map(|field| (field.name.to_string(), value(&field.value))).collect();
    let plain = |all: Vec<(String, String)>| all.into_iter().filter(|(name, _)| is_plain(name)).collect::<Vec<_>>();
    assert_eq!(plain(found), plain(named));
    let is_number = |value: &Value<'_>| matches!(value, Value::Json(_));
    assert!(
        back.fields
            .iter()
            .filter(|field| is_plain(&field.name))
            .all(|field| { !is_number(&field.value) || sent.iter().any(|other| other.value == field.value) })
    );
}

/// The messages in a stream that is cut at `cuts`, in ascending order.
pub fn found(stream: &[u8], cuts: &[usize], limit: usize) -> Vec<Result<Vec<u8>, Refused>> {
    let mut framer = GelfFramer::new(limit);
    let mut all = Vec::new();
    let mut rest = stream;
    let mut start = 0;
    for cut in cuts {
        let (bytes, behind) = rest.split_at(cut - start);
        (rest, start) = (behind, *cut);
        framer.feed(bytes, &mut |found| all.push(found.map(<[u8]>::to_vec)));
        assert!(framer.kept() <= limit, "{} bytes", framer.kept());
    }
    framer.feed(rest, &mut |found| all.push(found.map(<[u8]>::to_vec)));
    framer.closed(&mut |found| all.push(found.map(<[u8]>::to_vec)));
    all
}

/// Panics unless the result is the same wherever the stream is cut, and no message is lost or longer than the limit.
pub fn any_stream(stream: &[u8], cuts: [usize; 2], limit: usize) {
    let whole = found(stream, &[], limit);
    let [first, second] = cuts.map(|cut| cut.min(stream.len()));
    let cuts = [first.min(second), first.max(second)];
    assert_eq!(found(stream, &cuts, limit), whole, "{} at {cuts:?}", stream.escape_ascii());
    let mut rest = stream;
    for message in whole.iter().flatten() {
        assert!(!message.is_empty() && message.len() <= limit);
        let at = memchr::memmem::find(rest, message).expect("messages are in the stream, in order");
        rest = &rest[at + message.len()..];
        any_message(message);
    }
}

/// Panics unless unfinished messages stay within their limits, and complete ones have all their chunks in order. Each datagram begins with
/// a byte for its sender and ID, one for its number, one for the count, and one for its length.
pub fn any_chunks(data: &[u8], now: Instant) {
    let limits = ChunkLimits { messages: 4, bytes: MAX };
    let mut chunks = Chunks::new(limits);
    let (mut now, mut rest) = (now, data);
    while let [who, number, count, len, behind @ ..] = rest {
        let (bytes, behind) = behind.split_at(usize::from(*len).min(behind.len()));
        rest = behind;
        let from = SocketAddr::from(([192, 0, 2, who & 1], 40000));
        now += Duration::from_millis(u64::from(who >> 4) * 100);
        let datagram = [b"\x1e\x0f", &[who >> 1 & 7; 8][..], &[*number, *count], bytes].concat();
        match chunks.take(from, &datagram, now) {
            Ok(Some(whole)) => assert!(whole.len() <= MAX + bytes.len()),
            Ok(None) => assert!(number < count && usize::from(*count) <= MAX_CHUNKS),
            Err(why) => assert!(!why.name().is_empty()),
        }
        assert!(chunks.bytes() <= limits.bytes);
        assert!(chunks.due().is_none_or(|due| due > now));
    }
    chunks.expire(now + Duration::from_secs(5));
    assert_eq!((chunks.bytes(), chunks.due()), (0, None));
}

/// Panics if a payload is longer than the limit.
pub fn any_payload(data: &[u8]) {
    if let Ok(payload) = Payloads::default().read(data, MAX) {
        assert!(payload.len() <= MAX);
        any_message(&payload);
    }
}

/// Tests one of these properties with bytes that choose which.
pub fn any_bytes(data: &[u8], now: Instant) {
    let [what, first, second, limit, bytes @ ..] = data else { return };
    any_line(bytes, now);
    any_line(&chosen_line(bytes, SD_ID), now);
    match what % 4 {
        0 => any_message(bytes),
        1 => any_stream(bytes, [*first, *second].map(usize::from), SMALLEST + usize::from(*limit) * 8),
        2 => any_chunks(bytes, now),
        _ => any_payload(bytes),
    }
}
