//! A forward's changes to lines: fields parsed from the text; time, severity and text from such fields; added fields.

use serde_json::{Value, json};

use crate::support::{Collector, Docker, Door, Format, Framing, Setup, Store, says};

const KATA: &str = "time=\"2026-11-28T17:01:58.4Z\" level=info msg=\"release sandbox\" arch=amd64 command=state \
                    name=kata-runtime pid=14314 source=virtcontainers subsystem=sandbox";
const NGINX: &str =
    "192.0.2.4 - - [28/Nov/2026:20:58:04 +0000] \"GET /jwt/keys HTTP/1.1\" 200 2139 \"-\" \"kube-probe/1.10\"";
const COUNTED: &str = "framing = \"octet-counting\"\nformat = \"json\"";

fn container(name: &str) -> Docker {
    Docker::new(Format::Rfc5424Micro, name)
}

/// These texts as a collector gets them, as JSON, with these keys of the forward.
fn shaped(keys: &str, texts: &[&str]) -> Vec<Value> {
    let collector = Collector::tcp(Framing::OctetCounting);
    let relay =
        Setup::new().listen("tcp://127.0.0.1:0").forward_with(&collector.url(), &format!("{COUNTED}\n{keys}")).start();
    let mut wire = relay.door().connect();
    texts.iter().for_each(|text| wire.says(&container("web"), text.as_bytes()));
    let frames = collector.frames(texts.len());
    relay.has_delivered(texts.len(), 0);
    relay.stops();
    frames.iter().map(|frame| serde_json::from_slice(frame).expect("JSON")).collect()
}

#[test]
fn fields_are_found_in_the_text() {
    let lines = shaped(
        "parse = [\"json\", \"logfmt\", \"nginx\"]\nprefix = \"kata_\"",
        &[KATA, NGINX, "{\"gen3log\":\"nginx\",\"number\":55}", "neither"],
    );
    assert_eq!(
        lines[0]["fields"],
        json!({
            "kata_time": "2026-11-28T17:01:58.4Z", "kata_level": "info", "kata_msg": "release sandbox", "kata_arch": "amd64",
            "kata_command": "state", "kata_name": "kata-runtime", "kata_pid": 14314, "kata_source": "virtcontainers",
            "kata_subsystem": "sandbox",
        })
    );
    assert_eq!(lines[0]["message"], KATA, "the text is what the container said");
    assert_eq!(
        (&lines[1]["fields"]["kata_status"], &lines[1]["fields"]["kata_path"]),
        (&json!(200), &json!("/jwt/keys"))
    );
    assert_eq!(lines[2]["fields"], json!({"kata_gen3log": "nginx", "kata_number": 55}));
    assert_eq!((&lines[3]["fields"], &lines[3]["message"]), (&Value::Null, &json!("neither")));
}

#[test]
fn time_severity_and_text_come_from_fields() {
    let keys = "parse = \"json\"\ntime-from = \"ts\"\nseverity-from = \"level\"\nmessage-from = \"msg\"\n\
                drop-fields = [\"pid\", \"host*\"]\nrename = { err = \"error.message\" }\nfields = { env = \"prod\", node = \"${NODE}\" }";
    let texts = [
        r#"{"ts":1795885318.25,"level":50,"msg":"no \"luck\"\n","err":"x","pid":7,"hostname":"h","o":{"a":[1,2]}}"#,
        r#"{"ts":"2026-11-28 17:01:58,123","level":"warn"}"#,
        r#"{"ts":"never","level":"loud","msg":7}"#,
    ];
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = Setup::new().listen("tcp://127.0.0.1:0").variable("NODE", "n-7");
    let relay = setup.forward_with(&collector.url(), &format!("{COUNTED}\n{keys}")).start();
    let mut wire = relay.door().connect();
    texts.iter().for_each(|text| wire.says(&container("web"), text.as_bytes()));
    let lines: Vec<Value> =
        collector.frames(3).iter().map(|frame| serde_json::from_slice(frame).expect("JSON")).collect();
    let of = |at: usize, keys: [&str; 3]| keys.map(|key| lines[at][key].clone());
    assert_eq!(
        of(0, ["timestamp", "severity", "message"]),
        ["2026-11-28T17:01:58.25Z", "err", "no \"luck\"\n"].map(Value::from)
    );
    assert_eq!(
        lines[0]["fields"],
        json!({"level": 50, "error.message": "x", "o": {"a": [1, 2]}, "original_severity": "info", "env": "prod", "node": "n-7"})
    );
    assert_eq!(
        of(1, ["timestamp", "severity", "message"]),
        ["2026-11-28T17:01:58.123Z", "warning", texts[1]].map(Value::from)
    );
    assert_eq!((&lines[2]["severity"], &lines[2]["fields"]["msg"]), (&json!("info"), &json!(7)));
    assert_eq!(lines[2]["message"], texts[2]);
    relay.has_delivered(3, 0);
    let misread = |what: &str| relay.metrics().with("forward_misread_total", what);
    assert_eq!(["form", "limit", "time", "severity"].map(misread), [0, 0, 1, 1]);
    relay.stops();
}

/// Lines whose JSON is unusable are delivered unchanged, and counted by reason.
#[test]
fn bad_json_is_carried_as_text() {
    let many: Vec<String> = (0..4000).map(|n| format!("\"k{n}\":{n}")).collect();
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(4000), "]".repeat(4000));
    let texts = [
        "{\"broken\":",
        "{\"a\":1,\"a\":2}",
        "{\"o\":[{\"a\":1,\"a\":1}]}",
        &deep,
        &format!("{{{}}}", many.join(",")),
        "{\"n\":1e999}",
    ];
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = Setup::new().listen("tcp://127.0.0.1:0");
    let relay = setup.forward_with(&collector.url(), &format!("{COUNTED}\nparse = \"json\"")).start();
    let mut wire = relay.door().connect();
    texts.iter().for_each(|text| wire.says(&container("web"), text.as_bytes()));
    for (frame, text) in collector.frames(texts.len()).iter().zip(texts) {
        let line: Value = serde_json::from_slice(frame).expect("JSON");
        assert_eq!((&line["message"], line.get("fields")), (&json!(text), None));
    }
    relay.has_delivered(texts.len(), 0);
    let misread = |what: &str| relay.metrics().with("forward_misread_total", what);
    assert_eq!(["form", "limit", "duplicate", "time", "severity"].map(misread), [1, 3, 2, 0, 0]);
    relay.stops();
}

#[test]
fn a_forward_wants_lines_by_what_is_parsed() {
    let keys = "parse = \"json\"\nmatch = { field = { status = \">=500\" } }";
    let collector = Collector::tcp(Framing::OctetCounting);
    let relay =
        Setup::new().listen("tcp://127.0.0.1:0").forward_with(&collector.url(), &format!("{COUNTED}\n{keys}")).start();
    let mut wire = relay.door().connect();
    for status in [200, 503, 404, 500] {
        wire.says(&container("web"), format!("{{\"status\":{status}}}").as_bytes());
    }
    let lines: Vec<Value> =
        collector.frames(2).iter().map(|frame| serde_json::from_slice(frame).expect("JSON")).collect();
    assert_eq!([0, 1].map(|at| lines[at]["fields"]["status"].clone()), [json!(503), json!(500)]);
    relay.counts("forward_pending", 0);
    relay.balances(0);
    relay.stops();
}

#[test]
fn a_severity_is_guessed() {
    let texts = ["ERROR no", "2026-11-28 17:01:58 [warn] x", "E1128 17:01:58.1 1 a.go:7] no", "an error, perhaps"];
    let lines = shaped("severity = \"guess\"", &texts);
    let severities: Vec<&str> = lines.iter().map(|line| line["severity"].as_str().expect("a word")).collect();
    assert_eq!(severities, ["err", "warning", "err", "info"]);
    assert_eq!(lines[0]["fields"], json!({"original_severity": "info"}));
}

/// Secrets are masked in the text, in parsed fields and in labels, also in nested values; the spool keeps the original.
#[test]
fn secrets_are_hidden() {
    let keys = "parse = \"json\"\nmask = [{ known = [\"card-number\", \"email\"] }, { pattern = 'password=\\S+', with = \"password=***\" }]";
    let texts = [
        "pays with 4111 1111 1111 1111, password=hunter2",
        r#"{"user":"a@example.com","nested":{"to":["b@example.com"],"n":1.10},"q":"password=\"x\" y"}"#,
        "nothing to hide",
    ];
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = Setup::new().listen("tcp://127.0.0.1:0");
    let relay = setup.forward_with(&collector.url(), &format!("{COUNTED}\n{keys}")).start();
    let mut wire = relay.door().connect();
    texts.iter().for_each(|text| wire.says(&container("web"), text.as_bytes()));
    let lines: Vec<Value> =
        collector.frames(3).iter().map(|frame| serde_json::from_slice(frame).expect("JSON")).collect();
    assert_eq!(lines[0]["message"], "pays with ***, password=***");
    assert_eq!(lines[1]["fields"], json!({"user": "***", "nested": {"to": ["***"], "n": 1.1}, "q": "password=*** y"}));
    assert!(!lines[1]["message"].as_str().expect("a text").contains("example.com"));
    assert_eq!(lines[2]["message"], texts[2]);
    relay.has_delivered(3, 0);
    assert_eq!(relay.metrics().sum("forward_masked_total"), 2);
    relay.stops();
}

const LABELLED: &[u8] =
    b"<30>1 2026-11-28T17:01:58Z n7 web 1 - [docker@32473 image=\"r:5000/web:1.2\" name=\"web-1\" id=\"2a9052a5c36e\"]\
    [fields@32473 com.docker.compose.service=\"shop\" env=\"dev\" zone=\"theirs\" who=\"me\"] labelled";
const BARE: &[u8] = b"<13>1 2026-11-28T17:01:58Z n7 cron - - - bare";
const GLOBAL: &str = "fields = { env = \"prod\", zone = \"none\", who = \"all\" }";
const OF_LISTENER: &str = "fields = { zone = \"dmz\", tag = \"{image.tag}\", who = \"listener\" }";
const OF_FORWARD: &str = "fields = { who = \"forward\", service = \"{label.com.docker.compose.service}\", at = \"{name}@{host}\" }\n\
    drop-fields = \"com.docker.*\"";

/// A forward's field overrides a listener's, and that overrides a global one. The first two also override the sender's.
#[test]
fn fields_are_added_to_all_lines_those_of_a_listener_and_those_of_a_forward() {
    let [shaped, plain] = [0; 2].map(|_| Collector::tcp(Framing::OctetCounting));
    let setup = Setup::new().top(GLOBAL).listen_with("tcp://127.0.0.1:0", OF_LISTENER);
    let counted = "framing = \"octet-counting\"";
    let setup = setup.forward_with(&shaped.url(), &format!("name = \"shaped\"\n{counted}\n{OF_FORWARD}"));
    let relay = setup.forward_with(&plain.url(), &format!("name = \"plain\"\n{counted}")).start();
    let mut wire = relay.door().connect();
    [LABELLED, BARE, LABELLED].iter().for_each(|line| wire.send_counted(line));
    let lines = |collector: &Collector| {
        collector.frames(3).iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect::<Vec<_>>()
    };
    let head = "<30>1 2026-11-28T17:01:58Z n7 web 1 - ";
    let container = "[docker@32473 image=\"r:5000/web:1.2\" name=\"web-1\" id=\"2a9052a5c36e\"]";
    let labelled = format!(
        "{head}[fields@32473 env=\"dev\" tag=\"1.2\" zone=\"dmz\" at=\"web-1@n7\" service=\"shop\" who=\"forward\"]{container} labelled"
    );
    let bare = "<13>1 2026-11-28T17:01:58Z n7 cron - - [fields@32473 zone=\"dmz\" env=\"prod\" at=\"cron@n7\" who=\"forward\"] bare";
    assert_eq!(lines(&shaped), [&*labelled, bare, &*labelled]);
    let labelled = format!(
        "{head}[fields@32473 com.docker.compose.service=\"shop\" env=\"dev\" tag=\"1.2\" who=\"listener\" zone=\"dmz\"]{container} labelled"
    );
    let bare = "<13>1 2026-11-28T17:01:58Z n7 cron - - [fields@32473 who=\"listener\" zone=\"dmz\" env=\"prod\"] bare";
    assert_eq!(lines(&plain), [&*labelled, bare, &*labelled]);
    relay.stops();
}

/// A forward's field with one value for all lines is a Loki label; all others are fields of a line.
#[test]
fn log_stores_have_added_fields_as_fields_and_loki_as_labels_only_where_asked() {
    let stores = [0; 3].map(|_| Store::new());
    let mut setup = Setup::new().top(GLOBAL).listen_with("tcp://127.0.0.1:0", OF_LISTENER);
    for (store, api) in stores.iter().zip(["loki", "elasticsearch", "json"]) {
        let keys =
            format!("name = \"{api}\"\napi = \"{api}\"\ncompress = \"off\"\nbatch-wait = \"50ms\"\n{OF_FORWARD}");
        setup = setup.forward_with(&store.url(), &keys);
    }
    let relay = setup.start();
    relay.door().connect().send_counted(LABELLED);
    let [loki, elasticsearch, ndjson] = stores.each_ref().map(|store| {
        let mut peer = store.accepts();
        let request = peer.hears();
        peer.answers(200, "{\"errors\":false}");
        request
    });
    let push: Value = serde_json::from_slice(&loki.body).expect("JSON");
    let stream = &push["streams"][0];
    assert_eq!(
        stream["stream"],
        json!({"job": "logferry", "host": "n7", "service_name": "web-1", "level": "info", "who": "forward"})
    );
    let metadata = &stream["values"][0][2];
    for (name, value) in [("env", "dev"), ("zone", "dmz"), ("tag", "1.2"), ("service", "shop"), ("at", "web-1@n7")] {
        assert_eq!(metadata[name], value, "{metadata}");
    }
    let fields =
        json!({"env": "dev", "zone": "dmz", "tag": "1.2", "service": "shop", "at": "web-1@n7", "who": "forward"});
    assert_eq!(elasticsearch.bulk()[0].1["labels"], fields);
    assert_eq!(ndjson.ndjson()[0]["fields"], fields);
    assert!(metadata["who_"].is_null() && metadata["com_docker_compose_service"].is_null(), "{metadata}");
    relay.stops();
}

/// The label is a field of the line, as Docker's drivers send it.
#[test]
fn a_container_chooses_how_its_lines_are_parsed() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let keys = format!("{COUNTED}\nparse = [\"label\", \"json\"]");
    let relay = Setup::new().listen("tcp://127.0.0.1:0").forward_with(&collector.url(), &keys).start();
    let mut wire = relay.door().connect();
    for (label, text) in [
        ("logferry.parse=\"logfmt\"", "a=1"),
        ("logferry.parse=\"none\"", "{\"a\":1}"),
        ("LOGFERRY_PARSE=\"klog\"", "E1128 17:01:58.123456       1 file.go:7] no"),
        ("logferry.parse=\"yaml\"", "{\"a\":1}"),
        ("team=\"core\"", "{\"a\":1}"),
    ] {
        wire.send_counted(format!("<30>1 - n7 web 1 - [fields@32473 {label}] {text}").as_bytes());
    }
    let lines: Vec<Value> =
        collector.frames(5).iter().map(|frame| serde_json::from_slice(frame).expect("JSON")).collect();
    assert_eq!(lines[0]["fields"], json!({"a": 1}));
    assert_eq!(lines[1]["fields"], Value::Null);
    assert_eq!((&lines[2]["fields"]["level"], &lines[2]["fields"]["message"]), (&json!("E"), &json!("no")));
    assert_eq!(lines[3]["fields"], json!({"logferry.parse": "yaml"}));
    assert_eq!(lines[4]["fields"], json!({"team": "core", "a": 1}));
    relay.has_delivered(5, 0);
    let misread = |what: &str| relay.metrics().with("forward_misread_total", what);
    assert_eq!((misread("label"), misread("form")), (1, 0));
    relay.stops();
}

#[test]
fn nested_values_are_fields_with_dots_where_a_destination_keeps_no_objects() {
    let [loki, datadog, forced] = [0; 3].map(|_| Store::new());
    let mut setup = Setup::new().listen("tcp://127.0.0.1:0");
    for (store, api, keys) in [
        (&loki, "loki", ""),
        (&datadog, "datadog", ""),
        (&forced, "json", "flatten = true\ndrop-fields = \"http.headers.*\""),
    ] {
        let keys = format!(
            "name = \"{api}\"\napi = \"{api}\"\ncompress = \"off\"\nbatch-wait = \"50ms\"\nparse = \"json\"\n{keys}"
        );
        setup = setup.forward_with(&store.url(), &keys);
    }
    let relay = setup.start();
    let object = r#"{"http":{"status":503,"headers":{"host":"a","te":[1,{"b":2}]}}}"#;
    relay.door().connect().says(&container("web"), object.as_bytes());
    let [loki, datadog, forced] = [&loki, &datadog, &forced].map(|store| {
        let mut peer = store.accepts();
        let request = peer.hears();
        peer.answers(200, "{}");
        request.body
    });
    let json = |body: &[u8]| serde_json::from_slice::<Value>(body).expect("JSON");
    let metadata = &json(&loki)["streams"][0]["values"][0][2];
    let found = ["http_status", "http_headers_host", "http_headers_te"].map(|name| metadata[name].clone());
    assert_eq!(found, ["503", "a", "[1,{\"b\":2}]"]);
    assert_eq!(json(&datadog)[0]["http"]["headers"]["te"], json!([1, {"b": 2}]));
    assert_eq!(json(&forced)["fields"], json!({"http.status": 503}));
    relay.stops();
}

/// In RFC 5424 the parsed fields are structured data, and RELP's line numbers are not affected.
#[test]
fn shaped_lines_go_on_by_relp_and_none_is_lost() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let middle = Setup::new()
        .listen("relp://127.0.0.1:0")
        .forward_with(&collector.url(), "framing = \"octet-counting\"")
        .start();
    let Door::Relp(at) = middle.door() else { panic!("a door for RELP") };
    let relay = Setup::new()
        .listen("tcp://127.0.0.1:0")
        .forward_with(&format!("relp://{at}"), "fields = { env = \"prod\" }")
        .start();
    says(&relay, 0..200);
    let lines = collector.lines(200);
    assert!(lines.iter().all(|line| line.param("fields@32473", "env") == "prod"));
    relay.has_delivered(200, 0);
    relay.stops();
    middle.stops();
}
