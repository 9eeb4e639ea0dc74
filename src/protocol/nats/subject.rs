//! The subject of a line: a template with the line's fields filled in. Fields come from strangers: each becomes a harmless part of one
//! token, so that no value names a subject outside the template's own.

use crate::record::Record;
use crate::record::template::{Part, parts, pattern};

/// Bytes of one field, at the most.
const MAX_FIELD: usize = 128;
/// Bytes of a subject whose template has less than that: the line it stands in has at most 4096 in a server.
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

    /// The subject of a line, instead of what is in `subject`.
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

/// Printable ASCII stands for itself, but for what divides tokens, is a wildcard or begins the server's own subjects. The rest
/// becomes `_`, and so does nothing.
fn push_harmless(value: &[u8], longest: usize, subject: &mut Vec<u8>) {
    let value = if value.is_empty() { b"_" } else { value };
    let harmless = |byte: &u8| if byte.is_ascii_graphic() && !b".*>$".contains(byte) { *byte } else { b'_' };
    subject.extend(value.iter().take(longest).map(harmless));
}
