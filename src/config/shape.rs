//! The keys of a `[[forward]]` that change its lines.

use std::ops::Range;

use super::error::{ConfigError, Source};
use super::kinds::{Flag, ListOf, Optional, Special, Together, Words};
use super::rules::PATTERNS;
use super::settings::{Place, defaults, settings};
use super::written::List;
use crate::record::template::AddedField;
use crate::record::{BadSetting, Patterns};
use crate::shape::{Adding, Known, Mask, MaskPattern, Parser, Pattern, Secret, Steps};

/// The maximum number of parsers, which are tried in order.
const MAX_PARSERS: usize = 8;
const MAX_RENAMED: usize = 64;

const PARSERS: Together<Vec<Parser>> =
    Together { read: parsers, display: |parsers| parsers.iter().map(ToString::to_string).collect() };
const PATTERN: Special<Pattern> = Special { read: Pattern::new, display: |pattern| pattern.written().to_owned() };
const FIELD: Special<String> = Special { read: field_name, display: String::clone };
const SEVERITY: Words<bool> = Words(&[("sender", false), ("guess", true)]);

settings! {
    pub struct ShapeSettings, written as WrittenShape {
        /// Forms of the text in which fields are found. The first form that fits is used.
        parse: Vec<Parser> = Vec::new(), as PARSERS, key "parse";
        /// The pattern of `regex`.
        parse_pattern: Option<Pattern> = None, as Optional(PATTERN), key "parse-pattern";
        /// A prefix for the names of parsed fields.
        prefix: Option<String> = None, as Optional(FIELD), key "prefix";
        /// Parsed fields that are kept; empty: all.
        keep: Patterns = Patterns::default(), as PATTERNS, key "keep";
        /// Fields that are left out. They may also be fields that came with the line.
        drop_fields: Patterns = Patterns::default(), as PATTERNS, key "drop-fields";
        /// New names for parsed fields: the old name, then the new one.
        rename: Vec<(String, String)> = Vec::new(), as Together { read: renamed, display: |pairs| pairs.iter().map(|(old, new)| format!("{old}={new}")).collect() }, key "rename".takes_table();
        /// The parsed fields that become the time, the severity and the text of the line.
        time_from: Option<String> = None, as Optional(FIELD), key "time-from";
        severity_from: Option<String> = None, as Optional(FIELD), key "severity-from";
        message_from: Option<String> = None, as Optional(FIELD), key "message-from";
        /// Whether each member of an object becomes a field of its own.
        flatten: bool = false, as Flag, key "flatten";
        /// Whether the severity may be guessed from the beginning of the text.
        guess_severity: bool = false, as SEVERITY, key "severity";
    }
}

const MASK_PATTERN: Special<MaskPattern> =
    Special { read: MaskPattern::new, display: |pattern| pattern.written().to_owned() };

settings! {
    /// A mask.
    pub struct MaskSettings, written as WrittenMask {
        pattern: Option<MaskPattern> = None, as Optional(MASK_PATTERN), key "pattern";
        /// Secrets with a known form.
        known: Vec<Known> = Vec::new(), as ListOf { read: known, display: |secret| secret.word().to_owned() }, key "known";
        /// The text that replaces a secret.
        with: String = "***".to_owned(), as Special { read: |text| Ok(text.to_owned()), display: String::clone }, key "with";
    }
}

settings! {
    /// `[[mask]]`: a mask for all lines.
    pub struct MaskSection, written as WrittenMaskSection {
        at: MaskAt = MaskAt::Forward, as MASK_AT, key "at";
    }
    groups {
        mask: MaskSettings;
    }
}

/// When a `[[mask]]` is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaskAt {
    /// Before a line is spooled.
    Intake,
    /// When a forward sends a line.
    Forward,
}

const MASK_AT: Words<MaskAt> = Words(&[("forward", MaskAt::Forward), ("intake", MaskAt::Intake)]);
/// The maximum number of `[[mask]]` sections: each text is searched for each of them.
const MAX_MASKS: usize = 64;

impl MaskSettings {
    pub fn masks(&self) -> impl Iterator<Item = Mask> {
        let pattern = self.pattern.iter().cloned().map(Secret::Pattern);
        let known = self.known.iter().copied().map(Secret::Known);
        pattern.chain(known).map(|what| Mask { what, with: self.with.clone() })
    }
}

fn known(text: &str) -> Result<Known, String> {
    let found = Known::ALL.iter().find_map(|(word, known)| (*word == text).then_some(*known));
    found.ok_or_else(|| format!("write {}; `pattern` finds anything else", Known::ALL.map(|(word, _)| word).join(", ")))
}

impl ShapeSettings {
    /// The steps of the shape, with these masks, and with these fields to add.
    pub fn steps<'m>(&self, masks: impl Iterator<Item = &'m MaskSettings>, add: Vec<(AddedField, Adding)>) -> Steps {
        Steps {
            parse: self.parse.clone(),
            parse_pattern: self.parse_pattern.clone(),
            prefix: self.prefix.clone(),
            keep: self.keep.clone(),
            rename: self.rename.clone(),
            time_from: self.time_from.clone(),
            severity_from: self.severity_from.clone(),
            message_from: self.message_from.clone(),
            guess_severity: self.guess_severity,
            drop_fields: self.drop_fields.clone(),
            flatten: self.flatten,
            masks: masks.flat_map(MaskSettings::masks).collect(),
            add,
        }
    }
}

impl Default for ShapeSettings {
    fn default() -> Self {
        defaults()
    }
}

/// Notes masks that hide nothing.
pub fn check_masks(sections: &List<WrittenMask>, place: &Place<'_>) -> Result<(), ConfigError> {
    for (span, mask) in &sections.sections {
        check_mask(mask, &place.key("mask"), span, place.source)?;
    }
    Ok(())
}

/// Notes problems of `[[mask]]` sections.
pub fn check_mask_sections(sections: &List<WrittenMaskSection>, source: &Source<'_>) -> Result<(), ConfigError> {
    for (number, (span, section)) in sections.sections.iter().enumerate() {
        check_mask(&section.mask, "[[mask]]", span, source)?;
        if number >= MAX_MASKS {
            source.wrong("[[mask]]", span.clone(), &format!("at most {MAX_MASKS} sections are allowed"))?;
        }
    }
    Ok(())
}

fn check_mask(mask: &WrittenMask, path: &str, span: &Range<usize>, source: &Source<'_>) -> Result<(), ConfigError> {
    if mask.pattern.is_written() || mask.known.is_written() || source.has_gaps.get() {
        return Ok(());
    }
    source.wrong(path, span.clone(), "it says nothing of what to hide; write `pattern` or `known`")
}

/// Notes keys about parsed fields if nothing is parsed.
pub fn check(written: &WrittenShape, settings: &ShapeSettings, place: &Place<'_>) -> Result<(), ConfigError> {
    let has_regex = settings.parse.contains(&Parser::Regex);
    let parses = [
        ("prefix", &written.prefix),
        ("keep", &written.keep),
        ("rename", &written.rename),
        ("time-from", &written.time_from),
        ("severity-from", &written.severity_from),
        ("message-from", &written.message_from),
    ];
    let note = |key: &str, leaf, says: &str| place.source.note(place.source.bad(&place.key(key), leaf, says), ());
    for (key, entry) in parses {
        if let (Some(leaf), true) = (entry.first(), written.parse.first().is_none()) {
            note(key, leaf, "nothing is parsed; write parse = \"json\", or another form, beside it")?;
        }
    }
    match (written.parse_pattern.first(), written.parse.first()) {
        (Some(leaf), _) if !has_regex => note("parse-pattern", leaf, "it is for parse = \"regex\""),
        (None, Some(leaf)) if has_regex => note("parse", leaf, "\"regex\" needs `parse-pattern`"),
        _ => Ok(()),
    }
}

fn parsers(written: Vec<String>) -> Result<Vec<Parser>, BadSetting> {
    if written.len() > MAX_PARSERS {
        return Err(BadSetting::new(format!("at most {MAX_PARSERS} forms are tried")));
    }
    written.iter().map(|text| text.parse().map_err(BadSetting::new)).collect()
}

fn renamed(written: Vec<String>) -> Result<Vec<(String, String)>, BadSetting> {
    if written.len() > MAX_RENAMED {
        return Err(BadSetting::new(format!("at most {MAX_RENAMED} fields are renamed")));
    }
    let pair = |text: &String| {
        let (old, new) = text.split_once('=').ok_or("write rename = { old = \"new\" }")?;
        Ok((field_name(old)?, field_name(new)?))
    };
    written.iter().map(|text| pair(text).map_err(BadSetting::new)).collect()
}

/// Reads the name of a field that every destination can carry.
fn field_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 128 || text.bytes().any(|byte| byte.is_ascii_control()) {
        return Err("a field's name has 1 to 128 bytes, and no control characters".to_owned());
    }
    Ok(text.to_owned())
}
