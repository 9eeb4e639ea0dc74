//! The keys of a `[[forward]]` to a log store by HTTP.

use std::path::PathBuf;
use std::time::Duration;

use super::aws::{self, AwsSettings, CloudWatchSettings, S3Settings};
use super::error::{ConfigError, SECRET_HEADERS};
use super::fields::{self, AddedFields};
use super::kinds::{Age, ListOf, Optional, Path, Size, Special, Time, Words};
use super::proxy::ProxyChoice;
use super::secret::{FromVariable, Secret};
use super::settings::{OnlyFor, Place, defaults, settings};
use super::written::{Entry, Leaf, Written};
use crate::protocol::api::age::TooOld;
use crate::protocol::api::elasticsearch::MAX_INDEX;
use crate::protocol::api::loki::{self, Label};
use crate::protocol::api::splunk::Ack;
use crate::record::template::{AddedField, Part, parts, unknown_field};

/// The size of a request before compression, in bytes. It keeps the relay below 24 MiB of memory. Elasticsearch recommends
/// at most 5 MB, and some servers accept up to 10 MiB.
const DEFAULT_BATCH: usize = 256 << 10;
const DEFAULT_BATCH_WAIT: Duration = Duration::from_secs(1);
const DEFAULT_ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Labels with few values each, because Loki makes a stream for each combination of values.
const DEFAULT_LABELS: [Label; 4] = [Label::Job, Label::Host, Label::ServiceName, Label::Level];

const APIS: Words<Api> = Words(&[
    ("elasticsearch", Api::Elasticsearch),
    ("otlp", Api::Otlp),
    ("splunk", Api::Splunk),
    ("loki", Api::Loki),
    ("datadog", Api::Datadog),
    ("newrelic", Api::NewRelic),
    ("cloudwatch", Api::CloudWatch),
    ("json", Api::Ndjson),
]);
/// Keys that only some APIs use, with these APIs.
const KEYS_OF_APIS: [(&str, &[Api]); 22] = [
    ("index", &[Api::Elasticsearch, Api::Splunk]),
    ("id", &[Api::Elasticsearch]),
    ("sourcetype", &[Api::Splunk]),
    ("ack", &[Api::Splunk]),
    ("labels", &[Api::Loki]),
    ("body", &[Api::Ndjson]),
    ("max-age", APIS_WITH_TIME),
    ("too-old", APIS_WITH_TIME),
    ("token", TOKENS),
    ("token-file", TOKENS),
    ("user", TOKENS),
    ("password", TOKENS),
    ("password-file", TOKENS),
    ("region", SIGNATURES),
    ("access-key", SIGNATURES),
    ("secret-key", SIGNATURES),
    ("secret-key-file", SIGNATURES),
    ("profile", SIGNATURES),
    ("group", &[Api::CloudWatch]),
    ("stream", &[Api::CloudWatch]),
    ("create", &[Api::CloudWatch]),
    ("event", &[Api::CloudWatch]),
];
/// The APIs with tokens or passwords, and the APIs with signatures.
const TOKENS: &[Api] =
    &[Api::Elasticsearch, Api::Otlp, Api::Splunk, Api::Loki, Api::Datadog, Api::NewRelic, Api::Ndjson];
const SIGNATURES: &[Api] = &[Api::CloudWatch, Api::Elasticsearch];
/// The APIs that get the time apart from the line's fields.
const APIS_WITH_TIME: &[Api] =
    &[Api::Elasticsearch, Api::Otlp, Api::Splunk, Api::Loki, Api::Datadog, Api::NewRelic, Api::CloudWatch];
const ACKS: Words<Ack> = Words(&[("auto", Ack::Auto), ("on", Ack::On), ("off", Ack::Off)]);
const BODIES: Words<bool> = Words(&[("ndjson", false), ("array", true)]);
const COMPRESSIONS: Words<bool> = Words(&[("gzip", true), ("off", false)]);
const IDS: Words<bool> = Words(&[("number", true), ("off", false)]);
const TOO_OLD: Words<TooOld> =
    Words(&[("now", TooOld::Now), ("dead-letter", TooOld::DeadLetter), ("send", TooOld::Send)]);
const TEXT: Special<String> = Special { read: |text| Ok(text.to_owned()), display: String::clone };

/// Targets with batches.
const BATCHED: OnlyFor =
    OnlyFor { schemes: "http://, https://, fluent:// or fluent+tls://", uses: |to| to.is_http() || to.is_fluent() };
/// Targets that may compress.
const COMPRESSED: OnlyFor = OnlyFor {
    schemes: "http://, https://, s3:// or gelf+udp://",
    uses: |to| (REQUESTS.uses)(to) || to.is_gelf() && to.is_udp(),
};
/// Targets that get HTTP requests.
pub const REQUESTS: OnlyFor =
    OnlyFor { schemes: "http://, https:// or s3://", uses: |to| to.is_http() || to.is_bucket() };
pub const HTTP: OnlyFor = OnlyFor { schemes: "http:// or https://", uses: super::ForwardAddress::is_http };
/// Targets with a user.
const USERS: OnlyFor = OnlyFor {
    schemes: "http://, https://, nats://, nats+tls://, fluent:// or fluent+tls://",
    uses: |to| to.is_http() || to.is_nats() || to.is_fluent(),
};
/// Targets with a token.
const LOGIN: OnlyFor =
    OnlyFor { schemes: "http://, https://, nats:// or nats+tls://", uses: |to| to.is_http() || to.is_nats() };

/// The API of a log store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    Elasticsearch,
    Otlp,
    Splunk,
    Loki,
    Datadog,
    NewRelic,
    CloudWatch,
    /// The API of `s3://`. No other address has it.
    S3,
    /// Any URL that takes JSON.
    Ndjson,
}

impl Api {
    /// The name of the API in the config.
    pub fn word(self) -> &'static str {
        APIS.0.iter().find(|(_, api)| *api == self).map_or("s3", |(word, _)| word)
    }
}

/// The name and value of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub name: String,
    pub value: String,
}

settings! {
    pub struct HttpSettings, written as WrittenHttp {
        api: Api = Api::Elasticsearch, as APIS, key "api".only_for(HTTP);
        /// The data stream or index; `None`: the default of the API.
        index: Option<String> = None, as Optional(Special { read: index, display: String::clone }), key "index".only_for(HTTP);
        /// Splunk's `sourcetype` of the events; `None`: that of the token.
        sourcetype: Option<String> = None, as Optional(TEXT), key "sourcetype".only_for(HTTP);
        /// Whether the relay asks Splunk's indexers for acknowledgements.
        ack: Ack = Ack::Auto, as ACKS, key "ack".only_for(HTTP);
        /// Whether a request is one array of objects.
        body_is_array: bool = false, as BODIES, key "body".only_for(HTTP);
        /// Whether the number of a line becomes its `_id`, so that no line is stored twice.
        id: bool = true, as IDS, key "id".only_for(HTTP);
        /// The labels of Loki's streams.
        labels: Vec<Label> = DEFAULT_LABELS.to_vec(), as ListOf { read: label, display: |label| label.name().to_owned() }, key "labels".only_for(HTTP);
        /// The token for the server, or the file with it.
        token: Option<Secret> = None, as Optional(FromVariable), key "token".only_for(LOGIN);
        token_file: Option<PathBuf> = None, as Optional(Path), key "token-file".only_for(LOGIN);
        user: Option<String> = None, as Optional(TEXT), key "user".only_for(USERS);
        password: Option<Secret> = None, as Optional(FromVariable), key "password".only_for(USERS);
        password_file: Option<PathBuf> = None, as Optional(Path), key "password-file".only_for(USERS);
        /// The proxy that requests go through.
        proxy: ProxyChoice = ProxyChoice::Variables, as Special { read: ProxyChoice::read, display: ToString::to_string }, key "proxy".only_for(REQUESTS);
        /// Headers of each request.
        headers: Vec<Pair> = Vec::new(), as ListOf { read: header, display: |pair| format!("{}: {}", pair.name, pair.value) }, key "headers".only_for(REQUESTS);
        /// Fields that are added to each line, for any kind of target.
        fields: Vec<AddedField> = Vec::new(), as AddedFields, key "fields".takes_table();
        /// The maximum size of the lines in a request, in bytes. It is also limited by the API.
        batch: usize = DEFAULT_BATCH, as Size(4096..=16 << 20), key "batch".only_for(BATCHED);
        /// How long a batch that is not full waits for more lines.
        batch_wait: Duration = DEFAULT_BATCH_WAIT, as Time, key "batch-wait".only_for(HTTP);
        /// The maximum age of lines that are sent with their own time; `None`: the limit of the API.
        max_age: Option<Duration> = None, as Optional(Age), key "max-age".only_for(HTTP);
        too_old: TooOld = TooOld::Now, as TOO_OLD, key "too-old".only_for(HTTP);
        compress: bool = true, as COMPRESSIONS, key "compress".only_for(COMPRESSED);
        /// How long the relay waits for an answer before it sends the request again.
        answer_timeout: Duration = DEFAULT_ANSWER_TIMEOUT, as Time, key "answer-timeout".only_for(REQUESTS);
    }
    groups {
        aws: AwsSettings;
        cloud_watch: CloudWatchSettings;
        s3: S3Settings;
    }
}

impl HttpSettings {
    /// The token for the server.
    pub fn token(&self) -> Option<Secret> {
        Secret::of(&self.token, &self.token_file)
    }

    /// The password of `user`.
    pub fn password(&self) -> Option<Secret> {
        Secret::of(&self.password, &self.password_file)
    }
}

impl Default for HttpSettings {
    fn default() -> Self {
        defaults()
    }
}

impl WrittenHttp {
    /// The API in the config, if it is valid.
    pub fn said_api(&self, source: &super::error::Source<'_>) -> Option<Api> {
        let said = self.api.first().and_then(|leaf| source.text("forward.api", leaf).ok())?;
        APIS.0.iter().find_map(|(word, api)| (*word == said).then_some(*api))
    }
}

/// Notes contradictions. `addresses`: the targets of the section.
pub fn check(http: &WrittenHttp, addresses: &Entry, place: &Place<'_>) -> Result<(), ConfigError> {
    let source = place.source;
    let read = |leaf| Some((leaf, source.text("forward.to", leaf).ok()?.parse::<super::ForwardAddress>().ok()?));
    let to: Vec<_> = addresses.leaves().iter().filter_map(read).collect();
    match to.iter().find(|(_, to)| (REQUESTS.uses)(to)) {
        None => return Ok(()),
        Some((_, to)) if to.is_bucket() => aws::check_keys(&http.aws, place)?,
        Some((leaf, _)) => {
            if !http.api.is_written() {
                let says = "http:// and https:// need `api`, what is spoken there: api = \"elasticsearch\"";
                source.note(source.bad(&place.key("to"), leaf, says), ())?;
            }
            check_api(http, addresses, place)?;
        }
    }
    if let Some(leaf) = http.proxy.first().filter(|leaf| leaf.text.contains('@') && !leaf.text.contains("${")) {
        let says = "a password does not stand in this file; write proxy = \"${VARIABLE}\" and set that variable";
        source.note(source.located(&place.key("proxy"), leaf, says), ())?;
    }
    if let Some((_, service)) = to.iter().find(|(_, to)| matches!(to.remote(), Some(super::Destination::Service(_))))
        && let Some(leaf) = http.proxy.first().filter(|leaf| !matches!(leaf.text.as_str(), "auto" | "off"))
    {
        let says = format!("a proxy needs the server's name and port, and {service} has them in SRV records");
        source.note(source.located(&place.key("proxy"), leaf, &says), ())?;
    }
    check_login(http, place)
}

/// Notes contradictions in token, user and password.
pub fn check_login(http: &WrittenHttp, place: &Place<'_>) -> Result<(), ConfigError> {
    let source = place.source;
    Secret::check_keys(source, (&place.path, "token"), [&http.token, &http.token_file])?;
    Secret::check_keys(source, (&place.path, "password"), [&http.password, &http.password_file])?;
    let password = http.password.first().or(http.password_file.first());
    match (http.user.first(), password) {
        (Some(leaf), None) => source.note(source.bad(&place.key("user"), leaf, "`user` needs `password-file`"), ())?,
        (None, Some(leaf)) => source.note(source.bad(&place.key("password"), leaf, "a password needs `user`"), ())?,
        _ => {}
    }
    if let (Some(leaf), true) = (http.user.first(), http.token.is_written() || http.token_file.is_written()) {
        let says = "a server knows us by `user` or by a token; take one of them out";
        source.note(source.bad(&place.key("user"), leaf, says), ())?;
    }
    Ok(())
}

/// The APIs that use a key; `None`: `api` is one of them, or all APIs use the key.
pub fn other_apis_of(key: &str, api: Api) -> Option<&'static [Api]> {
    let (_, apis) = KEYS_OF_APIS.iter().find(|(name, _)| *name == key)?;
    (!apis.contains(&api)).then_some(*apis)
}

/// Warns of keys that the API does not use. Notes a query in an address if the API has a path of its own.
fn check_api(http: &WrittenHttp, addresses: &Entry, place: &Place<'_>) -> Result<(), ConfigError> {
    let source = place.source;
    let Some(api) = http.said_api(source) else { return Ok(()) };
    let word = api.word();
    http.each(&mut |key, entry| {
        if let (Some(apis), Some(leaf)) = (other_apis_of(key.name, api), entry.first()) {
            let words =
                APIS.0.iter().filter(|(_, api)| apis.contains(api)).map(|(word, _)| format!("api = \"{word}\""));
            let words = words.collect::<Vec<_>>().join(" or ");
            let says = format!("only {words} uses it, and not \"{word}\"; take it out");
            source.warn_of(&place.key(key.name), leaf, &says);
        }
    });
    for leaf in addresses.leaves().iter().filter(|leaf| api != Api::Ndjson && leaf.text.contains('?')) {
        let says = format!("api = \"{word}\" has a path and a query of its own; write the address without `?`");
        source.note(source.bad(&place.key("to"), leaf, &says), ())?;
    }
    match api {
        Api::Loki => check_labels(http, place),
        Api::Splunk => match http.index.first().filter(|leaf| leaf.text.contains('{')) {
            Some(leaf) => {
                let says = "an index with fields is for api = \"elasticsearch\"; write one name";
                source.note(source.bad(&place.key("index"), leaf, says), ())
            }
            None => Ok(()),
        },
        api => aws::check(http, (api, addresses), place),
    }
}

/// Notes fields that cannot be labels of Loki.
fn check_labels(http: &WrittenHttp, place: &Place<'_>) -> Result<(), ConfigError> {
    let source = place.source;
    // An invalid field is noted when it is read. A field that differs from line to line is no label.
    let read = |leaf: &&Leaf| fields::field(&source.text("forward.fields", leaf).ok()?).ok();
    let fields: Vec<_> =
        http.fields.leaves().iter().filter(|leaf| read(leaf).is_none_or(|field| field.fixed().is_some())).collect();
    for leaf in &fields {
        if read(leaf).is_some_and(|field| !loki::is_label_name(&field.name)) {
            let says = "Loki takes it as a label, whose name has letters, digits and _ alone, and no digit in front";
            source.note(source.bad(&place.key("fields"), leaf, says), ())?;
        }
    }
    let labels = if http.labels.is_written() { http.labels.leaves().len() } else { DEFAULT_LABELS.len() };
    if let Some(&leaf) = fields.get(loki::MAX_LABELS - labels.min(loki::MAX_LABELS)) {
        let says = format!(
            "`labels` and `fields` are at most {} together: Loki takes {} labels, and one is for lines that are too old",
            loki::MAX_LABELS,
            loki::MAX_LABELS + 1
        );
        source.note(source.bad(&place.key("fields"), leaf, &says), ())?;
    }
    Ok(())
}

/// Reads a label of Loki's streams.
fn label(text: &str) -> Result<Label, String> {
    let names = Label::ALL.map(|label| format!("\"{}\"", label.name()));
    let found = Label::ALL.into_iter().find(|label| label.name() == text);
    found.ok_or_else(|| {
        format!("write {}: others have too many values, and are structured metadata", names.join(" or "))
    })
}

/// Reads the name of an index, by Elasticsearch's rules.
fn index(text: &str) -> Result<String, String> {
    let is_bad = |c: &char| c.is_uppercase() || c.is_whitespace() || c.is_control() || r#"\/*?"<>|,#:"#.contains(*c);
    let parts = parts(text);
    let mut texts = parts.iter().filter_map(|part| if let Part::Text(text) = part { Some(text) } else { None });
    match text {
        "" | "." | ".." => Err("an index has a name".to_owned()),
        _ if text.len() > MAX_INDEX => Err("the name of an index has at most 255 bytes".to_owned()),
        _ if text.starts_with(['-', '_', '+']) => Err("the name of an index does not begin with -, _ or +".to_owned()),
        // The value of a field comes from a sender, which could name the index of another.
        _ if text.starts_with(['{', '.']) && parts.iter().any(|part| matches!(part, Part::Field(_))) => {
            Err("the name of an index with fields begins with a text, and not with a dot: \"logs-{host}\"".to_owned())
        }
        _ => match texts.find_map(|text| text.chars().find(is_bad)) {
            Some(bad) => Err(format!("the name of an index has small letters, and no {bad:?}")),
            None => unknown_field(text).map_or_else(|| Ok(text.to_owned()), Err),
        },
    }
}

/// Reads an HTTP header, `Name: value`.
fn header(text: &str) -> Result<Pair, String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let ours = ["host", "content-length", "content-type", "content-encoding", "transfer-encoding", "connection"];
    match text.split_once(':').map(|(name, value)| (name.trim(), value.trim())) {
        Some((name, _)) if ours.contains(&&*name.to_ascii_lowercase()) => Err(format!("`{name}` is ours to write")),
        Some((name, _)) if SECRET_HEADERS.iter().any(|secret| name.eq_ignore_ascii_case(secret)) => {
            Err("a secret does not stand in this file; write `token-file`".to_owned())
        }
        Some((name, value))
            if !name.is_empty()
                && name.bytes().all(is_token)
                && value.bytes().all(|byte| matches!(byte, b' '..=b'~')) =>
        {
            Ok(Pair { name: name.to_owned(), value: value.to_owned() })
        }
        _ => Err("write a header as \"X-Scope-OrgID: team-a\"".to_owned()),
    }
}
