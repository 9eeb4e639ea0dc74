//! Finds credentials for AWS: in the config, in environment variables, in the shared credentials file, at the endpoint of ECS and EKS,
//! or at the endpoint of EC2. The first source that has any counts, in this order, as in AWS' own clients.
//!
//! Files and variables are read again for each request. Credentials from an endpoint expire, and are renewed before they do.

use std::env;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{Method, Request, Uri};
use serde::Deserialize;
use tokio::time::timeout;

use super::client::{Answered, Client};
use crate::config::AwsSettings;
use crate::files;
use crate::forward::tcp::{self, Stream};
use crate::protocol::sigv4::Credentials;
use crate::tasks::spawn_blocking;

/// How long an endpoint may take to answer. It is on this machine, or does not exist.
const WITHIN: Duration = Duration::from_secs(2);
/// Credentials are renewed this long before they expire.
const BEFORE_THE_END: TimeDelta = TimeDelta::minutes(5);
/// The largest file with credentials or a token, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// The endpoint of ECS, for the path that a task is given
/// (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-iam-roles.html>).
const ECS: &str = "http://169.254.170.2";
/// Addresses of the endpoints of ECS and EKS. They get a secret without TLS, like this machine.
const CONTAINER_HOSTS: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
];
/// The endpoint of EC2 (<https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html>).
const IMDS: &str = "http://169.254.169.254";
const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
/// How long a token for EC2's endpoint (IMDSv2) is valid, in seconds. Each request there needs one.
const TOKEN_TTL: &str = "60";

/// Finds credentials, and keeps those from an endpoint.
pub struct Provider {
    settings: AwsSettings,
    /// Credentials from an endpoint, and when they expire.
    given: Option<(Arc<Credentials>, DateTime<Utc>)>,
}

/// No source has credentials.
#[derive(Debug, thiserror::Error)]
#[error("no credentials for AWS: {0}")]
pub struct NoCredentials(String);

/// Credentials in an endpoint's answer.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Given {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
    expiration: Option<String>,
}

impl Provider {
    pub fn new(settings: AwsSettings) -> Self {
        Self { settings, given: None }
    }

    /// The credentials for the next request.
    pub async fn get(&mut self) -> Result<Arc<Credentials>, NoCredentials> {
        let settings = self.settings.clone();
        // Files are read on another thread, because a disk may hang.
        let local = spawn_blocking(move || local(&settings)).await;
        let mut tried = Vec::new();
        match local.unwrap_or_else(|error| Err(vec![error.to_string()])) {
            Ok(Some(credentials)) => return Ok(Arc::new(credentials)),
            Ok(None) => {
                tried.push("no variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, no credentials file".to_owned())
            }
            Err(problems) => tried.extend(problems),
        }
        let now = Utc::now();
        if let Some((credentials, _)) = self.given.as_ref().filter(|(_, ends)| now + BEFORE_THE_END < *ends) {
            return Ok(credentials.clone());
        }
        match from_endpoints().await {
            Ok(given) => {
                let ends = given.expiration.as_deref().and_then(|text| DateTime::parse_from_rfc3339(text).ok());
                let ends = ends.map_or(now, |ends| ends.to_utc());
                let credentials = Arc::new(Credentials {
                    access_key: given.access_key_id,
                    secret_key: given.secret_access_key,
                    session_token: given.token.filter(|token| !token.is_empty()),
                });
                self.given = Some((credentials.clone(), ends));
                Ok(credentials)
            }
            Err(problem) => match self.given.as_ref().filter(|(_, ends)| now < *ends) {
                // They are valid for a while yet.
                Some((credentials, _)) => Ok(credentials.clone()),
                None => {
                    tried.push(problem);
                    Err(NoCredentials(tried.join("; ")))
                }
            },
        }
    }
}

/// A variable that is set and not empty.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Credentials from the config, variables or the shared credentials file. `Err`: why a source that should have them has none.
fn local(settings: &AwsSettings) -> Result<Option<Credentials>, Vec<String>> {
    if let (Some(access_key), Some(secret_key)) = (&settings.access_key, settings.secret_key()) {
        let secret_key = secret_key.read().map_err(|error| vec![error.to_string()])?;
        return Ok(Some(Credentials { access_key: access_key.clone(), secret_key, session_token: None }));
    }
    if let (Some(access_key), Some(secret_key)) = (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"))
        && settings.profile.is_none()
    {
        return Ok(Some(Credentials { access_key, secret_key, session_token: variable("AWS_SESSION_TOKEN") }));
    }
    let named = variable("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from);
    let usual = || Some(PathBuf::from(variable("HOME")?).join(".aws/credentials"));
    let is_named = named.is_some() || settings.profile.is_some();
    let Some(path) = named.or_else(usual) else { return Ok(None) };
    let profile = settings.profile.clone().or_else(|| variable("AWS_PROFILE")).unwrap_or_else(|| "default".to_owned());
    match files::read_text(&path, MAX_FILE) {
        Ok(text) => match of_profile(&text, &profile) {
            Some(credentials) => Ok(Some(credentials)),
            None => Err(vec![format!("{} has no keys for the profile {profile}", path.display())]),
        },
        Err(error) if is_named => Err(vec![format!("{}: {error}", path.display())]),
        Err(_) => Ok(None),
    }
}

/// The keys of a profile in a shared credentials file.
fn of_profile(text: &str, profile: &str) -> Option<Credentials> {
    let (mut is_ours, mut keys) = (false, [const { None }; 3]);
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            is_ours = name.trim() == profile;
        } else if let Some((key, value)) = line.split_once('=').filter(|_| is_ours) {
            let names = ["aws_access_key_id", "aws_secret_access_key", "aws_session_token"];
            if let Some(at) = names.iter().position(|name| key.trim().eq_ignore_ascii_case(name)) {
                keys[at] = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
            }
        }
    }
    let [access_key, secret_key, session_token] = keys;
    Some(Credentials { access_key: access_key?, secret_key: secret_key?, session_token })
}

/// Credentials from an endpoint: the one that a container is told, or that of EC2.
async fn from_endpoints() -> Result<Given, String> {
    let relative = variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").map(|path| format!("{ECS}{path}"));
    if let Some(uri) = relative.or_else(|| variable("AWS_CONTAINER_CREDENTIALS_FULL_URI")) {
        return from_container(&uri).await.map_err(|problem| format!("{uri}: {problem}"));
    }
    if variable("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Err("EC2's endpoint is disabled".to_owned());
    }
    let at = variable("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or_else(|| IMDS.to_owned());
    from_ec2(at.trim_end_matches('/')).await.map_err(|problem| format!("EC2's endpoint {at}: {problem}"))
}

async fn from_container(uri: &str) -> Result<Given, String> {
    let token = match variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").map(PathBuf::from) {
        Some(path) => {
            let read =
                move || files::read_text(&path, MAX_FILE).map_err(|error| format!("{}: {error}", path.display()));
            Some(spawn_blocking(read).await.unwrap_or_else(|error| Err(error.to_string()))?)
        }
        None => variable("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
    };
    let header = token.as_deref().map(|token| (AUTHORIZATION.as_str(), token.trim_end()));
    given(&ask(Method::GET, uri, header).await?)
}

async fn from_ec2(at: &str) -> Result<Given, String> {
    let ttl = ("x-aws-ec2-metadata-token-ttl-seconds", TOKEN_TTL);
    let token = text(&ask(Method::PUT, &format!("{at}/latest/api/token"), Some(ttl)).await?);
    let with_token = Some(("x-aws-ec2-metadata-token", token.as_str()));
    let roles = text(&ask(Method::GET, &format!("{at}{ROLES}"), with_token).await?);
    let role = roles.lines().next().map(str::trim).filter(|role| !role.is_empty()).ok_or("the machine has no role")?;
    given(&ask(Method::GET, &format!("{at}{ROLES}{role}"), with_token).await?)
}

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).trim().to_owned()
}

/// The error shows nothing of the answer, which may contain secrets.
fn given(body: &[u8]) -> Result<Given, String> {
    serde_json::from_slice(body).map_err(|_| "the answer has no credentials".to_owned())
}

/// Asks an endpoint, and returns its answer.
async fn ask(method: Method, uri: &str, header: Option<(&str, &str)>) -> Result<Bytes, String> {
    let uri: Uri = uri.parse().map_err(|_| "this is no URI")?;
    let peer = peer(&uri)?;
    let mut request = Request::builder().method(method).uri(uri.path_and_query().map_or("/", |path| path.as_str()));
    request = request.header(HOST, uri.authority().map_or("", |authority| authority.as_str()));
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(Bytes::new())).map_err(|error| error.to_string())?;
    let answered = async {
        let stream = tcp::connect(peer, WITHIN).await.map_err(|error| error.to_string())?;
        let mut client = Client::begin(Stream::Tcp(stream).boxed()).await.map_err(|error| error.to_string())?;
        client.ask(request).await.map_err(|error| error.to_string())
    };
    match timeout(WITHIN, answered).await {
        Ok(Ok(Answered { status: 200, body, .. })) => Ok(body),
        Ok(Ok(Answered { status, .. })) => Err(format!("HTTP {status}")),
        Ok(Err(problem)) => Err(problem),
        Err(_) => Err(format!("no answer within {WITHIN:?}")),
    }
}

/// The address of an endpoint. Only loopback, link-local IPv4 and [`CONTAINER_HOSTS`] are allowed: a secret goes there over plain HTTP.
fn peer(uri: &Uri) -> Result<SocketAddr, String> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let host = if host == "localhost" { "127.0.0.1" } else { host };
    let is_ec2 = |ip: &IpAddr| matches!(ip, IpAddr::V4(ip) if ip.is_link_local());
    let is_ours = |ip: &IpAddr| ip.is_loopback() || CONTAINER_HOSTS.contains(ip) || is_ec2(ip);
    match host.parse().ok().filter(is_ours).filter(|_| uri.scheme_str() == Some("http")) {
        Some(ip) => Ok(SocketAddr::new(ip, uri.port_u16().unwrap_or(80))),
        None => Err("it is not http:// and an address of this machine".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_has_its_keys() {
        let text = "# ours\n[default]\naws_access_key_id = A\naws_secret_access_key=B=\n\n[other]\naws_access_key_id=C\n\
                    aws_secret_access_key=D\n aws_session_token = E\n[half]\naws_access_key_id=F\n";
        let check = |profile: &str, expected: Option<(&str, &str, Option<&str>)>| {
            let found = of_profile(text, profile);
            let found =
                found.as_ref().map(|keys| (&*keys.access_key, &*keys.secret_key, keys.session_token.as_deref()));
            assert_eq!(found, expected, "{profile}");
        };
        check("default", Some(("A", "B=", None)));
        check("other", Some(("C", "D", Some("E"))));
        check("half", None);
        check("none", None);
    }

    #[test]
    fn a_secret_is_told_to_this_machine_alone() {
        let check = |uri: &str, expected: Option<&str>| {
            let peer = peer(&uri.parse().expect("a URI")).ok();
            assert_eq!(peer.map(|peer| peer.to_string()).as_deref(), expected, "{uri}");
        };
        check("http://169.254.170.2/v2/x", Some("169.254.170.2:80"));
        check("http://[fd00:ec2::23]/v1/credentials", Some("[fd00:ec2::23]:80"));
        check("http://localhost:51679/x", Some("127.0.0.1:51679"));
        check("http://169.254.169.254/latest", Some("169.254.169.254:80"));
        check("http://192.0.2.1/x", None);
        check("http://example.com/x", None);
        check("https://127.0.0.1/x", None);
    }
}
