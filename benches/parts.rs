//! Benchmarks of the parts of logferry in isolation, on the messages of `tests/corpus`. `compare` compares whole
//! processes.
//!
//! `cargo bench --bench parts` measures all; `-- append` selects the benchmarks with that in their names; `-- --test`
//! runs each once. `item/s` counts messages or lines; its inverse is the cost of one.

#[path = "../tests/support/corpus.rs"]
#[allow(dead_code)] // Only the bytes are used.
mod corpus;

use std::cell::RefCell;
use std::fmt;
use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, Divan};
use flate2::Compression;
use flate2::write::GzEncoder;
use logferry::internals::forward::{FilteredChunk, NatsDelivery, Progress, Publishing, Refusals};
use logferry::internals::metrics::Metrics;
use logferry::internals::protocol::api::{
    Ack as HecAck, Api, CloudWatch, Datadog, Elasticsearch, Label, Line, LineId, Loki, Ndjson, NewRelic, Otlp, S3,
    Splunk, cloudwatch, elasticsearch,
};
use logferry::internals::protocol::fluent::{Packer, TagTemplate};
use logferry::internals::protocol::framing::Framer;
use logferry::internals::protocol::gelf;
use logferry::internals::protocol::nats::{Info, Login, SubjectTemplate};
use logferry::internals::protocol::outline::Outline;
use logferry::internals::protocol::relp::{NumberedStreams, Proofs};
use logferry::internals::protocol::session::{Ack, AnySession, Bounds, Numbers, Protocol, Session, Sink, ToRecord};
use logferry::internals::protocol::splunk;
use logferry::internals::protocol::syslog::{Frame, Senders, Settings, Translator, parse};
use logferry::internals::record::{Format, Patterns, Record, Rule, UnixMicros, render};
use logferry::internals::shape::{
    Known, Mask, MaskPattern, Misread, Pattern, Secret, Shape, Shaped, Steps, Tally, find_fields,
};
use logferry::internals::spool::{Batch, Options, Reader, Spool, Sync};
use tempfile::TempDir;

/// The default of `max-frame`, in bytes.
const LIMIT: usize = 64 << 10;
/// The time when the corpus was captured, so that its timestamps are plausible.
const RECEIVED: UnixMicros = UnixMicros(1_795_213_727_500_000);
/// Larger than one read, and small enough to stay in the page cache.
const SPOOL_BYTES: u64 = 64 << 20;
const READ_LINES: usize = 20_000;
/// The chunk size that a forward requests from its reader.
const CHUNK_BYTES: usize = 64 << 10;

/// A string of the same length as a spool's id.
const SPOOL: &str = "0123456789abcdef";

/// Long enough to include the occasional costs: creating a segment and dropping an old one.
const MIN_TIME: Duration = Duration::from_millis(500);

fn main() {
    Divan::default().min_time(MIN_TIME).config_with_args().main();
}

/// Which messages of the corpus.
#[derive(Clone, Copy, PartialEq)]
enum Messages {
    /// Nine of ten: those up to 512 bytes, which are 140 on average.
    Short,
    /// All messages, including Docker's pieces of 16 KiB: 1600 bytes on average.
    All,
}

const BOTH: [Messages; 2] = [Messages::Short, Messages::All];

impl Messages {
    /// The messages without framing.
    fn read(self) -> Vec<Vec<u8>> {
        let messages = corpus::rows().into_iter().map(|row| row.unframed().to_vec());
        let is_wanted = |message: &Vec<u8>| self == Self::All || message.len() <= 512;
        messages.filter(is_wanted).collect()
    }

    fn lines(self) -> Vec<Vec<u8>> {
        let mut translator = Translator::new(Arc::new(Settings::default()));
        let mut line = |message: &Vec<u8>| {
            let mut line = Vec::new();
            translator.translate(&frame_of(message), &mut line);
            line
        };
        self.read().iter().map(&mut line).collect()
    }
}

impl fmt::Display for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Short { "short" } else { "all" })
    }
}

fn frame_of(bytes: &[u8]) -> Frame<'_> {
    Frame { bytes, cut: false, received: RECEIVED }
}

/// Reports the rates of items and bytes.
fn counted<'a, 'b>(bencher: Bencher<'a, 'b>, items: &[Vec<u8>]) -> Bencher<'a, 'b> {
    let bytes: usize = items.iter().map(Vec::len).sum();
    bencher.counter(ItemsCount::new(items.len())).counter(BytesCount::new(bytes))
}

/// Splits one buffer of framed messages, as after a single read.
fn frames(bencher: Bencher, messages: Vec<Vec<u8>>, framed: impl Fn(&[u8]) -> Vec<u8>) {
    let stream: Vec<u8> = messages.iter().flat_map(|message| framed(message)).collect();
    let mut framer = Framer::new(LIMIT);
    let mut found = 0;
    framer.feed(&stream, |_| found += 1);
    assert_eq!(found, messages.len(), "the messages are not what was framed");
    counted(bencher, &messages).bench_local(|| {
        framer.feed(black_box(&stream), |frame| {
            black_box(frame);
        })
    });
}

#[divan::bench(args = BOTH)]
fn frame_newline(bencher: Bencher, which: Messages) {
    let mut messages = which.read();
    for message in &mut messages {
        // An LF inside a message would end its frame.
        message.retain(|byte| *byte != b'\n');
    }
    frames(bencher, messages, |message| [message, b"\n"].concat());
}

#[divan::bench(args = BOTH)]
fn frame_counted(bencher: Bencher, which: Messages) {
    frames(bencher, which.read(), |message| [format!("{} ", message.len()).as_bytes(), message].concat());
}

#[divan::bench(name = "parse", args = BOTH)]
fn parse_frame(bencher: Bencher, which: Messages) {
    let (messages, settings) = (which.read(), Settings::default());
    counted(bencher, &messages).bench_local(|| {
        for message in &messages {
            black_box(parse(&frame_of(message), &settings, Senders::Anybody));
        }
    });
}

/// From a message to its canonical line, parsing included.
#[divan::bench(args = BOTH)]
fn translate(bencher: Bencher, which: Messages) {
    let messages = which.read();
    let mut translator = Translator::new(Arc::new(Settings::default()));
    let mut line = Vec::new();
    counted(bencher, &messages).bench_local(|| {
        for message in &messages {
            line.clear();
            translator.translate(&frame_of(message), &mut line);
            black_box(&line);
        }
    });
}

/// Writes the line of each record.
struct Lines {
    translator: Translator,
    line: Vec<u8>,
    count: usize,
}

impl Sink for Lines {
    fn frame(&mut self, _: &[u8], _: bool) -> bool {
        panic!("this protocol has no frames of syslog")
    }

    /// Looks up the remembered outline of a container, as a listener does for each message.
    fn known(&mut self, outline: &Outline<'_>) -> Option<bool> {
        let known = self.translator.find_outlined(outline, RECEIVED)?;
        self.line.clear();
        self.translator.write_known(&known, &mut self.line);
        self.count += 1;
        Some(true)
    }

    fn record(&mut self, message: &impl ToRecord) -> bool {
        if message.outline().is_some_and(|outline| self.known(&outline).is_some()) {
            return true;
        }
        self.line.clear();
        self.translator.take(message, RECEIVED).write(&mut self.line);
        self.count += 1;
        true
    }

    fn ticket(&mut self, _: Ack, _: Option<Numbers<'_>>) {
        panic!("nobody asks for an answer")
    }
}

/// From the bytes of Docker's drivers to canonical lines. One container with short lines, repeated to fill a read of 64
/// KiB.
#[divan::bench(args = [
    "fluentd-matrix-unix-subsec-tag3",
    "fluentd-extra-all",
    "fluentbit-forward-forward",
    "gelf-matrix-tcp-plain-tag3",
    "gelf-extra-tcp-all",
    "fluentbit-gelf-tcp",
])]
fn session(bencher: Bencher, file: &str) {
    let protocol = if file.contains("gelf") { Protocol::Gelf } else { Protocol::Fluent };
    let path = format!("{}/tests/corpus-drivers/{file}.raw", env!("CARGO_MANIFEST_DIR"));
    let stream = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let stream = stream.repeat(LIMIT.div_ceil(stream.len()));
    let proofs = Proofs { streams: NumberedStreams::Any, nonce: [0; 32], signer: |_, _, _| None };
    let (frame_timeout, senders) = (Duration::from_secs(60), Senders::Anybody);
    let bounds = Bounds {
        max_frame: LIMIT,
        max_array: 8 << 20,
        max_line: 1 << 20,
        frame_timeout,
        open_timeout: frame_timeout,
        proofs,
        senders,
    };
    let mut session = AnySession::new(protocol, bounds).expect("a protocol with sessions");
    let mut lines = Lines { translator: Translator::new(Arc::new(Settings::default())), line: Vec::new(), count: 0 };
    let (now, mut answers) = (Instant::now(), Vec::new());
    session.feed(&stream, now, &mut lines, &mut answers).expect("what a driver sent");
    assert!(lines.count > 0 && !session.unfinished(), "{file} has no whole messages");
    bencher.counter(ItemsCount::new(lines.count)).counter(BytesCount::new(stream.len())).bench_local(|| {
        session.feed(black_box(&stream), now, &mut lines, &mut answers).expect("what a driver sent");
    });
}

/// From a body of a thousand HEC events, read like a connection, to canonical lines. `event` makes the event for a line
/// of 100 bytes at a microsecond of one second.
fn hec(bencher: Bencher, event: impl Fn(&str, usize) -> String) {
    let line =
        |n: usize| format!("{n:06} GET /api/v1/items/{n}?page=2 HTTP/1.1 200 5316 \\\"-\\\" {:60}", "curl/8.5.0");
    let events: Vec<_> = (0..1000).map(|n| event(&line(n)[..100], 57_000 + n).into_bytes()).collect();
    let given = splunk::Given::default();
    let post = splunk::Post { is_raw: false, is_gzip: false, channel: None, given };
    let limits = splunk::Limits { max_event: 1 << 20, max_message: LIMIT, max_body: 0 };
    let mut lines = Lines { translator: Translator::new(Arc::new(Settings::default())), line: Vec::new(), count: 0 };
    let body = events.concat();
    let mut read = |bytes: &[u8]| {
        let mut body = splunk::Body::new(post.clone(), limits, Senders::Anybody);
        for piece in bytes.chunks(LIMIT) {
            body.feed(piece, |message| _ = lines.record(message)).expect("events");
        }
        assert_eq!((body.finish(|_| {}), body.found()), (Ok(false), 1000));
    };
    counted(bencher, &events).bench_local(|| read(black_box(&body)));
}

/// Events as Docker's driver sends them.
#[divan::bench]
fn hec_docker(bencher: Bencher) {
    let tag = "nginx:1.25/proj-web-1/413e768d8d07";
    hec(bencher, |line, micros| {
        let event = format!(r#"{{"line":"{line}","source":"stdout","tag":"{tag}"}}"#);
        format!(r#"{{"event":{event},"time":"1795898403.{micros:06}","host":"docker-host-1"}}"#)
    });
}

/// JSON objects, as logging libraries send them.
#[divan::bench]
fn hec_object(bencher: Bencher) {
    hec(bencher, |line, micros| {
        let event = format!(r#"{{"level":"info","message":"{line}","n":1.5}}"#);
        format!(r#"{{"time":1795898403.{micros:06},"host":"web-1","sourcetype":"_json","event":{event}}}"#)
    });
}

fn renders(bencher: Bencher, which: Messages, format: Format) {
    let (lines, sd_id) = (which.lines(), Settings::default().sd_id);
    let mut out = Vec::new();
    counted(bencher, &lines).bench_local(|| {
        for line in &lines {
            out.clear();
            render(line, format, &sd_id, &mut out);
            black_box(&out);
        }
    });
}

#[divan::bench(args = BOTH)]
fn render_rfc3164(bencher: Bencher, which: Messages) {
    renders(bencher, which, Format::Rfc3164);
}

#[divan::bench(args = BOTH)]
fn render_json(bencher: Bencher, which: Messages) {
    renders(bencher, which, Format::Json);
}

/// Spool lines of 200 bytes each, from a container without labels as fields.
fn docker_lines() -> Vec<Vec<u8>> {
    let line = |n: usize| {
        let element = r#"[docker@32473 image="nginx:1.25" name="proj-web-1" id="413e768d8d07"]"#;
        let head = format!("<30>1 2026-11-29T12:00:00.{n:06}Z docker-host-1 proj-web-1 1234 - {element}");
        format!("{head} 172.18.0.1 \"GET /api/v1/items/{n:06} HTTP/1.1\" 200 5316 {:<200}", "curl/8").into_bytes()
    };
    (0..1000).map(|n| line(n)[..200].to_vec()).collect()
}

/// Encodes [`docker_lines`].
fn encodes(bencher: Bencher, mut append: impl FnMut(&[(LineId, &[u8])], &mut Vec<u8>)) {
    let (texts, mut out) = (docker_lines(), Vec::new());
    let ids = (0..).map(|number| LineId { session: 1, number });
    let lines: Vec<_> = ids.zip(texts.iter().map(Vec::as_slice)).collect();
    counted(bencher, &texts).bench_local(|| {
        out.clear();
        append(black_box(&lines), &mut out);
        black_box(&out);
    });
}

/// The cost common to all encoders: reading the record from its line.
#[divan::bench]
fn encode_nothing(bencher: Bencher) {
    let sd_id = Settings::default().sd_id;
    encodes(bencher, |lines, _| {
        for (_, line) in lines {
            black_box(Record::from_line(line, &sd_id));
        }
    });
}

/// The body of a request or an object, before compression.
#[divan::bench(args = ["elasticsearch", "otlp", "splunk", "loki", "datadog", "newrelic", "cloudwatch", "s3", "json"])]
fn encode_body(bencher: Bencher, api: &str) {
    let (spool, sd_id, none) = (SPOOL.to_owned(), Settings::default().sd_id, Vec::new());
    let objects = Ndjson { is_array: false, sd_id: sd_id.clone(), fields: Vec::new() };
    let api = match api {
        "elasticsearch" => {
            let index = elasticsearch::index("logs-docker-default");
            Api::Elasticsearch(Elasticsearch { index, spool: Some(spool), sd_id: sd_id.clone(), labels: none })
        }
        "otlp" => Api::Otlp(Otlp { spool, sd_id: sd_id.clone(), attributes: none }),
        "splunk" => Api::Splunk(Splunk { index: None, sourcetype: None, spool, fields: none, ack: HecAck::Auto }),
        "loki" => {
            let labels = vec![Label::Job, Label::Host, Label::ServiceName, Label::Level];
            Api::Loki(Loki { labels, fields: none, sd_id: sd_id.clone() })
        }
        "datadog" => Api::Datadog(Datadog { spool, tags: none }),
        "newrelic" => Api::NewRelic(NewRelic { spool, attributes: none }),
        "cloudwatch" => {
            let (group, stream) = (cloudwatch::group("docker"), cloudwatch::stream("{host}"));
            Api::CloudWatch(CloudWatch { group, stream, objects: Some(objects), creates: true })
        }
        "s3" => Api::S3(S3 { stream: format!("{SPOOL}-central"), objects }),
        _ => Api::Ndjson(objects),
    };
    encodes(bencher, |lines, out| {
        let lines: Vec<_> = lines.iter().map(|(id, text)| line_of(*id, text, &sd_id)).collect();
        api.body(&lines, out);
    });
}

fn line_of<'l>(id: LineId, text: &'l [u8], sd_id: &str) -> Line<'l> {
    Line { id, record: Record::from_line(text, sd_id), sent_at: None }
}

/// A text of 300 bytes with ten values of a program. Some values vary from text to text.
fn said(form: &str, n: usize) -> String {
    let stamp = format!("2026-11-29T12:00:00.{n:06}Z");
    // Pseudo-random, but the same in each run.
    let chance = (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (id, bytes, remote) =
        (format!("{chance:016x}"), 1000 + chance % 9000, format!("172.18.{}.1{}", n % 9, chance % 90 + 10));
    let path = format!("/api/v1/items/{:06}?page=2&sort=name", chance % 1_000_000);
    let agent = "Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0";
    match form {
        "json" => format!(
            r#"{{"time":"{stamp}","level":"warn","msg":"request completed","method":"GET","path":"{path}","status":200,"bytes":{bytes},"duration_ms":1{}.75,"remote":"{remote}","agent":"{agent} {id}"}}"#,
            n % 10
        ),
        "logfmt" => format!(
            r#"time={stamp} level=warn msg="request completed" method=GET path="{path}" status=200 bytes={bytes} duration_ms=1{}.75 remote={remote} agent="{agent} {id} and a little more""#,
            n % 10
        ),
        _ => format!(
            r#"{remote} - - [29/Nov/2026:12:00:00 +0000] "GET {path} HTTP/1.1" 200 {bytes} "https://www.example.com/cart/of/somebody/with/much/in/it?id={id}" "{agent} and a little more, so it is as long" "-""#
        ),
    }
}

/// A thousand spool lines with these texts.
fn said_lines(form: &str) -> Vec<Vec<u8>> {
    let element = r#"[docker@32473 image="nginx:1.25" name="proj-web-1" id="413e768d8d07"]"#;
    let line = |n: usize| {
        let text = said(form, n);
        assert!((285..=315).contains(&text.len()), "{form} has {} bytes", text.len());
        format!("<30>1 2026-11-29T12:00:01.{n:06}Z docker-host-1 proj-web-1 1234 - {element} {text}").into_bytes()
    };
    (0..1000).map(line).collect()
}

/// `takes`: whether time, severity and text come from the fields.
fn steps(parse: &str, takes: bool) -> Steps {
    let key = |key: &str| takes.then(|| key.to_owned());
    Steps {
        parse: vec![parse.parse().expect("a parser")],
        time_from: key("time"),
        severity_from: key("level"),
        message_from: key("msg"),
        ..Steps::default()
    }
}

/// Parses a text into fields.
#[divan::bench(args = ["json", "logfmt", "nginx"])]
fn shape_parse(bencher: Bencher, form: &str) {
    let parsers = steps(form, false).parse;
    let texts: Vec<_> = (0..1000).map(|n| said(form, n).into_bytes()).collect();
    counted(bencher, &texts).bench_local(|| {
        for text in &texts {
            black_box(find_fields(&parsers, None, text)).expect("fields");
        }
    });
}

/// Shapes a line for a forward.
fn shapes(bencher: Bencher, steps: Steps, form: &str, expected: &Shaped) {
    let (lines, shape) = (said_lines(form), Shape::new(steps, Vec::new(), &Settings::default().sd_id));
    let (mut out, mut tally) = (Vec::new(), Tally::default());
    counted(bencher, &lines).bench_local(|| {
        for line in &lines {
            out.clear();
            assert_eq!(shape.apply(black_box(line), &mut out, &mut tally), *expected);
        }
    });
    assert_eq!(tally.misread, Misread::default());
}

#[divan::bench(args = ["json", "logfmt", "nginx"])]
fn shape_apply(bencher: Bencher, form: &str) {
    shapes(bencher, steps(form, false), form, &Shaped::Changed);
}

#[divan::bench(args = ["json", "logfmt"])]
fn shape_take(bencher: Bencher, form: &str) {
    shapes(bencher, steps(form, true), form, &Shaped::Changed);
}

/// Masks, on lines without anything to hide. `none` is the cost of reading the line.
#[divan::bench(args = [
    "none",
    "card-number",
    "email",
    "bearer-token",
    "aws-key",
    "private-key",
    "all",
    r"password=\S+",
    r"(?i)password=\S+",
    r"(password|passwd|secret)=\S+",
    r"\bsk-[a-z0-9]{20,}",
    r"[A-Z]{3}[0-9]{9}",
])]
fn shape_mask(bencher: Bencher, what: &str) {
    let known = Known::ALL.iter().filter(|(name, _)| *name == what || what == "all");
    let mut secrets: Vec<_> = known.map(|(_, known)| Secret::Known(*known)).collect();
    if secrets.is_empty() && what != "none" {
        secrets.push(Secret::Pattern(MaskPattern::new(what).expect("a pattern")));
    }
    let masks = secrets.into_iter().map(|what| Mask { what, with: "***".to_owned() }).collect();
    shapes(bencher, Steps { masks, ..Steps::default() }, "json", &Shaped::AsItIs);
}

/// Input crafted to keep a relay busy. Twice the size may cost twice as much; docs/design/performance.md counts the
/// instructions.
#[derive(Clone, Copy)]
struct Hostile {
    kind: &'static str,
    kib: usize,
}

impl Hostile {
    fn all() -> impl Iterator<Item = Self> {
        let kinds = [
            "braces",
            "brackets",
            "names",
            "keys",
            "escapes",
            "equals",
            "digits",
            "cards",
            "ats",
            "mails",
            "begin",
            "endless-keys",
            "words",
            "secrets",
            "blanks",
        ];
        kinds.into_iter().flat_map(|kind| [4, 8, 32, 64].map(|kib| Self { kind, kib }))
    }
}

impl fmt::Display for Hostile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.kind, self.kib)
    }
}

fn hostile(Hostile { kind, kib }: Hostile) -> Vec<u8> {
    let size = kib << 10;
    let count = (size / 32).min(512);
    let filled = |start: &str, piece: &str, end: &str| {
        let pieces = piece.repeat((size - start.len() - end.len()) / piece.len());
        [start, &pieces, end].concat().into_bytes()
    };
    match kind {
        "braces" => filled("{\"a\":", "{\"a\":", "}"),
        "brackets" => filled("{\"a\":[", "[],", "1]}"),
        "names" => {
            let stem = "n".repeat(size / count - 10);
            let members: Vec<String> = (0..count).map(|n| format!("\"{stem}{n:03}\":1")).collect();
            format!("{{{}}}", members.join(",")).into_bytes()
        }
        "keys" => {
            let stem = "n".repeat(size / count - 10);
            (0..count).map(|n| format!("{stem}{n:03}=1 ")).collect::<String>().into_bytes()
        }
        "escapes" => filled("{\"a\":\"", "\\\\", "\"}"),
        "equals" => filled("", "a=", ""),
        "digits" => filled("", "4", ""),
        "cards" => filled("", "4111 1111 1111 1112 x ", ""),
        "ats" => filled("", "a@", ""),
        "mails" => filled("", "a@b.", ""),
        "begin" => filled("", "-----BEGIN ", ""),
        "endless-keys" => filled("", "-----BEGIN PRIVATE KEY-----END ", ""),
        "words" => filled("", "password= tokem=x ", ""),
        "secrets" => filled("", "password=x ", ""),
        _ => filled("[", "1 [x] ", "]"),
    }
}

#[divan::bench(max_time = 0.1, args = Hostile::all())]
fn shape_hostile(bencher: Bencher, what: Hostile) {
    let parsers = Pattern::names().into_iter().chain(["json", "logfmt"]);
    let pattern = MaskPattern::new(r"(?i)(password=.*;|password=\S+|token=\S+)").expect("a pattern");
    let secrets = Known::ALL.map(|(_, known)| Secret::Known(known)).into_iter().chain([Secret::Pattern(pattern)]);
    let steps = Steps {
        parse: parsers.map(|name| name.parse().expect("a parser")).collect(),
        guess_severity: true,
        masks: secrets.map(|what| Mask { what, with: "***".to_owned() }).collect(),
        ..steps("json", true)
    };
    let shape = Shape::new(steps, Vec::new(), &Settings::default().sd_id);
    let line = [b"<30>1 2026-11-29T12:00:01Z docker-host-1 web 1234 - - ", &hostile(what)[..]].concat();
    let (mut out, mut tally) = (Vec::new(), Tally::default());
    bencher.counter(BytesCount::new(line.len())).bench_local(|| {
        out.clear();
        black_box(shape.apply(black_box(&line), &mut out, &mut tally));
    });
}

/// The work of a forward to Elasticsearch: parse fields from JSON, apply three rules, write the request body, and
/// compress it with gzip at the forward's level.
#[divan::bench(args = ["plain", "gzip"])]
fn shape_bulk(bencher: Bencher, how: &str) {
    let (lines, sd_id) = (said_lines("json"), Settings::default().sd_id);
    let rule = |name: &str, message: &str| Rule {
        name: Patterns::new(vec![name.to_owned()]).expect("a pattern"),
        message: Patterns::new(vec![message.to_owned()]).expect("a pattern"),
        ..Rule::default()
    };
    let rules = vec![rule("db-*", "*"), rule("proj-*", "*GET /healthz*"), rule("proj-*", "request *")];
    let shape = Shape::new(steps("json", true), rules, &sd_id);
    let index = elasticsearch::index("logs-docker-default");
    let api = Elasticsearch { index, spool: Some(SPOOL.to_owned()), sd_id: sd_id.clone(), labels: Vec::new() };
    let (mut shaped, mut ends, mut tally) = (Vec::new(), Vec::new(), Tally::default());
    counted(bencher, &lines).bench_local(|| {
        shaped.clear();
        ends.clear();
        for line in &lines {
            assert_eq!(shape.apply(black_box(line), &mut shaped, &mut tally), Shaped::Changed);
            ends.push(shaped.len());
        }
        let starts = [0].into_iter().chain(ends.iter().copied());
        let texts = starts.zip(&ends).map(|(start, end)| &shaped[start..*end]);
        let ids = (0..).map(|number| LineId { session: 1, number });
        let lines: Vec<_> = ids.zip(texts).map(|(id, text)| line_of(id, text, &sd_id)).collect();
        let mut body = Vec::new();
        api.body(&lines, &mut body);
        if how == "gzip" {
            let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 2), Compression::new(1));
            encoder.write_all(&body).expect("in memory");
            body = encoder.finish().expect("in memory");
        }
        black_box(&body);
    });
}

/// One chunk of the Forward protocol.
#[divan::bench]
fn encode_packed_forward(bencher: Bencher) {
    let tag: TagTemplate = "docker.{name}".parse().expect("a template");
    let packer = Packer::new(tag, Settings::default().sd_id, format!("{SPOOL}/central"));
    encodes(bencher, |lines, out| {
        let ends = (lines[0].0, lines[lines.len() - 1].0);
        let names = packer.pack(lines.iter().map(|(_, line)| *line), ends, out);
        assert_eq!(names.len(), 1);
    });
}

#[divan::bench]
fn encode_gelf(bencher: Bencher) {
    let sd_id = Settings::default().sd_id;
    encodes(bencher, |lines, out| {
        for (_, line) in lines {
            gelf::append(&Record::from_line(line, &sd_id), &sd_id, out);
        }
    });
}

/// A JetStream message for each line, recorded until the server acknowledges it.
#[divan::bench]
fn encode_jetstream(bencher: Bencher) {
    let dir = TempDir::new().expect("a directory");
    let (lines, sd_id, now) = (docker_lines(), Settings::default().sd_id, Instant::now());
    let Spool { mut writer, mut readers, .. } = open(&dir, &Metrics::new());
    writer.append(&mut [batch_of(&lines)]);
    let reader = RefCell::new(readers.pop().expect("its forward's"));
    let opened = || {
        let publishing = Publishing {
            subject: SubjectTemplate::new("logs.{host}.{name}"),
            sd_id: sd_id.clone(),
            stream: format!("{SPOOL}/central"),
            inbox: "_INBOX.0123456789abcdefghijkl".to_owned(),
        };
        let patience = (None, Duration::from_secs(10));
        let mut nats = NatsDelivery::new(publishing, Info::default(), (&Login::Nobody, false), patience, now);
        nats.flushed();
        nats.heard(b"PONG\r\n", now, &mut Refusals::default(), &mut Progress::default()).expect("PONG");
        let mut reader = reader.borrow_mut();
        reader.rewind();
        let chunk = reader.next(1 << 20).expect("the disk reads").expect("lines");
        assert_eq!(chunk.lines().count(), lines.len());
        (nats, Some(FilteredChunk::new(chunk, &Shape::of_rules(Vec::new(), &sd_id))))
    };
    counted(bencher, &lines).with_inputs(opened).bench_local_refs(|(nats, chunk)| {
        let chunk = chunk.take().expect("pushed once");
        nats.push(chunk, now, &mut Refusals::default(), &mut Progress::default());
        assert!(!nats.output().is_empty());
    });
}

fn batch_of(lines: &[Vec<u8>]) -> Batch {
    let mut batch = Batch::new();
    lines.iter().for_each(|line| batch.push(|out| out.extend_from_slice(line)));
    batch
}

/// Short lines, repeated, in batches of `of` lines.
fn batches(lines: usize, of: usize) -> (Vec<Vec<u8>>, Vec<Batch>) {
    let lines: Vec<_> = Messages::Short.lines().into_iter().cycle().take(lines).collect();
    let batches = lines.chunks(of).map(batch_of).collect();
    (lines, batches)
}

fn open(dir: &TempDir, metrics: &Metrics) -> Spool {
    let options = Options::new(dir.path(), SPOOL_BYTES, vec!["central".to_owned()]);
    // The cost of a sync depends on the disk, not on logferry.
    Spool::open(Options { sync: Sync::Never, ..options }, metrics).expect("a spool")
}

/// Appends and publishes a batch of this many lines. Large batches fill the spool, which then drops its oldest
/// segments.
#[divan::bench(args = [1, 10, 100, 1000])]
fn append(bencher: Bencher, batch_lines: usize) {
    let dir = TempDir::new().expect("a directory");
    // Keeps the reader alive: without a reader, no forward would need the lines.
    let metrics = Metrics::new();
    let Spool { mut writer, readers, .. } = open(&dir, &metrics);
    let (lines, batches) = batches(batch_lines, batch_lines);
    counted(bencher, &lines).with_inputs(|| batches.clone()).bench_local_refs(|batches| writer.append(batches));
    drop(readers);
    assert_eq!(metrics.spool().errors.get(), 0, "the disk refused lines, and refusing is quick");
}

/// Reads all lines from the reader's position on.
fn read_all(reader: &mut Reader, expected: usize) {
    let mut found = 0;
    while let Some(chunk) = reader.next(CHUNK_BYTES).expect("the disk reads") {
        found += chunk.lines().map(black_box).count();
    }
    assert_eq!(found, expected, "the spool has other lines");
}

/// A reader that keeps up: it reads each batch from memory before the next one is written.
#[divan::bench(sample_size = 1)]
fn read_just_written(bencher: Bencher) {
    let dir = TempDir::new().expect("a directory");
    let (lines, batches) = batches(1000, 1000);
    let Spool { mut writer, mut readers, .. } = open(&dir, &Metrics::new());
    let reader = RefCell::new(readers.pop().expect("its forward's"));
    counted(bencher, &lines)
        .with_inputs(|| {
            let mut reader = reader.borrow_mut();
            let passed = reader.next(0).expect("the disk reads").is_none();
            assert!(passed, "the last batch was not read to its end");
            writer.append(&mut batches.clone());
        })
        .bench_local_values(|()| read_all(&mut reader.borrow_mut(), lines.len()));
}

/// A reader that is behind: it reads from the segments.
#[divan::bench]
fn read_reopened(bencher: Bencher) {
    let dir = TempDir::new().expect("a directory");
    let (lines, mut batches) = batches(READ_LINES, 100);
    open(&dir, &Metrics::new()).writer.append(&mut batches);
    let mut reader = open(&dir, &Metrics::new()).readers.pop().expect("its forward's");
    counted(bencher, &lines).bench_local(|| {
        reader.rewind();
        read_all(&mut reader, lines.len());
    });
}
