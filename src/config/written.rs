//! A config file as it was written: which key has which text, and where it stands. A key that nobody knows is noted and read
//! as the one that was meant, so that what else is wrong comes to light in the same reading; text that is no TOML ends it.
//!
//! A value is kept as the text the user wrote, so that `${VAR}` works in every one of them.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Source};
use super::settings::{Key, Place, Settings};

/// One value, and where it was written.
#[derive(Clone, Debug)]
pub struct Leaf {
    pub text: String,
    pub origin: Origin,
}

#[derive(Clone, Debug)]
pub enum Origin {
    /// Byte range in the file's text.
    File(Range<usize>),
    /// A flag and its variable, named as the user would write them.
    Override(String),
}

impl Leaf {
    pub fn from_override(flag: &str, text: &str) -> Self {
        Self { text: text.to_owned(), origin: Origin::Override(flag.to_owned()) }
    }
}

/// What was written for a key: nothing, one value, or a list of them.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    leaves: Vec<Leaf>,
    is_list: bool,
}

impl Entry {
    pub fn one(leaf: Leaf) -> Self {
        Self { leaves: vec![leaf], is_list: false }
    }

    pub fn list(leaves: Vec<Leaf>) -> Self {
        Self { leaves, is_list: true }
    }

    pub fn is_written(&self) -> bool {
        !self.leaves.is_empty()
    }

    pub fn is_list(&self) -> bool {
        self.is_list
    }

    pub fn first(&self) -> Option<&Leaf> {
        self.leaves.first()
    }

    pub fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }
}

/// The keys of a section as they were written. [`settings!`](super::settings::settings) implements it.
pub trait Written {
    /// Visits each key in the order of the declaration.
    fn each(&self, visit: &mut dyn FnMut(&'static Key, &Entry));

    /// Visits each key, to write to it.
    fn each_mut(&mut self, visit: &mut dyn FnMut(&'static Key, &mut Entry));

    /// Visits the sections inside of it.
    fn each_inside(&mut self, visit: &mut dyn FnMut(&'static str, Inside<'_>));
}

/// A section inside of another.
pub enum Inside<'a> {
    /// `[name]`
    Section(&'a mut dyn Written),
    /// `[[name]]`, and where `or_alone` is true a single table too: `match = { … }`.
    List { list: &'a mut dyn AnyList, or_alone: bool },
}

/// Sections of one name, each with its place in the text.
#[derive(Clone, Default)]
pub struct List<W> {
    pub sections: Vec<(Range<usize>, W)>,
    /// The place in the text where the list was written, if any.
    pub span: Option<Range<usize>>,
}

/// A list of any kind of sections.
pub trait AnyList {
    /// Says that the list was written, even if nothing is in it.
    fn begin(&mut self, span: Range<usize>);

    fn push(&mut self, span: Range<usize>) -> &mut dyn Written;

    /// A section in which nothing is written.
    fn empty(&self) -> Box<dyn Written>;
}

impl<W: Written + Default + 'static> AnyList for List<W> {
    fn begin(&mut self, span: Range<usize>) {
        self.span = Some(span);
    }

    fn push(&mut self, span: Range<usize>) -> &mut dyn Written {
        self.sections.push((span, W::default()));
        let (_, section) = self.sections.last_mut().expect("it was pushed");
        section
    }

    fn empty(&self) -> Box<dyn Written> {
        Box::new(W::default())
    }
}

impl<W> List<W> {
    /// Sections that were written nowhere in the file.
    pub fn unwritten(sections: impl IntoIterator<Item = W>) -> Self {
        Self { sections: sections.into_iter().map(|section| (0..0, section)).collect(), span: None }
    }

    /// Reads the meaning of each section.
    pub fn read<T: Settings<Written = W>>(&self, place: &Place<'_>, name: &str) -> Result<Vec<T>, ConfigError> {
        self.sections.iter().map(|(span, section)| T::read(section, &place.inside(name, span.clone()))).collect()
    }
}

/// Takes the text of a config file apart.
pub fn read(source: &Source<'_>, file: &mut dyn Written) -> Result<(), ConfigError> {
    let table = DeTable::parse(source.text).map_err(|error| source.toml_error(&error))?;
    fill(source, "", table.get_ref(), file)
}

fn fill(source: &Source<'_>, path: &str, table: &DeTable<'_>, section: &mut dyn Written) -> Result<(), ConfigError> {
    for (written, value) in table {
        if let Some(name) = known_name(source, path, written, table, section)? {
            let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            take(source, &path, name, value, section)?;
        }
    }
    Ok(())
}

/// The name under which a key is known: its own, the new one of an old one, or the nearest of one that nobody knows. `None`:
/// there is nothing to be read.
fn known_name(
    source: &Source<'_>,
    path: &str,
    written: &Spanned<std::borrow::Cow<'_, str>>,
    table: &DeTable<'_>,
    section: &mut dyn Written,
) -> Result<Option<&'static str>, ConfigError> {
    let (name, at) = (written.get_ref().as_ref(), written.span());
    let (mut known, mut renamed) = (Vec::new(), None);
    section.each(&mut |key, _| {
        known.push(key.name);
        renamed = renamed.or((key.old_name == Some(name)).then_some(key.name));
    });
    section.each_inside(&mut |name, _| known.push(name));
    let same = known.iter().find(|key| **key == name).copied();
    if same.is_some() {
        return Ok(same);
    }
    let section = if path.is_empty() { String::new() } else { format!("{path}.") };
    if let Some(new) = renamed {
        if table.contains_key(new) {
            let says = format!("it is the old name of `{new}`, which is there too; take `{name}` out");
            source.wrong(&format!("{section}{name}"), at, &says)?;
            return Ok(None);
        }
        source.warn(at, &format!("{section}{name}: its name is `{new}` now; this one is read until logferry 1.0"));
        return Ok(Some(new));
    }
    let nearest = source.unknown_key(name, at, &known)?;
    let meant = nearest.filter(|key| !table.contains_key(*key));
    if meant.is_none() {
        source.has_gaps.set(source.has_gaps.get() || nearest.is_none());
    }
    Ok(meant)
}

fn take(
    source: &Source<'_>,
    path: &str,
    name: &'static str,
    value: &Spanned<DeValue<'_>>,
    section: &mut dyn Written,
) -> Result<(), ConfigError> {
    let mut done = Ok(());
    section.each_mut(&mut |key, entry| {
        // A misspelling of a key may come after another one.
        if key.name == name && !entry.is_written() {
            let found = match value.get_ref() {
                DeValue::Table(table) if key.takes_table => pairs(source, path, value.span(), table),
                _ => leaves(source, path, value),
            };
            match found {
                Ok(found) => *entry = found.unwrap_or_default(),
                Err(end) => done = Err(end),
            }
        }
    });
    section.each_inside(&mut |inside_name, inside| {
        if inside_name == name && done.is_ok() {
            done = fill_inside(source, path, name, value, inside);
        }
    });
    done
}

/// `None`: it is of a kind that no value has, which is noted.
fn leaves(source: &Source<'_>, path: &str, value: &Spanned<DeValue<'_>>) -> Result<Option<Entry>, ConfigError> {
    let bad = |at, says: &str| is_no_value(source, path, at, says);
    let Some(elements) = value.get_ref().as_array() else {
        return match scalar(value.get_ref()) {
            Ok(text) => Ok(Some(Entry::one(Leaf { text, origin: Origin::File(value.span()) }))),
            Err(says) => bad(value.span(), says),
        };
    };
    // Without the key all are meant: nobody may come to that by taking the last one out.
    if elements.is_empty() {
        return bad(value.span(), "an empty list; leave the key out, or name something");
    }
    let mut leaves = Vec::new();
    for element in elements.iter() {
        match scalar(element.get_ref()) {
            Ok(text) => leaves.push(Leaf { text, origin: Origin::File(element.span()) }),
            Err(says) => return bad(element.span(), says),
        }
    }
    Ok(Some(Entry::list(leaves)))
}

/// A table is a list of `name=value`; a name with a list of values is there once for each.
fn pairs(source: &Source<'_>, path: &str, at: Range<usize>, table: &DeTable<'_>) -> Result<Option<Entry>, ConfigError> {
    let mut pairs = Vec::new();
    for (name, value) in table {
        if name.get_ref().contains('=') {
            return is_no_value(source, path, name.span(), "a name has no `=` here");
        }
        let Some(values) = leaves(source, &format!("{path}.{}", name.get_ref()), value)? else { return Ok(None) };
        let pair = |leaf: &Leaf| Leaf { text: format!("{}={}", name.get_ref(), leaf.text), ..leaf.clone() };
        pairs.extend(values.leaves.iter().map(pair));
    }
    if pairs.is_empty() {
        return is_no_value(source, path, at, "an empty table; leave the key out, or name something");
    }
    Ok(Some(Entry::list(pairs)))
}

fn is_no_value(source: &Source<'_>, path: &str, at: Range<usize>, says: &str) -> Result<Option<Entry>, ConfigError> {
    source.has_gaps.set(true);
    source.wrong(path, at, says).map(|()| None)
}

fn scalar(value: &DeValue<'_>) -> Result<String, &'static str> {
    match value {
        DeValue::String(text) => Ok(text.clone().into_owned()),
        DeValue::Boolean(flag) => Ok(flag.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Ok(number.to_string()),
            Err(_) => Err("this number is too large"),
        },
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            Err("write a string, a whole number, true or false")
        }
    }
}

fn fill_inside(
    source: &Source<'_>,
    path: &str,
    name: &str,
    value: &Spanned<DeValue<'_>>,
    inside: Inside<'_>,
) -> Result<(), ConfigError> {
    let bad = |says: String| {
        source.has_gaps.set(true);
        source.note(source.problem(value.span(), &says), ())
    };
    match (inside, value.get_ref()) {
        (Inside::Section(section), DeValue::Table(table)) => fill(source, path, table, section),
        (Inside::Section(_), _) => bad(format!("`{name}` is a section that is there once: write [{name}]")),
        (Inside::List { list, or_alone: true }, DeValue::Table(table)) => {
            list.begin(value.span());
            fill(source, path, table, list.push(value.span()))
        }
        (Inside::List { list, .. }, DeValue::Array(elements)) => {
            list.begin(value.span());
            for element in elements.iter() {
                match element.get_ref() {
                    DeValue::Table(table) => fill(source, path, table, list.push(element.span()))?,
                    _ => bad(format!("`{name}` holds sections: write [[{name}]] for each"))?,
                }
            }
            Ok(())
        }
        (Inside::List { or_alone: true, .. }, _) => {
            bad(format!("`{name}` is a table such as {{ name = \"web-*\" }}, or a list of them"))
        }
        (Inside::List { .. }, _) => bad(format!("`{name}` may be there several times: write [[{name}]] for each")),
    }
}
