//! The recipes of `docs/recipes`, run as published: the documented logferry.toml before the documented config of a real
//! rsyslog, syslog-ng or logferry. Docker's own messages pass through both, and the tests compare the written messages
//! with the sent ones.
//!
//! `destinations.rs` tests `docs/destinations`. `pages.rs` reads the blocks, `said.rs` makes the messages, `program.rs`
//! runs the collecting programs, and `wire.rs` tests pages whose programs are not available.

mod destinations;
mod pages;
mod program;
mod said;
#[path = "../support/mod.rs"]
mod support;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use pages::{Block, Verb, blocks, ours, target};
use program::{Collecting, Make, lines};
use said::{Said, messages, with_newlines_escaped};
use support::{Line, Setup, corpus, eventually, says, shown};
use tempfile::TempDir;

/// A test for each recipe whose program is available.
macro_rules! run {
    ($($test:ident: $recipe:literal,)+) => {
        const RUN: &[&str] = &[$($recipe),+];
        $(#[test] fn $test() { keeps_everything($recipe); })+
    };
}

run! {
    rsyslog_relp: "rsyslog-relp",
    rsyslog_relp_queued: "rsyslog-relp-queued",
    rsyslog_relp_tls: "rsyslog-relp-tls",
    rsyslog_tcp_tls: "rsyslog-tcp-tls",
    rsyslog_tcp: "rsyslog-tcp",
    rsyslog_newline: "rsyslog-newline",
    rsyslog_udp: "rsyslog-udp",
    syslog_ng_tls: "syslog-ng-tls",
    syslog_ng_tcp: "syslog-ng-tcp",
    syslog_ng_newline: "syslog-ng-newline",
    syslog_ng_udp: "syslog-ng-udp",
    logferry_relp_tls: "logferry-relp-tls",
}

#[test]
fn every_block_is_run_or_says_that_it_is_not() {
    let blocks = blocks();
    let named = |verb: Verb| -> BTreeSet<&str> {
        blocks.iter().filter(|block| block.verb == verb).map(|block| block.name.as_str()).collect()
    };
    for block in &blocks {
        let is_known = match block.verb {
            Verb::Run | Verb::Arrives => RUN.iter().any(|recipe| block.is_of(recipe)),
            Verb::Check => block.language == "toml" && named(Verb::Wire).contains(&*block.name),
            Verb::Wire => named(Verb::Check).contains(&*block.name),
            Verb::Compose => false,
            Verb::NotRun => block.language != "toml" && !block.name.contains('*'),
        };
        assert!(is_known, "{}: nothing runs this block", block.at);
    }
    let programs = ["splunk", "logstash", "filebeat", "graylog", "loki", "vector", "fluent-bit"];
    let about = |program: &&str| named(Verb::NotRun).iter().any(|name| name.starts_with(program));
    assert!(programs.iter().all(about), "{:?}", named(Verb::NotRun));
}

/// All messages pass through the documented relay into the documented program, and each must be in both of its files.
#[track_caller]
fn keeps_everything(recipe: &str) {
    let blocks = blocks();
    let Some(collecting) = Collecting::start(recipe, &blocks) else { return };
    let relay = Setup::new().listen("tcp://127.0.0.1:0").section(&collecting.toml).start();
    let (mut all, mut wire) = (messages(), relay.door().connect());
    if recipe == "syslog-ng-newline" {
        // syslog-ng's `network()` ends a message at a NUL, as the page says.
        all.retain(|said| !said.message.contains(&0));
    }
    if !recipe.ends_with("-udp") {
        all.push(said::longest());
    }
    // Sent in small groups, because the program loses datagrams that do not fit into its buffer.
    for (start, some) in all.chunks(20).enumerate().map(|(chunk, some)| (chunk * 20, some)) {
        some.iter().for_each(|said| wire.send_counted(&said.sent));
        let due = start + some.len();
        eventually("all is written", || (collecting.json().len() >= due).then_some(()));
    }
    relay.has_delivered(all.len(), 0);

    let sent: Vec<Vec<u8>> = all.iter().map(|said| collecting.make.kept(&as_read(recipe, &said.message))).collect();
    let json = collecting.json();
    assert_eq!(json.len(), all.len());
    for ((said, sent), line) in all.iter().zip(&sent).zip(&json) {
        json_says(collecting.make, said, sent, line);
    }
    let mut files: BTreeMap<(&str, &str), Vec<u8>> = BTreeMap::new();
    for (said, sent) in all.iter().zip(&sent) {
        let file = files.entry((&said.host, &said.name)).or_default();
        file.extend_from_slice(&[sent, &b"\n"[..]].concat());
    }
    assert!(files.len() > 10, "only {} containers", files.len());
    for ((host, name), messages) in files {
        let file = eventually("the container's file", || {
            let file = collecting.container_file(host, name);
            (count(&file) >= count(&messages)).then_some(file)
        });
        let text = messages_of(collecting.make, &file);
        assert!(text == messages, "{host}/{name}:\n{}\ninstead of\n{}", shown(&text), shown(&messages));
    }
    shows_what_is_true(recipe, &blocks, &collecting, &json);
    relay.stops();
}

/// The message as the program can parse it. A newline may end it, and some programs lose more.
fn as_read(recipe: &str, message: &[u8]) -> Vec<u8> {
    let escaped = with_newlines_escaped(message);
    match recipe {
        // syslog-ng takes a CR before the newline as part of the line end, as the page says.
        "syslog-ng-newline" => {
            let end = escaped.iter().rposition(|byte| *byte != b'\r').map_or(0, |last| last + 1);
            escaped[..end].to_vec()
        }
        // rsyslog's disk queue truncates at a NUL, as the page says.
        "rsyslog-relp-queued" => message.split(|byte| *byte == 0).next().unwrap_or_default().to_vec(),
        name if name.ends_with("-newline") => escaped,
        _ => message.to_vec(),
    }
}

/// How often a test kills rsyslog.
const KILLS: usize = 5;

/// Kills rsyslog while it answers at full speed, as the rsyslog page describes for RELP. Returns the numbers of the
/// lost lines. `None`: rsyslog is not installed.
#[track_caller]
fn lost_by_kills(recipe: &str) -> Option<Vec<usize>> {
    const ROUND: usize = 2000;
    let mut rsyslog = Collecting::start(recipe, &blocks())?;
    let relay = Setup::new().listen("tcp://127.0.0.1:0").section(&rsyslog.toml).start();
    for round in 0..KILLS {
        says(&relay, round * ROUND..(round + 1) * ROUND);
        eventually("some are answered", || {
            (relay.metrics().sum("forward_delivered_total") > (round * ROUND) as u64).then_some(())
        });
        rsyslog.is_killed_and_comes_back();
    }
    let sent = KILLS * ROUND;
    relay.has_delivered(sent, 0);
    // A line that was being written at a kill is incomplete, and was not answered.
    let number = |line: Vec<u8>| {
        let json: serde_json::Value = serde_json::from_slice(&line).ok()?;
        json["message"].as_str()?.parse::<usize>().ok()
    };
    let got = || -> BTreeSet<usize> { rsyslog.json().into_iter().filter_map(number).collect() };
    eventually("the last one is written", || got().contains(&(sent - 1)).then_some(()));
    let got = got();
    relay.stops();
    Some((0..sent).filter(|number| !got.contains(number)).collect())
}

#[test]
fn an_rsyslog_that_is_killed_loses_nothing_it_has_answered() {
    let lost = lost_by_kills("rsyslog-relp");
    assert!(lost.as_ref().is_none_or(Vec::is_empty), "lost: {lost:?}");
}

/// rsyslog's disk queue does not survive every kill: rarely, a kill loses a line, as the page says. Without the page's
/// settings, a kill loses hundreds.
#[test]
fn an_rsyslog_with_a_queue_that_is_killed_loses_a_line_at_most() {
    let lost = lost_by_kills("rsyslog-relp-queued");
    assert!(lost.as_ref().is_none_or(|lost| lost.len() <= KILLS), "lost: {lost:?}");
}

/// If a page says that both sides present certificates, the program must refuse a relay without one.
#[test]
fn a_relay_without_a_certificate_is_refused() {
    let blocks = blocks();
    for recipe in RUN.iter().filter(|recipe| recipe.ends_with("-tls")) {
        let Some(collecting) = Collecting::start(recipe, &blocks) else { continue };
        let anonymous = |line: &&str| !line.starts_with("cert = ") && !line.starts_with("key = ");
        let toml: Vec<&str> = collecting.toml.lines().filter(anonymous).collect();
        assert_eq!(toml.len() + 2, collecting.toml.lines().count(), "{recipe} shows no certificate");
        let relay = Setup::new().listen("tcp://127.0.0.1:0").section(&toml.join("\n")).start();
        says(&relay, 0..1);
        relay.says("received fatal alert: CertificateRequired");
        assert!(collecting.json().is_empty(), "{recipe} takes lines from strangers");
    }
}

fn count(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

/// The messages of a container's file, without the template's prefix. A line without the prefix continues a message.
fn messages_of(make: Make, file: &[u8]) -> Vec<u8> {
    let mut messages = Vec::new();
    for line in lines(file) {
        let message = match make {
            Make::Logferry => Line::read(&line).message,
            _ if line.starts_with(b"20") && line.get(10) == Some(&b'T') => {
                line.splitn(5, |byte| *byte == b' ').nth(4).expect("five fields").to_vec()
            }
            _ => line,
        };
        messages.extend_from_slice(&message);
        messages.push(b'\n');
    }
    messages
}

#[track_caller]
fn json_says(make: Make, said: &Said, sent: &[u8], line: &[u8]) {
    let json: serde_json::Value =
        serde_json::from_str(&String::from_utf8_lossy(line)).unwrap_or_else(|error| panic!("{error}: {}", shown(line)));
    let field = |at: usize| json[make.keys()[at]].as_str().unwrap_or_default();
    let fields = [0, 1, 2, 3, 4].map(field);
    assert_eq!(fields, [&*said.host, said.severity, &*said.image, &*said.name, &*said.id], "{json}");
    let text = field(5).as_bytes();
    let (message, expected) = match make {
        Make::Logferry if json["escaped"].is_array() => (corpus::unescape(text), said.message.clone()),
        Make::Logferry => (text.to_vec(), said.message.clone()),
        // JSON cannot hold invalid UTF-8, and these two programs replace it irreversibly.
        _ if std::str::from_utf8(sent).is_err() => return,
        Make::SyslogNg => (text.to_vec(), sent.split(|byte| *byte == 0).collect::<Vec<_>>().join(&br"\x00"[..])),
        Make::Rsyslog => (text.to_vec(), sent.to_vec()),
    };
    assert!(message == expected, "{}\ninstead of\n{}", shown(&message), shown(&expected));
}

/// The page's output for the sample must be the program's output.
#[track_caller]
fn shows_what_is_true(recipe: &str, blocks: &[Block], collecting: &Collecting, json: &[Vec<u8>]) {
    let file = collecting.container_file("docker-host-1", "proj-web-1");
    let samples: Vec<_> = blocks.iter().filter(|block| block.verb == Verb::Arrives && block.is_of(recipe)).collect();
    assert_eq!(samples.len(), 2, "docs/recipes shows {} lines that arrive of {recipe}", samples.len());
    for sample in samples {
        let written = match &*sample.file {
            "container" => lines(&file).swap_remove(0),
            "json" => json[0].clone(),
            other => panic!("{}: which file is {other}?", sample.at),
        };
        assert_eq!(sample.text.trim_end(), String::from_utf8_lossy(&written), "{}", sample.at);
    }
}

/// The config of every page is valid as published, except for the paths.
#[test]
fn every_toml_block_is_a_good_config() {
    let dir = TempDir::new().expect("a directory");
    let (blocks, mut seen) = (blocks(), 0);
    for block in blocks.iter().filter(|block| block.language == "toml" || block.language == "logferry") {
        let file = dir.path().join("logferry.toml");
        let spool = format!("[spool]\ndir = \"{}\"\n", dir.path().join("spool").display());
        let text = ours(&block.text, target(&block.text).1.parse().unwrap_or(0));
        let text = text.replace("/var/log/", &format!("{}/", dir.path().display()));
        fs::write(&file, spool + &text).expect("written");
        let output = support::relay::logferry().arg("check").arg("--config").arg(&file).output().expect("it starts");
        assert!(output.status.success(), "{}: {}", block.at, String::from_utf8_lossy(&output.stderr));
        seen += 1;
    }
    assert!(seen >= 20, "only {seen} configs");
}
