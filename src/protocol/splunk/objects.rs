//! Finds where an event ends. Events are JSON objects one after the other, with or without blanks between them, or in arrays. Docker's
//! driver puts nothing between them. Arrays are undocumented, but Splunk accepts them.

use memchr::memchr2;

use super::{MAX_DEPTH, Refused};
use crate::protocol::held::hold;

/// Finds objects. Only an incomplete object is copied, up to the limit.
#[derive(Debug)]
pub(super) struct Objects {
    /// The maximum length of an object in bytes.
    limit: usize,
    /// The start of an object; `begun.len() <= limit`.
    begun: Vec<u8>,
    /// The number of open arrays and objects, including the event itself.
    depth: usize,
    text: Text,
    list: List,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text {
    Outside,
    Inside,
    /// Behind a backslash.
    Escape,
}

/// The position in an array of objects, outside of the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    None,
    Begun,
    BehindObject,
    BehindComma,
}

impl Objects {
    pub fn new(limit: usize) -> Self {
        Self { limit, begun: Vec::new(), depth: 0, text: Text::Outside, list: List::None }
    }

    /// Passes each object that ends in `bytes` to `take`.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        mut take: impl FnMut(&[u8]) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        loop {
            if self.depth == 0 {
                let Some(start) = self.start(bytes)? else { return Ok(()) };
                bytes = &bytes[start..];
            }
            let room = self.limit - self.begun.len();
            let Some(end) = self.end(&bytes[..bytes.len().min(room)])? else {
                if bytes.len() > room {
                    return Err(Refused::TooLong);
                }
                hold(&mut self.begun, bytes, self.limit);
                return Ok(());
            };
            let (object, behind) = bytes.split_at(end);
            bytes = behind;
            if self.begun.is_empty() {
                take(object)?;
            } else {
                hold(&mut self.begun, object, self.limit);
                take(&self.begun)?;
                self.begun.clear();
            }
        }
    }

    /// Ends the body.
    pub fn finish(&self) -> Result<(), Refused> {
        let is_whole = self.depth == 0 && self.list == List::None;
        if is_whole { Ok(()) } else { Err(Refused::Unfinished) }
    }

    /// Bytes of memory held.
    pub fn held(&self) -> usize {
        self.begun.capacity()
    }

    /// Where the next object starts.
    fn start(&mut self, bytes: &[u8]) -> Result<Option<usize>, Refused> {
        for (at, byte) in bytes.iter().enumerate() {
            self.list = match (self.list, byte) {
                (_, b' ' | b'\t' | b'\r' | b'\n') => continue,
                (List::None, b'{') => return Ok(Some(at)),
                (List::Begun | List::BehindComma, b'{') => {
                    self.list = List::BehindObject;
                    return Ok(Some(at));
                }
                (List::None, b'[') => List::Begun,
                (List::Begun | List::BehindObject, b']') => List::None,
                (List::BehindObject, b',') => List::BehindComma,
                (list, b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n' | b'[') if list != List::BehindObject => {
                    return Err(Refused::NoObject);
                }
                _ => return Err(Refused::NotJson),
            };
        }
        Ok(None)
    }

    /// Where the object ends.
    fn end(&mut self, bytes: &[u8]) -> Result<Option<usize>, Refused> {
        let mut at = 0;
        while at < bytes.len() {
            match self.text {
                Text::Inside => {
                    let Some(len) = memchr2(b'"', b'\\', &bytes[at..]) else { return Ok(None) };
                    at += len;
                    self.text = if bytes[at] == b'"' { Text::Outside } else { Text::Escape };
                }
                Text::Escape => self.text = Text::Inside,
                Text::Outside => match bytes[at] {
                    b'"' => self.text = Text::Inside,
                    b'{' | b'[' if self.depth == MAX_DEPTH => return Err(Refused::TooDeep),
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' => {
                        self.depth -= 1;
                        if self.depth == 0 {
                            return Ok(Some(at + 1));
                        }
                    }
                    _ => {}
                },
            }
            at += 1;
        }
        Ok(None)
    }
}
