//! Each API of log stores × faults of a store or of the relay: no line is lost, and no line blocks the others. The scripted store answers
//! like that API.
//!
//! `LOGFERRY_LINES=100000 cargo test --test it store_faults:: -- --nocapture --test-threads=1` prints the rows of docs/design/faults.md.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::aws::{CREDENTIALS, asked, is_signed, problem, with_credentials};
use crate::elasticsearch::rejected;
use crate::support::dns::NAME;
use crate::support::{NameServer, Relay, Setup, Store, StorePeer, StoreRequest, eventually};

/// The default number of lines per test.
const LINES: usize = 300;
/// The line that the store always rejects, in the test for that fault.
const POISON: usize = 123;
/// A request with more lines is too large, in the test for that fault.
const TOO_MANY: usize = 10;
/// The maximum number of rejections for size: by then the divided requests of some hundred lines are small enough.
const MOST_TOO_LARGE: usize = 8;
const BATCHES: &str = "batch = \"8KiB\"\nbatch-wait = \"50ms\"";
const TOKEN: &str = "token = \"${TOKEN}\"";
const REGION: &str = "eu-central-1";
/// Additional bytes of a line to S3: an object has at least 64 KiB.
const FILLER: usize = 2000;

/// The store's reaction to a request.
#[derive(Clone, Copy, Debug)]
enum Act {
    Takes,
    /// Stores nothing, and answers with this status and these headers.
    Refuses(u16, &'static str),
    /// Sends no answer; the lines are stored or not.
    Hangs {
        has_taken: bool,
    },
    /// Stores the lines, and ends the connection in the middle of the answer.
    BreaksOff,
    /// Stores the lines, and ends the connection instead of an answer.
    Dies,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Away,
    Hung,
    Killed,
    TooManyRequests,
    Unavailable,
    Unauthorized,
    TooLarge,
    Poison,
    AnswerCut,
    NeverAnswered,
    NameMoves,
    RelayKilled,
}

const FAULTS: [Fault; 12] = [
    Fault::Away,
    Fault::Hung,
    Fault::Killed,
    Fault::TooManyRequests,
    Fault::Unavailable,
    Fault::Unauthorized,
    Fault::TooLarge,
    Fault::Poison,
    Fault::AnswerCut,
    Fault::NeverAnswered,
    Fault::NameMoves,
    Fault::RelayKilled,
];

impl Fault {
    /// The store's reactions to the first requests.
    fn script(self, api: &str) -> Vec<Act> {
        use Act::{BreaksOff, Dies, Hangs, Refuses, Takes};
        match self {
            // S3 does not examine lines, so its errors concern the whole bucket.
            Self::TooLarge if api == "s3" => vec![Takes, Refuses(413, ""), Refuses(413, "")],
            Self::Poison if api == "s3" => vec![Takes, Refuses(400, ""), Refuses(400, "")],
            Self::Away | Self::TooLarge | Self::Poison | Self::NameMoves => vec![],
            Self::Hung => vec![Takes, Hangs { has_taken: false }],
            Self::Killed => vec![Takes, Dies],
            Self::TooManyRequests => [vec![Takes], vec![Refuses(429, "Retry-After: 0\r\n"); 3]].concat(),
            Self::Unavailable => vec![Takes, Refuses(503, "")],
            Self::Unauthorized => vec![Takes, Refuses(401, ""), Refuses(401, "")],
            Self::AnswerCut => vec![Takes, BreaksOff],
            Self::NeverAnswered | Self::RelayKilled => vec![Takes, Hangs { has_taken: true }],
        }
    }

    /// Whether the fault can duplicate lines in a store that does not recognize duplicates.
    fn doubles(self) -> bool {
        matches!(self, Self::Killed | Self::AnswerCut | Self::NeverAnswered | Self::RelayKilled)
    }
}

/// The contents of a store, and its next reactions.
#[derive(Default)]
struct Shelf {
    script: VecDeque<Act>,
    poison: Option<usize>,
    most: Option<usize>,
    /// How often each line was stored, by its number.
    there: BTreeMap<usize, usize>,
    /// Duplicates that the store recognized by their IDs.
    known_again: usize,
    ids: BTreeMap<String, usize>,
    /// Keys of S3's objects, with the metadata that identifies their last lines.
    objects: BTreeMap<String, String>,
    requests: usize,
    /// Number of requests that were too large.
    too_large: usize,
    largest: usize,
}

/// A store with one of the APIs. Its contents outlive its connections.
struct Backend {
    shelf: Arc<Mutex<Shelf>>,
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Backend {
    fn new(api: &'static str, store: Store, fault: Fault) -> Self {
        let looks_at_lines = api != "s3";
        let shelf = Shelf {
            script: fault.script(api).into(),
            poison: (fault == Fault::Poison && looks_at_lines).then_some(POISON),
            most: (fault == Fault::TooLarge && looks_at_lines).then_some(TOO_MANY),
            ..Shelf::default()
        };
        let is_over = Arc::<AtomicBool>::default();
        let mut backend = Self { shelf: Arc::new(Mutex::new(shelf)), is_over, threads: Vec::new() };
        backend.also_at(api, store);
        backend
    }

    /// Makes the store available at another address, too.
    fn also_at(&mut self, api: &'static str, store: Store) {
        let (shelf, is_over) = (self.shelf.clone(), self.is_over.clone());
        self.threads.push(std::thread::spawn(move || {
            while let Some(mut peer) = store.accepts_unless(&is_over) {
                while let Some(request) = peer.next() {
                    if !serves(api, &shelf, &request, &mut peer) {
                        break;
                    }
                }
            }
        }));
    }

    fn ends(self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("the store has refused nothing"));
    }
}

/// Answers a request. `false`: the connection ends.
fn serves(api: &str, shelf: &Mutex<Shelf>, request: &StoreRequest, peer: &mut StorePeer) -> bool {
    let (lines, mut shelf) = (lines(api, request), shelf.lock());
    shelf.requests += 1;
    let (method, key) = request.target.split_once(' ').expect("a request line");
    if method == "HEAD" {
        match shelf.objects.get(key) {
            Some(last) => peer.answers_with(200, &format!("x-amz-meta-last: {last}\r\n"), ""),
            None => peer.answers(404, ""),
        }
        return true;
    }
    shelf.largest = shelf.largest.max(lines.len());
    let act = match shelf.script.pop_front().unwrap_or(Act::Takes) {
        Act::Takes if shelf.most.is_some_and(|most| lines.len() > most) => {
            shelf.too_large += 1;
            Act::Refuses(413, "")
        }
        act => act,
    };
    let poison = shelf.poison.and_then(|poison| lines.iter().position(|line| line.number == Some(poison)));
    match act {
        Act::Refuses(status, headers) => {
            let (status, body) = refusal(api, status);
            peer.answers_with(status, headers, &body);
        }
        Act::Hangs { has_taken: false } => {}
        Act::Takes | Act::Hangs { has_taken: true } | Act::BreaksOff | Act::Dies => {
            let is_there = api == "s3" && shelf.objects.contains_key(key);
            // Only Elasticsearch accepts the other lines of a request with a bad line.
            if !is_there && (poison.is_none() || api == "elasticsearch") {
                takes(&mut shelf, &lines);
            }
            let (status, headers, body) = match poison {
                _ if is_there => (412, "", error_of_s3("PreconditionFailed")),
                None => taken(api, lines.len()),
                Some(at) => refused(api, lines.len(), at),
            };
            if let Some(last) = request.header("x-amz-meta-last").filter(|_| !is_there) {
                shelf.objects.insert(key.to_owned(), last.to_owned());
            }
            match act {
                Act::Takes => peer.answers_with(status, headers, &body),
                Act::BreaksOff => {
                    peer.begins_answer();
                    return false;
                }
                Act::Hangs { .. } => {}
                Act::Refuses(..) | Act::Dies => return false,
            }
        }
    }
    true
}

/// Stores the lines of a request.
fn takes(shelf: &mut Shelf, lines: &[Line]) {
    for line in lines {
        let Some(number) = line.number.filter(|number| shelf.poison != Some(*number)) else { continue };
        match &line.id {
            Some(id) if shelf.ids.contains_key(id) => {
                assert_eq!(shelf.ids[id], number, "an ID is one line's");
                shelf.known_again += 1;
            }
            id => {
                id.as_ref().map(|id| shelf.ids.insert(id.clone(), number));
                *shelf.there.entry(number).or_default() += 1;
            }
        }
    }
}

/// A line of a request.
struct Line {
    /// The ID by which the store recognizes duplicates.
    id: Option<String>,
    /// The number in the text. `None`: a message of the relay itself.
    number: Option<usize>,
}

/// The lines of a request. In APIs without IDs, only lines with numbers.
fn lines(api: &str, request: &StoreRequest) -> Vec<Line> {
    if api == "elasticsearch" {
        let line = |(id, document): (String, Value)| Line {
            id: Some(id),
            number: numbers(document["message"].as_str().expect("a text")).pop(),
        };
        return request.bulk().into_iter().map(line).collect();
    }
    let text = String::from_utf8_lossy(&request.body);
    match api {
        "cloudwatch" => {
            is_signed(request, CREDENTIALS, (REGION, "logs"));
            let (operation, body) = asked(request);
            let events = body["logEvents"].as_array().expect("events");
            let hosts = events.iter().map(|event| {
                let message = event["message"].as_str().expect("a text");
                serde_json::from_str::<Value>(message).expect("JSON")["host"].clone()
            });
            assert_eq!((&*operation, &body["logGroupName"]), ("PutLogEvents", &json!("/docker/test")));
            assert!(hosts.into_iter().all(|host| host == body["logStreamName"]), "each has its own stream: {body}");
        }
        "s3" => is_of_s3(request),
        _ => {}
    }
    if api == "loki" {
        // Loki keeps only one entry with the same timestamp and text in a stream.
        let body: Value = serde_json::from_str(&text).expect("JSON");
        let streams = body["streams"].as_array().expect("streams").iter();
        let values = streams.flat_map(|stream| stream["values"].as_array().expect("values"));
        let line = |value: &Value| Line {
            id: Some(format!("{} {}", value[0], value[1])),
            number: numbers(value[1].as_str().expect("a text")).pop(),
        };
        return values.map(line).collect();
    }
    numbers(&text).into_iter().map(|number| Line { id: None, number: Some(number) }).collect()
}

/// Panics unless S3 would accept this upload or query.
fn is_of_s3(request: &StoreRequest) {
    is_signed(request, CREDENTIALS, (REGION, "s3"));
    let (method, key) = request.target.split_once(" /bucket/docker/2026/11/30/").expect("a key of the day");
    assert!(key.ends_with(".ndjson.gz") && !key.contains('/'), "{key}");
    let header = |name| request.header(name);
    if method == "HEAD" {
        return assert!(request.sent.is_empty());
    }
    assert_eq!((method, header("if-none-match"), header("content-encoding")), ("PUT", Some("*"), Some("gzip")));
    let (session, last) = header("x-amz-meta-last").and_then(|last| last.split_once('-')).expect("how it ends");
    // SPOOL-FORWARD-SESSION-FIRST
    let mut of_key = key.trim_end_matches(".ndjson.gz").rsplit('-');
    let first: usize = of_key.next().expect("a number").parse().expect("a number");
    assert_eq!(of_key.next(), Some(session), "{key}");
    assert_eq!(first + request.ndjson().len() - 1, last.parse::<usize>().expect("a number"), "{key}");
}

/// The numbers in a body, in order: each is written as `number=…;` in every format.
fn numbers(text: &str) -> Vec<usize> {
    let number = |rest: &str| rest.split_once(';')?.0.parse().ok();
    text.split("number=").skip(1).map(|rest| number(rest).unwrap_or_else(|| panic!("no number: {text}"))).collect()
}

/// Each API's answer to an accepted request: status, headers, body.
fn taken(api: &str, count: usize) -> (u16, &'static str, String) {
    match api {
        "elasticsearch" => (200, "", items(count, None)),
        "splunk" => (200, "", r#"{"text":"Success","code":0}"#.to_owned()),
        "loki" => (204, "", String::new()),
        "otlp" => (200, "Content-Type: application/x-protobuf\r\n", String::new()),
        "datadog" | "newrelic" => (202, "", "{}".to_owned()),
        "json" | "s3" => (200, "", String::new()),
        "cloudwatch" => (200, "", json!({"nextSequenceToken": "1"}).to_string()),
        _ => panic!("{api} is unknown"),
    }
}

/// Each API's answer to a request whose line at this place is rejected permanently.
fn refused(api: &str, count: usize, at: usize) -> (u16, &'static str, String) {
    match api {
        "elasticsearch" => (200, "", items(count, Some(at))),
        "splunk" => {
            (400, "", json!({"text": "Invalid data format", "code": 6, "invalid-event-number": at}).to_string())
        }
        "cloudwatch" => (400, "", problem("InvalidParameterException")),
        _ => (400, "", "a line is bad".to_owned()),
    }
}

/// Each API's equivalent of this status: status, body.
fn refusal(api: &str, status: u16) -> (u16, String) {
    let as_aws = |status, kind| match api {
        "s3" => (status, error_of_s3(kind)),
        _ => (if status == 503 { 503 } else { 400 }, problem(kind)),
    };
    match (api, status) {
        ("s3", 400) => as_aws(400, "InvalidRequest"),
        ("s3", 401) => as_aws(403, "InvalidAccessKeyId"),
        ("s3", 413) => as_aws(400, "EntityTooLarge"),
        ("s3", 429) => as_aws(503, "SlowDown"),
        ("cloudwatch", 401) => as_aws(400, "UnrecognizedClientException"),
        ("cloudwatch", 429) => as_aws(400, "ThrottlingException"),
        ("s3" | "cloudwatch", 503) => as_aws(503, "ServiceUnavailable"),
        _ => (status, "{\"no\":\"not now\"}".to_owned()),
    }
}

fn error_of_s3(code: &str) -> String {
    format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>so it is</Message></Error>")
}

fn items(count: usize, bad: Option<usize>) -> String {
    let item = |place| match bad == Some(place) {
        true => json!({"create": {"status": 400, "error": {"type": "mapper_parsing_exception", "reason": "bad"}}}),
        false => json!({"create": {"status": 201}}),
    };
    let items: Vec<Value> = (0..count).map(item).collect();
    json!({"errors": bad.is_some(), "items": items}).to_string()
}

fn said(relay: &Relay, api: &str, numbers: std::ops::Range<usize>) {
    let filler = "x".repeat(if api == "s3" { FILLER } else { 0 });
    let line = |number| format!("<14>1 2026-11-30T12:00:00.{number:06}Z host web - - - number={number};{filler}\n");
    relay.door().connect().send(numbers.map(line).collect::<String>().as_bytes());
}

/// Addresses of this API's own, so that no other test takes the port between two uses.
fn address(api: &str, last: u8) -> SocketAddr {
    let own = api.bytes().fold(0, |sum: u8, byte| sum.wrapping_mul(31).wrapping_add(byte));
    SocketAddr::from(([127, 17, own, last], 0))
}

/// URL and keys of a forward to a server.
fn forward(api: &str, server: &str) -> (String, String) {
    let (to, keys) = match api {
        "s3" => {
            let keys =
                format!("endpoint = \"{server}\"\nregion = \"{REGION}\"\nobject = \"64KiB\"\nobject-wait = \"50ms\"");
            ("s3://bucket/docker", keys)
        }
        "cloudwatch" => {
            (server, format!("api = \"cloudwatch\"\nregion = \"{REGION}\"\ngroup = \"/docker/test\"\n{BATCHES}"))
        }
        _ => (server, format!("api = \"{api}\"\n{BATCHES}\n{TOKEN}")),
    };
    (to.to_owned(), format!("answer-timeout = \"1s\"\n{keys}"))
}

fn told(api: &'static str, fault: Fault, lines: usize) {
    let names = match fault {
        Fault::NameMoves => match NameServer::start(&[&address(api, 1).ip().to_string()]) {
            Some(names) => Some(names),
            None => return,
        },
        _ => None,
    };
    let store = Store::on(address(api, 1)).expect("an address of our own");
    let at = store.address();
    let host = if names.is_some() { NAME.to_owned() } else { at.ip().to_string() };
    let section = names.as_ref().map(NameServer::section).unwrap_or_default();
    let setup = Setup::new().listen("tcp://127.0.0.1:0").variable("TOKEN", "secret").section(&section);
    let (url, keys) = forward(api, &format!("http://{host}:{}", at.port()));
    let setup = with_credentials(setup.forward_with(&url, &keys));
    let (relay, mut backend) = match fault {
        Fault::Away => {
            drop(store);
            let relay = setup.start();
            said(&relay, api, 0..lines);
            relay.has_spooled(lines);
            // The relay has failed to connect.
            eventually("it has tried", || (relay.metrics().sum("forward_connect_failures_total") > 0).then_some(()));
            let store = eventually("the store comes", || Store::on(at));
            (relay, Backend::new(api, store, fault))
        }
        _ => {
            let backend = Backend::new(api, store, fault);
            let relay = setup.start();
            said(&relay, api, 0..if fault == Fault::NameMoves { lines / 2 } else { lines });
            (relay, backend)
        }
    };
    let relay = match (fault, names) {
        (Fault::RelayKilled, _) => {
            relay.has_spooled(lines);
            eventually("a request hangs", || (backend.shelf.lock().requests >= 2).then_some(()));
            relay.kill();
            setup.start()
        }
        (Fault::NameMoves, Some(names)) => {
            relay.counts("forward_delivered_total", lines as u64 / 2);
            let new = address(api, 2);
            let store = eventually("the same port elsewhere", || Store::on(SocketAddr::new(new.ip(), at.port())));
            backend.also_at(api, store);
            names.moves_to(&new.ip().to_string());
            relay.counts("forward_moves_total", 1);
            said(&relay, api, lines / 2..lines);
            relay
        }
        _ => relay,
    };
    let dead = usize::from(fault == Fault::Poison && api != "s3");
    eventually(&format!("{api}, {fault:?}: all are there"), || {
        (backend.shelf.lock().there.len() == lines - dead && relay.metrics().sum("forward_pending") == 0).then_some(())
    });
    // The number of lines that the killed relay had left is unknown.
    if fault != Fault::RelayKilled {
        relay.balances(0);
    }
    let given_up = rejected(&relay, &setup);
    assert_eq!(given_up.len(), dead, "{api}, {fault:?}: {given_up:?}");
    assert!(given_up.iter().all(|(number, _)| *number == POISON as u64), "{given_up:?}");
    relay.stops();
    let (twice, again, largest, requests, too_large) = {
        let shelf = backend.shelf.lock();
        let twice: usize = shelf.there.values().map(|times| times - 1).sum();
        (twice, shelf.known_again, shelf.largest, shelf.requests, shelf.too_large)
    };
    backend.ends();
    let may_be_twice = if fault.doubles() && !["elasticsearch", "loki", "s3"].contains(&api) { largest } else { 0 };
    println!("| {fault:?} | {api} | {lines} | 0 | {dead} | {twice} | {again} | {requests} |");
    // The forward remembers the limit, however many lines follow.
    assert!(too_large <= MOST_TOO_LARGE, "{api}, {fault:?}: {too_large} of {requests} requests are too large");
    assert!(twice <= may_be_twice, "{api}, {fault:?}: {twice} lines are there twice, of {may_be_twice} in a request");
}

fn all_faults(api: &'static str) {
    let lines = std::env::var("LOGFERRY_LINES").map_or(LINES, |lines| lines.parse().expect("a number"));
    FAULTS.iter().for_each(|fault| told(api, *fault, lines));
}

macro_rules! apis {
    ($($api:ident)+) => {
        $(#[test]
        fn $api() {
            all_faults(stringify!($api));
        })+
    };
}

apis! { elasticsearch splunk loki otlp datadog newrelic cloudwatch s3 json }
