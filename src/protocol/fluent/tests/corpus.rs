//! Every row of `tests/corpus-drivers` that was recorded from the Forward protocol.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::super::properties::{End, any_array, any_cut, arrays};
use super::super::{BadFrame, Batch, Event, Mode, append_ack};
use super::{LIMITS, RECEIVED};
use crate::protocol::properties;
use crate::protocol::session::ToRecord;
use crate::protocol::syslog::Settings;
use crate::protocol::tests::{self as corpus, Row, unescape};
use crate::record::{Record, Source, Stamp, Value, stamp_text};

const LIMIT: usize = 1 << 20;

/// The rows of Docker's `fluentd` driver and of Fluent Bit's `forward` output.
fn rows() -> Vec<Row> {
    let is_wanted = |row: &Row| row["file"].starts_with("fluentd-") || row["file"].starts_with("fluentbit-forward-");
    corpus::rows(206, is_wanted)
}

/// Whole connections by the names of their files.
fn streams() -> BTreeMap<String, Vec<u8>> {
    let names = rows().into_iter().map(|row| row["file"].clone());
    names.map(|name| (name.clone(), corpus::file(&name))).collect()
}

#[test]
fn every_row_is_read_as_it_says() {
    let streams = streams();
    let mut entries = 0;
    for row in rows() {
        let array = corpus::sent(&row, &streams[&row["file"]]);
        any_array(array);
        let mut inflated = Vec::new();
        let batch = Batch::read(array, LIMITS, &mut inflated);
        let (mode, place) = row["framing"].split_once(", entry ").unwrap_or((&row["framing"], "1 of 1"));
        let mode = match mode {
            "msgpack Message" | "Message" => Mode::Message,
            "Forward" => Mode::Forward,
            "CompressedPackedForward" => Mode::CompressedPackedForward,
            _ => {
                assert_eq!((mode, batch), ("PING", Err(BadFrame::Elements)), "{row:?}");
                continue;
            }
        };
        let batch = batch.unwrap_or_else(|bad| panic!("{bad}: {row:?}"));
        assert_eq!(batch.mode, mode, "{row:?}");
        let (place, count) = place.split_once(" of ").expect("a place");
        assert_eq!(batch.entries().flatten().count(), count.parse::<usize>().expect("a number"), "{row:?}");
        let entry = batch.entries().flatten().nth(place.parse::<usize>().expect("a number") - 1).expect("an entry");
        let settings = Settings { hostname: "relay-1".to_owned(), ..Settings::default() };
        check(&row, &batch, &Event::new(batch.tag, entry, usize::MAX).to_record(&settings, RECEIVED));
        entries += 1;
    }
    assert_eq!(entries, 204);
}

fn check(row: &Row, batch: &Batch<'_>, record: &Record<'_>) {
    let expected = |name: &str| unescape(&row[name]);
    assert_eq!(record.tag.as_deref(), expected("exp_tag").as_deref(), "{row:?}");
    assert_eq!(record.message, expected("exp_message").as_deref(), "{row:?}");
    assert_eq!(record.message.unwrap_or_default().len().to_string(), row["exp_message_len"], "{row:?}");
    assert_eq!(record.image_name(), expected("exp_image").as_deref(), "{row:?}");
    assert_eq!(record.container_name(), expected("exp_name").as_deref(), "{row:?}");
    assert_eq!(record.container_id(), expected("exp_id").as_deref(), "{row:?}");
    assert_eq!(record.hostname, None, "{row:?}");
    let pri = if row["exp_source"] == "stderr" { 27 } else { 30 };
    assert_eq!(record.facility * 8 + record.severity, pri, "{row:?}");
    check_time(row, record);
    assert_eq!(batch.chunk, expected("chunk").as_deref(), "{row:?}");
    if let Some(chunk) = batch.chunk {
        let mut answer = Vec::new();
        append_ack(chunk, &mut answer);
        assert_eq!(answer, [b"\x81\xa3ack", &[0xa0 | chunk.len() as u8][..], chunk].concat(), "{row:?}");
    }

    let mut fields = fields(record);
    // A source that a label has overwritten is not a container's stream.
    if let Some(source) = record.source.map(Source::as_str) {
        fields.insert("source".to_owned(), source.into());
    }
    let source = fields.remove("source");
    assert_eq!(source.as_ref().map_or("-", |source| source.as_str().expect("text")), row["exp_source"], "{row:?}");
    let partial = ["id", "ordinal", "last"].map(|name| fields.remove(&format!("partial_{name}")));
    fields.remove("partial_message");
    if row["partial"] == "-" {
        // A label may have the name of the third key.
        assert_eq!(partial[..2], [None, None], "{row:?}");
    } else {
        let part: serde_json::Value = serde_json::from_str(&row["partial"]).expect("JSON");
        let text = ["id", "ordinal", "last"].map(|name| Some(part[name].to_string().trim_matches('"').into()));
        assert_eq!(partial, text, "{row:?}");
    }
    let extra = if row["exp_extra"] == "-" { "{}" } else { &row["exp_extra"] };
    let mut extra: serde_json::Map<_, _> = serde_json::from_str(extra).expect("JSON");
    // A label that is larger than all fields of a record may be.
    let too_large = |value: &serde_json::Value| value.as_str().is_some_and(|text| text.len() > 16_384);
    let before = extra.len();
    extra.retain(|_, value| !too_large(value));
    assert_eq!(record.fields.left_out() as usize, before - extra.len(), "{row:?}");
    assert_eq!(fields, extra, "{row:?}");
}

fn check_time(row: &Row, record: &Record<'_>) {
    assert!(matches!(record.timestamp, Some(Stamp::Respelt(_))), "{row:?}");
    let stamp = record.timestamp.as_ref().map(stamp_text).expect("a stamp");
    let stamp = chrono::DateTime::parse_from_rfc3339(&stamp).expect("a stamp");
    let nanoseconds = stamp.timestamp_subsec_nanos() + u32::from(record.nanoseconds);
    let (seconds, fraction) = row["exp_time"].split_once('.').unwrap_or((&row["exp_time"], "0"));
    assert_eq!(stamp.timestamp().to_string(), seconds, "{row:?}");
    assert_eq!(nanoseconds, fraction.parse::<u32>().expect("a number"), "{row:?}");
}

fn fields(record: &Record<'_>) -> serde_json::Map<String, serde_json::Value> {
    let value = |value: &Value<'_>| match value {
        Value::Text(text) => String::from_utf8_lossy(text).into(),
        Value::Json(json) => serde_json::from_str(json.as_str()).expect("JSON"),
    };
    record.fields.iter().map(|field| (field.name.to_string(), value(&field.value))).collect()
}

#[test]
fn the_arrays_of_a_stream_are_those_of_its_rows() {
    let mut expected: BTreeMap<String, BTreeMap<usize, usize>> = BTreeMap::new();
    for row in rows() {
        let number = |name: &str| row[name].parse().expect("a number");
        expected.entry(row["file"].clone()).or_default().insert(number("offset"), number("length"));
    }
    for (name, stream) in streams() {
        let (found, end) = arrays(&stream, LIMIT, []);
        assert_eq!(end, End::Whole, "{name}");
        let lengths: Vec<_> = found.iter().map(Vec::len).collect();
        assert_eq!(lengths, expected[&name].values().copied().collect::<Vec<_>>(), "{name}");
    }
}

/// Tests short streams at every two cuts, with a limit that they fit in and one that they exceed.
#[test]
fn no_two_cuts_change_an_array() {
    let mut small = 0;
    for stream in streams().into_values() {
        // The stream gets a heartbeat in front of the first array and behind the last.
        if stream.len() > 240 || small == 4 {
            continue;
        }
        let stream = [&b"\xc0"[..], &stream, b"\xc0"].concat();
        small += 1;
        for limit in [120, LIMIT] {
            for first in 0..=stream.len() {
                for second in 0..=stream.len() - first {
                    any_cut(&stream, limit, &[first, second]);
                }
            }
        }
    }
    assert!(small == 4, "only {small} streams");
}

#[test]
fn no_cuts_change_the_arrays_of_a_long_stream() {
    let streams: Vec<_> = streams().into_values().collect();
    let cuts = (0..streams.len(), proptest::collection::vec(0_usize..3000, 0..8), 0_usize..40_000);
    let mut runner = TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() });
    let ran = runner.run(&cuts, |(at, cuts, limit)| {
        any_cut(&streams[at], limit, &cuts);
        Ok(())
    });
    ran.expect("no cut changes anything");
}

/// The output of a session for a complete connection is the same for any cuts. Short streams are cut at every place.
#[test]
fn no_cuts_change_what_is_made_of_a_connection() {
    let now = std::time::Instant::now();
    let streams: Vec<_> = streams().into_values().filter(|stream| stream.len() < 5000).collect();
    assert!(streams.len() > 20, "only {} streams", streams.len());
    for stream in streams.iter().filter(|stream| stream.len() < 300) {
        (0..stream.len()).for_each(|cut| properties::any_cut(stream, 200, &[cut], now));
    }
    let cuts = (0..streams.len(), proptest::collection::vec(0_usize..1000, 0..8), 0_usize..5000);
    let mut runner = TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() });
    let ran = runner.run(&cuts, |(at, cuts, max_frame)| {
        properties::any_cut(&streams[at], max_frame, &cuts, now);
        Ok(())
    });
    ran.expect("no cut changes anything");
}

#[test]
fn what_is_damaged_is_read_or_refused() {
    let arrays: Vec<_> = streams().into_values().flat_map(|stream| arrays(&stream, LIMIT, []).0).collect();
    let small: Vec<_> = arrays.into_iter().filter(|array| array.len() < 1000).collect();
    let damage = (0..small.len(), proptest::collection::vec((0_usize..1000, any::<u8>()), 1..4), 0_usize..1000);
    let mut runner = TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() });
    let ran = runner.run(&damage, |(at, damage, cut)| {
        let mut array = small[at].clone();
        for (place, byte) in damage {
            let place = place % array.len();
            array[place] = byte;
        }
        any_cut(&array, 900, &[cut, 1]);
        any_array(&array);
        Ok(())
    });
    ran.expect("nothing panics, and a line says what its entry says");
}
