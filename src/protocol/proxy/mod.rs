//! The PROXY protocol, versions 1 and 2 (HAProxy's doc/proxy-protocol.txt): a header with the client's address that a proxy sends in front
//! of a connection or in each datagram. `proxy-header` parses the header. This module decides early whether bytes are a header, and finds
//! its end.
//!
//! - `properties`: what must hold for all bytes

pub mod properties;

use core::net::IpAddr;

use proxy_header::{Error, ParseConfig, ProxyHeader};

/// The maximum bytes of a header, including extensions (TLVs). Headers of today's proxies have some hundred.
pub const MAX_HEADER: usize = 4096;

/// The maximum bytes of a header of version 1 (section 2.1).
const MAX_VERSION_1: usize = 107;

/// The first bytes of every header.
const VERSION_1: &[u8] = b"PROXY ";
const VERSION_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2: the length of the fixed part, up to and including the header's length, and the command LOCAL: the proxy connects on its own
/// behalf.
const FIXED: usize = 16;
const LOCAL: u8 = 0x20;

/// The first bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The start of a header: more bytes are needed.
    Begun,
    /// A header: its length, and the client's address. `None`: the proxy names no client, as in a health check.
    Header(usize, Option<IpAddr>),
    NoHeader,
}

/// Reads the header at the start of `bytes`. Bytes behind the header, or behind its maximum length, change nothing.
pub fn read(bytes: &[u8]) -> Reading {
    let Some(bound) = bound(bytes).filter(|bound| *bound <= MAX_HEADER) else { return Reading::NoHeader };
    let is_whole = bytes.len() >= bound;
    let header = &bytes[..bytes.len().min(bound)];
    // The family and the addresses of LOCAL are ignored (section 2.2).
    if is_whole && header.starts_with(VERSION_2) && header[VERSION_2.len()] == LOCAL {
        return Reading::Header(bound, None);
    }
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    match ProxyHeader::parse(header, config) {
        Ok((header, len)) => Reading::Header(len, header.proxied_address().map(|address| address.source.ip())),
        Err(Error::BufferTooShort) if !is_whole => Reading::Begun,
        Err(_) => Reading::NoHeader,
    }
}

/// The length of the header or, as long as that is unknown, its maximum length. `None`: this is not a header.
fn bound(bytes: &[u8]) -> Option<usize> {
    let may_be = |start: &[u8]| bytes.starts_with(start) || start.starts_with(bytes);
    if may_be(VERSION_2) {
        let length = bytes.get(FIXED - 2..FIXED).map_or(0, |length| u16::from_be_bytes([length[0], length[1]]));
        return Some(FIXED + usize::from(length));
    }
    may_be(VERSION_1).then(|| {
        let line = &bytes[..bytes.len().min(MAX_VERSION_1)];
        line.windows(2).position(|end| end == b"\r\n").map_or(MAX_VERSION_1, |at| at + 2)
    })
}

/// Reads the header at the start of a datagram, which must be of version 2: its length, and the client's address. `None`: there is no
/// header, or it is incomplete.
pub fn read_datagram(bytes: &[u8]) -> Option<(usize, Option<IpAddr>)> {
    match read(bytes) {
        Reading::Header(len, client) if bytes.starts_with(VERSION_2) => Some((len, client)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Version 2: command, family, and the rest.
    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [VERSION_2, &[0x20 | command, family], &length, rest].concat()
    }

    fn addresses(extra: &[u8]) -> Vec<u8> {
        [&[192, 0, 2, 7, 192, 0, 2, 1, 0x30, 0x39, 2, 2], extra].concat()
    }

    /// `expected`: the client's address; `None`: the proxy names no client.
    #[track_caller]
    fn check(header: &[u8], expected: Option<&str>) {
        let peer = expected.map(|peer| peer.parse().expect("an address"));
        for end in 0..header.len() {
            assert_eq!(read(&header[..end]), Reading::Begun, "{} bytes of {}", end, header.escape_ascii());
        }
        for behind in ["", "<13>x\n", "PROXY TCP4"] {
            let bytes = [header, behind.as_bytes()].concat();
            assert_eq!(read(&bytes), Reading::Header(header.len(), peer), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_header_is_read_wherever_it_is_cut() {
        check(b"PROXY TCP4 192.0.2.7 192.0.2.1 12345 514\r\n", Some("192.0.2.7"));
        check(b"PROXY TCP6 2001:db8::7 2001:db8::1 12345 514\r\n", Some("2001:db8::7"));
        check(b"PROXY UNKNOWN\r\n", None);
        check(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None);
        // TCP and UDP, with and without extensions.
        check(&v2(1, 0x11, &addresses(b"")), Some("192.0.2.7"));
        check(&v2(1, 0x12, &addresses(b"")), Some("192.0.2.7"));
        check(&v2(1, 0x11, &addresses(&[4, 0, 3, 0, 0, 0])), Some("192.0.2.7"));
        let v6 = [[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7], [0; 16]].concat();
        check(&v2(1, 0x21, &[&v6[..], &[0, 1, 0, 2]].concat()), Some("2001:db8::7"));
        // LOCAL without and with addresses, and a Unix socket.
        check(&v2(0, 0, b""), None);
        check(&v2(0, 0x11, &addresses(b"")), None);
        check(&v2(1, 0x31, &[0; 216]), None);
    }

    #[test]
    fn what_is_none_is_known_at_once() {
        let no: [&[u8]; 12] = [
            b"<",
            b"<13>Nov 20 22:28:47 x: y\n",
            b"48 <13>",
            b"\x16\x03\x01",
            b"P\n",
            b"PROXY_TCP4 192.0.2.7 192.0.2.1 1 2\r\n",
            b"PROXY TCP4 192.0.2.256 192.0.2.1 1 2\r\n",
            b"PROXY TCP4 192.0.2.7 192.0.2.1 1 99999\r\n",
            b"PROXY TCP9 192.0.2.7 192.0.2.1 1 2\r\n",
            b"\r\n\r\n\0\r\nQUIT\r",
            &v2(2, 0x11, &addresses(b"")),
            &v2(1, 0x11, &[0; 11]),
        ];
        for bytes in no {
            assert_eq!(read(bytes), Reading::NoHeader, "{}", bytes.escape_ascii());
        }
        let endless = [b"PROXY TCP4 ", &[b'1'; 200][..]].concat();
        assert_eq!(read(&endless), Reading::NoHeader);
        let long = v2(1, 0x11, &addresses(&vec![0; MAX_HEADER]));
        assert_eq!(read(&long[..MAX_HEADER]), Reading::NoHeader);
    }

    #[test]
    fn a_datagram_has_all_of_its_header() {
        let header = v2(1, 0x12, &addresses(b""));
        let whole = [&header[..], b"<13>x"].concat();
        assert_eq!(read_datagram(&whole), Some((header.len(), "192.0.2.7".parse().ok())));
        assert_eq!(read_datagram(&v2(0, 0, b"")), Some((16, None)));
        assert_eq!(read_datagram(&header[..20]), None);
        // Version 1 is for connections.
        assert_eq!(read_datagram(b"PROXY TCP4 192.0.2.7 192.0.2.1 1 2\r\n<13>x"), None);
    }

    /// Some headers lack their end, or their length is too small or too large for their addresses.
    #[test]
    fn a_header_ends_where_it_says() {
        let no: [&[u8]; 6] = [
            b"PROXY TCP4 192.0.2.7 192.0.2.1\r\n",
            b"PROXY TCP4 192.0.2.7 192.0.2.1 1\r\n",
            b"PROXY \r\n",
            &v2(1, 0x11, b""),
            &v2(1, 0x11, &[0; 11]),
            &v2(1, 0x21, &[0; 35]),
        ];
        for header in no {
            for behind in ["", "<", "<13>Nov 20 22:28:47 x: y\n"] {
                let bytes = [header, behind.as_bytes()].concat();
                assert_eq!(read(&bytes), Reading::NoHeader, "{}", bytes.escape_ascii());
            }
            properties::any_stream(header);
        }
    }

    /// The result does not depend on how many bytes were read at once.
    #[test]
    fn a_header_is_no_longer_than_one_may_be() {
        let line = |len: usize| [b"PROXY UNKNOWN ", &vec![b'x'; len - 16][..], b"\r\n"].concat();
        check(&line(107), None);
        properties::any_stream(&line(108));
        assert_eq!(read(&line(108)), Reading::NoHeader);
        let header = |len: usize| v2(1, 0x12, &addresses(&vec![0; len - 28]));
        check(&header(MAX_HEADER), Some("192.0.2.7"));
        properties::any_stream(&header(MAX_HEADER + 1));
        // A header that is too long is refused as soon as its length is read, also in a datagram.
        assert_eq!(read(&header(MAX_HEADER + 1)[..FIXED]), Reading::NoHeader);
        assert_eq!(read_datagram(&header(MAX_HEADER + 1)), None);
    }

    /// HAProxy's doc/proxy-protocol.txt, 2.2: the family of LOCAL is ignored.
    #[test]
    fn a_proxy_that_speaks_for_itself_says_nothing_else() {
        for header in [v2(0, 0x11, b""), v2(0, 0x11, &[0; 3]), v2(0, 0x77, b"abc"), v2(0, 0x21, &[0; 36])] {
            check(&header, None);
        }
    }

    proptest! {
        #[test]
        fn a_cut_changes_nothing(
            start in proptest::sample::select(vec![&b""[..], b"PROXY ", b"PROXY TCP4 1.2.3.4 ", VERSION_2, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"]),
            rest in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            properties::any_stream(&[start, &rest].concat());
        }

        #[test]
        fn near_lines_are_read_by_the_book(words in proptest::collection::vec(
            proptest::sample::select(vec!["TCP4", "TCP6", "UNKNOWN", "1.2.3.4", "::1", "::ffff:1.2.3.4", "0", "514", "99999", "+1", "", "\r", "\n", "\u{e9}"]),
            0..7,
        ), behind in proptest::sample::select(vec!["\r\n", "\r\n<13>x\r\n", "\r", ""])) {
            properties::any_stream(format!("PROXY {}{behind}", words.join(" ")).as_bytes());
        }

        #[test]
        fn what_is_written_is_read(data in proptest::collection::vec(any::<u8>(), 38..80)) {
            properties::any_written(&data);
        }
    }
}
