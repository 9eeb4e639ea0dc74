//! The head of a request.

use std::borrow::Cow;

use data_encoding::BASE64;

use super::{Channel, Refused, Tokens};

/// The relevant parts of a request's head.
#[derive(Clone, Copy, Debug, Default)]
pub struct Head<'a> {
    pub method: &'a str,
    pub path: &'a str,
    /// The part behind the `?`, still encoded.
    pub query: &'a str,
    /// `Authorization`
    pub authorization: Option<&'a [u8]>,
    /// `X-Splunk-Request-Channel`
    pub channel: Option<&'a [u8]>,
    /// `Content-Encoding`
    pub encoding: Option<&'a [u8]>,
}

/// The action that an authorized request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// [`Answer::options`](super::Answer::options), with the methods that the path has.
    Options(&'static str),
    /// [`Answer::health`](super::Answer::health)
    Health,
    /// [`Acks::answer`](super::Acks::answer), once its body is read.
    Ack(Option<Channel>),
    /// Events, in a body.
    Post(Post),
}

/// How a body is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    /// Lines instead of events.
    pub is_raw: bool,
    pub is_gzip: bool,
    /// The channel for acknowledgement. `None` also if it is not a GUID: Splunk refuses such a channel only where acknowledgements are
    /// asked for.
    pub channel: Option<Channel>,
    pub given: Given,
}

/// Metadata in the query, for events that lack their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    pub host: Option<String>,
    pub time: Option<String>,
    pub source: Option<String>,
    pub sourcetype: Option<String>,
    pub index: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    Event,
    Raw,
    Ack,
    Health,
}

/// The parts of the query.
#[derive(Debug, Default)]
struct Query<'a> {
    given: Given,
    channel: Option<Cow<'a, str>>,
    token: Option<Cow<'a, str>>,
}

impl Request {
    /// Reads the head of a request, and checks its token.
    pub fn read(head: &Head<'_>, tokens: &Tokens) -> Result<Self, Refused> {
        let endpoint = Endpoint::of(head.path).ok_or(Refused::Path)?;
        let (method, methods) = match endpoint {
            Endpoint::Health => ("GET", "GET, OPTIONS"),
            Endpoint::Event | Endpoint::Raw | Endpoint::Ack => ("POST", "POST, OPTIONS"),
        };
        if head.method == "OPTIONS" {
            // Docker's driver sends no token here.
            return Ok(Self::Options(methods));
        }
        if head.method != method {
            return Err(Refused::Method(methods));
        }
        let query = Query::read(head.query);
        let may = may_send(head.authorization, query.token.as_deref(), tokens);
        if endpoint == Endpoint::Health {
            return match may {
                Err(Refused::InvalidToken) => Err(Refused::InvalidHealthToken),
                // Health checks send no token.
                Ok(()) | Err(Refused::TokenRequired) => Ok(Self::Health),
                Err(why) => Err(why),
            };
        }
        may?;
        let channel = head.channel.or(query.channel.as_deref().map(str::as_bytes)).filter(|text| !text.is_empty());
        if endpoint == Endpoint::Ack {
            let channel = channel.map(|text| Channel::read(text).ok_or(Refused::InvalidChannel));
            return Ok(Self::Ack(channel.transpose()?));
        }
        Ok(Self::Post(Post {
            is_raw: endpoint == Endpoint::Raw,
            is_gzip: is_gzip(head.encoding)?,
            channel: channel.and_then(Channel::read),
            given: query.given,
        }))
    }
}

impl Endpoint {
    fn of(path: &str) -> Option<Self> {
        Some(match path.strip_prefix("/services/collector")? {
            "" | "/event" | "/event/1.0" => Self::Event,
            "/raw" | "/raw/1.0" => Self::Raw,
            "/ack" | "/ack/1.0" => Self::Ack,
            "/health" | "/health/1.0" => Self::Health,
            _ => return None,
        })
    }
}

impl<'a> Query<'a> {
    /// The last of several values counts.
    fn read(query: &'a str) -> Self {
        let mut read = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let given = match &*name {
                "host" => &mut read.given.host,
                "time" => &mut read.given.time,
                "source" => &mut read.given.source,
                "sourcetype" => &mut read.given.sourcetype,
                "index" => &mut read.given.index,
                "channel" => {
                    read.channel = Some(value);
                    continue;
                }
                "token" => {
                    read.token = Some(value);
                    continue;
                }
                _ => continue,
            };
            *given = Some(value.into_owned()).filter(|value| !value.is_empty());
        }
        read
    }
}

/// Checks the token of a request. A header has priority over the query. A valid token in the query is refused all the same: it would appear
/// in the log of every proxy, and Splunk's default is the same.
fn may_send(authorization: Option<&[u8]>, query: Option<&str>, tokens: &Tokens) -> Result<(), Refused> {
    let (token, in_query) = match (authorization, query) {
        (None, Some(token)) => (token.as_bytes().into(), true),
        _ if tokens.is_any() => return Ok(()),
        (None, None) => return Err(Refused::TokenRequired),
        (Some(authorization), _) => (token(authorization)?, false),
    };
    match tokens.has(&token) {
        false => Err(Refused::InvalidToken),
        true if in_query => Err(Refused::QueryToken),
        true => Ok(()),
    }
}

/// The token of `Splunk TOKEN`, or the password of Basic with any user name.
fn token(authorization: &[u8]) -> Result<Cow<'_, [u8]>, Refused> {
    let authorization = authorization.trim_ascii();
    let (scheme, token) = match authorization.iter().position(|byte| *byte == b' ') {
        Some(at) => (&authorization[..at], authorization[at..].trim_ascii()),
        None => (authorization, &b""[..]),
    };
    let token: Cow<'_, [u8]> = if scheme.eq_ignore_ascii_case(b"splunk") {
        token.into()
    } else if scheme.eq_ignore_ascii_case(b"basic") {
        let pair = BASE64.decode(token).map_err(|_| Refused::InvalidAuthorization)?;
        let colon = memchr::memchr(b':', &pair).ok_or(Refused::InvalidAuthorization)?;
        pair[colon + 1..].to_vec().into()
    } else if scheme.is_empty() {
        return Err(Refused::TokenRequired);
    } else {
        return Err(Refused::InvalidAuthorization);
    };
    if token.is_empty() { Err(Refused::InvalidAuthorization) } else { Ok(token) }
}

fn is_gzip(encoding: Option<&[u8]>) -> Result<bool, Refused> {
    let encoding = encoding.unwrap_or_default().trim_ascii();
    match encoding {
        b"" => Ok(false),
        _ if encoding.eq_ignore_ascii_case(b"identity") => Ok(false),
        // RFC 9110 8.4.1.3: x-gzip is equivalent to gzip.
        _ if [&b"gzip"[..], b"x-gzip"].iter().any(|known| encoding.eq_ignore_ascii_case(known)) => Ok(true),
        _ => Err(Refused::Encoding),
    }
}
