//! Lines from the spool become bytes for a link: rendered in the forward's format, framed as the link needs. Pure.

use crate::config::{self, Framing, Target};
use crate::record::{Format, append_escaped, append_on_one_line, render};

/// How one forward writes lines.
#[derive(Clone, Debug)]
pub struct Encoding {
    pub format: Format,
    /// `None`: the link keeps messages apart itself (datagrams).
    pub framing: Option<Framing>,
    /// Control characters are written as text: people read it, at terminals. A collector gets each byte.
    pub escaped: bool,
    /// The SD-ID under which image, name and id are found in a line.
    pub sd_id: String,
}

/// How lines are written to a target.
pub fn encoding(settings: &config::Forward, target: &Target, sd_id: &str) -> Encoding {
    let (framing, escaped) = (target.framing(), target.is_for_people());
    Encoding { format: settings.format, framing, escaped, sd_id: sd_id.to_owned() }
}

impl Encoding {
    /// Whether lines go out as they are in the spool.
    pub fn is_canonical(&self) -> bool {
        self.format == Format::Rfc5424
    }

    /// Appends one line, rendered and framed. `scratch` is a buffer to render in, kept by the caller between lines.
    pub fn append(&self, line: &[u8], scratch: &mut Vec<u8>, out: &mut Vec<u8>) {
        let rendered = match self.format {
            // The spool's lines are RFC 5424 already.
            Format::Rfc5424 => line,
            format => {
                scratch.clear();
                render(line, format, &self.sd_id, scratch);
                scratch.as_slice()
            }
        };
        match self.framing {
            None => out.extend_from_slice(rendered),
            Some(Framing::OctetCounting) => {
                out.extend_from_slice(itoa::Buffer::new().format(rendered.len()).as_bytes());
                out.push(b' ');
                out.extend_from_slice(rendered);
            }
            Some(Framing::Newline) => {
                match self.escaped {
                    true => append_escaped(rendered, out),
                    // An escape of rsyslog's too, so that a site reads the same text whichever way it came.
                    false => append_on_one_line(rendered, out),
                }
                out.push(b'\n');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(framing: Option<Framing>, line: &str, expected: &str) {
        let encoding = Encoding { format: Format::Rfc5424, framing, escaped: false, sd_id: "docker@32473".to_owned() };
        let mut out = Vec::new();
        encoding.append(line.as_bytes(), &mut Vec::new(), &mut out);
        assert_eq!(String::from_utf8(out).expect("text"), expected);
    }

    #[test]
    fn framings_keep_messages_apart() {
        check(None, "<13>1 - - - - - - a\nb", "<13>1 - - - - - - a\nb");
        check(Some(Framing::OctetCounting), "<13>1 - - - - - - a\nb", "21 <13>1 - - - - - - a\nb");
        check(Some(Framing::Newline), "<13>1 - - - - - - a\n\nb", "<13>1 - - - - - - a#012#012b\n");
        check(Some(Framing::Newline), "<13>1 - - - - - -", "<13>1 - - - - - -\n");
    }
}
