//! The pages of `docs/destinations` as published, except for addresses and secrets. The tests check what each config
//! delivers, and what the page's query finds. The receiver is a real one, or a strict one of these tests if the real
//! one is not available.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;

use chrono::{SecondsFormat, Utc};
use flate2::read::GzDecoder;
use serde_json::{Value, json};

use crate::pages::{Block, SAMPLE, Verb, blocks_in, text, with_certs};
use crate::support::peers::documents;
use crate::support::relay::logferry;
use crate::support::{
    Certs, Collector, Framing, Line, Moto, NatsServer, NatsUser, Osmem, OtlpReceiver, Relay, Setup, Store,
};
use tempfile::TempDir;

/// The recipes that the tests below run.
const RUN: [&str; 21] = [
    "elasticsearch",
    "cloudwatch",
    "s3",
    "s3-path",
    "nats",
    "fluent",
    "gelf",
    "splunk",
    "loki",
    "loki-tenant",
    "datadog",
    "newrelic",
    "json",
    "otlp",
    "otlp-loki",
    "otlp-grafana",
    "otlp-datadog",
    "otlp-newrelic",
    "otlp-cloudwatch",
    "otlp-elastic",
    "otlp-victorialogs",
];

const SECRET: &str = "secret";
/// The environment variables that the pages use.
const VARIABLES: [(&str, &str); 5] = [
    ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
    ("AWS_SECRET_ACCESS_KEY", SECRET),
    ("AWS_REGION", "eu-central-1"),
    ("DD_API_KEY", SECRET),
    ("NEW_RELIC_KEY", SECRET),
];

fn blocks() -> Vec<Block> {
    blocks_in("docs/destinations", 13)
}

#[test]
fn every_block_is_run_or_says_that_it_is_not() {
    let blocks = blocks();
    let mut run = BTreeSet::new();
    for block in &blocks {
        let is_known = match block.verb {
            Verb::Run | Verb::Arrives => RUN.contains(&&*block.name) && run.insert((&block.name, &block.language)),
            Verb::Check => block.language == "toml",
            Verb::Compose => block.language == "yaml",
            Verb::NotRun => block.language != "toml",
            Verb::Wire => false,
        };
        assert!(is_known, "{}: nothing runs this block", block.at);
    }
    let named = |verb: Verb| blocks.iter().filter(move |block| block.verb == verb).count();
    assert!(named(Verb::Compose) >= 12 && named(Verb::Run) >= RUN.len(), "{blocks:?}");
}

/// The config of every page is valid as published, except for the paths.
#[test]
fn every_toml_block_is_a_good_config() {
    for block in blocks().iter().filter(|block| block.language == "toml") {
        let dir = TempDir::new().expect("a directory");
        let at = dir.path().display();
        fs::write(dir.path().join("logferry.toml"), format!("[spool]\ndir = \"{at}/spool\"\n{}", in_dir(&block.text)))
            .expect("written");
        let text = fs::read_to_string(dir.path().join("logferry.toml")).expect("it is there");
        fs::write(dir.path().join("logferry.toml"), text.replace("{dir}", &at.to_string())).expect("written");
        secrets(&block.text).for_each(|name| fs::write(dir.path().join(name), SECRET).expect("written"));
        let mut command = logferry();
        command.arg("check").arg("--config").arg(dir.path().join("logferry.toml")).envs(VARIABLES);
        let output = command.output().expect("it starts");
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}: {}", block.at, String::from_utf8_lossy(&said));
    }
}

/// The names of the secrets that a config reads.
fn secrets(toml: &str) -> impl Iterator<Item = &str> {
    toml.split("/run/secrets/").skip(1).filter_map(|rest| rest.split('"').next())
}

fn in_dir(toml: &str) -> String {
    with_certs(&toml.replace("/run/secrets/", "{dir}/"))
}

/// Replaces the server of each target in a config and keeps its path. For a bucket, the server is in `endpoint`.
fn to(url: &str, toml: &str) -> String {
    let line = |line: &str| {
        let mut keys = ["to = ", "endpoint = "].into_iter();
        let Some((key, targets)) = keys.find_map(|key| Some((key, line.strip_prefix(key)?))) else {
            return line.to_owned();
        };
        let part = |(at, part): (usize, &str)| match part.split_once("://") {
            // Odd parts are between quotes.
            Some((scheme, rest)) if at % 2 == 1 && scheme != "s3" => {
                format!("{url}{}", rest.find('/').map_or("", |path| &rest[path..]))
            }
            _ => part.to_owned(),
        };
        format!("{key}{}", targets.split('"').enumerate().map(part).collect::<Vec<_>>().join("\""))
    };
    toml.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// The setup of a relay with the config of a page, which delivers to this server.
fn setup(recipe: &str, url: &str) -> Setup {
    let toml = text(&blocks(), recipe, Verb::Run, "toml");
    let setup = Setup::new().listen("tcp://127.0.0.1:0").section(&in_dir(&to(url, &toml)));
    secrets(&toml).for_each(|name| fs::write(setup.path(name), SECRET).expect("written"));
    VARIABLES.iter().fold(setup, |setup, (name, value)| setup.variable(name, value))
}

/// Sends two lines: one of the page's container, and one of another.
fn says_two(relay: &Relay, stamp: &str) {
    let line = |name: &str, text: &str| {
        let tag = format!("nginx:1.25/{name}/2a9052a5c36e");
        format!("<30>1 {stamp} docker-host-1 {tag} 23223 {tag} - {text}\n")
    };
    let lines = line("web", "GET / 200") + &line("other", "another");
    relay.door().connect().send(lines.as_bytes());
}

fn now() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// The query of a page. It must contain `what`.
#[track_caller]
fn query(recipe: &str, language: &str, verb: Verb, what: &str) -> String {
    let query = text(&blocks(), recipe, verb, language);
    assert!(query.contains(what), "{query}\nlacks {what}");
    query
}

/// The text between `start` and `end`.
#[track_caller]
fn between<'t>(text: &'t str, start: &str, end: &str) -> &'t str {
    let rest = text.split_once(start).unwrap_or_else(|| panic!("{text}\nlacks {start}")).1;
    rest.split_once(end).unwrap_or_else(|| panic!("{rest}\nlacks {end}")).0
}

/// The messages of the objects with this value at a key.
fn messages_where<'v>(objects: &'v [Value], key: &str, value: &str) -> Vec<&'v str> {
    let of = objects.iter().filter(|object| object[key] == value);
    of.map(|object| object["message"].as_str().expect("a text")).collect()
}

#[test]
fn elasticsearch_shows_the_line() {
    let Some(server) = Osmem::start() else { return };
    let relay = setup("elasticsearch", &server.url).start();
    says_two(&relay, &now());
    relay.has_delivered(2, 0);
    let query = query("elasticsearch", "sh", Verb::Run, "curl ");
    let path = between(&query, "\"https://es-1.example.com:9200", "\"");
    assert_eq!(server.count(), 2);
    let found = documents(&server.asks("GET", path, ""));
    let texts: Vec<_> = found.iter().map(|document| &document["message"]).collect();
    assert_eq!(texts, ["GET / 200"]);
    relay.stops();
}

/// moto accepts the pattern but returns all events, so the test applies the pattern itself.
#[test]
fn cloudwatch_shows_the_line() {
    let Some(moto) = Moto::start() else { return };
    let relay = setup("cloudwatch", &moto.url).start();
    says_two(&relay, &now());
    relay.has_delivered(2, 0);
    let query = query("cloudwatch", "sh", Verb::Run, "aws logs tail ");
    let group = between(&query, "aws logs tail ", " ");
    let pattern = between(&query, "--filter-pattern '", "'");
    let since = Utc::now() - chrono::TimeDelta::minutes(10);
    let ask = json!({"logGroupName": group, "filterPattern": pattern, "startTime": since.timestamp_millis()});
    let answer = moto.asks("FilterLogEvents", &ask);
    let events = answer["events"].as_array().unwrap_or_else(|| panic!("{answer}"));
    let read = |event: &Value| serde_json::from_str(event["message"].as_str().expect("a text")).expect("JSON");
    let events: Vec<Value> = events.iter().map(read).collect();
    let (key, value) = (between(pattern, "{ $.", " = "), between(pattern, " = \"", "\" }"));
    assert_eq!((events.len(), messages_where(&events, key, value)), (2, vec!["GET / 200"]));
    relay.stops();
}

#[test]
fn s3_shows_the_line() {
    let Some(moto) = Moto::start() else { return };
    moto.makes_bucket("my-bucket");
    let relay = setup("s3-path", &moto.url).start();
    says_two(&relay, "2026-11-20T22:27:33.081562Z");
    relay.has_spooled(2);
    // The relay uploads the pending object when it stops.
    relay.stops();
    let query = query("s3", "sh", Verb::Run, "zcat *.ndjson.gz | jq ");
    let keys = moto.keys("my-bucket", between(&query, "s3://my-bucket/", " "));
    let [key] = &keys[..] else { panic!("{keys:?}") };
    assert!(key.ends_with(".ndjson.gz"), "{key}");
    let mut lines = String::new();
    let object = moto.asks_s3(&format!("GET /my-bucket/{key}"), "");
    GzDecoder::new(&object[..]).read_to_string(&mut lines).expect("gzip");
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let (key, value) = (between(&query, "select(.", " == "), between(&query, " == \"", "\").message"));
    assert_eq!((lines.len(), messages_where(&lines, key, value)), (2, vec!["GET / 200"]));
}

#[test]
fn nats_shows_the_line() {
    let certs = Certs::get();
    let user = NatsUser::new(json!({}));
    let tls = format!(
        "tls {{ cert_file: \"{}\", key_file: \"{}\" }}",
        certs.path("server.pem"),
        certs.path("server-key.pem")
    );
    let Some(server) = NatsServer::on("127.0.0.1", &format!("{}\n{tls}", user.conf)) else { return };
    let setup = setup("nats", &format!("nats+tls://127.0.0.1:{}", server.address().port()));
    fs::write(setup.path("relay.creds"), &user.creds).expect("written");
    let relay = setup.start();
    says_two(&relay, &now());
    let query = query("nats", "sh", Verb::Run, "nats stream view LOGS");
    let mut client = server.client_as(|nonce| user.login(nonce));
    client.makes_stream(between(&query, "nats stream add LOGS --subjects \"", "\""), json!({}));
    relay.has_delivered(2, 0);
    let stored = client.stored();
    let shown: Vec<_> = stored.iter().map(|stored| (&*stored.subject, &stored.record["message"])).collect();
    let expected = [("logs.docker-host-1.web", &json!("GET / 200")), ("logs.docker-host-1.other", &json!("another"))];
    assert_eq!(shown, expected);
    relay.stops();
}

/// Another logferry receives in place of Fluentd, Fluent Bit or Graylog. Returns the line as it parsed it.
#[track_caller]
fn another_logferry_reads(recipe: &str, scheme: &str, keys: &str) -> Line {
    let collector = Collector::tcp(Framing::OctetCounting);
    let receiver = Setup::new();
    fs::write(receiver.path("key"), SECRET).expect("written");
    let receiver = receiver
        .listen_with(&format!("{scheme}://127.0.0.1:0"), &(Certs::get().listen() + keys))
        .forward_with(&collector.url(), "framing = \"octet-counting\"")
        .start();
    let relay = setup(recipe, &format!("{scheme}://127.0.0.1:{}", receiver.door().port())).start();
    says_two(&relay, &now());
    let lines: Vec<_> = collector.frames(2).iter().map(|frame| Line::read(frame)).collect();
    assert_eq!(lines.len(), 2);
    let web = lines.into_iter().find(|line| line.message == b"GET / 200").expect("the line");
    relay.has_delivered(2, 0);
    relay.stops();
    receiver.stops();
    web
}

#[test]
fn fluent_shows_the_line() {
    let line = another_logferry_reads("fluent", "fluent+tls", "shared-key-file = \"{dir}/key\"");
    assert_eq!(line.container()[1..], ["web", "2a9052a5c36e"]);
    // Docker's `fluentd` driver sends no image and no host, so both stay ordinary fields.
    let fields = ["image_name", "host"].map(|name| line.param("fields@32473", name));
    assert_eq!(fields, ["nginx:1.25", "docker-host-1"], "{line:?}");
}

#[test]
fn gelf_shows_the_line() {
    let line = another_logferry_reads("gelf", "gelf+tls", "");
    assert_eq!(line.container(), ["nginx:1.25", "web", "2a9052a5c36e"]);
    assert_eq!(line.host, "docker-host-1");
}

/// Uses OpenTelemetry's own package: each store's config must give the documented path and header.
#[test]
fn what_takes_otlp_is_asked_as_its_page_says() {
    let Some(receiver) = OtlpReceiver::start() else { return };
    let stores = [
        ("otlp", "/v1/logs", "content-encoding", "gzip"),
        ("otlp-loki", "/otlp/v1/logs", "x-scope-orgid", "team-a"),
        // Base64 of 123456:secret.
        ("otlp-grafana", "/otlp/v1/logs", "authorization", "Basic MTIzNDU2OnNlY3JldA=="),
        ("otlp-datadog", "/v1/logs", "dd-api-key", SECRET),
        ("otlp-newrelic", "/v1/logs", "api-key", SECRET),
        ("otlp-cloudwatch", "/v1/logs", "x-aws-log-group", "/docker/prod"),
        ("otlp-cloudwatch", "/v1/logs", "authorization", "Bearer secret"),
        ("otlp-elastic", "/v1/logs", "authorization", "ApiKey secret"),
        ("otlp-victorialogs", "/insert/opentelemetry/v1/logs", "content-encoding", "gzip"),
    ];
    for (at, (recipe, path, header, value)) in stores.into_iter().enumerate() {
        let setup = setup(recipe, &receiver.url);
        if recipe == "otlp-elastic" {
            fs::write(setup.path("elastic-key"), "ApiKey secret").expect("written");
        }
        let relay = setup.start();
        says_two(&relay, &now());
        let records = receiver.records(2 * at + 2).split_off(2 * at);
        assert!(records.iter().all(|record| record.said["path"] == path && record.said[header] == value), "{recipe}");
        let names: Vec<_> = records.iter().map(|record| record.resource.to_string()).collect();
        assert!(names[0].contains("\"web\"") && names[1].contains("\"other\""), "{names:?}");
        relay.has_delivered(2, 0);
        relay.stops();
    }
}

/// A store that is not available: the expected request, a canned answer, and the texts that its page's query looks for.
struct Asked {
    recipe: &'static str,
    target: &'static str,
    header: (&'static str, &'static str),
    answer: (u16, &'static str),
    /// Each text in the query, and its counterpart in the body.
    looks_for: &'static [(&'static str, &'static str)],
}

#[test]
fn stores_that_are_not_here_are_asked_as_their_pages_say() {
    let stores = [
        Asked {
            recipe: "splunk",
            target: "POST /services/collector/event",
            header: ("authorization", "Splunk secret"),
            answer: (200, r#"{"text":"Success","code":0}"#),
            looks_for: &[("index=main", r#""index":"main""#), (r#"container_name="web""#, r#""container_name":"web""#)],
        },
        Asked {
            recipe: "loki",
            target: "POST /loki/api/v1/push",
            header: ("content-type", "application/json"),
            answer: (204, ""),
            looks_for: &[(r#"{service_name="web"}"#, r#""service_name":"web""#)],
        },
        Asked {
            recipe: "loki-tenant",
            target: "POST /loki/api/v1/push",
            header: ("x-scope-orgid", "team-a"),
            answer: (204, ""),
            looks_for: &[],
        },
        Asked {
            recipe: "datadog",
            target: "POST /api/v2/logs",
            header: ("dd-api-key", SECRET),
            answer: (202, "{}"),
            looks_for: &[("service:web", r#""service":"web""#), ("env:prod", "env:prod")],
        },
        Asked {
            recipe: "newrelic",
            target: "POST /log/v1",
            header: ("api-key", SECRET),
            answer: (202, "{}"),
            looks_for: &[("`container.name` = 'web'", r#""container.name":"web""#)],
        },
        Asked {
            recipe: "json",
            target: "POST /logs?source=docker",
            header: ("authorization", "Bearer secret"),
            answer: (200, ""),
            looks_for: &[],
        },
    ];
    for Asked { recipe, target, header: (name, value), answer: (status, answer), looks_for } in stores {
        let store = Store::new();
        let relay = setup(recipe, &store.url()).start();
        says_two(&relay, &now());
        let (mut peer, mut bodies) = (store.accepts(), String::new());
        while !(bodies.contains("GET / 200") && bodies.contains("another")) {
            let request = peer.hears();
            assert_eq!((&*request.target, request.header(name)), (target, Some(value)), "{recipe}");
            bodies += &String::from_utf8(request.body).expect("JSON");
            peer.answers(status, answer);
        }
        for (in_query, in_body) in looks_for {
            let queries: String = blocks()
                .iter()
                .filter(|block| block.verb == Verb::NotRun && block.is_of(recipe))
                .map(|block| &*block.text)
                .collect();
            assert!(queries.contains(in_query) && bodies.contains(in_body), "{recipe}: {in_query}\n{bodies}");
        }
        relay.has_delivered(2, 0);
        relay.stops();
    }
}

#[test]
fn any_url_gets_the_object_that_its_page_shows() {
    let store = Store::new();
    let relay = setup("json", &store.url()).start();
    relay.door().connect().send(SAMPLE.as_bytes());
    let mut peer = store.accepts();
    let body = String::from_utf8(peer.hears().body).expect("JSON");
    assert_eq!(body, text(&blocks(), "json", Verb::Arrives, "json"));
    peer.answers(200, "");
    relay.has_delivered(1, 0);
    relay.stops();
}
