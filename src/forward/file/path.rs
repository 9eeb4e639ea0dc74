//! Fills the fields of a line into the template of a `file://` target, which gives the line's file. Pure.
//!
//! Fields come from untrusted senders. Each becomes a harmless part of one file name: whatever the name of a container, its file
//! stays below the template's own directories.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use crate::record::Record;
use crate::record::template::{Field, Part, parts};

/// The most bytes of one field in a file name.
const MAX_FIELD: usize = 128;
/// The most bytes of a file name in common file systems.
const MAX_NAME: usize = 255;

/// A path, name by name.
#[derive(Debug)]
pub struct PathTemplate {
    names: Vec<Name>,
}

/// One directory's or file's name.
#[derive(Debug)]
struct Name {
    parts: Vec<Part>,
    /// Bytes of each field that fit beside the text.
    max_field: usize,
}

impl PathTemplate {
    pub fn new(path: &Path) -> Self {
        let text = path.to_string_lossy();
        Self { names: text.split('/').filter(|name| !name.is_empty()).map(Name::new).collect() }
    }

    /// Replaces the content of `path` with the path of a line's file.
    pub fn fill(&self, record: &Record<'_>, path: &mut String) {
        self.render(&|field| field.of(record), path);
    }

    /// The one file for all lines that cannot go to a file of their own.
    pub fn of_others(&self) -> PathBuf {
        let mut path = String::new();
        self.render(&|_| Cow::Borrowed(b"_others"), &mut path);
        PathBuf::from(path)
    }

    fn render<'v>(&self, value: &dyn Fn(&Field) -> Cow<'v, [u8]>, path: &mut String) {
        path.clear();
        for name in &self.names {
            path.push('/');
            for part in &name.parts {
                match part {
                    Part::Text(text) => path.push_str(text),
                    Part::Field(field) => push_harmless(&value(field), name.max_field, path),
                }
            }
        }
    }
}

impl Name {
    fn new(text: &str) -> Self {
        let parts = parts(text);
        let text: usize = parts.iter().map(|part| if let Part::Text(text) = part { text.len() } else { 0 }).sum();
        let fields = parts.iter().filter(|part| matches!(part, Part::Field(_))).count();
        let max_field = (MAX_NAME.saturating_sub(text) / fields.max(1)).min(MAX_FIELD);
        Self { parts, max_field }
    }
}

/// Letters, digits and `-_.@+=,` are kept, and every other byte becomes `_`. A dot or a dash at the beginning becomes `_` too. So no
/// value can name another directory, hide a file, be empty, or become an option when a shell expands `*`.
fn push_harmless(value: &[u8], longest: usize, path: &mut String) {
    let value = if value.is_empty() { b"_" } else { value };
    for (at, byte) in value.iter().take(longest).enumerate() {
        let harmless = byte.is_ascii_alphanumeric() || b"_@+=,".contains(byte) || at > 0 && b"-.".contains(byte);
        path.push(if harmless { char::from(*byte) } else { '_' });
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::record::template::FIELDS;
    use crate::record::{Container, HeaderField};

    fn check(template: &str, host: &str, image: &str, expected: &str) {
        let line = format!("<30>1 - {host} web - - [docker@32473 image=\"{image}\" name=\"web\" id=\"\"] x");
        let mut path = "what was there before".to_owned();
        PathTemplate::new(Path::new(template)).fill(&Record::from_line(line.as_bytes(), "docker@32473"), &mut path);
        assert_eq!(path, expected);
    }

    #[test]
    fn fields_are_filled_in() {
        check("/var/log/{host}/{name}.log", "node-7", "", "/var/log/node-7/web.log");
        check("/logs/{app}-{id}", "h", "", "/logs/web-_");
        check("/logs/{image}", "h", "registry.local:5000/team/app:1", "/logs/registry.local_5000_team_app_1");
        check("/plain.log", "h", "", "/plain.log");
        check("/a/{b}/{", "h", "", "/a/{b}/{");
    }

    #[test]
    fn no_field_leaves_its_directory() {
        check("/logs/{host}/x", "..", "", "/logs/_./x");
        check("/logs/{host}/x", "../../etc/passwd", "", "/logs/_._.._etc_passwd/x");
        check("/logs/{host}", ".hidden", "", "/logs/_hidden");
        check("/logs/{host}", "a\\b;c$d", "", "/logs/a_b_c_d");
        // Nor is it an option of `tar -c *` in that directory.
        check("/logs/{host}", "--checkpoint-action=exec=sh", "", "/logs/_-checkpoint-action=exec=sh");
        check("/logs/{image}.log", "h", "-", "/logs/_.log");
    }

    #[test]
    fn no_name_is_too_long_for_a_file_system() {
        let (long, most) = ("x".repeat(254), "x".repeat(125));
        check("/{host}_{image}.log", &long, &long, &format!("/{most}_{most}.log"));
        check("/{host}", &long, "", &format!("/{}", "x".repeat(MAX_FIELD)));
    }

    /// Templates that `config` accepts: names of text and fields, with no more text than a name can have.
    fn template() -> impl Strategy<Value = Vec<String>> {
        let part = prop_oneof![
            select(FIELDS.map(|(written, _)| written.to_owned()).to_vec()),
            "[a-z.{}_-]{1,20}",
            Just("x".repeat(250)),
        ];
        let name = vec(part, 1..4).prop_map(|parts| parts.concat());
        let is_name = |name: &String| name != "." && name != ".." && text_of(name) <= MAX_NAME;
        vec(name.prop_filter("a name of its own", is_name), 1..5)
    }

    fn text_of(name: &str) -> usize {
        let text = |part: &Part| if let Part::Text(text) = part { text.len() } else { 0 };
        Name::new(name).parts.iter().map(text).sum()
    }

    fn value() -> impl Strategy<Value = Vec<u8>> {
        let bits: Vec<&'static [u8]> =
            vec![b"..", b".", b"/", b"\0", b"-", b"--", b"~", b"\n", b"\xff", b"{host}", b"web", &[b'x'; 300]];
        prop_oneof![vec(select(bits), 0..6).prop_map(|bits| bits.concat()), vec(any::<u8>(), 0..300)]
    }

    proptest! {
        #[test]
        fn any_name_stays_below_the_directory(template in template(), values in vec(value(), 5)) {
            let mut record = Record::from_line(b"", "");
            (record.hostname, record.app_name) = (HeaderField::verbatim(&values[0]), HeaderField::verbatim(&values[1]));
            record.container = Some(Container {
                name: (values[2] != b".").then(|| Cow::Borrowed(&values[2][..])),
                image: Some(Cow::Borrowed(&values[3])),
                id: Some(Cow::Borrowed(&values[4])),
            });
            let mut text = String::new();
            PathTemplate::new(Path::new(&format!("/var/log/{}", template.join("/")))).fill(&record, &mut text);
            prop_assert!(!text.contains('\0'));
            let names: Vec<&str> = text.strip_prefix("/var/log/").expect("below").split('/').collect();
            prop_assert_eq!(names.len(), template.len(), "one name stays one: {}", text);
            for (name, template) in names.iter().zip(&template) {
                prop_assert!((1..=MAX_NAME).contains(&name.len()) && !matches!(*name, "." | ".."), "{}", text);
                let starts_with_field = FIELDS.iter().any(|(written, _)| template.starts_with(written));
                prop_assert!(!starts_with_field || !name.starts_with(['.', '-']) || text_of(template) == MAX_NAME, "{}", text);
            }
        }
    }
}
