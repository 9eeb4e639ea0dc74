//! Masks: they hide the matches of a pattern, and secrets with a known form.

use std::fmt;
use std::ops::Range;

use crate::record::Expression;

/// Bytes of a compiled pattern. A mask searches the whole text, however long it is.
const MAX_PATTERN: usize = 8 << 10;
/// Matches of a pattern that are replaced one by one; with the next match the whole rest of the text is hidden. This bounds
/// the time, because the search for each match may reach the end of the text.
const MAX_FOUND: usize = 256;
/// Digits of a card's number (ISO/IEC 7812-1).
const CARD_DIGITS: std::ops::RangeInclusive<usize> = 13..=19;

/// A secret, and the text that replaces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    pub what: Secret,
    /// The replacement. `$1` and `${name}` stand for groups of a pattern.
    pub with: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    Pattern(MaskPattern),
    Known(Known),
}

/// Secrets with a known form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// 13 to 19 digits with a correct check digit (Luhn algorithm), perhaps in groups.
    CardNumber,
    Email,
    /// The token behind `Bearer ` (RFC 6750 2.1).
    BearerToken,
    /// An access key ID of AWS: `AKIA…`, `ASIA…`.
    AwsKey,
    /// A PEM block of a private key, up to its end or the end of the text.
    PrivateKey,
}

/// A regular expression that does not match the empty text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaskPattern(Expression);

/// The bytes with all secrets replaced; `None`: there is no secret. Invalid UTF-8 splits the bytes into texts that are
/// searched one by one. `on_hit` gets each mask that replaces something.
pub fn hide(masks: &[Mask], bytes: &[u8], on_hit: &dyn Fn(&Mask)) -> Option<Vec<u8>> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return hide_all(masks, text, on_hit).map(String::into_bytes);
    }
    let mut hides = false;
    let mut out = Vec::new();
    for chunk in bytes.utf8_chunks() {
        let hidden = hide_all(masks, chunk.valid(), on_hit);
        hides |= hidden.is_some();
        out.extend_from_slice(hidden.as_deref().unwrap_or(chunk.valid()).as_bytes());
        out.extend_from_slice(chunk.invalid());
    }
    hides.then_some(out)
}

fn hide_all(masks: &[Mask], text: &str, on_hit: &dyn Fn(&Mask)) -> Option<String> {
    let mut hidden: Option<String> = None;
    for mask in masks {
        if let Some(more) = mask.hide(hidden.as_deref().unwrap_or(text)) {
            on_hit(mask);
            hidden = Some(more);
        }
    }
    hidden
}

impl Mask {
    /// The text with its secrets replaced; `None`: there is no secret.
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
        Ok(Self(expression))
    }

    pub fn written(&self) -> &str {
        self.0.written()
    }

    fn replace(&self, text: &str, with: &str) -> Option<String> {
        if !self.0.may_match(text) {
            return None;
        }
        let (mut hidden, mut at) = (String::new(), None);
        for (count, captures) in self.0.regex().captures_iter(text).enumerate() {
            let Some(found) = captures.get(0) else { continue };
            hidden.push_str(&text[at.unwrap_or(0)..found.start()]);
            if count == MAX_FOUND {
                hidden.push_str(with);
                return Some(hidden);
            }
            captures.expand(with, &mut hidden);
            at = Some(found.end());
        }
        hidden.push_str(&text[at?..]);
        Some(hidden)
    }
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
    /// All of them, with their names in a config.
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
        at = next_digit(text, at)?;
        let begins = at == 0 || !text[at - 1].is_ascii_alphanumeric();
        let digits = GroupedDigits::read(text, at);
        let is_card = |digits: &[u8]| CARD_DIGITS.contains(&digits.len()) && (2..=6).contains(&digits[0]);
        // Card numbers begin with 2 to 6.
        if begins && is_card(digits.get()) && is_checked(digits.get()) {
            return Some(at..digits.end);
        }
        at = digits.end;
    }
}

/// The next digit that may begin a card number. At least every second byte of a card number is a digit, so the search skips
/// every other byte.
fn next_digit(text: &[u8], from: usize) -> Option<usize> {
    let is_digit = |at: usize| text.get(at).is_some_and(u8::is_ascii_digit);
    let mut at = from;
    while at < text.len() {
        if is_digit(at) {
            return Some(if at > from && is_digit(at - 1) { at - 1 } else { at });
        }
        at += 2;
    }
    None
}

/// Digits with at most one blank or hyphen between two of them. At most one digit more than in the longest card number is kept.
struct GroupedDigits {
    digits: [u8; *CARD_DIGITS.end() + 1],
    /// 0: a letter follows, so this is no card number.
    len: usize,
    end: usize,
}

impl GroupedDigits {
    fn read(text: &[u8], start: usize) -> Self {
        let mut read = Self { digits: [0; *CARD_DIGITS.end() + 1], len: 0, end: start };
        while let Some(rest) = text.get(read.end..) {
            let skipped = usize::from(read.end > start && matches!(rest.first(), Some(b' ' | b'-')));
            let Some(digit) = rest.get(skipped).filter(|byte| byte.is_ascii_digit()) else { break };
            if let Some(place) = read.digits.get_mut(read.len) {
                *place = digit - b'0';
                read.len += 1;
            }
            read.end += skipped + 1;
        }
        if text.get(read.end).is_some_and(u8::is_ascii_alphanumeric) {
            read.len = 0;
        }
        read
    }

    fn get(&self) -> &[u8] {
        &self.digits[..self.len]
    }
}

/// Checks the last digit by the Luhn algorithm.
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
        // A dot or hyphen at the end belongs to the sentence, not to the domain.
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
        // Matches `Bearer` and `bearer`.
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
        let many = "a ".repeat(MAX_FOUND + 9);
        assert_eq!(hide("a", "-", &many).as_deref(), Some(&*("- ".repeat(MAX_FOUND) + "-")));
        assert_eq!(hide("a", "-", &many[..MAX_FOUND * 2]), Some("- ".repeat(MAX_FOUND)));
        assert!(MaskPattern::new("x*").unwrap_err().contains("empty text"));
        assert!(MaskPattern::new("(").unwrap_err().starts_with("the pattern cannot be used: "));
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
