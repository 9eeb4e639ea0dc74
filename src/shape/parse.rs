//! The forms of a line's text, and the fields that are found in it.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

pub use super::pattern::Pattern;
use super::{json, logfmt};
use crate::record::Value;

/// The longest text that is parsed, in bytes. A longer text stays as it is.
const MAX_TEXT: usize = 64 << 10;
/// The most fields that are read in one text.
pub(super) const MAX_FOUND: usize = 512;

/// The fields in the order of the text.
pub type Found<'a> = Vec<(Cow<'a, str>, Value<'a>)>;

/// A form of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parser {
    /// A JSON object (RFC 8259).
    Json,
    /// `key=value key="a value"`.
    Logfmt,
    /// `parse-pattern`.
    Regex,
    /// A built-in pattern, by its name.
    Named(Pattern),
    /// The form that a label of the container names. No text has this form by itself.
    Label,
}

/// Why no fields were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// The text has another form.
    Form,
    /// There are too many fields, the text is nested too deep, or no float can hold a number.
    Limit,
    /// An object has a repeated name.
    Duplicate,
}

/// The first parser that fits the text, and the fields it finds.
pub fn parse<'a>(
    parsers: &'a [Parser],
    pattern: Option<&'a Pattern>,
    text: &'a [u8],
) -> Result<(&'a Parser, Found<'a>), Unread> {
    if text.len() > MAX_TEXT {
        return Err(Unread::Limit);
    }
    // All forms are UTF-8.
    let Ok(text) = std::str::from_utf8(text) else { return Err(Unread::Form) };
    let mut unread = Unread::Form;
    for parser in parsers {
        let found = match parser {
            Parser::Json => json::parse(text),
            Parser::Logfmt => logfmt::parse(text),
            Parser::Regex => pattern.map_or(Err(Unread::Form), |pattern| pattern.parse(text)),
            Parser::Named(pattern) => pattern.parse(text),
            Parser::Label => Err(Unread::Form),
        };
        match found {
            Ok(found) => return Ok((parser, found)),
            Err(Unread::Form) => {}
            Err(why) => unread = why,
        }
    }
    Err(unread)
}

/// Up to this many names, comparing all pairs is faster than hashing.
const FEW: usize = 16;

/// Is there a repeated name? The time is linear in the number of names.
pub(super) fn has_repeated<T>(items: &[T], name: impl Fn(&T) -> &str) -> bool {
    if items.len() <= FEW {
        let is_before = |at: usize, item: &T| items[..at].iter().any(|known| name(known) == name(item));
        return items.iter().enumerate().any(|(at, item)| is_before(at, item));
    }
    let mut known = HashSet::with_capacity(items.len());
    !items.iter().all(|item| known.insert(name(item)))
}

impl FromStr for Parser {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "json" => Ok(Self::Json),
            "logfmt" => Ok(Self::Logfmt),
            "regex" => Ok(Self::Regex),
            "label" => Ok(Self::Label),
            name => Pattern::named(name).map(Self::Named).ok_or_else(|| {
                format!(
                    "write \"json\", \"logfmt\", \"regex\" with `parse-pattern`, \"label\", or one of {}",
                    Pattern::names().join(", ")
                )
            }),
        }
    }
}

impl Parser {
    /// The parser's name in the config.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Logfmt => "logfmt",
            Self::Regex => "regex",
            Self::Named(pattern) => pattern.name(),
            Self::Label => "label",
        }
    }
}

impl fmt::Display for Parser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Fields as tests show them: texts in quotes, JSON without.
#[cfg(test)]
pub fn shown(found: Found<'_>) -> String {
    let shown = |(name, value): (Cow<'_, str>, Value<'_>)| match value {
        Value::Text(text) => format!("{name}={:?}", String::from_utf8_lossy(&text)),
        Value::Json(json) => format!("{name}={}", json.as_str()),
    };
    found.into_iter().map(shown).collect::<Vec<_>>().join(" ")
}
