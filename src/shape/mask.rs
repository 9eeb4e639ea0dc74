//! What is hidden in texts: what a pattern finds, and secrets that are known by their form.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use crate::record::Expression;

/// Bytes of a compiled pattern. Whole texts are searched, however long they are.
const MAX_PATTERN: usize = 8 << 10;
/// Digits of a card's number (ISO/IEC 7812-1).
const CARD_DIGITS: std::ops::RangeInclusive<usize> = 13..=19;

/// What is hidden, and what takes its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    pub what: Secret,
    /// With `$1` or `${name}` for a group of a pattern.
    pub with: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    Pattern(MaskPattern),
    Known(Known),
}

/// Secrets that are known by their form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// 13 to 19 digits with a right check digit (Luhn's), perhaps in groups.
    CardNumber,
    Email,
    /// What stands behind `Bearer ` (RFC 6750 2.1).
    BearerToken,
    /// An access key of AWS: `AKIA…`, `ASIA…`.
    AwsKey,
    /// A block of PEM, up to its end or the text's.
    PrivateKey,
}

/// A regular expression, and what each text has in which it is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaskPattern {
    expression: Expression,
    /// Empty: nothing is known.
    start: String,
}

/// What becomes of bytes; `None`: nothing of them is hidden. What is not UTF-8 has no secret in it. `on_hit` is told the masks that hide.
pub fn hide(masks: &[Mask], bytes: &[u8], on_hit: &dyn Fn(&Mask)) -> Option<Vec<u8>> {
    let mut hides = false;
    let mut out = Vec::new();
    for chunk in bytes.utf8_chunks() {
        let mut hidden: Option<String> = None;
        for mask in masks {
            if let Some(more) = mask.hide(hidden.as_deref().unwrap_or(chunk.valid())) {
                on_hit(mask);
                hidden = Some(more);
            }
        }
        hides |= hidden.is_some();
        out.extend_from_slice(hidden.as_deref().unwrap_or(chunk.valid()).as_bytes());
        out.extend_from_slice(chunk.invalid());
    }
    hides.then_some(out)
}

impl Mask {
    /// What becomes of a text; `None`: nothing of it is hidden.
    pub fn hide(&self, text: &str) -> Option<String> {
        match &self.what {
            Secret::Pattern(pattern) => pattern.replace(text, &self.with),
            Secret::Known(known) => {
                let mut hidden = String::new();
                let mut at = 0;
                while let Some(found) = known.find(text, at) {
                    hidden.push_str(&text[at..found.start]);
                    hidden.push_str(&self.with);
                    at = found.end;
                }
                if at == 0 {
                    return None;
                }
                hidden.push_str(&text[at..]);
                Some(hidden)
            }
        }
    }
}

impl MaskPattern {
    pub fn new(written: &str) -> Result<Self, String> {
        let expression = Expression::new(written, MAX_PATTERN).map_err(|says| format!("the pattern {says}"))?;
        if expression.regex().is_match("") {
            return Err("the pattern is found in an empty text, and so everywhere".to_owned());
        }
        Ok(Self { expression, start: start(written) })
    }

    pub fn written(&self) -> &str {
        self.expression.written()
    }

    fn replace(&self, text: &str, with: &str) -> Option<String> {
        // Most texts have nothing to hide, and this is fifty times as fast.
        if !self.start.is_empty() && memchr::memmem::find(text.as_bytes(), self.start.as_bytes()).is_none() {
            return None;
        }
        match self.expression.regex().replace_all(text, with) {
            Cow::Borrowed(_) => None,
            Cow::Owned(hidden) => Some(hidden),
        }
    }
}

/// The letters with which everything begins that the pattern finds.
fn start(written: &str) -> String {
    let is_letter = |letter: &char| {
        letter.is_alphanumeric() || matches!(letter, ' ' | '=' | ':' | '_' | '"' | '@' | '/' | ',' | ';' | '<' | '>')
    };
    let mut letters: String = written.chars().take_while(is_letter).collect();
    let behind = written[letters.len()..].chars().next();
    // The last one may be there several times, or not at all.
    if matches!(behind, Some('*' | '?' | '{' | '+')) {
        letters.pop();
    }
    // An alternative begins otherwise.
    if written.contains('|') { String::new() } else { letters }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pattern(pattern) => write!(f, "pattern `{}`", pattern.written()),
            Self::Known(known) => f.write_str(known.word()),
        }
    }
}

impl Known {
    /// Each with its name in a config.
    pub const ALL: [(&str, Self); 5] = [
        ("card-number", Self::CardNumber),
        ("email", Self::Email),
        ("bearer-token", Self::BearerToken),
        ("aws-key", Self::AwsKey),
        ("private-key", Self::PrivateKey),
    ];

    pub fn word(self) -> &'static str {
        Self::ALL.iter().find_map(|(word, known)| (*known == self).then_some(*word)).unwrap_or_default()
    }

    /// The first secret from `at` on.
    fn find(self, text: &str, at: usize) -> Option<Range<usize>> {
        match self {
            Self::CardNumber => card_number(text.as_bytes(), at),
            Self::Email => email(text.as_bytes(), at),
            Self::BearerToken => bearer_token(text.as_bytes(), at),
            Self::AwsKey => aws_key(text.as_bytes(), at),
            Self::PrivateKey => private_key(text, at),
        }
    }
}

fn card_number(text: &[u8], mut at: usize) -> Option<Range<usize>> {
    loop {
        at += text.get(at..)?.iter().position(u8::is_ascii_digit)?;
        let begins = at == 0 || !text[at - 1].is_ascii_alphanumeric();
        let (digits, end) = grouped_digits(text, at);
        // No card begins with another digit.
        if begins && CARD_DIGITS.contains(&digits.len()) && (2..=6).contains(&digits[0]) && is_checked(&digits) {
            return Some(at..end);
        }
        at = end;
    }
}

/// Digits with at most one blank or hyphen between two of them, and where they end. Only as many as a card has, and one more.
fn grouped_digits(text: &[u8], start: usize) -> (Vec<u8>, usize) {
    let (mut digits, mut end) = (Vec::with_capacity(CARD_DIGITS.end() + 1), start);
    while let Some(rest) = text.get(end..) {
        let skipped = usize::from(end > start && matches!(rest.first(), Some(b' ' | b'-')));
        match rest.get(skipped) {
            Some(digit @ b'0'..=b'9') => {
                if digits.len() <= *CARD_DIGITS.end() {
                    digits.push(digit - b'0');
                }
                end += skipped + 1;
            }
            _ => break,
        }
    }
    if text.get(end).is_some_and(u8::is_ascii_alphanumeric) {
        digits.clear();
    }
    (digits, end)
}

/// Luhn's check.
fn is_checked(digits: &[u8]) -> bool {
    let doubled = |digit: u8| if digit < 5 { digit * 2 } else { digit * 2 - 9 };
    let sum = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| u32::from(if at % 2 == 1 { doubled(*digit) } else { *digit }));
    sum.sum::<u32>().is_multiple_of(10)
}

fn email(text: &[u8], from: usize) -> Option<Range<usize>> {
    let mut at = from;
    loop {
        at += memchr::memchr(b'@', text.get(at..)?)?;
        let is_local = |byte: &u8| byte.is_ascii_alphanumeric() || b"._%+-".contains(byte);
        let is_domain = |byte: &u8| byte.is_ascii_alphanumeric() || b".-".contains(byte);
        let local = text[from..at].iter().rev().take_while(|byte| is_local(byte)).count();
        let mut domain = text[at + 1..].iter().take_while(|byte| is_domain(byte)).count();
        // The end of a sentence.
        domain -= text[at + 1..at + 1 + domain].iter().rev().take_while(|byte| b".-".contains(byte)).count();
        let last = text[at + 1..at + 1 + domain].rsplit(|byte| *byte == b'.').next().unwrap_or_default();
        if local > 0 && last.len() < domain && last.len() >= 2 && last.iter().all(u8::is_ascii_alphabetic) {
            return Some(at - local..at + 1 + domain);
        }
        at += 1;
    }
}

fn bearer_token(text: &[u8], mut at: usize) -> Option<Range<usize>> {
    const SHORTEST: usize = 8;
    loop {
        // Both ways to write it.
        at += memchr::memmem::find(text.get(at..)?, b"earer ")? + b"earer ".len();
        let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
        let len = text[at..].iter().take_while(|byte| is_token(byte)).count();
        if len >= SHORTEST {
            return Some(at..at + len);
        }
    }
}

fn aws_key(text: &[u8], mut at: usize) -> Option<Range<usize>> {
    const LEN: usize = 20;
    loop {
        at += memchr::memmem::find(text.get(at..)?, b"IA")?;
        let start = at.checked_sub(2).filter(|start| matches!(&text[*start..at], b"AK" | b"AS"));
        let key = start.and_then(|start| Some((start, text.get(start..start + LEN)?)));
        if let Some((start, key)) = key {
            let is_key = key.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
            let stands_alone = [start.checked_sub(1), Some(start + LEN)]
                .into_iter()
                .flatten()
                .all(|beside| !text.get(beside).is_some_and(u8::is_ascii_alphanumeric));
            if is_key && stands_alone {
                return Some(start..start + LEN);
            }
        }
        at += 2;
    }
}

fn private_key(text: &str, mut at: usize) -> Option<Range<usize>> {
    const MARK: &str = "PRIVATE KEY-----";
    loop {
        let start = at + memchr::memmem::find(text.as_bytes().get(at..)?, b"-----BEGIN ")?;
        let begun = start + "-----BEGIN ".len();
        let kind = text[begun..].bytes().take_while(|byte| byte.is_ascii_uppercase() || *byte == b' ').count();
        let is_private = text[begun..].get(..kind + 5).is_some_and(|kind| kind.ends_with(MARK));
        if is_private {
            let body = begun + kind + 5;
            let end = text[body..]
                .find("-----END ")
                .and_then(|end| Some(body + end + text[body + end..].find(MARK)? + MARK.len()));
            return Some(start..end.unwrap_or(text.len()));
        }
        at = begun;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(known: Known, text: &str, expected: &str) {
        let mask = Mask { what: Secret::Known(known), with: "***".to_owned() };
        assert_eq!(mask.hide(text).as_deref().unwrap_or(text), expected, "{text}");
    }

    #[test]
    fn secrets_are_known_by_their_form() {
        check(Known::CardNumber, "card 4111111111111111, ok", "card ***, ok");
        check(Known::CardNumber, "4111 1111 1111 1111 and 5500-0000-0000-0004", "*** and ***");
        check(Known::CardNumber, "378282246310005", "***");
        for text in [
            "4111111111111112",
            "1795885318123456789",
            "x4111111111111111",
            "4111111111111111x",
            "41111111111111110000",
            "id=12",
        ] {
            check(Known::CardNumber, text, text);
        }
        check(Known::Email, "to a.b+c@example.com.", "to ***.");
        check(Known::Email, "<x@y.example>,z@q.de", "<***>,***");
        for text in ["@", "a@b", "user@host:", "@example.com", "a@b.1", "ssh a@10.0.0.1"] {
            check(Known::Email, text, text);
        }
        check(Known::BearerToken, "Authorization: Bearer eyJhbGciOi.x-y_z", "Authorization: Bearer ***");
        check(Known::BearerToken, "the bearer of bearer 12345678", "the bearer of bearer ***");
        check(Known::AwsKey, "key=AKIAIOSFODNN7EXAMPLE;", "key=***;");
        check(Known::AwsKey, "ASIAIOSFODNN7EXAMPLE", "***");
        for text in ["AKIAIOSFODNN7EXAMPL", "xAKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLEX", "IA", "INDIA"] {
            check(Known::AwsKey, text, text);
        }
        let block = "a -----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY----- b";
        check(Known::PrivateKey, block, "a *** b");
        check(Known::PrivateKey, "-----BEGIN PRIVATE KEY-----\nabc", "***");
        check(Known::PrivateKey, "-----BEGIN CERTIFICATE-----\nabc", "-----BEGIN CERTIFICATE-----\nabc");
    }

    #[test]
    fn a_pattern_hides_what_it_finds() {
        let hide = |pattern: &str, with: &str, text: &str| {
            let what = Secret::Pattern(MaskPattern::new(pattern).unwrap());
            Mask { what, with: with.to_owned() }.hide(text)
        };
        assert_eq!(
            hide(r"password=\S+", "password=***", "a password=x b password=y").as_deref(),
            Some("a password=*** b password=***")
        );
        assert_eq!(hide(r"password=\S+", "password=***", "nothing"), None);
        assert_eq!(hide("(?P<key>token): .+", "$key: -", "token: x").as_deref(), Some("token: -"));
        assert_eq!(hide("ab?c", "-", "ac abc").as_deref(), Some("- -"));
        assert_eq!(hide("a|b", "-", "b").as_deref(), Some("-"));
        assert_eq!(hide("(?i)secret", "-", "SECRET").as_deref(), Some("-"));
        assert!(MaskPattern::new("x*").unwrap_err().contains("empty text"));
        assert!(MaskPattern::new("(").unwrap_err().starts_with("the pattern cannot be used: "));
    }

    #[test]
    fn what_everything_begins_with() {
        for (pattern, expected) in [
            ("password=\\S+", "password="),
            ("ab?c", "a"),
            ("ab+", "a"),
            ("a|b", ""),
            ("^a", ""),
            ("(?i)a", ""),
            ("", ""),
            ("ab", "ab"),
        ] {
            assert_eq!(start(pattern), expected, "{pattern}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics_and_a_second_time_hides_no_more(text in "[a4@ \\-.EBIKNRTVAPGS5\u{fc}]{0,60}|(-----BEGIN |PRIVATE KEY-----|-----END |AKIA|earer |[0-9 ]{16}){0,6}") {
            for known in [Known::CardNumber, Known::Email, Known::BearerToken, Known::AwsKey, Known::PrivateKey] {
                let mask = Mask { what: Secret::Known(known), with: "***".to_owned() };
                if let Some(hidden) = mask.hide(&text) {
                    proptest::prop_assert_eq!(mask.hide(&hidden), None);
                }
            }
        }
    }
}
