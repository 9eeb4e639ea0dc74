//! Fields: the names and values of a message beside its text, and the two elements of structured data that carry them.
//!
//! `[fields@32473 name="value" …]` has the fields that RFC 5424 can express. All others are in one JSON object,
//! `[json@32473 fields="{…}"]`, without loss: names that are no PARAM-NAME, numbers, true, false, null, arrays and objects,
//! and texts that newline framing or a reader's UTF-8 decoding would change. In the object a text that is not UTF-8 has
//! `\xHH` for each invalid byte and `\\` for a backslash, and `escaped="[…]"` lists its name.

use std::borrow::Cow;

use super::escaped::{escape, escape_json, has_control, is_plain, unescape};
use super::json::{self, push_text};
use super::json_reader::{self, each_member_within};
use super::structured_data::{Element, is_sd_id, unescape as unescape_param, write_param};

/// The SD-IDs of the two elements. (RFC 5612 reserves 32473 for examples.)
pub const FIELDS_SD_ID: &str = "fields@32473";
pub const JSON_SD_ID: &str = "json@32473";
const JSON_FIELDS: &str = "fields";
const JSON_ESCAPED: &str = "escaped";

/// The maximum number of fields of one record.
pub const MAX_FIELDS: usize = 64;
/// The maximum size of the names and values of one record's fields, in bytes.
pub const MAX_FIELD_BYTES: usize = 16 << 10;
/// The maximum depth of arrays and objects in a value. Some readers of JSON stop at 100, and each relay and each format may
/// add some levels around the value.
const MAX_JSON_DEPTH: usize = 64;

/// The maximum depth of objects whose members become fields. Deeper objects stay JSON.
const MAX_FLATTENED: usize = 8;

/// The fields of one record, in order. The limits are [`MAX_FIELDS`] and [`MAX_FIELD_BYTES`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields<'a> {
    list: Vec<Field<'a>>,
    /// Bytes of all names and values; `bytes <= MAX_FIELD_BYTES`.
    bytes: usize,
    left_out: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    pub name: Cow<'a, str>,
    pub value: Value<'a>,
    /// Whether a param can carry the field, and every reader of lines sees it unchanged.
    is_param: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Text of any bytes, usually UTF-8.
    Text(Cow<'a, [u8]>),
    /// A number, true, false, null, an array or an object.
    Json(Json<'a>),
}

/// JSON on one line that every reader accepts, without blanks between its values. It is never a string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Json<'a>(Cow<'a, str>);

impl<'a> Value<'a> {
    /// Reads a value of JSON. `None`: the text is no JSON. Values that many readers of JSON refuse are changed: a number that
    /// no float can hold becomes a text, half of a surrogate pair becomes U+FFFD, and a value that is nested too deep becomes
    /// a text as a whole.
    pub fn from_json(text: &str) -> Option<Value<'static>> {
        let text = text.trim_matches([' ', '\t', '\n', '\r']);
        if matches!(text, "true" | "false" | "null") {
            return Some(Value::Json(Json(text.to_owned().into())));
        }
        if text.starts_with('"') {
            let text: String = serde_json::from_str(text).ok()?;
            return Some(Value::Text(text.into_bytes().into()));
        }
        serde_json::from_str::<serde::de::IgnoredAny>(text).ok()?;
        Self::of_valid(text)
    }

    /// The value of an object's member, as the JSON reader has found it.
    fn of_member(json: &str) -> Option<Value<'static>> {
        match json.as_bytes().first()? {
            b'"' => Some(Value::Text(json_reader::text(json)?.into_owned().into_bytes().into())),
            b'{' | b'[' => Self::of_valid(json),
            _ if json::is_too_large(json) => Some(Value::Text(json.to_owned().into_bytes().into())),
            _ => Some(Value::Json(Json(json.to_owned().into()))),
        }
    }

    /// Like [`from_json`](Self::from_json), for valid JSON that is no string.
    pub fn of_valid(json: &str) -> Option<Value<'static>> {
        if json::is_too_large(json) || json::depth(json) > MAX_JSON_DEPTH {
            return Some(Value::Text(json.to_owned().into_bytes().into()));
        }
        let mut out = json::readable(json).into_bytes();
        escape_json(&mut out, 0);
        Some(Value::Json(Json(String::from_utf8(out).ok()?.into())))
    }

    /// A text.
    pub fn text(text: Cow<'a, str>) -> Self {
        Self::Text(match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        })
    }

    /// A number, true, false or null, as the JSON reader has found it. `None`: no float can hold the number.
    pub fn scalar(json: &'a str) -> Option<Self> {
        (!json::is_too_large(json)).then_some(Self::Json(Json(json.into())))
    }

    /// JSON of our own that is no string: it has no blanks between its values, no number that no float can hold, no half of a
    /// surrogate pair, and it is not too deep.
    pub fn written(mut json: Vec<u8>) -> Option<Self> {
        escape_json(&mut json, 0);
        Some(Self::Json(Json(String::from_utf8(json).ok()?.into())))
    }

    /// The value with the texts that `change` replaces. `None`: `change` replaces none.
    pub fn with_texts(&self, change: &dyn Fn(&[u8]) -> Option<Vec<u8>>) -> Option<Value<'static>> {
        let in_json = |text: &str| change(text.as_bytes()).and_then(|new| String::from_utf8(new).ok());
        match self {
            Self::Text(text) => change(text).map(|new| Value::Text(new.into())),
            Self::Json(json) => Value::written(json::with_texts(json.as_str(), &in_json)?.into_bytes()),
        }
    }

    /// The text, or the JSON as it is written.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text,
            Self::Json(json) => json.as_str().as_bytes(),
        }
    }

    pub fn into_owned(self) -> Value<'static> {
        match self {
            Self::Text(text) => Value::Text(text.into_owned().into()),
            Self::Json(Json(json)) => Value::Json(Json(json.into_owned().into())),
        }
    }

    fn len(&self) -> usize {
        self.as_bytes().len()
    }
}

impl Json<'_> {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'a> Field<'a> {
    fn new(name: Cow<'a, str>, value: Value<'a>) -> Self {
        let is_text = match &value {
            Value::Text(text) => is_plain(text) || std::str::from_utf8(text).is_ok() && !has_control(text),
            Value::Json(_) => false,
        };
        // Every SD-ID is a legal PARAM-NAME (RFC 5424 6.3.3).
        let is_param = is_text && is_sd_id(&name);
        Self { name, value, is_param }
    }

    fn reborrow(&self) -> Field<'_> {
        let value = match &self.value {
            Value::Text(text) => Value::Text(Cow::Borrowed(text)),
            Value::Json(Json(json)) => Value::Json(Json(Cow::Borrowed(json))),
        };
        Field { name: Cow::Borrowed(&self.name), value, is_param: self.is_param }
    }
}

impl<'a> Fields<'a> {
    /// Adds a field. A field beyond the limits is left out as a whole, and counted.
    pub fn push(&mut self, name: impl Into<Cow<'a, str>>, value: Value<'a>) {
        let name = name.into();
        let bytes = self.bytes + name.len() + value.len();
        if self.list.len() >= MAX_FIELDS || bytes > MAX_FIELD_BYTES {
            return self.leave_out(1);
        }
        self.bytes = bytes;
        self.list.push(Field::new(name, value));
    }

    /// Reserves memory for this many more fields.
    pub fn reserve(&mut self, more: usize) {
        self.list.reserve(more.min(MAX_FIELDS));
    }

    /// Adds a field, and removes earlier fields of its name.
    pub fn set(&mut self, name: impl Into<Cow<'a, str>>, value: Value<'a>) {
        let name = name.into();
        if self.list.iter().any(|known| known.name == name) {
            self.retain(|known| *known != name);
        }
        self.push(name, value);
    }

    /// Removes the fields for which `is_meant` is false. False: no field was removed.
    pub fn retain(&mut self, mut is_meant: impl FnMut(&str) -> bool) -> bool {
        let before = self.list.len();
        self.list.retain(|field| is_meant(&field.name));
        if self.list.len() == before {
            return false;
        }
        self.bytes = self.list.iter().map(|field| field.name.len() + field.value.len()).sum();
        true
    }

    /// Replaces texts of the values by those of `change`. False: no text was replaced.
    pub fn change_texts(&mut self, change: &dyn Fn(&[u8]) -> Option<Vec<u8>>) -> bool {
        let mut is_changed = false;
        for field in &mut self.list {
            let new = field.value.with_texts(change);
            if let Some(new) = new {
                *field = Field::new(std::mem::take(&mut field.name), new);
                is_changed = true;
            }
        }
        if is_changed {
            self.bytes = self.list.iter().map(|field| field.name.len() + field.value.len()).sum();
        }
        is_changed
    }

    /// Is there no point in reading further fields, because the maximum number was kept or left out already?
    pub fn are_full(&self) -> bool {
        self.list.len().max(self.left_out as usize) >= MAX_FIELDS
    }

    /// Adds to the number of fields that were left out.
    pub fn leave_out(&mut self, count: u32) {
        self.left_out = self.left_out.saturating_add(count);
    }

    /// The number of fields that are missing because they exceeded the limits.
    pub fn left_out(&self) -> u32 {
        self.left_out
    }

    /// The fields in the order of a line: those that params can carry come first.
    pub(crate) fn as_written(&self) -> Self {
        let mut fields = self.clone();
        fields.list.sort_by_key(|field| !field.is_param);
        fields
    }

    /// The same fields, borrowed from this list.
    pub fn reborrow(&self) -> Fields<'_> {
        Fields { list: self.list.iter().map(Field::reborrow).collect(), ..*self }
    }

    /// The fields with a zero count of left-out fields.
    pub(crate) fn without_count(&self) -> Self {
        Self { left_out: 0, ..self.clone() }
    }

    /// The fields with `a.b` for each member of an object `a`. Arrays stay as they are, and so do objects whose members would
    /// exceed the limits. Borrowed: there is no object.
    pub fn flattened(&self) -> Cow<'_, Fields<'a>> {
        let is_object = |field: &Field<'_>| matches!(&field.value, Value::Json(json) if json.0.starts_with('{'));
        if !self.list.iter().any(is_object) {
            return Cow::Borrowed(self);
        }
        let mut flat = Fields { left_out: self.left_out, ..Fields::default() };
        let (mut count, mut bytes) = (self.list.len(), self.bytes);
        for field in &self.list {
            let own = field.name.len() + field.value.len();
            let Some(members) = members_of(field) else {
                flat.push(field.name.clone(), field.value.clone());
                continue;
            };
            let larger = members.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() + bytes - own;
            let more = members.len() + count - 1;
            if more > MAX_FIELDS || larger > MAX_FIELD_BYTES {
                flat.push(field.name.clone(), field.value.clone());
                continue;
            }
            (count, bytes) = (more, larger);
            members.into_iter().for_each(|(name, value)| flat.push(name, value));
        }
        Cow::Owned(flat)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Field<'a>> {
        self.list.iter()
    }

    /// The first field with this name.
    pub fn get(&self, name: &str) -> Option<&Field<'a>> {
        self.list.iter().find(|field| field.name == name)
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Reads the fields from the two elements of a line.
    pub(crate) fn read(params: Option<Element<'a>>, json: Option<Element<'a>>) -> Self {
        let mut fields = Self::default();
        for (name, value) in params.into_iter().flat_map(Element::params) {
            // Lossless: `Element` accepts only ASCII for a PARAM-NAME.
            fields.push(String::from_utf8_lossy(name), Value::Text(unescape_param(value)));
        }
        let param = |wanted: &str| {
            let (_, value) = json?.params().find(|(name, _)| *name == wanted.as_bytes())?;
            String::from_utf8(unescape_param(value).into_owned()).ok()
        };
        let Some(object) = param(JSON_FIELDS) else { return fields };
        let mut members = Vec::new();
        let read = each_member_within(MAX_JSON_DEPTH + 1, &object, |name, value| {
            members.push((name, value));
            true
        });
        if read.is_err() {
            return fields;
        }
        let escaped = param(JSON_ESCAPED).and_then(|names| serde_json::from_str::<Vec<String>>(&names).ok());
        let escaped = escaped.unwrap_or_default();
        for (name, value) in members {
            let Some(mut value) = Value::of_member(value) else { continue };
            if let Value::Text(text) = &mut value
                && escaped.iter().any(|escaped| *escaped == name)
            {
                *text = unescape(&String::from_utf8_lossy(text)).into();
            }
            fields.push(name.into_owned(), value);
        }
        fields
    }

    /// Appends the element with the fields that params can carry, if there are any.
    pub(crate) fn write_params(&self, out: &mut Vec<u8>) {
        let mut params = self.list.iter().filter(|field| field.is_param).peekable();
        if params.peek().is_none() {
            return;
        }
        out.push(b'[');
        out.extend_from_slice(FIELDS_SD_ID.as_bytes());
        for Field { name, value, .. } in params {
            let Value::Text(text) = value else { continue };
            write_param(name, text, out);
        }
        out.push(b']');
    }

    /// Appends the element with the other fields, if there are any.
    pub(crate) fn write_json(&self, out: &mut Vec<u8>) {
        let others = || self.list.iter().filter(|field| !field.is_param);
        if others().next().is_none() {
            return;
        }
        let is_bytes = |value: &Value<'_>| matches!(value, Value::Text(text) if std::str::from_utf8(text).is_err());
        let escaped: Vec<&str> = others().filter(|field| is_bytes(&field.value)).map(|field| &*field.name).collect();
        let mut object = Vec::with_capacity(self.bytes + 64);
        object.extend_from_slice(b"{");
        for Field { name, value, .. } in others() {
            if object.len() > 1 {
                object.push(b',');
            }
            push_text(name, &mut object);
            object.push(b':');
            match value {
                Value::Json(json) => object.extend_from_slice(json.as_str().as_bytes()),
                Value::Text(text) if escaped.contains(&&**name) => push_text(&escape(text), &mut object),
                Value::Text(text) => push_text(&String::from_utf8_lossy(text), &mut object),
            }
        }
        object.push(b'}');
        escape_json(&mut object, 0);
        out.push(b'[');
        out.extend_from_slice(JSON_SD_ID.as_bytes());
        write_param(JSON_FIELDS, &object, out);
        if !escaped.is_empty() {
            let mut names = Vec::new();
            json::push(&escaped, &mut names);
            escape_json(&mut names, 0);
            write_param(JSON_ESCAPED, &names, out);
        }
        out.push(b']');
    }
}

/// The members of an object, recursively, with dotted names. `None`: the field is no object, or it has too many members.
fn members_of(field: &Field<'_>) -> Option<Vec<(String, Value<'static>)>> {
    let Value::Json(Json(json)) = &field.value else { return None };
    let mut members = Vec::new();
    append_members(&field.name, json, MAX_FLATTENED, &mut members)?;
    Some(members)
}

/// `None`: the value is no object, or there are too many members.
fn append_members(name: &str, json: &str, depth: usize, members: &mut Vec<(String, Value<'static>)>) -> Option<()> {
    let mut object = Vec::new();
    let read = each_member_within(MAX_JSON_DEPTH + 1, json, |member, value| {
        object.push((format!("{name}.{member}"), value));
        object.len() <= MAX_FIELDS
    });
    read.ok()?;
    if depth == 0 || object.is_empty() {
        members.push((name.to_owned(), Value::of_member(json)?));
    }
    for (member, value) in object.into_iter().filter(|_| depth > 0) {
        match value.starts_with('{') {
            true => append_members(&member, value, depth - 1, members)?,
            false => members.push((member, Value::of_member(value)?)),
        }
    }
    (members.len() <= MAX_FIELDS).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(fields: &Fields<'_>) -> String {
        let mut out = Vec::new();
        fields.write_params(&mut out);
        fields.write_json(&mut out);
        String::from_utf8(out).expect("text")
    }

    fn fields(of: &[(&'static str, &'static [u8])]) -> Fields<'static> {
        let mut fields = Fields::default();
        of.iter().for_each(|(name, text)| fields.push(*name, Value::Text(Cow::Borrowed(text))));
        fields
    }

    #[test]
    fn what_a_param_cannot_say_is_json() {
        assert_eq!(written(&fields(&[("a", b"1"), ("b", b"\"]\\ \t")])), r#"[fields@32473 a="1" b="\"\]\\ 	"]"#);
        let long = "com.amazonaws.ecs.task-definition-family";
        assert_eq!(written(&fields(&[(long, b"web")])), format!(r#"[json@32473 fields="{{\"{long}\":\"web\"}}"]"#));
        assert_eq!(
            written(&fields(&[("a b", b"x"), ("n", b"1\n2\x1b"), ("raw", b"\\\xff")])),
            r#"[json@32473 fields="{\"a b\":\"x\",\"n\":\"1\\n2\\u001b\",\"raw\":\"\\\\\\\\\\\\xff\"}" escaped="[\"raw\"\]"]"#
        );
        let mut numbers = Fields::default();
        for text in ["1.10", " [ true, {\"a b\" : \" \\\" \\n\"} ]", "123456789012345678901234567890", "\"text\""] {
            numbers.push("n", Value::from_json(text).expect("JSON"));
        }
        assert_eq!(
            written(&numbers),
            r#"[fields@32473 n="text"][json@32473 fields="{\"n\":1.10,\"n\":[true,{\"a b\":\" \\\\\" \\\\n\"}\],\"n\":123456789012345678901234567890}"]"#
                .replace(r#"\\\\\" \\\\n"#, r#"\\\" \\n"#)
        );
        let mut names = Fields::default();
        names.push("a\tb", Value::Text(b"x"[..].into()));
        assert_eq!(written(&names), r#"[json@32473 fields="{\"a\\tb\":\"x\"}"]"#);
        for bad in ["", "{", "nul", "1 2", "'a'"] {
            assert_eq!(Value::from_json(bad), None, "{bad}");
        }
    }

    #[test]
    fn objects_are_flattened() {
        let flat = |json: &str| {
            let mut fields = fields(&[("text", b"x")]);
            fields.push("o", Value::from_json(json).expect("JSON"));
            let shown = |field: &Field<'_>| match &field.value {
                Value::Text(text) => format!("{}={:?}", field.name, String::from_utf8_lossy(text)),
                Value::Json(json) => format!("{}={}", field.name, json.as_str()),
            };
            match fields.flattened() {
                Cow::Owned(flat) => Some(flat.iter().map(shown).collect::<Vec<_>>().join(" ")),
                Cow::Borrowed(_) => None,
            }
        };
        let nested = r#"{"b":1.10,"c":{"d":"e","f":[{"g":1}],"h":null},"i":{}}"#;
        assert_eq!(flat(nested).as_deref(), Some(r#"text="x" o.b=1.10 o.c.d="e" o.c.f=[{"g":1}] o.c.h=null o.i={}"#));
        for json in ["[{}]", "1", "\"{}\"", "true"] {
            assert_eq!(flat(json), None, "{json}");
        }
        let deep = format!("{}1{}", "{\"a\":".repeat(12), "}".repeat(12));
        assert_eq!(flat(&deep).as_deref(), Some(r#"text="x" o.a.a.a.a.a.a.a.a={"a":{"a":{"a":{"a":1}}}}"#));
        // Either all members become fields, or none does.
        let members = |count: usize| (0..count).map(|n| format!("\"m{n}\":{n}")).collect::<Vec<_>>().join(",");
        let many = |count: usize| flat(&format!("{{{}}}", members(count))).expect("an object");
        assert!(many(MAX_FIELDS - 1).ends_with("o.m62=62"));
        assert!(many(MAX_FIELDS).starts_with("text=\"x\" o={\"m0\":0,"));
    }

    #[test]
    fn what_is_beyond_the_bounds_is_left_out_whole_and_counted() {
        let mut fields = Fields::default();
        (0..MAX_FIELDS + 3).for_each(|n| fields.push(n.to_string(), Value::Text(b"x"[..].into())));
        assert_eq!((fields.iter().count(), fields.left_out()), (MAX_FIELDS, 3));
        let mut large = Fields::default();
        large.push("a", Value::Text(vec![b'x'; MAX_FIELD_BYTES].into()));
        large.push("b", Value::Text(vec![b'x'; MAX_FIELD_BYTES - 1].into()));
        large.push("c", Value::Text(b""[..].into()));
        let names: Vec<_> = large.iter().map(|field| &*field.name).collect();
        assert_eq!((names, large.left_out()), (vec!["b"], 2));
    }
}
