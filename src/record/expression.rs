//! Regular expressions: one, and several that are looked for in the text of a message.

use std::borrow::Cow;
use std::sync::Arc;

use regex_lite::{Regex, RegexBuilder};

use super::BadSetting;
use super::literals::Literals;
use super::rule::MAX_PATTERNS;

/// Bytes of a text in which a pattern is looked for. The time is at most proportional to the product of this and the pattern's size.
const SEARCHED: usize = 16 << 10;
/// Bytes of a compiled pattern.
const MAX_PATTERN: usize = 16 << 10;

/// A regular expression. Two are equal that were written alike.
#[derive(Clone, Debug)]
pub struct Expression {
    regex: Arc<Regex>,
    /// What is in each text in which it is found.
    literals: Option<Literals>,
}

/// Regular expressions of which one has to be found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expressions(Vec<Expression>);

impl Expression {
    /// `max`: bytes of the compiled pattern. An error says what is wrong with it.
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

    /// False: it is not found in this text. Known at a fraction of what comparing it costs.
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

    /// Is one of them found? None of them is asked for where there are none.
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

/// A pattern, or why it cannot be used.
fn compile(text: &str) -> Result<Expression, BadSetting> {
    if text.is_empty() {
        return Err(BadSetting("a pattern must not be empty".to_owned()));
    }
    Expression::new(text, MAX_PATTERN).map_err(|says| BadSetting(format!("the pattern `{text}` {says}")))
}

/// The beginning of a text, as patterns see it: what is not UTF-8 is U+FFFD.
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
        // What is not UTF-8 is a character of its own.
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
