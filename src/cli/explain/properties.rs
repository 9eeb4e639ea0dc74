//! What must hold for all bytes, as a function, so that a unit test and a fuzz target are one line each. Here is where
//! the rooms meet: what was framed, read, rendered and framed again is looked at on both sides.

use std::sync::LazyLock;

use super::explained::{Bytes, Explained, Output};
use super::{Arrival, Style, explain, told};
use crate::config::{Config, Framing, Overrides};
use crate::protocol::framing::{self, Framer};
use crate::record::UnixMicros;

/// Every format with every way to keep messages apart; frames that are cut soon.
const CONFIG: &str = r#"
hostname = "node-7"
[[listen]]
address = "tcp://127.0.0.1:514"
max-frame = "480B"
[[drop]]
severity = "debug"
[[forward]]
name = "lines"
to = ["tcp://logs", "tcp+tls://logs", "udp://logs", "relp://logs"]
[[forward]]
name = "bsd"
format = "rfc3164"
to = ["tcp://logs", "tcp+tls://logs", "udp://logs"]
[[forward]]
name = "json"
format = "json"
to = ["file:///logs", "tcp+tls://logs", "udp://logs"]
match = [{ facility = ["user", "daemon"] }]
"#;

/// Panics unless each message is told as text that does nothing to a terminal and as JSON, and goes out as one message:
/// a framer finds it again, as it was rendered.
pub fn any_bytes(input: &[u8]) {
    static WHAT: LazyLock<Config> =
        LazyLock::new(|| Config::parse(None, CONFIG, &Overrides::default(), &|_| None).expect("a good config"));
    let arrival = Arrival { listener: None, received: UnixMicros(1_795_213_648_000_000) };
    let mut numbers = 1..;
    let count = explain(input, &WHAT, &arrival, |explained| {
        assert_eq!(Some(explained.number), numbers.next());
        let text = String::from_utf8(told(explained, Style::Plain)).expect("nothing but text");
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        let json = told(explained, Style::Json);
        assert_eq!(json.iter().filter(|byte| **byte == b'\n').count(), 1);
        serde_json::from_slice::<serde_json::Value>(&json).expect("JSON");
        goes_somewhere(explained);
        explained.forwards.iter().for_each(arrives_whole);
        says_the_same_framed_in_any_way(explained);
    });
    let (found, _, last) = framing::properties::frames(input, WHAT.listen[0].limits.max_frame, []);
    assert_eq!(count, found.len() + last.len());
}

/// A message is dropped, or each forward has it or does not want it.
fn goes_somewhere(explained: &Explained) {
    let Explained { forwards, filtered_by, dropped_by, .. } = explained;
    match dropped_by {
        Some(_) => assert!(forwards.is_empty() && filtered_by.is_empty()),
        None => assert_eq!(forwards.len() + 3 * filtered_by.len(), 10, "{filtered_by:?}"),
    }
}

/// One message in is one message out, whatever it holds.
fn arrives_whole(output: &Output) {
    if output.framing.is_some() {
        let (found, unfinished, _) = framing::properties::frames(&output.output.0, usize::MAX, []);
        let [(frame, false)] = &found[..] else { panic!("{} messages of {}", found.len(), shown(&output.output)) };
        assert!(!unfinished && !frame.is_empty());
        // Where LF ends a message none is left in it.
        assert!(output.framing == Some(Framing::OctetCounting) || !frame.contains(&b'\n'));
        assert!(frame.starts_with(if output.format == "json" { b"{" } else { b"<" }), "{}", shown(&output.output));
    }
}

/// Formats and framings of one message do not differ but in what they are.
fn says_the_same_framed_in_any_way(explained: &Explained) {
    for format in ["rfc5424", "rfc3164", "json"] {
        let of_format: Vec<&Output> = explained.forwards.iter().filter(|output| output.format == format).collect();
        let Some(bare) = of_format.iter().find(|output| output.framing.is_none()) else { continue };
        if format == "rfc5424" {
            assert_eq!(bare.output.0, explained.line.0);
        }
        if format == "json" {
            let json: serde_json::Value = serde_json::from_slice(&bare.output.0).expect("JSON");
            assert!(json["message"].is_string());
        }
        for framed in &of_format {
            let mut frames = Vec::new();
            let mut framer = Framer::new(usize::MAX);
            framer.feed(&framed.output.0, |frame, _| frames.extend_from_slice(frame));
            match framed.framing {
                None => assert_eq!(framed.output.0, bare.output.0),
                Some(Framing::OctetCounting) => assert_eq!(frames, bare.output.0),
                Some(Framing::Newline) => assert_eq!(frames, escaped(&bare.output.0)),
            }
        }
    }
}

/// A LF as rsyslog writes it.
fn escaped(bytes: &[u8]) -> Vec<u8> {
    bytes.split(|byte| *byte == b'\n').collect::<Vec<_>>().join(&b"#012"[..])
}

fn shown(bytes: &Bytes) -> String {
    bytes.0.escape_ascii().to_string()
}
