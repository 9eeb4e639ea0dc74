//! Reads the answers of a receiver: msgpack values in a stream that may be cut anywhere. Most are `{"ack": chunk}`.

use super::msgpack::{Value, Walk};

/// The longest value that a receiver sends, in bytes: a PONG with a reason.
const MAX_ANSWER: usize = 4096;

/// The receiver sends something else than msgpack values. There is no way to find the next value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the collector does not answer as the Forward protocol has it; is that a port of Fluentd's `forward`?")]
pub struct BadAnswer;

/// Finds the values. It holds at most the longest value and the bytes that came with its last byte.
#[derive(Debug, Default)]
pub struct Answers {
    held: Vec<u8>,
}

impl Answers {
    /// Passes each complete value to `take`, in order.
    pub fn feed<E: From<BadAnswer>>(
        &mut self,
        bytes: &[u8],
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.held.extend_from_slice(bytes);
        let mut rest = &self.held[..];
        while !rest.is_empty() {
            let Some(end) = Walk::new(MAX_ANSWER).over(rest).map_err(|_| BadAnswer)? else { break };
            let (value, behind) = rest.split_at(end);
            rest = behind;
            take(value)?;
        }
        let taken = self.held.len() - rest.len();
        self.held.drain(..taken);
        Ok(())
    }
}

/// The chunk that a value acknowledges. `None`: the value is not an acknowledgement.
pub fn acknowledged(value: &[u8]) -> Option<&[u8]> {
    let (Value::Map(mut items), _) = Value::read(value).ok()? else { return None };
    while let (Some(key), Some(chunk)) = (items.next(), items.next()) {
        if key.text() == Some(b"ack") {
            return chunk.text();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(pieces: &[&[u8]]) -> Result<Vec<Vec<u8>>, BadAnswer> {
        let (mut answers, mut heard) = (Answers::default(), Vec::new());
        for piece in pieces {
            answers.feed(piece, |value| {
                heard.push(acknowledged(value).unwrap_or(b"none").to_vec());
                Ok::<_, BadAnswer>(())
            })?;
        }
        Ok(heard)
    }

    #[test]
    fn answers_are_found_wherever_they_are_cut() {
        let all = b"\x81\xa3ack\xa3one\x82\xa1x\x01\xa3ack\xc4\x03two\xc0\x91\xa4HELO\x81\xa3ack\xa5three";
        let expected: Vec<_> =
            [&b"one"[..], b"two", b"none", b"none", b"three"].into_iter().map(<[u8]>::to_vec).collect();
        assert_eq!(heard(&[all]).as_ref(), Ok(&expected));
        for cut in 0..all.len() {
            let (before, behind) = all.split_at(cut);
            assert_eq!(heard(&[before, behind]).as_ref(), Ok(&expected), "{cut}");
        }
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        assert_eq!(heard(&[b"\xc1"]), Err(BadAnswer));
        // A text of 64 KiB.
        assert_eq!(heard(&[b"\xda\xff\xff"]), Err(BadAnswer));
        assert_eq!(heard(&[&[0x91; 64]]), Err(BadAnswer));
    }
}
