//! Finds HOSTNAME, TAG and the start of the text after an RFC 3164 stamp.
//!
//! RFC 3164 does not define where HOSTNAME and TAG end, and most senders do not follow it strictly. `syslog_loose` is not used here,
//! because it takes any word for a tag: it splits a CSV, takes `src="192.0.2.1` for a program, cuts `CEF:` from CEF, and turns `Link is up`
//! into `Link: is up`. Here a tag ends in `:` or `[pid]` and consists of the characters of program names. Everything else is text, and text
//! is never changed.

use core::net::{IpAddr, Ipv6Addr};

use crate::record::header::{MAX_APP_NAME, MAX_HOSTNAME, MAX_PROC_ID};
use crate::record::severity_by_name;

/// AIX writes this in front of a HOSTNAME when it forwards a message.
const AIX_FORWARDED: &[u8] = b"Message forwarded from ";
/// A syslogd writes this instead of a repeated message, without HOSTNAME or TAG.
const REPEATED: &[u8] = b"last message repeated ";
/// Prefixes whose `:` does not end a tag, because it belongs to the format.
const FORMATS: [&[u8]; 2] = [b"CEF:", b"LEEF:"];
/// Labels of a severity or facility in a text that is a list of fields (iDRAC). They are no programs.
const LABELS: [&[u8]; 4] = [b"severity", b"level", b"priority", b"facility"];
/// Bytes of the longest name of a severity.
const MAX_SEVERITY: usize = "emergency".len();
/// Maximum number of words between HOSTNAME and TAG that belong to neither.
const MAX_WORDS_BETWEEN: usize = 4;

/// The words of a header, and the text after them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Words<'a> {
    pub host: Option<&'a [u8]>,
    pub tag: Option<&'a [u8]>,
    pub pid: Option<&'a [u8]>,
    /// Everything between HOSTNAME and the text, as sent.
    pub header: &'a [u8],
    pub message: &'a [u8],
}

/// Reads the header after a stamp. `rest`: everything after the stamp.
pub(super) fn behind_stamp(rest: &[u8]) -> Words<'_> {
    let (host, behind) = split_host(rest);
    with_tag(host, behind, find_tag(behind, host))
}

/// Reads a tag if there is no stamp. `rest`: everything after the priority. No word counts as a host: any text begins with a word.
pub(super) fn without_stamp(rest: &[u8]) -> Option<Words<'_>> {
    let blanks = blanks(rest);
    let is_said = |tag: &Tag| tag.pid.is_some() || tag.has_blank || tag.stays;
    let tag = tag_at(&rest[blanks..]).filter(is_said)?;
    Some(with_tag(None, rest, Some(tag.moved(blanks))))
}

fn with_tag<'a>(host: Option<&'a [u8]>, behind: &'a [u8], tag: Option<Tag>) -> Words<'a> {
    let Some(tag) = tag else { return Words { host, message: behind, ..Words::default() } };
    let part = |range: std::ops::Range<usize>| behind.get(range).filter(|part| !part.is_empty());
    let (header, message) = behind.split_at(tag.text);
    Words { host, tag: part(tag.name), pid: tag.pid.and_then(part), header, message }
}

/// HOSTNAME, and the text after it and one blank.
fn split_host(rest: &[u8]) -> (Option<&[u8]>, &[u8]) {
    let text = &rest[blanks(rest)..];
    // `stamp: text` as Cisco writes it, and `stamp: HOST %SYS-5-CONFIG_I: text` as Ruijie does.
    if let Some(text) = text.strip_prefix(b":") {
        let text = &text[blanks(text)..];
        let named = split_word(text).filter(|(word, behind)| is_host(word) && mnemonic(behind).is_some());
        return named.map_or((None, text), |(host, behind)| (Some(host), behind));
    }
    if let Some(text) = text.strip_prefix(AIX_FORWARDED)
        && let Some(end) = memchr::memchr(b':', text)
        && is_host(&text[..end])
    {
        return (Some(&text[..end]), behind_colon(&text[end..]));
    }
    if text.starts_with(REPEATED) {
        return (None, text);
    }
    let Some((word, behind)) = split_word(text) else { return (None, text) };
    if word == b"-" {
        return (None, behind);
    }
    if is_facility_and_severity(word)
        && let Some((host, behind)) = split_word(&behind[blanks(behind)..]).filter(|(word, _)| is_host(word))
    {
        return (Some(host), behind);
    }
    if is_host(word) || is_unifi(word) {
        return (Some(word), behind);
    }
    match word.strip_suffix(b":") {
        Some(host) if ends_in_colon(host, behind) => (Some(host), behind),
        _ => (None, text),
    }
}

/// Whether `host` is a host although a `:` follows, which normally ends a tag. An address is no program, a program does not write its name
/// twice, and Cisco's mnemonics stand in the place of a tag.
fn ends_in_colon(host: &[u8], behind: &[u8]) -> bool {
    let next = split_word(behind).map_or(behind, |(word, _)| word);
    is_unifi(host)
        || is_host(host) && (is_address(host) || mnemonic(next).is_some() || next.strip_suffix(b":") == Some(host))
}

/// A tag as ranges in the text.
struct Tag {
    name: std::ops::Range<usize>,
    pid: Option<std::ops::Range<usize>>,
    /// Where the text begins.
    text: usize,
    /// Whether the tag is also the start of the text.
    stays: bool,
    /// Whether a blank or nothing follows the `:`. Always true for tags with a pid and for mnemonics.
    has_blank: bool,
}

impl Tag {
    fn moved(self, by: usize) -> Self {
        let moved = |range: std::ops::Range<usize>| range.start + by..range.end + by;
        Self { name: moved(self.name), pid: self.pid.map(moved), text: self.text + by, ..self }
    }
}

/// The tag after a host, if there is one. Other words may precede it.
fn find_tag(text: &[u8], host: Option<&[u8]>) -> Option<Tag> {
    let mut at = blanks(text);
    let mut colon = None;
    for _ in 0..MAX_WORDS_BETWEEN {
        let Some((word, behind)) = split_word(&text[at..]) else { break };
        let is_colon = word == b":";
        if !is_colon && !is_between(word, host) {
            break;
        }
        at = text.len() - behind.len();
        if is_colon {
            colon = Some(at);
        }
        at += blanks(behind);
    }
    let tag = tag_at(&text[at..]).map(|tag| tag.moved(at));
    // In `host : text` the colon is a separator, with a tag or without.
    tag.or_else(|| colon.map(|text| Tag { name: text..text, pid: None, text, stays: false, has_blank: true }))
}

/// Whether a word between HOSTNAME and TAG is neither: a severity (F5, SONiC), with or without a facility, the host again, or an address.
fn is_between(word: &[u8], host: Option<&[u8]>) -> bool {
    let is_again = host.is_some_and(|host| word == host || word.strip_suffix(b":") == Some(host));
    is_again || is_severity(word) || is_facility_and_severity(word) || is_address(word)
}

/// The tag at the start of `text`.
fn tag_at(text: &[u8]) -> Option<Tag> {
    if let Some(len) = mnemonic(text) {
        return Some(Tag { name: 0..len, pid: None, text: 0, stays: true, has_blank: true });
    }
    one_word(text).or_else(|| more_words(text))
}

/// The length of a mnemonic of Cisco's kind, which is part of the text: `%ASA-6-302013:`, `%LINK-W-Down:`, `%%01SHELL/4/LOGIN(l)[3]:`.
fn mnemonic(text: &[u8]) -> Option<usize> {
    let len = text.iter().take_while(|b| !matches!(**b, b' ' | b':' | b'[')).count();
    let name = text.strip_prefix(b"%")?;
    // Small switches write the first letter of a severity instead of its number.
    let severity = |pair: &[u8]| {
        matches!(pair, [b'-' | b'/', b'0'..=b'7' | b'E' | b'A' | b'C' | b'W' | b'N' | b'I' | b'D', b'-' | b'/'])
    };
    let is_name = len <= MAX_APP_NAME && name.iter().take(len - 1).all(|b| is_name_byte(*b) || *b == b'%');
    (is_name && text[..len].windows(3).any(severity)).then_some(len)
}

/// Whether a text begins with the name of a format that has a structure of its own.
pub(super) fn is_format(text: &[u8]) -> bool {
    FORMATS.iter().any(|name| text.starts_with(name))
}

/// `name:`, `name[pid]:`, `name[pid]`
fn one_word(text: &[u8]) -> Option<Tag> {
    let len = text.iter().take_while(|b| is_name_byte(**b)).count();
    let (name, behind) = text.split_at(len);
    if !is_name(name) || is_format(text) {
        return None;
    }
    if let Some((pid, end)) = pid_at(behind) {
        let pid = Some(len + pid.start..len + pid.end);
        return Some(Tag { name: 0..len, pid, text: len + end, stays: false, has_blank: true });
    }
    let text = behind.strip_prefix(b":")?;
    let has_blank = matches!(text.first(), None | Some(b' ' | b'\t'));
    // `http://`, `C:\`, `a::b`.
    let is_other = !has_blank && (len < 2 || matches!(text[0], b'/' | b'\\' | b':'));
    if is_other || is_severity(name) || LABELS.iter().any(|label| name.eq_ignore_ascii_case(label)) {
        return None;
    }
    Some(Tag {
        name: 0..len,
        pid: None,
        text: len + (behind.len() - behind_colon(behind).len()),
        stays: false,
        has_blank,
    })
}

/// `Plex Media Server[812]:`: only a numeric process ID and a `:` distinguish a name with blanks from text.
fn more_words(text: &[u8]) -> Option<Tag> {
    let end = text.iter().take(MAX_APP_NAME + 1).position(|b| !is_name_byte(*b) && *b != b' ')?;
    let (pid, behind) = pid_at(&text[end..])?;
    let number = &text[end..][pid.clone()];
    let has_colon = text[end..][pid.end..].starts_with(b"]:");
    // Words up to a severity do not belong to the program.
    let words = text[..end].trim_ascii_end();
    let ends = memchr::memchr_iter(b' ', words).map(|blank| blank + 1);
    let starts: Vec<usize> = std::iter::once(0).chain(ends).collect();
    let word = |start: &usize| split_word(&words[*start..]).map_or(&words[*start..], |(word, _)| word);
    let start = starts.iter().rfind(|start| is_severity(word(start))).map_or(0, |start| start + word(start).len());
    let start = start + blanks(&words[start..]);
    let is_tag = has_colon && number.iter().all(u8::is_ascii_digit) && is_name(&words[start..]);
    let pid = Some(end + pid.start..end + pid.end);
    is_tag.then_some(Tag { name: start..words.len(), pid, text: end + behind, stays: false, has_blank: true })
}

/// `[pid]`, optionally followed by a `:` and one blank. Returns the range of the pid, and where the text begins.
fn pid_at(text: &[u8]) -> Option<(std::ops::Range<usize>, usize)> {
    let inner = text.strip_prefix(b"[")?;
    let len = inner.iter().take(MAX_PROC_ID + 1).position(|b| *b == b']').filter(|len| *len > 0)?;
    let is_pid = inner[..len].iter().all(|b| b.is_ascii_graphic() && !matches!(b, b'[' | b'"' | b'=' | b',' | b'|'));
    let behind = &inner[len + 1..];
    let ends = matches!(behind.first(), None | Some(b':' | b' '));
    (is_pid && ends).then(|| (1..len + 1, text.len() - behind_colon(behind).len()))
}

/// The text after an optional `:` and an optional blank.
fn behind_colon(text: &[u8]) -> &[u8] {
    let text = text.strip_prefix(b":").unwrap_or(text);
    text.strip_prefix(b" ").unwrap_or(text)
}

/// Whether a word is a host name or an address. A severity is none, although some senders write it in front of the host.
pub(super) fn is_host(word: &[u8]) -> bool {
    let is_host_byte = |b: &u8| b.is_ascii_alphanumeric() || !b.is_ascii() || matches!(b, b'.' | b'-' | b'_' | b'@');
    let has_name = word.iter().any(|b| b.is_ascii_alphanumeric() || !b.is_ascii());
    let is_name = has_name && word.iter().all(is_host_byte) && !is_severity(word) && !is_facility_and_severity(word);
    word.len() <= MAX_HOSTNAME && (is_name || is_address(word) || is_with_port(word))
}

/// `192.0.2.7`, `2001:db8::`, `fe80::1%eth0`, and either in brackets.
fn is_address(word: &[u8]) -> bool {
    let inner = word.strip_prefix(b"[").and_then(|word| word.strip_suffix(b"]")).unwrap_or(word);
    let Ok(text) = std::str::from_utf8(inner) else { return false };
    match text.split_once('%') {
        Some((address, zone)) => address.parse::<Ipv6Addr>().is_ok() && zone.bytes().all(|b| b.is_ascii_alphanumeric()),
        None => text.parse::<IpAddr>().is_ok(),
    }
}

/// `host:5140`
fn is_with_port(word: &[u8]) -> bool {
    let Some(colon) = memchr::memrchr(b':', word) else { return false };
    let (host, port) = (&word[..colon], &word[colon + 1..]);
    let is_port = (1..=5).contains(&port.len()) && port.iter().all(u8::is_ascii_digit);
    is_port && memchr::memchr(b':', host).is_none() && is_host(host)
}

/// UniFi's devices use model, MAC and version as their name: `U7PG2,788a2056b182,v4.0.66.10832`.
fn is_unifi(word: &[u8]) -> bool {
    let mut parts = word.split(|b| *b == b',');
    let is_mac = |part: &[u8]| part.len() == 12 && part.iter().all(u8::is_ascii_hexdigit);
    let is_clean = word.iter().all(|b| is_name_byte(*b) || *b == b',');
    is_clean && word.len() <= MAX_HOSTNAME && word.contains(&b',') && parts.any(is_mac)
}

/// Whether this is the name of a program: up to 48 bytes, with at least one letter, so that an IPv4 address is none.
fn is_name(name: &[u8]) -> bool {
    let has_letter = name.iter().any(|b| b.is_ascii_alphabetic() || !b.is_ascii());
    has_letter && name.len() <= MAX_APP_NAME
}

fn is_name_byte(byte: u8) -> bool {
    let is_sign = matches!(byte, b'-' | b'_' | b'.' | b'/' | b'(' | b')' | b'@' | b'+' | b'#' | b'$');
    byte.is_ascii_alphanumeric() || !byte.is_ascii() || is_sign
}

/// `notice`, `INFO`, `error`
fn is_severity(word: &[u8]) -> bool {
    let mut lower = [0; MAX_SEVERITY];
    let Some(lower) = lower.get_mut(..word.len()) else { return false };
    lower.copy_from_slice(word);
    lower.make_ascii_lowercase();
    std::str::from_utf8(lower).is_ok_and(|word| severity_by_name(word).is_some())
}

/// `user.info`
fn is_facility_and_severity(word: &[u8]) -> bool {
    let Some(dot) = memchr::memchr(b'.', word) else { return false };
    let facility = |word: &[u8]| crate::record::FACILITIES.iter().any(|name| name.as_bytes() == word);
    facility(&word[..dot]) && is_severity(&word[dot + 1..])
}

/// A word, and the text after its one blank.
fn split_word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b' ', text).filter(|end| *end > 0)?;
    Some((&text[..end], &text[end + 1..]))
}

fn blanks(text: &[u8]) -> usize {
    text.iter().take_while(|b| **b == b' ').count()
}
