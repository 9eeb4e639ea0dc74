//! Splits Docker's tag by the template that made it: `nginx:1.25/web/2a9052a5c36e` into image, name and ID.
//!
//! The tag is split from the right. An image reference may contain nearly anything (`registry:5000/team/app:1@sha256:…`), but a name has no
//! `/`, and an ID has a fixed length (moby `daemon/logger/loginfo.go`).

use std::fmt;
use std::str::FromStr;

use memchr::{memchr, memrchr};

use crate::record::{BadSetting, Container};

/// A value of the senders' `tag` log option. Only plain fields and text can be read backwards, not all of Go's templates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagTemplate {
    source: String,
    /// No two fields of variable length touch.
    parts: Vec<Part>,
    /// Whether the template can make tags with a blank. Names, images and IDs have none.
    has_blank: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Field(Field),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Id,
    FullId,
    Name,
    ImageName,
    ImageId,
    ImageFullId,
    Command,
    Hostname,
    DaemonName,
}

const ID_LEN: usize = 12;
const FULL_ID_LEN: usize = 64;
/// Maximum attempts to split a tag. A normal tag takes one per part; the limit stops tags that are made to take long.
const MAX_STEPS: u32 = 256;
/// Longer tags are not split, in bytes. An image reference ends at 327, an ID at 64; only names have no limit.
const MAX_TAG: usize = 2048;

const FIELDS: [(&str, Field); 9] = [
    ("ID", Field::Id),
    ("FullID", Field::FullId),
    ("Name", Field::Name),
    ("ImageName", Field::ImageName),
    ("ImageID", Field::ImageId),
    ("ImageFullID", Field::ImageFullId),
    ("Command", Field::Command),
    ("Hostname", Field::Hostname),
    ("DaemonName", Field::DaemonName),
];

impl TagTemplate {
    /// The parts of `tag`. `None`: the template cannot have made it.
    pub(super) fn fit<'a>(&self, tag: &'a [u8]) -> Option<Container<'a>> {
        let (mut container, mut steps) = (Container::default(), MAX_STEPS);
        (tag.len() <= MAX_TAG && fit(&self.parts, tag, &mut container, &mut steps)).then_some(container)
    }

    /// Whether the template can make tags with a blank.
    pub(super) fn has_blank(&self) -> bool {
        self.has_blank
    }

    /// Whether the template's text contains what looks like the end of a tag, the `[pid]: ` of RFC 3164.
    pub(super) fn has_tag_end(&self) -> bool {
        self.source.contains("]: ")
    }
}

/// Fits `parts` to all of `tag`, the last part first.
fn fit<'a>(parts: &[Part], tag: &'a [u8], found: &mut Container<'a>, steps: &mut u32) -> bool {
    let Some((last, before)) = parts.split_last() else { return tag.is_empty() };
    let Some(left) = steps.checked_sub(1) else { return false };
    *steps = left;
    let mut fit_at = |start: usize, field: Field| {
        let fits = field.takes(&tag[start..]) && fit(before, &tag[..start], found, steps);
        if fits {
            field.tell(&tag[start..], found);
        }
        fits
    };
    let field = match last {
        Part::Text(text) => return tag.strip_suffix(&text[..]).is_some_and(|rest| fit(before, rest, found, steps)),
        Part::Field(field) => *field,
    };
    if let Some(lengths) = field.lengths() {
        return lengths.iter().any(|len| tag.len().checked_sub(*len).is_some_and(|start| fit_at(start, field)));
    }
    match before.last() {
        None => fit_at(0, field),
        // The field can only start after the text before it. The start nearest to the right end is tried first.
        Some(Part::Text(text)) => {
            let Some(end) = text.last() else { return false };
            let mut upto = tag.len();
            while let Some(at) = memrchr(*end, &tag[..upto]) {
                if fit_at(at + 1, field) {
                    return true;
                }
                // If the field cannot contain the byte, no longer piece fits either.
                if !field.may_hold(*end) {
                    return false;
                }
                upto = at;
            }
            false
        }
        // After a field of fixed length the field may start anywhere.
        Some(Part::Field(_)) => (0..tag.len()).rev().any(|start| fit_at(start, field)),
    }
}

impl Field {
    /// The possible lengths; `None`: any.
    fn lengths(self) -> Option<&'static [usize]> {
        match self {
            // Some engines are configured to write the full ID instead of the short one.
            Self::Id => Some(&[ID_LEN, FULL_ID_LEN]),
            Self::FullId => Some(&[FULL_ID_LEN]),
            _ => None,
        }
    }

    fn may_hold(self, byte: u8) -> bool {
        match self {
            Self::Id | Self::FullId => is_lower_hex(&[byte]),
            Self::Name => is_name_byte(byte),
            Self::Command => true,
            _ => byte != b' ',
        }
    }

    fn takes(self, value: &[u8]) -> bool {
        match self {
            Self::Id | Self::FullId => is_lower_hex(value),
            Self::Name => {
                value.first().is_some_and(u8::is_ascii_alphanumeric) && value.iter().all(|b| is_name_byte(*b))
            }
            Self::Command => true,
            _ => !value.is_empty() && memchr(b' ', value).is_none(),
        }
    }

    fn tell<'a>(self, value: &'a [u8], found: &mut Container<'a>) {
        match self {
            Self::Id | Self::FullId => found.id = Some(value.into()),
            Self::Name => found.name = Some(value.into()),
            Self::ImageName => found.image = Some(value.into()),
            Self::ImageId | Self::ImageFullId => _ = found.image.get_or_insert(value.into()),
            Self::Command | Self::Hostname | Self::DaemonName => {}
        }
    }

    fn source(self) -> &'static str {
        FIELDS.iter().find(|(_, field)| *field == self).map_or("", |(name, _)| name)
    }
}

/// moby `daemon/names/names.go`: `[a-zA-Z0-9][a-zA-Z0-9_.-]`.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-')
}

/// Whether a tag is only an ID, as in Docker's default template.
pub(in crate::protocol) fn is_id(tag: &[u8]) -> bool {
    matches!(tag.len(), ID_LEN | FULL_ID_LEN) && is_lower_hex(tag)
}

/// Whether a host name is the short ID that Docker gives a container as its default host name.
pub fn is_container_id(hostname: &str) -> bool {
    hostname.len() == ID_LEN && is_lower_hex(hostname.as_bytes())
}

fn is_lower_hex(text: &[u8]) -> bool {
    text.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

impl FromStr for TagTemplate {
    type Err = BadSetting;

    fn from_str(source: &str) -> Result<Self, BadSetting> {
        let bad = |why: String| BadSetting::new(format!("tag template {source:?}: {why}"));
        if source.is_empty() {
            return Err(bad("is empty; Docker's own default is {{.ID}}, which tells least; {{.ImageName}}/{{.Name}}/{{.ID}} tells most".to_owned()));
        }
        let mut parts = Vec::new();
        let mut rest = source;
        while let Some((text, behind)) = rest.split_once("{{") {
            if !text.is_empty() {
                parts.push(Part::Text(text.as_bytes().to_vec()));
            }
            let Some((action, behind)) = behind.split_once("}}") else {
                return Err(bad("a {{ is not closed by }}".to_owned()));
            };
            let field = FIELDS.iter().find(|(name, _)| action.trim().strip_prefix('.') == Some(name));
            let Some((name, field)) = field else {
                let known: Vec<_> = FIELDS.iter().map(|(name, _)| format!("{{{{.{name}}}}}")).collect();
                return Err(bad(format!(
                    "{{{{{action}}}}} cannot be read back out of a tag; text and these fields can: {}",
                    known.join(" ")
                )));
            };
            if let Some(Part::Field(before)) = parts.last()
                && before.lengths().is_none()
                && field.lengths().is_none()
            {
                return Err(bad(format!(
                    "{{{{.{}}}}} touches {{{{.{name}}}}}, so nobody can tell where one ends; put a character between \
                     them, best a /",
                    before.source()
                )));
            }
            parts.push(Part::Field(*field));
            rest = behind;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.as_bytes().to_vec()));
        }
        let has_blank = parts.iter().any(|part| match part {
            Part::Text(text) => text.contains(&b' '),
            Part::Field(field) => *field == Field::Command,
        });
        Ok(Self { source: source.to_owned(), parts, has_blank })
    }
}

impl fmt::Display for TagTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: &str = "{{.ImageName}}/{{.Name}}/{{.ID}}";
    const FULL: &str = "fa965cc4a0a9845c43020c74d616cb0a8e2fa700944e6f25f548ebf24fe3bd34";

    /// `expected` is image, name, id; `-` for none.
    #[track_caller]
    fn check(template: &str, tag: &str, expected: [&str; 3]) {
        let template: TagTemplate = template.parse().unwrap();
        let container = template.fit(tag.as_bytes()).unwrap_or_default();
        let text =
            |value: Option<&[u8]>| value.map_or("-".to_owned(), |value| String::from_utf8(value.to_vec()).unwrap());
        assert_eq!(
            [text(container.image.as_deref()), text(container.name.as_deref()), text(container.id.as_deref())],
            expected,
            "{tag}"
        );
    }

    #[test]
    fn splits_the_default_from_the_right() {
        let id = "2a9052a5c36e";
        let digest = "registry.local:5000/team/app:1.2.3@sha256:ba4ae76b15b2aa3d5dbac55bcb93e63792699d696950b2cd571dda48acdadc08";
        let cases = [
            ("nginx:1.25", "proj-web-1"),
            ("busybox", "a"),
            ("docker.io/library/nginx:1.25", "proj_web_1"),
            ("registry.local:5000/team/app:1.2.3", "proj-web-1"),
            (digest, "shop_api.1.lxsb8s12r0tax0r5nwhl7zz1p"),
            ("nginx:1.25", "shop_agent.khw88m6iac7hser7vdfs13wrm.r6ez5ix578kfotcmzi7tddyt3"),
            ("sha256:0e540b6fa168aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "web"),
            ("77a4c77c0f6d", "web"),
        ];
        for (image, name) in cases {
            for id in [id, FULL] {
                check(DEFAULT, &format!("{image}/{name}/{id}"), [image, name, id]);
            }
        }
    }

    #[test]
    fn a_tag_that_does_not_fit_is_just_a_tag() {
        let just_tags = [
            "2a9052a5c36e",
            FULL,
            "static",
            "/a//b/",
            "svc:",
            "",
            "nginx/web/2A9052A5C36E",
            "nginx/web/2a9052a5c36",
            "nginx//2a9052a5c36e",
            "/web/2a9052a5c36e",
            "web/2a9052a5c36e",
            "nginx/-web/2a9052a5c36e",
            "ngi nx/web/2a9052a5c36e",
            "2a9052a5c36e0",
        ];
        for tag in just_tags {
            check(DEFAULT, tag, ["-", "-", "-"]);
        }
    }

    #[test]
    fn splits_by_other_templates() {
        check("{{.Name}}", "proj-web-1", ["-", "proj-web-1", "-"]);
        check("{{ .FullID }}", FULL, ["-", "-", FULL]);
        check("{{.Name}}/{{.ImageName}}", "web/reg:5000/team/app:1", ["reg:5000/team/app:1", "web", "-"]);
        check("{{.Name}}{{.ID}}", "web2a9052a5c36e", ["-", "web", "2a9052a5c36e"]);
        check("{{.ID}}{{.Name}}", "2a9052a5c36eweb", ["-", "web", "2a9052a5c36e"]);
        check("{{.Name}}-{{.ID}}", "proj-web-1-2a9052a5c36e", ["-", "proj-web-1", "2a9052a5c36e"]);
        check("docker/{{.ImageName}}|{{.Name}}", "docker/a/b:1|web", ["a/b:1", "web", "-"]);
        check("{{.DaemonName}}/{{.ImageID}}", "docker/sha256:3d4ea", ["sha256:3d4ea", "-", "-"]);
        check("{{.ImageName}}/{{.ImageID}}", "a/b/sha256:3d4ea", ["a/b", "-", "-"]);
        check("my app {{.Name}}", "my app web", ["-", "web", "-"]);
        check(" {{.Name}} ", " web ", ["-", "web", "-"]);
        check("{{.Command}} {{.ID}}", "/bin/sh -c 'x y' 2a9052a5c36e", ["-", "-", "2a9052a5c36e"]);
        check("{{.Hostname}}::{{.Name}}", "a::b::web", ["-", "web", "-"]);
        check("static", "static", ["-", "-", "-"]);
    }

    #[test]
    fn a_tag_made_to_take_long_is_given_up() {
        let template = "x{{.Hostname}}-{{.DaemonName}}-{{.ImageName}}-{{.Command}}";
        check(template, &("-".repeat(2000) + " "), ["-", "-", "-"]);
        check(template, &"-".repeat(60_000), ["-", "-", "-"]);
        check("{{.Name}}", &"a".repeat(2048), ["-", &"a".repeat(2048), "-"]);
        check("{{.Name}}", &"a".repeat(2049), ["-", "-", "-"]);
    }

    #[test]
    fn a_container_s_host_name_is_its_short_id() {
        assert!(is_container_id("2a9052a5c36e"));
        for name in ["2a9052a5c36", "2A9052A5C36E", "node-7", "docker-host1", FULL] {
            assert!(!is_container_id(name), "{name}");
        }
    }

    #[test]
    fn shows_its_source() {
        let default = DEFAULT.parse::<TagTemplate>().unwrap();
        assert_eq!(default.to_string(), DEFAULT);
        assert!("my {{.Name}}".parse::<TagTemplate>().unwrap().has_blank());
        assert!(!default.has_blank());
    }

    #[test]
    fn says_what_is_wrong_with_a_template() {
        let check = |template: &str, expected: &str| {
            let error = template.parse::<TagTemplate>().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("", "is empty");
        check("{{.Name", "not closed");
        check(
            "{{.Nope}}",
            "{{.Nope}} cannot be read back out of a tag; text and these fields can: {{.ID}} {{.FullID}}",
        );
        check("{{if false}}x{{end}}", "{{if false}} cannot be read");
        check("{{(.ExtraAttributes nil).STAGE}}", "cannot be read");
        check("{{.ImageName}}{{.Name}}", "{{.ImageName}} touches {{.Name}}");
    }
}
