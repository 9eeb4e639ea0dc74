//! Templates: texts with fields of a record in braces, for file paths, subjects and the values of added fields. Each user of
//! a template decides which characters a value may have.

use std::borrow::Cow;

use super::{HeaderField, Record};

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Text(String),
    Field(Field),
}

/// The field that a pair of braces names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    Host,
    App,
    Name,
    Image,
    ImageTag,
    Id,
    /// A field of the line, by its full name.
    Label(String),
}

/// The maximum length of a value in a [`Name`], in bytes.
const MAX_FIELD: usize = 128;
/// The maximum length of the text of an [`AddedField`] as it is written, in bytes.
const MAX_ADDED: usize = 1024;

/// A name with fields of a record in it.
pub struct Name {
    parts: Vec<Part>,
    /// Maps each byte of a value to a legal character.
    legal: fn(u8) -> char,
    /// The maximum length of a name, in bytes.
    longest: usize,
}

/// A field that is added to lines: its name, and a template for its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddedField {
    pub name: String,
    written: String,
    parts: Vec<Part>,
}

/// The fields that can be named, except for fields of the line.
pub const FIELDS: [(&str, Field); 6] = [
    ("{host}", Field::Host),
    ("{name}", Field::Name),
    ("{image}", Field::Image),
    ("{image.tag}", Field::ImageTag),
    ("{id}", Field::Id),
    ("{app}", Field::App),
];
const LABEL: &str = "label.";
/// All fields, for error messages.
pub const CHOICES: &str = "{host}, {name}, {image}, {image.tag}, {id}, {app}, {label.NAME}";

/// Splits a template into its parts. Unknown fields are text.
pub fn parts(template: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = template;
    while !rest.is_empty() {
        if let Some((field, behind)) = Field::at_start(rest) {
            parts.push(Part::Field(field));
            rest = behind;
        } else {
            let end = rest.char_indices().skip(1).find(|(_, character)| *character == '{');
            let (text, behind) = rest.split_at(end.map_or(rest.len(), |(at, _)| at));
            parts.push(Part::Text(text.to_owned()));
            rest = behind;
        }
    }
    parts
}

/// A pattern for all results of a template: `*` stands for a field.
pub fn pattern(parts: &[Part]) -> String {
    let part = |part: &Part| match part {
        Part::Text(text) => text.clone(),
        Part::Field(_) => "*".to_owned(),
    };
    parts.iter().map(part).collect()
}

/// What is wrong with the fields of a template, as an error message.
pub fn unknown_field(template: &str) -> Option<String> {
    let mut fields = template.split('{').skip(1).filter_map(|part| part.split_once('}'));
    let (field, _) = fields.find(|(field, _)| Field::named(field).is_none())?;
    Some(no_field(field))
}

fn no_field(name: &str) -> String {
    format!("{{{name}}} is no field; there are {CHOICES}")
}

impl Name {
    pub fn new(template: &str, legal: fn(u8) -> char, longest: usize) -> Self {
        Self { parts: parts(template), legal, longest }
    }

    /// A pattern for all names: `*` stands for a field.
    pub fn pattern(&self) -> String {
        pattern(&self.parts)
    }

    pub fn of(&self, record: &Record<'_>) -> Cow<'_, str> {
        if let [Part::Text(text)] = &self.parts[..] {
            return Cow::Borrowed(text);
        }
        let mut name = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => name.push_str(text),
                Part::Field(field) => {
                    let value = field.of(record);
                    name.extend(value.iter().take(MAX_FIELD).map(|byte| (self.legal)(*byte)));
                }
            }
        }
        let fits = (0..=self.longest.min(name.len())).rev().find(|end| name.is_char_boundary(*end));
        name.truncate(fits.unwrap_or(0));
        Cow::Owned(name)
    }
}

impl Field {
    fn named(name: &str) -> Option<Self> {
        if let Some(label) = name.strip_prefix(LABEL) {
            return (!label.is_empty() && !label.contains('{')).then(|| Self::Label(label.to_owned()));
        }
        FIELDS.iter().find(|(written, _)| written[1..written.len() - 1] == *name).map(|(_, field)| field.clone())
    }

    /// The field at the start of a text, and the rest.
    fn at_start(text: &str) -> Option<(Self, &str)> {
        let (name, behind) = text.strip_prefix('{')?.split_once('}')?;
        Some((Self::named(name)?, behind))
    }

    /// The value of the field, or `-` if the record has none.
    pub fn of<'a>(&self, record: &'a Record<'_>) -> Cow<'a, [u8]> {
        self.value(record).unwrap_or(Cow::Borrowed(b"-"))
    }

    /// The value of the field. `None`: the record has none.
    pub fn value<'a>(&self, record: &'a Record<'_>) -> Option<Cow<'a, [u8]>> {
        let header = |field: Option<HeaderField<'a>>| field.map(|_| HeaderField::or_nil(field));
        let container = |value: Option<&'a [u8]>| value.map(Cow::Borrowed);
        match self {
            Self::Host => header(record.hostname),
            Self::App => header(record.app_name),
            Self::Name => container(record.container_name()).or_else(|| header(record.app_name)),
            Self::Image => container(record.image_name()),
            Self::ImageTag => container(record.image_name().and_then(image_tag)),
            Self::Id => container(record.container_id()),
            Self::Label(name) => Some(Cow::Borrowed(record.fields.get(name)?.value.as_bytes())),
        }
    }
}

impl AddedField {
    /// `value`: the template; `{{` and `}}` stand for braces.
    pub fn new(name: &str, value: &str) -> Result<Self, String> {
        if name.is_empty() || name.len() > MAX_FIELD || name.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(format!(
                "no destination can carry this name; write 1 to {MAX_FIELD} bytes without control characters"
            ));
        }
        if value.len() > MAX_ADDED {
            return Err(format!("the value of a field has at most {MAX_ADDED} bytes here"));
        }
        Ok(Self { name: name.to_owned(), written: value.to_owned(), parts: added_parts(value)? })
    }

    /// The value as it was written.
    pub fn written(&self) -> &str {
        &self.written
    }

    /// The value, if it is the same for all lines.
    pub fn fixed(&self) -> Option<&str> {
        match &self.parts[..] {
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The value for a line. `None`: the line lacks a field of the template, or the value is empty.
    pub fn value(&self, record: &Record<'_>) -> Option<Cow<'_, [u8]>> {
        if let Some(text) = self.fixed() {
            return Some(Cow::Borrowed(text.as_bytes()));
        }
        let mut value = Vec::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => value.extend_from_slice(text.as_bytes()),
                Part::Field(field) => value.extend_from_slice(&field.value(record)?),
            }
        }
        (!value.is_empty()).then_some(Cow::Owned(value))
    }
}

/// Like [`parts`], but doubled braces are text, and an unknown field is an error.
fn added_parts(written: &str) -> Result<Vec<Part>, String> {
    let (mut parts, mut text, mut rest) = (Vec::new(), String::new(), written);
    while let Some(at) = rest.find(['{', '}']) {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        if rest.starts_with("{{.") {
            return Err(format!("{{{{.Name}}}} is a template of Docker's; there are {CHOICES} here"));
        } else if rest.starts_with("{{") || rest.starts_with("}}") {
            text.push_str(&rest[..1]);
            rest = &rest[2..];
        } else if let Some(behind) = rest.strip_prefix('}') {
            text.push('}');
            rest = behind;
        } else if let Some((field, behind)) = Field::at_start(rest) {
            parts.extend(Some(Part::Text(std::mem::take(&mut text))).filter(|part| *part != Part::Text(String::new())));
            parts.push(Part::Field(field));
            rest = behind;
        } else {
            return Err(match rest[1..].split_once('}') {
                Some((name, _)) => format!("{}; a brace is written {{{{", no_field(name)),
                None => format!("a {{ begins no field; there are {CHOICES}, and a brace is written {{{{"),
            });
        }
    }
    text.push_str(rest);
    if !text.is_empty() || parts.is_empty() {
        parts.push(Part::Text(text));
    }
    Ok(parts)
}

/// The tag of an image as it was typed. Without a tag Docker means `latest`, except for a digest or an ID.
fn image_tag(image: &[u8]) -> Option<&[u8]> {
    let name = &image[memchr::memrchr(b'/', image).map_or(0, |at| at + 1)..];
    let (name, digest) = match memchr::memchr(b'@', name) {
        Some(at) => (&name[..at], Some(&name[at..])),
        None => (name, None),
    };
    let is_id = |text: &[u8]| matches!(text.len(), 12 | 64) && text.iter().all(u8::is_ascii_hexdigit);
    match memchr::memchr(b':', name) {
        Some(at) if &name[..at] != b"sha256" => Some(&name[at + 1..]).filter(|tag| !tag.is_empty()),
        None if digest.is_none() && !name.is_empty() && !is_id(name) => Some(b"latest"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] = b"<30>1 - n7 app - - [docker@32473 image=\"r:5000/team/web:1.2\" name=\"web\" id=\"2a9052a5c36e\"][fields@32473 \
        com.example.team=\"core\" empty=\"\"][json@32473 fields=\"{\\\"n\\\":7}\"] x";

    #[track_caller]
    fn check(value: &str, line: &[u8], expected: Option<&str>) {
        let record = Record::from_line(line, "docker@32473");
        let field = AddedField::new("f", value).expect("a template");
        assert_eq!(field.value(&record).map(|value| String::from_utf8_lossy(&value).into_owned()).as_deref(), expected);
    }

    #[test]
    fn values_are_filled_in() {
        check("prod", LINE, Some("prod"));
        check(
            "{image} {image.tag} {name} {host} {id} {app}",
            LINE,
            Some("r:5000/team/web:1.2 1.2 web n7 2a9052a5c36e app"),
        );
        check("{label.com.example.team}/{label.n}", LINE, Some("core/7"));
        check("{{{name}}} } {{}}", LINE, Some("{web} } {}"));
        // A missing field is not an empty text.
        check("a-{label.com.example.Team}", LINE, None);
        check("{label.empty}", LINE, None);
        check("{name}{label.empty}", LINE, Some("web"));
        check("{host}", b"<30>1 - - cron - - - x", None);
        check("{name}", b"<30>1 - - cron - - - x", Some("cron"));
        check("{image.tag}", b"<30>1 - - cron - - - x", None);
    }

    #[test]
    fn the_tag_of_an_image() {
        for (image, expected) in [
            ("web:1.2", Some("1.2")),
            ("r:5000/team/web:1.2", Some("1.2")),
            ("r:5000/web", Some("latest")),
            ("web", Some("latest")),
            ("web:1.2@sha256:0a1b", Some("1.2")),
            ("web@sha256:0a1b", None),
            ("sha256:0a1b", None),
            ("4bcff63911fc", None),
            ("web:", None),
            ("r/", None),
            ("", None),
        ] {
            assert_eq!(image_tag(image.as_bytes()), expected.map(str::as_bytes), "{image}");
        }
    }

    #[test]
    fn what_is_no_field_is_refused() {
        let says = |name: &str, value: &str| AddedField::new(name, value).expect_err("it is refused");
        assert_eq!(says("f", "a {pod}"), format!("{{pod}} is no field; there are {CHOICES}; a brace is written {{{{"));
        for bad in ["{", "a {name", "{label.}", "{label}", "{}", "{label.a{name}}", "{{.Name}}", "{Name}"] {
            assert!(says("f", bad).contains(CHOICES), "{bad}");
        }
        for bad in ["", "a\nb", &"x".repeat(129)] {
            assert!(says(bad, "x").starts_with("no destination can carry this name"), "{bad}");
        }
        assert_eq!(unknown_field("{label.a.b}-{image.tag}-{x"), None);
        assert_eq!(unknown_field("{label.}").as_deref(), Some(&*no_field("label.")));
        assert!(FIELDS.iter().all(|(written, _)| CHOICES.contains(written)));
    }
}
