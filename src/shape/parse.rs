//! Which forms the text of a line may have, and the fields that are found in it.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

pub use super::pattern::Pattern;
use super::{json, logfmt};
use crate::record::Value;

/// Bytes of a text in which fields are looked for. A longer one is carried as it is.
const MAX_TEXT: usize = 64 << 10;
/// Fields that are looked at in one text.
pub(super) const MAX_FOUND: usize = 512;

/// Fields in the order in which they stand in the text.
pub type Found<'a> = Vec<(Cow<'a, str>, Value<'a>)>;

/// A form that a text may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parser {
    /// An object of RFC 8259.
    Json,
    /// `key=value key="a value"`.
    Logfmt,
    /// `parse-pattern`.
    Regex,
    /// A pattern that is known by a name.
    Named(Pattern),
    /// What a label of the container says. No text has this form by itself.
    Label,
}

/// Why no fields were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// The text has another form.
    Form,
    /// There are more fields than may be, it is nested too deep, or a number is larger than anybody can hold.
    Limit,
    /// A name stands twice in one object.
    Duplicate,
}

/// The first form that the text has, and its fields.
pub fn parse<'a>(
    parsers: &'a [Parser],
    pattern: Option<&'a Pattern>,
    text: &'a [u8],
) -> Result<(&'a Parser, Found<'a>), Unread> {
    if text.len() > MAX_TEXT {
        return Err(Unread::Limit);
    }
    // No form has anything else.
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

/// So many names are compared with each other faster than they are hashed.
const FEW: usize = 16;

/// Does a name stand there twice? The time is proportional to the names, however many there are.
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
    /// The word that the config has for it.
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

/// Fields as tests show them: a text has quotes, what is JSON has none.
#[cfg(test)]
pub fn shown(found: Found<'_>) -> String {
    let shown = |(name, value): (Cow<'_, str>, Value<'_>)| match value {
        Value::Text(text) => format!("{name}={:?}", String::from_utf8_lossy(&text)),
        Value::Json(json) => format!("{name}={}", json.as_str()),
    };
    found.into_iter().map(shown).collect::<Vec<_>>().join(" ")
}
