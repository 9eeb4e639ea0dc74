//! The messages of devices and libraries, and the fields parsed from them: host, app, process, time, message.
//!
//! Each file of `tests/senders/*.toml` has a kind of sender with its messages and the right values. The messages are
//! re-typed from the manuals and tests that the file names. `wrong` lists the values that are still parsed wrong. The
//! test fails when a fix makes an entry obsolete.
//!
//! docs/senders.md is generated from them, by running rsyslog and syslog-ng on the same bytes:
//!
//!     LOGFERRY_SENDERS=write cargo test --test senders
//!
//! Without the variable, the page is compared with the programs' results, if the same versions of both are installed.

mod page;
mod reference;
mod sent;
#[path = "../support/mod.rs"]
mod support;

use std::fs;

use logferry::internals::protocol::framing::properties::any_cut;
use logferry::internals::protocol::syslog::{Frame, Senders, Settings, parse, properties};
use logferry::internals::record::UnixMicros;
use reference::Reference;
use sent::{Aspect, Kind, Read, kinds};
use support::{Collector, Framing, Setup, docker, eventually, shown};

/// 2026-11-20T22:28:47.5Z
const NOW: i64 = 1_795_213_727_500_000;

/// Parses a message in this process, without a relay.
fn read(bytes: &[u8]) -> Read {
    let settings = Settings { hostname: docker::RELAY.to_owned(), ..Settings::default() };
    let frame = Frame { bytes, cut: false, received: UnixMicros(NOW) };
    Read::of(&parse(&frame, &settings, Senders::Anybody).record)
}

#[test]
fn each_message_is_read_right() {
    let mut otherwise = Vec::new();
    for Kind { file, message, .. } in kinds() {
        for sent in message {
            let read = read(&sent.frame());
            let wrong: Vec<Aspect> = sent.wrong_in(&read, docker::RELAY, NOW);
            if wrong != sent.wrong {
                otherwise.push(format!("{file}: wrong is {wrong:?}: {}\n    {}", sent.bytes, read.shown()));
            }
        }
    }
    assert!(otherwise.is_empty(), "not as they say of themselves:\n{}", otherwise.join("\n"));
}

/// However a message is parsed, a second relay changes nothing, and the part of an RFC 3164 message after HOSTNAME is
/// forwarded unchanged. Cuts of a stream do not change its messages.
#[test]
fn each_message_is_carried() {
    for sent in kinds().into_iter().flat_map(|kind| kind.message) {
        let frame = sent.frame();
        properties::any_frame(&frame, false, NOW, 0);
        let stream = [&frame[..], b"\n<13>next\n"].concat();
        (0..=stream.len()).for_each(|cut| any_cut(&stream, 65_536, &[cut]));
    }
}

#[test]
fn a_relay_reads_the_same_from_datagrams_and_streams() {
    let all: Vec<_> = kinds().into_iter().flat_map(|kind| kind.message).collect();
    let collector = Collector::tcp(Framing::OctetCounting);
    let framing = "framing = \"octet-counting\"";
    let setup = Setup::new().listen("udp://127.0.0.1:0").listen("tcp://127.0.0.1:0");
    let relay = setup.forward_with(&collector.url(), framing).start();
    let mut sent = 0;
    for door in relay.doors() {
        let mut wire = door.connect();
        for message in &all {
            let (frame, counted) = (message.frame(), support::sender::counted(&message.frame()));
            wire.send(if sent < all.len() { &frame } else { &counted });
            sent += 1;
            // One at a time, so that datagrams stay in order.
            eventually("it has arrived", || (collector.count() >= sent).then_some(()));
        }
    }
    let lines = collector.frames(sent);
    for (line, message) in lines.iter().zip(all.iter().chain(&all)) {
        let read = Read::of_line(line);
        let now = chrono::Utc::now().timestamp_micros();
        assert_eq!(message.wrong_in(&read, docker::RELAY, now), message.wrong, "{}: {}", message.bytes, shown(line));
    }
    relay.has_delivered(sent, 0);
    relay.stops();
}

#[test]
fn explain_reads_the_same() {
    // JSON shows invalid UTF-8 in another form.
    let all: Vec<_> = kinds().into_iter().flat_map(|kind| kind.message).filter(|sent| !sent.latin1).collect();
    let setup = Setup::new().listen("udp://127.0.0.1:0").forward("tcp://127.0.0.1:1");
    let input = all.iter().flat_map(|sent| [sent.frame(), b"\n".to_vec()]).flatten().collect::<Vec<u8>>();
    fs::write(setup.path("sent"), input).expect("written");
    let sent = fs::File::open(setup.path("sent")).expect("a file");
    let output = setup.command().args(["explain", "--json"]).stdin(sent).output().expect("logferry starts");
    let said = String::from_utf8(output.stdout).expect("text");
    let lines: Vec<serde_json::Value> = said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), all.len(), "{}", String::from_utf8_lossy(&output.stderr));
    for (said, sent) in lines.iter().zip(&all) {
        let read = Read::of_line(said["line"].as_str().expect("a line").as_bytes());
        let now = chrono::Utc::now().timestamp_micros();
        assert_eq!(sent.wrong_in(&read, docker::RELAY, now), sent.wrong, "{}: {}", sent.bytes, read.shown());
    }
}

#[test]
fn the_page_says_what_rsyslog_and_syslog_ng_read() {
    let (Some(rsyslog), Some(syslog_ng)) = (Reference::rsyslog(), Reference::syslog_ng()) else { return };
    page::check(&kinds(), rsyslog, syslog_ng);
}
