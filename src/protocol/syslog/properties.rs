//! Invariants of all inputs, as functions, so that a unit test, a property test and a fuzz target are one line each.

use std::sync::Arc;

use super::*;
use crate::record::time::BSD_LEN;
use crate::record::{Format, properties, render};

/// Templates of each kind: the one in the examples, one with blanks, one without an image.
const TEMPLATES: [&str; 3] = ["{{.ImageName}}/{{.Name}}/{{.ID}}", "my {{.Command}} {{.Name}}", "{{.Name}}"];

/// Panics unless a frame is carried: the line has what was read, the next relay changes nothing, and each output format has the same
/// content.
pub fn any_frame(bytes: &[u8], cut: bool, received: i64, template: usize) {
    let tag_templates = TEMPLATES[template % TEMPLATES.len()].parse().expect("a template");
    let settings = Arc::new(Settings { hostname: "relay-1".to_owned(), tag_templates, ..Settings::default() });
    let frame = Frame { bytes, cut, received: UnixMicros(received) };
    let (out, shape) = line_of(&settings, &frame);
    let reading = parse(&frame, &settings, Senders::Anybody);
    assert_eq!(shape, reading.shape);
    let mut written = Vec::new();
    reading.record.write_line(&settings.line_options(false), &mut written);
    assert_eq!(String::from_utf8_lossy(&written), String::from_utf8_lossy(&out));
    assert_ne!(reading.record.stamp_text(), "-");
    properties::any_record(&reading.record, &settings.line_options(false));
    // The next relay does not change the line of this one. (It would take a LF at the end for its framing.)
    if out.last() != Some(&b'\n') {
        let again = Frame { bytes: &out, cut: false, received: UnixMicros(received) };
        assert_eq!(line_of(&settings, &again).0, out, "{}", String::from_utf8_lossy(&out));
    }
    properties::any_line(bytes, &settings.sd_id);
    let sent = if cut { bytes } else { bytes.strip_suffix(b"\n").unwrap_or(bytes) };
    assert!(sent.ends_with(reading.record.message.unwrap_or_default()), "{reading:?} of {}", bytes.escape_ascii());
    if shape == Shape::Rfc3164 {
        nothing_changes_behind_hostname(sent, &out, &settings.sd_id);
    }
}

/// RFC 3164 4.3: a message that came as RFC 3164 goes out with nothing changed after HOSTNAME, except that a byte order mark in front of
/// the text is dropped.
fn nothing_changes_behind_hostname(sent: &[u8], line: &[u8], sd_id: &str) {
    let mut out = Vec::new();
    render(line, Format::Rfc3164, sd_id, &mut out);
    let stamp = out.iter().position(|b| *b == b'>').expect("a priority") + 1;
    let host = stamp + BSD_LEN + 1;
    let behind = host + out[host..].iter().position(|b| *b == b' ').expect("a host") + 1;
    let record = Record::from_line(line, sd_id);
    let (message, text) = (record.message.unwrap_or_default(), record.text());
    let mark = &message[..message.len() - text.len()];
    let (header, text) = out[behind..].split_at(out.len() - behind - text.len());
    let expected = [header, mark, text].concat();
    assert!(sent.ends_with(&expected), "{} of {}", String::from_utf8_lossy(&out), String::from_utf8_lossy(sent));
}

/// [`any_frame`] with everything chosen by `data`.
pub fn any_bytes(data: &[u8]) {
    let Some((choices, bytes)) = data.split_first_chunk() else { return };
    let [how, received @ ..]: &[u8; 5] = choices;
    // Any second until 2106.
    let received = i64::from(u32::from_le_bytes(*received)) * 1_000_000;
    any_frame(bytes, how & 1 != 0, received, usize::from(how >> 1));
}

fn line_of(settings: &Arc<Settings>, frame: &Frame<'_>) -> (Vec<u8>, Shape) {
    let mut out = Vec::new();
    let shape = Translator::new(settings.clone()).translate(frame, &mut out);
    (out, shape)
}
