//! The subject of a line: a template filled in with the line's fields. Fields come from untrusted senders. Each becomes a harmless part of
//! one token, so that no value can change the other tokens.

use crate::record::Record;
use crate::record::template::{Part, parts, pattern};

/// The maximum bytes of one field.
const MAX_FIELD: usize = 128;
/// The maximum bytes of a subject, unless its template alone is longer. A server limits the whole line of the operation to 4096 bytes.
const MAX_SUBJECT: usize = 1024;

#[derive(Debug)]
pub struct SubjectTemplate {
    parts: Vec<Part>,
    max_field: usize,
}

impl SubjectTemplate {
    pub fn new(template: &str) -> Self {
        let parts = parts(template);
        let fields = parts.iter().filter(|part| matches!(part, Part::Field(_))).count();
        let max_field = (MAX_SUBJECT.saturating_sub(template.len()) / fields.max(1)).clamp(1, MAX_FIELD);
        Self { parts, max_field }
    }

    /// All subjects that lines can have, with wildcards.
    pub fn pattern(&self) -> String {
        let text = pattern(&self.parts);
        // A wildcard is a token of its own.
        let tokens = text.split('.').map(|token| if token.contains('*') { "*" } else { token });
        tokens.collect::<Vec<_>>().join(".")
    }

    /// Replaces the contents of `subject` by the subject of a line.
    pub fn fill(&self, record: &Record<'_>, subject: &mut Vec<u8>) {
        subject.clear();
        for part in &self.parts {
            match part {
                Part::Text(text) => subject.extend_from_slice(text.as_bytes()),
                Part::Field(field) => push_harmless(&field.of(record), self.max_field, subject),
            }
        }
    }
}

/// Appends printable ASCII as it is, except for the separator of tokens, the wildcards and `$`, with which the server's own subjects begin.
/// These and all other bytes become `_`, and so does an empty value.
fn push_harmless(value: &[u8], longest: usize, subject: &mut Vec<u8>) {
    let value = if value.is_empty() { b"_" } else { value };
    let harmless = |byte: &u8| if byte.is_ascii_graphic() && !b".*>$".contains(byte) { *byte } else { b'_' };
    subject.extend(value.iter().take(longest).map(harmless));
}
