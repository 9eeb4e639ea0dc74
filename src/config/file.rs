//! The shape of logferry.toml: sections, keys and where in the file each value stands. Nothing is checked here but the
//! names; what a value means is decided in the module above, which can then say the line it was written on.
//!
//! A value is kept as the text the user wrote, so that `${VAR}` works in every one of them.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, Error as _, Visitor};
use serde::ser::{Serialize, Serializer};

/// One of several sections of a kind, with its place: a key that is missing in it has none of its own.
pub type Section<T> = toml::Spanned<T>;

/// A section that was not written in the file.
pub fn unwritten<T>(section: T) -> Section<T> {
    toml::Spanned::new(0..0, section)
}

/// Everything a config file can say. A section that is not there is a section of defaults.
#[derive(Default, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct File {
    pub hostname: Option<Leaf>,
    pub grace: Option<Leaf>,
    pub listen: Vec<Section<Listen>>,
    pub syslog: Syslog,
    pub drop: Vec<Section<Rule>>,
    pub spool: Spool,
    pub forward: Vec<Section<Forward>>,
    pub resolve: Resolve,
    pub admin: Admin,
    pub log: Log,
}

#[derive(Default, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Listen {
    pub address: Option<Leaf>,
    pub name: Option<Leaf>,
    pub from: Option<Leaf>,
    pub cert: Option<Leaf>,
    pub key: Option<Leaf>,
    pub client_ca: Option<Leaf>,
    #[serde(skip_serializing_if = "Leaves::is_empty")]
    pub client_names: Leaves,
    #[serde(skip_serializing_if = "Leaves::is_empty")]
    pub client_fingerprint: Leaves,
    pub plaintext: Option<Leaf>,
    #[serde(skip_serializing_if = "Leaves::is_empty")]
    pub allow: Leaves,
    pub max_frame: Option<Leaf>,
    pub receive_buffer: Option<Leaf>,
    pub max_connections: Option<Leaf>,
    pub max_connections_per_address: Option<Leaf>,
    pub max_unfinished: Option<Leaf>,
    pub frame_timeout: Option<Leaf>,
    pub max_handshakes: Option<Leaf>,
    pub handshake_timeout: Option<Leaf>,
}

#[derive(Default, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Syslog {
    pub tag_template: Option<Leaf>,
    pub sd_id: Option<Leaf>,
    pub time_zone: Option<Leaf>,
    pub rejoin: Option<Leaf>,
    pub rate_limit: Option<Leaf>,
    pub rate_burst: Option<Leaf>,
}

/// Which lines are meant.
#[derive(Default, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Rule {
    #[serde(skip_serializing_if = "Leaves::is_empty")]
    pub image: Leaves,
    #[serde(skip_serializing_if = "Leaves::is_empty")]
    pub name: Leaves,
    #[serde(skip_serializing_if = "Leaves::is_empty")]
    pub app: Leaves,
    #[serde(skip_serializing_if = "Leaves::is_empty")]
    pub host: Leaves,
    #[serde(skip_serializing_if = "Leaves::is_empty")]
    pub listener: Leaves,
    #[serde(skip_serializing_if = "Leaves::is_empty")]
    pub facility: Leaves,
    #[serde(skip_serializing_if = "Leaves::is_empty")]
    pub severity: Leaves,
}

#[derive(Default, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Spool {
    pub dir: Option<Leaf>,
    pub max_size: Option<Leaf>,
    pub when_full: Option<Leaf>,
    pub sync: Option<Leaf>,
    pub max_wait: Option<Leaf>,
    pub shed_from: Option<Leaf>,
    pub max_rate: Option<Leaf>,
}

#[derive(Default, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Forward {
    pub name: Option<Leaf>,
    pub to: Leaves,
    #[serde(rename = "match", skip_serializing_if = "Rules::is_empty")]
    pub matches: Rules,
    pub format: Option<Leaf>,
    pub framing: Option<Leaf>,
    pub ca: Option<Leaf>,
    pub cert: Option<Leaf>,
    pub key: Option<Leaf>,
    pub server_name: Option<Leaf>,
    #[serde(skip_serializing_if = "Leaves::is_empty")]
    pub server_fingerprint: Leaves,
    pub connect_timeout: Option<Leaf>,
    pub dead_after: Option<Leaf>,
    pub max_backoff: Option<Leaf>,
    pub return_after: Option<Leaf>,
    pub replay: Option<Leaf>,
    pub replay_for: Option<Leaf>,
    pub replay_limit: Option<Leaf>,
    pub window: Option<Leaf>,
}

#[derive(Default, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Resolve {
    #[serde(skip_serializing_if = "Leaves::is_empty")]
    pub nameservers: Leaves,
    pub min_ttl: Option<Leaf>,
    pub max_ttl: Option<Leaf>,
    pub timeout: Option<Leaf>,
}

#[derive(Default, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Admin {
    pub listen: Option<Leaf>,
    pub containers: Option<Leaf>,
}

#[derive(Default, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Log {
    pub level: Option<Leaf>,
    pub format: Option<Leaf>,
    pub to_spool: Option<Leaf>,
}

/// One value, and where it was written.
#[derive(Clone, Debug)]
pub struct Leaf {
    pub value: Scalar,
    pub origin: Origin,
}

#[derive(Clone, Debug)]
pub enum Scalar {
    Text(String),
    Flag(bool),
    Number(i64),
}

#[derive(Clone, Debug)]
pub enum Origin {
    /// Byte range in the file's text.
    File(Range<usize>),
    /// A flag or its variable, named as the user would write it.
    Override(&'static str),
}

/// One value or a list of them: `to = "a"` and `to = ["a", "b"]` are both natural to write.
#[derive(Clone, Debug, Default)]
pub struct Leaves(pub Vec<Leaf>);

/// One rule or several, any of which will do: `match = { … }`, `match = [{ … }, { … }]` and `[[forward.match]]`.
#[derive(Default)]
pub struct Rules {
    pub rules: Vec<Rule>,
    /// Where they were written, if they were.
    pub written: Option<Range<usize>>,
}

impl Rules {
    fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

impl Rule {
    /// Nothing is written in it.
    pub fn is_empty(&self) -> bool {
        let Self { image, name, app, host, listener, facility, severity } = self;
        [image, name, app, host, listener, facility, severity].iter().all(|leaves| leaves.is_empty())
    }
}

impl Leaves {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Leaf {
    pub fn from_override(flag: &'static str, value: impl Into<String>) -> Self {
        Self { value: Scalar::Text(value.into()), origin: Origin::Override(flag) }
    }

    pub fn text(&self) -> String {
        match &self.value {
            Scalar::Text(text) => text.clone(),
            Scalar::Flag(flag) => flag.to_string(),
            Scalar::Number(number) => number.to_string(),
        }
    }
}

impl<'de> Deserialize<'de> for Leaf {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = toml::Spanned::<Scalar>::deserialize(deserializer)?;
        let span = spanned.span();
        Ok(Self { value: spanned.into_inner(), origin: Origin::File(span) })
    }
}

impl<'de> Deserialize<'de> for Leaves {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = toml::Spanned::<OneOrMany>::deserialize(deserializer)?;
        let span = spanned.span();
        let leaf = |value| Leaf { value, origin: Origin::File(span.clone()) };
        Ok(Self(spanned.into_inner().0.into_iter().map(leaf).collect()))
    }
}

/// What a [`Leaves`] looks like in TOML.
struct OneOrMany(Vec<Scalar>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrManyVisitor;

        impl<'de> Visitor<'de> for OneOrManyVisitor {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany(vec![Scalar::Text(text.to_owned())]))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<OneOrMany, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = list.next_element()? {
                    values.push(value);
                }
                // Without the key all are meant: nobody may come to that by taking the last one out.
                if values.is_empty() {
                    return Err(A::Error::custom("an empty list; leave the key out, or name something"));
                }
                Ok(OneOrMany(values))
            }
        }

        deserializer.deserialize_any(OneOrManyVisitor)
    }
}

impl<'de> Deserialize<'de> for Rules {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = toml::Spanned::<OneOrManyRules>::deserialize(deserializer)?;
        let written = Some(spanned.span());
        Ok(Self { rules: spanned.into_inner().0, written })
    }
}

/// What [`Rules`] look like in TOML.
struct OneOrManyRules(Vec<Rule>);

impl<'de> Deserialize<'de> for OneOrManyRules {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RulesVisitor;

        impl<'de> Visitor<'de> for RulesVisitor {
            type Value = OneOrManyRules;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a rule such as { name = \"web-*\" }, or a list of them")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<OneOrManyRules, A::Error> {
                Ok(OneOrManyRules(vec![Rule::deserialize(serde::de::value::MapAccessDeserializer::new(map))?]))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<OneOrManyRules, A::Error> {
                let mut rules = Vec::new();
                while let Some(rule) = list.next_element()? {
                    rules.push(rule);
                }
                Ok(OneOrManyRules(rules))
            }
        }

        deserializer.deserialize_any(RulesVisitor)
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ScalarVisitor;

        impl Visitor<'_> for ScalarVisitor {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a number, true or false")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(text.to_owned()))
            }

            fn visit_bool<E: serde::de::Error>(self, flag: bool) -> Result<Scalar, E> {
                Ok(Scalar::Flag(flag))
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar::Number(number))
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Scalar, E> {
                i64::try_from(number).map(Scalar::Number).map_err(|_| E::custom("this number is too large"))
            }
        }

        deserializer.deserialize_any(ScalarVisitor).map_err(|error| D::Error::custom(error.to_string()))
    }
}

impl Serialize for Leaf {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.value {
            Scalar::Text(text) => serializer.serialize_str(text),
            Scalar::Flag(flag) => serializer.serialize_bool(*flag),
            Scalar::Number(number) => serializer.serialize_i64(*number),
        }
    }
}

impl Serialize for Rules {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.rules)
    }
}

impl Serialize for Leaves {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.0)
    }
}
