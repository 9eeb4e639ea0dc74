//! `multiline` of a `[[listen]]`: which lines continue the message before them.

use std::fmt;
use std::str::FromStr;

use crate::record::Expression;

/// Bytes of a text that are matched: timestamps and levels are at the beginning.
const HEAD: usize = 256;
/// The limit for a compiled pattern, in bytes, which is enough for 300 letters. A date takes a microsecond. The slowest
/// pattern within the limit, `^(.*){184}x`, takes 2 ms.
const MAX_PATTERN: usize = 16 * 1024;

/// Which lines continue the message before them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Multiline {
    #[default]
    Off,
    /// Lines that begin with a blank or a tab.
    Indented,
    /// Lines that do not match the pattern for first lines.
    First(FirstLine),
}

/// A regular expression for the first line of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstLine(Expression);

impl Multiline {
    /// Does the text continue the message before it?
    pub fn is_further(&self, text: &[u8]) -> bool {
        match self {
            Self::Off => false,
            Self::Indented => matches!(text.first(), Some(b' ' | b'\t')),
            Self::First(pattern) => !pattern.matches(text),
        }
    }
}

impl FirstLine {
    /// Does the text match? Only the bytes before the first invalid UTF-8 are matched.
    fn matches(&self, text: &[u8]) -> bool {
        let head = &text[..text.len().min(HEAD)];
        self.0.regex().is_match(head.utf8_chunks().next().map_or("", |chunk| chunk.valid()))
    }
}

/// A pattern must begin with `^`, which distinguishes it from a word. Without `^` it would also match in the middle of lines.
impl FromStr for Multiline {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "indented" => Ok(Self::Indented),
            pattern if pattern.starts_with('^') => {
                let expression = Expression::new(pattern, MAX_PATTERN).map_err(|says| format!("the pattern {says}"))?;
                Ok(Self::First(FirstLine(expression)))
            }
            _ => {
                Err("write \"off\", \"indented\", or how the first line of a message begins, as a regular expression \
                      with ^ in front: '^\\d{4}-'"
                    .to_owned())
            }
        }
    }
}

impl fmt::Display for Multiline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Indented => "indented",
            Self::First(FirstLine(pattern)) => pattern.written(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(setting: &str, first: &[&[u8]], further: &[&[u8]]) {
        let multiline: Multiline = setting.parse().unwrap();
        assert_eq!((multiline.to_string().as_str(), setting.parse()), (setting, Ok(multiline.clone())));
        for (texts, is_further) in [(first, false), (further, true)] {
            for text in texts {
                assert_eq!(multiline.is_further(text), is_further, "{setting}: {}", text.escape_ascii());
            }
        }
    }

    #[test]
    fn which_lines_are_further_ones() {
        check("off", &[b"x", b" x", b""], &[]);
        check("indented", &[b"x", b"", b"\n"], &[b" x", b"\tx"]);
        check(r"^\d{4}-", &[b"2026-11-20 x"], &[b"x", b" 2026-", b"", b"12345-", b"\n2026-"]);
        check("^(INFO|WARN|ERROR) ", &[b"WARN x"], &[b"Caused by: x", b"INFORM"]);
        check("^(?i)error", &[b"ERROR", b"error: x"], &[b"x error"]);
        check("^.*x", &[b"abcx"], &[b"abc"]);
        check("^\u{fc}", &["\u{fc}x".as_bytes()], &[b"\xfc", b"\xc3"]);
    }

    /// The matched part ends at [`HEAD`] bytes, and before the first byte that is not UTF-8.
    #[test]
    fn the_beginning_of_a_text_is_looked_at() {
        let long = |x: usize| [&[b' '; 2 * HEAD][..x], b"x"].concat();
        check("^.*x", &[&long(HEAD - 1)], &[&long(HEAD), &long(2 * HEAD)]);
        check("^a*$", &[&[b'a'; 2 * HEAD], b"aa\xff"], &[b"aab"]);
        // A character that is cut at the limit is not matched.
        let text = [&[b'a'; HEAD - 1][..], "\u{fc}".as_bytes()].concat();
        check("^a+$", &[&text], &[]);
    }

    #[test]
    fn what_is_no_pattern() {
        for (setting, says) in [
            ("first", "write \"off\""),
            (r"\d", "write \"off\""),
            ("", "write \"off\""),
            ("^(", "the pattern cannot be used: found open group without closing ')'"),
            (r"^\p{Lu}", "the pattern cannot be used: Unicode character classes are not supported"),
            (r"^(a)\1", "the pattern cannot be used: backreferences are not supported"),
            ("^.{1000}", "the pattern cannot be used: compiled regex exceeded size limit"),
        ] {
            let error = setting.parse::<Multiline>().unwrap_err();
            assert!(error.starts_with(says), "{setting}: {error}");
        }
        // The longest legal pattern.
        check(&format!("^{}", "a".repeat(300)), &[], &[b"a"]);
    }
}
