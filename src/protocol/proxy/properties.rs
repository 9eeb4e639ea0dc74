//! Properties that must hold for all bytes in the place of a header. As functions, they make a unit test, a property test and a fuzz target
//! one line each.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use proxy_header::{Protocol, ProxiedAddress, ProxyHeader, Tlv};

use super::{FIXED, MAX_HEADER, MAX_VERSION_1, Reading, VERSION_1, VERSION_2, read, read_datagram};

/// Panics unless a second reader finds the same in `stream`, however it is cut. [`read`] has no state, so cuts can only affect the result
/// for each prefix.
pub fn any_stream(stream: &[u8]) {
    let whole = read(stream);
    let shown = stream.escape_ascii();
    match by_the_book(stream) {
        Some(header) => assert_eq!(whole, header, "{shown}"),
        None => assert!(!matches!(whole, Reading::Header(..)), "{shown} has not ended"),
    }
    for end in 0..stream.len() {
        match (read(&stream[..end]), whole) {
            // The next reader takes everything, and has room for more.
            (Reading::Begun, Reading::Header(len, _)) => assert!(end < len, "{end} bytes of {shown}"),
            (Reading::Begun, _) => assert!(end < MAX_HEADER, "{end} bytes of {shown}"),
            (known, whole) => assert_eq!(known, whole, "{end} bytes of {shown}"),
        }
    }
    let mut in_datagram = None;
    if let Reading::Header(len, client) = whole {
        assert!(len <= stream.len().min(MAX_HEADER), "{len} bytes of {shown}");
        assert_eq!(read(&stream[..len]), whole, "{shown} with nothing behind it");
        in_datagram = stream.starts_with(VERSION_2).then_some((len, client));
    }
    assert_eq!(read_datagram(stream), in_datagram, "{shown}");
}

/// Panics unless a header that another program writes is read back correctly. The bytes choose version, command, family, addresses, ports,
/// extensions, and the bytes behind the header.
pub fn any_written(data: &[u8]) {
    let Some((choices, behind)) = data.split_first_chunk() else { return };
    let [how, added, addresses @ ..]: &[u8; 38] = choices;
    let [is_v6, is_local, is_version_1, is_datagram] = [0, 1, 2, 3].map(|bit| how & 1 << bit != 0);
    let socket = |at: usize| {
        let ip = Ipv6Addr::from(*addresses[at..].first_chunk::<16>().expect("two addresses"));
        let [.., a, b, c, d] = ip.octets();
        let ip = if is_v6 { ip.into() } else { IpAddr::from([a, b, c, d]) };
        SocketAddr::new(ip, u16::from_be_bytes([addresses[32], addresses[33]]) ^ at as u16)
    };
    let protocol = if is_datagram && !is_version_1 { Protocol::Datagram } else { Protocol::Stream };
    let address = ProxiedAddress { protocol, source: socket(0), destination: socket(16) };
    let mut header = if is_local { ProxyHeader::with_local() } else { ProxyHeader::with_address(address) };
    let mut written = Vec::new();
    if is_version_1 {
        header.encode_v1(&mut written).expect("addresses of TCP");
    } else {
        // Optionally longer than a header may be.
        let unit = if how & 0x80 == 0 { 1 } else { 32 };
        header.append_tlv(Tlv::Noop(usize::from(*added) * unit));
        header.append_tlv(Tlv::Custom(0xe0, behind[..behind.len().min(7)].into()));
        header.encode_v2(&mut written).expect("short enough");
    }
    let len = written.len();
    let client = (!is_local).then(|| socket(0).ip());
    let expected = if len <= MAX_HEADER { Reading::Header(len, client) } else { Reading::NoHeader };
    for end in 0..len {
        let so_far = if len <= MAX_HEADER || end < FIXED { Reading::Begun } else { Reading::NoHeader };
        assert_eq!(read(&written[..end]), so_far, "{end} bytes of {}", written.escape_ascii());
    }
    written.extend_from_slice(behind);
    assert_eq!(read(&written), expected, "{}", written.escape_ascii());
    any_stream(&written);
}

/// Tests one of both with bytes that choose which.
pub fn any_bytes(data: &[u8]) {
    let Some((what, bytes)) = data.split_first() else { return };
    match what % 4 {
        0 => any_stream(bytes),
        1 => any_stream(&[VERSION_1, bytes].concat()),
        2 => any_stream(&[VERSION_2, bytes].concat()),
        _ => any_written(bytes),
    }
}

/// Reads the header at the start of complete `bytes` as directly as possible. `None`: the header is incomplete.
fn by_the_book(bytes: &[u8]) -> Option<Reading> {
    let (len, client) = if bytes.starts_with(VERSION_1) {
        let line = &bytes[..bytes.len().min(MAX_VERSION_1)];
        match line.windows(2).position(|end| end == b"\r\n") {
            Some(end) => (end + 2, version_1(&line[VERSION_1.len()..end])),
            None if bytes.len() < MAX_VERSION_1 => return None,
            None => return Some(Reading::NoHeader),
        }
    } else if let Some(rest) = bytes.strip_prefix(VERSION_2) {
        let [command, family, high, low, rest @ ..] = rest else { return None };
        let length = usize::from(*high) * 256 + usize::from(*low);
        if FIXED + length > MAX_HEADER {
            return Some(Reading::NoHeader);
        }
        (FIXED + length, version_2(*command, *family, rest.get(..length)?))
    } else {
        let has_begun = VERSION_1.starts_with(bytes) || VERSION_2.starts_with(bytes);
        return (!has_begun).then_some(Reading::NoHeader);
    };
    Some(client.map_or(Reading::NoHeader, |client| Reading::Header(len, client)))
}

/// The client's address in the line behind `PROXY `; the outer `None`: the line is not a header.
fn version_1(line: &[u8]) -> Option<Option<IpAddr>> {
    if line.contains(&b'\r') {
        return None;
    }
    if line.starts_with(b"UNKNOWN") {
        return Some(None);
    }
    let words: Vec<_> = str::from_utf8(line).ok()?.split(' ').collect();
    let [family, from, to, ports @ ..] = &words[..] else { return None };
    let ports = ports.iter().filter_map(|port| port.parse::<u16>().ok());
    if words.len() != 5 || ports.count() != 2 {
        return None;
    }
    let [from, to] = match *family {
        "TCP4" => [from, to].map(|text| text.parse::<Ipv4Addr>().ok().map(IpAddr::from)),
        "TCP6" => [from, to].map(|text| text.parse::<Ipv6Addr>().ok().map(IpAddr::from)),
        _ => return None,
    };
    to.and(from).map(Some)
}

fn version_2(command: u8, family: u8, rest: &[u8]) -> Option<Option<IpAddr>> {
    let from = match (command, family) {
        (0x20, _) | (0x21, 0) => None,
        (0x21, 0x11 | 0x12) if rest.len() >= 12 => Some(IpAddr::from(*rest.first_chunk::<4>()?)),
        (0x21, 0x21 | 0x22) if rest.len() >= 36 => Some(IpAddr::from(*rest.first_chunk::<16>()?)),
        (0x21, 0x31 | 0x32) if rest.len() >= 216 => None,
        _ => return None,
    };
    Some(from)
}
