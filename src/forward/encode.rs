//! Lines from the spool become bytes for a link: rendered in the forward's format, framed as the link needs. Pure.

use crate::config::{self, DeliverySettings, Framing, Target};
use crate::protocol::gelf;
use crate::record::template::AddedField;
use crate::record::{Format, Record, append_escaped, append_on_one_line, render};
use crate::shape::{Adding, Shape};

/// How one forward writes lines.
#[derive(Clone, Debug)]
pub struct Encoding {
    /// `None`: GELF, which has a format of its own.
    pub format: Option<Format>,
    /// `None`: the link keeps messages apart itself (datagrams).
    pub framing: Option<Framing>,
    /// Control characters are written as text, for people at terminals. A collector gets each byte.
    pub escaped: bool,
    /// The SD-ID under which image, name and id are found in a line.
    pub sd_id: String,
}

/// How a forward changes its lines before they are written. A log store gets the forward's own fixed fields as its labels or attributes,
/// outside the lines.
pub fn shape(settings: &config::Forward, sd_id: &str) -> Shape {
    let is_store = settings.to.iter().any(|to| matches!(to.delivery, DeliverySettings::Http(_)));
    let own = &settings.http.fields;
    let is_overruled = |global: &&AddedField| own.iter().any(|field| field.name == global.name);
    let globals = settings.global_fields.iter().filter(|global| !is_overruled(global));
    let own = own.iter().map(|field| match is_store && field.fixed().is_some() {
        true => (field.clone(), Adding::ByTheStore),
        false => (field.clone(), Adding::Always),
    });
    let add = globals.map(|field| (field.clone(), Adding::IfMissing)).chain(own).collect();
    Shape::new(settings.shape.steps(settings.all_masks(), add), settings.matches.clone(), sd_id)
}

/// How lines are written to a target.
pub fn encoding(settings: &config::Forward, target: &Target, sd_id: &str) -> Encoding {
    let (framing, escaped) = (target.framing(), target.is_for_people());
    let format = Some(settings.format).filter(|_| !target.address.is_gelf());
    Encoding { format, framing, escaped, sd_id: sd_id.to_owned() }
}

impl Encoding {
    /// Whether lines go out as they are in the spool.
    pub fn is_canonical(&self) -> bool {
        self.format == Some(Format::Rfc5424)
    }

    /// Appends one line, rendered and framed. `scratch` is a buffer to render in, kept by the caller between lines.
    pub fn append(&self, line: &[u8], scratch: &mut Vec<u8>, out: &mut Vec<u8>) {
        let rendered = match self.format {
            // The spool's lines are RFC 5424 already.
            Some(Format::Rfc5424) => line,
            format => {
                scratch.clear();
                match format {
                    Some(format) => render(line, format, &self.sd_id, scratch),
                    None => gelf::append(&Record::from_line(line, &self.sd_id), &self.sd_id, scratch),
                }
                scratch.as_slice()
            }
        };
        match self.framing {
            None => out.extend_from_slice(rendered),
            // JSON has no NUL inside.
            Some(Framing::Nul) => {
                out.extend_from_slice(rendered);
                out.push(b'\0');
            }
            Some(Framing::OctetCounting) => {
                out.extend_from_slice(itoa::Buffer::new().format(rendered.len()).as_bytes());
                out.push(b' ');
                out.extend_from_slice(rendered);
            }
            Some(Framing::Newline) => {
                match self.escaped {
                    true => append_escaped(rendered, out),
                    // rsyslog escapes in the same way, so a site reads one text whichever way the line came.
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
        let encoding =
            Encoding { format: Some(Format::Rfc5424), framing, escaped: false, sd_id: "docker@32473".to_owned() };
        let mut out = Vec::new();
        encoding.append(line.as_bytes(), &mut Vec::new(), &mut out);
        assert_eq!(String::from_utf8(out).expect("text"), expected);
    }

    #[test]
    fn gelf_ends_with_nul_in_a_stream() {
        for (framing, end) in [(None, ""), (Some(Framing::Nul), "\0")] {
            let encoding = Encoding { format: None, framing, escaped: false, sd_id: "docker@32473".to_owned() };
            let mut out = Vec::new();
            (0..2).for_each(|_| encoding.append(b"<13>1 - - - - - - a\0b", &mut Vec::new(), &mut out));
            let json = "{\"version\":\"1.1\",\"host\":\"-\",\"short_message\":\"a\\u0000b\",\"level\":5}";
            assert_eq!(String::from_utf8(out).expect("text"), format!("{json}{end}").repeat(2));
        }
    }

    #[test]
    fn framings_keep_messages_apart() {
        check(None, "<13>1 - - - - - - a\nb", "<13>1 - - - - - - a\nb");
        check(Some(Framing::OctetCounting), "<13>1 - - - - - - a\nb", "21 <13>1 - - - - - - a\nb");
        check(Some(Framing::Newline), "<13>1 - - - - - - a\n\nb", "<13>1 - - - - - - a#012#012b\n");
        check(Some(Framing::Newline), "<13>1 - - - - - -", "<13>1 - - - - - -\n");
    }
}
