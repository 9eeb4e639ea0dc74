//! Where an array ends in a stream that is cut anywhere.

use super::BadFrame;
use super::msgpack::Walk;
use crate::protocol::held::hold;

const NIL: u8 = 0xc0;

/// Finds the arrays of a connection. Each byte is looked at once, and what is held is never more than the limit.
#[derive(Debug)]
pub struct Framer {
    /// The longest array that is taken, in bytes.
    limit: usize,
    walk: Walk,
    /// The start of an array whose end has not come; `held.len() <= limit`.
    held: Vec<u8>,
}

impl Framer {
    pub fn new(limit: usize) -> Self {
        Self { limit, walk: Walk::new(limit), held: Vec::new() }
    }

    /// Hands on each array that is whole, with its head, in order. A nil between two is a heartbeat. After an error there is no way
    /// to find the next array: the connection has to end.
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

    /// Hands on the next array, and returns what is behind it. `None`: it is not whole yet.
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

    /// Has an array begun that is not whole?
    pub fn unfinished(&self) -> bool {
        !self.held.is_empty()
    }

    /// What is held of it, in bytes.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.held.capacity()
    }
}
