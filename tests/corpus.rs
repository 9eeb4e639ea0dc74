//! Every message of `tests/corpus`, sent by a real Docker Engine, passes through the pipeline: parse it, write the
//! canonical line, parse the line, render it.

#[path = "support/corpus.rs"]
mod corpus;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;

use corpus::{Row, rows};
use logferry::internals::protocol::framing::properties::any_cut;
use logferry::internals::protocol::syslog::{Frame, Senders, Settings, Shape, TagTemplates, Translator, parse};
use logferry::internals::record::{Container, Format, HeaderField, Record, Stamp, UnixMicros, render};

/// Messages that the default template cannot read correctly, and why. All others must be right with any template.
const UNREADABLE: [(&str, Wrong, &str); 2] = [
    (
        "oddtag-bracket-udp-default.raw",
        Wrong::Message,
        "the tag `a[1]: b` reads like the tag `a` and a text that starts with `b[11766]: `",
    ),
    ("oddtag-space-udp-default.raw", Wrong::Tag, "the tag `my app` reads like the tag `app` of the host `my`"),
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Wrong {
    /// Host and tag are wrong, the message is right.
    Tag,
    /// The message is wrong too.
    Message,
}

#[test]
fn with_the_template_they_were_sent_with() {
    for row in rows() {
        let template = match row.template.as_str() {
            // A template that cannot be matched backwards. The tag is the engine's result of it.
            "(unset)" | "{{if false}}x{{end}}" => TagTemplates::default(),
            template => template.parse().unwrap(),
        };
        check(&row, template, None);
    }
}

#[test]
fn with_the_default_template() {
    let rows = rows();
    for (file, ..) in UNREADABLE {
        assert!(rows.iter().any(|row| row.file == file), "{file} is not in the corpus any more");
    }
    for row in rows {
        let wrong = UNREADABLE.iter().find(|(file, ..)| *file == row.file).map(|(_, wrong, _)| *wrong);
        check(&row, TagTemplates::default(), wrong);
    }
}

/// A message of each kind with a line behind it, cut at every pair of positions. The smaller limit is shorter than most
/// messages.
#[test]
fn no_two_cuts_change_a_frame() {
    let mut seen = BTreeSet::new();
    for row in rows() {
        if row.bytes.len() > 250 || !seen.insert((row.framing, row.format, row.template)) {
            continue;
        }
        let stream = [&row.bytes, &b"<13>next\n"[..]].concat();
        for limit in [100, 65_536] {
            for first in 0..=stream.len() {
                for second in 0..=stream.len() - first {
                    any_cut(&stream, limit, &[first, second]);
                }
            }
        }
    }
    assert!(seen.len() > 15, "only {} kinds", seen.len());
}

/// Docker's messages need no allocation, not even those with odd tags. The line's buffer must be large enough, and the
/// first pass fills the translator's memory of headers.
#[test]
fn the_fast_path_allocates_nothing() {
    let settings = Settings { hostname: "relay-1".to_owned(), ..Settings::default() };
    let mut translator = Translator::new(Arc::new(settings));
    let mut line = Vec::with_capacity(1 << 20);
    for warm in [false, true] {
        for row in rows() {
            let (bytes, (received, _)) = (row.unframed(), row.times());
            let frame = Frame { bytes, cut: false, received: UnixMicros(received) };
            line.clear();
            let before = ALLOCATIONS.get();
            translator.translate(&frame, &mut line);
            assert!(!warm || ALLOCATIONS.get() == before, "{}", row.file);
        }
    }
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(ALLOCATIONS.get() - before, 1, "allocations are not counted");
}

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, counting for each thread.
struct Counting;

// SAFETY: every call is forwarded unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's layout is forwarded unchanged.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: `place` came from the system's allocator, above.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn check(row: &Row, template: TagTemplates, wrong: Option<Wrong>) {
    let (file, bytes) = (&row.file, row.unframed());
    let (received, stamp) = row.times();
    let frame = Frame { bytes, cut: false, received: UnixMicros(received) };
    let by_template = template.written().join(", ");
    let settings = Settings { hostname: "relay-1".to_owned(), tag_templates: template, ..Settings::default() };
    let reading = parse(&frame, &settings, Senders::Anybody);
    let message = &reading.record;
    assert_eq!(message.facility * 8 + message.severity, row.pri, "{file}");
    if wrong != Some(Wrong::Message) {
        assert_eq!(message.message.unwrap_or_default(), row.message, "{file}");
    }
    if wrong.is_none() {
        let hostname = if row.hostname.is_empty() { b"relay-1" } else { &row.hostname[..] };
        assert_eq!(said(message.hostname), hostname, "{file}");
        assert_eq!(message.tag.as_deref().unwrap_or_default(), row.tag, "{file}");
        assert_eq!(said(message.proc_id), message.container_id().unwrap_or(&row.pid), "{file}");
        check_container(row, message, &by_template);
    }
    let is_5424 = row.format.starts_with("rfc5424");
    assert_eq!(matches!(message.timestamp, Some(Stamp::Text(_))), is_5424, "{file}");
    let docker = is_5424 || message.container.is_some();
    assert_eq!(reading.shape, if docker { Shape::Docker } else { Shape::Rfc3164 }, "{file}");

    let mut line = Vec::new();
    let shape = Translator::new(Arc::new(settings.clone())).translate(&frame, &mut line);
    assert_eq!(shape, reading.shape, "{file}");
    check_line(&line, message, &stamp, &settings.sd_id, file);
    check_json(&line, message, &settings.sd_id, file);
}

/// The field's text as the sender wrote it, or empty.
fn said(field: Option<HeaderField<'_>>) -> &[u8] {
    field.map(|field| field.said()).unwrap_or_default()
}

/// The index lists image, name and ID for Docker's usual template. For another template, they follow from the tag.
fn check_container(row: &Row, message: &Record<'_>, template: &str) {
    let usual = ["image", "name", "id"].map(|key| match key {
        "image" => row.image.clone(),
        "name" => row.name.clone(),
        _ => row.id.clone(),
    });
    let expected = match template.trim() {
        "{{.Name}}" => [vec![], row.container_name.clone(), vec![]],
        "{{.DaemonName}}/{{.ImageID}}" => [row.tag["docker/".len()..].to_vec(), vec![], vec![]],
        _ => usual,
    };
    let container = message.container.clone().unwrap_or_default();
    let found = [container.image, container.name, container.id].map(|value| value.unwrap_or_default().to_vec());
    assert_eq!(found, expected, "{}", row.file);
}

fn check_line(line: &[u8], message: &Record<'_>, stamp: &str, sd_id: &str, file: &str) {
    let read = Record::from_line(line, sd_id);
    assert_eq!((read.facility, read.severity), (message.facility, message.severity), "{file}");
    assert_eq!(read.stamp_text(), stamp, "{file}");
    assert_eq!(read.hostname, message.hostname, "{file}");
    assert_eq!(read.msg_id, None, "{file}");
    assert_eq!(read.message.unwrap_or_default(), message.message.unwrap_or_default(), "{file}");
    assert_eq!(read.container, message.container.clone().filter(Container::is_known), "{file}");
    assert_eq!(read.proc_id, message.proc_id, "{file}");
    let app_name = message.container_name().or(message.container_id()).or(message.tag.as_deref()).unwrap();
    let legal: Vec<u8> = app_name.iter().take(48).map(|b| if b.is_ascii_graphic() { *b } else { b'_' }).collect();
    assert_eq!(HeaderField::or_nil(read.app_name), legal, "{file}");
}

fn check_json(line: &[u8], message: &Record<'_>, sd_id: &str, file: &str) {
    let mut out = Vec::new();
    render(line, Format::Json, sd_id, &mut out);
    let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
    let text = json["message"].as_str().unwrap();
    let is_escaped = json["escaped"].as_array().is_some_and(|names| names.iter().any(|name| name == "message"));
    let bytes = if is_escaped { corpus::unescape(text.as_bytes()) } else { text.as_bytes().to_vec() };
    assert_eq!(bytes, message.message.unwrap_or_default(), "{file}");
    let name = json.get("container_name").map(|name| name.as_str().unwrap().as_bytes());
    assert_eq!(name, message.container_name(), "{file}");
}

impl Row {
    /// A plausible time of receipt, in microseconds, and the expected timestamp of the line. The engine ran in UTC,
    /// except where the file's name tells another zone.
    fn times(&self) -> (i64, String) {
        let offset = match &self.file {
            file if file.starts_with("tzNewYork") => "-05:00",
            file if file.starts_with("tzKolkata") => "+05:30",
            _ => "Z",
        };
        let local = match self.stamp_form.as_str() {
            "Mmm _d hh:mm:ss" => {
                assert_eq!(&self.stamp[..4], "Nov ");
                format!("2026-11-{:0>2}T{}{offset}", self.stamp[4..6].trim(), &self.stamp[7..])
            }
            form => {
                assert_eq!(form.contains("micro"), self.stamp.contains('.'), "{}", self.file);
                self.stamp.clone()
            }
        };
        // The clock of day1's engine was twelve days slow.
        let made = if self.file.starts_with("day1") { "2026-11-20T22:34:57Z" } else { &local };
        let made = chrono::DateTime::parse_from_rfc3339(made).unwrap();
        (made.timestamp_micros() + 250_000, local)
    }
}
