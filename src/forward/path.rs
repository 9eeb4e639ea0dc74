//! Which file a line goes to: the template of a `file://` target with the message's fields filled in. Pure.
//!
//! Fields come from strangers. Each becomes a harmless part of one file name: whatever a container is called, its file
//! stays below the template's own directories.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use crate::syslog::Line;

/// Bytes of one field in a file name, at the most.
const LONGEST_FIELD: usize = 128;
/// Bytes of a file name: what file systems allow.
const LONGEST_NAME: usize = 255;

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
    longest_field: usize,
}

#[derive(Debug)]
enum Part {
    Text(String),
    Field(Field),
}

#[derive(Clone, Copy, Debug)]
enum Field {
    Host,
    App,
    Name,
    Image,
    Id,
}

/// As they are written between braces; `config` refuses all others.
const FIELDS: [(&str, Field); 5] = [
    ("{host}", Field::Host),
    ("{app}", Field::App),
    ("{name}", Field::Name),
    ("{image}", Field::Image),
    ("{id}", Field::Id),
];

impl PathTemplate {
    pub fn new(path: &Path) -> Self {
        let text = path.to_string_lossy();
        Self { names: text.split('/').filter(|name| !name.is_empty()).map(Name::new).collect() }
    }

    pub fn fill(&self, line: &Line<'_>) -> PathBuf {
        let mut path = String::with_capacity(128);
        for name in &self.names {
            path.push('/');
            for part in &name.parts {
                match part {
                    Part::Text(text) => path.push_str(text),
                    Part::Field(field) => push_harmless(&field.of(line), name.longest_field, &mut path),
                }
            }
        }
        PathBuf::from(path)
    }
}

impl Name {
    fn new(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            if let Some((written, field)) = FIELDS.iter().find(|(written, _)| rest.starts_with(written)) {
                parts.push(Part::Field(*field));
                rest = &rest[written.len()..];
            } else {
                let end = rest.char_indices().skip(1).find(|(_, character)| *character == '{');
                let (text, behind) = rest.split_at(end.map_or(rest.len(), |(at, _)| at));
                parts.push(Part::Text(text.to_owned()));
                rest = behind;
            }
        }
        let text: usize = parts.iter().map(|part| if let Part::Text(text) = part { text.len() } else { 0 }).sum();
        let fields = parts.iter().filter(|part| matches!(part, Part::Field(_))).count();
        let longest_field = (LONGEST_NAME.saturating_sub(text) / fields.max(1)).min(LONGEST_FIELD);
        Self { parts, longest_field }
    }
}

impl Field {
    fn of<'a>(self, line: &'a Line<'_>) -> Cow<'a, [u8]> {
        let container = |value: &'a Option<Cow<'_, [u8]>>, otherwise: &'a [u8]| {
            Cow::Borrowed(value.as_deref().unwrap_or(otherwise))
        };
        match self {
            Self::Host => Cow::Borrowed(line.hostname),
            Self::App => Cow::Borrowed(line.app_name),
            Self::Name => container(&line.container_name, line.app_name),
            Self::Image => container(&line.image_name, b"-"),
            Self::Id => container(&line.container_id, b"-"),
        }
    }
}

/// Letters, digits and `-_.@+=,` stand for themselves, everything else becomes `_`, and nothing starts with a dot: no
/// value can name another directory, hide a file or be empty.
fn push_harmless(value: &[u8], longest: usize, path: &mut String) {
    if value.is_empty() {
        path.push('-');
    }
    for (at, byte) in value.iter().take(longest).enumerate() {
        let harmless = byte.is_ascii_alphanumeric() || b"-_.@+=,".contains(byte);
        let hides = at == 0 && *byte == b'.';
        path.push(if harmless && !hides { char::from(*byte) } else { '_' });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(template: &str, host: &str, image: &str, expected: &str) {
        let line = format!("<30>1 - {host} web - - [docker@32473 image=\"{image}\" name=\"web\" id=\"\"] x");
        let path = PathTemplate::new(Path::new(template)).fill(&Line::parse(line.as_bytes(), "docker@32473"));
        assert_eq!(path, Path::new(expected));
    }

    #[test]
    fn fields_are_filled_in() {
        check("/var/log/{host}/{name}.log", "node-7", "", "/var/log/node-7/web.log");
        check("/logs/{app}-{id}", "h", "", "/logs/web--");
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
    }

    #[test]
    fn no_name_is_too_long_for_a_file_system() {
        let (long, most) = ("x".repeat(254), "x".repeat(125));
        check("/{host}_{image}.log", &long, &long, &format!("/{most}_{most}.log"));
        check("/{host}", &long, "", &format!("/{}", "x".repeat(LONGEST_FIELD)));
    }
}
