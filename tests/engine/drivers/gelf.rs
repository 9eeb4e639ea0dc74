//! Docker's driver `gelf`, by UDP with each compression and by TCP.

use super::super::support::Line;
use super::stage::{Driver, FIELDS, Talker, Way, in_pieces};

/// TCP as docs/log-drivers.md recommends it.
pub const TCP: Way = way("tcp", "tcp", &["gelf-tcp-max-reconnect=20"]);
/// TCP with enough reconnects for a relay that restarts on a busy machine.
pub const PATIENT: Way = way("patient", "tcp", &["gelf-tcp-max-reconnect=60"]);
/// UDP as docs/log-drivers.md recommends it on the same host.
pub const UDP: Way = way("udp", "udp", &["gelf-compression-type=none"]);

pub const WAYS: [Way; 5] = [
    TCP,
    UDP,
    way("gzip", "udp", &["gelf-compression-type=gzip", "gelf-compression-level=9"]),
    way("zlib", "udp", &["gelf-compression-type=zlib"]),
    way("default", "udp", &[]),
];

const fn way(name: &'static str, transport: &'static str, options: &'static [&'static str]) -> Way {
    Way { driver: Driver::Gelf, name, transport, options }
}

/// The messages that the driver sends for a line: none for an empty line, several for a long one.
pub fn sent(line: &[u8]) -> Vec<Vec<u8>> {
    in_pieces(line).into_iter().filter(|piece| !piece.is_empty()).collect()
}

/// Checks the driver's fields, with labels and variables.
pub fn check(line: &Line, talker: &Talker) {
    let mut fields = FIELDS.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    fields.push(("image_id".to_owned(), talker.image_id.clone()));
    fields.push(("created".to_owned(), talker.created.clone()));
    let mut given = talker.fields(line);
    let command = given.remove("command").unwrap_or_default();
    assert!(command.starts_with("/bin/sh -c"), "{line:?}");
    assert_eq!(given, fields.into_iter().collect(), "{line:?}");
}

#[test]
fn every_line_and_field_arrives() {
    super::every_line_and_field_arrives(&WAYS);
}
