//! Output of `logferry explain` for a terminal, for a file, and as JSON. How captured messages are parsed: `corpus.rs`.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use chrono::DateTime;
use logferry::internals::protocol::syslog::{Frame, Settings, Translator};
use logferry::internals::record::UnixMicros;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::corpus::{self, Row};
use crate::support::drivers::{self, Sent};
use crate::support::relay::logferry;
use crate::support::{installed, run};

/// Runs `explain` with `input` on its stdin and this config; it must succeed.
fn explain(config: &str, arguments: &[&str], input: &[u8]) -> Output {
    let output = explains(config, arguments, input);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Like [`explain`], but it may fail.
fn explains(config: &str, arguments: &[&str], input: &[u8]) -> Output {
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("logferry.toml");
    fs::write(&file, config).expect("written");
    // Input from a file: a parent that writes to a pipe while it does not read the output could block for ever.
    let messages = dir.path().join("messages");
    fs::write(&messages, input).expect("written");
    let mut command = logferry();
    command.arg("explain").arg("--config").arg(&file).args(arguments);
    command.stdin(fs::File::open(&messages).expect("there")).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.output().expect("logferry starts")
}

/// All messages in one stream, with octet counts.
fn counted(rows: &[Row]) -> Vec<u8> {
    let each = rows.iter().map(|row| [format!("{} ", row.unframed().len()).as_bytes(), row.unframed()].concat());
    each.collect::<Vec<_>>().concat()
}

/// The bytes of a JSON value; if `escaped` names the key, `\xHH` and `\\` are undone.
#[track_caller]
fn decoded(object: &Value, key: &str) -> Vec<u8> {
    let text = object[key].as_str().unwrap_or_else(|| panic!("{key} in {object}"));
    let escaped = object["escaped"].as_array().expect("a list").iter().any(|name| name == key);
    if escaped { corpus::unescape(text.as_bytes()) } else { text.as_bytes().to_vec() }
}

const SEVERAL: &str = "\
hostname = \"relay-1\"
[[forward]]
name = \"tls\"
to = [\"tcp+tls://logs.example.com\", \"tcp://10.0.0.1\"]
[[forward]]
name = \"old\"
format = \"rfc3164\"
to = \"udp://10.0.0.1\"
[[forward]]
name = \"json\"
format = \"json\"
to = \"relp://10.0.0.1\"
";

#[test]
fn json_has_every_byte_of_the_corpus() {
    let rows = corpus::rows();
    let output = explain(SEVERAL, &["--json"], &counted(&rows));
    let told = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    let objects: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!(objects.len(), rows.len());
    let mut with_bytes = 0;
    for (row, object) in rows.iter().zip(&objects) {
        let Value::Object(keys) = object else { panic!("{object}") };
        assert_eq!(keys.len(), 33, "{object}");
        assert_eq!((&object["framing"], &object["cut"]), (&Value::from("octet-counting"), &Value::from(false)));
        assert_eq!(decoded(object, "input"), row.unframed(), "{}", row.file);
        let received = DateTime::parse_from_rfc3339(object["received"].as_str().expect("text")).expect("a stamp");
        let received = UnixMicros(received.timestamp_micros());
        let settings = Settings { hostname: "relay-1".to_owned(), ..Settings::default() };
        let mut line = Vec::new();
        Translator::new(Arc::new(settings))
            .translate(&Frame { bytes: row.unframed(), cut: false, received }, &mut line);
        assert_eq!(decoded(object, "line"), line, "{}", row.file);
        with_bytes += usize::from(std::str::from_utf8(&line).is_err());

        let outputs = object["forwards"].as_array().expect("a list");
        let names: Vec<&str> = outputs.iter().filter_map(|output| output["forward"].as_str()).collect();
        assert_eq!(names, ["tls", "tls", "old", "json"]);
        let sent: Vec<Vec<u8>> = outputs.iter().map(|output| decoded(output, "output")).collect();
        assert_eq!(sent[0], [format!("{} ", line.len()).as_bytes(), &line].concat(), "{}", row.file);
        let one_line: Vec<&[u8]> = line.split(|byte| *byte == b'\n').collect();
        assert_eq!(sent[1], [one_line.join(&b"#012"[..]), b"\n".to_vec()].concat(), "{}", row.file);
        assert!(sent[2].starts_with(format!("<{}>", row.pri).as_bytes()), "{}", row.file);
        assert_eq!(
            serde_json::from_slice::<Value>(&sent[3]).expect("JSON")["message"],
            object["message"],
            "{}",
            row.file
        );
        for (output, sent) in outputs.iter().zip(&sent) {
            assert_eq!(output["bytes"], sent.len());
        }
    }
    assert!(with_bytes > 3, "only {with_bytes} rows that are not UTF-8");
}

/// Output for a terminal contains no control characters from messages.
#[test]
fn no_control_character_reaches_a_terminal() {
    let rows = corpus::rows();
    let has_controls = |row: &&Row| row.message.iter().any(|byte| *byte < b' ' && *byte != b'\n');
    assert!(rows.iter().filter(has_controls).count() > 10);
    let output = explain(SEVERAL, &[], &counted(&rows));
    let told = String::from_utf8(output.stdout).expect("text");
    assert_eq!(told.matches("\nmessage ").count() + 1, rows.len());
    assert!(!told.chars().any(|c| c.is_control() && c != '\n'), "a control character");
}

#[test]
fn the_fields_are_those_of_the_corpus() {
    let rows: Vec<Row> = corpus::rows().into_iter().filter(|row| row.file.starts_with("matrix-")).collect();
    assert!(rows.len() > 15, "only {} rows", rows.len());
    let output = explain(SEVERAL, &[], &counted(&rows));
    let told = String::from_utf8(output.stdout).expect("text");
    for (row, said) in rows.iter().zip(told.split("\n\n")) {
        for expected in [&row.image, &row.name, &row.id, &row.message].into_iter().filter(|field| !field.is_empty()) {
            let expected = format!(" {}", String::from_utf8_lossy(expected));
            assert!(said.lines().any(|line| line.ends_with(&expected)), "{}: no{expected}: {said}", row.file);
        }
        assert!(said.contains("Docker's syslog driver"), "{}: {said}", row.file);
    }
}

const INPUT: &[u8] =
    b"<30>1 2026-11-20T22:27:33.081562Z host-1 nginx:1.25/web/2a9052a5c36e 812 nginx:1.25/web/2a9052a5c36e - \x1b[31mred\n\
      9 <13>two\nx";

const TOLD: &str = r#"message 1: 111 bytes, newline framing
  understood as    Docker's syslog driver
  priority         30 (facility daemon, severity info)
  timestamp        2026-11-20T22:27:33.081562Z
  because          as the sender wrote it
  host             host-1
  tag              nginx:1.25/web/2a9052a5c36e
  image            nginx:1.25
  container        web
  container id     2a9052a5c36e
  structured data  [docker@32473 image="nginx:1.25" name="web" id="2a9052a5c36e"]
  message          \x1b[31mred
  forward central: to tcp://10.0.0.1:514 as rfc5424, newline framing, 132 bytes
    <30>1 2026-11-20T22:27:33.081562Z host-1 web 2a9052a5c36e - [docker@32473 image="nginx:1.25" name="web" id="2a9052a5c36e"] \x1b[31mred\x0a

message 2: 9 bytes, octet counting
"#;

const ONE: &str = "hostname = \"relay-1\"\n[[forward]]\nto = \"tcp://10.0.0.1\"\n";

#[test]
fn text_for_a_file() {
    let told = String::from_utf8(explain(ONE, &[], INPUT).stdout).expect("text");
    assert!(told.starts_with(TOLD), "{told}");
    // The newline at the end is a part of the message, because the octet count includes it.
    assert!(told.contains("\n  message          two\\x0ax\n"), "{told}");
    let nothing = explain(ONE, &[], b"");
    assert_eq!(nothing.stdout, b"no message on stdin\n");
    assert_eq!(explain(ONE, &["--json"], b"").stdout, b"");
}

const ROUTED: &str = r#"
[[listen]]
address = "tcp://127.0.0.1:514"
name = "inside"
[[drop]]
name = ["noisy", "web"]
severity = "debug"
[[forward]]
name = "all"
to = "tcp://10.0.0.1"
[[forward]]
name = "urgent"
to = "tcp://10.0.0.2"
match = { severity = "err or worse", listener = "inside" }
"#;

#[test]
fn where_each_message_goes_and_where_not() {
    let input: String =
        [31, 30, 27].map(|pri| format!("<{pri}>Nov 20 22:27:33 nginx/web/2a9052a5c36e[812]: hello\n")).concat();
    let outcomes = |arguments: &[&str]| {
        let told = explain(ROUTED, &[&["--json"], arguments].concat(), input.as_bytes());
        let told = String::from_utf8(told.stdout).expect("JSON");
        let outcome = |line: &str| {
            let object: Value = serde_json::from_str(line).expect("an object");
            assert_eq!(object["filtered_by"], object["unwanted_by"], "under its old name");
            let to = object["forwards"].as_array().expect("a list").iter().map(|output| output["forward"].clone());
            (object["dropped_by"].clone(), to.collect::<Vec<_>>(), object["filtered_by"].clone())
        };
        told.lines().map(outcome).collect::<Vec<_>>()
    };
    let dropped = || (Value::from(r#"{ name = ["noisy", "web"], severity = "debug" }"#), vec![], Value::Array(vec![]));
    let all = || (Value::Null, vec![Value::from("all")], serde_json::json!(["urgent"]));
    let both = || (Value::Null, vec![Value::from("all"), Value::from("urgent")], serde_json::json!([]));
    assert_eq!(outcomes(&[]), [dropped(), all(), all()]);
    assert_eq!(outcomes(&["--listener", "inside"]), [dropped(), all(), both()]);
    let text = String::from_utf8(explain(ROUTED, &[], input.as_bytes()).stdout).expect("text");
    assert!(text.contains("\n  dropped by [[drop]] { name = [\"noisy\", \"web\"], severity = \"debug\" }\n"), "{text}");
    assert!(text.contains("\n  forward urgent: filtered: no rule of its `match` matches\n"), "{text}");
    let wrong = explains(ROUTED, &["--listener", "outside"], b"");
    assert_eq!(
        String::from_utf8_lossy(&wrong.stderr),
        "logferry: explain: --listener outside: no [[listen]] has this `name`; there are: inside\n"
    );
}

/// `--forward` with a name shows only that forward; with a URL it adds a separate forward.
#[test]
fn a_forward_is_shown_by_its_name() {
    let input = b"<27>Nov 20 22:27:33 nginx/api/2a9052a5c36e[812]: hello\n";
    let shown = |arguments: &[&str]| {
        let told = explain(ROUTED, &[&["--json"], arguments].concat(), input).stdout;
        let object: Value = serde_json::from_slice(&told).expect("an object");
        let names =
            |key: &str| object[key].as_array().expect("a list").iter().map(|of| of["forward"].clone()).collect();
        let (steps, sent): (Vec<Value>, Vec<Value>) = (names("steps"), names("forwards"));
        (steps, sent)
    };
    let (all, urgent) = (Value::from("all"), Value::from("urgent"));
    assert_eq!(shown(&[]), (vec![all.clone(), urgent.clone()], vec![all.clone()]));
    assert_eq!(shown(&["--forward", "all"]), (vec![all.clone()], vec![all.clone()]));
    assert_eq!(shown(&["--forward", "urgent"]), (vec![urgent.clone()], vec![]));
    assert_eq!(shown(&["--forward", "urgent,all"]), (vec![all.clone(), urgent], vec![all]));
    let central = Value::from("central");
    assert_eq!(shown(&["--forward", "tcp://10.0.0.9"]), (vec![central.clone()], vec![central]));
    let wrong = explains(ROUTED, &["--forward", "urgnt"], b"");
    assert_eq!(wrong.status.code(), Some(64));
    assert_eq!(
        String::from_utf8_lossy(&wrong.stderr),
        "logferry: explain: --forward urgnt: no [[forward]] has this `name`; there are: all, urgent\n"
    );
}

/// A named listener applies its own limit.
#[test]
fn a_message_is_cut_where_its_listener_cuts_it() {
    let config = "[[listen]]\naddress = \"tcp://127.0.0.1:514\"\n\
                  [[listen]]\naddress = \"tcp://127.0.0.1:515\"\nname = \"short\"\nmax-frame = \"1KiB\"\n";
    let input = format!("<13>{}\n", "x".repeat(2000));
    for (arguments, bytes, cut) in [(&["--json"][..], 2004, false), (&["--json", "--listener", "short"], 1024, true)] {
        let told = explain(config, arguments, input.as_bytes()).stdout;
        let first = told.split(|byte| *byte == b'\n').next().expect("a line");
        let object: Value = serde_json::from_slice(first).expect("an object");
        assert_eq!((&object["bytes"], &object["cut"]), (&bytes.into(), &cut.into()), "{object}");
    }
}

/// A timestamp without a zone gets the zone of the sender's address, else of the listener, else of the whole config.
#[test]
fn a_stamp_has_the_zone_of_its_sender() {
    let config = "[syslog]\ntime-zone = \"-03:30\"\n\
                  [[listen]]\naddress = \"udp://127.0.0.1:514\"\n\
                  [[listen]]\naddress = \"udp://127.0.0.1:515\"\nname = \"dmz\"\ntime-zone = \"Africa/Lagos\"\n\
                  time-zones = [{ from = [\"10.1.0.0/16\", \"fd00::/8\"], zone = \"Asia/Kolkata\" }]\n";
    let input = b"<13>2020-11-18 12:00:00.321 r1 app: x\n";
    let of_the_listener = &["--json", "--listener", "dmz"][..];
    for (arguments, stamp, because) in [
        (&["--json"][..], "2020-11-18T12:00:00.321-03:30", "`time-zone` says -03:30"),
        (of_the_listener, "2020-11-18T12:00:00.321+01:00", "`time-zone` says +01:00"),
        (&[of_the_listener, &["--peer", "10.1.0.7"]].concat(), "2020-11-18T12:00:00.321+05:30", "says +05:30"),
        (&[of_the_listener, &["--peer", "fd00::7"]].concat(), "2020-11-18T12:00:00.321+05:30", "says +05:30"),
        (&[of_the_listener, &["--peer", "192.0.2.7"]].concat(), "2020-11-18T12:00:00.321+01:00", "says +01:00"),
    ] {
        let told = explain(config, arguments, input).stdout;
        let object: Value = serde_json::from_slice(&told).expect("an object");
        assert_eq!(
            (&object["timestamp"], &object["timestamp_origin"]),
            (&stamp.into(), &"configured".into()),
            "{object}"
        );
        let says = object["timestamp_because"].as_str().expect("a reason");
        assert!(says.contains(because), "{says}");
    }
}

/// Runs `explain` on a pseudo-terminal, by `script`.
fn on_a_terminal(no_color: Option<&str>, arguments: &str) -> Option<String> {
    let script = installed("script", "bsdutils")?;
    let dir = TempDir::new().expect("a directory");
    let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    fs::write(path("logferry.toml"), ONE).expect("written");
    fs::write(path("messages"), INPUT).expect("written");
    let (program, config, messages) = (env!("CARGO_BIN_EXE_logferry"), path("logferry.toml"), path("messages"));
    let mut command = Command::new(script);
    command.env_clear().envs(no_color.map(|value| ("NO_COLOR", value)));
    let line = format!("{program} explain --config {config} {arguments} < {messages}");
    let output = run(command.args(["--quiet", "--return", "--command", &line, "/dev/null"]));
    assert!(output.status.success(), "{output:?}");
    Some(String::from_utf8(output.stdout).expect("text").replace("\r\n", "\n"))
}

#[test]
fn colour_for_a_terminal_that_wants_it() {
    let Some(coloured) = on_a_terminal(None, "") else { return };
    assert!(coloured.contains("\x1b[1mmessage 1: 111 bytes, newline framing\x1b[0m\n"), "{coloured}");
    assert!(coloured.contains("  \x1b[36mmessage        \x1b[0m  \x1b[33m\\x1b\x1b[0m[31mred\n"), "{coloured}");
    assert!(coloured.contains("\x1b[2mas the sender wrote it\x1b[0m"), "{coloured}");
    // Escapes in the message have no effect: every escape sequence is one of ours.
    let codes: Vec<&str> = coloured.split('\x1b').skip(1).filter_map(|rest| rest.split('m').next()).collect();
    assert!(codes.len() > 20 && codes.iter().all(|code| ["[0", "[1", "[2", "[33", "[36"].contains(code)), "{codes:?}");

    assert!(
        on_a_terminal(Some(""), "").expect("script is there").contains("\x1b[1m"),
        "an empty variable says nothing"
    );
    assert!(on_a_terminal(Some("1"), "").expect("script is there").starts_with(TOLD));
    assert!(!on_a_terminal(None, "--json").expect("script is there").contains('\x1b'), "JSON has no colours");
}

/// A reader that closes the pipe early is no error.
#[test]
fn a_reader_that_goes_away() {
    let mut command = logferry();
    command.arg("explain").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("logferry starts");
    drop(child.stdout.take());
    child.stdin.take().expect("piped").write_all(&INPUT.repeat(1000)).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

const DOCKER: &str = "hostname = \"relay-1\"\n[[forward]]\nto = \"tcp://10.0.0.1\"\n";

/// The objects of `explain --as`.
fn explained_as(protocol: &str, input: &[u8]) -> Vec<Value> {
    let told = explain(DOCKER, &["--json", "--as", protocol], input).stdout;
    let told = String::from_utf8(told).expect("JSON is UTF-8");
    told.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// Asserts that the objects are these messages of the corpus, in order.
#[track_caller]
fn are_as_sent(protocol: &str, objects: &[Value], sent: &[&Sent]) {
    assert_eq!(objects.len(), sent.len(), "{}: {objects:?}", sent[0].file);
    for (object, sent) in objects.iter().zip(sent) {
        assert_eq!(object["understood_as"], protocol, "{}", sent.file);
        let message = sent.expected("exp_message");
        let message = if message == b"(empty)" { Vec::new() } else { message };
        assert_eq!(decoded(object, "message"), message, "{}", sent.file);
        assert!(decoded(object, "line").ends_with(&message), "{}: {object}", sent.file);
        let container = sent.expected("exp_id");
        assert!(container.is_empty() || decoded(object, "container_id") == container, "{}: {object}", sent.file);
    }
}

#[test]
fn messages_of_docker_s_fluentd_driver() {
    for recording in
        drivers::recordings("fluentd-payload-small", 2).iter().chain(&drivers::recordings("fluentd-tag", 4))
    {
        let sent: Vec<&Sent> = recording.messages.iter().collect();
        are_as_sent("fluent", &explained_as("fluent", &recording.stream()), &sent);
    }
    // Labels are fields, each with its type.
    let [extra] = &drivers::recordings("fluentd-extra-labels-env", 1)[..] else { panic!("one recording") };
    let [first, ..] = &explained_as("fluent", &extra.stream())[..] else { panic!("a message") };
    let fields = first["fields"].as_array().expect("a list");
    for (name, value) in extra.messages[0].extra() {
        assert!(fields.iter().any(|field| field["name"] == name && field["value"] == value), "{name} in {first}");
    }
    assert!(!fields.is_empty() && fields.iter().all(|field| field["type"] == "text"), "{first}");
}

#[test]
fn messages_of_docker_s_gelf_driver() {
    let (mut streams, mut datagrams) = (0, 0);
    for recording in drivers::recordings("gelf-", 20) {
        if recording.is_udp() {
            for sent in recording.messages.iter().filter(|sent| sent.datagrams().len() == 1) {
                are_as_sent("gelf", &explained_as("gelf", &sent.bytes), &[sent]);
                datagrams += 1;
            }
        } else {
            let sent: Vec<&Sent> = recording.messages.iter().collect();
            are_as_sent("gelf", &explained_as("gelf", &recording.stream()), &sent);
            streams += 1;
        }
        if streams.min(datagrams) > 5 {
            break;
        }
    }
    assert!(streams > 5 && datagrams > 5, "{streams} streams, {datagrams} datagrams");
}

#[test]
fn events_of_docker_s_splunk_driver() {
    let recordings = drivers::recordings("splunk-gzip", 1);
    for recording in recordings.iter().chain(&drivers::recordings("splunk-inline-all", 1)) {
        // Each row has the complete request of its event.
        let request = recording.messages[0].bytes.clone();
        let body = &request[find(&request, b"\r\n\r\n") + 4..];
        let sent: Vec<&Sent> = recording.messages.iter().filter(|sent| sent.bytes == request).collect();
        are_as_sent("splunk", &explained_as("splunk", body), &sent);
    }
}

/// The output of `systemd-journal-upload`: a journal with Docker's lines.
#[test]
fn entries_of_the_journal() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus-journal");
    let sent = fs::read(folder.join("docker.http")).expect("the corpus");
    let mut chunks = &sent[find(&sent, b"\r\n\r\n") + 4..];
    let mut body = Vec::new();
    loop {
        let end = find(chunks, b"\r\n");
        let length = usize::from_str_radix(std::str::from_utf8(&chunks[..end]).expect("text"), 16).expect("a length");
        if length == 0 {
            break;
        }
        body.extend_from_slice(&chunks[end + 2..][..length]);
        chunks = &chunks[end + 2 + length + 2..];
    }
    let index = fs::read_to_string(folder.join("expected.jsonl")).expect("the index");
    let entries = index.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let field = |entry: &Value, name: &str| {
        let fields = entry["fields"].as_array().expect("a list").clone();
        fields.into_iter().find(|field| field[0] == name).map(|field| field[1].as_str().expect("text").to_owned())
    };
    let expected: Vec<Value> = entries.filter(|entry| entry["file"] == "docker.http").collect();
    let objects = explained_as("journal", &body);
    assert!(objects.len() >= 10);
    assert_eq!(objects.len(), expected.len());
    for (object, entry) in objects.iter().zip(&expected) {
        assert_eq!(object["understood_as"], "journal");
        let message = field(entry, "MESSAGE").unwrap_or_default();
        assert_eq!(decoded(object, "message"), corpus::unescape(message.as_bytes()), "{object}");
        assert_eq!(object["container_id"].as_str().map(str::to_owned), field(entry, "CONTAINER_ID_FULL"), "{object}");
    }
}

#[track_caller]
fn find(bytes: &[u8], wanted: &[u8]) -> usize {
    bytes.windows(wanted.len()).position(|window| window == wanted).expect("it is there")
}

/// The named listener defines the protocol and the limit for the input.
#[test]
fn a_listener_says_what_the_input_is() {
    let config = "[[listen]]\naddress = \"tcp://127.0.0.1:514\"\n[[listen]]\naddress = \"gelf+tcp://127.0.0.1\"\nname = \"g\"\nmax-frame = \"480B\"\n\
                  [[forward]]\nto = \"tcp://10.0.0.1\"\n";
    let input = format!("{{\"short_message\":\"{}\"}}", "x".repeat(500));
    for arguments in [&["--listener", "g"][..], &["--as", "gelf"]] {
        let told = explain(config, &[&["--json"], arguments].concat(), input.as_bytes()).stdout;
        let object: Value = serde_json::from_slice(&told).expect("one object");
        assert_eq!((&object["understood_as"], &object["cut"]), (&Value::from("gelf"), &Value::from(true)), "{object}");
        assert_eq!(object["message"].as_str().map(str::len), Some(480));
    }
}

#[test]
fn a_file_is_read_as_stdin_is() {
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("sent.json");
    fs::write(&file, r#"{"event":"x"}{"event":""}"#).expect("written");
    let file = file.display().to_string();
    let told = String::from_utf8(explain(ONE, &["--as", "splunk", &file], b"").stdout).expect("text");
    assert!(told.contains("\n  message          x\n"), "{told}");
    assert!(told.ends_with("message 2\n  refused as blank-event: an event's `event` is empty\n\n"), "{told}");
    let missing = explains(ONE, &["/nowhere/at/all"], b"");
    let said = String::from_utf8(missing.stderr).expect("text");
    assert!(!missing.status.success() && said.contains("cannot read /nowhere/at/all: No such file"), "{said}");
}
