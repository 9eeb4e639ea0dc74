//! Writes msgpack values.

use crate::record::json_depth;
use crate::record::json_reader as json;

/// The maximum depth of arrays and objects in a JSON value that is written with its types. An entry and its record are around it, and many
/// readers accept a depth of 32 in all.
const MAX_DEPTH: usize = 28;
/// The most pairs or values that fit in the shortest head.
const MAX_SHORT: usize = 15;

/// Appends a text, which may be any bytes.
pub fn append_str(text: &[u8], out: &mut Vec<u8>) {
    let len = text.len();
    match len {
        0..=31 => out.push(0xa0 | len as u8),
        32..=0xff => out.extend_from_slice(&[0xd9, len as u8]),
        0x100..=0xffff => append_long(0xda, len as u16, out),
        _ => append_longest(0xdb, len, out),
    }
    out.extend_from_slice(text);
}

pub fn append_bin(bytes: &[u8], out: &mut Vec<u8>) {
    let len = bytes.len();
    match len {
        0..=0xff => out.extend_from_slice(&[0xc4, len as u8]),
        0x100..=0xffff => append_long(0xc5, len as u16, out),
        _ => append_longest(0xc6, len, out),
    }
    out.extend_from_slice(bytes);
}

/// Appends the head of an array with `count` values.
pub fn append_array(count: usize, out: &mut Vec<u8>) {
    match count {
        0..=MAX_SHORT => out.push(0x90 | count as u8),
        0x10..=0xffff => append_long(0xdc, count as u16, out),
        _ => append_longest(0xdd, count, out),
    }
}

/// Appends the head of a map with `count` pairs.
fn append_map(count: usize, out: &mut Vec<u8>) {
    match count {
        0..=MAX_SHORT => out.push(0x80 | count as u8),
        0x10..=0xffff => append_long(0xde, count as u16, out),
        _ => append_longest(0xdf, count, out),
    }
}

/// `-2^63 <= number < 2^64`
pub fn append_int(number: i128, out: &mut Vec<u8>) {
    match number {
        0..=0x7f => out.push(number as u8),
        0x80..=0xff => out.extend_from_slice(&[0xcc, number as u8]),
        0x100..=0xffff => append_long(0xcd, number as u16, out),
        0x1_0000..=0xffff_ffff => append_longest(0xce, number as usize, out),
        0x1_0000_0000.. => {
            out.push(0xcf);
            out.extend_from_slice(&(number as u64).to_be_bytes());
        }
        -32..0 => out.push(number as u8),
        _ => {
            out.push(0xd3);
            out.extend_from_slice(&(number as i64).to_be_bytes());
        }
    }
}

fn append_long(head: u8, value: u16, out: &mut Vec<u8>) {
    out.push(head);
    out.extend_from_slice(&value.to_be_bytes());
}

fn append_longest(head: u8, value: usize, out: &mut Vec<u8>) {
    out.push(head);
    out.extend_from_slice(&(value as u32).to_be_bytes());
}

/// A map whose number of pairs is not known yet.
pub struct Map<'o> {
    out: &'o mut Vec<u8>,
    /// The position of its head.
    head: usize,
    count: usize,
}

impl<'o> Map<'o> {
    pub fn begin(out: &'o mut Vec<u8>) -> Self {
        out.push(0x80);
        Self { head: out.len() - 1, out, count: 0 }
    }

    pub fn text(&mut self, key: &str, value: &[u8]) {
        append_str(value, self.key(key));
    }

    /// Appends a key. The caller appends the value to the returned buffer.
    pub fn key(&mut self, key: &str) -> &mut Vec<u8> {
        self.count += 1;
        append_str(key.as_bytes(), self.out);
        self.out
    }

    pub fn end(self) {
        if self.count <= MAX_SHORT {
            self.out[self.head] |= self.count as u8;
            return;
        }
        let mut head = Vec::new();
        append_map(self.count, &mut head);
        self.out.splice(self.head..=self.head, head);
    }
}

/// Appends a well-formed JSON value without blanks, with its types. A value that is nested too deep for readers becomes a text. An integer
/// that does not fit in 64 bits becomes a float.
pub fn append_json(text: &str, out: &mut Vec<u8>) {
    match json_depth(text) > MAX_DEPTH {
        true => append_str(text.as_bytes(), out),
        false => drop(append_value(text, out)),
    }
}

/// Appends the value at the start of some JSON, and returns the rest.
fn append_value<'t>(text: &'t str, out: &mut Vec<u8>) -> &'t str {
    let is_in_number = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    match text.as_bytes().first() {
        Some(b'"') => {
            let (said, rest) = text.split_at(text_len(text));
            append_str(json::text(said).unwrap_or_default().as_bytes(), out);
            rest
        }
        Some(b'[') => {
            let (mut count, mut inside, mut rest) = (0, Vec::new(), &text[1..]);
            while !rest.is_empty() && !rest.starts_with(']') {
                rest = append_value(rest, &mut inside);
                rest = rest.strip_prefix(',').unwrap_or(rest);
                count += 1;
            }
            append_array(count, out);
            out.extend_from_slice(&inside);
            rest.get(1..).unwrap_or_default()
        }
        Some(b'{') => {
            let (mut count, mut inside, mut rest) = (0, Vec::new(), &text[1..]);
            while rest.starts_with('"') {
                rest = append_value(rest, &mut inside);
                rest = append_value(rest.strip_prefix(':').unwrap_or(rest), &mut inside);
                rest = rest.strip_prefix(',').unwrap_or(rest);
                count += 1;
            }
            append_map(count, out);
            out.extend_from_slice(&inside);
            rest.get(1..).unwrap_or_default()
        }
        _ => {
            let (word, rest) = text.split_at(text.find(|c| !is_in_number(c)).unwrap_or(text.len()));
            match (word, word.parse(), word.parse::<f64>()) {
                ("true", ..) => out.push(0xc3),
                ("false", ..) => out.push(0xc2),
                (_, Ok(number @ -0x8000_0000_0000_0000..=0xffff_ffff_ffff_ffff), _) if word != "-0" => {
                    append_int(number, out);
                }
                (_, _, Ok(number)) if !word.is_empty() => {
                    out.push(0xcb);
                    out.extend_from_slice(&number.to_be_bytes());
                }
                _ => out.push(0xc0),
            }
            // JSON that is not well-formed ends here.
            if word.is_empty() { "" } else { rest }
        }
    }
}

/// The length of the text at the start, with its quotes.
fn text_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::super::msgpack::Value;
    use super::*;

    #[test]
    fn heads_are_the_shortest_that_say_it() {
        for (count, head) in [(0, 1), (15, 1), (16, 3), (0xffff, 3), (0x1_0000, 5)] {
            let (mut map, mut array) = (Vec::new(), Vec::new());
            let mut writer = Map::begin(&mut map);
            (0..count).for_each(|_| append_str(b"x", writer.key("")));
            writer.end();
            append_array(count, &mut array);
            assert_eq!((map.len(), array.len()), (head + 3 * count, head));
            let (Value::Map(items), rest) = Value::read(&map).expect("a value") else { panic!("no map") };
            assert_eq!((items.left(), rest), (2 * count as u64, &b""[..]));
        }
        for len in [0, 31, 32, 255, 256, 65_535, 65_536] {
            let text = vec![b'x'; len];
            let (mut str_, mut bin) = (Vec::new(), Vec::new());
            append_str(&text, &mut str_);
            append_bin(&text, &mut bin);
            assert_eq!(Value::read(&str_), Ok((Value::Str(&text), &b""[..])));
            assert_eq!(Value::read(&bin), Ok((Value::Bin(&text), &b""[..])));
        }
        let numbers = [0, 127, 128, 255, 256, 65_535, 65_536, u32::MAX.into(), 1 << 32, u64::MAX.into()];
        for number in numbers.into_iter().chain([-1, -32, -33, i64::MIN.into()]) {
            let mut out = Vec::new();
            append_int(number, &mut out);
            assert_eq!(Value::read(&out), Ok((Value::Int(number), &b""[..])));
        }
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let mut out = Vec::new();
        append_json(text, &mut out);
        let (value, rest) = Value::read(&out).expect("a value");
        assert_eq!(rest, b"");
        let mut back = Vec::new();
        super::super::json::append(value, &mut back);
        assert_eq!(String::from_utf8_lossy(&back), expected);
    }

    #[test]
    fn json_keeps_its_types() {
        for same in [
            "null",
            "true",
            "-12",
            "18446744073709551615",
            "1.5",
            r#"{"a":[1,"x\"]\\",{}],"b":{"":[]},"a":null}"#,
            r#"[[],[[]],"é",false]"#,
        ] {
            check(same, same);
        }
        check("1.50", "1.5");
        check("-0", "-0.0");
        check("1e3", "1000.0");
        check("123456789012345678901234567890", "1.2345678901234568e+29");
        check(r#""\u00e9\n""#, r#""é\n""#);
        let deep = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        check(&deep, &deep);
        let deeper = format!("[{deep}]");
        check(&deeper, &format!("\"{deeper}\""));
        // No caller passes these. They must do no harm.
        ["", "[", "{\"a\"", "[,", "}", "\"\\", "{\"a\":"].iter().for_each(|bad| append_json(bad, &mut Vec::new()));
    }
}
