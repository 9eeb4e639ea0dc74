//! Finds where a message ends in a stream.
//!
//! Docker's driver and the specification end a message with NUL. Other senders end it with LF or with the connection, and some write JSON
//! on several lines. So LF alone is not enough, and the structure of the object decides:
//!
//! - A message begins with the first byte that is not NUL, LF, CR, tab or space.
//! - An object, which begins with `{`, ends with the brace that closes it, whatever follows.
//! - NUL ends a message anywhere: JSON does not contain it (RFC 8259).
//! - LF inside a text ends a message too, because JSON does not allow it there: the object was cut.
//! - LF and `{` directly inside the object begin a new message, because only a name may stand there: the object was cut. Behind a `:` they
//!   do not.
//! - A message that begins with another byte is not an object, and ends with LF.
//!
//! So a broken message seldom affects the next one, and the result does not depend on where the stream is cut.

use super::Refused;
use crate::protocol::held::hold;
use crate::record::json_reader as json;

/// Finds messages in a stream. Only an incomplete message is copied, up to the limit.
#[derive(Debug)]
pub struct GelfFramer {
    /// The maximum length of a message in bytes.
    limit: usize,
    /// The start of a message; `begun.len() <= limit`.
    begun: Vec<u8>,
    /// Why the rest of the message is skipped, if it is.
    skips: Option<Skip>,
    state: State,
    /// Objects and arrays that are open.
    depth: usize,
}

/// A message, or why it is refused.
pub type Found<'a> = Result<&'a [u8], Refused>;

/// Why the rest of a message is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Skip {
    /// The message is longer than the limit.
    TooLong,
    /// The message was given up, which was reported.
    GivenUp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Between,
    /// Not an object.
    Other,
    /// In an object, outside of texts.
    Object(Last),
    Text,
    /// Behind a backslash in a text.
    Escape,
}

/// The last byte in an object, without blanks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Colon,
    Any,
    /// Any byte but a colon, and then an LF.
    Newline,
}

/// The number of bytes that neither end a text nor the message.
fn plain_text(text: &[u8]) -> usize {
    let len = memchr::memchr3(b'"', b'\\', b'\n', text).unwrap_or(text.len());
    memchr::memchr(b'\0', &text[..len]).unwrap_or(len)
}

/// The effect of a byte.
enum Step {
    /// The byte belongs to the message.
    On(State),
    /// The byte is the message's last.
    EndsWith,
    /// The message ends before the byte, which belongs to no message.
    EndsBefore,
    /// The message ends before the byte, which begins another message.
    Begins,
}

impl GelfFramer {
    /// `limit`: the maximum length of a message in bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, begun: Vec::new(), skips: None, state: State::Between, depth: 0 }
    }

    /// Finds the messages that end in `bytes`, and passes each to `found`.
    pub fn feed(&mut self, bytes: &[u8], found: &mut dyn FnMut(Found<'_>)) {
        // Where the message begins in `bytes`, or continues.
        let mut start = 0;
        let mut at = 0;
        loop {
            if self.state == State::Text {
                at += plain_text(&bytes[at..]);
            } else if self.state == State::Between {
                start = at;
                // Nearly all objects lie wholly within one read.
                if bytes.get(at) == Some(&b'{')
                    && let Some(len) = json::object_end(&bytes[at..])
                {
                    at += len;
                    self.end(&bytes[start..at], found);
                    continue;
                }
            }
            let Some(&byte) = bytes.get(at) else { break };
            match self.step(byte) {
                Step::On(state) => self.state = state,
                Step::EndsWith => self.end(&bytes[start..=at], found),
                Step::EndsBefore => self.end(&bytes[start..at], found),
                Step::Begins => {
                    self.end(&bytes[start..at], found);
                    continue;
                }
            }
            at += 1;
        }
        if self.state != State::Between {
            self.keep(&bytes[start..]);
        }
    }

    /// Ends the connection. An unfinished object is refused; anything else that has begun goes to `found` as it is.
    pub fn closed(&mut self, found: &mut dyn FnMut(Found<'_>)) {
        match self.state {
            State::Between => {}
            State::Other => self.end(b"", found),
            State::Object(_) | State::Text | State::Escape => {
                match self.skips {
                    None => found(Err(Refused::Unfinished)),
                    Some(Skip::TooLong) => found(Err(Refused::TooLong)),
                    Some(Skip::GivenUp) => {}
                }
                self.forget();
            }
        }
    }

    /// Gives up the unfinished message, if there is one. If the rest of it arrives, it is skipped.
    pub fn give_up(&mut self, found: &mut dyn FnMut(Found<'_>)) {
        if self.is_inside() && self.skips != Some(Skip::GivenUp) {
            self.begun = Vec::new();
            self.skips = Some(Skip::GivenUp);
            found(Err(Refused::GivenUp));
        }
    }

    /// Whether a message has begun.
    pub fn is_inside(&self) -> bool {
        self.state != State::Between
    }

    /// Bytes of memory held.
    pub fn kept(&self) -> usize {
        self.begun.capacity()
    }

    #[inline(always)]
    fn step(&mut self, byte: u8) -> Step {
        use State::*;
        match (self.state, byte) {
            (Between, b'\0' | b'\n' | b'\r' | b'\t' | b' ') => Step::On(Between),
            (Between, b'{') => {
                self.depth = 1;
                Step::On(Object(Last::Any))
            }
            (Between, _) => Step::On(Other),
            (_, b'\0') | (Other | Text | Escape, b'\n') => Step::EndsBefore,
            (Other, _) => Step::On(Other),
            (Text, b'"') => Step::On(Object(Last::Any)),
            (Text, b'\\') => Step::On(Escape),
            (Text | Escape, _) => Step::On(Text),
            (Object(_), b'"') => Step::On(Text),
            (Object(Last::Newline), b'{') if self.depth == 1 => Step::Begins,
            (Object(_), b'{' | b'[') => {
                self.depth += 1;
                Step::On(Object(Last::Any))
            }
            (Object(_), b'}') if self.depth == 1 => Step::EndsWith,
            (Object(_), b'}' | b']') if self.depth > 1 => {
                self.depth -= 1;
                Step::On(Object(Last::Any))
            }
            (Object(_), b':') => Step::On(Object(Last::Colon)),
            (Object(Last::Any), b'\n') => Step::On(Object(Last::Newline)),
            (Object(last), b'\n' | b'\r' | b'\t' | b' ') => Step::On(Object(last)),
            (Object(_), _) => Step::On(Object(Last::Any)),
        }
    }

    fn end(&mut self, rest: &[u8], found: &mut dyn FnMut(Found<'_>)) {
        if self.begun.is_empty() && self.skips.is_none() && rest.len() <= self.limit {
            found(Ok(rest));
        } else {
            self.keep(rest);
            match self.skips {
                None => found(Ok(&self.begun)),
                Some(Skip::TooLong) => found(Err(Refused::TooLong)),
                Some(Skip::GivenUp) => {}
            }
        }
        self.forget();
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.skips.is_some() || self.begun.len() + bytes.len() > self.limit {
            self.skips.get_or_insert(Skip::TooLong);
            self.begun = Vec::new();
        } else {
            hold(&mut self.begun, bytes, self.limit);
        }
    }

    /// An idle connection holds no memory.
    fn forget(&mut self) {
        self.begun = Vec::new();
        self.skips = None;
        self.state = State::Between;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 64;

    /// The result for a stream that is cut at `cuts`; the name of the error in place of a message.
    fn found(stream: &[u8], cuts: &[usize]) -> Vec<String> {
        let mut framer = GelfFramer::new(LIMIT);
        let mut all = Vec::new();
        let mut keep = |found: Found<'_>| {
            all.push(found.map_or_else(|why| why.name().to_owned(), |text| text.escape_ascii().to_string()));
        };
        let ends = cuts.iter().copied().chain([stream.len()]);
        let starts = [0].into_iter().chain(cuts.iter().copied());
        for (start, end) in starts.zip(ends) {
            framer.feed(&stream[start..end], &mut keep);
            assert!(framer.begun.len() <= LIMIT);
        }
        framer.closed(&mut keep);
        assert!(!framer.is_inside() && framer.kept() == 0);
        all
    }

    /// Checks that the result is the same at every pair of cuts.
    #[track_caller]
    fn check(stream: &[u8], expected: &[&str]) {
        assert_eq!(found(stream, &[]), expected, "{}", stream.escape_ascii());
        for first in 0..=stream.len() {
            for second in first..=stream.len() {
                assert_eq!(found(stream, &[first, second]), expected, "{} at {first}, {second}", stream.escape_ascii());
            }
        }
    }

    #[test]
    fn a_message_ends_with_its_object_whatever_stands_behind_it() {
        check(b"{\"a\":1}\0{\"b\":2}\0", &[r#"{\"a\":1}"#, r#"{\"b\":2}"#]);
        check(b"{\"a\":1}\n{\"b\":2}\r\n\n", &[r#"{\"a\":1}"#, r#"{\"b\":2}"#]);
        check(b"{\"a\":1}{\"b\":{}}", &[r#"{\"a\":1}"#, r#"{\"b\":{}}"#]);
        check(b" \n{\"a\":\"}\\\"}\\\\\"}", &[r#"{\"a\":\"}\\\"}\\\\\"}"#]);
    }

    #[test]
    fn an_object_on_several_lines_is_one_message() {
        let lines = b"{\n  \"a\":\n  {\n \"b\": [\n{},\n{}]},\r\n \"c\" : \n[\n{}]\n}\n{}\n";
        let shown = r#"{\n  \"a\":\n  {\n \"b\": [\n{},\n{}]},\r\n \"c\" : \n[\n{}]\n}"#;
        check(lines, &[shown, "{}"]);
    }

    #[test]
    fn a_broken_message_does_not_cost_the_next_one() {
        check(b"{\"a\":\"1\0{\"b\":2}\0", &[r#"{\"a\":\"1"#, r#"{\"b\":2}"#]);
        check(b"{\"a\":\"1\n{\"b\":2}\n", &[r#"{\"a\":\"1"#, r#"{\"b\":2}"#]);
        check(b"{\"a\":\"1\\\n{\"b\":2}\n", &[r#"{\"a\":\"1\\"#, r#"{\"b\":2}"#]);
        check(b"{\"a\":1,\n{\"b\":2}\n", &[r#"{\"a\":1,\n"#, r#"{\"b\":2}"#]);
        check(b"GET / HTTP/1.1\r\n{}\n]\0{}", &["GET / HTTP/1.1\\r", "{}", "]", "{}"]);
    }

    #[test]
    fn what_the_connection_cuts_is_unfinished() {
        check(b"{}\n{\"a\":1", &["{}", "unfinished"]);
        check(b"{\"a", &["unfinished"]);
        check(b"hello", &["hello"]);
    }

    #[test]
    fn what_is_longer_than_the_limit_is_passed_over() {
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(LIMIT - 8));
        check(format!("{long}{{}}").as_bytes(), &[&long.as_bytes().escape_ascii().to_string(), "{}"]);
        let longer = format!("{{\"a\":\"{}\"}}", "x".repeat(LIMIT - 7));
        check(format!("{longer}{{}}").as_bytes(), &["too-long", "{}"]);
        check(format!("{}\n{{}}", "x".repeat(LIMIT + 1)).as_bytes(), &["too-long", "{}"]);
        check(format!("{{}}{{\"{}", "x".repeat(LIMIT)).as_bytes(), &["{}", "too-long"]);
    }
}
