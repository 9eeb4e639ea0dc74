//! How a forward changes a line before it is sent. The steps: find fields in the text, and take time, severity and text from
//! them; match the line against `match`; mask secrets; add fields. All of it is pure, and runs when the line is sent: the
//! spool keeps the line as it was received.
//!
//! In reading order:
//!
//! - here: [`Shape`], the steps in their order
//! - `parse`: the forms of a text; `json`, `logfmt`, `pattern`: one parser each
//! - `label`: the parser that a container has chosen
//! - `mask`: secrets that are hidden
//! - `time`: the time in a field
//! - `severity`: the severity in a field, or at the beginning of a text
//! - `trace`: the steps of one line, for `logferry explain`
//! - `properties`: the properties that hold for any text of a container

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

/// The field that keeps the sender's severity when another severity replaces it.
pub const ORIGINAL_SEVERITY: &str = "original_severity";

/// The settings of each step, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// Forms of the text in which fields are found. The first form that fits is used.
    pub parse: Vec<Parser>,
    /// The pattern of [`Parser::Regex`].
    pub parse_pattern: Option<Pattern>,
    /// A prefix for the names of parsed fields.
    pub prefix: Option<String>,
    /// Parsed fields that are kept; empty: all.
    pub keep: Patterns,
    /// New names for parsed fields: the old name, then the new one.
    pub rename: Vec<(String, String)>,
    /// The parsed fields that become the time, the severity and the text of the line.
    pub time_from: Option<String>,
    pub severity_from: Option<String>,
    pub message_from: Option<String>,
    /// Whether the severity may be guessed from the beginning of the text.
    pub guess_severity: bool,
    /// Whether each member of an object becomes a field of its own, `a.b`, also for a destination that could keep the object.
    pub flatten: bool,
    /// Fields that are left out. They may also be fields that came with the line.
    pub drop_fields: Patterns,
    /// Masks for the text and the fields.
    pub masks: Vec<Mask>,
    /// Fields that are added, in this order.
    pub add: Vec<(AddedField, Adding)>,
}

/// When a field is added to a line, and how a field of the line with the same name is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adding {
    /// The field is added only to lines that lack it.
    IfMissing,
    /// The field replaces the line's own.
    Always,
    /// The store keeps the value beside the lines. The line's own field is left out.
    ByTheStore,
}

/// The shape of a forward: the changes to its lines.
#[derive(Clone, Debug)]
pub struct Shape {
    steps: Steps,
    /// The rules of `match`: a line passes when one of them matches; empty: all lines pass.
    matches: Vec<Rule>,
    options: LineOptions,
    /// Whether the steps are empty, so that lines are sent as they are.
    changes_nothing: bool,
    /// The parsers for lines of containers that choose none.
    parsers: Vec<Parser>,
    /// `None`: no container may choose.
    choices: Option<Choices>,
}

/// Fields to add to a line, with their values.
type Added<'a> = Vec<(&'a AddedField, Adding, Cow<'a, [u8]>)>;

/// The result for a line.
#[derive(Debug, PartialEq, Eq)]
pub enum Shaped {
    /// No rule of the forward's `match` matches.
    Filtered,
    /// The line is sent as it is.
    AsItIs,
    /// The line was rewritten.
    Changed,
}

/// Counts of lines that could not be read as the settings say. The lines are sent all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Misread {
    /// No parser fits the text.
    pub form: u64,
    /// The text has the form, but exceeds a limit: too many fields, too deep, or a number that no float can hold.
    pub limit: u64,
    /// A JSON object has a repeated name.
    pub duplicate: u64,
    /// The field of `time-from` holds no time.
    pub time: u64,
    /// The field of `severity-from` holds no severity.
    pub severity: u64,
    /// The container's label names no parser.
    pub label: u64,
}

/// Counts of misread and masked lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub misread: Misread,
    /// Lines in which a mask has hidden something.
    pub masked: u64,
}

impl Misread {
    /// The counts with their reasons.
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
    /// `sd_id`: the SD-ID of the element with image, name and ID.
    pub fn new(steps: Steps, matches: Vec<Rule>, sd_id: &str) -> Self {
        // If the line is to have the sender's address, it has it already.
        let options = LineOptions { sd_id: sd_id.to_owned(), peer: false };
        let changes_nothing = steps == Steps::default();
        let (labels, parsers): (Vec<_>, Vec<_>) =
            steps.parse.iter().cloned().partition(|parser| *parser == Parser::Label);
        let choices = (!labels.is_empty()).then(|| Choices::new(steps.parse_pattern.is_some()));
        Self { steps, matches, options, changes_nothing, parsers, choices }
    }

    /// A shape that filters by rules and changes nothing.
    pub fn of_rules(matches: Vec<Rule>, sd_id: &str) -> Self {
        Self::new(Steps::default(), matches, sd_id)
    }

    /// A shape that only masks; `None`: there are no masks.
    pub fn of_masks(masks: Vec<Mask>, sd_id: &str) -> Option<Self> {
        let steps = Steps { masks, ..Steps::default() };
        (!steps.masks.is_empty()).then(|| Self::new(steps, Vec::new(), sd_id))
    }

    /// Does it send lines as they are?
    pub fn changes_nothing(&self) -> bool {
        self.changes_nothing
    }

    /// Do all lines pass?
    pub fn means_all(&self) -> bool {
        self.matches.is_empty()
    }

    pub fn sd_id(&self) -> &str {
        &self.options.sd_id
    }

    /// Appends the changed line. Nothing is appended unless the result is [`Shaped::Changed`].
    pub fn apply(&self, line: &[u8], out: &mut Vec<u8>, tally: &mut Tally) -> Shaped {
        self.shape(&self.matches, line, out, tally, None)
    }

    /// Like [`Shape::apply`], without asking `match`: the line passes for certain.
    pub fn apply_to_all(&self, line: &[u8], out: &mut Vec<u8>, tally: &mut Tally) -> Shaped {
        self.shape(&[], line, out, tally, None)
    }

    /// Like [`Shape::apply`], and notes each step.
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
        // Malformed structured data has no place for a field, and the text begins with it.
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
        // Without rules every line passes.
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
            // A value from the line may hold a secret. The config's own text holds none.
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

    /// Parses the text and changes the record. Returns whether the record has changed, the new text if there is one, and the
    /// fields to add.
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
            && let Cow::Owned(flat) = record.fields.flattened()
        {
            record.fields = flat;
            is_changed = true;
        }
        // Values are computed before fields are left out, so that a label can be dropped and go on under a shorter name.
        let value = |(field, adding): &'a (AddedField, Adding)| Some((field, *adding, field.value(record)?));
        let added = add.iter().filter_map(value).collect();
        // This includes fields that came with the line.
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

    /// The parsers for a line's text, and whether the label that chose them was taken out.
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

    /// Stores the parsed fields as the settings say. Returns the value that becomes the text.
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
        // One more, because the sender's severity may become a field too.
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

/// Sets the severity. The sender's own is kept in a field.
fn set_severity(record: &mut Record<'_>, severity: u8) {
    let own = SEVERITIES[usize::from(record.severity)];
    record.fields.set(ORIGINAL_SEVERITY, Value::Text(Cow::Borrowed(own.as_bytes())));
    record.severity = severity;
}
