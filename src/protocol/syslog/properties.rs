//! What must hold for all bytes, as functions, so that a unit test, a property test and a fuzz target are one line each.

use std::sync::Arc;

use super::*;
use crate::record::properties;

/// Templates of each kind: what Docker's driver is told in the examples, one with blanks, one without an image.
const TEMPLATES: [&str; 3] = ["{{.ImageName}}/{{.Name}}/{{.ID}}", "my {{.Command}} {{.Name}}", "{{.Name}}"];

/// Panics unless a frame is carried: what was read of it is what stands in its line, the next relay changes nothing, and
/// each output format says the same.
pub fn any_frame(bytes: &[u8], cut: bool, received: i64, template: usize) {
    let tag_template = TEMPLATES[template % TEMPLATES.len()].parse().expect("a template");
    let settings = Arc::new(Settings { hostname: "relay-1".to_owned(), tag_template, ..Settings::default() });
    let frame = Frame { bytes, cut, received: UnixMicros(received) };
    let (out, shape) = line_of(&settings, &frame);
    let reading = parse(&frame, &settings, Senders::Anybody);
    assert_eq!(shape, reading.shape);
    let mut written = Vec::new();
    reading.record.write_line(&settings.line_options(), &mut written);
    assert_eq!(String::from_utf8_lossy(&written), String::from_utf8_lossy(&out));
    assert_ne!(reading.record.stamp_text(), "-");
    properties::any_record(&reading.record, &settings.line_options());
    // What one relay made, the next one does not change. (A LF at the end would be taken for the next one's framing.)
    if out.last() != Some(&b'\n') {
        let again = Frame { bytes: &out, cut: false, received: UnixMicros(received) };
        assert_eq!(line_of(&settings, &again).0, out, "{}", String::from_utf8_lossy(&out));
    }
    properties::any_line(bytes, &settings.sd_id);
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
    let shape = Translator::new(settings.clone()).translate(frame, &mut out);
    (out, shape)
}
