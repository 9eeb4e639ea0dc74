//! Generates the seed corpora of the fuzz targets: `cargo run --example seeds -- DIR` makes a folder for each target in
//! DIR. The seeds come from the messages of tests/corpus, tests/corpus-drivers, tests/corpus-journal and tests/shape,
//! the reference config, and new certificates. `fuzz/run` calls it; the repository does not keep the seeds.

use std::fs;
use std::path::{Path, PathBuf};

use logferry::internals::protocol::relp;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// Longer seeds make a target slow and do not cover more code.
const LONGEST: usize = 2048;

/// Texts with secrets to mask, and JSON that cannot be parsed.
const SHAPED: [&str; 4] = [
    "card 4111 1111 1111 1111, Bearer eyJhbGciOi.x, AKIAIOSFODNN7EXAMPLE, -----BEGIN PRIVATE KEY-----",
    r#"{"a":[{"a":"a@example.com","password":"4111-1111-1111-1111"}],"a":1}"#,
    r#"{"a":[[[[{"a":1e999}]]]],"\u0061":"\ud800"}"#,
    r#"a=1 a="\"@b.example" a=-----BEGIN"#,
];

fn main() {
    let out = PathBuf::from(std::env::args_os().nth(1).expect("usage: seeds DIR"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let messages = messages(&root.join("tests/corpus"));
    // The bytes before the stream select the limit and the cuts, or how a message is read.
    keep(&out, "frame", streams(&messages).map(|stream| [&[255, 3, 1, 90, 1, 60, 200], &stream[..]].concat()));
    keep(&out, "message", messages.iter().map(|message| [&[0, 0xcf, 0x76, 0, 0x6b], without_lf(message)].concat()));
    let stamps = fs::read_to_string(root.join("tests/data/stamps.tsv")).expect("stamps of every vendor");
    let stamps = stamps.lines().filter_map(|line| line.split('\t').nth(1));
    // A timestamp behind a version (RFC 5424) is a second seed without the version.
    let stamps = stamps.flat_map(|stamp| [Some(stamp), stamp.strip_prefix("1 ")]).flatten().enumerate();
    keep(&out, "stamp", stamps.map(|(n, stamp)| [&[n as u8 % 5, 0xcf, 0x76, 0, 0x6b], stamp.as_bytes()].concat()));
    // The first byte selects how a text is shaped.
    let texts = shaped(&root.join("tests/shape"));
    let texts = texts.iter().flat_map(|text| [0_u8, 0x7f, 0xff].map(|choice| [&[choice], text.as_bytes()].concat()));
    keep(&out, "shape", texts);
    // The priority, the length of the sent elements, the elements, and a message that selects the rest.
    keep(&out, "line", ELEMENTS.iter().map(|sent| [&[27, sent.len() as u8], sent.as_bytes(), &messages[0]].concat()));
    let answers =
        ANSWERS.iter().map(|(status, body)| [&b"A"[..], &u16::to_be_bytes(*status), &[3], body.as_bytes()].concat());
    keep(&out, "api", messages.iter().cloned().chain(answers));
    keep(&out, "explain", messages.iter().cloned());
    keep(&out, "relp", sessions(&messages));
    keep(&out, "nats", messages.iter().map(|message| [&[2, 60, 200], nats().as_bytes(), &message[..]].concat()));
    let connections = messages_of(&root.join("tests/corpus-drivers"), "fluent");
    keep(&out, "fluent", connections.iter().map(|connection| [&[255, 2, 90, 200], &connection[..]].concat()));
    let syslog = streams(&messages).map(|stream| [&[255, 3, 1, 60, 200], &stream[..]].concat());
    let forward = connections.iter().map(|connection| [&[255, 3, 60, 200, 90], &connection[..]].concat());
    keep(&out, "session", sessions(&messages).chain(syslog).chain(forward));
    keep(&out, "proxy", proxied(&messages[0]));
    keep(&out, "gelf", gelf(&root.join("tests/corpus-drivers")));
    keep(&out, "journal", journal(&root.join("tests/corpus-journal")));
    keep(&out, "splunk", splunk(&root.join("tests/corpus-drivers")));
    let parts = messages.chunks(4).map(parts);
    keep(&out, "record", parts.clone().map(|parts| [&[0, 0], &parts[..]].concat()));
    keep(&out, "segment", parts.clone().map(|parts| [&[2], &parts[..]].concat()));
    keep(&out, "ledger", parts);
    let reference = fs::read_to_string(root.join("docker/logferry.toml")).expect("the reference config");
    let configs = configs(&reference);
    let values = configs.iter().flat_map(|config| config.split('"').skip(1).step_by(2)).map(|value| value.into());
    keep(&out, "address", values);
    keep(&out, "config", configs.iter().map(|config| config.clone().into_bytes()));
    keep(&out, "certificate", certificates(&out.join("pem")));
}

/// Answers of log stores.
const ANSWERS: [(u16, &str); 6] = [
    (200, r#"{"errors":true,"items":[{"create":{"status":201}},{"create":{"status":429}},{"create":{"status":400}}]}"#),
    (200, r#"{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"too old"}}"#),
    (200, "\x0a\x0b\x08\x01\x12\x07too old"),
    (400, r#"{"text":"Invalid data format","code":6,"invalid-event-number":1}"#),
    (503, r#"{"text":"Server is busy","code":9}"#),
    (204, ""),
];

/// Structured data that a sender may have set itself.
const ELEMENTS: [&str; 4] = [
    r#"[docker@32473 image="nginx:1.25" name="web" id="2a9052a5c36e"][b c="d"]"#,
    r#"[fields@32473 a="1"][json@32473 fields="{\"n\":1.50,\"r\":\"\\\\xff\"}" escaped="[\"r\"\]"]"#,
    r#"[logferry@32473 cut="true" peer="::1" source="stdout" nanoseconds="7" listener="dmz" hop="1" fields-cut="2"]"#,
    "",
];

fn keep(out: &Path, target: &str, seeds: impl Iterator<Item = Vec<u8>>) {
    let dir = out.join(target);
    fs::create_dir_all(&dir).expect("a directory");
    let mut count = 0;
    for seed in seeds {
        fs::write(dir.join(format!("seed-{count:03}")), seed).expect("written");
        count += 1;
    }
    assert!(count >= 3, "only {count} seeds for {target}");
    println!("{target}: {count} seeds");
}

/// A few lines of each program in tests/shape, and [`SHAPED`].
fn shaped(dir: &Path) -> Vec<String> {
    let mut files: Vec<_> = fs::read_dir(dir).expect("lines").map(|entry| entry.expect("a file").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    let line = |row: &str| {
        let row: serde_json::Value = serde_json::from_str(row).expect("JSON");
        row["line"].as_str().expect("a line").to_owned()
    };
    let rows =
        |path: &PathBuf| fs::read_to_string(path).expect("text").lines().skip(1).take(4).map(line).collect::<Vec<_>>();
    files.iter().flat_map(rows).chain(SHAPED.map(str::to_owned)).collect()
}

/// The messages as Docker's driver sent them: datagrams and whole connections.
fn messages(corpus: &Path) -> Vec<Vec<u8>> {
    let messages = messages_of(corpus, "");
    assert!(messages.len() > 200, "the corpus is not there");
    messages
}

/// The messages of the files whose names begin with `beginning`.
fn messages_of(corpus: &Path, beginning: &str) -> Vec<Vec<u8>> {
    let files = fs::read_dir(corpus).expect("the corpus").map(|entry| entry.expect("a file").path());
    let is_one = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with(beginning) && name.ends_with(".raw")
    };
    let mut files: Vec<_> = files.filter(is_one).collect();
    files.sort();
    let mut messages: Vec<_> = files.iter().map(|path| fs::read(path).expect("a file")).collect();
    messages.iter_mut().for_each(|message| message.truncate(LONGEST));
    messages
}

/// GELF datagrams and connections, behind bytes that select how they are read, the cuts and the limit.
fn gelf(corpus: &Path) -> impl Iterator<Item = Vec<u8>> {
    let files = fs::read_dir(corpus).expect("the corpus of drivers").map(|entry| entry.expect("a file").path());
    let files = files.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("gelf-")));
    let mut files: Vec<_> = files.map(|path| fs::read(path).expect("a file")).collect();
    files.sort();
    files.iter_mut().for_each(|sent| sent.truncate(LONGEST));
    let read_as = |way: u8| move |sent: &Vec<u8>| [&[way, 90, 200, 255], &sent[..]].concat();
    let chunks = [2, 1, 2, 3, 0, 0, 0, 1, 0, 2, 3, b'a', b'b', b'c', 1, 1, 2, 0, 0x90, 0, 1, 0];
    let all: Vec<_> =
        [0, 1, 3].into_iter().flat_map(|way| files.iter().map(read_as(way)).collect::<Vec<_>>()).collect();
    all.into_iter().chain([chunks.into()])
}

/// Single entries, bodies of several, and the actions of two senders, behind bytes that select the limit and the cuts.
fn journal(corpus: &Path) -> impl Iterator<Item = Vec<u8>> {
    let files = fs::read_dir(corpus).expect("the corpus of journals").map(|entry| entry.expect("a file").path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "http"));
    let mut files: Vec<_> = files.map(|path| fs::read(path).expect("a file")).collect();
    files.sort();
    let marks = |file: &Vec<u8>| memchr::memmem::find_iter(file, b"__CURSOR=").collect::<Vec<_>>();
    let entries = files.iter().flat_map(|file| {
        let starts = marks(file);
        let ends = starts.iter().skip(1).copied().collect::<Vec<_>>();
        starts.into_iter().zip(ends).map(|(start, end)| file[start..end].to_vec())
    });
    let entries: Vec<_> = entries.filter(|entry| entry.len() < LONGEST).collect();
    let pairs: Vec<_> = entries.chunks(2).map(<[_]>::concat).collect();
    let bodies = entries.into_iter().chain(pairs).map(|body| [&[200, 2, 90, 200], &body[..]].concat());
    let senders = [255, 0, 8, 1, 8, 2, 1, 0, 72, 3, 66, 0, 0, 0, 8, 1, 8, 2, 8, 3, 5, 0, 7, 0, 8, 3, 8, 4, 1, 0, 9, 2];
    bodies.chain([senders.into()]).collect::<Vec<_>>().into_iter()
}

/// HTTP heads, acknowledgement queries, and bodies: raw, as lines and with gzip. Leading bytes select the kind, the
/// limit and the cuts.
fn splunk(corpus: &Path) -> impl Iterator<Item = Vec<u8>> {
    let files = fs::read_dir(corpus).expect("the corpus of drivers").map(|entry| entry.expect("a file").path());
    let files = files.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("splunk-")));
    let mut all: Vec<Vec<u8>> = Vec::new();
    for file in files {
        let requests = fs::read(&file).expect("a file");
        let body = requests.rsplit(|byte| *byte == b'\r').next().expect("a body");
        let body = &body[1..body.len().min(LONGEST)];
        let ways = if body.starts_with(b"{") { [2, 6, 18] } else { [10, 26, 14] };
        all.extend(ways.map(|way| [&[way, 255, 90, 200], body].concat()));
    }
    all.sort();
    let list = br#"[{"event":"a","time":1795898403.5,"fields":{"n":1}},{"fields":{"\ud800":1e400}}] {"event":[1]}"#;
    let head = b"\0\0\0\0POST\n/services/collector/raw\nhost=a&channel=00000000000000000000000000000001\nBasic eDp0b2tlbg==\n\ngzip";
    let acks = [1, 0, 0, 0, 0, 0, 8, 0, 64, 0, 1, 0, 9, 1, 200, 1];
    all.into_iter().chain([[&[2, 255, 3, 40], &list[..]].concat(), head.to_vec(), acks.into()])
}

fn without_lf(message: &[u8]) -> &[u8] {
    message.strip_suffix(b"\n").unwrap_or(message)
}

/// Connections: messages as captured, and a few of them with each other framing that senders use.
fn streams(messages: &[Vec<u8>]) -> impl Iterator<Item = Vec<u8>> {
    let few = messages.chunks(16).flat_map(|messages| {
        let framed = |frame: fn(&[u8]) -> Vec<u8>| messages.iter().take(3).flat_map(|message| frame(message)).collect();
        let counted = |message: &[u8]| [format!("{} ", message.len()).as_bytes(), message].concat();
        let miscounted = |message: &[u8]| [format!("{} ", message.len() + 1).as_bytes(), message].concat();
        let bare = |message: &[u8]| [format!("{} ", message.len()).as_bytes(), &vec![b'a'; message.len()]].concat();
        let ended_in_nul =
            |message: &[u8]| [b"<14>x[7]: ", without_lf(message).get(4..).unwrap_or_default(), b"\0"].concat();
        [framed(counted), framed(miscounted), framed(bare), framed(ended_in_nul)]
    });
    messages.iter().cloned().chain(few)
}

/// RELP sessions that carry the messages: one with each kind of frame.
fn sessions(messages: &[Vec<u8>]) -> impl Iterator<Item = Vec<u8>> {
    messages.chunks(2).map(|messages| {
        let mut session = vec![255, 3, 1, 60, 200];
        let (mut offers, mut numbered) = (Vec::new(), Vec::new());
        relp::Offers { stream: Some("0123/central".to_owned()), ..relp::Offers::default() }.write(&mut offers);
        relp::append(1, "open", &offers, &mut session);
        relp::append(2, "syslog", &messages[0], &mut session);
        relp::Numbered::write(7, 1000, messages.iter().map(Vec::as_slice), &mut numbered);
        relp::append(3, "numbered", &numbered, &mut session);
        relp::append_ok(2, &mut session);
        relp::append(4, "close", b"", &mut session);
        session
    })
}

/// A NATS server's INFO, and its answers for a few messages.
fn nats() -> String {
    let stored = r#"{"stream":"LOGS","seq":12,"duplicate":true}"#;
    let refused =
        r#"{"error":{"code":400,"err_code":10054,"description":"message size exceeds maximum allowed"},"seq":0}"#;
    let message = |text: &str| format!("MSG _INBOX.1.7 1 {}\r\n{text}\r\n", text.len());
    format!(
        "INFO {{\"max_payload\":1048576,\"nonce\":\"x\",\"headers\":true}}\r\n+OK\r\nPING\r\nPONG\r\n-ERR 'Stale Connection'\r\n{}{}\
         HMSG _INBOX.1.8 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n",
        message(stored),
        message(refused),
    )
}

/// PROXY protocol headers with a message behind them: complete headers, and the bytes from which the target writes one.
/// The first byte tells which.
fn proxied(message: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let addresses = [&[192, 0, 2, 7, 192, 0, 2, 1, 0x30, 0x39, 2, 2, 4, 0, 3, 0, 0, 0][..], &[0; 210]].concat();
    let version_2 = move |command: u8, family: u8, length: u8| {
        let fixed = [b"\r\n\r\n\0\r\nQUIT\n", &[command, family, 0, length][..]].concat();
        [&fixed, &addresses[..usize::from(length)]].concat()
    };
    let mut headers = Vec::from(
        [&b"TCP4 192.0.2.7 192.0.2.1 12345 514"[..], b"TCP6 2001:db8::7 2001:db8::1 12345 514", b"UNKNOWN"]
            .map(|line| [b"PROXY ", line, b"\r\n"].concat()),
    );
    for (command, family, length) in
        [(0x21, 0x11, 12), (0x21, 0x12, 18), (0x21, 0x22, 36), (0x21, 0x32, 216), (0x21, 0, 0), (0x20, 0, 0)]
    {
        headers.push(version_2(command, family, length));
    }
    let written = (0..16).map(|how| [&[3, how, 5], &[7; 36][..], message].concat());
    let read = headers.into_iter().map(|header| [&[0], &header[..], message].concat());
    read.chain(written).collect::<Vec<_>>().into_iter()
}

/// A stream mark, lines, garbage and lines again, in the format of `spool::check`.
fn parts(messages: &[Vec<u8>]) -> Vec<u8> {
    let mut parts = vec![2, 4, 1, 1, 10, 2];
    for (at, message) in messages.iter().enumerate() {
        let message = &message[..message.len().min(255)];
        let kind = if at == 2 { 3 } else { 0 };
        parts.extend_from_slice(&[kind, message.len() as u8]);
        parts.extend_from_slice(message);
    }
    parts
}

/// The reference config as shipped, the same with all its settings enabled, and each of its sections.
fn configs(reference: &str) -> Vec<String> {
    let is_setting = |line: &str| line.starts_with(|first: char| first.is_ascii_lowercase() || first == '[');
    let on = |line: &str| line.strip_prefix('#').filter(|rest| is_setting(rest)).unwrap_or(line).to_owned() + "\n";
    let all: String = reference.lines().map(on).collect();
    let mut sections = vec![String::new()];
    for line in all.lines().filter(|line| is_setting(line)) {
        if line.starts_with('[') {
            sections.push(String::new());
        }
        sections.last_mut().expect("one at least").push_str(&format!("{line}\n"));
    }
    assert!(sections.len() > 5, "only {} sections", sections.len());
    [reference.to_owned(), all].into_iter().chain(sections).collect()
}

/// New certificates of a CA, a server and a client, as DER.
fn certificates(dir: &Path) -> impl Iterator<Item = Vec<u8>> {
    let names = "127.0.0.1,::1,logs.example.com,*.example.net";
    let made = dir.join("ca.pem").exists() || {
        let arguments = ["logferry", "certs", "--name", names, "--client", "web-1,web-2", "--out"];
        let arguments = arguments.into_iter().map(Into::into).chain([dir.into()]);
        logferry::main(arguments) == std::process::ExitCode::SUCCESS
    };
    assert!(made, "certificates are made");
    ["ca.pem", "server.pem", "web-1.pem", "web-2.pem"]
        .into_iter()
        .map(move |name| CertificateDer::from_pem_file(dir.join(name)).expect("a certificate").to_vec())
}
