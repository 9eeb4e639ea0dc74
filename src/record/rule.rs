//! Rules: which records match. A rule has conditions on image, name, app, host, peer, listener, driver, facility, severity,
//! message and fields. A record matches if all of them hold. `[[drop]]`, `[[sample]]`, the `match` of a forward, and filters
//! use rules.

use std::fmt;

use core::net::IpAddr;

use super::expression::Expressions;
use super::field_condition::FieldConditions;
use super::render::{FACILITIES, SEVERITIES};
use super::{AddressRange, BadSetting, HeaderField, Record};

/// The maximum number of patterns, or ranges, of one key.
pub(super) const MAX_PATTERNS: usize = 64;
/// The driver of messages that came as syslog. Only rules use it, a record has no driver then.
const SYSLOG: &[u8] = b"syslog";

/// A rule. Without conditions it matches every record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// The image as the user typed it.
    pub image: Patterns,
    /// The container's name.
    pub name: Patterns,
    /// APP-NAME: a container's name, or the sender's own name.
    pub app: Patterns,
    /// HOSTNAME.
    pub host: Patterns,
    /// The address of the sender.
    pub peer: Ranges,
    /// The name of the listener that received the message, if it has one.
    pub listener: Patterns,
    /// The log driver that sent the message.
    pub driver: Patterns,
    pub facility: Facilities,
    pub severity: Severities,
    /// Patterns for the whole of MSG.
    pub message: Patterns,
    /// Expressions for a part of MSG.
    pub message_regex: Expressions,
    pub field: FieldConditions,
}

/// Patterns for names: `*` stands for any bytes, `?` for one. A `!` in front excludes what matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patterns {
    any_of: Vec<String>,
    none_of: Vec<String>,
}

/// Ranges of addresses. A `!` in front excludes a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    any_of: Vec<AddressRange>,
    none_of: Vec<AddressRange>,
}

/// Some of the 24 facilities of RFC 5424 6.2.1; empty: all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facilities(Set);

/// Some of the 8 severities of RFC 5424 6.2.1; empty: all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Severities(Set);

/// Names as they were written, and one bit for each number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Set {
    written: Vec<String>,
    bits: u32,
}

impl Rule {
    /// The first rule that matches.
    pub fn first_match<'r>(rules: &'r [Self], record: &Record<'_>) -> Option<&'r Self> {
        rules.iter().find(|rule| rule.matches(record))
    }

    /// Does the rule match every record?
    pub fn matches_all(&self) -> bool {
        *self == Self::default()
    }

    /// Does the rule use marks: data that only a relay knows, and writes into an element of its own?
    pub fn asks_marks(&self) -> bool {
        let Self { image, name, listener, driver, peer, .. } = self;
        [image, name, listener, driver].iter().any(|patterns| !patterns.is_empty()) || !peer.is_empty()
    }

    /// Does the rule use data that differs between messages with the same header?
    pub fn asks_content(&self) -> bool {
        let Self { message, message_regex, field, .. } = self;
        !message.is_empty() || !message_regex.is_empty() || !field.is_empty()
    }

    pub fn matches(&self, record: &Record<'_>) -> bool {
        self.matches_priority(record.facility, record.severity)
            && self.matches_origin(record)
            && self.matches_content(record)
    }

    /// Do the conditions on the text and the fields hold?
    pub fn matches_content(&self, record: &Record<'_>) -> bool {
        let message = record.message.unwrap_or_default();
        self.message.match_bytes(message)
            && self.message_regex.match_text(message)
            && self.field.match_fields(&record.fields)
    }

    /// Do the conditions on the priority hold? It differs from message to message.
    pub fn matches_priority(&self, facility: u8, severity: u8) -> bool {
        self.facility.0.has(facility) && self.severity.0.has(severity)
    }

    /// Do the conditions on the sender and the listener hold? They are the same for all messages of a container.
    pub fn matches_origin(&self, record: &Record<'_>) -> bool {
        let fields = [
            (&self.image, record.image_name()),
            (&self.name, record.container_name()),
            (&self.listener, record.listener.as_deref()),
            (&self.driver, record.driver.as_deref().or(Some(SYSLOG))),
        ];
        let header = [(&self.app, record.app_name), (&self.host, record.hostname)];
        self.peer.match_address(record.peer)
            && fields.iter().all(|(patterns, field)| patterns.match_bytes(field.unwrap_or_default()))
            && header.iter().all(|(patterns, field)| patterns.match_header(*field))
    }
}

impl Patterns {
    pub fn new(written: Vec<String>) -> Result<Self, BadSetting> {
        if written.len() > MAX_PATTERNS {
            return Err(BadSetting(format!("{} patterns; at most {MAX_PATTERNS} are allowed", written.len())));
        }
        let (none_of, any_of): (Vec<_>, Vec<_>) = written.into_iter().partition(|pattern| pattern.starts_with('!'));
        let none_of: Vec<String> = none_of.into_iter().map(|pattern| pattern[1..].to_owned()).collect();
        if any_of.iter().chain(&none_of).any(String::is_empty) {
            return Err(BadSetting("a pattern must not be empty; \"*\" means every name".to_owned()));
        }
        Ok(Self { any_of, none_of })
    }

    /// All patterns, without the `!`.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.any_of.iter().chain(&self.none_of)
    }

    /// A missing field counts as empty.
    pub fn match_bytes(&self, field: &[u8]) -> bool {
        let matches = |pattern: &String| matches_glob(pattern.as_bytes(), field);
        (self.any_of.is_empty() || self.any_of.iter().any(matches)) && !self.exclude(field)
    }

    pub fn is_empty(&self) -> bool {
        self.any_of.is_empty() && self.none_of.is_empty()
    }

    /// A missing field of the header counts as `-`, as in the line.
    fn match_header(&self, field: Option<HeaderField<'_>>) -> bool {
        self.is_empty() || self.match_bytes(&HeaderField::or_nil(field))
    }

    /// Are there patterns without `!`, and does the field match?
    pub(super) fn include(&self, field: &[u8]) -> bool {
        !self.any_of.is_empty() && self.match_bytes(field)
    }

    /// Does a pattern with `!` match?
    pub(super) fn exclude(&self, field: &[u8]) -> bool {
        self.none_of.iter().any(|pattern| matches_glob(pattern.as_bytes(), field))
    }

    pub fn written(&self) -> Vec<String> {
        self.any_of.iter().cloned().chain(self.none_of.iter().map(|pattern| format!("!{pattern}"))).collect()
    }
}

impl Ranges {
    pub fn new(written: Vec<String>) -> Result<Self, BadSetting> {
        if written.len() > MAX_PATTERNS {
            return Err(BadSetting(format!("{} ranges; at most {MAX_PATTERNS} are allowed", written.len())));
        }
        let mut ranges = Self::default();
        for text in &written {
            let (list, range) = match text.strip_prefix('!') {
                Some(range) => (&mut ranges.none_of, range),
                None => (&mut ranges.any_of, text.as_str()),
            };
            list.push(range.parse().map_err(BadSetting)?);
        }
        Ok(ranges)
    }

    pub fn is_empty(&self) -> bool {
        self.any_of.is_empty() && self.none_of.is_empty()
    }

    /// A record without an address is in no range.
    fn match_address(&self, address: Option<IpAddr>) -> bool {
        let is_in =
            |ranges: &[AddressRange]| address.is_some_and(|address| ranges.iter().any(|range| range.contains(address)));
        (self.any_of.is_empty() || is_in(&self.any_of)) && !is_in(&self.none_of)
    }

    pub fn written(&self) -> Vec<String> {
        let none_of = self.none_of.iter().map(|range| format!("!{range}"));
        self.any_of.iter().map(ToString::to_string).chain(none_of).collect()
    }
}

impl Facilities {
    pub fn new(written: Vec<String>) -> Result<Self, BadSetting> {
        let bit = |name: &str| FACILITIES.iter().position(|known| *known == name).map(|number| 1 << number);
        let says = || format!("is no facility; there are {}", FACILITIES.join(", "));
        Ok(Self(Set::new(written, bit, says)?))
    }

    pub fn written(&self) -> &[String] {
        &self.0.written
    }
}

impl Severities {
    /// `written`: `warning`, `warning or worse`, `info or milder`.
    pub fn new(written: Vec<String>) -> Result<Self, BadSetting> {
        let says = || {
            let all = SEVERITIES.join(", ");
            format!("is no severity; write one of {all}, or \"warning or worse\", or \"info or milder\"")
        };
        Ok(Self(Set::new(written, severity_bits, says)?))
    }

    pub fn written(&self) -> &[String] {
        &self.0.written
    }
}

fn severity_bits(text: &str) -> Option<u32> {
    let mut words = text.split_whitespace();
    let number = severity_by_name(words.next()?)?;
    match (words.next(), words.next(), words.next()) {
        (None, ..) => Some(1 << number),
        (Some("or"), Some("worse"), None) => Some((1 << (number + 1)) - 1),
        (Some("or"), Some("milder"), None) => Some(0xff & !((1 << number) - 1)),
        _ => None,
    }
}

/// The number of a severity by its name. 0 is the worst.
pub fn severity_by_name(name: &str) -> Option<u8> {
    // syslog(3) has err and emerg; people also write the long names.
    let name = match name {
        "error" => "err",
        "warn" => "warning",
        "emergency" => "emerg",
        "critical" => "crit",
        name => name,
    };
    SEVERITIES.iter().zip(0..).find_map(|(known, number)| (*known == name).then_some(number))
}

impl Set {
    fn new(
        written: Vec<String>,
        bits_of: impl Fn(&str) -> Option<u32>,
        says: impl Fn() -> String,
    ) -> Result<Self, BadSetting> {
        let mut bits = 0;
        for name in &written {
            bits |= bits_of(name).ok_or_else(|| BadSetting(format!("`{name}` {}", says())))?;
        }
        Ok(Self { written, bits })
    }

    fn has(&self, number: u8) -> bool {
        self.written.is_empty() || self.bits >> number & 1 == 1
    }
}

/// Does the whole of `text` match `pattern`, in which `*` stands for any bytes and `?` for one? The time is at most
/// proportional to the product of their lengths.
pub fn matches_glob(pattern: &[u8], text: &[u8]) -> bool {
    // The fast path for a word in a text, which may be long.
    if let [b'*', words @ .., b'*'] = pattern
        && !words.iter().any(|byte| matches!(byte, b'*' | b'?'))
    {
        return memchr::memmem::find(text, words).is_some();
    }
    let (mut p, mut t) = (0, 0);
    // The last `*`, and the offset in the text that it does not cover yet.
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                // The `*` covers one byte more.
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

impl fmt::Display for Rule {
    /// Writes the rule as an inline table of TOML.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("image", self.image.written()),
            ("name", self.name.written()),
            ("app", self.app.written()),
            ("host", self.host.written()),
            ("peer", self.peer.written()),
            ("listener", self.listener.written()),
            ("driver", self.driver.written()),
            ("facility", self.facility.written().to_vec()),
            ("severity", self.severity.written().to_vec()),
            ("message", self.message.written()),
            ("message-regex", self.message_regex.written()),
            ("field", self.field.written().to_vec()),
        ];
        let shown: Vec<String> = parts
            .iter()
            .filter(|(_, written)| !written.is_empty())
            .map(|(key, written)| match written.as_slice() {
                [one] => format!("{key} = {one:?}"),
                patterns => format!("{key} = {patterns:?}"),
            })
            .collect();
        write!(f, "{{ {} }}", shown.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(written: &[&str]) -> Patterns {
        Patterns::new(written.iter().map(|text| (*text).to_owned()).collect()).unwrap()
    }

    #[test]
    fn stars_and_question_marks() {
        let check = |pattern: &str, text: &str, expected| {
            assert_eq!(matches_glob(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        };
        check("web", "web", true);
        check("web", "web-1", false);
        check("web", "", false);
        check("*", "", true);
        check("*", "anything", true);
        check("web-*", "web-", true);
        check("web-*", "web-1", true);
        check("*-web-*", "shop-web-1", true);
        check("*-web-*", "shop-api-1", false);
        check("*b*b*", "abcb", true);
        check("*b*b", "abcbc", false);
        check("web-?", "web-1", true);
        check("web-?", "web-12", false);
        check("web-?", "web-", false);
        check("a*?*c", "abc", true);
        check("a*?*c", "ac", false);
        check(&"*a".repeat(20), &"a".repeat(2000), true);
        check(&("*a".repeat(20) + "b"), &"a".repeat(2000), false);
    }

    #[test]
    fn an_exclamation_mark_excludes() {
        assert!(patterns(&[]).match_bytes(b""));
        assert!(patterns(&["web", "api"]).match_bytes(b"api"));
        assert!(!patterns(&["web", "api"]).match_bytes(b""));
        assert!(patterns(&["!debug-*"]).match_bytes(b"web") && patterns(&["!debug-*"]).match_bytes(b""));
        assert!(!patterns(&["!debug-*"]).match_bytes(b"debug-1"));
        assert!(
            !patterns(&["web-*", "!web-9"]).match_bytes(b"web-9")
                && patterns(&["web-*", "!web-9"]).match_bytes(b"web-8")
        );
        let says = Patterns::new(vec!["!".to_owned()]).unwrap_err().to_string();
        assert!(says.contains("must not be empty"), "{says}");
        assert!(Patterns::new(vec!["a".to_owned(); 65]).is_err());
    }

    #[test]
    fn a_rule_asks_for_the_address() {
        let ranges = |written: &[&str]| Ranges::new(written.iter().map(|text| (*text).to_owned()).collect());
        let check = |written: &[&str], peer: &str, expected| {
            let rule = Rule { peer: ranges(written).unwrap(), ..Rule::default() };
            assert_eq!(rule.matches(&Record { peer: peer.parse().ok(), ..Record::new(13) }), expected, "{rule} {peer}");
        };
        check(&["10.0.0.0/8"], "10.1.2.3", true);
        check(&["10.0.0.0/8"], "::ffff:10.1.2.3", true);
        check(&["10.0.0.0/8", "2001:db8::/32"], "2001:db8::7", true);
        check(&["10.0.0.0/8"], "192.0.2.7", false);
        check(&["10.0.0.0/8", "!10.1.0.0/16"], "10.1.2.3", false);
        check(&["!10.1.0.0/16"], "10.2.2.3", true);
        // A sender without an address is in no range.
        check(&["0.0.0.0/0", "::/0"], "none", false);
        check(&["!10.0.0.0/8"], "none", true);
        let says = ranges(&["10.1.2.3/8"]).unwrap_err().to_string();
        assert!(says.contains("write which is meant"), "{says}");
        assert!(ranges(&["switch-7"]).is_err() && ranges(&["10.0.0.1"; 65]).is_err());
    }

    #[test]
    fn severities_in_words() {
        let numbers = |written: &[&str]| -> Vec<u8> {
            let set = Severities::new(written.iter().map(|text| (*text).to_owned()).collect()).unwrap();
            (0..8).filter(|number| set.0.has(*number)).collect()
        };
        assert_eq!(numbers(&[]), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(numbers(&["warning"]), [4]);
        assert_eq!(numbers(&["warn or worse"]), [0, 1, 2, 3, 4]);
        assert_eq!(numbers(&["info or milder"]), [6, 7]);
        assert_eq!(numbers(&["debug", "error"]), [3, 7]);
        assert_eq!(numbers(&["debug or worse"]).len(), 8);
        for bad in ["warnin", "warning or", "warning or better", "warning or worse still", "4", ""] {
            let says = Severities::new(vec![bad.to_owned()]).unwrap_err().to_string();
            assert!(says.starts_with(&format!("`{bad}` is no severity")), "{says}");
        }
    }

    #[test]
    fn a_rule_matches_what_all_of_it_applies_to() {
        let line = b"<30>1 2026-11-20T22:27:33Z node-7 web 2a9052a5c36e - [docker@32473 image=\"nginx:1.25\" name=\"web\" id=\"2a9052a5c36e\"][logferry@32473 listener=\"dmz\"] hello";
        let record = Record::from_line(line, "docker@32473");
        let check = |rule: Rule, expected| assert_eq!(rule.matches(&record), expected, "{rule}");
        check(Rule::default(), true);
        check(Rule { image: patterns(&["nginx:*"]), name: patterns(&["web"]), ..Rule::default() }, true);
        check(Rule { image: patterns(&["nginx:*"]), name: patterns(&["api"]), ..Rule::default() }, false);
        check(Rule { host: patterns(&["node-?"]), app: patterns(&["web"]), ..Rule::default() }, true);
        check(Rule { listener: patterns(&["dmz"]), ..Rule::default() }, true);
        check(Rule { listener: patterns(&["!dmz"]), ..Rule::default() }, false);
        let daemon = || Facilities::new(vec!["daemon".to_owned()]).unwrap();
        let severity = |text: &str| Severities::new(vec![text.to_owned()]).unwrap();
        check(Rule { facility: daemon(), severity: severity("info"), ..Rule::default() }, true);
        check(Rule { facility: daemon(), severity: severity("notice or worse"), ..Rule::default() }, false);
        check(Rule { facility: Facilities::new(vec!["local0".to_owned()]).unwrap(), ..Rule::default() }, false);
    }
}
