//! The kinds of values: how a text is parsed, its limits, and how the value is displayed. The error of each kind says what
//! would be right.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;

use super::effective::{Item, displayed_size};
use super::error::{ConfigError, Source};
use super::written::{Entry, Leaf};
use crate::record::BadSetting;

/// The value of a key, as it was written.
pub struct Value<'a> {
    pub source: &'a Source<'a>,
    pub key: &'a str,
    /// The entry, with at least one value.
    pub entry: &'a Entry,
}

/// How a `T` is written.
pub trait Kind<T> {
    fn read(&self, value: &Value<'_>) -> Result<T, ConfigError>;

    fn display(&self, value: &T) -> Item;
}

impl Value<'_> {
    /// The only value, and its text with `${VAR}` filled in.
    pub fn one(&self) -> Result<(&Leaf, String), ConfigError> {
        let leaf = self.entry.first().expect("what is read was written");
        if self.entry.is_list() {
            return Err(self.source.located(self.key, leaf, "write one value, not a list"));
        }
        Ok((leaf, self.source.text(self.key, leaf)?))
    }

    /// Reads the only value with `meaning`, whose error says what would be right.
    pub fn parse<T, E: Display>(&self, meaning: impl FnOnce(&str) -> Result<T, E>) -> Result<T, ConfigError> {
        let (leaf, text) = self.one()?;
        meaning(&text).map_err(|says| self.source.bad(self.key, leaf, &says.to_string()))
    }
}

/// A value whose type parses and displays it.
pub struct Text;

impl<T: FromStr<Err: Display> + Display> Kind<T> for Text {
    fn read(&self, value: &Value<'_>) -> Result<T, ConfigError> {
        value.parse(str::parse)
    }

    fn display(&self, value: &T) -> Item {
        Item::Text(value.to_string())
    }
}

/// A value of one key's own kind. The error of `read` says what would be right.
pub struct Special<T> {
    pub read: fn(&str) -> Result<T, String>,
    pub display: fn(&T) -> String,
}

impl<T> Kind<T> for Special<T> {
    fn read(&self, value: &Value<'_>) -> Result<T, ConfigError> {
        value.parse(self.read)
    }

    fn display(&self, value: &T) -> Item {
        Item::Text((self.display)(value))
    }
}

/// `true` or `false`.
pub struct Flag;

impl Kind<bool> for Flag {
    fn read(&self, value: &Value<'_>) -> Result<bool, ConfigError> {
        value.parse(|text| text.parse().map_err(|_| "write true or false"))
    }

    fn display(&self, value: &bool) -> Item {
        Item::Flag(*value)
    }
}

/// A time above zero, up to a day.
pub struct Time;

impl Kind<Duration> for Time {
    fn read(&self, value: &Value<'_>) -> Result<Duration, ConfigError> {
        value.parse(|text| match humantime::parse_duration(text) {
            Ok(time) if !time.is_zero() && time <= Duration::from_secs(86_400) => Ok(time),
            _ => Err("write a time above zero and up to a day, with its unit: \"500ms\", \"10s\", \"1m\""),
        })
    }

    fn display(&self, value: &Duration) -> Item {
        Item::Text(humantime::format_duration(*value).to_string())
    }
}

/// A time above zero, up to a day. `off` is `None`.
pub struct TimeOrOff;

impl Kind<Option<Duration>> for TimeOrOff {
    fn read(&self, value: &Value<'_>) -> Result<Option<Duration>, ConfigError> {
        match value.one()?.1.as_str() {
            "off" => Ok(None),
            _ => Time.read(value).map(Some),
        }
    }

    fn display(&self, value: &Option<Duration>) -> Item {
        value.map_or(Item::Text("off".to_owned()), |time| Time.display(&time))
    }
}

/// An age of lines above zero, up to ten years.
pub struct Age;

impl Kind<Duration> for Age {
    fn read(&self, value: &Value<'_>) -> Result<Duration, ConfigError> {
        value.parse(|text| match humantime::parse_duration(text) {
            Ok(age) if !age.is_zero() && age <= Duration::from_secs(3650 * 86_400) => Ok(age),
            _ => Err("write an age above zero and up to ten years, with its unit: \"12h\", \"7days\""),
        })
    }

    fn display(&self, value: &Duration) -> Item {
        Time.display(value)
    }
}

/// A size in bytes, within these limits.
pub struct Size(pub RangeInclusive<u64>);

impl Kind<u64> for Size {
    fn read(&self, value: &Value<'_>) -> Result<u64, ConfigError> {
        value.parse(|text| match text.parse::<ByteSize>() {
            Ok(size) if self.0.contains(&size.as_u64()) => Ok(size.as_u64()),
            Ok(_) => Err(format!("from {} to {}", displayed_size(*self.0.start()), displayed_size(*self.0.end()))),
            Err(_) => Err("write a size such as \"64KiB\", \"512MiB\" or \"1GiB\"".to_owned()),
        })
    }

    fn display(&self, value: &u64) -> Item {
        Item::Text(displayed_size(*value))
    }
}

/// A size in bytes, as a `usize`.
impl Kind<usize> for Size {
    fn read(&self, value: &Value<'_>) -> Result<usize, ConfigError> {
        Kind::<u64>::read(self, value).map(|bytes| bytes as usize)
    }

    fn display(&self, value: &usize) -> Item {
        Item::Text(displayed_size(*value as u64))
    }
}

/// A whole number above zero.
pub struct Count;

impl Kind<usize> for Count {
    fn read(&self, value: &Value<'_>) -> Result<usize, ConfigError> {
        value.parse(|text| match text.parse() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err("write a whole number above zero"),
        })
    }

    fn display(&self, value: &usize) -> Item {
        Item::Number(*value as u64)
    }
}

/// A whole number above zero. `auto` is `None`: the program chooses.
pub struct CountOrAuto;

impl Kind<Option<usize>> for CountOrAuto {
    fn read(&self, value: &Value<'_>) -> Result<Option<usize>, ConfigError> {
        value.parse(|text| match (text, text.parse()) {
            ("auto", _) => Ok(None),
            (_, Ok(number)) if number > 0 => Ok(Some(number)),
            _ => Err("write a whole number above zero, or \"auto\""),
        })
    }

    fn display(&self, value: &Option<usize>) -> Item {
        value.map_or(Item::Text("auto".to_owned()), |number| Item::Number(number as u64))
    }
}

/// A whole number from zero to this maximum.
pub struct CountTo(pub usize);

impl Kind<usize> for CountTo {
    fn read(&self, value: &Value<'_>) -> Result<usize, ConfigError> {
        value.parse(|text| match text.parse() {
            Ok(number) if number <= self.0 => Ok(number),
            _ => Err(format!("write a number from 0 to {}", self.0)),
        })
    }

    fn display(&self, value: &usize) -> Item {
        Item::Number(*value as u64)
    }
}

/// One of these words.
pub struct Words<T: 'static>(pub &'static [(&'static str, T)]);

impl<T: Clone + PartialEq> Kind<T> for Words<T> {
    fn read(&self, value: &Value<'_>) -> Result<T, ConfigError> {
        value.parse(|text| match self.0.iter().find(|(word, _)| *word == text) {
            Some((_, choice)) => Ok(choice.clone()),
            None => {
                let words: Vec<String> = self.0.iter().map(|(word, _)| format!("\"{word}\"")).collect();
                Err(format!("write {}", words.join(" or ")))
            }
        })
    }

    fn display(&self, value: &T) -> Item {
        let word = self.0.iter().find(|(_, choice)| choice == value);
        word.map_or(Item::Nothing, |(word, _)| Item::Text((*word).to_owned()))
    }
}

/// The path of a file or a directory.
pub struct Path;

impl Kind<PathBuf> for Path {
    fn read(&self, value: &Value<'_>) -> Result<PathBuf, ConfigError> {
        value.parse(|text| if text.is_empty() { Err("a path must not be empty") } else { Ok(PathBuf::from(text)) })
    }

    fn display(&self, value: &PathBuf) -> Item {
        Item::Text(value.display().to_string())
    }
}

/// A value that may be absent.
pub struct Optional<K>(pub K);

impl<T, K: Kind<T>> Kind<Option<T>> for Optional<K> {
    fn read(&self, value: &Value<'_>) -> Result<Option<T>, ConfigError> {
        self.0.read(value).map(Some)
    }

    fn display(&self, value: &Option<T>) -> Item {
        value.as_ref().map_or(Item::Nothing, |value| self.0.display(value))
    }
}

/// One value or a list: `to = "a"` and `to = ["a", "b"]` are both natural to write. Each invalid value of a list is noted.
pub struct ListOf<T> {
    pub read: fn(&str) -> Result<T, String>,
    pub display: fn(&T) -> String,
}

impl<T: FromStr<Err = String> + ToString> ListOf<T> {
    /// A list of values whose type parses and displays them.
    pub fn text() -> Self {
        Self { read: str::parse, display: T::to_string }
    }
}

impl<T> Kind<Vec<T>> for ListOf<T> {
    fn read(&self, value: &Value<'_>) -> Result<Vec<T>, ConfigError> {
        let Value { source, key, entry } = value;
        let mut values = Vec::new();
        for leaf in entry.leaves() {
            let text = source.text(key, leaf);
            match text.and_then(|text| (self.read)(&text).map_err(|says| source.bad(key, leaf, &says))) {
                Ok(value) => values.push(value),
                Err(problem) => source.note(problem, ())?,
            }
        }
        Ok(values)
    }

    fn display(&self, value: &Vec<T>) -> Item {
        Item::List(value.iter().map(self.display).collect())
    }
}

/// One value or a list that is parsed as a whole.
pub struct Together<T> {
    pub read: fn(Vec<String>) -> Result<T, BadSetting>,
    pub display: fn(&T) -> Vec<String>,
}

impl<T> Kind<T> for Together<T> {
    fn read(&self, value: &Value<'_>) -> Result<T, ConfigError> {
        let Value { source, key, entry } = value;
        let texts = entry.leaves().iter().map(|leaf| source.text(key, leaf)).collect::<Result<Vec<_>, _>>()?;
        (self.read)(texts).map_err(|bad| source.bad_among(key, entry, &bad.to_string()))
    }

    fn display(&self, value: &T) -> Item {
        Item::List((self.display)(value))
    }
}

/// A name that can be a part of a file name.
pub const NAME: Special<String> = Special { read: name, display: String::clone };

fn name(text: &str) -> Result<String, String> {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    if text.is_empty() || text.len() > 64 || !text.bytes().all(legal) {
        return Err("a name is 1 to 64 of a-z, 0-9, - and _".to_owned());
    }
    Ok(text.to_owned())
}
