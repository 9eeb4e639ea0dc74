//! A record as a message, with the names that Docker's driver uses, and as datagrams.
//!
//! - A message of a container has the four fields that identify Docker's driver, even those that are empty.
//! - The whole text is `short_message`, as in messages of Docker's driver. Graylog refuses a blank text: `-` replaces it.
//! - A number stays a number. A member of an object becomes a field of its own, `a.b`. Any other value that is not a text becomes a text of
//!   its JSON: GELF has no type for it.
//! - Names consist of letters, digits, `_`, `.` and `-`; Graylog drops other names. `_id` is forbidden. Where a name is taken, `_` is
//!   appended.

use std::borrow::Cow;

use super::MAX_CHUNKS;
use crate::protocol::api::{Object, foreign_text, with_own_names};
use crate::record::{FACILITIES, Record, Source, Value};

/// The magic bytes of a chunk, and the length of its head: magic, the message's ID, the chunk's number and the count.
const MAGIC: [u8; 2] = [0x1e, 0x0f];
const HEAD: usize = 12;
/// The default facilities, which are omitted: of containers, and of other senders.
const DAEMON: u8 = 3;
const USER: u8 = 1;
/// Names that fields never get.
const RESERVED: [&str; 1] = ["id"];

/// Appends the JSON of a message. `sd_id`: the SD-ID of the element with a line's image, name and ID.
pub fn append(record: &Record<'_>, sd_id: &str, out: &mut Vec<u8>) {
    let mut object = Object::begin(out);
    object.text("version", "1.1");
    object.bytes("host", Some(record.host_as_written().as_deref().unwrap_or(b"-")));
    let text = record.text();
    let is_blank = text.trim_ascii().is_empty();
    object.bytes("short_message", Some(if is_blank { b"-" } else { text }));
    if let Some(seconds) = seconds(record) {
        object.json("timestamp", seconds.as_bytes());
    }
    object.number("level", record.severity);
    let mut ours = RESERVED.to_vec();
    let mut say = |key: &'static str, value: Option<&[u8]>| {
        if value.is_some() {
            object.bytes(key, value);
            ours.push(&key[1..]);
        }
    };
    let usual = if record.container.is_some() { DAEMON } else { USER };
    if record.container.is_some() {
        say("_container_id", Some(record.container_id().unwrap_or_default()));
        say("_container_name", Some(record.container_name().unwrap_or_default()));
        say("_image_name", Some(record.image_name().unwrap_or_default()));
        say("_tag", Some(record.tag.as_deref().unwrap_or_default()));
    } else {
        say("_app_name", record.app_name.map(|name| name.written()).as_deref());
        say("_tag", record.tag.as_deref());
    }
    say("_proc_id", record.own_proc_id().map(|proc_id| proc_id.written()).as_deref());
    say("_msg_id", record.msg_id.map(|msg_id| msg_id.written()).as_deref());
    let facility = FACILITIES.get(usize::from(record.facility)).filter(|_| record.facility != usual);
    say("_facility", facility.map(|name| name.as_bytes()));
    let stream = record.source.filter(|source| Some(*source) != source_of(record));
    say("_stream", stream.map(|source| source.as_str().as_bytes()));
    say("_peer", record.peer.map(|peer| peer.to_string()).as_deref().map(str::as_bytes));
    say("_structured_data", foreign_text(record, sd_id).as_deref());
    ours.push("escaped");
    for (name, value) in with_own_names(&record.fields.flattened(), legal, |name| ours.contains(&name)) {
        let is_number =
            matches!(value, Value::Json(json) if json.as_str().starts_with(|c: char| c == '-' || c.is_ascii_digit()));
        object.value(&format!("_{name}"), value, is_number);
    }
    let escaped = object.take_escaped();
    if !escaped.is_empty() {
        object.text("_escaped", &escaped.join(","));
    }
    object.end();
}

/// The container's stream that the level stands for.
fn source_of(record: &Record<'_>) -> Option<Source> {
    match record.severity {
        6 if record.container.is_some() => Some(Source::Stdout),
        3 if record.container.is_some() => Some(Source::Stderr),
        _ => None,
    }
}

/// The time as a decimal number. `None`: the line has none, or a time before 1970, which receivers ignore.
fn seconds(record: &Record<'_>) -> Option<String> {
    let micros = record.time()?.0;
    let (seconds, micros) = (u64::try_from(micros.div_euclid(1_000_000)).ok()?, micros.rem_euclid(1_000_000));
    Some(match record.nanoseconds {
        0 => format!("{seconds}.{micros:06}"),
        nanoseconds => format!("{seconds}.{micros:06}{nanoseconds:03}"),
    })
}

/// A name in the characters that Graylog accepts.
pub(super) fn legal(name: &str) -> Cow<'_, str> {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if name.chars().all(is_legal) { name.into() } else { name.replace(|c| !is_legal(c), "_").into() }
}

/// Splits a payload into datagrams of up to `max` bytes. `id` must be unique to the message. `None`: more chunks would be needed than a
/// message may have.
pub fn datagrams(payload: Vec<u8>, id: u64, max: usize) -> Option<Vec<Vec<u8>>> {
    if payload.len() <= max {
        return Some(vec![payload]);
    }
    let chunks = payload.chunks(max - HEAD);
    let count = u8::try_from(chunks.len()).ok().filter(|count| usize::from(*count) <= MAX_CHUNKS)?;
    let datagram = |(number, data): (u8, &[u8])| [&MAGIC, &id.to_be_bytes()[..], &[number, count], data].concat();
    Some((0..count).zip(chunks).map(datagram).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &[u8], expected: &str) {
        let mut out = b"before".to_vec();
        append(&Record::from_line(line, "docker@32473"), "docker@32473", &mut out);
        assert_eq!(String::from_utf8_lossy(&out), format!("before{expected}"));
    }

    #[test]
    fn a_container_s_line_is_what_docker_s_driver_would_send() {
        check(
            b"<27>1 2026-11-28T21:37:21.25Z n7 web 2a9052a5c36e - [docker@32473 image=\"nginx:1.25\" name=\"web\" id=\"2a9052a5c36e\"]\
              [fields@32473 team=\"shop\"][json@32473 fields=\"{\\\"took\\\":1.50,\\\"ok\\\":true,\\\"a b\\\":\\\"c\\\"}\"]\
              [logferry@32473 tag=\"t\" driver=\"gelf\" source=\"stderr\" nanoseconds=\"7\"] it\x00 broke\nhere",
            "{\"version\":\"1.1\",\"host\":\"n7\",\"short_message\":\"it\\u0000 broke\\nhere\",\"timestamp\":1795901841.250000007,\
             \"level\":3,\"_container_id\":\"2a9052a5c36e\",\"_container_name\":\"web\",\"_image_name\":\"nginx:1.25\",\"_tag\":\"t\",\
             \"_team\":\"shop\",\"_took\":1.50,\"_ok\":\"true\",\"_a_b\":\"c\"}",
        );
    }

    #[test]
    fn what_docker_s_driver_does_not_know_has_names_of_its_own() {
        check(
            b"<165>1 - - cron 812 ID7 [a@1 b=\"c\"][fields@32473 id=\"1\" facility=\"2\"] caf\xe9\\",
            "{\"version\":\"1.1\",\"host\":\"-\",\"short_message\":\"caf\\\\xe9\\\\\\\\\",\"level\":5,\"_app_name\":\"cron\",\
             \"_proc_id\":\"812\",\"_msg_id\":\"ID7\",\"_facility\":\"local4\",\"_structured_data\":\"[a@1 b=\\\"c\\\"]\",\
             \"_id_\":\"1\",\"_facility_\":\"2\",\"_escaped\":\"short_message\"}",
        );
        check(
            b"<13>1 1969-12-31T23:59:59Z - - - - -  ",
            "{\"version\":\"1.1\",\"host\":\"-\",\"short_message\":\"-\",\"level\":5}",
        );
    }

    #[test]
    fn a_payload_is_cut_into_chunks() {
        let max = 8192;
        for (len, count) in
            [(0, 1), (max, 1), (max + 1, 2), (2 * (max - HEAD), 2), (MAX_CHUNKS * (max - HEAD), MAX_CHUNKS)]
        {
            let payload: Vec<u8> = (0..len).map(|at| at as u8).collect();
            let datagrams = datagrams(payload.clone(), 0x0102_0304_0506_0708, max).expect("few enough");
            assert_eq!(datagrams.len(), count, "{len}");
            assert!(datagrams.iter().all(|datagram| datagram.len() <= max));
            if count > 1 {
                assert!(datagrams[1].starts_with(&[0x1e, 0x0f, 1, 2, 3, 4, 5, 6, 7, 8, 1, count as u8]));
                assert_eq!(
                    datagrams.iter().flat_map(|datagram| &datagram[HEAD..]).copied().collect::<Vec<_>>(),
                    payload
                );
            }
        }
        assert_eq!(datagrams(vec![0; MAX_CHUNKS * (max - HEAD) + 1], 1, max), None);
        assert_eq!(datagrams(vec![0; 100_000], 1, HEAD + 1), None);
    }
}
