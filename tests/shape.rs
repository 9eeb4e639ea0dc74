//! Passes more than a thousand lines of programs in `tests/shape` through a forward's shape and parses the results.
//! Fields, time, severity and text must match the file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use chrono::DateTime;
use logferry::internals::record::{Record, Value as FieldValue};
use logferry::internals::shape::{Parser, Shape, Steps, Tally};
use serde::Deserialize;
use serde_json::{Map, Value, from_str};

const SD_ID: &str = "docker@32473";

/// The first row of a file: the shape of its lines.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Head {
    /// The program, and the origin of the lines.
    about: String,
    parse: Vec<String>,
    time_from: Option<String>,
    severity_from: Option<String>,
    message_from: Option<String>,
}

/// Each other row: a line and the expected results.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    line: String,
    fields: Map<String, Value>,
    /// If absent, the time, the severity and the text stay as sent.
    time: Option<String>,
    severity: Option<u8>,
    message: Option<String>,
    /// The part that cannot be read, by its name in the metric.
    misread: Option<String>,
}

#[test]
fn lines_of_programs_are_understood() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shape");
    let files = fs::read_dir(dir).expect("the lines").map(|entry| entry.expect("a file").path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|name| name == "jsonl")).collect();
    files.sort();
    let (mut count, mut wrong) = (0, BTreeMap::<_, Vec<String>>::new());
    for path in &files {
        let text = fs::read_to_string(path).expect("text");
        let mut rows = text.lines();
        let head: Head = from_str(rows.next().expect("a head")).expect("a head");
        assert!(!head.about.is_empty());
        let shape = shape(head);
        for (at, row) in rows.enumerate() {
            let row: Row = from_str(row).unwrap_or_else(|error| panic!("{path:?}, line {}: {error}", at + 2));
            if let Err(says) = check(&shape, &row) {
                wrong.entry(path).or_default().push(says);
            }
            count += 1;
        }
    }
    let first = |says: &[String]| says[..says.len().min(3)].join("\n");
    let says = wrong.iter().map(|(path, says)| format!("{}: {} wrong\n{}", path.display(), says.len(), first(says)));
    assert!(wrong.is_empty(), "{}", says.collect::<Vec<_>>().join("\n\n"));
    assert!(files.len() >= 10 && count >= 1000, "{} files, {count} lines", files.len());
}

fn shape(head: Head) -> Shape {
    let steps = Steps {
        parse: head.parse.iter().map(|name| name.parse::<Parser>().expect("a parser")).collect(),
        time_from: head.time_from,
        severity_from: head.severity_from,
        message_from: head.message_from,
        ..Steps::default()
    };
    Shape::new(steps, Vec::new(), SD_ID)
}

fn check(shape: &Shape, row: &Row) -> Result<(), String> {
    let in_nanoseconds = |time: &String| {
        let time = DateTime::parse_from_rfc3339(time).expect("a time");
        time.timestamp_nanos_opt().expect("in this age")
    };
    let time = row.time.as_ref().map(in_nanoseconds);
    // Docker's timestamp is a second later than the program's.
    let sent = time.map_or(1_795_885_318, |time| time.div_euclid(1_000_000_000) + 1);
    let stamp = DateTime::from_timestamp(sent, 0).expect("a time").format("%Y-%m-%dT%H:%M:%SZ");
    let line = format!("<14>1 {stamp} node-7 web 2a9052a5c36e - - {}", row.line).into_bytes();
    let (mut out, mut tally) = (Vec::new(), Tally::default());
    shape.apply(&line, &mut out, &mut tally);
    let record = Record::from_line(if out.is_empty() { &line } else { &out }, SD_ID);
    let fields = record.fields.iter().map(|field| (field.name.to_string(), value(&field.value)));
    let mut fields: Map<String, Value> = fields.collect();
    let misread = tally.misread.counts();
    let found = (
        fields.remove("original_severity"),
        fields,
        record.severity,
        record.time().map(|micros| micros.0 * 1000 + i64::from(record.nanoseconds)),
        record.message.map(String::from_utf8_lossy),
        misread.iter().filter(|(_, count)| *count > 0).map(|(what, _)| *what).collect::<Vec<_>>(),
    );
    let expected = (
        row.severity.filter(|severity| *severity != 6).map(|_| Value::from("info")),
        row.fields.clone(),
        row.severity.unwrap_or(6),
        Some(time.unwrap_or(sent * 1_000_000_000)),
        Some(row.message.as_ref().unwrap_or(&row.line).into()),
        row.misread.as_deref().into_iter().collect(),
    );
    let says = || format!("  {}\n    found    {found:?}\n    expected {expected:?}", row.line);
    if found == expected { Ok(()) } else { Err(says()) }
}

fn value(value: &FieldValue<'_>) -> Value {
    match value {
        FieldValue::Text(text) => String::from_utf8_lossy(text).into(),
        FieldValue::Json(json) => from_str(json.as_str()).expect("JSON"),
    }
}
