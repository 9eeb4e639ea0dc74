//! Finds where an array ends in a stream that may be cut anywhere.

use super::BadFrame;
use super::msgpack::Walk;
use crate::protocol::held::hold;

const NIL: u8 = 0xc0;

/// Finds the arrays of a connection. It looks at each byte once, and never holds more than the limit.
#[derive(Debug)]
pub struct Framer {
    /// The longest array that is accepted, in bytes.
    limit: usize,
    walk: Walk,
    /// The start of an array whose end has not come; `held.len() <= limit`.
    held: Vec<u8>,
}

impl Framer {
    pub fn new(limit: usize) -> Self {
        Self { limit, walk: Walk::new(limit), held: Vec::new() }
    }

    /// Passes each complete array to `take`, with its head, in order. A nil between two arrays is a heartbeat. After an error there is no
    /// way to find the next array: the connection has to end.
    pub fn feed<E: From<BadFrame>>(
        &mut self,
        mut bytes: &[u8],
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(rest) = self.feed_one(bytes, &mut take)? {
            bytes = rest;
        }
        Ok(())
    }

    /// Passes the next array to `take`, and returns the bytes behind it. `None`: the array is not complete yet.
    #[inline]
    pub fn feed_one<'b, E: From<BadFrame>>(
        &mut self,
        mut bytes: &'b [u8],
        take: impl FnOnce(&[u8]) -> Result<(), E>,
    ) -> Result<Option<&'b [u8]>, E> {
        if self.held.is_empty() {
            while let [NIL, rest @ ..] = bytes {
                bytes = rest;
            }
            match bytes.first() {
                None => return Ok(None),
                Some(0x90..=0x9f | 0xdc | 0xdd) => self.walk = Walk::new(self.limit),
                Some(b'{' | b'[') => return Err(BadFrame::Json.into()),
                Some(_) => return Err(BadFrame::NoArray.into()),
            }
        }
        let Some(end) = self.walk.over(bytes)? else {
            hold(&mut self.held, bytes, self.limit);
            return Ok(None);
        };
        let (array, rest) = bytes.split_at(end);
        if self.held.is_empty() {
            take(array)?;
            return Ok(Some(rest));
        }
        // Between two arrays a connection holds no memory.
        let mut held = std::mem::take(&mut self.held);
        hold(&mut held, array, self.limit);
        take(&held)?;
        Ok(Some(rest))
    }

    /// Whether an array has begun that is not complete.
    pub fn unfinished(&self) -> bool {
        !self.held.is_empty()
    }

    /// Bytes held of that array.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.held.capacity()
    }
}
