//! `corpus`: recordings of `systemd-journal-upload`. `hostile`: bodies of hostile senders. `cursors`: entries that come again. Here: the
//! record of an entry.

mod corpus;
mod cursors;
mod hostile;

use proptest::collection::vec;
use proptest::prelude::*;

use super::properties::{self, any_body, any_cut};
use super::*;
use crate::record::{HeaderField, Record, Source, Stamp, UnixMicros, Value, stamp_text};

const RECEIVED: UnixMicros = UnixMicros(1_796_000_000_000_000);
const MAX_MESSAGE: usize = 64 << 10;

/// Checks the record of an entry whose fields are lines of text.
#[track_caller]
fn check(fields: &[&str], expected: impl FnOnce(&Record<'_>)) {
    let body = fields.join("\n") + "\n\n";
    any_cut(body.as_bytes(), MAX_MESSAGE, &[body.len() / 2]);
    any_body(body.as_bytes(), MAX_MESSAGE);
    let (mut reader, mut expected) = (ExportReader::new(MAX_MESSAGE), Some(expected));
    let fed = reader.feed(body.as_bytes(), &mut |entry| {
        expected.take().expect("one entry")(&entry.record(RECEIVED));
    });
    assert_eq!((fed, reader.finish(), expected.is_none()), (Ok(()), Ok(()), true), "{body}");
}

fn text(text: Option<&[u8]>) -> &str {
    text.map_or("-", |text| std::str::from_utf8(text).expect("text"))
}

/// HOSTNAME, APP-NAME, PROCID and MSGID.
fn header(record: &Record<'_>) -> String {
    let fields = [record.hostname, record.app_name, record.proc_id, record.msg_id];
    fields.map(|field| String::from_utf8(HeaderField::or_nil(field).into_owned()).expect("text")).join(" ")
}

fn fields(record: &Record<'_>) -> String {
    let shown = |value: &Value<'_>| match value {
        Value::Text(text) => text.escape_ascii().to_string(),
        Value::Json(json) => json.as_str().to_owned(),
    };
    let fields: Vec<_> = record.fields.iter().map(|field| format!("{}={}", field.name, shown(&field.value))).collect();
    fields.join(" ")
}

#[test]
fn who_and_when_is_the_header() {
    let lines = [
        "__CURSOR=c",
        "__REALTIME_TIMESTAMP=1795898357000001",
        "_SOURCE_REALTIME_TIMESTAMP=1795898357000000",
        "_HOSTNAME=node-7",
        "SYSLOG_IDENTIFIER=sshd",
        "_COMM=sshd",
        "SYSLOG_PID=811",
        "_PID=811",
        "MESSAGE_ID=39f53479d3a045ac8e11786248231fbf",
        "PRIORITY=4",
        "SYSLOG_FACILITY=10",
        "_SYSTEMD_UNIT=ssh.service",
        "_CAP_EFFECTIVE=0",
        "MESSAGE=hello = x",
    ];
    check(&lines, |record| {
        assert_eq!(header(record), "node-7 sshd 811 39f53479d3a045ac8e11786248231fbf");
        assert_eq!((record.facility, record.severity, text(record.message)), (10, 4, "hello = x"));
        assert_eq!(record.stamp_text(), "2026-11-28T20:39:17.000000Z");
        assert_eq!(fields(record), "_SYSTEMD_UNIT=ssh.service");
        assert_eq!((&record.container, text(record.driver.as_deref()), &record.tag), (&None, "journal", &None));
    });
    check(&["_COMM=cat", "_PID=7", "__REALTIME_TIMESTAMP=1795898357000001", "MESSAGE="], |record| {
        assert_eq!((header(record).as_str(), fields(record).as_str()), ("- cat 7 -", ""));
        assert_eq!((record.facility, record.severity, record.message), (1, 6, Some(&b""[..])));
        assert_eq!(record.stamp_text(), "2026-11-28T20:39:17.000001Z");
    });
    // The second field of a pair stays a field where the values differ.
    check(&["SYSLOG_IDENTIFIER=sudo", "_COMM=su", "SYSLOG_PID=7", "_PID=8"], |record| {
        assert_eq!((header(record).as_str(), fields(record).as_str()), ("- sudo 7 -", "_COMM=su _PID=8"));
        assert_eq!((&record.timestamp, record.message), (&Some(Stamp::Received(RECEIVED)), None));
    });
}

#[test]
fn what_is_not_what_it_should_be_stays_a_field() {
    let lines = ["PRIORITY=8", "SYSLOG_FACILITY=24", "MESSAGE=a", "MESSAGE=b", "SYSLOG_IDENTIFIER=a b", "_PID="];
    check(&lines, |record| {
        assert_eq!((record.facility, record.severity, text(record.message)), (1, 6, "a"));
        assert_eq!(header(record), "- a_b - -");
        assert_eq!(fields(record), "PRIORITY=8 SYSLOG_FACILITY=24 MESSAGE=b SYSLOG_IDENTIFIER=a b _PID=");
    });
    check(&["_HOSTNAME=nöde", "MESSAGE_ID=more than 32 characters of something", "PRIORITY="], |record| {
        assert_eq!(header(record), "n__de - - more_than_32_characters_of_somet");
        assert_eq!(text(record.original_host.as_deref()), "nöde");
        assert_eq!(fields(record), "MESSAGE_ID=more than 32 characters of something PRIORITY=");
    });
    let long = "x".repeat(60);
    check(&[&format!("SYSLOG_IDENTIFIER={long}"), &format!("_PID={}", "1".repeat(200))], |record| {
        assert_eq!(header(record), format!("- {} {} -", "x".repeat(48), "1".repeat(128)));
        assert_eq!(fields(record), format!("SYSLOG_IDENTIFIER={long} _PID={}", "1".repeat(200)));
    });
    for (source, own, stamp, unread) in [
        ("yesterday", "1795898357000001", "2026-11-28T20:39:17.000001Z", "-"),
        ("+1", "18446744073709551615", "2026-11-30T00:53:20.000000Z", "+1"),
        ("", "999999999999999999999", "2026-11-30T00:53:20.000000Z", ""),
        ("253402300799999999", "0", "9999-12-31T23:59:59.999999Z", "-"),
    ] {
        let lines = [format!("_SOURCE_REALTIME_TIMESTAMP={source}"), format!("__REALTIME_TIMESTAMP={own}")];
        check(&[&lines[0], &lines[1], "MESSAGE=x"], |record| {
            assert_eq!(record.timestamp.as_ref().map(stamp_text).as_deref(), Some(stamp));
            assert_eq!(text(record.unread_stamp.as_deref()), unread);
        });
    }
}

#[test]
fn only_the_kernel_is_of_facility_kern() {
    check(&["SYSLOG_FACILITY=0", "MESSAGE=x", "_TRANSPORT=kernel"], |record| {
        assert_eq!((record.facility, fields(record).as_str()), (0, "_TRANSPORT=kernel"));
    });
    check(&["SYSLOG_FACILITY=0", "MESSAGE=x", "_TRANSPORT=journal"], |record| {
        assert_eq!((record.facility, fields(record).as_str()), (1, "SYSLOG_FACILITY=0 _TRANSPORT=journal"));
    });
}

#[test]
fn a_container_is_as_other_drivers_have_it() {
    let id = "2a9052a5c36e".repeat(6)[..64].to_owned();
    let (full, short) = (format!("CONTAINER_ID_FULL={id}"), "CONTAINER_ID=2a9052a5c36e");
    let others = ["_COMM=dockerd", "_PID=7", "_SYSTEMD_UNIT=docker.service", "LABEL=x"];
    let named = ["CONTAINER_NAME=web", "IMAGE_NAME=nginx:1", "CONTAINER_TAG=t/web", "SYSLOG_IDENTIFIER=t/web"];
    check(&[&[&full, short, "PRIORITY=3"], &others[..], &named].concat(), |record| {
        assert_eq!(header(record), format!("- web {id} -"));
        assert_eq!((record.facility, record.severity, record.source), (3, 3, Some(Source::Stderr)));
        assert_eq!((text(record.container_id()), text(record.container_name())), (id.as_str(), "web"));
        assert_eq!((text(record.image_name()), text(record.tag.as_deref())), ("nginx:1", "t/web"));
        assert_eq!(fields(record), "_SYSTEMD_UNIT=docker.service LABEL=x");
    });
    // Podman's entries have no tag, and the name in its place.
    check(&[&full, short, "PRIORITY=6", "CONTAINER_NAME=web", "SYSLOG_IDENTIFIER=web"], |record| {
        assert_eq!((header(record), fields(record)), (format!("- web {id} -"), String::new()));
        assert_eq!((record.source, &record.tag), (Some(Source::Stdout), &None));
    });
    // A label may put any text in the place of each.
    check(&["CONTAINER_ID_FULL=x", short, "PRIORITY=5", "CONTAINER_NAME=", "SYSLOG_IDENTIFIER=y"], |record| {
        assert_eq!(header(record), "- 2a9052a5c36e 2a9052a5c36e -");
        assert_eq!(fields(record), "CONTAINER_ID_FULL=x CONTAINER_NAME= SYSLOG_IDENTIFIER=y");
        assert_eq!((record.source, text(record.container_name())), (None, "-"));
    });
    check(&[&full, "CONTAINER_ID=0123456789ab"], |record| {
        assert_eq!((text(record.container_id()), fields(record).as_str()), (id.as_str(), "CONTAINER_ID=0123456789ab"));
    });
    check(&["CONTAINER_ID=mesos.1", "CONTAINER_NAME=web", "SYSLOG_IDENTIFIER=executor"], |record| {
        assert_eq!((&record.container, record.facility), (&None, 1));
        assert_eq!(fields(record), "CONTAINER_ID=mesos.1 CONTAINER_NAME=web");
    });
}

#[test]
fn a_joiner_is_told_which_parts_belong_together() {
    let check = |lines: &[&str], expected: Option<Part<'_>>| {
        let body = lines.join("\n") + "\nMESSAGE=x\n\n";
        let fed = ExportReader::new(MAX_MESSAGE).feed(body.as_bytes(), &mut |entry| assert_eq!(entry.part(), expected));
        assert_eq!(fed, Ok(()));
    };
    let [goes_on, id, ordinal] =
        ["CONTAINER_PARTIAL_MESSAGE=true", "CONTAINER_PARTIAL_ID=ab", "CONTAINER_PARTIAL_ORDINAL=2"];
    let part = |ordinal, is_last| Some(Part { id: Some(b"ab"), ordinal, is_last });
    check(&[], None);
    check(&[goes_on, id, ordinal, "CONTAINER_PARTIAL_LAST=false"], part(Some(2), false));
    check(&[id, ordinal, "CONTAINER_PARTIAL_LAST=true"], part(Some(2), true));
    check(&[id, ordinal], part(Some(2), true));
    check(&[goes_on, id, "CONTAINER_PARTIAL_ORDINAL=x", "CONTAINER_PARTIAL_LAST=true"], part(None, true));
    check(&[goes_on], Some(Part { id: None, ordinal: None, is_last: false }));
    check(&["CONTAINER_PARTIAL_MESSAGE=no"], None);
}

/// Meaningful lines, mixed with arbitrary bytes.
fn likely_bytes() -> impl Strategy<Value = Vec<u8>> {
    let lines: [&[u8]; 16] = [
        b"\n",
        b"\n\n",
        b"MESSAGE=a\n",
        b"MESSAGE\n\x03\0\0\0\0\0\0\0a\nb\n",
        b"MESSAGE\n\0\0\0\0\0\0\0\0\n",
        b"_BOOT_ID=1\n",
        b"__CURSOR=s=1;i=2\n",
        b"__REALTIME_TIMESTAMP=1795898357000001\n",
        b"PRIORITY=3\n",
        b"SYSLOG_IDENTIFIER=\xff \n",
        b"CONTAINER_ID=2a9052a5c36e\n",
        b"CONTAINER_PARTIAL_ID=1\n",
        b"FIELD=",
        b"lower=case\n",
        b"BLOB\n\x05\0\0\0\0\0\0\0",
        b"=\n",
    ];
    let piece = prop_oneof![4 => proptest::sample::select(lines.to_vec()).prop_map(<[u8]>::to_vec), 1 => vec(any::<u8>(), 0..80)];
    vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// The input of the fuzz target, with likely bytes.
    #[test]
    fn whatever_comes_is_the_same_however_it_is_cut(
        max in 0..254_u8, cuts in vec(any::<u8>(), 0..8), body in likely_bytes(),
    ) {
        properties::any_bytes(&[&[max, cuts.len() as u8][..], &cuts, &body].concat());
    }

    #[test]
    fn whatever_senders_do_nothing_is_known_that_was_not_taken(steps in vec((0..2_u8, 0..64_u8, 0..24_u8), 0..200)) {
        let steps: Vec<u8> = steps.into_iter().flat_map(|(who, what, number)| [who << 6 | what, number]).collect();
        properties::any_senders(&steps);
    }
}
