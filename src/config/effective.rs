//! The effective config: every setting as a user could write it, with defaults filled in. `logferry check --print` prints it.

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::settings::Settings;

/// A section, with its keys in order.
#[derive(Default)]
pub struct Table {
    items: Vec<(&'static str, Item)>,
    left_out: Vec<&'static str>,
}

/// A value or section as it is written.
pub enum Item {
    Text(String),
    Flag(bool),
    Number(u64),
    List(Vec<String>),
    /// The value is not written.
    Nothing,
    Section(Table),
    Sections(Vec<Table>),
}

impl Table {
    pub fn of(settings: &impl Settings) -> Self {
        let mut table = Self::default();
        settings.display(&mut table);
        table
    }

    pub fn value(&mut self, key: &'static str, value: Item) {
        if !self.left_out.contains(&key) {
            self.items.push((key, value));
        }
    }

    pub fn section(&mut self, name: &'static str, settings: &impl Settings) {
        self.items.push((name, Item::Section(Self::of(settings))));
    }

    pub fn list<T: Settings>(&mut self, name: &'static str, settings: &[T]) {
        self.items.push((name, Item::Sections(settings.iter().map(Self::of).collect())));
    }

    /// Leaves out a key that has no effect in this section.
    pub fn leave_out(&mut self, key: &'static str) {
        self.left_out.push(key);
    }

    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("tables of strings, numbers and flags are always TOML")
    }
}

impl Serialize for Table {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (key, item) in &self.items {
            match item {
                Item::Nothing => {}
                Item::List(values) if values.is_empty() => {}
                Item::Sections(tables) if tables.is_empty() => {}
                Item::Text(text) => map.serialize_entry(key, text)?,
                Item::Flag(flag) => map.serialize_entry(key, flag)?,
                Item::Number(number) => map.serialize_entry(key, number)?,
                Item::List(values) => map.serialize_entry(key, values)?,
                Item::Section(table) => map.serialize_entry(key, table)?,
                Item::Sections(tables) => map.serialize_entry(key, tables)?,
            }
        }
        map.end()
    }
}

/// Bytes in the largest unit that divides them: 65536 is 64KiB, 65537 is 65537B.
pub fn displayed_size(bytes: u64) -> String {
    let units = [(1u64 << 50, "PiB"), (1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}
