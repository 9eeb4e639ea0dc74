//! An explained message as text for a person. What a stranger wrote reaches the terminal as text and as nothing else.

use super::explained::{Bytes, Explained, Output};
use crate::config::Framing;
use crate::protocol::syslog::Shape;

/// SGR codes (ECMA-48 8.3.117).
const BOLD: &str = "1";
const FAINT: &str = "2";
const YELLOW: &str = "33";
const CYAN: &str = "36";

pub fn text(explained: &Explained, coloured: bool) -> Vec<u8> {
    let mut page = Page { out: Vec::new(), coloured };
    let cut = if explained.cut { ", cut" } else { "" };
    let heading =
        format!("message {}: {} bytes, {}{cut}", explained.number, explained.bytes, framing(explained.framing));
    page.styled(BOLD, &heading);
    page.out.push(b'\n');
    page.fields(explained);
    for output in &explained.forwards {
        page.output(output);
    }
    page.goes_nowhere(explained);
    page.out.push(b'\n');
    page.out
}

struct Page {
    out: Vec<u8>,
    coloured: bool,
}

impl Page {
    fn fields(&mut self, explained: &Explained) {
        let Explained { priority, facility, severity, .. } = explained;
        self.known("understood as", understood(explained.understood_as));
        self.known("priority", &format!("{priority} (facility {facility}, severity {severity})"));
        self.field("timestamp", Some(&explained.timestamp));
        self.name("because");
        self.styled(FAINT, &explained.timestamp_because);
        self.out.push(b'\n');
        self.field("host", Some(&explained.host));
        self.field("tag", explained.tag.as_ref());
        self.field("image", explained.image_name.as_ref());
        self.field("container", explained.container_name.as_ref());
        self.field("container id", explained.container_id.as_ref());
        self.field("structured data", Some(&explained.structured_data));
        self.field("message", Some(&explained.message));
    }

    fn output(&mut self, output: &Output) {
        let framing = match output.framing {
            Some(known) => framing(known),
            None if output.is_datagram => "one datagram",
            None => "in a RELP frame",
        };
        let Output { forward, to, format, bytes, .. } = output;
        self.out.extend_from_slice(b"  ");
        self.styled(CYAN, &format!("forward {forward}:"));
        self.out.extend_from_slice(format!(" to {to} as {format}, {framing}, {bytes} bytes\n    ").as_bytes());
        self.bytes(&output.output.0);
        self.out.push(b'\n');
    }

    fn goes_nowhere(&mut self, explained: &Explained) {
        if let Some(rule) = &explained.dropped_by {
            self.out.extend_from_slice(b"  ");
            self.styled(YELLOW, &format!("dropped by [[drop]] {rule}"));
            self.out.push(b'\n');
        }
        for forward in &explained.filtered_by {
            self.out.extend_from_slice(b"  ");
            self.styled(CYAN, &format!("forward {forward}:"));
            self.out.extend_from_slice(b" its `match` does not mean this message\n");
        }
    }

    fn known(&mut self, name: &str, value: &str) {
        self.name(name);
        self.out.extend_from_slice(value.as_bytes());
        self.out.push(b'\n');
    }

    fn field(&mut self, name: &str, value: Option<&Bytes>) {
        self.name(name);
        match value {
            Some(value) => self.bytes(&value.0),
            None => self.styled(FAINT, "(none)"),
        }
        self.out.push(b'\n');
    }

    fn name(&mut self, name: &str) {
        self.out.extend_from_slice(b"  ");
        self.styled(CYAN, &format!("{name:<15}"));
        self.out.extend_from_slice(b"  ");
    }

    /// Control characters would do to the terminal what a stranger wants, and so would those that turn text around.
    fn bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.utf8_chunks() {
            for character in chunk.valid().chars() {
                let mut room = [0; 4];
                let encoded = character.encode_utf8(&mut room).as_bytes();
                if character.is_control() || is_invisible(character) {
                    self.escape(encoded);
                } else {
                    self.out.extend_from_slice(encoded);
                }
            }
            self.escape(chunk.invalid());
        }
    }

    fn escape(&mut self, bytes: &[u8]) {
        let escaped: String = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
        if !escaped.is_empty() {
            self.styled(YELLOW, &escaped);
        }
    }

    fn styled(&mut self, style: &str, text: &str) {
        let text = if self.coloured { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() };
        self.out.extend_from_slice(text.as_bytes());
    }
}

/// Marks of direction, separators of lines and what has no width (Unicode's Bidi_Control and its like).
fn is_invisible(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

fn framing(framing: Framing) -> &'static str {
    match framing {
        Framing::OctetCounting => "octet counting",
        Framing::Newline => "newline framing",
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
