//! Literals that a text must contain to match a regular expression. Few texts contain them, and a search for literals is many
//! times as fast as a match.
//!
//! The parser of expressions is simple: with any unusual syntax it finds no literals.

use std::iter::Peekable;
use std::str::Chars;

/// With more alternatives the search does not pay.
const MAX_LITERALS: usize = 16;

/// Every text that the expression matches contains one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Literals {
    /// None of the literals is empty.
    any_of: Vec<String>,
    ignores_case: bool,
}

impl Literals {
    /// The literals of an expression that compiles. `None`: there are none.
    pub fn of(written: &str) -> Option<Self> {
        let (written, ignores_case) = match written.strip_prefix("(?i)") {
            Some(rest) => (rest, true),
            None => (written, false),
        };
        let mut reader = Reader(written.chars().peekable());
        let any_of = reader.alternatives()?;
        let is_known = !any_of.is_empty() && any_of.len() <= MAX_LITERALS && reader.0.next().is_none();
        is_known.then_some(Self { any_of, ignores_case })
    }

    /// False: the expression does not match this text.
    pub fn may_be_in(&self, text: &str) -> bool {
        let bytes = text.as_bytes();
        match self.ignores_case {
            false => self.any_of.iter().any(|literal| memchr::memmem::find(bytes, literal.as_bytes()).is_some()),
            // Ignoring case, some letters beyond ASCII equal an ASCII letter.
            true => !text.is_ascii() || self.any_of.iter().any(|literal| has_ignoring_case(bytes, literal.as_bytes())),
        }
    }
}

fn has_ignoring_case(text: &[u8], literal: &[u8]) -> bool {
    let first = literal[0];
    memchr::memchr2_iter(first.to_ascii_lowercase(), first.to_ascii_uppercase(), text)
        .any(|at| text.get(at..at + literal.len()).is_some_and(|found| found.eq_ignore_ascii_case(literal)))
}

/// An atom of an expression.
enum Atom {
    Letter(char),
    /// One of several letters, so not a literal.
    AnyLetter,
    /// An anchor, which matches no letter.
    Place,
    /// A group that needs one of these literals; empty: no literals are known.
    Group(Vec<String>),
}

/// How often an atom must match.
#[derive(PartialEq)]
enum Times {
    Once,
    OnceAtLeast,
    Perhaps,
}

/// Parses an expression. `None`: the syntax is unknown.
struct Reader<'e>(Peekable<Chars<'e>>);

impl Reader<'_> {
    /// Parses alternatives up to the end of the expression or group. Empty: no literals are known.
    fn alternatives(&mut self) -> Option<Vec<String>> {
        let (mut all, mut is_known) = (Vec::new(), true);
        loop {
            let one = self.sequence()?;
            is_known &= !one.is_empty();
            all.extend(one);
            if self.0.next_if_eq(&'|').is_none() {
                return Some(if is_known { all } else { Vec::new() });
            }
        }
    }

    /// Parses a sequence, and returns its longest run of letters, or the literals of a group in it.
    fn sequence(&mut self) -> Option<Vec<String>> {
        let (mut best, mut run) = (Vec::new(), String::new());
        while let Some(first) = self.0.next_if(|next| !matches!(next, '|' | ')')) {
            let atom = self.atom(first)?;
            match (atom, self.times()?) {
                (Atom::Letter(letter), Times::Once) => run.push(letter),
                (Atom::Place, Times::Once) => {}
                (Atom::Place, _) => return None,
                (atom, times) => {
                    // Other letters may follow the repeated atom, so the run ends here.
                    match atom {
                        Atom::Letter(letter) if times == Times::OnceAtLeast => run.push(letter),
                        Atom::Group(any_of) if times != Times::Perhaps => keep_longer(&mut best, any_of),
                        _ => {}
                    }
                    keep_longer(&mut best, vec![std::mem::take(&mut run)]);
                }
            }
        }
        keep_longer(&mut best, vec![run]);
        Some(best)
    }

    fn atom(&mut self, first: char) -> Option<Atom> {
        match first {
            '(' => self.group(),
            '[' => self.class(),
            '.' => Some(Atom::AnyLetter),
            '^' | '$' => Some(Atom::Place),
            '\\' => match self.0.next()? {
                'b' | 'B' => Some(Atom::Place),
                'd' | 'D' | 'w' | 'W' | 's' | 'S' => Some(Atom::AnyLetter),
                letter => letter.is_ascii_punctuation().then_some(Atom::Letter(letter)),
            },
            '*' | '+' | '?' | '{' | '}' | ']' => None,
            letter => Some(Atom::Letter(letter)),
        }
    }

    /// `(?:…)`, `(?P<name>…)`, `(…)`. Flags are unknown syntax.
    fn group(&mut self) -> Option<Atom> {
        if self.0.next_if_eq(&'?').is_some() {
            let is_name = match self.0.next()? {
                ':' => false,
                'P' => self.0.next()? == '<',
                '<' => true,
                _ => return None,
            };
            while is_name && self.0.next()? != '>' {}
        }
        let any_of = self.alternatives()?;
        self.0.next_if_eq(&')').map(|_| Atom::Group(any_of))
    }

    /// `[…]`
    fn class(&mut self) -> Option<Atom> {
        self.0.next_if_eq(&'^');
        self.0.next_if_eq(&']');
        loop {
            match self.0.next()? {
                ']' => return Some(Atom::AnyLetter),
                '\\' => _ = self.0.next()?,
                '[' => return None,
                _ => {}
            }
        }
    }

    fn times(&mut self) -> Option<Times> {
        let times = match self.0.peek() {
            Some('*' | '?') => Times::Perhaps,
            Some('+') => Times::OnceAtLeast,
            Some('{') => {
                let written: String = self.0.by_ref().take_while(|next| *next != '}').skip(1).collect();
                let least: u32 = written.split(',').next()?.trim().parse().ok()?;
                self.0.next_if_eq(&'?');
                return Some(if least > 0 { Times::OnceAtLeast } else { Times::Perhaps });
            }
            _ => return Some(Times::Once),
        };
        self.0.next();
        self.0.next_if_eq(&'?');
        Some(times)
    }
}

/// Replaces `best` if the shortest of the other literals is longer.
fn keep_longer(best: &mut Vec<String>, other: Vec<String>) {
    let shortest = |literals: &[String]| literals.iter().map(String::len).min().unwrap_or(0);
    if shortest(&other) > shortest(best) {
        *best = other;
    }
}

#[cfg(test)]
mod tests {
    use crate::record::Expression;

    use super::*;

    #[test]
    fn what_is_needed() {
        for (written, expected) in [
            (r"password=\S+", "password="),
            (r"(password|passwd|secret)=\S+", "password passwd secret"),
            (r"(?:a|bc)d(ef)?", "a bc"),
            (r"\bsk-[a-z0-9]{20,}", "sk-"),
            ("ab?c", "a"),
            ("ab+cde{2}", "cde"),
            ("(?P<key>token): .+", "token"),
            ("x{0,3}yz|[a-c]bc", "yz bc"),
            (r"[\]x]\.\[long\]", ".[long]"),
            ("^a$", "a"),
            (r"a\bb", "ab"),
            ("(a(bc|de)+)*f", "f"),
            ("x+?y", "x"),
        ] {
            let literals = Literals::of(written).map(|literals| literals.any_of.join(" "));
            assert_eq!(literals.as_deref(), Some(expected), "{written}");
        }
        let unknown =
            ["", "a*", "a|b*", "[ab]", r"\x41b", "(?x)a b", "(?i:a)b", "[[:alpha:]]b", "a{0}", "(a|)", r"\d+"];
        for written in unknown {
            assert_eq!(Literals::of(written), None, "{written}");
        }
    }

    #[test]
    fn small_letters_and_capitals() {
        let literals = Literals::of("(?i)Secret").expect("letters");
        assert!(
            literals.may_be_in("a SECRET") && literals.may_be_in("\u{17f}ecret") && !literals.may_be_in("secre sec")
        );
        assert!(!Literals::of("Secret").expect("letters").may_be_in("a SECRET"));
    }

    proptest::proptest! {
        /// If the expression matches, the text has the literals.
        #[test]
        fn nothing_is_missed(written in r"(\(\?i\))?([abAB]|\[ab\]|\(a|\)|\||b[*+?]|a\{[012],?2?\}|\\b|\.|\^|\(\?:b|\$){0,8}", text in "[abAB]{0,8}") {
            let (Ok(regex), Some(literals)) = (Expression::new(&written, 1 << 20), Literals::of(&written)) else { return Ok(()) };
            proptest::prop_assert!(!regex.regex().is_match(&text) || literals.may_be_in(&text), "{} in {}", written, text);
        }
    }
}
