//! `logferry explain`: messages on stdin, and what a relay with this config would make of each.

use std::io::{self, Read};
use std::sync::Arc;

use super::{Failure, load, print};
use crate::config::{Config, Overrides};
use crate::listen::{Framer, intake};
use crate::syslog::{Format, Frame, Line, Settings, Shape, Translator, UnixMicros, parse, render};

/// Bytes of stdin that are read. It is for looking at a few messages.
const MOST_INPUT: u64 = 16 * 1024 * 1024;

pub fn run(overrides: &Overrides) -> Result<(), Failure> {
    let config = load(overrides)?;
    let mut input = Vec::new();
    let read = io::stdin().lock().take(MOST_INPUT).read_to_end(&mut input);
    read.map_err(|error| Failure::failed(format!("explain: cannot read stdin: {error}")))?;
    let explained = explain(&input, &config, intake::now());
    print(explained)
}

fn explain(input: &[u8], config: &Config, received: UnixMicros) -> Vec<u8> {
    let settings = Arc::new(config.syslog_settings());
    let limit = config.listen.first().map_or(crate::config::DEFAULT_MAX_FRAME, |listener| listener.max_frame);
    let mut explained = Explained { settings, input, out: Vec::new(), frames: 0 };
    let mut framer = Framer::new(limit);
    framer.feed(input, |bytes, cut| explained.frame(&Frame { bytes, cut, received }));
    framer.finish(|bytes, cut| explained.frame(&Frame { bytes, cut, received }));
    if explained.frames == 0 {
        explained.out.extend_from_slice(b"no message on stdin\n");
    }
    explained.out
}

struct Explained<'a> {
    settings: Arc<Settings>,
    input: &'a [u8],
    out: Vec<u8>,
    frames: usize,
}

impl Explained<'_> {
    fn frame(&mut self, frame: &Frame<'_>) {
        self.frames += 1;
        let heading = format!("message {}: {} bytes, {}", self.frames, frame.bytes.len(), self.framing(frame));
        self.out.extend_from_slice(heading.as_bytes());
        self.out.extend_from_slice(if frame.cut { b", cut at the frame limit\n" } else { b"\n" });

        let message = parse(frame, &self.settings);
        let mut line = Vec::new();
        Translator::new(self.settings.clone()).translate(frame, &mut line);
        let fields = Line::parse(&line, &self.settings.sd_id);
        self.field("understood as", understood(message.shape).as_bytes());
        self.field("priority", priority(&fields).as_bytes());
        self.field("timestamp", fields.timestamp);
        self.field("hostname", fields.hostname);
        self.field("tag", message.tag.unwrap_or(b"(none)"));
        let container = [
            ("image", &fields.image_name),
            ("container", &fields.container_name),
            ("container id", &fields.container_id),
        ];
        for (name, value) in container {
            self.field(name, value.as_deref().unwrap_or(b"(not in the tag)"));
        }
        self.field("structured data", fields.structured_data);
        self.field("message", fields.message);
        for format in [Format::Rfc5424, Format::Rfc3164, Format::Json] {
            let mut rendered = Vec::new();
            render(&line, format, &self.settings.sd_id, &mut rendered);
            self.field(&format!("as {format}"), &rendered);
        }
        self.out.push(b'\n');
    }

    /// The framer says where a message is, not how it knew: what stands before it in the input tells.
    fn framing(&self, frame: &Frame<'_>) -> &'static str {
        let start = (frame.bytes.as_ptr() as usize).wrapping_sub(self.input.as_ptr() as usize);
        match self.input.get(..start).and_then(<[u8]>::last) {
            Some(b' ') => "octet counting",
            _ => "newline framing",
        }
    }

    fn field(&mut self, name: &str, value: &[u8]) {
        self.out.extend_from_slice(format!("  {name:<16}").as_bytes());
        // Control characters would do to the terminal what a stranger wants.
        for chunk in value.utf8_chunks() {
            for character in chunk.valid().chars() {
                if character.is_control() {
                    let mut bytes = [0; 4];
                    self.escape(character.encode_utf8(&mut bytes).as_bytes());
                } else {
                    let mut bytes = [0; 4];
                    self.out.extend_from_slice(character.encode_utf8(&mut bytes).as_bytes());
                }
            }
            self.escape(chunk.invalid());
        }
        self.out.push(b'\n');
    }

    fn escape(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.out.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
        }
    }
}

fn understood(shape: Shape) -> &'static str {
    match shape {
        Shape::Docker => "Docker's syslog driver",
        Shape::Rfc5424 => "RFC 5424, carried as it is",
        Shape::Rfc3164 => "RFC 3164",
        Shape::Unknown => "no syslog header: carried whole",
    }
}

fn priority(line: &Line<'_>) -> String {
    format!("{} (facility {}, severity {})", line.facility * 8 + line.severity, line.facility, line.severity)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &[u8], expected: &[&str]) {
        let config =
            Config::parse(None, "hostname = \"node-7\"", &Overrides::default(), &|_| None).expect("a good config");
        // 2026-11-20T22:27:28Z
        let explained = explain(input, &config, UnixMicros(1_795_213_648_000_000));
        let explained = String::from_utf8(explained).expect("nothing but text");
        let squeezed: Vec<String> =
            explained.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        for line in expected {
            assert!(squeezed.iter().any(|found| found == line), "`{line}` is not in\n{explained}");
        }
    }

    #[test]
    fn a_container_s_message() {
        check(
            b"<30>Nov 20 22:27:28 nginx:1.25/proj-web-1/2a9052a5c36e[23223]:   at main\n",
            &[
                "message 1: 72 bytes, newline framing",
                "understood as Docker's syslog driver",
                "priority 30 (facility 3, severity 6)",
                "timestamp 2026-11-20T22:27:28Z",
                "hostname node-7",
                "image nginx:1.25",
                "container proj-web-1",
                "container id 2a9052a5c36e",
                "as rfc3164 <30>Nov 20 22:27:28 node-7 proj-web-1[2a9052a5c36e]: at main",
            ],
        );
    }

    #[test]
    fn framing_and_control_characters() {
        check(
            b"10 <13>\x1b[31mx<13>plain\n",
            &["message 1: 10 bytes, octet counting", "message \\x1b[31mx", "message 2: 9 bytes, newline framing"],
        );
        check(b"", &["no message on stdin"]);
    }
}
