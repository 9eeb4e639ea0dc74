//! The mark by which a relay recognizes its own lines when they come back: `[logferry@32473 hop="NAME NAME"]`.

use super::{LineOptions, Record};

/// The maximum number of relay names in one line. With as many names in it, a line gets no further ones.
const MAX_HOPS: usize = 8;

/// Appends the line with the relay's mark behind earlier marks. A line with malformed structured data has no place for a
/// mark, and stays as it is. A line that is not RFC 5424 becomes the message of a new line with the mark.
pub fn append_marked(line: &[u8], mark: &str, sd_id: &str, out: &mut Vec<u8>) {
    let mut record = Record::from_line(line, sd_id);
    // An empty line stays as it is. No line has a facility above 23: its priority is at most 191.
    if record.facility > 23 || line.is_empty() {
        return out.extend_from_slice(line);
    }
    let hops = record.hop.take().unwrap_or_default();
    let names = || hops.split(|byte| *byte == b' ').filter(|name| !name.is_empty());
    let is_there = names().any(|name| name == mark.as_bytes());
    let mut marked = hops.to_vec();
    if !is_there && names().count() < MAX_HOPS {
        if !marked.is_empty() {
            marked.push(b' ');
        }
        marked.extend_from_slice(mark.as_bytes());
    }
    record.hop = Some(marked.into());
    record.write_line(&LineOptions { sd_id: sd_id.to_owned(), peer: true }, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: &str) {
        let mut marked = Vec::new();
        append_marked(line.as_bytes(), "5p/central", "docker@32473", &mut marked);
        assert_eq!(String::from_utf8_lossy(&marked), expected);
    }

    #[test]
    fn a_mark_is_beside_what_is_there() {
        check(
            "<30>1 2026-11-20T22:27:33.081562Z h web 2a - [docker@32473 name=\"web\"] GET /",
            "<30>1 2026-11-20T22:27:33.081562Z h web 2a - [docker@32473 name=\"web\"][logferry@32473 hop=\"5p/central\"] GET /",
        );
        check("<13>1 - - - - - -", "<13>1 - - - - - [logferry@32473 hop=\"5p/central\"]");
        check(
            "<13>1 - - - - - [logferry@32473 peer=\"192.0.2.7\" hop=\"6q/x\"][a b=\"c\"] t",
            "<13>1 - - - - - [a b=\"c\"][logferry@32473 peer=\"192.0.2.7\" hop=\"6q/x 5p/central\"] t",
        );
        let again = "<13>1 - - - - - [logferry@32473 hop=\"5p/central 6q/x\"] t";
        check(again, again);
        let full = "<13>1 - - - - - [logferry@32473 hop=\"1 2 3 4 5 6 7 8\"] t";
        check(full, full);
        let malformed = "<13>1 - - - - - [a b=c] t";
        check(malformed, malformed);
    }
}
