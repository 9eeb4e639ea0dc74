//! What a forward makes of a line before it is sent: fields are found in its text, and time, severity and text may be taken from
//! them; `match` is asked; secrets are hidden; fields are added. Pure, and asked when the line is sent: the spool has what was said.
//!
//! In reading order:
//!
//! - here: [`Shape`], the steps in their order
//! - `parse`: which forms a text may have; `json`, `logfmt`, `pattern`: one each
//! - `label`: which of them a container has chosen
//! - `mask`: what is hidden
//! - `time`: a field that is a time
//! - `severity`: a field, or the beginning of a text, that is a severity
//! - `trace`: what was done to one line, for `logferry explain`
//! - `properties`: what must hold for whatever a container prints

mod json;
mod label;
mod logfmt;
mod mask;
mod parse;
mod pattern;
pub mod properties;
mod severity;
mod time;
mod trace;

pub use mask::{Known, Mask, MaskPattern, Secret};
pub use parse::{Parser, Pattern, parse as find_fields};
pub use trace::{Becomes, Found, Trace};

use std::borrow::Cow;
use std::cell::RefCell;

use label::{Choice, Choices};

use crate::record::template::AddedField;
use crate::record::{LineOptions, Patterns, Record, Rule, SEVERITIES, StructuredData, Value};
use trace::Traced;

/// The field that keeps the severity of the sender, where another one takes its place.
pub const ORIGINAL_SEVERITY: &str = "original_severity";

/// What is asked of a forward's lines, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// Forms of the text in which fields are found; the first that fits.
    pub parse: Vec<Parser>,
    /// For [`Parser::Regex`].
    pub parse_pattern: Option<Pattern>,
    /// In front of the names of parsed fields.
    pub prefix: Option<String>,
    /// Parsed fields that are kept; none named: all.
    pub keep: Patterns,
    /// Parsed fields with other names, the old one and the new one.
    pub rename: Vec<(String, String)>,
    /// Parsed fields that become the time, the severity and the text of the line.
    pub time_from: Option<String>,
    pub severity_from: Option<String>,
    pub message_from: Option<String>,
    /// Whether the beginning of the text may say the severity.
    pub guess_severity: bool,
    /// Whether a member of an object becomes a field of its own, `a.b`, also where the destination keeps objects.
    pub flatten: bool,
    /// Fields that are left out, also those that came with the line.
    pub drop_fields: Patterns,
    /// What is hidden in texts and fields.
    pub masks: Vec<Mask>,
    /// Fields that are added, in this order.
    pub add: Vec<(AddedField, Adding)>,
}

/// When a field is added to a line, and what becomes of one with its name that the line has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adding {
    /// It is added where the line has none.
    IfMissing,
    /// It takes the place of that one.
    Always,
    /// The store has it beside the lines; that one is left out.
    ByTheStore,
}

/// What a forward makes of lines.
#[derive(Clone, Debug)]
pub struct Shape {
    steps: Steps,
    /// Only lines that match one of these are meant; none: all lines.
    matches: Vec<Rule>,
    options: LineOptions,
    /// Lines are sent as they are.
    changes_nothing: bool,
    /// Forms of the texts of containers that choose none.
    parsers: Vec<Parser>,
    /// `None`: no container may choose.
    choices: Option<Choices>,
}

/// Fields that are to be added to a line, with their values.
type Added<'a> = Vec<(&'a AddedField, Adding, Cow<'a, [u8]>)>;

/// What has become of a line.
#[derive(Debug, PartialEq, Eq)]
pub enum Shaped {
    /// The forward's `match` does not mean it.
    Filtered,
    /// It is sent as it is.
    AsItIs,
    /// It was written anew.
    Changed,
}

/// Lines that could not be understood as the settings say. They are carried all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Misread {
    /// No parser fits the text.
    pub form: u64,
    /// It fits, and is beyond the limits: too many fields, too deep, a number that nobody can hold.
    pub limit: u64,
    /// A name stands twice in an object of JSON.
    pub duplicate: u64,
    /// The field of `time-from` is no time.
    pub time: u64,
    /// The field of `severity-from` is no severity.
    pub severity: u64,
    /// The label by which a container chooses names no parser.
    pub label: u64,
}

/// What became of lines, beside what was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub misread: Misread,
    /// Lines in which something was hidden.
    pub masked: u64,
}

impl Misread {
    /// Each with its word.
    pub fn counts(&self) -> [(&'static str, u64); 6] {
        let Self { form, limit, duplicate, time, severity, label } = *self;
        [
            ("form", form),
            ("limit", limit),
            ("duplicate", duplicate),
            ("time", time),
            ("severity", severity),
            ("label", label),
        ]
    }
}

impl Shape {
    /// `sd_id`: under which image, name and ID are found in a line.
    pub fn new(steps: Steps, matches: Vec<Rule>, sd_id: &str) -> Self {
        // The address of the sender is in the line, if it is to be there.
        let options = LineOptions { sd_id: sd_id.to_owned(), peer: false };
        let changes_nothing = steps == Steps::default();
        let (labels, parsers): (Vec<_>, Vec<_>) =
            steps.parse.iter().cloned().partition(|parser| *parser == Parser::Label);
        let choices = (!labels.is_empty()).then(|| Choices::new(steps.parse_pattern.is_some()));
        Self { steps, matches, options, changes_nothing, parsers, choices }
    }

    /// One that changes nothing.
    pub fn of_rules(matches: Vec<Rule>, sd_id: &str) -> Self {
        Self::new(Steps::default(), matches, sd_id)
    }

    /// One that only hides; `None`: there is nothing to hide.
    pub fn of_masks(masks: Vec<Mask>, sd_id: &str) -> Option<Self> {
        let steps = Steps { masks, ..Steps::default() };
        (!steps.masks.is_empty()).then(|| Self::new(steps, Vec::new(), sd_id))
    }

    /// Does it send lines as they are?
    pub fn changes_nothing(&self) -> bool {
        self.changes_nothing
    }

    /// Does it mean all lines?
    pub fn means_all(&self) -> bool {
        self.matches.is_empty()
    }

    pub fn sd_id(&self) -> &str {
        &self.options.sd_id
    }

    /// Appends what becomes of a line, where that is another one.
    pub fn apply(&self, line: &[u8], out: &mut Vec<u8>, tally: &mut Tally) -> Shaped {
        self.shape(&self.matches, line, out, tally, None)
    }

    /// The same of a line that is meant for sure.
    pub fn apply_to_all(&self, line: &[u8], out: &mut Vec<u8>, tally: &mut Tally) -> Shaped {
        self.shape(&[], line, out, tally, None)
    }

    /// As [`Shape::apply`]. Each step is noted.
    pub fn trace(&self, line: &[u8], out: &mut Vec<u8>, tally: &mut Tally, trace: &mut Trace) -> Shaped {
        self.shape(&self.matches, line, out, tally, Some(trace))
    }

    fn shape(
        &self,
        matches: &[Rule],
        line: &[u8],
        out: &mut Vec<u8>,
        tally: &mut Tally,
        mut traced: Traced<'_>,
    ) -> Shaped {
        let mut record = Record::from_line(line, self.sd_id());
        // What cannot be read has no place for a field, and its text is what stands there.
        let has_fields = record.structured_data != StructuredData::Malformed;
        let (mut is_changed, text, added) = match has_fields && !self.changes_nothing {
            true => self.change(&mut record, &mut tally.misread, &mut traced),
            false => (false, None, Vec::new()),
        };
        let mut record = Record { message: text.as_deref().or(record.message), ..record };
        let matched = matches.iter().position(|rule| rule.matches(&record));
        if let Some(trace) = &mut traced {
            trace.matched = matched;
        }
        // No rules let everything pass.
        if matched.is_none() && !matches.is_empty() {
            return Shaped::Filtered;
        }
        let masks = &self.steps.masks;
        let on_hit = RefCell::new(traced);
        let hide = |text: &[u8]| {
            mask::hide(masks, text, &|mask| {
                if let Some(trace) = &mut *on_hit.borrow_mut() {
                    trace.masked_by(mask);
                }
            })
        };
        let hidden = record.message.filter(|_| !masks.is_empty()).and_then(hide);
        let hides = hidden.is_some() | (!masks.is_empty() && record.fields.change_texts(&hide));
        tally.masked += u64::from(hides);
        is_changed |= hides;
        let mut record = Record { message: hidden.as_deref().or(record.message), ..record };
        for (field, adding, value) in added {
            // What comes from the line may be a secret; the config's own text is none.
            let value = if field.fixed().is_none() { hide(&value).map_or(value, Cow::Owned) } else { value };
            if add(field, adding, value, &mut record) {
                is_changed = true;
                if let (Some(trace), Some(added)) = (&mut *on_hit.borrow_mut(), record.fields.get(&field.name)) {
                    trace.added.push((field.name.clone(), added.value.clone().into_owned()));
                }
            }
        }
        if !is_changed {
            return Shaped::AsItIs;
        }
        record.write_line(&self.options, out);
        Shaped::Changed
    }

    /// Parsed fields, and what is taken from them: whether the record is another one now, the text that takes the place of its own, and the
    /// fields that are to be added.
    fn change<'a>(
        &'a self,
        record: &mut Record<'a>,
        misread: &mut Misread,
        traced: &mut Traced<'_>,
    ) -> (bool, Option<Cow<'a, [u8]>>, Added<'a>) {
        let Steps { parse_pattern, guess_severity, drop_fields, add, .. } = &self.steps;
        let (parsers, mut is_changed) = self.parsers_of(record, misread);
        let mut text = None;
        if !parsers.is_empty() {
            match parse::parse(parsers, parse_pattern.as_ref(), record.message.unwrap_or_default()) {
                Ok((parser, found)) => {
                    if let Some(trace) = traced {
                        trace.parsed_as = Some(parser.to_string());
                    }
                    is_changed |= !found.is_empty();
                    text = self.take(found, record, misread, traced);
                }
                Err(parse::Unread::Form) => misread.form += 1,
                Err(parse::Unread::Limit) => misread.limit += 1,
                Err(parse::Unread::Duplicate) => misread.duplicate += 1,
            }
        }
        if *guess_severity
            && let Some(severity) = severity::guess(record.message.unwrap_or_default())
            && severity != record.severity
        {
            set_severity(record, severity);
            is_changed = true;
            if let Some(trace) = traced {
                trace.is_severity_guessed = true;
            }
        }
        if self.steps.flatten
            && let Some(flat) = record.fields.flattened()
        {
            record.fields = flat;
            is_changed = true;
        }
        // Before fields are left out: a label may go on under a shorter name.
        let value = |(field, adding): &'a (AddedField, Adding)| Some((field, *adding, field.value(record)?));
        let added = add.iter().filter_map(value).collect();
        // Also those that came with the line.
        if !drop_fields.is_empty() {
            is_changed |= record.fields.retain(|name| {
                let is_dropped = drop_fields.match_bytes(name.as_bytes());
                if let Some(trace) = traced.as_deref_mut().filter(|_| is_dropped) {
                    trace.dropped_fields.push(name.to_owned());
                }
                !is_dropped
            });
        }
        (is_changed, text, added)
    }

    /// The forms that a line's text may have, and whether a label that chose them was taken out.
    fn parsers_of(&self, record: &mut Record<'_>, misread: &mut Misread) -> (&[Parser], bool) {
        let chosen = match self.choices.as_ref().and_then(|choices| choices.choice(&record.fields)) {
            None => return (&self.parsers, false),
            Some(Choice::Unknown) => {
                misread.label += 1;
                return (&[], false);
            }
            Some(Choice::Nothing) => &[],
            Some(Choice::Parser(parser)) => std::slice::from_ref(parser),
        };
        (chosen, label::take_out(&mut record.fields))
    }

    /// Parsed fields go where the settings say. Returns the one that becomes the text.
    fn take<'a>(
        &'a self,
        found: parse::Found<'a>,
        record: &mut Record<'a>,
        misread: &mut Misread,
        traced: &mut Traced<'_>,
    ) -> Option<Cow<'a, [u8]>> {
        let Steps { prefix, keep, rename, message_from, time_from, severity_from, masks, .. } = &self.steps;
        let is = |name: &str, key: &Option<String>| key.as_deref() == Some(name);
        let mut text = None;
        // The severity of the sender may come with them.
        record.fields.reserve(found.len() + 1);
        for (name, value) in found {
            let mut noted = traced.as_deref_mut().map(|trace| trace.found(&name, &value, masks));
            if is(&name, time_from) {
                match time::read(&value, record) {
                    Some((stamp, nanoseconds)) => {
                        (record.timestamp, record.nanoseconds, record.unread_stamp) = (Some(stamp), nanoseconds, None);
                        trace::becomes(noted, || Becomes::Time);
                        continue;
                    }
                    None => misread.time += 1,
                }
            }
            if is(&name, severity_from) {
                match severity::of_value(&value) {
                    Some(severity) => {
                        if severity != record.severity {
                            set_severity(record, severity);
                        }
                        if let Some(found) = &mut noted {
                            found.is_severity = true;
                        }
                    }
                    None => misread.severity += 1,
                }
            }
            let value = match value {
                Value::Text(new) if is(&name, message_from) => {
                    text = Some(new);
                    trace::becomes(noted, || Becomes::Message);
                    continue;
                }
                value => value,
            };
            if !keep.is_empty() && !keep.match_bytes(name.as_bytes()) {
                trace::becomes(noted, || Becomes::NotKept);
                continue;
            }
            let name = match rename.iter().find(|(old, _)| *old == name) {
                Some((_, new)) => Cow::Borrowed(new.as_str()),
                None => match prefix {
                    Some(prefix) => Cow::Owned(format!("{prefix}{name}")),
                    None => name,
                },
            };
            trace::becomes(noted, || Becomes::Field(name.to_string()));
            record.fields.set(name, value);
        }
        text
    }
}

/// Adds a field. False: the record is as it was.
fn add<'a>(field: &'a AddedField, adding: Adding, value: Cow<'a, [u8]>, record: &mut Record<'a>) -> bool {
    match adding {
        Adding::IfMissing if record.fields.get(&field.name).is_some() => return false,
        Adding::ByTheStore => return record.fields.retain(|name| name != field.name),
        Adding::IfMissing | Adding::Always => {}
    }
    record.fields.set(field.name.as_str(), Value::Text(value));
    true
}

/// The sender's own stays in a field.
fn set_severity(record: &mut Record<'_>, severity: u8) {
    let own = SEVERITIES[usize::from(record.severity)];
    record.fields.set(ORIGINAL_SEVERITY, Value::Text(Cow::Borrowed(own.as_bytes())));
    record.severity = severity;
}
