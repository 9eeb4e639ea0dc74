//! OpenTelemetry's logs, as OpenTelemetry's own Python package reads them.

use serde_json::{Value, json};

use crate::support::http::status;
use crate::support::peers::OtlpRecord;
use crate::support::{OtlpReceiver, Relay, Setup};

/// Sends these messages through a relay to the package, and returns the records that it has understood. The receiver runs as long as it is
/// kept.
#[track_caller]
fn understood(messages: &[&[u8]]) -> Option<(Relay, OtlpReceiver, Vec<Value>)> {
    let receiver = OtlpReceiver::start()?;
    let to = format!("{}/otlp", receiver.url);
    let keys =
        "api = \"otlp\"\ntoken = \"${T}\"\nbatch-wait = \"100ms\"\nfields = [\"deployment.environment.name=test\"]";
    let setup = Setup::new().listen("tcp://127.0.0.1:0").variable("T", "secret");
    let relay = setup.forward_in_order(&[to], keys).start();
    let mut wire = relay.door().connect();
    messages.iter().for_each(|message| wire.send_counted(message));
    let both = |record: OtlpRecord| {
        let OtlpRecord { said, resource, record } = record;
        assert_eq!((&said["path"], &said["authorization"]), (&json!("/otlp/v1/logs"), &json!("Bearer secret")));
        json!([resource, record])
    };
    let records = receiver.records(messages.len()).into_iter().map(both).collect();
    Some((relay, receiver, records))
}

/// The `KeyValue`s without those that differ between relays.
fn attributes(of: &Value) -> Value {
    let pairs = of["attributes"].as_array().expect("an array").iter();
    let pairs = pairs.filter(|pair| pair["key"] != "network.peer.address" && pair["key"] != "log.record.uid");
    pairs.map(|pair| (pair["key"].as_str().expect("a text").to_owned(), pair["value"].clone())).collect()
}

#[test]
fn opentelemetrys_package_for_python_understands_it() {
    let messages: [&[u8]; 3] = [
        br#"<30>1 2026-11-20T22:27:33.081562Z host-1 web 2a9052a5c36e - [docker@32473 image="reg:5000/nginx:1.25" name="web" id="2a9052a5c36e"] GET / 200"#,
        concat!(
            "<165>1 2026-11-20T22:27:33.081562+01:00 sw-1 sshd - ID47 [origin ip=\"1.2.3.4\" ip=\"5.6.7.8\"]",
            r#"[json@32473 fields="{\"n\":-5,\"f\":1.5,\"t\":true,\"z\":null,\"o\":{\"a\":[1\]}}"] caf"#, "\u{e9}",
        )
        .as_bytes(),
        b"<11>1 2026-11-20T22:27:33Z host-1 app - - - \xff\xfe",
    ];
    let Some((relay, _receiver, records)) = understood(&messages) else { return };
    relay.has_delivered(messages.len(), 0);
    let [[web, get], [switch, login], [app, bytes]] =
        <[_; 3]>::try_from(records).expect("three").map(|both| [both[0].clone(), both[1].clone()]);
    assert_eq!(
        attributes(&web),
        json!({
            "host.name": { "stringValue": "host-1" },
            "service.name": { "stringValue": "web" },
            "container.id": { "stringValue": "2a9052a5c36e" },
            "container.name": { "stringValue": "web" },
            "container.image.name": { "stringValue": "reg:5000/nginx" },
            "container.image.tags": { "arrayValue": { "values": [{ "stringValue": "1.25" }] } },
            "deployment.environment.name": { "stringValue": "test" },
        })
    );
    assert_eq!(
        (&get["timeUnixNano"], &get["severityNumber"]),
        (&json!("1795213653081562000"), &json!("SEVERITY_NUMBER_INFO"))
    );
    assert_eq!((&get["severityText"], &get["body"]), (&json!("info"), &json!({ "stringValue": "GET / 200" })));
    assert_eq!(
        attributes(&get),
        json!({ "syslog.facility": { "intValue": "3" }, "syslog.procid": { "stringValue": "2a9052a5c36e" } })
    );
    assert_eq!(attributes(&switch)["service.name"], json!({ "stringValue": "sshd" }));
    assert_eq!(
        (&login["severityNumber"], &login["body"]),
        (&json!("SEVERITY_NUMBER_INFO2"), &json!({ "stringValue": "café" }))
    );
    let ips = json!({ "arrayValue": { "values": [{ "stringValue": "1.2.3.4" }, { "stringValue": "5.6.7.8" }] } });
    let origin = json!({ "kvlistValue": { "values": [{ "key": "ip", "value": ips }] } });
    assert_eq!(
        attributes(&login),
        json!({
            "syslog.facility": { "intValue": "20" },
            "syslog.msgid": { "stringValue": "ID47" },
            "syslog.structured_data": { "kvlistValue": { "values": [{ "key": "origin", "value": origin }] } },
            "n": { "intValue": "-5" },
            "f": { "doubleValue": 1.5 },
            "t": { "boolValue": true },
            "z": {},
            "o.a": { "stringValue": "[1]" },
        })
    );
    assert_eq!(attributes(&app)["service.name"], json!({ "stringValue": "app" }));
    assert_eq!((&bytes["severityText"], &bytes["body"]), (&json!("err"), &json!({ "bytesValue": "//4=" })));
    relay.stops();
}

#[test]
fn what_it_rejects_is_told_and_not_sent_again() {
    let message = |text: &str| format!("<30>1 2026-11-20T22:27:33Z h app - - - {text}").into_bytes();
    let messages = ["one", "too old", "three"].map(message);
    let Some((relay, _receiver, records)) = understood(&messages.each_ref().map(|message| &message[..])) else {
        return;
    };
    relay.says("1 lines of a request are not there: HTTP 200: older than a week");
    relay.counts("forward_short_total", 1);
    let loss = |status: &Value| status["losses"].as_array()?.iter().find(|loss| loss["reason"] == "short").cloned();
    assert_eq!(loss(&status(&relay)).expect("a row")["count"], 1);
    assert_eq!(records.len(), 3);
    relay.stops();
}
