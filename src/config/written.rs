//! A config file as it was written: the text of each key, and its place. An unknown key is noted and read as the nearest
//! known one, in order to find further problems in the same reading. Text that is not TOML ends the reading.
//!
//! Values are kept as the user wrote them, so that `${VAR}` works in all of them.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Source};
use super::settings::{Key, Place, Settings};

/// One value, and its origin.
#[derive(Clone, Debug)]
pub struct Leaf {
    pub text: String,
    pub origin: Origin,
}

#[derive(Clone, Debug)]
pub enum Origin {
    /// The range in the file's text.
    File(Range<usize>),
    /// A flag and its variable, as a user writes them.
    Override(String),
}

impl Leaf {
    pub fn from_override(flag: &str, text: &str) -> Self {
        Self { text: text.to_owned(), origin: Origin::Override(flag.to_owned()) }
    }
}

/// The values of a key: none, one value, or a list.
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

    /// Visits each key for changes.
    fn each_mut(&mut self, visit: &mut dyn FnMut(&'static Key, &mut Entry));

    /// Visits the sections inside this one.
    fn each_inside(&mut self, visit: &mut dyn FnMut(&'static str, Inside<'_>));
}

/// A section inside another.
pub enum Inside<'a> {
    /// `[name]`
    Section(&'a mut dyn Written),
    /// `[[name]]`. If `or_alone` is true, a single table is allowed too: `match = { … }`.
    List { list: &'a mut dyn AnyList, or_alone: bool },
}

/// Sections of one name, each with its place in the text.
#[derive(Clone, Default)]
pub struct List<W> {
    pub sections: Vec<(Range<usize>, W)>,
    /// The range in the text, if the list was written.
    pub span: Option<Range<usize>>,
}

/// A list of any kind of sections.
pub trait AnyList {
    /// Marks the list as written, even if it is empty.
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
    /// Sections that are not in the file.
    pub fn unwritten(sections: impl IntoIterator<Item = W>) -> Self {
        Self { sections: sections.into_iter().map(|section| (0..0, section)).collect(), span: None }
    }

    /// Reads all sections.
    pub fn read<T: Settings<Written = W>>(&self, place: &Place<'_>, name: &str) -> Result<Vec<T>, ConfigError> {
        self.sections.iter().map(|(span, section)| T::read(section, &place.inside(name, span.clone()))).collect()
    }
}

/// Reads the text of a config file.
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

/// The name of a known key: the key itself, the new name of an old one, or the nearest name for an unknown one. `None`: the
/// key is skipped, which has been noted.
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
        // Another misspelling of the key may have set it already.
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

/// Reads one value or a list. `None`: the value has a kind that no key has, which is noted.
fn leaves(source: &Source<'_>, path: &str, value: &Spanned<DeValue<'_>>) -> Result<Option<Entry>, ConfigError> {
    let bad = |at, says: &str| is_no_value(source, path, at, says);
    let Some(elements) = value.get_ref().as_array() else {
        return match scalar(value.get_ref()) {
            Ok(text) => Ok(Some(Entry::one(Leaf { text, origin: Origin::File(value.span()) }))),
            Err(says) => bad(value.span(), says),
        };
    };
    // Without the key everything is allowed. Removing the last entry of a list must not mean that.
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

/// Reads a table as a list of `name=value`. A name with several values is repeated.
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
