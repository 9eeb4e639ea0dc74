//! Protocol Buffers as OTLP needs them: writes messages, and reads the fields of received ones
//! (<https://protobuf.dev/programming-guides/encoding/>).

/// Wire types: the three lowest bits of a field's tag.
const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LENGTH: u32 = 2;
const FIXED32: u32 = 5;

/// A message that is being written. Fields have the numbers that its schema gives them.
pub struct Message<'o> {
    out: &'o mut Vec<u8>,
}

/// The value of a field that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// An `int32`, `int64`, `uint64`, `bool` or enum. Negative values are in two's complement.
    Varint(u64),
    /// A `string`, `bytes` or a message.
    Bytes(&'a [u8]),
}

impl<'o> Message<'o> {
    /// Begins a message at the end of `out`.
    pub fn begin(out: &'o mut Vec<u8>) -> Self {
        Self { out }
    }

    pub fn varint(&mut self, field: u32, value: u64) {
        self.tag(field, VARINT);
        push_varint(value, self.out);
    }

    pub fn fixed64(&mut self, field: u32, value: u64) {
        self.tag(field, FIXED64);
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    pub fn double(&mut self, field: u32, value: f64) {
        self.fixed64(field, value.to_bits());
    }

    pub fn bytes(&mut self, field: u32, value: &[u8]) {
        self.tag(field, LENGTH);
        push_varint(value.len() as u64, self.out);
        self.out.extend_from_slice(value);
    }

    pub fn message(&mut self, field: u32, inside: impl FnOnce(&mut Message<'_>)) {
        self.appended(field, |out| inside(&mut Message { out }));
    }

    /// Writes a value by `append`. Its length precedes it, but is known only afterwards.
    pub fn appended(&mut self, field: u32, append: impl FnOnce(&mut Vec<u8>)) {
        self.tag(field, LENGTH);
        let start = self.out.len();
        append(self.out);
        let end = self.out.len();
        push_varint((end - start) as u64, self.out);
        let behind = self.out.len() - end;
        self.out[start..].rotate_right(behind);
    }

    fn tag(&mut self, field: u32, encoding: u32) {
        push_varint(u64::from(field << 3 | encoding), self.out);
    }
}

fn push_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Calls `take` with the number and the value of each field. Fields of a fixed width are skipped. `None`: the input is malformed.
pub fn each_field<'a>(message: &'a [u8], mut take: impl FnMut(u64, Value<'a>)) -> Option<()> {
    let mut rest = message;
    while !rest.is_empty() {
        let tag = split_varint(&mut rest)?;
        let (number, encoding) = (tag >> 3, tag as u32 & 7);
        let len = match encoding {
            VARINT => {
                take(number, Value::Varint(split_varint(&mut rest)?));
                continue;
            }
            FIXED32 => 4,
            FIXED64 => 8,
            LENGTH => usize::try_from(split_varint(&mut rest)?).ok()?,
            _ => return None,
        };
        let (value, behind) = rest.split_at_checked(len)?;
        rest = behind;
        if encoding == LENGTH {
            take(number, Value::Bytes(value));
        }
    }
    Some(())
}

fn split_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for at in 0..10 {
        let byte = *rest.get(at)?;
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            *rest = &rest[at + 1..];
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Message<'_>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut Message::begin(&mut out));
        out
    }

    #[test]
    fn it_is_what_the_page_about_the_encoding_says() {
        assert_eq!(written(|message| message.varint(1, 150)), [0x08, 0x96, 0x01]);
        assert_eq!(written(|message| message.bytes(2, b"testing")), b"\x12\x07testing");
        assert_eq!(
            written(|message| message.message(3, |inside| inside.varint(1, 150))),
            [0x1a, 0x03, 0x08, 0x96, 0x01]
        );
        assert_eq!(written(|message| message.fixed64(1, 258)), [0x09, 2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(written(|message| message.double(4, 25.4))[1..], 25.4_f64.to_le_bytes());
        assert_eq!(written(|message| message.varint(16, u64::MAX)).len(), 2 + 10);
    }

    #[test]
    fn a_length_has_as_many_bytes_as_it_needs() {
        for (len, bytes) in [(0, 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3)] {
            let text = vec![b'x'; len];
            let message = written(|message| {
                message.message(1, |inside| inside.appended(2, |out| out.extend_from_slice(&text)));
                message.varint(3, 1);
            });
            let inner = written(|message| message.bytes(2, &text));
            assert_eq!(inner.len(), 1 + bytes + len);
            let outer = written(|message| {
                message.bytes(1, &inner);
                message.varint(3, 1);
            });
            assert!(message == outer, "{len}");
        }
    }

    #[test]
    fn fields_are_read() {
        let fields = |message: &[u8]| {
            let mut fields = Vec::new();
            each_field(message, |number, value| fields.push(format!("{number} {value:?}")))?;
            Some(fields.join(", "))
        };
        let message = written(|message| {
            message.fixed64(9, 1);
            message.varint(1, u64::MAX);
            message.bytes(2, b"a");
        });
        assert_eq!(fields(&message).as_deref(), Some("1 Varint(18446744073709551615), 2 Bytes([97])"));
        assert_eq!(fields(b"").as_deref(), Some(""));
        (1..message.len())
            .filter(|len| ![9, 20].contains(len))
            .for_each(|len| assert_eq!(fields(&message[..len]), None, "{len}"));
        for text in ["{\"error\":1}", "<html>", "OK", "no"] {
            assert_eq!(fields(text.as_bytes()), None, "{text}");
        }
        assert_eq!(fields(&[0xff; 11]), None);
    }
}
