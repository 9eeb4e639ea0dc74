//! Signatures for AWS: the service and region that they are valid for, and their headers.

use std::{env, io};

use chrono::Utc;
use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, HeaderValue, USER_AGENT};

use super::secrets::sensitive;
use crate::config::{Api, HttpSettings};
use crate::protocol::sigv4::{self, Credentials, Scope, ToSign};
use crate::record::UnixMicros;

/// The scope of signatures; `None`: requests are not signed. `host`: the server's name.
pub fn scope(settings: &HttpSettings, host: &str) -> Option<Scope> {
    let service = match settings.api {
        Api::CloudWatch => "logs",
        Api::S3 => "s3",
        // Amazon OpenSearch Service, with servers of one's own or serverless.
        Api::Elasticsearch if settings.aws.region.is_some() => {
            if host.contains(".aoss.") {
                "aoss"
            } else {
                "es"
            }
        }
        _ => return None,
    };
    let region = settings.aws.region_of(host, |name| env::var(name).ok()).unwrap_or_default();
    Some(Scope { region, service })
}

/// Adds the headers of AWS: the time, the hash of the body, and the signature over these and all other headers but `User-Agent`.
pub fn sign(
    request: &mut Request<Full<Bytes>>,
    body: &[u8],
    (scope, credentials): (&Scope, &Credentials),
) -> io::Result<()> {
    let (date, body_hash) = (sigv4::date(UnixMicros(Utc::now().timestamp_micros())), sigv4::hash(body));
    let headers = request.headers_mut();
    for (name, value) in [("x-amz-date", &date), ("x-amz-content-sha256", &body_hash)] {
        headers.insert(name, HeaderValue::from_str(value).map_err(io::Error::other)?);
    }
    if let Some(token) = &credentials.session_token {
        headers.insert("x-amz-security-token", sensitive(token)?);
    }
    // Proxies may change the User-Agent.
    let signed = request.headers().iter().filter(|(name, _)| *name != USER_AGENT);
    let headers: Vec<_> = signed.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?))).collect();
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let to_sign = ToSign { method: request.method().as_str(), target, headers: &headers, body_hash: &body_hash };
    let value = sigv4::authorization(&to_sign, scope, credentials, &date);
    request.headers_mut().insert(AUTHORIZATION, sensitive(&value)?);
    Ok(())
}
