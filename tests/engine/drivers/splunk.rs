//! Docker's driver `splunk`, in each of its formats. It keeps lines that it cannot send.

use super::super::support::Line;
use super::super::talker::PIECE;
use super::stage::{Driver, FIELDS, Talker, Way, in_pieces};

const INLINE: &str = "splunk-format=inline";

/// The configuration that docs/log-drivers.md recommends.
pub const PLAIN: Way = way("plain", &["splunk-verify-connection=false", "splunk-gzip=false"]);

pub const WAYS: [Way; 4] = [
    PLAIN,
    way("gzip", &[INLINE, "splunk-gzip=true", "splunk-gzip-level=9"]),
    way("ack", &[INLINE, "splunk-index-acknowledgment=true", INDEX]),
    // The driver puts several labels before the text in no fixed order, so this configuration has only one.
    way("raw", &[RAW, "labels=com.docker.compose.service", "env="]),
];
const INDEX: &str = "splunk-index=main";
const RAW: &str = "splunk-format=raw";

const fn way(name: &'static str, options: &'static [&'static str]) -> Way {
    Way { driver: Driver::Splunk, name, transport: "http", options }
}

/// Whether the driver sends raw text. Then it mixes the two streams of a container.
pub fn is_raw(way: Way) -> bool {
    way.options.contains(&RAW)
}

/// The messages that the driver sends for a line. Another piece, possibly empty, follows each full piece. A raw text
/// has the label in front, and a blank one is not sent.
pub fn sent(line: &[u8], way: Way) -> Vec<Vec<u8>> {
    let mut pieces = in_pieces(line);
    if !line.is_empty() && line.len().is_multiple_of(PIECE) {
        pieces.push(Vec::new());
    }
    if is_raw(way) {
        pieces.retain(|piece| !String::from_utf8_lossy(piece).trim().is_empty());
        pieces.iter_mut().for_each(|piece| *piece = [b"com.docker.compose.service=web ", &**piece].concat());
    }
    pieces
}

/// Checks the driver's fields beside image, name and ID.
pub fn check(line: &Line, talker: &Talker) {
    let mut fields = FIELDS.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    if is_raw(talker.way) {
        fields.clear();
    }
    if talker.way.options.contains(&INDEX) {
        fields.push(("index".to_owned(), "main".to_owned()));
    }
    assert_eq!(talker.fields(line), fields.into_iter().collect(), "{line:?}");
}

#[test]
fn every_line_and_field_arrives() {
    super::every_line_and_field_arrives(&WAYS);
}
