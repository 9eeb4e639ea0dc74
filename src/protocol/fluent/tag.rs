//! The tag under which a line is sent. Receivers of the Forward protocol route by tags.

use std::fmt;
use std::str::FromStr;

use crate::record::{BadSetting, Record, escape, template};

/// A text in which placeholders such as `{name}` stand for facts of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagTemplate {
    written: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Tag,
    /// A part that other templates have too.
    Other(template::Part),
}

const TAG: &str = "{tag}";
/// Used for an empty tag: Fluentd cannot route events without a tag.
const NONE: &[u8] = b"logferry";

impl TagTemplate {
    /// Appends the tag of a line. Bytes that are not UTF-8 are escaped: Fluentd matches tags with patterns of characters.
    pub fn append(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        let start = out.len();
        for part in &self.parts {
            match part {
                Part::Tag => append_own(record, out),
                Part::Other(template::Part::Text(text)) => out.extend_from_slice(text.as_bytes()),
                Part::Other(template::Part::Field(field)) => append_text(&field.of(record), out),
            }
        }
        if out.len() == start {
            out.extend_from_slice(NONE);
        }
    }
}

/// The tag as the sender wrote it. A container without one gets the tag of Docker's template `{{.ImageName}}/{{.Name}}/{{.ID}}`. Other
/// lines get their APP-NAME.
fn append_own(record: &Record<'_>, out: &mut Vec<u8>) {
    if let Some(tag) = record.tag.as_deref().filter(|tag| !tag.is_empty()) {
        return append_text(tag, out);
    }
    let told = [record.image_name(), record.container_name(), record.container_id().map(short)];
    let start = out.len();
    for part in told.into_iter().flatten().filter(|part| !part.is_empty()) {
        if out.len() > start {
            out.push(b'/');
        }
        append_text(part, out);
    }
    if let (true, Some(name)) = (out.len() == start, record.app_name) {
        append_text(&name.written(), out);
    }
}

/// The digits of an ID that Docker shows.
fn short(id: &[u8]) -> &[u8] {
    &id[..id.len().min(12)]
}

fn append_text(text: &[u8], out: &mut Vec<u8>) {
    match std::str::from_utf8(text) {
        Ok(text) => out.extend_from_slice(text.as_bytes()),
        Err(_) => out.extend_from_slice(escape(text).as_bytes()),
    }
}

impl Default for TagTemplate {
    fn default() -> Self {
        Self { written: TAG.to_owned(), parts: vec![Part::Tag] }
    }
}

impl FromStr for TagTemplate {
    type Err = BadSetting;

    fn from_str(written: &str) -> Result<Self, BadSetting> {
        let mut parts = Vec::new();
        for (place, between) in written.split(TAG).enumerate() {
            parts.extend((place > 0).then_some(Part::Tag));
            parts.extend(template::parts(between).into_iter().map(Part::Other));
        }
        // Only an unknown field leaves a brace in a text.
        if parts.iter().any(|part| matches!(part, Part::Other(template::Part::Text(text)) if text.contains('{'))) {
            return Err(BadSetting::new(format!(
                "in {written:?} is a field that there is not; there are {TAG}, {}",
                template::CHOICES
            )));
        }
        if parts.is_empty() {
            return Err(BadSetting::new("a tag is not empty: write \"docker.{name}\"".to_owned()));
        }
        Ok(Self { written: written.to_owned(), parts })
    }
}

impl fmt::Display for TagTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(template: &str, line: &[u8], expected: &str) {
        let template: TagTemplate = template.parse().expect("a template");
        let mut tag = b"before ".to_vec();
        template.append(&Record::from_line(line, "docker@32473"), &mut tag);
        assert_eq!(String::from_utf8_lossy(&tag), format!("before {expected}"));
    }

    #[test]
    fn fields_are_filled_in() {
        let line = b"<30>1 - n7 web - - [docker@32473 image=\"r:5000/web:1\" name=\"web\" id=\"2a9052a5c36e2a90\"] x";
        check("docker.{name}", line, "docker.web");
        check("{host}.{app}.{image}.{id}", line, "n7.web.r:5000/web:1.2a9052a5c36e2a90");
        check("{tag}", line, "r:5000/web:1/web/2a9052a5c36e");
        check("fixed", line, "fixed");
        check("{tag}", b"<30>1 - n7 web - - [docker@32473 id=\"2a9052a5c36e\"] x", "2a9052a5c36e");
        check("{tag}", b"<30>1 - n7 web - - [logferry@32473 tag=\"a.\xff\" driver=\"fluent\"] x", "a.\\xff");
        check("{tag}/{name}/{id}/{host}", b"<30>1 - - cron - - - x", "cron/cron/-/-");
        check("{tag}", b"<30>1 - - - - - - x", "logferry");
    }

    #[test]
    fn what_is_no_field_is_refused() {
        for bad in ["", "docker.{names}", "{", "{tag", "a{}"] {
            assert!(bad.parse::<TagTemplate>().is_err(), "{bad}");
        }
        assert_eq!("docker.{name}".parse::<TagTemplate>().expect("good").to_string(), "docker.{name}");
        assert_eq!(TagTemplate::default(), "{tag}".parse().expect("good"));
    }
}
