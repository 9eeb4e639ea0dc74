//! All recordings of Docker's `fluentd` driver and of Fluent Bit's `forward` output, through a running relay. Each line and each field must
//! match `index.tsv`, in the RFC 5424 and the JSON output, and also after a second relay.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::support::corpus::unescape;
use crate::support::docker::RELAY;
use crate::support::drivers::{Recording, Sent, recordings};
use crate::support::{Collector, Door, FluentPeer, Framing, Line, Setup, eventually};

const COUNTED: &str = "framing = \"octet-counting\"";
/// Maximum size of a message's fields in bytes; a single value that is larger is omitted.
const MAX_FIELDS: usize = 16_384;

type Params = BTreeMap<(String, String), Vec<u8>>;

/// A message as it must arrive: the row of its first piece, and the whole text.
struct Expected<'a> {
    sent: &'a Sent,
    text: Vec<u8>,
    /// The record is marked as a piece.
    is_piece: bool,
}

fn all() -> Vec<Recording> {
    let mut all = recordings("fluentd-", 50);
    all.extend(recordings("fluentbit-forward-", 13));
    // Skip the handshake with a shared key, because these listeners have no key.
    for recording in &mut all {
        recording.messages.retain(|sent| sent.of("framing") != "PING");
    }
    all
}

/// Each array once, although several rows may be entries of one array.
fn arrays(recording: &Recording) -> Vec<&Sent> {
    let mut arrays: Vec<&Sent> = Vec::new();
    for sent in &recording.messages {
        if arrays.last().is_none_or(|last| last.of("offset") != sent.of("offset")) {
            arrays.push(sent);
        }
    }
    arrays
}

fn text(sent: &Sent) -> Vec<u8> {
    let text = match sent.of("exp_message") {
        "(empty)" => Vec::new(),
        text => unescape(text.as_bytes()),
    };
    assert_eq!(text.len().to_string(), sent.of("exp_message_len"), "{}", sent.file);
    text
}

/// Pieces are joined, unless the sender requests an acknowledgement of each piece. A message ends at an announced piece that does not come.
fn expected(recording: &Recording) -> Vec<Expected<'_>> {
    let mut done = Vec::new();
    let mut waiting: Vec<(String, Expected<'_>)> = Vec::new();
    for sent in &recording.messages {
        let text = text(sent);
        let part: Option<Map<String, Value>> =
            (sent.of("partial") != "-").then(|| serde_json::from_str(sent.of("partial")).expect("JSON"));
        let Some(part) = part else {
            done.push(Expected { sent, text, is_piece: false });
            continue;
        };
        if sent.of("chunk") != "-" {
            done.push(Expected { sent, text, is_piece: true });
            continue;
        }
        let key = format!("{} {}", part["id"], sent.of("exp_source"));
        let mut message = match waiting.iter().position(|(waits, _)| *waits == key) {
            Some(at) => waiting.remove(at).1,
            None => Expected { sent, text: Vec::new(), is_piece: false },
        };
        message.text.extend_from_slice(&text);
        match part["last"].to_string().contains("true") {
            true => done.push(message),
            false => waiting.push((key, message)),
        }
    }
    done.into_iter().chain(waiting.into_iter().map(|(_, message)| message)).collect()
}

impl Expected<'_> {
    /// `None` if the index has `-`.
    fn column(&self, name: &str) -> Option<Vec<u8>> {
        Some(self.sent.expected(name)).filter(|_| self.sent.of(name) != "-")
    }

    /// All fields except the message, the container and the stream; and the number of values that are too large.
    fn fields(&self) -> (Map<String, Value>, usize) {
        let mut fields: Map<String, Value> = self.sent.extra().into_iter().collect();
        let all = fields.len();
        fields.retain(|_, value| value.as_str().is_none_or(|text| text.len() <= MAX_FIELDS));
        let left_out = all - fields.len();
        // The value is a container's stream; a label's value for it is a field.
        if let Some(source) = self.column("exp_source").filter(|source| !is_stream(source)) {
            fields.insert("source".to_owned(), String::from_utf8(source).expect("UTF-8").into());
        }
        if self.is_piece {
            let part: Map<String, Value> = serde_json::from_str(self.sent.of("partial")).expect("JSON");
            for (name, value) in part {
                fields.insert(format!("partial_{name}"), value.to_string().trim_matches('"').into());
            }
            fields.insert("partial_message".to_owned(), "true".into());
        }
        (fields, left_out)
    }

    #[track_caller]
    fn is(&self, line: &Line) {
        assert!(line.message == self.text, "{line:?}, not {} bytes of {}", self.text.len(), self.sent.file);
        let is_stderr = self.sent.of("exp_source") == "stderr";
        assert_eq!((line.pri, &*line.host), (if is_stderr { 27 } else { 30 }, RELAY), "{line:?}");
        for (name, column) in [("image", "exp_image"), ("name", "exp_name"), ("id", "exp_id")] {
            let said = line.params.get(&("docker@32473".to_owned(), name.to_owned()));
            assert_eq!(said, self.column(column).as_ref(), "{name} of {line:?}");
        }
        let own = |name: &str| line.params.get(&("logferry@32473".to_owned(), name.to_owned())).cloned();
        assert_eq!(own("tag"), self.column("exp_tag"), "{line:?}");
        assert_eq!(own("driver").as_deref(), Some(&b"fluent"[..]), "{line:?}");
        assert_eq!(own("source"), self.column("exp_source").filter(|source| is_stream(source)), "{line:?}");
        let (fields, left_out) = self.fields();
        let mut found = fields_of(line);
        forget_partial(&mut found, self.is_piece);
        assert_eq!(found, fields, "{line:?}");
        assert_eq!(own("fields-cut"), (left_out > 0).then(|| left_out.to_string().into_bytes()), "{line:?}");
        let nanoseconds =
            own("nanoseconds").map_or(0, |text| String::from_utf8_lossy(&text).parse().expect("a number"));
        self.is_time(&line.stamp, nanoseconds);
    }

    /// Compares seconds, and nanoseconds if the sender sent all nine digits.
    #[track_caller]
    fn is_time(&self, stamp: &str, nanoseconds: u32) {
        let stamp = chrono::DateTime::parse_from_rfc3339(stamp).expect("a stamp");
        let (seconds, fraction) = self.sent.of("exp_time").split_once('.').unwrap_or((self.sent.of("exp_time"), "0"));
        assert_eq!(stamp.timestamp().to_string(), seconds, "{}", self.sent.file);
        let found = stamp.timestamp_subsec_nanos() + nanoseconds;
        assert_eq!(found, fraction.parse::<u32>().expect("a number"), "{}", self.sent.file);
    }

    #[track_caller]
    fn is_json(&self, message: &[u8]) {
        let json: Value = serde_json::from_slice(message).expect("JSON");
        let escaped = |key: &str| json["escaped"].as_array().is_some_and(|keys| keys.iter().any(|found| found == key));
        let bytes = |key: &str| {
            let text = json[key].as_str().expect("text").as_bytes();
            if escaped(key) { unescape(text) } else { text.to_vec() }
        };
        assert!(bytes("message") == self.text, "{} of {}", json["message"], self.sent.file);
        for (key, column) in [("image_name", "exp_image"), ("container_name", "exp_name"), ("container_id", "exp_id")] {
            let said = json.get(key).map(|_| bytes(key));
            assert_eq!(said, self.column(column), "{key} of {json}");
        }
        let (fields, _) = self.fields();
        assert!(!escaped("fields"), "{json}");
        let mut found: Map<String, Value> =
            json.get("fields").map(|fields| fields.as_object().expect("an object").clone()).unwrap_or_default();
        forget_partial(&mut found, self.is_piece);
        assert_eq!(found, fields, "with their types: {json}");
    }
}

/// A label may have this name; the index does not record it.
fn forget_partial(fields: &mut Map<String, Value>, is_piece: bool) {
    if !is_piece {
        fields.remove("partial_message");
        fields.remove("partial_last");
    }
}

fn is_stream(source: &[u8]) -> bool {
    [&b"stdout"[..], b"stderr"].contains(&source)
}

/// The fields in the two structured data elements of a line.
fn fields_of(line: &Line) -> Map<String, Value> {
    let mut fields = Map::new();
    for ((id, name), value) in &line.params {
        let text = || String::from_utf8(value.clone()).expect("UTF-8");
        match (id.as_str(), name.as_str()) {
            ("fields@32473", name) => drop(fields.insert(name.to_owned(), text().into())),
            ("json@32473", "fields") => {
                let object: BTreeMap<String, Value> = serde_json::from_str(&text()).expect("an object");
                fields.extend(object);
            }
            ("json@32473", other) => panic!("{other} in {line:?}"),
            _ => {}
        }
    }
    fields
}

/// A line without the relays that it passed through.
fn without_hop(mut line: Line) -> (u8, [String; 5], Params, Vec<u8>) {
    line.params.remove(&("logferry@32473".to_owned(), "hop".to_owned()));
    (line.pri, [line.stamp, line.host, line.app, line.proc_id, line.msg_id], line.params, line.message)
}

/// Keys of an entry that Docker's driver does not write.
const MORE: [&str; 8] = ["host", "image_name", "facility", "severity", "app_name", "proc_id", "msg_id", "peer"];

/// A line that went out by the Forward protocol and was read again equals the original line: as far as possible in the keys of Docker's
/// driver, otherwise in additional fields.
#[track_caller]
fn came_back(found: &Line, line: &Line) {
    let instant = |line: &Line| chrono::DateTime::parse_from_rfc3339(&line.stamp).expect("a stamp");
    assert!(found.message == line.message, "{found:?}, not {line:?}");
    assert_eq!(
        (found.pri, &found.host, &found.app, &found.proc_id, instant(found)),
        (line.pri, &line.host, &line.app, &line.proc_id, instant(line))
    );
    let not_fields = |line: &Line| {
        let mut params = line.params.clone();
        let is_other = |id: &str, name: &str| {
            ["fields@32473", "json@32473"].contains(&id) || ["hop", "peer", "fields-cut"].contains(&name)
        };
        params.retain(|(id, name), _| !is_other(id, name));
        params
    };
    assert_eq!(not_fields(found), not_fields(line));
    let (mut fields, expected) = (fields_of(found), fields_of(line));
    // Values that a label has overwritten are unchanged, and the label is a separate field.
    for name in ["container_name", "container_id", "source", "log"].map(str::to_owned).iter().chain(expected.keys()) {
        if let Some(value) = fields.remove(&format!("{name}_")) {
            fields.insert(name.clone(), value);
        }
    }
    fields.retain(|name, _| !MORE.contains(&name.as_str()) || expected.contains_key(name));
    assert_eq!(fields, expected, "{found:?}");
}

/// Sends the recordings one connection at a time, with one write per array.
fn says_all(door: &Door, recordings: &[Recording], arrived: impl Fn() -> usize) {
    let mut due = arrived();
    for recording in recordings {
        let mut peer = FluentPeer::connects(door);
        for sent in arrays(recording) {
            peer.sends(&sent.bytes);
            if sent.of("chunk") != "-" {
                assert!(peer.hears(&sent.text("chunk")), "{}", sent.file);
            }
        }
        peer.leaves();
        due += expected(recording).len();
        eventually(&format!("{} arrives", recording.file), || (arrived() >= due).then_some(()));
    }
}

#[test]
fn all_that_was_recorded_arrives_as_it_was_said() {
    let [lines, json, by_relp, by_tcp, by_fluent] = std::array::from_fn(|_| Collector::tcp(Framing::OctetCounting));
    let behind_relp = Setup::new().listen("relp://127.0.0.1:0").forward_with(&by_relp.url(), COUNTED).start();
    let behind_tcp = Setup::new().listen("tcp://127.0.0.1:0").forward_with(&by_tcp.url(), COUNTED).start();
    let behind_fluent = Setup::new().listen("fluent://127.0.0.1:0").forward_with(&by_fluent.url(), COUNTED).start();
    let setup = Setup::new().listen("fluent://127.0.0.1:0").listen("fluent+unix://{dir}/fluent.sock");
    let relay = setup
        .forward_with(&lines.url(), &format!("name = \"lines\"\n{COUNTED}"))
        .forward_with(&json.url(), &format!("name = \"json\"\nformat = \"json\"\n{COUNTED}"))
        .forward_with(&format!("relp://127.0.0.1:{}", behind_relp.door().port()), "name = \"relp\"")
        .forward_with(&format!("tcp://127.0.0.1:{}", behind_tcp.door().port()), &format!("name = \"tcp\"\n{COUNTED}"))
        // Small batches, so that pieces of a message, which are separate lines here, are in separate chunks.
        .forward_with(
            &format!("fluent://127.0.0.1:{}", behind_fluent.door().port()),
            "name = \"fluent\"\nbatch = \"4KiB\"",
        )
        .start();
    let recordings = all();
    let expected: Vec<Expected<'_>> = recordings.iter().flat_map(expected).collect();
    assert!(expected.len() > 150, "only {}", expected.len());
    for (at, door) in relay.doors().iter().enumerate() {
        says_all(door, &recordings, || lines.count());
        let so_far = (at + 1) * expected.len();
        let found = lines.lines(so_far);
        expected.iter().zip(&found[so_far - expected.len()..]).for_each(|(expected, line)| expected.is(line));
        let found = json.frames(so_far);
        expected.iter().zip(&found[so_far - expected.len()..]).for_each(|(expected, line)| expected.is_json(line));
    }
    let whole = lines.frames(2 * expected.len());
    assert_eq!(whole.len(), 2 * expected.len());
    for (collector, behind) in [(by_relp, behind_relp), (by_tcp, behind_tcp)] {
        for (found, sent) in collector.lines(whole.len()).into_iter().zip(&whole) {
            assert_eq!(without_hop(found), without_hop(Line::read(sent)), "the second relay changes nothing");
        }
        behind.has_delivered(whole.len(), 0);
        behind.stops();
    }
    let sent = whole.iter().map(|line| Line::read(line));
    let found = by_fluent.lines(whole.len());
    found.iter().zip(sent).for_each(|(found, line)| came_back(found, &line));
    behind_fluent.stops();
    relay.has_delivered(whole.len(), 0);
    let metrics = relay.metrics();
    assert_eq!(metrics.refused() + metrics.sum("listen_unfinished_total") as i64, 0);
    assert_eq!(metrics.sum("listen_cut_total"), 0);
    relay.stops();
}
