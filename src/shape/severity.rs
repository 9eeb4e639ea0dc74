//! Severities as words and numbers of the usual libraries, and severities at the beginning of a text.

use crate::record::Value;

/// Words in lower case, and their severities. A level that RFC 5424 lacks becomes the nearest one: `fatal` is crit, `trace`
/// is debug.
const WORDS: [(&str, u8); 39] = [
    ("emerg", 0),
    ("emergency", 0),
    ("alert", 1),
    ("crit", 2),
    ("critical", 2),
    ("fatal", 2),
    ("panic", 2),
    ("dpanic", 2),
    ("f", 2),
    ("c", 2),
    ("err", 3),
    ("error", 3),
    ("eror", 3),
    ("severe", 3),
    ("e", 3),
    ("warning", 4),
    ("warn", 4),
    ("wrn", 4),
    ("w", 4),
    ("notice", 5),
    ("n", 5),
    ("info", 6),
    ("informational", 6),
    ("information", 6),
    ("inf", 6),
    ("log", 6),
    ("i", 6),
    ("debug", 7),
    ("dbg", 7),
    ("dbug", 7),
    ("trace", 7),
    ("verbose", 7),
    ("fine", 7),
    ("d", 7),
    ("t", 7),
    // The marks of Redis.
    ("#", 4),
    ("*", 5),
    ("-", 7),
    (".", 7),
];
/// Keys that hold a severity in logfmt and JSON.
const KEYS: [&str; 4] = ["level", "lvl", "severity", "loglevel"];
/// Bytes of a text that are searched for a severity: a timestamp and a name may come first.
const HEAD: usize = 128;
/// Words of a text that are tried.
const HEAD_WORDS: usize = 10;

/// The severity of a field's value. Numbers up to 7 are those of RFC 5424, 10 to 60 those of pino and bunyan.
pub fn of_value(value: &Value<'_>) -> Option<u8> {
    let text = match value {
        Value::Text(text) => std::str::from_utf8(text).ok()?.trim(),
        Value::Json(json) => json.as_str(),
    };
    match text.parse::<u8>() {
        Ok(number @ 0..=7) => Some(number),
        Ok(number) => of_tens(number),
        Err(_) => of_word(text),
    }
}

fn of_tens(number: u8) -> Option<u8> {
    match number {
        10 | 20 => Some(7),
        30 => Some(6),
        40 => Some(4),
        50 => Some(3),
        60 => Some(2),
        _ => None,
    }
}

/// The severity of a word. PostgreSQL and Apache number the levels below debug: `DEBUG5`, `trace8`.
fn of_word(word: &str) -> Option<u8> {
    let unnumbered = word.trim_end_matches(|last: char| last.is_ascii_digit());
    let word = if matches!(unnumbered, "DEBUG" | "D" | "trace") { unnumbered } else { word };
    WORDS.iter().find_map(|(known, severity)| known.eq_ignore_ascii_case(word).then_some(*severity))
}

/// The severity at the beginning of a text: `ERROR …`, `[warn]`, `level=error`, `error: …`, klog's `E1128 `.
pub fn guess(text: &[u8]) -> Option<u8> {
    let head = &text[..text.len().min(HEAD)];
    let head = head.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    klog(head).or_else(|| keyed(head)).or_else(|| {
        let mut words = Words { head, at: 0 };
        std::iter::from_fn(|| words.next()).take(HEAD_WORDS).find_map(|(at, word)| {
            let before = head[..at].chars().next_back();
            let behind = head[at + word.len()..].chars().next();
            let is_bracketed =
                matches!((before, behind), (Some('['), Some(']')) | (Some('<'), Some('>')) | (Some('('), Some(')')));
            let is_label = at == 0 && behind == Some(':');
            // A single letter counts only in brackets. A word in lower case counts only in brackets, or as the first word
            // with a colon behind it.
            let is_loud = word.len() > 2 && word.bytes().all(|byte| byte.is_ascii_uppercase());
            if is_bracketed || is_label && word.len() > 2 || is_loud { of_word(word) } else { None }
        })
    })
}

/// `E1128 17:01:58.123456   1 file.go:7] text`
fn klog(head: &str) -> Option<u8> {
    let (letter, rest) = head.split_at_checked(1)?;
    let is_date = rest.len() > 4 && rest.as_bytes()[..4].iter().all(u8::is_ascii_digit) && rest.as_bytes()[4] == b' ';
    if is_date && matches!(letter, "I" | "W" | "E" | "F") { of_word(letter) } else { None }
}

/// `level=error`, `"level":"error"`
fn keyed(head: &str) -> Option<u8> {
    KEYS.iter().find_map(|key| {
        let at = head
            .find(key)
            .filter(|at| !head[..*at].ends_with(|byte: char| byte.is_ascii_alphanumeric() || byte == '_'))?;
        let rest = head[at + key.len()..].trim_start_matches(['"', ' ']);
        let value = rest.strip_prefix(['=', ':'])?.trim_start_matches(['"', ' ']);
        let end = value.find(|byte: char| !byte.is_ascii_alphanumeric()).unwrap_or(value.len());
        of_value(&Value::Text(value.as_bytes()[..end].into()))
    })
}

/// The words of ASCII letters and digits, with their offsets.
struct Words<'a> {
    head: &'a str,
    at: usize,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<(usize, &'a str)> {
        let rest = &self.head[self.at..];
        let start = self.at + rest.find(|byte: char| byte.is_ascii_alphanumeric())?;
        let word = &self.head[start..];
        let len = word.find(|byte: char| !byte.is_ascii_alphanumeric()).unwrap_or(word.len());
        self.at = start + len;
        Some((start, &word[..len]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers() {
        let of = |text: &str| of_value(&Value::from_json(text).unwrap_or(Value::Text(text.as_bytes().into())));
        for (text, expected) in [
            ("error", 3),
            ("ERROR", 3),
            ("Warn", 4),
            ("\"fatal\"", 2),
            ("30", 6),
            ("60", 2),
            ("3", 3),
            ("\"50\"", 3),
            ("trace", 7),
            ("trace8", 7),
            ("DEBUG5", 7),
            (" INFO", 6),
            ("eror", 3),
            ("\"#\"", 4),
        ] {
            assert_eq!(of(text), Some(expected), "{text}");
        }
        for text in ["", "loud", "8", "25", "3.5", "true", "null", "{}"] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn the_beginning_of_a_text() {
        for (text, expected) in [
            ("ERROR no connection", 3),
            ("2026-11-28 17:01:58,123 WARNING [main] x", 4),
            ("2026-11-28T17:01:58Z [warn] x", 4),
            ("[error] 17#17: *1 open() failed", 3),
            ("error: cannot open", 3),
            ("E1128 17:01:58.123456       1 file.go:7] x", 3),
            ("I1128 17:01:58.123456       1 file.go:7] ERROR", 6),
            ("time=2026 level=error msg=x", 3),
            ("{\"level\":\"warn\",\"msg\":\"ERROR\"}", 4),
            ("{\"level\": 50}", 3),
            ("2026-11-28 17:01:58.123 UTC [17] FATAL:  the database system is starting up", 2),
            ("[D] x", 7),
        ] {
            assert_eq!(guess(text.as_bytes()), Some(expected), "{text}");
        }
        for text in [
            "",
            "no error at all",
            "an error",
            "I am",
            "E112 x",
            "INFORM",
            "mylevel=error",
            "level=",
            "\u{fc}ERRORS",
            "A W x",
        ] {
            assert_eq!(guess(text.as_bytes()), None, "{text}");
        }
        let far = format!("{}ERROR", " ".repeat(HEAD));
        assert_eq!(guess(far.as_bytes()), None);
    }
}
