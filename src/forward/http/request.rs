//! The bytes of a request: its head, and its body, which may be compressed.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, IF_NONE_MATCH, PROXY_AUTHORIZATION, USER_AGENT,
};
use hyper::http::request::Builder;
use hyper::{Method, Request};

use super::api::api;
use super::batch::{Batch, Verdicts};
use super::client::Answered;
use super::secrets::{Secrets, basic, sensitive};
use super::signature::{scope, sign};
use crate::config::{HttpSettings, Proxy, Target};
use crate::forward::dial::{Dialer, server};
use crate::forward::names::Endpoint;
use crate::protocol::api::age::{AgeLimit, Sending};
use crate::protocol::api::cloudwatch::{CloudWatch, Creation};
use crate::protocol::api::s3::{self, S3};
use crate::protocol::api::search::{Question, Sought};
use crate::protocol::api::splunk::{self, Ack};
use crate::protocol::api::{Answer, Api, Head, Limits, Line};
use crate::protocol::sigv4::{self, Credentials, Scope};
use crate::record::{Record, UnixMicros};

/// Level 1 of gzip shrinks the JSON of lines to a third, at a quarter of the cost of level 6.
const LEVEL: Compression = Compression::new(1);

/// The JSON of lines is seldom larger than this many times the lines in the spool.
const BODY_OF_LINES: usize = 2;

/// Lines that are more than an API takes in one request.
#[derive(Debug)]
pub struct TooLarge {
    /// How many requests will probably do.
    pub parts: usize,
    /// The reason, for a line that is alone.
    pub why: String,
}

/// A request that is made.
pub struct Made {
    pub request: Request<Full<Bytes>>,
    /// The places of its lines that are sent with the time of sending.
    pub restamped: Vec<usize>,
}

/// Why no request is made of these lines.
#[derive(Debug)]
pub enum Unfit {
    TooLarge(TooLarge),
    /// These lines are not to be sent at all, with the reasons.
    TooOld(Vec<(usize, String)>),
}

/// Makes requests for one server.
pub struct Requests {
    settings: Arc<HttpSettings>,
    api: Api,
    age_limit: AgeLimit,
    sd_id: String,
    head: Head,
    /// The request target: the path, or the whole URL for a proxy that reads our requests (RFC 9112 3.2.2).
    path: String,
    /// The `Host` header: the server's name, and its port unless that is the default.
    host: String,
    /// The scope of signatures; `None`: requests are not signed.
    scope: Option<Scope>,
    /// A proxy that reads our requests, as proxies do without TLS.
    proxy: Option<Proxy>,
    secrets: Secrets,
    /// The channel of Splunk's acknowledgements.
    channel: Option<String>,
}

impl Requests {
    pub fn new(target: &Target, endpoint: &Endpoint, settings: Arc<HttpSettings>, dialer: &Dialer) -> Self {
        let sd_id = dialer.sd_id().to_owned();
        let api = api(&settings, &dialer.numbering.stream, &sd_id);
        let age_limit = AgeLimit { max_age: settings.max_age.or(api.max_age()), too_old: settings.too_old };
        let head = api.head();
        let (mut path, server) = (path(target.address.path(), head.path), server(target, endpoint));
        if api.objects().is_some() {
            path = sigv4::strict_path(path.trim_end_matches('/'));
        }
        let host = host(&server, target.address.is_tls()).to_owned();
        let scope = scope(&settings, server.rsplit_once(':').map_or(&*server, |(host, _)| host));
        // With TLS the proxy has a tunnel and does not read requests.
        let proxy = target.proxy.clone().filter(|_| !target.address.is_tls());
        if proxy.is_some() {
            path = format!("http://{host}{path}");
        }
        let channel = match &api {
            Api::Splunk(splunk) if splunk.ack != Ack::Off => Some(guid(rand::random())),
            _ => None,
        };
        Self { channel, settings, api, age_limit, sd_id, head, path, host, scope, proxy, secrets: Secrets::default() }
    }

    /// Whether a request needs AWS credentials.
    pub fn is_signed(&self) -> bool {
        self.scope.is_some()
    }

    pub fn api(&self) -> &Api {
        &self.api
    }

    /// The bytes of lines in a batch (no more than a request will probably carry), and how long fewer bytes wait for more.
    pub fn batch(&self) -> (usize, Duration) {
        let HttpSettings { batch, batch_wait, ref s3, .. } = *self.settings;
        match self.api.objects() {
            Some(_) => (s3.object, s3.object_wait),
            None => (batch.min(self.api.limits().bytes / BODY_OF_LINES), batch_wait),
        }
    }

    /// Divides a batch, whose requests are sent at `now`, if the API has rules for that.
    pub fn arrange(&self, batch: &Batch, now: UnixMicros) -> Verdicts {
        if self.api.objects().is_some() {
            // An object has lines of one session (one opening of the spool).
            let ids: Vec<_> = batch.lines().map(|(id, ..)| id).collect();
            let (mut requests, mut place) = (Vec::new(), 0);
            for run in ids.chunk_by(|one, other| one.session == other.session) {
                requests.push((place..place + run.len()).collect());
                place += run.len();
            }
            return Verdicts::arranged(requests);
        }
        let Some(cloud_watch) = self.api.arranged() else { return Verdicts::new(batch) };
        let lines = batch.lines().map(|(id, line, _)| {
            let record = Record::from_line(line, &self.sd_id);
            let sent_at = match self.sending(&record, now) {
                Sending::At(now) => Some(now),
                Sending::AsItIs | Sending::Never(_) => None,
            };
            Line { id, record, sent_at }
        });
        Verdicts::arranged(cloud_watch.arrange(&lines.collect::<Vec<_>>()))
    }

    fn sending(&self, record: &Record<'_>, now: UnixMicros) -> Sending {
        match self.age_limit.sending(record.time(), now) {
            // CloudWatch wants lines in the order of their times, so each line needs a time.
            Sending::AsItIs if record.time().is_none() && self.api.arranged().is_some() => Sending::At(now),
            sending => sending,
        }
    }

    /// A request for the lines at these places of a batch, in their order, which is sent at `now`. Reads the file with the token, if
    /// there is one.
    pub fn make(
        &self,
        batch: &Batch,
        places: &[usize],
        now: UnixMicros,
        credentials: Option<&Credentials>,
    ) -> io::Result<Result<Made, Unfit>> {
        if let Some(s3) = self.api.objects() {
            let request = self.object(s3, (batch, places), credentials)?;
            return Ok(Ok(Made { request, restamped: Vec::new() }));
        }
        let limits = self.api.limits();
        if let Some(too_large) = TooLarge::by_count(places.len(), limits) {
            return Ok(Err(Unfit::TooLarge(too_large)));
        }
        let all: Vec<_> = batch.lines().collect();
        let (mut lines, mut bytes) = (Vec::with_capacity(places.len()), 0);
        let (mut restamped, mut too_old) = (Vec::new(), Vec::new());
        for &place in places {
            let (id, line, _) = all[place];
            bytes += line.len();
            let record = Record::from_line(line, &self.sd_id);
            let sent_at = match self.sending(&record, now) {
                Sending::AsItIs => None,
                Sending::At(now) => {
                    restamped.push(place);
                    Some(now)
                }
                Sending::Never(age) => {
                    too_old.push((place, self.too_old(age)));
                    continue;
                }
            };
            lines.push(Line { id, record, sent_at });
        }
        if !too_old.is_empty() {
            return Ok(Err(Unfit::TooOld(too_old)));
        }
        let mut body = Vec::with_capacity(BODY_OF_LINES * bytes);
        self.api.body(&lines, &mut body);
        if let Some(too_large) = TooLarge::by_bytes(lines.len(), body.len(), limits) {
            return Ok(Err(Unfit::TooLarge(too_large)));
        }
        let request = self.request(body, None, credentials)?;
        Ok(Ok(Made { request, restamped }))
    }

    /// The request that asks whether lines would be taken, if the API has one.
    pub fn make_of_none(&self, credentials: Option<&Credentials>) -> Option<io::Result<Request<Full<Bytes>>>> {
        Some(self.finish(&self.path, self.api.body_of_none()?.to_vec(), (None, false), credentials))
    }

    /// A request that creates the stream or the group for the line at this place of a batch.
    pub fn creation(
        &self,
        what: Creation,
        (batch, place): (&Batch, usize),
        credentials: Option<&Credentials>,
    ) -> io::Result<Request<Full<Bytes>>> {
        let mut body = Vec::new();
        if let (Some(cloud_watch), Some((_, line, _))) = (self.api.arranged(), batch.lines().nth(place)) {
            cloud_watch.creation(what, &Record::from_line(line, &self.sd_id), &mut body);
        }
        self.request(body, Some(what), credentials)
    }

    /// The request that puts the object of the lines at these places, which are in order and of one session.
    fn object(
        &self,
        s3: &S3,
        (batch, places): (&Batch, &[usize]),
        credentials: Option<&Credentials>,
    ) -> io::Result<Request<Full<Bytes>>> {
        let (Some(first), Some(last)) = (places.first(), places.last()) else {
            return Err(io::Error::other("an object has a line"));
        };
        let mut encoder = self.settings.compress.then(|| GzEncoder::new(Vec::new(), LEVEL));
        let (mut plain, mut ends_with, mut key) = (Vec::new(), None, String::new());
        // Line by line: the object in plain text would be twice as large as all its lines.
        for (id, line, _) in batch.lines().skip(*first).take(last - first + 1) {
            let record = Record::from_line(line, &self.sd_id);
            if key.is_empty() {
                key = s3.key(id, &record, self.settings.compress);
            }
            s3.body(&[Line { id, record, sent_at: None }], &mut plain);
            if let Some(encoder) = &mut encoder {
                encoder.write_all(&plain)?;
                plain.clear();
            }
            ends_with = Some(id);
        }
        let body = encoder.map_or(Ok(plain), GzEncoder::finish)?;
        let request = self.to(Method::PUT, &self.path_of(&key));
        let request = request.header(IF_NONE_MATCH, "*").header(s3::LAST, ends_with.map(s3::last).unwrap_or_default());
        self.sealed(self.with_content(request, self.head.content_type, self.settings.compress), body, credentials)
    }

    /// A HEAD request for the object that begins with the line at this place.
    pub fn look(
        &self,
        (batch, first): (&Batch, usize),
        credentials: Option<&Credentials>,
    ) -> io::Result<Request<Full<Bytes>>> {
        let key = self
            .api
            .objects()
            .zip(batch.lines().nth(first))
            .map(|(s3, (id, line, _))| s3.key(id, &Record::from_line(line, &self.sd_id), self.settings.compress));
        self.sealed(self.to(Method::HEAD, &self.path_of(&key.unwrap_or_default())), Vec::new(), credentials)
    }

    fn path_of(&self, key: &str) -> String {
        format!("{}/{key}", self.path)
    }

    /// The head that all requests have.
    fn to(&self, method: Method, path: &str) -> Builder {
        let user_agent = concat!("logferry/", env!("CARGO_PKG_VERSION"));
        Request::builder().method(method).uri(path).header(HOST, &self.host).header(USER_AGENT, user_agent)
    }

    /// Adds the headers about the body, and the headers of the config.
    fn with_content(&self, mut request: Builder, content_type: &str, is_compressed: bool) -> Builder {
        request = request.header(CONTENT_TYPE, content_type);
        for pair in &self.settings.headers {
            request = request.header(&pair.name, &pair.value);
        }
        if is_compressed { request.header(CONTENT_ENCODING, "gzip") } else { request }
    }

    fn request(
        &self,
        mut body: Vec<u8>,
        makes: Option<Creation>,
        credentials: Option<&Credentials>,
    ) -> io::Result<Request<Full<Bytes>>> {
        if self.settings.compress {
            let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 2), LEVEL);
            encoder.write_all(&body)?;
            body = encoder.finish()?;
        }
        self.finish(&self.path, body, (makes, self.settings.compress), credentials)
    }

    /// The ID under which Splunk will acknowledge the request with this answer; `None`: it will not.
    pub fn ack_id(&self, answer: &Answer<'_>) -> Option<u64> {
        if let Api::Splunk(splunk) = &self.api { splunk.ack_id(answer) } else { None }
    }

    /// Asks which of these requests are acknowledged.
    pub fn make_question(&self, ids: &[u64]) -> io::Result<Request<Full<Bytes>>> {
        let path = self.path.strip_suffix("event").unwrap_or(&self.path);
        let path = format!("{path}ack?channel={}", self.channel.as_deref().unwrap_or_default());
        self.finish(&path, splunk::ask_for(ids), (None, false), None)
    }

    fn finish(
        &self,
        path: &str,
        body: Vec<u8>,
        (makes, is_compressed): (Option<Creation>, bool),
        credentials: Option<&Credentials>,
    ) -> io::Result<Request<Full<Bytes>>> {
        // hyper writes no length for an empty body, and some servers want one (RFC 9110 8.6).
        let request = self.to(Method::POST, path).header(CONTENT_LENGTH, body.len());
        let mut request = self.with_content(request, self.head.content_type, is_compressed);
        if let Some(channel) = &self.channel {
            request = request.header(splunk::CHANNEL, channel);
        }
        if self.api.arranged().is_some() {
            request = request.header("x-amz-target", CloudWatch::operation(makes));
        }
        self.sealed(self.authorized(request)?, body, credentials)
    }

    fn authorized(&self, request: Builder) -> io::Result<Builder> {
        Ok(match self.authorization()? {
            Some((name, secret)) => request.header(name, sensitive(&secret)?),
            None => request,
        })
    }

    /// Adds the body, the signature, and our credentials for the proxy.
    fn sealed(
        &self,
        request: Builder,
        body: Vec<u8>,
        credentials: Option<&Credentials>,
    ) -> io::Result<Request<Full<Bytes>>> {
        let mut request = request.body(Full::default()).map_err(io::Error::other)?;
        if let (Some(scope), Some(credentials)) = (&self.scope, credentials) {
            sign(&mut request, &body, (scope, credentials))?;
            let Credentials { secret_key, session_token, .. } = credentials;
            self.secrets.note([secret_key].into_iter().chain(session_token).cloned().collect());
        }
        if let Some(credentials) = self.proxy.as_ref().and_then(Proxy::credentials) {
            request.headers_mut().insert(PROXY_AUTHORIZATION, sensitive(&basic(&credentials))?);
        }
        *request.body_mut() = Full::new(body.into());
        Ok(request)
    }

    /// A request that searches for stored lines. `None`: the API has no such request.
    pub fn search(
        &self,
        sought: &Sought<'_>,
        credentials: Option<&Credentials>,
    ) -> Option<io::Result<Request<Full<Bytes>>>> {
        let Question { path, body } = self.api.question(sought)?;
        let path = format!("{}{path}", self.path.strip_suffix(self.head.path).unwrap_or_default());
        let (method, body) = match body {
            Some(body) => (Method::POST, body.into_bytes()),
            None => (Method::GET, Vec::new()),
        };
        let request = self.to(method, &path).header(CONTENT_LENGTH, body.len());
        let request = self.authorized(self.with_content(request, "application/json", false));
        Some(request.and_then(|request| self.sealed(request, body, credentials)))
    }

    fn too_old(&self, age: Duration) -> String {
        let whole = |time: Duration| humantime::format_duration(Duration::from_secs(time.as_secs())).to_string();
        let max_age = self.age_limit.max_age.map(whole).unwrap_or_default();
        format!("the line is {} old, and `max-age` is {max_age}", whole(age))
    }

    /// The header that authenticates us, and its value.
    fn authorization(&self) -> io::Result<Option<(&'static str, String)>> {
        if let Some(token) = self.settings.token() {
            let token = token.read()?;
            let (header, scheme) = self.api.token_header();
            // A token has no blank, so text before a blank is another scheme.
            let (value, secret) = match token.split_once(' ') {
                Some((_, secret)) => (token.clone(), secret.to_owned()),
                None => (format!("{scheme}{token}"), token),
            };
            self.secrets.note(vec![secret]);
            return Ok(Some((header, value)));
        }
        let Some(password) = self.settings.password() else { return Ok(None) };
        let password = password.read()?;
        let both = format!("{}:{password}", self.settings.user.as_deref().unwrap_or_default());
        let value = basic(&both);
        self.secrets.note(vec![password, value.trim_start_matches("Basic ").to_owned()]);
        Ok(Some((AUTHORIZATION.as_str(), value)))
    }

    /// An answer without our secrets.
    pub fn without_secrets(&self, answered: Answered) -> Answered {
        self.secrets.hide(answered)
    }
}

/// The `Host` header for a server: without the default port, which AWS does not sign either. `server`: `host:port`.
fn host(server: &str, is_tls: bool) -> &str {
    server.strip_suffix(if is_tls { ":443" } else { ":80" }).unwrap_or(server)
}

impl TooLarge {
    fn by_count(lines: usize, limits: Limits) -> Option<Self> {
        let why = || format!("a request has {} lines at most", limits.lines);
        (lines > limits.lines).then(|| Self { parts: lines.div_ceil(limits.lines), why: why() })
    }

    fn by_bytes(lines: usize, bytes: usize, limits: Limits) -> Option<Self> {
        let limit = if lines == 1 { limits.line } else { limits.bytes };
        let why = || format!("the line takes {bytes} bytes in a request, and the API takes {limit}");
        (bytes > limit).then(|| Self { parts: bytes.div_ceil(limit), why: why() })
    }
}

/// A GUID in the form that Splunk wants.
fn guid(random: u128) -> String {
    let hex = format!("{random:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// The path of a request: the path in the config, followed by the path of the API. If the API has none, the config's path stays as it is.
fn path(written: &str, of_api: &str) -> String {
    match (written, of_api) {
        ("", "") => "/".to_owned(),
        // A query needs a path before it.
        (query, "") if query.starts_with('?') => format!("/{query}"),
        (path, "") => path.to_owned(),
        (path, of_api) => format!("{}{of_api}", path.trim_end_matches('/')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_in_front_of_an_api_stays() {
        let check =
            |written: &str, of_api: &str, expected: &str| assert_eq!(path(written, of_api), expected, "{written}");
        check("", "/_bulk?a=b", "/_bulk?a=b");
        check("/", "/_bulk", "/_bulk");
        check("/es/", "/_bulk", "/es/_bulk");
        check("", "", "/");
        check("/hook/", "", "/hook/");
        check("/hook?a=b", "", "/hook?a=b");
        check("?a=b", "", "/?a=b");
    }

    #[test]
    fn a_usual_port_is_not_in_the_host() {
        let check = |server: &str, is_tls: bool, expected: &str| assert_eq!(host(server, is_tls), expected);
        check("a:443", true, "a");
        check("[2001:db8::1]:80", false, "[2001:db8::1]");
        check("a:443", false, "a:443");
        check("a:9200", true, "a:9200");
    }

    #[test]
    fn what_an_api_does_not_take_is_divided_before_it_is_sent() {
        let limits = Limits { lines: 1000, bytes: 100, line: 200 };
        let parts = |too_large: Option<TooLarge>| too_large.map(|too_large| too_large.parts);
        assert_eq!(parts(TooLarge::by_count(1000, limits)), None);
        assert_eq!(parts(TooLarge::by_count(2001, limits)), Some(3));
        assert_eq!(parts(TooLarge::by_bytes(2, 100, limits)), None);
        assert_eq!(parts(TooLarge::by_bytes(2, 301, limits)), Some(4));
        assert_eq!(parts(TooLarge::by_bytes(1, 200, limits)), None);
        let alone = TooLarge::by_bytes(1, 201, limits).expect("too large");
        assert_eq!(alone.why, "the line takes 201 bytes in a request, and the API takes 200");
        assert_eq!(parts(TooLarge::by_count(usize::MAX, Limits::NONE)), None);
        assert_eq!(parts(TooLarge::by_bytes(1, usize::MAX, Limits::NONE)), None);
    }
}
