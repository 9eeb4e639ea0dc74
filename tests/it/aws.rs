//! AWS: signed requests, CloudWatch Logs, and sources of credentials. The test computes the signature independently, from AWS's
//! documentation. moto is a server by other authors; it does not verify signatures.

use std::collections::BTreeSet;
use std::fs;

use ring::digest::{SHA256, digest};
use ring::hmac;
use serde_json::{Value, json};

use crate::elasticsearch::rejected;
use crate::support::{Moto, Setup, Store, StorePeer, StoreRequest, says, says_at_length};

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
/// The relay's credentials: access key and secret key.
pub const CREDENTIALS: (&str, &str) = ("AKIDEXAMPLE", SECRET);
const KEYS: &str = "api = \"cloudwatch\"\ngroup = \"/docker/test\"\nregion = \"eu-central-1\"\nbatch-wait = \"50ms\"";
/// For lines with a fixed timestamp in the test.
const AS_IT_IS: &str = "too-old = \"send\"";

pub fn with_credentials(setup: Setup) -> Setup {
    let (access_key, secret_key) = CREDENTIALS;
    setup.variable("AWS_ACCESS_KEY_ID", access_key).variable("AWS_SECRET_ACCESS_KEY", secret_key)
}

/// A relay's config with credentials in environment variables.
fn to(url: &str, keys: &str) -> Setup {
    let setup = Setup::new().listen("tcp://127.0.0.1:0").forward_with(url, &format!("{KEYS}\n{keys}"));
    with_credentials(setup)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Panics unless the request is signed with these credentials for this service. Its target must already be in canonical form.
#[track_caller]
pub fn is_signed(request: &StoreRequest, (access_key, secret_key): (&str, &str), (region, service): (&str, &str)) {
    let said = request.header("authorization").expect("a signature");
    let rest = said.strip_prefix("AWS4-HMAC-SHA256 Credential=").expect("version 4");
    let (credential, rest) = rest.split_once(", SignedHeaders=").expect("headers");
    let (signed, signature) = rest.split_once(", Signature=").expect("a signature");
    let date = request.header("x-amz-date").expect("a date");
    assert!(date.len() == 16 && date.starts_with("20") && date.as_bytes()[8] == b'T' && date.ends_with('Z'), "{date}");
    let day = &date[..8];
    assert_eq!(credential, format!("{access_key}/{day}/{region}/{service}/aws4_request"));
    let body_hash = hex(digest(&SHA256, &request.sent).as_ref());
    assert_eq!(request.header("x-amz-content-sha256"), Some(&*body_hash));
    let names: BTreeSet<&str> = signed.split(';').collect();
    assert!(signed.split(';').eq(names.iter().copied()), "in order, and each once: {signed}");
    let must = request.names().filter(|name| *name == "host" || *name == "content-type" || name.starts_with("x-amz-"));
    must.for_each(|name| assert!(names.contains(name), "{name} is not signed"));
    let (method, target) = request.target.split_once(' ').expect("a request line");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut canonical = format!("{method}\n{path}\n{query}\n");
    for name in &names {
        canonical += &format!("{name}:{}\n", request.header(name).expect("it is there"));
    }
    canonical += &format!("\n{signed}\n{body_hash}");
    let hash = hex(digest(&SHA256, canonical.as_bytes()).as_ref());
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{day}/{region}/{service}/aws4_request\n{hash}");
    let mut key = format!("AWS4{secret_key}").into_bytes();
    for part in [day, region, service, "aws4_request", &to_sign] {
        key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), part.as_bytes()).as_ref().to_vec();
    }
    assert_eq!(signature, hex(&key), "{canonical}");
}

/// The operation and the body of a request to CloudWatch, after all other parts are checked.
#[track_caller]
pub fn asked(request: &StoreRequest) -> (String, Value) {
    assert_eq!(request.target, "POST /");
    assert_eq!(request.header("content-type"), Some("application/x-amz-json-1.1"));
    let operation = request.header("x-amz-target").and_then(|target| target.strip_prefix("Logs_20140328."));
    let operation = operation.expect("a target").to_owned();
    let body: Value = serde_json::from_slice(&request.body).expect("JSON");
    if operation == "PutLogEvents" {
        let events = body["logEvents"].as_array().expect("events");
        let times: Vec<_> = events.iter().map(|event| event["timestamp"].as_u64().expect("a time")).collect();
        assert!(times.is_sorted() && times[times.len() - 1] - times[0] < 86_400_000, "{times:?}");
        let bytes: usize = messages(&body).iter().map(|message| message.len() + 26).sum();
        assert!((1..=10_000).contains(&events.len()) && bytes <= 1_048_576, "{} events, {bytes} bytes", events.len());
    }
    (operation, body)
}

fn messages(body: &Value) -> Vec<String> {
    let message = |event: &Value| event["message"].as_str().expect("a text").to_owned();
    body["logEvents"].as_array().expect("events").iter().map(message).collect()
}

/// The message texts of JSON events, as numbers.
fn numbers(messages: &[String]) -> Vec<usize> {
    let number = |message: &String| {
        let object: Value = serde_json::from_str(message).expect("JSON");
        object["message"].as_str().expect("a message").parse().expect("a number")
    };
    messages.iter().map(number).collect()
}

pub fn problem(kind: &str) -> String {
    json!({"__type": format!("com.amazonaws.logs#{kind}"), "message": "so it is"}).to_string()
}

/// Accepts requests until `count` lines have come.
fn takes(peer: &mut StorePeer, count: usize) -> Vec<usize> {
    let mut there = Vec::new();
    while there.len() < count {
        let (operation, body) = asked(&peer.hears());
        assert_eq!(operation, "PutLogEvents");
        there.extend(numbers(&messages(&body)));
        peer.answers(200, "{}");
    }
    there
}

/// The relay creates a missing group and a missing stream. It tries the stream first, for users without permission to create a group.
#[test]
fn a_stream_is_made_for_each_host() {
    let store = Store::new();
    let setup = to(&store.url(), AS_IT_IS).variable("AWS_SESSION_TOKEN", "token/1");
    let relay = setup.start();
    relay.door().connect().send(
        b"<14>1 2026-11-29T12:00:01Z one app - - - 1\n<14>1 2026-11-29T12:00:02Z two:* app - - - 2\n\
          <14>1 2026-11-29T12:00:00Z one app - - - 0\n<14>1 2026-11-27T12:00:00Z one app - - - 3\n",
    );
    let mut peer = store.accepts();
    let (mut there, mut made, mut operations) = (Vec::new(), BTreeSet::new(), Vec::new());
    while there.len() < 4 {
        let request = peer.hears();
        is_signed(&request, CREDENTIALS, ("eu-central-1", "logs"));
        assert_eq!(request.header("x-amz-security-token"), Some("token/1"));
        let (operation, body) = asked(&request);
        let (group, stream) = (body["logGroupName"].as_str(), body["logStreamName"].as_str().unwrap_or_default());
        assert_eq!(group, Some("/docker/test"));
        let has_group = made.contains("");
        match &*operation {
            "CreateLogGroup" => drop(made.insert(String::new())),
            "CreateLogStream" if has_group => drop(made.insert(stream.to_owned())),
            "PutLogEvents" if made.contains(stream) => {
                there.extend(numbers(&messages(&body)).into_iter().map(|number| (stream.to_owned(), number)));
            }
            _ => {
                peer.answers(400, &problem("ResourceNotFoundException"));
                operations.push(format!("{operation} {stream}, not there"));
                continue;
            }
        }
        peer.answers(200, "{}");
        operations.push(format!("{operation} {stream}"));
    }
    there.sort();
    let expected =
        [("one", 0), ("one", 1), ("one", 3), ("two__", 2)].map(|(stream, number)| (stream.to_owned(), number));
    assert_eq!(there, expected, "{operations:?}");
    let creations: Vec<_> = operations.iter().filter(|operation| operation.starts_with("Create")).collect();
    let expected =
        ["CreateLogStream one, not there", "CreateLogGroup ", "CreateLogStream one", "CreateLogStream two__"];
    assert_eq!(creations, expected, "{operations:?}");
    relay.has_delivered(4, 0);
    relay.stops();
}

#[test]
fn what_is_missing_is_not_made_where_it_shall_not_be() {
    let store = Store::new();
    let relay = to(&store.url(), "create = false").start();
    says(&relay, 0..1);
    let mut peer = store.accepts();
    peer.hears();
    peer.answers(400, &problem("ResourceNotFoundException"));
    relay.says("stopped: the collector refuses every line: ");
    relay.fails_because("HTTP 400 ResourceNotFoundException: so it is");
    takes(&mut store.accepts(), 1);
    relay.has_delivered(1, 0);
    relay.stops();
}

/// A 200 may report that the server has dropped some of the events. These are dead letters, and their number does not matter.
#[test]
fn what_was_thrown_away_inside_of_a_200_is_told() {
    let store = Store::new();
    let setup = to(&store.url(), AS_IT_IS);
    let relay = setup.start();
    let mut wire = relay.door().connect();
    for number in 0..150 {
        wire.send(format!("<14>1 2026-11-29T12:00:00.{number:03}Z h app - - - {number}\n").as_bytes());
    }
    let mut peer = store.accepts();
    let mut taken = 0;
    while taken < 150 {
        let (_, body) = asked(&peer.hears());
        let numbers = numbers(&messages(&body));
        let old = numbers.iter().filter(|number| **number < 120).count();
        let new = numbers.iter().position(|number| *number >= 140);
        let mut rejected = json!({});
        if old > 0 {
            rejected["tooOldLogEventEndIndex"] = old.into();
        }
        if let Some(new) = new {
            rejected["tooNewLogEventStartIndex"] = new.into();
        }
        taken += numbers.len();
        peer.answers(200, &json!({"nextSequenceToken": "1", "rejectedLogEventsInfo": rejected}).to_string());
    }
    relay.counts("forward_pending", 0);
    let letters = rejected(&relay, &setup);
    let kind = |(number, why): &(u64, String)| match why {
        why if why.contains("tooOldLogEventEndIndex") => (*number, "old"),
        why if why.contains("tooNewLogEventStartIndex") => (*number, "new"),
        why => panic!("{why}"),
    };
    let expected = (0..120).map(|number| (number, "old")).chain((140..150).map(|number| (number, "new")));
    assert!(letters.iter().map(kind).eq(expected), "{letters:?}");
    relay.counts("forward_delivered_total", 20);
    relay.balances(0);
    relay.stops();
}

/// A line may stay in the spool for longer than CloudWatch's maximum age.
#[test]
fn a_line_that_is_too_old_keeps_its_time_in_its_text() {
    let store = Store::new();
    let relay = to(&store.url(), "").start();
    relay.door().connect().send(b"<14>1 2020-01-01T00:00:00Z h app - - - 0\n");
    let mut peer = store.accepts();
    let (_, body) = asked(&peer.hears());
    assert!(body["logEvents"][0]["timestamp"].as_i64() > Some(1_780_000_000_000), "{body}");
    assert!(messages(&body)[0].starts_with("{\"timestamp\":\"2020-01-01T00:00:00Z\","), "{body}");
    peer.answers(200, "{}");
    relay.has_delivered(1, 0);
    relay.stops();
}

#[test]
fn a_server_that_is_busy_or_knows_us_not_gets_the_lines_later() {
    let store = Store::new();
    let relay = to(&store.url(), "").start();
    says(&relay, 0..10);
    let mut peer = store.accepts();
    let (_, first) = asked(&peer.hears());
    peer.answers(400, &problem("ThrottlingException"));
    let (_, again) = asked(&peer.hears());
    assert_eq!(again, first);
    peer.answers(400, &problem("ExpiredTokenException"));
    relay.says("stopped: the collector refuses every line: ");
    relay.fails_because("HTTP 400 ExpiredTokenException: so it is");
    assert!(takes(&mut store.accepts(), 10).into_iter().eq(0..10));
    relay.has_delivered(10, 0);
    relay.stops();
}

#[test]
fn the_event_that_is_refused_is_found() {
    let store = Store::new();
    let setup = to(&store.url(), "");
    let relay = setup.start();
    says(&relay, 0..20);
    let mut peer = store.accepts();
    let mut there = Vec::new();
    while there.len() < 19 {
        let (_, body) = asked(&peer.hears());
        match numbers(&messages(&body)) {
            found if found.contains(&7) => peer.answers(400, &problem("InvalidParameterException")),
            found => {
                there.extend(found);
                peer.answers(200, "{}");
            }
        }
    }
    assert!(there.into_iter().eq((0..20).filter(|number| *number != 7)));
    relay.counts("forward_pending", 0);
    assert_eq!(rejected(&relay, &setup), [(7, "HTTP 400 InvalidParameterException: so it is".to_owned())]);
    relay.stops();
}

#[test]
fn a_large_backlog_is_divided_as_cloudwatch_takes_it() {
    let store = Store::new();
    let relay = to(&store.url(), "event = \"text\"\nstream = \"{name}/{id}\"\nbatch = \"16MiB\"").start();
    let mut wire = relay.door().connect();
    // Lines without a timestamp, and with bytes that JSON escapes to six times their length.
    for number in 0..3000 {
        wire.send(&[format!("<14>1 - h app - - - {number}").as_bytes(), &[1; 500][..], b"\n"].concat());
    }
    wire.send(b"<14>1 - h app - - -\n");
    relay.has_spooled(3001);
    let mut peer = store.accepts();
    let mut there = Vec::new();
    while there.len() < 3001 {
        let request = peer.hears();
        assert!(request.body.len() <= 1_048_576, "{} bytes", request.body.len());
        let (_, body) = asked(&request);
        assert_eq!(body["logStreamName"], "app/-");
        there.extend(messages(&body));
        peer.answers(200, "{}");
    }
    assert_eq!(there.pop().as_deref(), Some(" "));
    assert!((0..3000).zip(&there).all(|(number, message)| message.starts_with(&format!("{number}\u{1}"))));
    relay.has_delivered(3001, 0);
    relay.stops();
}

/// A config without credentials, for further relays of the same test.
fn without_credentials(store: &Store, keys: &str) -> Setup {
    Setup::new().listen("tcp://127.0.0.1:0").forward_with(&store.url(), &format!("{KEYS}\n{keys}"))
}

#[track_caller]
fn takes_one_signed_by(store: &Store, access_key: &str, token: Option<&str>) {
    let mut peer = store.accepts();
    let request = peer.hears();
    is_signed(&request, (access_key, SECRET), ("eu-central-1", "logs"));
    assert_eq!(request.header("x-amz-security-token"), token);
    peer.answers(200, "{}");
}

#[test]
fn keys_are_in_the_config_or_in_a_profile() {
    let store = Store::new();
    let setup = without_credentials(&store, "access-key = \"FROMCONFIG\"\nsecret-key-file = \"{dir}/secret\"");
    fs::write(setup.path("secret"), format!("{SECRET}\n")).expect("written");
    // The config takes precedence over environment variables.
    let setup = setup.variable("AWS_ACCESS_KEY_ID", "OTHER").variable("AWS_SECRET_ACCESS_KEY", "other");
    let relay = setup.start();
    says(&relay, 0..1);
    takes_one_signed_by(&store, "FROMCONFIG", None);
    relay.has_delivered(1, 0);
    relay.stops();

    let setup = without_credentials(&store, "profile = \"logs\"");
    let file = format!(
        "[default]\naws_access_key_id=D\naws_secret_access_key=d\n[logs]\naws_access_key_id = FROMFILE\naws_secret_access_key = {SECRET}\naws_session_token = t\n"
    );
    fs::create_dir(setup.path(".aws")).expect("a directory");
    fs::write(setup.path(".aws/credentials"), file).expect("written");
    let setup = {
        let home = setup.path("").display().to_string();
        setup.variable("HOME", &home)
    };
    let relay = setup.start();
    says(&relay, 0..1);
    takes_one_signed_by(&store, "FROMFILE", Some("t"));
    relay.has_delivered(1, 0);
    relay.stops();
}

/// An endpoint's answer; `minutes`: the credentials' lifetime.
fn given(access_key: &str, minutes: i64) -> String {
    let ends = chrono::Utc::now() + chrono::TimeDelta::minutes(minutes);
    let (token, ends) = (format!("token of {access_key}"), ends.to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
    json!({"AccessKeyId": access_key, "SecretAccessKey": SECRET, "Token": token, "Expiration": ends}).to_string()
}

/// Like ECS and EKS. The relay renews credentials that expire soon, and keeps the others.
#[test]
fn a_container_is_given_credentials() {
    let (store, endpoint) = (Store::new(), Store::new());
    let setup = without_credentials(&store, "");
    fs::write(setup.path("token"), "Bearer x\n").expect("written");
    let token = setup.path("token").display().to_string();
    let setup = setup
        .variable("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("{}/v1/credentials?a=b", endpoint.url()))
        .variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &token);
    let relay = setup.start();
    let mut peer: Option<StorePeer> = None;
    for (number, (access_key, minutes)) in [("ONE", Some(4)), ("TWO", Some(60)), ("TWO", None)].into_iter().enumerate()
    {
        says(&relay, number..number + 1);
        if let Some(minutes) = minutes {
            let mut endpoint = endpoint.accepts();
            let request = endpoint.hears();
            assert_eq!(request.target, "GET /v1/credentials?a=b");
            assert_eq!(request.header("authorization"), Some("Bearer x"));
            endpoint.answers(200, &given(access_key, minutes));
        }
        let peer = peer.get_or_insert_with(|| store.accepts());
        let request = peer.hears();
        is_signed(&request, (access_key, SECRET), ("eu-central-1", "logs"));
        assert_eq!(request.header("x-amz-security-token"), Some(&*format!("token of {access_key}")));
        peer.answers(200, "{}");
        relay.counts("forward_delivered_total", number as u64 + 1);
    }
    relay.has_delivered(3, 0);
    relay.stops();
}

#[test]
fn a_machine_of_ec2_is_given_credentials() {
    let (store, endpoint) = (Store::new(), Store::new());
    let relay = without_credentials(&store, "").variable("AWS_EC2_METADATA_SERVICE_ENDPOINT", &endpoint.url()).start();
    says(&relay, 0..1);
    let ask = |target: &str, header: (&str, &str), answer: &str| {
        let mut peer = endpoint.accepts();
        let request = peer.hears();
        assert_eq!((&*request.target, request.header(header.0)), (target, Some(header.1)));
        peer.answers(200, answer);
    };
    ask("PUT /latest/api/token", ("x-aws-ec2-metadata-token-ttl-seconds", "60"), "the token");
    let token = ("x-aws-ec2-metadata-token", "the token");
    ask("GET /latest/meta-data/iam/security-credentials/", token, "the-role\n");
    ask("GET /latest/meta-data/iam/security-credentials/the-role", token, &given("EC2", 60));
    takes_one_signed_by(&store, "EC2", Some("token of EC2"));
    relay.has_delivered(1, 0);
    relay.stops();
}

#[test]
fn whoever_has_no_credentials_is_told_what_was_tried() {
    let store = Store::new();
    let relay = without_credentials(&store, "profile = \"p\"")
        .variable("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent/credentials")
        .variable("AWS_EC2_METADATA_DISABLED", "true")
        .start();
    says(&relay, 0..1);
    relay.fails_because(
        "no credentials for AWS: /nonexistent/credentials: No such file or directory (os error 2); EC2's endpoint is disabled",
    );
    relay.kill();
}

/// OpenSearch at AWS requires signed `_bulk` requests.
#[test]
fn requests_to_opensearch_are_signed_where_a_region_is_written() {
    let store = Store::new();
    let keys = "api = \"elasticsearch\"\nregion = \"eu-central-1\"\nbatch-wait = \"50ms\"";
    let setup = Setup::new().listen("tcp://127.0.0.1:0").forward_with(&store.url(), keys);
    let relay = setup.variable("AWS_ACCESS_KEY_ID", "AKID").variable("AWS_SECRET_ACCESS_KEY", SECRET).start();
    says(&relay, 0..1);
    let mut peer = store.accepts();
    let mut request = peer.hears();
    // The canonical query: sorted and percent-encoded.
    let query = "?filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason,items.*.failure_store";
    let canonical = query.replace(',', "%2C").replace('*', "%2A");
    request.target = request.target.replace(query, &canonical);
    is_signed(&request, ("AKID", SECRET), ("eu-central-1", "es"));
    peer.answers(200, "{\"errors\":false}");
    relay.has_delivered(1, 0);
    relay.stops();
}

/// The numbers in a stream, in order.
fn numbers_in(moto: &Moto, stream: &str) -> Vec<usize> {
    let (mut there, mut token) = (Vec::new(), Value::Null);
    loop {
        let mut ask =
            json!({"logGroupName": "/docker/test", "logStreamName": stream, "startFromHead": true, "limit": 10000});
        if token.is_string() {
            ask["nextToken"] = token.clone();
        }
        let answer = moto.asks("GetLogEvents", &ask);
        let events = answer["events"].as_array().unwrap_or_else(|| panic!("{answer}"));
        let found: Vec<_> = events.iter().map(|event| event["message"].as_str().expect("a text").to_owned()).collect();
        there.extend(numbers(&found));
        if answer["nextForwardToken"] == token || events.is_empty() {
            return there;
        }
        token = answer["nextForwardToken"].clone();
    }
}

/// A server by other authors: no line is lost, not even after `kill -9` with a backlog, and at most one batch is duplicated.
#[test]
fn moto_has_each_line() {
    let Some(moto) = Moto::start() else { return };
    let setup = to(&moto.url, "batch = \"8KiB\"\nstream = \"all\"");
    let relay = setup.start();
    says(&relay, 0..3000);
    relay.has_spooled(3000);
    relay.counts_up_to("forward_delivered_total", 1);
    relay.kill();
    let relay = setup.start();
    relay.counts("forward_pending", 0);
    relay.stops();
    let there = numbers_in(&moto, "all");
    let distinct: BTreeSet<_> = there.iter().copied().collect();
    assert!(distinct.into_iter().eq(0..3000), "{} lines", there.len());
    // A line is longer than 100 bytes.
    assert!(there.len() <= 3000 + 80, "{} lines", there.len());
}

const BUCKET: &str = "s3://bucket/docker%20logs";

/// The config of a bucket, besides its address. `server`: path-style, so that the path has the bucket.
fn objects(server: &str, keys: &str) -> String {
    format!("endpoint = \"{server}\"\nregion = \"eu-central-1\"\nobject-wait = \"500ms\"\n{keys}")
}

fn to_s3(server: &str, keys: &str) -> Setup {
    let setup = Setup::new().listen("tcp://127.0.0.1:0").forward_with(BUCKET, &objects(server, keys));
    with_credentials(setup)
}

/// An uploaded object.
#[derive(Clone, Debug, PartialEq)]
struct Object {
    key: String,
    last: String,
    numbers: Vec<usize>,
}

/// Reads an upload without an answer.
#[track_caller]
fn hears_object(peer: &mut StorePeer) -> Object {
    let request = peer.hears();
    is_signed(&request, CREDENTIALS, ("eu-central-1", "s3"));
    assert_eq!((request.header("if-none-match"), request.header("content-encoding")), (Some("*"), Some("gzip")));
    let key = request.target.strip_prefix("PUT /bucket/docker%20logs/").expect("a key below the prefix").to_owned();
    let last = request.header("x-amz-meta-last").expect("how it ends").to_owned();
    let objects = request.ndjson();
    let number = |object: &Value| object["message"].as_str().expect("a message").trim_start_matches('0').to_owned();
    let numbers = objects.iter().map(number).map(|number| number.parse().unwrap_or(0)).collect();
    Object { key, last, numbers }
}

/// Accepts objects until `count` lines have come.
fn takes_objects(peer: &mut StorePeer, count: usize) -> Vec<usize> {
    let mut there = Vec::new();
    while there.len() < count {
        there.extend(hears_object(peer).numbers);
        peer.answers(200, "");
    }
    there
}

/// Answers that the bucket already has this object.
fn has_it(peer: &mut StorePeer, object: &Object) {
    peer.answers(412, "<Error><Code>PreconditionFailed</Code></Error>");
    let request = peer.hears();
    is_signed(&request, CREDENTIALS, ("eu-central-1", "s3"));
    assert_eq!(request.target, format!("HEAD /bucket/docker%20logs/{}", object.key));
    peer.answers_with(200, &format!("x-amz-meta-last: {}\r\n", object.last), "");
}

/// A relay that was killed after the upload and before the cursor was saved starts with the same key. Its next object would have more
/// lines. The uploaded object counts, and the next object begins after it.
#[test]
fn an_object_that_is_there_is_not_put_twice() {
    let store = Store::new();
    let url = format!("{}/", store.url());
    let setup = to_s3(&url, "object = \"64KiB\"");
    let relay = setup.start();
    says_at_length(&relay, 0..100, 4000);
    relay.has_spooled(100);
    let mut peer = store.accepts();
    let object = hears_object(&mut peer);
    let taken = object.numbers.len();
    assert!(object.numbers.iter().copied().eq(0..taken));
    relay.kill();
    drop(peer);

    let mut larger = setup.command();
    to_s3(&url, "object = \"4MiB\"").replaces(&setup);
    let relay = setup.start_with(&mut larger);
    let mut peer = store.accepts();
    let again = hears_object(&mut peer);
    assert_eq!((&again.key, again.numbers[0]), (&object.key, 0));
    assert!(again.numbers.len() > taken, "{} and {taken} lines", again.numbers.len());
    has_it(&mut peer, &object);
    assert!(takes_objects(&mut peer, 100 - taken).into_iter().eq(taken..100));
    relay.counts("forward_pending", 0);
    relay.balances(100);
    relay.stops();
}

/// The relay has gathered fewer lines than the existing object: the cursor moves to the end of that object in one step.
#[test]
fn an_object_that_is_longer_than_ours_is_passed_whole() {
    let store = Store::new();
    let url = store.url();
    let setup = to_s3(&url, "object = \"4MiB\"");
    let relay = setup.start();
    says_at_length(&relay, 0..200, 4000);
    relay.has_spooled(200);
    let mut peer = store.accepts();
    // Until an object is longer than the next relay's object.
    let mut taken = 0;
    let object = loop {
        let object = hears_object(&mut peer);
        if object.numbers.len() > 40 || taken + object.numbers.len() == 200 {
            break object;
        }
        taken += object.numbers.len();
        peer.answers(200, "");
    };
    relay.counts("forward_delivered_total", taken as u64);
    let ends = taken + object.numbers.len();
    relay.kill();
    drop(peer);

    let mut smaller = setup.command();
    to_s3(&url, "object = \"64KiB\"").replaces(&setup);
    let relay = setup.start_with(&mut smaller);
    let mut peer = store.accepts();
    let again = hears_object(&mut peer);
    assert_eq!((&again.key, again.numbers[0]), (&object.key, taken));
    has_it(&mut peer, &object);
    assert!(takes_objects(&mut peer, 200 - ends).into_iter().eq(ends..200));
    relay.counts("forward_pending", 0);
    relay.stops();
}

/// The objects of two forwards may begin with the same line and continue with different lines.
#[test]
fn two_forwards_to_one_bucket_have_objects_of_their_own() {
    let store = Store::new();
    let url = store.url();
    let setup = to_s3(&url, "name = \"all\"").forward_with(BUCKET, &objects(&url, "name = \"some\""));
    let relay = setup.start();
    says(&relay, 0..1);
    let objects = [(), ()].map(|()| {
        let mut peer = store.accepts();
        let object = hears_object(&mut peer);
        peer.answers(200, "");
        object
    });
    assert_eq!(objects[0].numbers, objects[1].numbers);
    assert_ne!(objects[0].key, objects[1].key);
    relay.has_delivered(1, 0);
    relay.stops();
}

#[test]
fn a_bucket_that_is_busy_or_not_ours_gets_the_object_later() {
    let store = Store::new();
    let relay = to_s3(&store.url(), "").start();
    says(&relay, 0..10);
    relay.has_spooled(10);
    let mut peer = store.accepts();
    let first = hears_object(&mut peer);
    peer.answers(503, "<Error><Code>SlowDown</Code></Error>");
    assert_eq!(hears_object(&mut peer), first);
    peer.answers(403, "<Error><Code>AccessDenied</Code></Error>");
    relay.fails_because("HTTP 403: <Error><Code>AccessDenied</Code></Error>");
    assert!(takes_objects(&mut store.accepts(), 10).into_iter().eq(0..10));
    relay.has_delivered(10, 0);
    relay.stops();
}

/// A server by other authors: each line is in exactly one object, although the relay is killed repeatedly.
#[test]
fn moto_has_each_line_in_one_object() {
    let Some(moto) = Moto::start() else { return };
    moto.makes_bucket("bucket");
    let setup = to_s3(&moto.url, "object = \"64KiB\"\ncompress = \"off\"");
    let mut said = 0;
    for _ in 0..4 {
        let relay = setup.start();
        says(&relay, said..said + 1000);
        said += 1000;
        relay.has_spooled(1000);
        relay.counts_up_to("forward_delivered_total", 1);
        relay.kill();
    }
    let relay = setup.start();
    relay.counts("forward_pending", 0);
    relay.stops();
    let keys = moto.keys("bucket", "docker%20logs/");
    assert!(keys.len() > 4, "{keys:?}");
    let mut there = Vec::new();
    for key in keys {
        let lines = moto.asks_s3(&format!("GET /bucket/{}", key.replace(' ', "%20")), "");
        there.extend(String::from_utf8(lines).expect("text").lines().map(|line| {
            let object: Value = serde_json::from_str(line).expect("JSON");
            object["message"].as_str().expect("a message").parse::<usize>().expect("a number")
        }));
    }
    there.sort_unstable();
    assert!(there.iter().copied().eq(0..said), "{} lines", there.len());
}
