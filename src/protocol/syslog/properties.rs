//! What must hold for all bytes, as functions, so that a unit test, a property test and a fuzz target are one line each.

use std::sync::Arc;

use super::*;
use crate::record::{Format, Line, facility, render, severity};

/// Templates of each kind: what Docker's driver is told in the examples, one with blanks, one without an image.
const TEMPLATES: [&str; 3] = ["{{.ImageName}}/{{.Name}}/{{.ID}}", "my {{.Command}} {{.Name}}", "{{.Name}}"];

/// Panics unless a frame is carried: what was read of it is what stands in its line, the next relay changes nothing, and
/// each output format says the same.
pub fn any_frame(bytes: &[u8], cut: bool, received: i64, template: usize) {
    let tag_template = TEMPLATES[template % TEMPLATES.len()].parse().expect("a template");
    let settings = Arc::new(Settings { hostname: "relay-1".to_owned(), tag_template, ..Settings::default() });
    let frame = Frame { bytes, cut, received: UnixMicros(received) };
    let (out, shape) = line_of(&settings, &frame);
    says_what_was_read(&out, shape, &parse(&frame, &settings, Senders::Anybody), &settings);
    // What one relay made, the next one does not change. (A LF at the end would be taken for the next one's framing.)
    if out.last() != Some(&b'\n') {
        let again = Frame { bytes: &out, cut: false, received: UnixMicros(received) };
        assert_eq!(line_of(&settings, &again).0, out, "{}", String::from_utf8_lossy(&out));
    }
    any_line(&out, &settings.sd_id);
    any_line(bytes, &settings.sd_id);
}

/// The same for bytes that choose everything.
pub fn any_bytes(data: &[u8]) {
    let Some((choices, bytes)) = data.split_first_chunk() else { return };
    let [how, received @ ..]: &[u8; 5] = choices;
    // Any second there is until 2106.
    let received = i64::from(u32::from_le_bytes(*received)) * 1_000_000;
    any_frame(bytes, how & 1 != 0, received, usize::from(how >> 1));
}

fn line_of(settings: &Arc<Settings>, frame: &Frame<'_>) -> (Vec<u8>, Shape) {
    let mut out = Vec::new();
    let translated = Translator::new(settings.clone()).translate(frame, &mut out);
    (out, translated.shape)
}

fn says_what_was_read(out: &[u8], shape: Shape, message: &Message<'_>, settings: &Settings) {
    assert_eq!(shape, message.shape);
    let line = Line::parse(out, &settings.sd_id);
    assert_eq!((line.facility, line.severity), (message.facility, message.severity));
    assert_eq!((facility(out), severity(out)), (message.facility, message.severity));
    assert_eq!(line.message, message.message.unwrap_or_default());
    assert_ne!(line.timestamp, b"-");
    if message.shape != Shape::Rfc5424 {
        assert_eq!(line.container_name.as_deref(), message.container.name);
        assert_eq!(line.container_id.as_deref(), message.container.id);
        assert_eq!(line.image_name.as_deref(), message.container.image);
    }
}

/// Also for lines that no relay has written: a spool may hold what it likes.
fn any_line(line: &[u8], sd_id: &str) {
    let mut json = Vec::new();
    render(line, Format::Json, sd_id, &mut json);
    let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    let said = json["message"].as_str().expect("a message");
    let message = Line::parse(line, sd_id).message;
    match std::str::from_utf8(message) {
        Ok(text) => assert_eq!(said, text),
        Err(_) => assert_eq!(unescaped(said), message),
    }
    let mut rfc3164 = Vec::new();
    render(line, Format::Rfc3164, sd_id, &mut rfc3164);
    assert!(rfc3164.ends_with(message));
}

/// Undoes what JSON values have for bytes that are not UTF-8.
fn unescaped(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('\\') {
        out.extend_from_slice(before.as_bytes());
        let (byte, length) = match behind.strip_prefix('x') {
            Some(digits) => (u8::from_str_radix(&digits[..2], 16).expect("two digits"), 3),
            None => (behind.as_bytes()[0], 1),
        };
        out.push(byte);
        rest = &behind[length..];
    }
    out.extend_from_slice(rest.as_bytes());
    out
}
