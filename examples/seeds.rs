//! What the fuzz targets begin with: `cargo run --example seeds -- DIR` makes a folder for each in DIR, from the messages of
//! tests/corpus, the reference config, and new certificates. `fuzz/run` calls it; nothing of it is kept in the repository.

use std::fs;
use std::path::{Path, PathBuf};

use logferry::internals::protocol::relp;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// Longer ones make a target slow, and say nothing that shorter ones do not.
const LONGEST: usize = 2048;

fn main() {
    let out = PathBuf::from(std::env::args_os().nth(1).expect("usage: seeds DIR"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let messages = messages(&root.join("tests/corpus"));
    // Bytes before the stream choose the limit and the cuts, or how a message is read.
    keep(&out, "frame", messages.iter().map(|message| [&[255, 3, 1, 60, 200], &message[..]].concat()));
    keep(&out, "message", messages.iter().map(|message| [&[0, 0xcf, 0x76, 0, 0x6b], without_lf(message)].concat()));
    // Priority, elements that were sent, and what chooses the rest.
    keep(&out, "line", ELEMENTS.iter().map(|sent| [&[27, sent.len() as u8], sent.as_bytes(), &messages[0]].concat()));
    keep(&out, "explain", messages.iter().cloned());
    keep(&out, "relp", sessions(&messages));
    keep(&out, "session", sessions(&messages));
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

/// What a sender may have said of its own.
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

/// As Docker's driver sent them: datagrams, and whole connections.
fn messages(corpus: &Path) -> Vec<Vec<u8>> {
    let files = fs::read_dir(corpus).expect("the corpus").map(|entry| entry.expect("a file").path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "raw")).collect();
    files.sort();
    let mut messages: Vec<_> = files.iter().map(|path| fs::read(path).expect("a file")).collect();
    messages.iter_mut().for_each(|message| message.truncate(LONGEST));
    assert!(messages.len() > 200, "the corpus is not there");
    messages
}

fn without_lf(message: &[u8]) -> &[u8] {
    message.strip_suffix(b"\n").unwrap_or(message)
}

/// RELP sessions that carry them: one of each kind of frame.
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

/// A mark of a stream, lines, rubbish and lines again, as `spool::check` takes them.
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

/// The reference config as shipped, with all its settings on, and each of its sections.
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

/// A CA, a server and a client, made anew: DER.
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
