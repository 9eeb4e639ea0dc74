//! Settings, declared once: from a list of keys [`settings!`] makes a struct for their meaning, a struct for how they were
//! written, and the conversions. A key's flag, its old name, and whether it needs a restart are declared with the key.

use std::ops::Range;

use super::effective::Table;
use super::error::{ConfigError, Source};
use super::kinds::{Kind, Value};
use super::written::{Entry, Written};

/// A key and its properties, except for its type.
#[derive(Debug)]
pub struct Key {
    pub name: &'static str,
    /// The key's former name, which is accepted until 1.0 with a warning.
    pub old_name: Option<&'static str>,
    /// Whether a running relay cannot change the key.
    pub needs_restart: bool,
    pub flag: Option<Flag>,
    pub only_for: Option<OnlyFor>,
    /// Whether the value may be a table: `{ name = "value" }`.
    pub takes_table: bool,
}

/// A flag and a variable that set a key without a config file.
#[derive(Debug)]
pub struct Flag {
    /// The flag without its hyphens.
    pub name: &'static str,
    pub variable: &'static str,
    /// The placeholder for the flag's value in the help.
    pub value_name: &'static str,
    pub help: &'static str,
}

/// The targets of a forward that use a key.
#[derive(Clone, Copy, Debug)]
pub struct OnlyFor {
    /// The schemes, for error messages.
    pub schemes: &'static str,
    pub uses: fn(&super::ForwardAddress) -> bool,
}

impl Key {
    pub const fn new(name: &'static str) -> Self {
        Self { name, old_name: None, needs_restart: false, flag: None, only_for: None, takes_table: false }
    }

    pub const fn was(self, old_name: &'static str) -> Self {
        Self { old_name: Some(old_name), ..self }
    }

    pub const fn needs_restart(self) -> Self {
        Self { needs_restart: true, ..self }
    }

    pub const fn flag(
        self,
        name: &'static str,
        variable: &'static str,
        value_name: &'static str,
        help: &'static str,
    ) -> Self {
        Self { flag: Some(Flag { name, variable, value_name, help }), ..self }
    }

    pub const fn takes_table(self) -> Self {
        Self { takes_table: true, ..self }
    }

    pub const fn only_for(self, only_for: OnlyFor) -> Self {
        Self { only_for: Some(only_for), ..self }
    }
}

/// The place in a config of the section that is being read.
pub struct Place<'a> {
    pub source: &'a Source<'a>,
    /// The section's name, for example `forward.match`; empty at the top level.
    pub path: String,
    /// The section's range in the text.
    pub span: Range<usize>,
}

impl<'a> Place<'a> {
    pub fn inside(&self, name: &str, span: Range<usize>) -> Self {
        Self { source: self.source, path: self.key(name), span }
    }

    /// The name of a key, with its section in front.
    pub fn key(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Reads the value of a key. The default is used if no value was written. It is also used if the value is invalid, which
    /// is noted.
    pub fn read<T>(&self, name: &str, entry: &Entry, kind: &impl Kind<T>, default: T) -> Result<T, ConfigError> {
        if !entry.is_written() {
            return Ok(default);
        }
        let value = Value { source: self.source, key: &self.key(name), entry };
        kind.read(&value).or_else(|problem| self.source.note(problem, default))
    }
}

/// Settings: the meaning of some keys.
pub trait Settings: Sized {
    /// The keys as they were written.
    type Written: Written + Default;

    /// Reads the keys. A problem is noted, and the default is used instead. An error ends the reading.
    fn read(written: &Self::Written, place: &Place<'_>) -> Result<Self, ConfigError>;

    /// Adds the keys to `table` as a user could write them, in the order of their declaration.
    fn display(&self, table: &mut Table);

    /// Adds the names of changed keys that need a restart.
    fn need_restart(&self, _new: &Self, _section: &str, _changed: &mut Vec<String>) {}
}

/// The settings of an empty config.
pub fn defaults<T: Settings>() -> T {
    let source = Source::new(None, "", &|_| None);
    let place = Place { source: &source, path: String::new(), span: 0..0 };
    T::read(&T::Written::default(), &place).expect("a default is no problem")
}

/// Declares settings: `field: Type = default, as kind, key "name".options();`. `groups` are related keys of the same section,
/// `sections` are `[name]`, `lists` are `[[name]]` (`or_alone`: a single table is also allowed), `derived` are computed from
/// the written keys.
macro_rules! settings {
    (
        $(#[$doc:meta])*
        $visible:vis struct $name:ident, written as $written:ident {
            $(
                $(#[$key_doc:meta])*
                $key:ident: $type:ty = $default:expr,
                    as $kind:expr,
                    key $key_name:literal $(.$option:ident($($argument:expr),* $(,)?))*;
            )*
        }
        $(derived { $( $(#[$derived_doc:meta])* $derived:ident: $derived_type:ty = $derive:expr; )* })?
        $(groups { $( $(#[$group_doc:meta])* $group:ident: $group_type:ty; )* })?
        $(sections { $( $section:ident: $section_type:ty, key $section_name:literal; )* })?
        $(lists { $( $(#[$list_doc:meta])* $list:ident: $list_type:ty, key $list_name:literal, or_alone $alone:literal; )* })?
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        $visible struct $name {
            $( $(#[$key_doc])* pub $key: $type, )*
            $($( $(#[$derived_doc])* pub $derived: $derived_type, )*)?
            $($( $(#[$group_doc])* pub $group: $group_type, )*)?
            $($( pub $section: $section_type, )*)?
            $($( $(#[$list_doc])* pub $list: Vec<$list_type>, )*)?
        }

        /// The section's keys as they were written.
        #[derive(Clone, Default)]
        $visible struct $written {
            $( pub $key: $crate::config::written::Entry, )*
            $($( pub $group: <$group_type as $crate::config::settings::Settings>::Written, )*)?
            $($( pub $section: <$section_type as $crate::config::settings::Settings>::Written, )*)?
            $($( pub $list: $crate::config::written::List<<$list_type as $crate::config::settings::Settings>::Written>, )*)?
        }

        impl $crate::config::written::Written for $written {
            fn each(&self, visit: &mut dyn FnMut(&'static $crate::config::settings::Key, &$crate::config::written::Entry)) {
                $({
                    const KEY: &$crate::config::settings::Key =
                        &$crate::config::settings::Key::new($key_name)$(.$option($($argument),*))*;
                    visit(KEY, &self.$key);
                })*
                $($( self.$group.each(visit); )*)?
            }

            fn each_mut(
                &mut self,
                visit: &mut dyn FnMut(&'static $crate::config::settings::Key, &mut $crate::config::written::Entry),
            ) {
                $({
                    const KEY: &$crate::config::settings::Key =
                        &$crate::config::settings::Key::new($key_name)$(.$option($($argument),*))*;
                    visit(KEY, &mut self.$key);
                })*
                $($( self.$group.each_mut(visit); )*)?
            }

            #[allow(unused_variables)]
            fn each_inside(&mut self, visit: &mut dyn FnMut(&'static str, $crate::config::written::Inside<'_>)) {
                $($( visit($section_name, $crate::config::written::Inside::Section(&mut self.$section)); )*)?
                $($( visit($list_name, $crate::config::written::Inside::List { list: &mut self.$list, or_alone: $alone }); )*)?
            }
        }

        impl $crate::config::settings::Settings for $name {
            type Written = $written;

            fn read(
                written: &$written,
                place: &$crate::config::settings::Place<'_>,
            ) -> Result<Self, $crate::config::error::ConfigError> {
                $($( let $group: $group_type = $crate::config::settings::Settings::read(&written.$group, place)?; )*)?
                $( let $key: $type = place.read($key_name, &written.$key, &$kind, $default)?; )*
                $($( let $derived: $derived_type = ($derive)(written); )*)?
                $($(
                    let inside = place.inside($section_name, 0..0);
                    let $section = $crate::config::settings::Settings::read(&written.$section, &inside)?;
                )*)?
                $($( let $list = written.$list.read(place, $list_name)?; )*)?
                Ok(Self {
                    $( $key, )*
                    $($( $derived, )*)?
                    $($( $group, )*)?
                    $($( $section, )*)?
                    $($( $list, )*)?
                })
            }

            fn display(&self, table: &mut $crate::config::effective::Table) {
                $( table.value($key_name, $crate::config::kinds::Kind::<$type>::display(&$kind, &self.$key)); )*
                $($( $crate::config::settings::Settings::display(&self.$group, table); )*)?
                $($( table.section($section_name, &self.$section); )*)?
                $($( table.list($list_name, &self.$list); )*)?
            }

            #[allow(unused_variables)]
            fn need_restart(&self, new: &Self, section: &str, changed: &mut Vec<String>) {
                $({
                    const KEY: $crate::config::settings::Key =
                        $crate::config::settings::Key::new($key_name)$(.$option($($argument),*))*;
                    if KEY.needs_restart && self.$key != new.$key {
                        changed.push(format!("{section}{}", $key_name));
                    }
                })*
                $($( $crate::config::settings::Settings::need_restart(&self.$group, &new.$group, section, changed); )*)?
                $($(
                    let inside = format!("[{}] ", $section_name);
                    $crate::config::settings::Settings::need_restart(&self.$section, &new.$section, &inside, changed);
                )*)?
            }
        }
    };
}

pub(super) use settings;
