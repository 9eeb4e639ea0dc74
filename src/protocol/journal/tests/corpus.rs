//! Recordings of `systemd-journal-upload` with journals whose entries are known: `tests/corpus-journal`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::test_runner::TestRunner;

use super::super::properties::{Found, any_body, entries};
use super::*;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus-journal")
}

/// The bodies of a connection's requests, and whether the last one is complete.
fn bodies(connection: &[u8]) -> (Vec<Vec<u8>>, bool) {
    let mut all = Vec::new();
    let mut rest = connection;
    while !rest.is_empty() {
        let head = memchr::memmem::find(rest, b"\r\n\r\n").expect("a head");
        let text = std::str::from_utf8(&rest[..head]).expect("text");
        assert!(text.starts_with(&format!("POST {PATH} HTTP/1.1\r\n")) && text.contains("Transfer-Encoding: chunked"));
        assert!(text.contains(&format!("Content-Type: {CONTENT_TYPE}\r\n")), "{text}");
        assert!(text.ends_with("\r\nExpect: 100-continue"), "{text}");
        rest = &rest[head + 4..];
        let mut body = Vec::new();
        while let Some(end) = memchr::memmem::find(rest, b"\r\n") {
            let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).expect("text"), 16).expect("a size");
            let chunk = &rest[end + 2..];
            let Some(after) = chunk.get(size + 2..) else {
                body.extend_from_slice(chunk);
                all.push(body);
                return (all, false);
            };
            body.extend_from_slice(&chunk[..size]);
            rest = after;
            if size == 0 {
                break;
            }
        }
        all.push(body);
    }
    (all, true)
}

fn connections() -> BTreeMap<String, (Vec<Vec<u8>>, bool)> {
    let files = fs::read_dir(folder()).expect("the corpus").map(|entry| entry.expect("a file").path());
    let connection = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.strip_suffix(".http")?.to_owned();
        Some((name, bodies(&fs::read(path).expect("a file"))))
    };
    let all: BTreeMap<_, _> = files.filter_map(connection).collect();
    assert_eq!(all.len(), 7, "connections");
    all
}

fn requests(name: &str) -> Vec<Vec<u8>> {
    connections().remove(name).expect("a connection").0
}

/// The names and values of an entry.
type Said = Vec<(String, Vec<u8>)>;

/// The fields of the entries that a connection should have, in any order within an entry.
fn expected() -> BTreeMap<String, Vec<Said>> {
    let text = fs::read_to_string(folder().join("expected.jsonl")).expect("what is expected");
    let mut all: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let pairs: Vec<(String, String)> = serde_json::from_value(line["fields"].clone()).expect("pairs");
        let fields = pairs.into_iter().map(|(name, value)| (name, crate::record::unescape(&value)));
        let name = line["file"].as_str().and_then(|name| name.strip_suffix(".http")).expect("a file");
        all.entry(name.to_owned()).or_default().push(fields.collect());
    }
    assert_eq!(all.len(), 7, "connections");
    all
}

#[test]
fn every_entry_has_the_fields_that_it_was_written_with() {
    let (mut seen, mut binary) = (0, 0);
    for (name, (bodies, is_whole)) in connections() {
        let mut expected = expected().remove(&name).expect("entries").into_iter();
        for (nth, body) in bodies.iter().enumerate() {
            let (found, end) = entries(body, 1 << 20, []);
            let is_cut = !is_whole && nth + 1 == bodies.len();
            assert_eq!(end, if is_cut { Err(Refused::Unfinished) } else { Ok(()) }, "{name}");
            for Found { fields: mut found, left_out, cut } in found {
                let mut expected = expected.next().expect("an entry");
                let before = expected.len();
                // A field that is larger than all fields of a record together may be.
                expected.retain(|(name, value)| name == "MESSAGE" || value.len() <= 16_384);
                assert_eq!((cut, left_out as usize), (false, before - expected.len()), "{name}");
                assert!(found[0].0 == "__CURSOR" && Cursor::read(&found.remove(0).1).is_some());
                binary += found.iter().filter(|(_, value)| value.iter().any(u8::is_ascii_control)).count();
                found.sort();
                expected.sort();
                assert_eq!(found, expected, "{name}");
                seen += 1;
            }
        }
        // One entry has only its boot, and a cut request lacks some entries.
        let missing = expected.filter(|fields| fields.len() > 3).count();
        assert_eq!(missing > 0, !is_whole, "{name}: {missing}");
    }
    assert!(seen > 80 && binary >= 8, "{seen} entries, {binary} fields that are no line");
}

/// Calls `look` with each record of a body.
fn records(body: &[u8], look: &mut dyn FnMut(&Record<'_>, Entry<'_>)) {
    let mut reader = ExportReader::new(1 << 20);
    assert_eq!(reader.feed(body, &mut |entry| look(&entry.record(RECEIVED), entry)), Ok(()));
}

#[test]
fn the_entries_of_a_machine_are_records() {
    let mut shown = Vec::new();
    records(&requests("system")[0], &mut |record, _| {
        let message = record.message.map_or("none".into(), |message| message.escape_ascii().to_string());
        let fields: Vec<_> = record.fields.iter().map(|field| &*field.name).collect();
        let message: String = message.chars().take(50).collect();
        let pri = format!("{}.{}", record.facility, record.severity);
        shown.push(format!("{pri} {} | {message} | {}", header(record), fields.join(" ")));
        assert_eq!(record.time().map(|time| time.0 / 1_000_000 - 1_795_898_356 < 2), Some(true));
    });
    let of_process = "_MACHINE_ID _UID _COMM _EXE _CMDLINE _SYSTEMD_UNIT _TRANSPORT";
    let of_app = "_MACHINE_ID _UID _EXE _CMDLINE _SYSTEMD_UNIT _TRANSPORT";
    let check = |nth: usize, header: &str, message: &str, fields: &[&str]| {
        let mut parts = shown[nth].splitn(3, " | ");
        assert_eq!((parts.next(), parts.next()), (Some(header), Some(message)), "{nth}");
        let mut found: Vec<_> = parts.next().expect("fields").split(' ').collect();
        let mut expected: Vec<_> = fields.iter().flat_map(|names| names.split(' ')).chain(["_BOOT_ID"]).collect();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{nth}");
    };
    check(0, "10.6 node-7 sshd 811 -", "Server listening on 0.0.0.0 port 22.", &[of_app]);
    let devices = "_KERNEL_SUBSYSTEM _KERNEL_DEVICE _UDEV_SYSNAME _UDEV_DEVLINK _UDEV_DEVLINK";
    let kernel = "_MACHINE_ID _TRANSPORT";
    check(1, "0.4 node-7 kernel - -", "sd 0:0:0:0: [sda] Attached SCSI disk", &[devices, kernel]);
    let unit = "UNIT JOB_ID CODE_FILE CODE_LINE";
    let started = r"Started app \xe2\x80\x93 serves.";
    check(2, "3.6 node-7 systemd 1 39f53479d3a045ac8e11786248231fbf", started, &[of_app, unit]);
    check(3, "3.6 node-7 app 4711 -", "a line of stdout = one entry", &[of_app]);
    check(4, "1.3 node-7 app 4711 -", r"Traceback:\n  at a\n  at b", &[of_app]);
    check(5, "3.5 node-7 app 4711 -", r"\x1b[31mred\x1b[0m\ttab", &[of_app]);
    check(6, "3.6 node-7 app 4711 -", r"latin1 caf\xe9, nul [\x00], equals a=b", &[of_app]);
    check(7, "3.6 node-7 app 4711 -", "", &[of_app]);
    check(8, "1.6 node-7 app 4711 -", "none", &[of_app, "EVENT COUNT"]);
    check(9, "1.6 node-7 app 4711 -", "no priority", &[of_app, "BLOB SYSLOG_FACILITY"]);
    check(10, "1.2 node-7 app 4711 -", "Process 4711 (app) dumped core.", &[of_app, "COREDUMP_PID"]);
    check(11, "1.6 node-7 app 4711 -", &format!("long {}", "x".repeat(45)), &[of_app]);
    let audit = "_MACHINE_ID _TRANSPORT _UID _AUDIT_TYPE _AUDIT_TYPE_NAME _AUDIT_FIELD_UNIT _AUDIT_LOGINUID";
    check(12, "4.6 node-7 audit - -", "SERVICE_START pid=1 uid=0 auid=1000", &[audit]);
    let message: String = shown[13].chars().skip("3.6 node-7 containerd 620 - | ".len()).take(50).collect();
    check(13, "3.6 node-7 containerd 620 -", &message, &[of_app]);
    let message = r#"time=\"2026-11-28T20:39:18.000000123Z\" level=warn"#;
    check(14, "1.4 node-7 kata 5120 -", message, &[of_process, "_PID"]);
    let podman = "_MACHINE_ID _SYSTEMD_UNIT _TRANSPORT CONTAINER_PARTIAL_MESSAGE";
    let id = "2a9052a5c36e".repeat(5) + "abcd";
    check(15, &format!("3.6 node-7 web {id} -"), "half of ", &[podman]);
    assert_eq!(shown.len(), 16);
}

/// Entries that Docker's driver sent to journald are read as `tests/corpus-drivers` says.
#[test]
fn the_lines_of_docker_s_driver_are_those_of_its_containers() {
    let index = fs::read_to_string(folder().join("../corpus-drivers/index.tsv")).expect("the index");
    let mut lines = index.split_terminator('\n').map(|line| line.split('\t'));
    let names: Vec<_> = lines.next().expect("a head").collect();
    let rows: Vec<BTreeMap<&str, &str>> = lines
        .map(|row| names.iter().copied().zip(row).collect())
        .filter(|row: &BTreeMap<_, _>| row["driver"] == "journald")
        .collect();
    let mut rows_left = rows.iter();
    let mut parts = Vec::new();
    records(&requests("docker")[0], &mut |record, entry| {
        let row = rows_left.next().expect("a row");
        let message = if row["exp_message"] == "(empty)" { "" } else { row["exp_message"] };
        assert_eq!(record.message, Some(&*crate::record::unescape(message)), "{row:?}");
        assert_eq!(text(record.tag.as_deref()), row["exp_tag"], "{row:?}");
        assert_eq!(record.source.map_or("-", Source::as_str), row["exp_source"], "{row:?}");
        assert_eq!(text(record.image_name()), row["exp_image"], "{row:?}");
        assert_eq!(text(record.container_name()), row["exp_name"], "{row:?}");
        assert_eq!(text(record.container_id()), row["exp_id"], "{row:?}");
        let severity = if row["exp_source"] == "stderr" { 3 } else { 6 };
        assert_eq!((record.facility, record.severity), (3, severity), "{row:?}");
        let extra = if row["exp_extra"] == "-" { "{}" } else { row["exp_extra"] };
        let extra: BTreeMap<String, String> = serde_json::from_str(extra).expect("JSON");
        let is_own = |name: &str| name.starts_with('_') || name.starts_with("CONTAINER_PARTIAL_");
        let fields = record.fields.iter().filter(|field| !is_own(&field.name)).map(|field| match &field.value {
            Value::Text(value) => (field.name.to_string(), String::from_utf8(value.to_vec()).expect("text")),
            Value::Json(_) => panic!("{row:?}"),
        });
        assert_eq!(fields.collect::<BTreeMap<_, _>>(), extra, "{row:?}");
        let part = entry.part();
        assert_eq!(part.is_some(), row["partial"] != "-", "{row:?}");
        parts.extend(part.map(|part| (text(part.id).to_owned(), part.ordinal, part.is_last)));
    });
    assert_eq!((rows.len(), rows_left.count()), (10, 0));
    let id = "1378bc8cfd572bc5e114fa388f1a3c6eee43bb6b097f702e84df12c94cb52974".to_owned();
    assert_eq!(parts, [(id.clone(), Some(1), false), (id, Some(2), true)]);
}

/// The numbers of the new lines in a connection's only request. The spool takes each line.
fn taken(cursors: &mut Cursors, name: &str) -> (Upload, Vec<u32>) {
    let (bodies, is_whole) = connections().remove(name).expect("a connection");
    let [body] = &bodies[..] else { panic!("{name} has several requests") };
    let mut upload = cursors.begin("192.0.2.7".parse().expect("an address"));
    let (mut reader, mut new) = (ExportReader::new(1 << 20), Vec::new());
    for piece in body.chunks(1000) {
        let fed = reader.feed(piece, &mut |entry| {
            let message = text(entry.get("MESSAGE"));
            if cursors.take(&mut upload, entry.get("__CURSOR").and_then(Cursor::read)) {
                new.push(message.strip_prefix("line ").and_then(|number| number.parse().ok()).expect("a line"));
            }
        });
        assert_eq!(fed, Ok(()));
        cursors.spooled(&upload.batch());
    }
    assert_eq!(reader.finish().is_ok(), is_whole);
    (upload, new)
}

/// Three requests of one uploader that was restarted before each.
#[test]
fn lines_that_come_again_are_taken_once() {
    let mut cursors = Cursors::default();
    let (upload, new) = taken(&mut cursors, "again-1-answered");
    assert_eq!(new, [1, 2, 3]);
    cursors.answered(&upload);
    cursors.confirmed(&upload);
    // The request begins with the last entry that was answered.
    let (_, new) = taken(&mut cursors, "again-2-cut");
    let last = 3 + new.len() as u32;
    assert!(new.iter().copied().eq(4..=last) && (10..25).contains(&last), "{new:?}");
    let (upload, new) = taken(&mut cursors, "again-3-answered");
    assert!(new.iter().copied().eq(last + 1..=33), "{new:?}");
    cursors.answered(&upload);
    // The same request again: the answer did not arrive.
    assert_eq!(taken(&mut cursors, "again-3-answered").1, [0; 0]);
    let (upload, new) = taken(&mut Cursors::default(), "again-3-answered");
    assert!(new.iter().copied().eq(3..=33) && upload.memory() < 1000);
}

#[test]
fn entries_of_two_machines_come_interleaved() {
    let mut cursors = Cursors::default();
    assert_eq!(taken(&mut cursors, "merged").1, [1, 2, 101, 3, 102, 4, 103, 104]);
    assert_eq!(taken(&mut cursors, "merged").1, [0; 0]);
}

/// Cuts a request with one binary field at every two places, with a limit that its messages fit in and one that they exceed.
#[test]
fn no_two_cuts_change_an_entry() {
    let start = b"MESSAGE\n\x03\0\0\0\0\0\0\0a\nb\nPRIORITY=3\n\nMESSAGE=next\n\n";
    let body = &requests("again-1-answered")[0];
    for (body, step) in [(&start[..], 1), (&body[..], 29)] {
        for limit in [2, 1000] {
            let whole = entries(body, limit, []);
            for first in (0..=body.len()).step_by(step) {
                for second in (0..=body.len() - first).step_by(step) {
                    assert_eq!(entries(body, limit, [first, second]), whole, "{first}, {second}");
                }
            }
        }
    }
}

#[test]
fn no_cuts_and_no_damage_change_an_entry() {
    let all: Vec<_> = connections().into_values().flat_map(|(bodies, _)| bodies).collect();
    let damage = vec((0_usize..40_000, any::<u8>()), 0..4);
    let cuts = (0..all.len(), vec(0_usize..9000, 0..8), damage, 0_usize..20_000);
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() });
    let ran = runner.run(&cuts, |(at, cuts, damage, limit)| {
        let mut body = all[at].clone();
        for (place, byte) in damage {
            let place = place % body.len();
            body[place] = byte;
        }
        any_cut(&body, limit, &cuts);
        any_body(&body, limit);
        Ok(())
    });
    ran.expect("nothing panics, and no cut changes anything");
}
