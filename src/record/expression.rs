//! Regular expressions: a single one, and a list that is matched against the text of a message.

use std::borrow::Cow;
use std::sync::Arc;

use regex_lite::{Regex, RegexBuilder};

use super::BadSetting;
use super::literals::Literals;
use super::rule::MAX_PATTERNS;

/// The bytes of a text that are matched. The time is at most proportional to this times the size of the pattern.
const SEARCHED: usize = 16 << 10;
/// The limit for a compiled pattern, in bytes.
const MAX_PATTERN: usize = 16 << 10;

/// A regular expression. Two expressions are equal if they are written alike.
#[derive(Clone, Debug)]
pub struct Expression {
    regex: Arc<Regex>,
    /// Literals that every matching text contains.
    literals: Option<Literals>,
}

/// Regular expressions. A text matches if one of them matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expressions(Vec<Expression>);

impl Expression {
    /// `max`: the limit for the compiled pattern, in bytes. The error says what is wrong with the pattern.
    pub fn new(written: &str, max: usize) -> Result<Self, String> {
        let regex = RegexBuilder::new(written).size_limit(max).build();
        let literals = Literals::of(written);
        let expression = |regex| Self { regex: Arc::new(regex), literals };
        regex.map(expression).map_err(|error| format!("cannot be used: {error}"))
    }

    pub fn regex(&self) -> &Regex {
        &self.regex
    }

    pub fn written(&self) -> &str {
        self.regex.as_str()
    }

    /// False: the expression does not match this text. The check costs a fraction of a match.
    pub fn may_match(&self, text: &str) -> bool {
        self.literals.as_ref().is_none_or(|literals| literals.may_be_in(text))
    }

    pub fn is_match(&self, text: &str) -> bool {
        self.may_match(text) && self.regex.is_match(text)
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.written() == other.written()
    }
}

impl Eq for Expression {}

impl Expressions {
    pub fn new(written: Vec<String>) -> Result<Self, BadSetting> {
        if written.len() > MAX_PATTERNS {
            return Err(BadSetting(format!("{} patterns; at most {MAX_PATTERNS} are allowed", written.len())));
        }
        let compiled = written.iter().map(|text| compile(text)).collect::<Result<_, _>>()?;
        Ok(Self(compiled))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Does one of the expressions match? An empty list matches every text.
    pub fn match_text(&self, text: &[u8]) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let text = searched(text);
        self.0.iter().any(|expression| expression.is_match(&text))
    }

    pub fn written(&self) -> Vec<String> {
        self.0.iter().map(|expression| expression.written().to_owned()).collect()
    }
}

/// Compiles a pattern. The error says why it cannot be used.
fn compile(text: &str) -> Result<Expression, BadSetting> {
    if text.is_empty() {
        return Err(BadSetting("a pattern must not be empty".to_owned()));
    }
    Expression::new(text, MAX_PATTERN).map_err(|says| BadSetting(format!("the pattern `{text}` {says}")))
}

/// The start of a text, as patterns see it: bytes that are not UTF-8 become U+FFFD.
fn searched(text: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(&text[..text.len().min(SEARCHED)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expressions(written: &[&str]) -> Expressions {
        Expressions::new(written.iter().map(|text| (*text).to_owned()).collect()).unwrap()
    }

    #[test]
    fn one_of_them_is_found_somewhere() {
        assert!(expressions(&[]).match_text(b"anything"));
        let health = expressions(&["GET /health", r"^\[\d+\]$"]);
        assert!(health.match_text(b"x GET /healthz HTTP/1.1") && health.match_text(b"[17]"));
        assert!(!health.match_text(b"GET /other") && !health.match_text(b"[17] x") && !health.match_text(b""));
        // An invalid byte counts as one character.
        assert!(expressions(&["^a.b$"]).match_text(b"a\xffb"));
    }

    #[test]
    fn the_beginning_of_a_text_is_searched() {
        let text = [&[b' '; SEARCHED - 1][..], b"xy"].concat();
        assert!(expressions(&["x"]).match_text(&text) && !expressions(&["y"]).match_text(&text));
    }

    #[test]
    fn what_is_no_pattern() {
        let says = |text: &str| Expressions::new(vec![text.to_owned()]).unwrap_err().to_string();
        assert!(says("(").starts_with("the pattern `(` cannot be used: "), "{}", says("("));
        assert!(says("").contains("must not be empty"));
        assert!(says(".{1000}").contains("exceeded size limit"), "{}", says(".{1000}"));
        assert!(Expressions::new(vec!["a".to_owned(); MAX_PATTERNS + 1]).is_err());
    }
}
