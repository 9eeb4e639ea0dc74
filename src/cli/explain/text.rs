//! Formats an explanation as text for people. Control characters of a message are escaped, so that a message cannot drive the
//! terminal.

use super::explanation::{ByteString, Explanation, ForwardOutput, RefusedInput, Understood};
use super::fields::FieldExplanation;
use super::input::ReadAs;
use super::steps::{FoundExplanation, StepsExplanation};
use crate::config::Framing;
use crate::protocol::framing::FoundBy;
use crate::protocol::syslog::Shape;
use crate::record::each_displayable;
use crate::shape::Becomes;

/// SGR codes (ECMA-48 8.3.117).
const BOLD: &str = "1";
const FAINT: &str = "2";
const YELLOW: &str = "33";
const CYAN: &str = "36";

/// Formats an explanation, with colours (SGR codes) or without.
pub fn format(explanation: &Explanation, coloured: bool) -> Vec<u8> {
    let mut writer = TextWriter { out: Vec::new(), coloured };
    let cut = if explanation.cut { ", cut" } else { "" };
    let framed = match (explanation.bytes, explanation.framing) {
        (Some(bytes), Some(framing)) => format!(": {bytes} bytes, {}", found_by(framing)),
        _ => String::new(),
    };
    let heading = format!("message {}{framed}{cut}", explanation.number);
    writer.styled(BOLD, &heading);
    writer.out.push(b'\n');
    writer.fields(explanation);
    for steps in &explanation.steps {
        writer.steps(steps);
        for output in explanation.forwards.iter().filter(|output| output.forward == steps.forward) {
            writer.output(output);
        }
    }
    writer.dropped_and_joined(explanation);
    writer.out.push(b'\n');
    writer.out
}

/// Formats a refusal.
pub fn format_refused(RefusedInput { number, refused, because }: &RefusedInput, coloured: bool) -> Vec<u8> {
    let mut writer = TextWriter { out: Vec::new(), coloured };
    writer.styled(BOLD, &format!("message {number}"));
    writer.out.extend_from_slice(b"\n  ");
    writer.styled(YELLOW, &format!("refused as {refused}"));
    writer.out.extend_from_slice(b": ");
    writer.bytes(because.as_bytes());
    writer.out.extend_from_slice(b"\n\n");
    writer.out
}

struct TextWriter {
    out: Vec<u8>,
    coloured: bool,
}

impl TextWriter {
    fn fields(&mut self, explanation: &Explanation) {
        let Explanation { priority, facility, severity, .. } = explanation;
        self.text_field("understood as", description(explanation.understood_as));
        self.text_field("priority", &format!("{priority} (facility {facility}, severity {severity})"));
        self.field("timestamp", Some(&explanation.timestamp));
        self.label("because");
        self.styled(FAINT, &explanation.timestamp_because);
        self.out.push(b'\n');
        self.field("host", Some(&explanation.host));
        self.field("tag", explanation.tag.as_ref());
        if let (Some(false), Some(tag)) = (explanation.tag_fits, &explanation.tag) {
            self.label("");
            self.out.extend_from_slice(b"tag `");
            self.bytes(&tag.0);
            self.out.extend_from_slice(
                b"` does not fit `tag-template`: which container it is is not known
",
            );
        }
        self.field("image", explanation.image_name.as_ref());
        self.field("container", explanation.container_name.as_ref());
        self.field("container id", explanation.container_id.as_ref());
        self.field("structured data", Some(&explanation.structured_data));
        for field in &explanation.fields {
            self.label("field");
            self.typed(field);
            self.out.push(b'\n');
        }
        if explanation.fields_left_out > 0 {
            self.text_field("fields left out", &explanation.fields_left_out.to_string());
        }
        self.field("message", Some(&explanation.message));
        if explanation.masked {
            self.text_field("", "a [[mask]] at intake has hidden something before the spool");
        }
        if explanation.framing.is_none() {
            self.field("line", Some(&explanation.line));
        }
    }

    fn output(&mut self, output: &ForwardOutput) {
        let framing = match output.framing {
            Some(known) => framing(known),
            None => &output.within,
        };
        let ForwardOutput { forward, to, format, bytes, .. } = output;
        self.out.extend_from_slice(b"  ");
        self.styled(CYAN, &format!("forward {forward}:"));
        self.out.extend_from_slice(format!(" to {to} as {format}, {framing}, {bytes} bytes\n    ").as_bytes());
        self.bytes(&output.output.0);
        self.out.push(b'\n');
    }

    /// Writes the steps of a forward, if there are any.
    fn steps(&mut self, steps: &StepsExplanation) {
        if steps.is_empty() {
            return;
        }
        let StepsExplanation { forward, match_rule, matched_by, .. } = steps;
        self.out.extend_from_slice(b"  ");
        self.styled(CYAN, &format!("forward {forward}:"));
        self.out.extend_from_slice(match steps.filtered {
            true => b" filtered: no rule of its `match` matches\n",
            false => b" step by step\n",
        });
        if let Some(form) = &steps.parsed_as {
            self.step("parsed", |writer| writer.bytes(format!("as {form}").as_bytes()));
        }
        for what in &steps.misread {
            self.step("misread", |writer| writer.bytes(misread(what).as_bytes()));
        }
        for found in &steps.found {
            self.step("found", |writer| writer.found(found));
        }
        if steps.severity_guessed {
            self.step("severity", |writer| writer.bytes(b"guessed from the beginning of the text"));
        }
        for name in &steps.dropped_fields {
            self.step("left out", |writer| writer.bytes(name.as_bytes()));
        }
        if let (Some(number), Some(rule)) = (match_rule, matched_by) {
            self.step("matched", |writer| writer.bytes(format!("by rule {number} of `match`: {rule}").as_bytes()));
        }
        for mask in &steps.masked {
            self.step("masked", |writer| writer.bytes(mask.as_bytes()));
        }
        for field in &steps.added {
            self.step("field added", |writer| writer.typed(field));
        }
    }

    fn step(&mut self, name: &str, value: impl FnOnce(&mut Self)) {
        self.out.extend_from_slice(b"    ");
        self.styled(CYAN, &format!("{name:<13}"));
        self.out.extend_from_slice(b"  ");
        value(self);
        self.out.push(b'\n');
    }

    fn found(&mut self, found: &FoundExplanation) {
        self.typed(&found.field);
        let severity = if found.is_severity { "the severity and " } else { "" };
        let becomes = match &found.becomes {
            Becomes::Time => "the time",
            Becomes::Message => "the text",
            Becomes::Field(_) => "field ",
            Becomes::NotKept => "left out by `keep`",
        };
        self.styled(FAINT, &format!(": {severity}{becomes}"));
        self.bytes(found.becomes_field.as_deref().unwrap_or_default().as_bytes());
    }

    /// Writes a field with its type.
    fn typed(&mut self, field: &FieldExplanation) {
        self.bytes(field.name.as_bytes());
        self.styled(FAINT, &format!(" ({}) ", field.kind));
        self.bytes(field.value.bytes());
    }

    fn dropped_and_joined(&mut self, explanation: &Explanation) {
        if let Some(number) = explanation.joined_to {
            self.out.extend_from_slice(b"  ");
            self.styled(CYAN, &format!("a further line of message {number}, and goes on with it"));
            self.out.push(b'\n');
        }
        if let Some(rule) = &explanation.dropped_by {
            self.out.extend_from_slice(b"  ");
            self.styled(YELLOW, &format!("dropped by [[drop]] {rule}"));
            self.out.push(b'\n');
        }
        if let Some(rule) = &explanation.sampled_by {
            self.out.extend_from_slice(b"  ");
            self.styled(YELLOW, &format!("[[sample]] keeps {rule}"));
            self.out.push(b'\n');
        }
    }

    fn text_field(&mut self, name: &str, value: &str) {
        self.label(name);
        self.out.extend_from_slice(value.as_bytes());
        self.out.push(b'\n');
    }

    fn field(&mut self, name: &str, value: Option<&ByteString>) {
        self.label(name);
        match value {
            Some(value) => self.bytes(&value.0),
            None => self.styled(FAINT, "(none)"),
        }
        self.out.push(b'\n');
    }

    fn label(&mut self, name: &str) {
        self.out.extend_from_slice(b"  ");
        self.styled(CYAN, &format!("{name:<15}"));
        self.out.extend_from_slice(b"  ");
    }

    fn bytes(&mut self, bytes: &[u8]) {
        each_displayable(bytes, |text, is_escape| match is_escape {
            true => self.styled(YELLOW, text),
            false => self.out.extend_from_slice(text.as_bytes()),
        });
    }

    fn styled(&mut self, style: &str, text: &str) {
        let text = if self.coloured { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() };
        self.out.extend_from_slice(text.as_bytes());
    }
}

fn found_by(found_by: FoundBy) -> &'static str {
    match found_by {
        FoundBy::Count => framing(Framing::OctetCounting),
        FoundBy::Line => framing(Framing::Newline),
        FoundBy::Nul => "NUL framing",
    }
}

fn framing(framing: Framing) -> &'static str {
    match framing {
        Framing::OctetCounting => "octet counting",
        Framing::Newline => "newline framing",
        Framing::Nul => "NUL framing",
    }
}

fn description(understood: Understood) -> &'static str {
    match understood {
        Understood::Syslog(Shape::Docker) => "Docker's syslog driver",
        Understood::Syslog(Shape::Rfc5424) => "RFC 5424, carried as it is",
        Understood::Syslog(Shape::Rfc3164) => "RFC 3164",
        Understood::Syslog(Shape::Unknown) => "no syslog header: carried whole",
        Understood::Other(ReadAs::Syslog) => "syslog",
        Understood::Other(ReadAs::Fluent) => "an entry of the Forward protocol",
        Understood::Other(ReadAs::Gelf) => "GELF",
        Understood::Other(ReadAs::Splunk) => "an event of Splunk's HTTP Event Collector",
        Understood::Other(ReadAs::Journal) => "an entry of systemd's journal",
    }
}

/// The text for a word of [`StepsExplanation::misread`].
fn misread(what: &str) -> &'static str {
    match what {
        "form" => "no form of `parse` fits the text",
        "limit" => {
            "not parsed, beyond a limit: the text is too long or too deep, has too many fields, or a number that is too large"
        }
        "duplicate" => "not parsed: a name stands twice in its JSON",
        "time" => "the field of `time-from` is no time",
        "label" => "not parsed: the label `logferry.parse` names no parser",
        _ => "the field of `severity-from` is no severity",
    }
}
