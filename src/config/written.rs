//! From the text of a config file to its sections. A key that nobody knows is noted and read as the one that was meant, so
//! that what else is wrong comes to light in the same reading; text that is no TOML ends it.

use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue, Deserializer};

use super::error::{ConfigError, Source};
use super::file::File;

pub fn read(source: &Source<'_>) -> Result<File, ConfigError> {
    let mut table = DeTable::parse(source.text).map_err(|error| source.toml_error(&error))?;
    loop {
        let error = match File::deserialize(Deserializer::from(table.clone())) {
            Ok(file) => return Ok(file),
            Err(error) => error,
        };
        let problem = source.toml_error(&error);
        let meant = source.meant(&error).map(str::to_owned);
        // The parser does not say of everything where it stands.
        if !error.span().is_some_and(|span| mend(table.get_mut(), &span, meant.as_deref())) {
            return Err(problem);
        }
        source.has_gaps.set(source.has_gaps.get() || meant.is_none());
        source.noted(problem, ())?;
    }
}

/// Takes the entry at `place` out of the table, or gives it the name that was meant, unless that is taken.
fn mend(table: &mut DeTable<'_>, place: &Range<usize>, meant: Option<&str>) -> bool {
    if table.iter_mut().any(|(_, value)| mend_inside(value.get_mut(), place, meant)) {
        return true;
    }
    let is_there = |key: &Spanned<DeString<'_>>, value: &Spanned<DeValue<'_>>| {
        [key.span(), value.span()].iter().any(|span| span.contains(&place.start))
    };
    let Some(key) = table.iter().find(|(key, value)| is_there(key, value)).map(|(key, _)| key.clone()) else {
        return false;
    };
    let value = table.remove(&key);
    if let (Some(value), Some(meant)) = (value, meant.filter(|name| !table.contains_key(*name))) {
        table.insert(Spanned::new(key.span(), DeString::Owned(meant.to_owned())), value);
    }
    true
}

fn mend_inside(value: &mut DeValue<'_>, place: &Range<usize>, meant: Option<&str>) -> bool {
    match value {
        DeValue::Table(table) => mend(table, place, meant),
        DeValue::Array(list) => list.iter_mut().any(|value| mend_inside(value.get_mut(), place, meant)),
        _ => false,
    }
}
