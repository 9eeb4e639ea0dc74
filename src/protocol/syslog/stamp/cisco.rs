//! The headers of Cisco's devices: what they write in front of a stamp or instead of one (IOS, IOS-XR, NX-OS, ASA, WLC, call manager):
//!
//! ```text
//! [COUNTER: ]{0,2}[ORIGIN: [COUNTER: ]][*TASK: ][{*,.}]STAMP: [PROCESS: ]%FAC-SEV-MNEM: text
//! COUNTER:[ ]STAMP HOST %FAC-SEV-MNEM: text         (Ruijie, D-Link)
//! ```
//!
//! `*` means that the clock was never set, `.` that it is not synchronized. Both apply to many clocks and are dropped, and so are counters:
//! rsyslog drops them too. ORIGIN is the host. IOS-XR writes a node after it or in its place (`RP/0/RSP0/CPU0:`).

use super::written::{self, WrittenStamp};
use crate::record::{Stamp, TimeZone, UnixMicros};

/// Maximum bytes in which the stamp is searched for.
const MAX_PREFIX: usize = 256;
/// Maximum bytes of an uptime. It is searched for after each `:` of the prefix.
const MAX_UPTIME: usize = 32;

/// A header in Cisco's format. [`WrittenStamp::end`] is the `:` after the stamp.
pub(crate) struct CiscoHeader<'a> {
    pub stamp: WrittenStamp<'a>,
    pub host: Option<&'a [u8]>,
    /// The node of a router, or the task of a wireless controller.
    pub process: Option<&'a [u8]>,
}

/// Reads a Cisco header. `None`: the text has no such header, or nothing in front of its stamp.
pub(crate) fn read<'a>(text: &'a [u8], received: UnixMicros, zone: Option<&TimeZone>) -> Option<CiscoHeader<'a>> {
    let unstamped = |end: usize| WrittenStamp { stamp: Stamp::Received(received), nanoseconds: 0, unread: None, end };
    let start = behind_counters(text);
    let has_counter = start > 0;
    if let Some((stamp, is_marked)) = stamp_at(text, start, received, zone)
        && (has_counter || is_marked)
        && (stamp.unread.is_none() || is_message(text, stamp.end))
    {
        return Some(CiscoHeader { stamp, host: None, process: None });
    }
    if has_counter
        && let Some(stamp) = written::find_at(text, start, received, zone)
        && stamp.unread.is_none()
        && is_message_of_host(text, stamp.end)
    {
        return Some(CiscoHeader { stamp, host: None, process: None });
    }
    if has_counter
        && let Some(colon) = text[..start].iter().rposition(|b| *b == b':').filter(|at| begins_message(text, *at))
    {
        return Some(CiscoHeader { stamp: unstamped(colon), host: None, process: None });
    }
    let within = &text[..text.len().min(MAX_PREFIX)];
    let colons = memchr::memchr_iter(b':', within).filter(|at| *at > start);
    colons.map_while(|at| Prefix::split(&text[start..at]).map(|prefix| (at, prefix))).find_map(|(at, prefix)| {
        let prefix = prefix?;
        // Without a stamp and a counter the prefix may be a tag.
        let unstamped = || has_counter.then(|| (unstamped(at), false));
        let (stamp, _) = stamp_at(text, skip_blanks(text, at + 1), received, zone).or_else(unstamped)?;
        is_message(text, stamp.end).then_some(CiscoHeader { stamp, host: prefix.host, process: prefix.process })
    })
}

/// `29: `, `29: 000031: `, `: `, `:`, `226:Nov 20 …`
fn behind_counters(text: &[u8]) -> usize {
    let first = skip_blanks(text, 0);
    let mut at = first;
    for _ in 0..2 {
        let digits = text[at..].iter().take_while(|b| b.is_ascii_digit()).count();
        let behind = text.get(at + digits + 1..).unwrap_or_default();
        match text.get(at + digits) {
            // A stamp or an address may begin with digits too.
            Some(b':') if digits == 0 || behind.starts_with(b" ") || written::begins_with_month(behind) => {
                at = skip_blanks(text, at + digits + 1);
            }
            _ => break,
        }
    }
    if at == first { 0 } else { at }
}

/// Reads the stamp at a place. A `*` or `.` may precede it, and a `:` must follow it. Returns whether it has a `*` or `.`.
fn stamp_at<'a>(
    text: &'a [u8],
    at: usize,
    received: UnixMicros,
    zone: Option<&TimeZone>,
) -> Option<(WrittenStamp<'a>, bool)> {
    let is_marked = matches!(text.get(at), Some(b'*' | b'.'));
    let start = at + usize::from(is_marked);
    let mut stamp = written::find_at(text, start, received, zone).or_else(|| uptime(text, start, received))?;
    stamp.end = skip_blanks(text, stamp.end);
    (text.get(stamp.end) == Some(&b':')).then_some((stamp, is_marked))
}

/// The uptime of a device: `1w2d`, `3d04h`, `00:01:23`.
fn uptime(text: &[u8], start: usize, received: UnixMicros) -> Option<WrittenStamp<'_>> {
    let word = text.get(start..)?;
    let is_of_it = |b: &&u8| b.is_ascii_alphanumeric() || matches!(b, b':' | b'.');
    let len = word.iter().take(MAX_UPTIME + 1).take_while(is_of_it).count();
    if len > MAX_UPTIME {
        return None;
    }
    let word = word[..len].strip_suffix(b":").unwrap_or(&word[..len]);
    let is_number = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    let units = || {
        let mut parts = word.split_inclusive(|b| b"ywdhms".contains(b));
        !word.is_empty()
            && parts.all(|part| {
                part.len() <= 5
                    && part.split_last().is_some_and(|(unit, number)| is_number(number) && b"ywdhms".contains(unit))
            })
    };
    let clock = || {
        let mut parts = word.splitn(2, |b| *b == b'.');
        let time = parts.next().unwrap_or_default();
        time.split(|b| *b == b':').count() == 3 && time.split(|b| *b == b':').all(is_number) && parts.all(is_number)
    };
    let unread = Some(word).filter(|_| units() || clock());
    unread.map(|_| WrittenStamp { stamp: Stamp::Received(received), nanoseconds: 0, unread, end: start + word.len() })
}

/// Whether `: [PROCESS: ]%FAC-SEV-MNEM` begins at `colon`.
fn is_message(text: &[u8], colon: usize) -> bool {
    let at = skip_blanks(text, colon + 1);
    let process = text.get(at..).unwrap_or_default().iter().take_while(|b| !matches!(b, b' ' | b':')).count();
    begins_message(text, colon) || text.get(colon) == Some(&b':') && begins_message(text, at + process)
}

/// Whether ` HOST %FAC-SEV-MNEM` begins at `at`.
fn is_message_of_host(text: &[u8], at: usize) -> bool {
    let start = skip_blanks(text, at);
    let host = text.get(start..).unwrap_or_default().iter().take_while(|b| **b != b' ').count();
    start > at && host > 0 && names_message(text, start + host)
}

/// Whether `: %FAC-SEV-MNEM` begins at `colon`.
fn begins_message(text: &[u8], colon: usize) -> bool {
    text.get(colon) == Some(&b':') && names_message(text, colon + 1)
}

/// Whether `%FAC-SEV-MNEM` begins at `at`, or after the blanks there.
fn names_message(text: &[u8], at: usize) -> bool {
    let word = text.get(skip_blanks(text, at)..).unwrap_or_default();
    let word = word.split(|b| matches!(b, b' ' | b':')).next().unwrap_or_default();
    let has_severity = || word.windows(3).any(|part| matches!(part, [b'-', b'0'..=b'7', b'-']));
    // A context may precede it: `%$ VDC-1 %$ %SYSMGR-2-…`.
    word == b"%$" || word.starts_with(b"%") && has_severity()
}

fn skip_blanks(text: &[u8], at: usize) -> usize {
    at + text.get(at..).unwrap_or_default().iter().take_while(|b| **b == b' ').count()
}

/// The part between counters and stamp.
#[derive(Clone, Copy)]
struct Prefix<'a> {
    host: Option<&'a [u8]>,
    process: Option<&'a [u8]>,
}

impl<'a> Prefix<'a> {
    /// `fw-1`, `fw-1 ` (ASA), `r1 RP/0/RSP0/CPU0`, `RP/0/RSP0/CPU0`, `wlc-1: *emWeb`, `*emWeb`. The outer `None`: no longer text can be a
    /// prefix either. The inner `None`: this text is no prefix.
    fn split(text: &'a [u8]) -> Option<Option<Self>> {
        let mut words = text.split(|b| *b == b' ').filter(|word| !word.is_empty());
        let first = words.next()?;
        let second = words.next();
        if words.next().is_some() {
            return None;
        }
        let is_node = |word: &[u8]| word.contains(&b'/');
        let name = |word: &'a [u8]| word.strip_suffix(b":").unwrap_or(word);
        Some(match (first, second) {
            ([b'*', task @ ..], None) => Some(Self { host: None, process: Some(task) }),
            (node, None) if is_node(node) => Some(Self { host: None, process: Some(node) }),
            (host, None) => Some(Self { host: Some(host), process: None }),
            (host, Some(counter)) if counter.iter().all(u8::is_ascii_digit) => {
                Some(Self { host: Some(name(host)), process: None })
            }
            (host, Some([b'*', task @ ..])) => Some(Self { host: Some(name(host)), process: Some(task) }),
            (host, Some(node)) if is_node(node) => Some(Self { host: Some(name(host)), process: Some(node) }),
            _ => None,
        })
    }
}
