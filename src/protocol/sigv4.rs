//! AWS Signature Version 4 (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>): an HMAC-SHA256
//! over a canonical form of the request. The key is derived from the secret, the day, the region and the service. The secret itself is
//! never sent. Pure: the time is an argument, like everything else.

use std::collections::BTreeMap;
use std::fmt;

use ring::digest::{SHA256, digest};
use ring::hmac::{HMAC_SHA256, Key, sign};

use crate::hex;
use crate::record::time::StampWriter;
use crate::record::{Stamp, UnixMicros};
use crate::sorted::sort_by;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const TERMINATOR: &str = "aws4_request";

/// AWS credentials. Neither `Debug` nor anything else shows the secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub access_key: String,
    pub secret_key: String,
    /// Set for temporary credentials.
    pub session_token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({}, ***)", self.access_key)
    }
}

/// The scope in which a signature is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    pub region: String,
    /// `logs`, `s3`, `es`, …
    pub service: &'static str,
}

/// A request as it will be sent.
pub struct ToSign<'a> {
    pub method: &'a str,
    /// As in the request line, including the query.
    pub target: &'a str,
    /// The signed headers. A name that occurs twice is one header with two values.
    pub headers: &'a [(&'a str, &'a str)],
    /// Hexadecimal digits, see [`hash`].
    pub body_hash: &'a str,
}

/// The SHA-256 of a body, in the form of `x-amz-content-sha256`.
pub fn hash(body: &[u8]) -> String {
    hex::encode(digest(&SHA256, body).as_ref())
}

/// A time in the form of `x-amz-date`: `20150830T123600Z`.
pub fn date(time: UnixMicros) -> String {
    let mut stamp = Vec::new();
    StampWriter::default().write(&Stamp::Received(time), &mut stamp);
    // `2015-08-30T12:36:00…Z`
    let digits = stamp.iter().take(19).filter(|byte| !b"-:".contains(byte)).map(|byte| char::from(*byte));
    digits.chain(['Z']).collect()
}

/// The value of the header `Authorization`. `date`: the value of `x-amz-date`, which must be one of the headers.
pub fn authorization(request: &ToSign<'_>, scope: &Scope, credentials: &Credentials, date: &str) -> String {
    let (canonical, signed_headers) = canonical(request, scope.service);
    let day = date.get(..8).unwrap_or_default();
    let Scope { region, service } = scope;
    let scope = format!("{day}/{region}/{service}/{TERMINATOR}");
    let to_sign = format!("{ALGORITHM}\n{date}\n{scope}\n{}", hash(canonical.as_bytes()));
    let first = format!("AWS4{}", credentials.secret_key).into_bytes();
    let key = [day, region, service, TERMINATOR].iter().fold(first, |key, part| hmac(&key, part.as_bytes()));
    let signature = hex::encode(&hmac(&key, to_sign.as_bytes()));
    let key = &credentials.access_key;
    format!("{ALGORITHM} Credential={key}/{scope}, SignedHeaders={signed_headers}, Signature={signature}")
}

fn hmac(key: &[u8], data: &[u8]) -> Vec<u8> {
    sign(&Key::new(HMAC_SHA256, key), data).as_ref().to_vec()
}

/// The canonical request, and the names of its headers.
fn canonical(request: &ToSign<'_>, service: &str) -> (String, String) {
    let (path, query) = request.target.split_once('?').unwrap_or((request.target, ""));
    // S3 signs the path as it is: in the name of an object `//` and `..` have no special meaning.
    let path = if service == "s3" { path.to_owned() } else { encode(&normal_path(path), b"/") };
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in request.headers {
        let value = value.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
        let values = headers.entry(name.to_ascii_lowercase());
        values.and_modify(|values| *values += &format!(",{value}")).or_insert(value);
    }
    let names = headers.keys().map(String::as_str).collect::<Vec<_>>().join(";");
    let headers: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let ToSign { method, body_hash, .. } = request;
    (format!("{method}\n{path}\n{}\n{headers}\n{names}\n{body_hash}", canonical_query(query)), names)
}

/// A path without `.`, `..` and empty segments (RFC 3986 6.2.2.3).
fn normal_path(path: &str) -> String {
    let mut names = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    let is_open = path.ends_with('/') && !names.is_empty();
    format!("/{}{}", names.join("/"), if is_open { "/" } else { "" })
}

fn canonical_query(query: &str) -> String {
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (encode_bytes(&decode(name), b""), encode_bytes(&decode(value), b""))
    });
    let mut pairs: Vec<_> = pairs.collect();
    sort_by(&mut pairs, Ord::cmp);
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// A path as S3 signs it: every byte except the unreserved ones and `/` is written as `%XX`.
pub fn strict_path(path: &str) -> String {
    encode_bytes(&decode(path), b"/")
}

/// Writes `%XX` for each byte except the unreserved ones (RFC 3986 2.3) and those in `but`.
pub fn encode(text: &str, but: &[u8]) -> String {
    encode_bytes(text.as_bytes(), but)
}

fn encode_bytes(bytes: &[u8], but: &[u8]) -> String {
    let mut encoded = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte.is_ascii_alphanumeric() || b"-._~".contains(byte) || but.contains(byte) {
            true => encoded.push(char::from(*byte)),
            false => encoded += &format!("%{byte:02X}"),
        }
    }
    encoded
}

/// Decodes `%XX` (RFC 3986 2.1). A `%` without two hexadecimal digits stands for itself.
fn decode(text: &str) -> Vec<u8> {
    let (mut decoded, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((byte, behind)) = rest.split_first() {
        match behind.get(..2).and_then(hex::decode::<1>).filter(|_| *byte == b'%') {
            Some([byte]) => {
                decoded.push(byte);
                rest = &behind[2..];
            }
            None => {
                decoded.push(*byte);
                rest = behind;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const TOKEN: &str = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/\
        qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL\
        64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";

    /// A case of AWS' own test suite, `aws-sig-v4-test-suite`. `target`: `GET /?a=b`.
    #[track_caller]
    fn suite(target: &str, headers: &[(&str, &str)], body: &str, signed: &str, signature: &str) {
        let (method, target) = target.split_once(' ').expect("a request line");
        let date = "20150830T123600Z";
        let headers = [&[("Host", "example.amazonaws.com"), ("X-Amz-Date", date)], headers].concat();
        let request = ToSign { method, target, headers: &headers, body_hash: &hash(body.as_bytes()) };
        let credentials = Credentials {
            access_key: "AKIDEXAMPLE".to_owned(),
            secret_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
            session_token: None,
        };
        let scope = Scope { region: "us-east-1".to_owned(), service: "service" };
        assert_eq!(
            authorization(&request, &scope, &credentials, date),
            format!(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders={signed}, Signature={signature}"
            ),
            "{target}"
        );
    }

    #[test]
    fn paths_and_queries_of_the_test_suite() {
        let check = |target: &str, signature: &str| suite(target, &[], "", "host;x-amz-date", signature);
        let unreserved = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        // get-vanilla, post-vanilla
        check("GET /", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31");
        check("POST /", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b");
        // get-vanilla-query-order-key-case, get-vanilla-query-order-value
        check("GET /?Param2=value2&Param1=value1", "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500");
        check("GET /?Param1=value2&Param1=value1", "5772eed61e12b33fae39ee5e7012498b51d56abc0abb7c60486157bd471c4694");
        // get-utf8, get-vanilla-utf8-query
        check("GET /ሴ", "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85");
        check("GET /?ሴ=bar", "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04");
        check("GET /?%E1%88%b4=bar", "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04");
        // get-unreserved, get-vanilla-query-unreserved
        let path = "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f";
        check(&format!("GET /{unreserved}"), path);
        let query = "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197";
        check(&format!("GET /?{unreserved}={unreserved}"), query);
        // normalize-path: get-slashes, get-relative-relative, get-slash-dot-slash, get-space
        check("GET //example//", "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84");
        check("GET /example1/example2/../..", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31");
        check("GET /./", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31");
        check("GET /example space/", "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741");
    }

    #[test]
    fn headers_and_bodies_of_the_test_suite() {
        let check = |headers: &[(&str, &str)], signed: &str, signature: &str| {
            let method = if headers[0].0 == "My-Header1" && headers.len() > 1 { "GET" } else { "POST" };
            suite(&format!("{method} /"), headers, "", signed, signature);
        };
        // get-header-value-trim, get-header-value-order, post-header-key-sort
        check(
            &[("My-Header1", " value1"), ("My-Header2", " \"a   b   c\"")],
            "host;my-header1;my-header2;x-amz-date",
            "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
        );
        check(
            &["value4", "value1", "value3", "value2"].map(|value| ("My-Header1", value)),
            "host;my-header1;x-amz-date",
            "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01",
        );
        check(
            &[("My-Header1", "value1")],
            "host;my-header1;x-amz-date",
            "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
        );
        // post-sts-header-before
        check(
            &[("X-Amz-Security-Token", TOKEN)],
            "host;x-amz-date;x-amz-security-token",
            "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
        );
        // post-x-www-form-urlencoded
        suite(
            "POST /",
            &[("Content-Type", "application/x-www-form-urlencoded")],
            "Param1=value1",
            "content-type;host;x-amz-date",
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        );
    }

    /// The examples of <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>.
    #[test]
    fn examples_of_s3s_own_page() {
        let credentials = Credentials {
            access_key: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
            session_token: None,
        };
        let scope = Scope { region: "us-east-1".to_owned(), service: "s3" };
        let check = |method: &str, target: &str, headers: &[(&str, &str)], body_hash: &str, signature: &str| {
            let date = "20130524T000000Z";
            let always = [("host", "examplebucket.s3.amazonaws.com"), ("x-amz-date", date)];
            let headers = [&always[..], headers, &[("x-amz-content-sha256", body_hash)]].concat();
            let request = ToSign { method, target, headers: &headers, body_hash };
            let said = authorization(&request, &scope, &credentials, date);
            assert!(said.ends_with(&format!(", Signature={signature}")), "{target}: {said}");
        };
        check(
            "GET",
            "/test.txt",
            &[("Range", "bytes=0-9")],
            EMPTY,
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        );
        check(
            "PUT",
            &format!("/{}", encode("test$file.text", b"/")),
            &[("Date", "Fri, 24 May 2013 00:00:00 GMT"), ("x-amz-storage-class", "REDUCED_REDUNDANCY")],
            &hash(b"Welcome to Amazon S3."),
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        );
        let lifecycle = "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543";
        check("GET", "/?lifecycle", &[], EMPTY, lifecycle);
    }

    #[test]
    fn a_path_to_s3_has_one_form() {
        assert_eq!(strict_path("/a+b/c%20d/~e//$%7e%zz"), "/a%2Bb/c%20d/~e//%24~%25zz");
    }

    #[test]
    fn a_time_is_written_as_aws_wants_it() {
        let time = UnixMicros::from_rfc3339(b"2015-08-30T12:36:00.999Z").expect("a time");
        assert_eq!(date(time), "20150830T123600Z");
    }

    #[test]
    fn secrets_do_not_show() {
        let (access_key, secret_key, token) = ("AKID".to_owned(), "hunter2".to_owned(), Some("hunter3".to_owned()));
        let credentials = Credentials { access_key, secret_key, session_token: token };
        assert_eq!(format!("{credentials:?}"), "Credentials(AKID, ***)");
    }
}
