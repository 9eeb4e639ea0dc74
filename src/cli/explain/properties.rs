//! The properties of `explain` that hold for all bytes, as functions for a unit test and a fuzz target. `explain` combines
//! several stages, so these functions compare a message with the same message after framing, reading, rendering and framing
//! again.

use std::sync::LazyLock;

use super::explanation::{ByteString, Explanation, Finding, ForwardOutput};
use super::input::ReadAs;
use super::{InputContext, OutputFormat, explain, formatted};
use crate::config::{Config, Framing, Overrides};
use crate::protocol::framing::{self, Framer};
use crate::record::UnixMicros;

/// Every format with every framing, and a low `max-frame`.
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

static CONFIGURED: LazyLock<Config> =
    LazyLock::new(|| Config::parse(None, CONFIG, &Overrides::default(), &|_| None).expect("a good config"));

fn context(read_as: ReadAs) -> InputContext<'static> {
    InputContext { read_as, listener: None, sender: None, received: UnixMicros(1_795_213_648_000_000) }
}

/// Panics unless the text of each message has no control character, the JSON is valid, and a framer finds exactly one message
/// in each output, as it was rendered.
pub fn any_bytes(input: &[u8]) {
    let mut numbers = 1..;
    let count = explain(input, &CONFIGURED, &context(ReadAs::Syslog), |finding| {
        is_well_formatted(finding);
        let Finding::Message(explanation) = finding else { panic!("nothing is refused there") };
        assert_eq!(Some(explanation.number), numbers.next());
        is_dropped_or_forwarded(explanation);
        explanation.forwards.iter().for_each(is_one_message);
        is_the_same_in_every_framing(explanation);
    });
    let found = framing::properties::frames(input, CONFIGURED.listen[0].limits.max_frame, []);
    assert_eq!(count, found.frames().len());
}

/// The checks of [`any_bytes`] that hold for protocols other than syslog.
pub fn any_bytes_of_others(input: &[u8]) {
    for read_as in [ReadAs::Fluent, ReadAs::Gelf, ReadAs::Splunk, ReadAs::Journal] {
        let mut found = 0;
        let count = explain(input, &CONFIGURED, &context(read_as), |finding| {
            found += 1;
            is_well_formatted(finding);
            if let Finding::Message(explanation) = finding {
                is_dropped_or_forwarded(explanation);
                explanation.forwards.iter().for_each(is_one_message);
            }
        });
        assert_eq!(count, found);
    }
}

fn is_well_formatted(finding: &Finding) {
    let text = String::from_utf8(formatted(finding, OutputFormat::Plain)).expect("nothing but text");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    let json = formatted(finding, OutputFormat::Json);
    assert_eq!(json.iter().filter(|byte| **byte == b'\n').count(), 1);
    serde_json::from_slice::<serde_json::Value>(&json).expect("JSON");
}

/// Panics unless the message is dropped, or each forward sends or filters it.
fn is_dropped_or_forwarded(explanation: &Explanation) {
    let Explanation { forwards, filtered_by, dropped_by, .. } = explanation;
    match dropped_by {
        Some(_) => assert!(forwards.is_empty() && filtered_by.is_empty()),
        None => assert_eq!(forwards.len() + 3 * filtered_by.len(), 10, "{filtered_by:?}"),
    }
}

/// Panics unless a framer finds exactly one message in the output.
fn is_one_message(output: &ForwardOutput) {
    if output.framing.is_some() {
        // A JSON object has no priority, so a count in front of it is recognized only by the next count, or by the end of the
        // stream.
        let found = framing::properties::frames(&output.output.0, usize::MAX, []).frames();
        let [(frame, false, _)] = &found[..] else {
            panic!("{} messages of {}", found.len(), displayed(&output.output))
        };
        assert!(!frame.is_empty());
        // If LF ends a message, the message contains none.
        assert!(output.framing == Some(Framing::OctetCounting) || !frame.contains(&b'\n'));
        assert!(frame.starts_with(if output.format == "json" { b"{" } else { b"<" }), "{}", displayed(&output.output));
    }
}

/// Panics unless the outputs of one format differ only in their framing.
fn is_the_same_in_every_framing(explanation: &Explanation) {
    for format in ["rfc5424", "rfc3164", "json"] {
        let of_format: Vec<&ForwardOutput> =
            explanation.forwards.iter().filter(|output| output.format == format).collect();
        let Some(bare) = of_format.iter().find(|output| output.framing.is_none()) else { continue };
        if format == "rfc5424" {
            assert_eq!(bare.output.0, explanation.line.0);
        }
        if format == "json" {
            let json: serde_json::Value = serde_json::from_slice(&bare.output.0).expect("JSON");
            assert!(json["message"].is_string());
        }
        for framed in &of_format {
            let mut frames = Vec::new();
            let mut framer = match framed.framing {
                // With newline framing only LF ends a message.
                Some(Framing::Newline) => Framer::of_docker(usize::MAX),
                _ => Framer::new(usize::MAX),
            };
            framer.feed(&framed.output.0, |frame| frames.extend_from_slice(frame.bytes));
            framer.finish(&mut |frame| frames.extend_from_slice(frame.bytes));
            match framed.framing {
                None => assert_eq!(framed.output.0, bare.output.0),
                Some(Framing::OctetCounting) => assert_eq!(frames, bare.output.0),
                Some(Framing::Newline) => assert_eq!(frames, escaped(&bare.output.0)),
                Some(Framing::Nul) => unreachable!("GELF's, which is no format of these"),
            }
        }
    }
}

/// Writes LF as `#012`, as rsyslog does, and a NUL as `#000` if another message may seem to follow it.
fn escaped(bytes: &[u8]) -> Vec<u8> {
    let next = bytes.iter().skip(1).map(Some).chain([None]);
    let escape = |(byte, next): (&u8, Option<&u8>)| match (byte, next) {
        (b'\n', _) => b"#012".to_vec(),
        (0, Some(0 | b'<' | 0xef)) => b"#000".to_vec(),
        _ => vec![*byte],
    };
    bytes.iter().zip(next).flat_map(escape).collect()
}

fn displayed(bytes: &ByteString) -> String {
    bytes.0.escape_ascii().to_string()
}
