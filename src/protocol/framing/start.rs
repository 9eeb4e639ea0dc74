//! Recognizes the first bytes of a frame. Pure functions of bytes; `Open` means that more bytes are needed.

/// The longest frame that an octet count may announce, in bytes. No collector accepts longer ones: rsyslog's default is 200,000 bytes,
/// syslog-ng's 64 KiB, `max-frame` may be 512 KiB. A larger number is text; as a count it would cost as many of the bytes that follow.
pub const MAX_COUNT: usize = 16 * 1024 * 1024;

/// The number of digits of [`MAX_COUNT`].
pub const COUNT_DIGITS: usize = 8;

/// UTF-8's byte order mark. Some senders write it in front of `<`.
pub const BOM: &[u8] = b"\xef\xbb\xbf";

/// The length of the longest priority, with a byte order mark: `BOM<191>`.
pub const MAX_PRI: usize = 8;

/// The length of the longest count with a priority.
pub const MAX_START: usize = COUNT_DIGITS + 1 + MAX_PRI;

/// Whether the bytes begin with a pattern, and where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    Yes(usize),
    No,
    Open,
}

/// A number and a space at the start of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// A count of `octets`, written in `header` bytes with the space. The next `pri` bytes are a priority.
    Count {
        octets: usize,
        header: usize,
        pri: usize,
    },
    /// A number without a priority behind it.
    Bare {
        octets: usize,
        header: usize,
    },
    No,
    Open,
}

/// `<`, one to three digits, `>`, optionally behind a byte order mark.
pub fn pri(bytes: &[u8]) -> Look {
    let bom = if bytes.first() == BOM.first() { BOM.len() } else { 0 };
    if bytes.len() < bom {
        return if BOM.starts_with(bytes) { Look::Open } else { Look::No };
    }
    if !bytes.starts_with(&BOM[..bom]) {
        return Look::No;
    }
    for (at, &byte) in bytes[bom..].iter().enumerate() {
        match (at, byte) {
            (0, b'<') | (1..=3, b'0'..=b'9') => {}
            (2..=4, b'>') => return Look::Yes(bom + at + 1),
            _ => return Look::No,
        }
    }
    Look::Open
}

/// A number from 1 to [`MAX_COUNT`] and a space: its value, and the length of both.
fn number_and_blank(bytes: &[u8]) -> Result<(usize, usize), Look> {
    let mut value = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            b'1'..=b'9' if at < COUNT_DIGITS => value = value * 10 + usize::from(byte - b'0'),
            b'0' if 0 < at && at < COUNT_DIGITS => value *= 10,
            b' ' if at > 0 && value <= MAX_COUNT => return Ok((value, at + 1)),
            _ => return Err(Look::No),
        }
    }
    Err(Look::Open)
}

/// A number and a space, with any bytes behind.
pub fn next_number(bytes: &[u8]) -> Look {
    match number_and_blank(bytes) {
        Ok((_, end)) => Look::Yes(end),
        Err(look) => look,
    }
}

/// Classifies the number at the start of a frame. A count that does not even cover its priority is not a number.
pub fn number(bytes: &[u8]) -> Number {
    let (octets, header) = match number_and_blank(bytes) {
        Ok(found) => found,
        Err(Look::Open) => return Number::Open,
        Err(_) => return Number::No,
    };
    match pri(&bytes[header..]) {
        Look::Yes(pri) if octets >= pri => Number::Count { octets, header, pri },
        Look::Yes(_) => Number::No,
        Look::No => Number::Bare { octets, header },
        Look::Open => Number::Open,
    }
}

/// The rest of a count whose first digits belonged to an earlier count. Only a rest that begins with 0 is recognized, as in `0 <13>`: it
/// cannot be a count.
pub fn torn_count(bytes: &[u8]) -> Look {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match bytes.get(digits) {
        _ if bytes.first().is_some_and(|&first| first != b'0') || digits >= COUNT_DIGITS => Look::No,
        None => Look::Open,
        Some(b' ') if digits > 0 => match pri(&bytes[digits + 1..]) {
            Look::Yes(_) => Look::Yes(digits + 1),
            look => look,
        },
        Some(_) => Look::No,
    }
}

/// Whether a message begins here, with a priority or with a count and a priority.
pub fn message(bytes: &[u8]) -> Look {
    match bytes.first() {
        Some(b'1'..=b'9') => match number(bytes) {
            Number::Count { header, pri, .. } => Look::Yes(header + pri),
            Number::Open => Look::Open,
            Number::Bare { .. } | Number::No => Look::No,
        },
        _ => pri(bytes),
    }
}

/// `bytes` end in `>`. Finds the start of a count that ends there with its priority.
pub fn count_before(bytes: &[u8]) -> Option<usize> {
    let open = bytes.iter().rposition(|&byte| byte == b'<')?;
    let before = bytes[..open].strip_suffix(BOM).unwrap_or(&bytes[..open]);
    let digits = before.strip_suffix(b" ")?.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let start = before.len() - 1 - digits;
    matches!(number(&bytes[start..]), Number::Count { header, pri, .. } if start + header + pri == bytes.len())
        .then_some(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities() {
        for (bytes, expected) in [
            (&b"<13>x"[..], Look::Yes(4)),
            (b"<1>", Look::Yes(3)),
            (b"<999>", Look::Yes(5)),
            (b"\xef\xbb\xbf<13>", Look::Yes(7)),
            (b"", Look::Open),
            (b"<19", Look::Open),
            (b"\xef\xbb", Look::Open),
            (b"\xef\xbb\xbf", Look::Open),
            (b"<>", Look::No),
            (b"<1234>", Look::No),
            (b"<a>", Look::No),
            (b"\xefx", Look::No),
            (b"\n<13>", Look::No),
        ] {
            assert_eq!(pri(bytes), expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn numbers() {
        for (bytes, expected) in [
            (&b"7 <13>one"[..], Number::Count { octets: 7, header: 2, pri: 4 }),
            (b"16777216 <13>x", Number::Count { octets: MAX_COUNT, header: 9, pri: 4 }),
            (b"10 \xef\xbb\xbf<13>x", Number::Count { octets: 10, header: 3, pri: 7 }),
            (b"46 my text", Number::Bare { octets: 46, header: 3 }),
            (b"16777217 <13>x", Number::No),
            (b"123456789", Number::No),
            (b"3 <13>", Number::No),
            (b"0 <13>", Number::No),
            (b"07 <13>", Number::No),
            (b"7\n", Number::No),
            (b"7", Number::Open),
            (b"7 ", Number::Open),
            (b"7 <1", Number::Open),
        ] {
            assert_eq!(number(bytes), expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn counts_that_end_here() {
        for (bytes, expected) in [
            (&b"!40 <6>"[..], Some(1)),
            (b"40 <6>", Some(0)),
            (b"x12345678 \xef\xbb\xbf<191>", Some(1)),
            (b"123456789 <6>", None),
            (b"x040 <6>", None),
            (b"40 <>", None),
            (b"a>", None),
            (b" <6>", None),
            (b"40 <6>>", None),
        ] {
            assert_eq!(count_before(bytes), expected, "{}", bytes.escape_ascii());
        }
        assert_eq!(
            [&b"0 <6>"[..], b"00 <13>", b"0", b"0 x", b"5 <6>", b""].map(torn_count),
            [Look::Yes(2), Look::Yes(3), Look::Open, Look::No, Look::No, Look::Open]
        );
    }
}
