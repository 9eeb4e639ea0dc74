//! The templates of the senders' tags, tried in turn.

use std::str::FromStr;

use super::Senders;
use super::tag::{TagTemplate, is_id};
use crate::record::{BadSetting, Container};

/// From the most informative template to Docker's own default.
const DEFAULTS: [&str; 3] = ["{{.ImageName}}/{{.Name}}/{{.ID}}", "{{.Name}}/{{.ID}}", "{{.ID}}"];
/// The most common template. `sshd[812]:` of any program fits it, so it is only used with [`Senders::Docker`].
const DEFAULT_OF_DOCKER: &str = "{{.Name}}";
/// The maximum number of templates.
const MAX_TEMPLATES: usize = 16;

/// A list of templates. The first that fits a tag counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagTemplates {
    list: Vec<TagTemplate>,
    /// The last template with [`Senders::Docker`]; `None`: the templates are not the defaults.
    of_docker: Option<TagTemplate>,
    /// Whether any template can make tags with a blank.
    has_blank: bool,
}

impl TagTemplates {
    pub fn new(written: Vec<String>) -> Result<Self, BadSetting> {
        if written.len() > MAX_TEMPLATES {
            return Err(BadSetting::new(format!("{} templates; at most {MAX_TEMPLATES} are allowed", written.len())));
        }
        let list = written.iter().map(|template| template.parse()).collect::<Result<Vec<TagTemplate>, _>>()?;
        let of_docker = (written == DEFAULTS).then(|| DEFAULT_OF_DOCKER.parse()).transpose()?;
        // Computed once, because each message needs it.
        let has_blank = list.iter().any(TagTemplate::has_blank);
        Ok(Self { list, of_docker, has_blank })
    }

    pub fn written(&self) -> Vec<String> {
        self.list.iter().map(ToString::to_string).collect()
    }

    /// The parts of `tag`. 12 or 64 hexadecimal digits are an ID, whatever the templates are.
    pub(in crate::protocol) fn split<'a>(&self, tag: &'a [u8], senders: Senders) -> Container<'a> {
        if is_id(tag) {
            return Container { id: Some(tag.into()), ..Container::default() };
        }
        self.fit(tag, senders).unwrap_or_default()
    }

    /// `None`: none of the templates can have made this tag.
    pub(super) fn fit<'a>(&self, tag: &'a [u8], senders: Senders) -> Option<Container<'a>> {
        let of_docker = self.of_docker.as_ref().filter(|_| senders == Senders::Docker);
        self.list.iter().chain(of_docker).find_map(|template| template.fit(tag))
    }

    /// Whether any template can make tags with a blank.
    pub(super) fn has_blank(&self) -> bool {
        self.has_blank
    }

    /// Whether any template contains what looks like the end of a tag.
    pub(super) fn has_tag_end(&self) -> bool {
        self.list.iter().any(TagTemplate::has_tag_end)
    }
}

impl Default for TagTemplates {
    fn default() -> Self {
        Self::new(DEFAULTS.map(str::to_owned).into()).expect("templates that are good")
    }
}

/// Reads one template.
impl FromStr for TagTemplates {
    type Err = BadSetting;

    fn from_str(template: &str) -> Result<Self, BadSetting> {
        Self::new(vec![template.to_owned()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = "fa965cc4a0a9845c43020c74d616cb0a8e2fa700944e6f25f548ebf24fe3bd34";

    /// `expected` is image, name, id; `-` for none.
    #[track_caller]
    fn check(templates: &TagTemplates, senders: Senders, tag: &str, expected: [&str; 3]) {
        let container = templates.split(tag.as_bytes(), senders);
        let text = |value: &Option<std::borrow::Cow<'_, [u8]>>| {
            value.as_ref().map_or("-".to_owned(), |value| String::from_utf8_lossy(value).into_owned())
        };
        assert_eq!([&container.image, &container.name, &container.id].map(text), expected, "{tag}");
    }

    #[test]
    fn the_defaults_take_what_people_write() {
        let templates = TagTemplates::default();
        for senders in [Senders::Anybody, Senders::Docker] {
            let check = |tag: &str, expected| check(&templates, senders, tag, expected);
            check("nginx:1.25/web/2a9052a5c36e", ["nginx:1.25", "web", "2a9052a5c36e"]);
            check("web/2a9052a5c36e", ["-", "web", "2a9052a5c36e"]);
            check(&format!("web/{FULL}"), ["-", "web", FULL]);
            check("2a9052a5c36e", ["-", "-", "2a9052a5c36e"]);
            check(FULL, ["-", "-", FULL]);
            check("/web/2a9052a5c36e", ["-", "-", "-"]);
            check("web/api", ["-", "-", "-"]);
        }
        // Any program's tag looks like `web`. A container whose name looks like an ID is taken for that ID.
        check(&templates, Senders::Anybody, "web", ["-", "-", "-"]);
        check(&templates, Senders::Docker, "web", ["-", "web", "-"]);
        check(&templates, Senders::Docker, "2a9052a5c36f", ["-", "-", "2a9052a5c36f"]);
        check(&templates, Senders::Docker, "2A9052A5C36F", ["-", "2A9052A5C36F", "-"]);
    }

    #[test]
    fn the_first_that_fits_counts() {
        let list = |written: &[&str]| TagTemplates::new(written.iter().map(|text| (*text).to_owned()).collect());
        let templates = list(&["{{.ImageName}}-{{.Name}}", "{{.Name}}"]).unwrap();
        check(&templates, Senders::Anybody, "nginx-web", ["nginx", "web", "-"]);
        check(&templates, Senders::Anybody, "web", ["-", "web", "-"]);
        check(&templates, Senders::Anybody, "2a9052a5c36e", ["-", "-", "2a9052a5c36e"]);
        assert!(list(&["{{.Name}}", "my {{.Name}}"]).unwrap().has_blank());
        assert!(!TagTemplates::default().has_blank());
        assert!(list(&["{{.Nope}}"]).is_err() && list(&["{{.ID}}"; 17]).is_err());
        // A configured template counts for all listeners, and the defaults do not.
        let one: TagTemplates = "{{.ImageName}}/{{.Name}}/{{.ID}}".parse().unwrap();
        check(&one, Senders::Docker, "web", ["-", "-", "-"]);
        assert_eq!(TagTemplates::new(TagTemplates::default().written()).unwrap(), TagTemplates::default());
    }
}
