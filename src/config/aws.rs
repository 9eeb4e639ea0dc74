//! The keys of a `[[forward]]` to AWS, or to another server with AWS signatures: where to send, and the credentials.

use std::path::PathBuf;
use std::time::Duration;

use super::error::ConfigError;
use super::http;
use super::kinds::{Flag, Optional, Path, Size, Special, Time, Words};
use super::secret::{FromVariable, Secret};
use super::settings::{OnlyFor, Place, defaults, settings};
use super::written::{Entry, Leaf};
use super::{Destination, ForwardAddress};
use crate::protocol::api::cloudwatch;
use crate::record::template::{Part, parts, unknown_field};

/// One stream for each host. CloudWatch accepts 5 requests a second for a stream, and each stream of a batch needs a request
/// of its own.
const DEFAULT_STREAM: &str = "{host}";

/// The size of an object before compression: large enough to keep the number of objects low, small enough for memory.
const DEFAULT_OBJECT: usize = 8 << 20;
const DEFAULT_OBJECT_WAIT: Duration = Duration::from_secs(300);

pub const S3: OnlyFor = OnlyFor { schemes: "s3://", uses: ForwardAddress::is_bucket };

const TEXT: Special<String> = Special { read: |text| Ok(text.to_owned()), display: String::clone };

settings! {
    pub struct AwsSettings, written as WrittenAws {
        /// `None`: the region in the server's name, or `AWS_REGION`.
        region: Option<String> = None, as Optional(Special { read: region, display: String::clone }), key "region".only_for(http::REQUESTS);
        /// The access key; `None`: it comes from the environment.
        access_key: Option<String> = None, as Optional(TEXT), key "access-key".only_for(http::REQUESTS);
        secret_key: Option<Secret> = None, as Optional(FromVariable), key "secret-key".only_for(http::REQUESTS);
        secret_key_file: Option<PathBuf> = None, as Optional(Path), key "secret-key-file".only_for(http::REQUESTS);
        /// The profile in the shared credentials file; `None`: `AWS_PROFILE`, or `default`.
        profile: Option<String> = None, as Optional(TEXT), key "profile".only_for(http::REQUESTS);
    }
}

settings! {
    pub struct S3Settings, written as WrittenS3 {
        /// The server, with buckets as paths; `None`: AWS' server of the region.
        endpoint: Option<ForwardAddress> = None, as Optional(Special { read: endpoint, display: ToString::to_string }), key "endpoint".only_for(S3);
        /// Bytes of lines in an object.
        object: usize = DEFAULT_OBJECT, as Size(65_536..=64 << 20), key "object".only_for(S3);
        /// How long an object that is not full waits for more lines.
        object_wait: Duration = DEFAULT_OBJECT_WAIT, as Time, key "object-wait".only_for(S3);
    }
}

settings! {
    pub struct CloudWatchSettings, written as WrittenCloudWatch {
        /// The log group, a template with fields of the line.
        group: Option<String> = None, as Optional(Special { read: group, display: String::clone }), key "group".only_for(http::HTTP);
        stream: String = DEFAULT_STREAM.to_owned(), as Special { read: stream, display: String::clone }, key "stream".only_for(http::HTTP);
        /// Whether missing groups and streams are created.
        create: bool = true, as Flag, key "create".only_for(http::HTTP);
        /// Whether an event is MSG alone, and not JSON.
        event_is_text: bool = false, as Words(&[("json", false), ("text", true)]), key "event".only_for(http::HTTP);
    }
}

impl AwsSettings {
    pub fn secret_key(&self) -> Option<Secret> {
        Secret::of(&self.secret_key, &self.secret_key_file)
    }

    /// The region of a server. `variable` returns environment variables.
    pub fn region_of(&self, host: &str, variable: impl Fn(&str) -> Option<String>) -> Option<String> {
        let named = || {
            // `logs.REGION.amazonaws.com`, `vpce-1-2.logs.REGION.vpce.amazonaws.com`, `search-x.REGION.es.amazonaws.com`
            let (host, _) = host.trim_end_matches('.').split_once(".amazonaws.com")?;
            let is_region =
                |name: &&str| name.split('-').count() >= 3 && name.ends_with(|end: char| end.is_ascii_digit());
            host.rsplit('.').find(is_region).map(str::to_owned)
        };
        let said = |name| variable(name).filter(|region| !region.is_empty());
        self.region.clone().or_else(named).or_else(|| said("AWS_REGION")).or_else(|| said("AWS_DEFAULT_REGION"))
    }
}

impl Default for AwsSettings {
    fn default() -> Self {
        defaults()
    }
}

impl S3Settings {
    /// The host of `endpoint`, or an empty text.
    pub fn endpoint_host(&self) -> String {
        self.endpoint.as_ref().and_then(ForwardAddress::remote).map(Destination::to_string).unwrap_or_default()
    }
}

impl Default for S3Settings {
    fn default() -> Self {
        defaults()
    }
}

impl Default for CloudWatchSettings {
    fn default() -> Self {
        defaults()
    }
}

/// Notes contradictions in a section whose API may need signatures. `addresses`: the targets of the section.
pub fn check(
    http: &http::WrittenHttp,
    (api, addresses): (http::Api, &Entry),
    place: &Place<'_>,
) -> Result<(), ConfigError> {
    let source = place.source;
    check_keys(&http.aws, place)?;
    if api != http::Api::CloudWatch {
        return Ok(());
    }
    if !http.cloud_watch.group.is_written() {
        source.missing("forward", place.span.clone(), "group", "group = \"/docker/{host}\", the log group")?;
    }
    let host = |to: &Leaf| {
        let to = source.text("forward.to", to).ok()?.parse::<ForwardAddress>().ok()?;
        to.remote().map(Destination::to_string)
    };
    let has_region = |host: String| AwsSettings::default().region_of(&host, source.variable).is_some();
    if !http.aws.region.is_written() && !addresses.leaves().iter().filter_map(host).all(has_region) {
        let says = "region = \"eu-central-1\", unless the server's name has it (logs.REGION.amazonaws.com) or AWS_REGION is set";
        source.missing("forward", place.span.clone(), "region", says)?;
    }
    Ok(())
}

/// Notes an access key without its secret key, and a secret key without its access key.
pub fn check_keys(aws: &WrittenAws, place: &Place<'_>) -> Result<(), ConfigError> {
    let source = place.source;
    Secret::check_keys(source, (&place.path, "secret-key"), [&aws.secret_key, &aws.secret_key_file])?;
    match (aws.access_key.first(), aws.secret_key.first().or(aws.secret_key_file.first())) {
        (Some(leaf), None) => source.note(source.bad(&place.key("access-key"), leaf, "it needs `secret-key-file`"), ()),
        (None, Some(leaf)) => source.note(source.located(&place.key("secret-key"), leaf, "it needs `access-key`"), ()),
        _ => Ok(()),
    }
}

/// Reads the URL of a server with buckets as paths.
fn endpoint(text: &str) -> Result<ForwardAddress, String> {
    let says = || "write the server's URL, https://minio.example.com, without a bucket".to_owned();
    text.parse().ok().filter(|to: &ForwardAddress| to.is_http() && !to.path().contains('?')).ok_or_else(says)
}

fn region(text: &str) -> Result<String, String> {
    let is_legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    match !text.is_empty() && text.bytes().all(is_legal) {
        true => Ok(text.to_owned()),
        false => Err("write a region such as \"eu-central-1\"".to_owned()),
    }
}

fn group(text: &str) -> Result<String, String> {
    name(text, "letters, digits and _-/.#", cloudwatch::is_of_group)
}

fn stream(text: &str) -> Result<String, String> {
    name(text, "no : and no *", cloudwatch::is_of_stream)
}

/// Reads a template for a name. `has`: the legal characters, for the error message.
fn name(text: &str, has: &str, is_legal: fn(u8) -> bool) -> Result<String, String> {
    if let Some(says) = unknown_field(text) {
        return Err(says);
    }
    let is_name =
        |part: &Part| matches!(part, Part::Field(_)) || matches!(part, Part::Text(text) if text.bytes().all(is_legal));
    match (1..=cloudwatch::MAX_NAME).contains(&text.len()) && parts(text).iter().all(is_name) {
        true => Ok(text.to_owned()),
        false => Err(format!("a name has from 1 to {} characters: {has}", cloudwatch::MAX_NAME)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_is_in_the_servers_name_or_in_the_environment() {
        let check = |written: Option<&str>, host: &str, variables: &[(&str, &str)], expected: Option<&str>| {
            let settings = AwsSettings { region: written.map(str::to_owned), ..AwsSettings::default() };
            let variable =
                |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string());
            assert_eq!(settings.region_of(host, variable).as_deref(), expected, "{host}");
        };
        let both = [("AWS_REGION", "eu-west-1"), ("AWS_DEFAULT_REGION", "eu-west-2")];
        check(None, "logs.eu-central-1.amazonaws.com", &both, Some("eu-central-1"));
        check(None, "logs.cn-north-1.amazonaws.com.cn", &both, Some("cn-north-1"));
        check(None, "vpce-0a1b-c2.logs.us-gov-west-1.vpce.amazonaws.com", &both, Some("us-gov-west-1"));
        check(None, "search-logs-x1.eu-central-1.es.amazonaws.com", &both, Some("eu-central-1"));
        check(Some("us-east-1"), "logs.eu-central-1.amazonaws.com", &both, Some("us-east-1"));
        check(None, "localhost", &both, Some("eu-west-1"));
        check(None, "localhost", &[("AWS_REGION", ""), both[1]], Some("eu-west-2"));
        check(None, "localhost", &[], None);
    }
}
