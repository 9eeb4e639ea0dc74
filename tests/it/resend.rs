//! Dead letters that are sent again: the command, a running relay, a starting relay, and duplicates after a kill.

use std::collections::BTreeSet;
use std::fs;
use std::process::Output;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use serde_json::{Value, json};

use crate::elasticsearch::rejected;
use crate::support::http::status;
use crate::support::program::SIGKILL;
use crate::support::relp::RelpPeer;
use crate::support::{NatsServer, RelpCollector, Setup, Store, StorePeer, StoreRequest, eventually, run, says};

const KEYS: &str = "api = \"elasticsearch\"\nbatch-wait = \"50ms\"";

fn resend(setup: &Setup, forward: &str) -> Output {
    run(setup.command().args(["spool", "resend", forward]))
}

#[track_caller]
fn is_begun(setup: &Setup) {
    let output = resend(setup, "central");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[track_caller]
fn is_refused(output: &Output, code: i32, says: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(code) && said.contains(says), "{:?}: {said}", output.status);
}

/// An answer to a `_bulk` request that rejects these lines.
fn answer(request: &StoreRequest, refused: &[usize]) -> String {
    let items: Vec<_> = request
        .numbers()
        .iter()
        .map(|number| match refused.contains(number) {
            true => json!({"create": {"status": 400, "error": {"type": "document_parsing_exception", "reason": "no"}}}),
            false => json!({"create": {"status": 201}}),
        })
        .collect();
    json!({"errors": !refused.is_empty(), "items": items}).to_string()
}

fn takes(peer: &mut StorePeer, count: usize, refused: &[usize]) -> Vec<(String, Value)> {
    let mut lines = Vec::new();
    while lines.len() < count {
        let request = peer.hears();
        lines.extend(request.bulk());
        peer.answers(200, &answer(&request, refused));
    }
    lines
}

fn ids(lines: &[(String, Value)]) -> Vec<&str> {
    lines.iter().map(|(id, _)| id.as_str()).collect()
}

fn files(setup: &Setup) -> BTreeSet<String> {
    let Ok(found) = fs::read_dir(setup.path("spool/dead-letter")) else { return BTreeSet::new() };
    found.map(|file| file.expect("a file").file_name().to_string_lossy().into_owned()).collect()
}

#[track_caller]
fn is_done(setup: &Setup, left: &[&str]) {
    let left: BTreeSet<_> = left.iter().map(|name| (*name).to_owned()).collect();
    eventually("nothing is to be sent again", || (files(setup) == left).then_some(()));
}

/// The relay is running. A line that is rejected again becomes a dead letter again, and can be resent again.
#[test]
fn once_the_mapping_is_mended_they_arrive_under_their_old_ids() {
    let store = Store::new();
    let setup = Setup::new().listen("tcp://127.0.0.1:0").forward_with(&store.url(), KEYS);
    let relay = setup.start();
    says(&relay, 0..10);
    let mut peer = store.accepts();
    let lines = takes(&mut peer, 10, &[3, 5, 7]);
    relay.counts("forward_rejected_total", 3);
    is_refused(&resend(&setup, "other"), 64, "there is no forward other in");
    is_begun(&setup);
    let mut resender = store.accepts();
    let request = resender.hears();
    is_refused(&resend(&setup, "central"), 1, "a resend is under way");
    assert_eq!(status(&relay)["forwards"][0]["resend_pending"], 3);
    // The forward continues meanwhile.
    says(&relay, 10..11);
    takes(&mut peer, 1, &[]);
    relay.counts("forward_delivered_total", 8);
    let again = request.bulk();
    let old = |number: &str| lines.iter().find(|(_, line)| line["message"] == *number).expect("a line");
    assert_eq!(again.iter().collect::<Vec<_>>(), ["3", "5", "7"].map(old));
    resender.answers(200, &answer(&request, &[5]));
    is_done(&setup, &["central.jsonl"]);
    relay.says("all dead letters were sent again");
    let letters = fs::read_to_string(setup.path("spool/dead-letter/central.jsonl")).expect("letters");
    let letter: Value = serde_json::from_str(&letters).expect("one letter");
    assert_eq!((&letter["number"], &letter["why"]), (&json!(5), &json!("400 document_parsing_exception: no")));
    relay.counts("forward_rejected_total", 3);
    relay.counts("forward_resent_total", 3);
    relay.counts("forward_resend_pending", 0);
    relay.balances(0);
    is_begun(&setup);
    let mut resender = store.accepts();
    assert_eq!(ids(&takes(&mut resender, 1, &[])), ids(&[old("5").clone()]));
    is_done(&setup, &[]);
    is_refused(&resend(&setup, "central"), 1, "there are no dead letters to send again");
    relay.stops();
}

/// The requests of `connections` connections in order of arrival, each with a channel for its answer. A dropped channel ends the
/// connection.
fn requests(store: &Store, connections: usize) -> Receiver<(StoreRequest, Sender<String>)> {
    let (heard, requests) = channel();
    for _ in 0..connections {
        let (mut peer, heard) = (store.accepts(), heard.clone());
        thread::spawn(move || {
            while let Some(request) = peer.next() {
                let (answer, answered) = channel::<String>();
                if heard.send((request, answer)).is_err() {
                    return;
                }
                let Ok(answer) = answered.recv() else { return };
                peer.answers(200, &answer);
            }
        });
    }
    requests
}

/// Dead letters of an older version, the last one torn by a crash.
fn letters(count: usize) -> String {
    let letter = |number: usize| {
        let line = format!("<13>1 2026-11-29T12:00:00.000000Z h a - - - {number}");
        let (time, spool) = ("2026-11-29T12:00:00.000000Z", "00112233445566778899aabbccddeeff");
        json!({"time": time, "spool": spool, "session": 9, "number": 7000 + number, "why": "no", "line": line})
    };
    (0..count).map(|number| format!("{}\n", letter(number))).collect::<String>() + "{\"time\":\"2026-11"
}

/// Only the batch in flight is sent again.
#[test]
fn a_kill_in_the_middle_costs_one_batch_twice() {
    let store = Store::new();
    let keys = format!("{KEYS}\nbatch = \"4KiB\"");
    let setup = Setup::new().listen("tcp://127.0.0.1:0").forward_with(&store.url(), &keys);
    let relay = setup.start();
    drop(store.accepts());
    relay.stops();
    fs::create_dir_all(setup.path("spool/dead-letter")).expect("a directory");
    fs::write(setup.path("spool/dead-letter/central.jsonl"), letters(300)).expect("written");
    is_begun(&setup);
    let relay = setup.start();
    let heard = requests(&store, 2);
    let (mut there, mut twice) = (Vec::new(), Vec::new());
    for round in 0..3 {
        let (request, answered) = heard.recv().expect("a request");
        let lines = request.bulk();
        assert!(lines.len() < 100, "{} lines", lines.len());
        there.extend(lines.iter().map(|(id, _)| id.clone()));
        if round == 2 {
            twice = lines;
            relay.signal(SIGKILL);
            relay.kill();
            break;
        }
        answered.send(answer(&request, &[])).expect("it waits");
    }
    drop(heard);
    let relay = setup.start();
    let heard = requests(&store, 2);
    let mut again = Vec::new();
    while there.len() - twice.len() + again.len() < 300 {
        let (request, answered) = heard.recv().expect("a request");
        again.extend(request.bulk());
        answered.send(answer(&request, &[])).expect("it waits");
    }
    assert!(ids(&again).starts_with(&ids(&twice)), "{:?}", ids(&again));
    assert!(ids(&again).iter().all(|id| id.starts_with("00112233445566778899aabbccddeeff-")));
    there.extend(again.into_iter().skip(twice.len()).map(|(id, _)| id));
    let numbers: Vec<_> = there.iter().map(|id| id.rsplit('-').take(2).collect::<Vec<_>>().join(" ")).collect();
    assert!(numbers.into_iter().eq((7000..7300).map(|number| format!("{number} 9"))));
    is_done(&setup, &[]);
    relay.stops();
}

/// Answers each `syslog` frame until `count` have come; returns the lines. Bad lines are rejected.
fn answers(peer: &mut RelpPeer, count: usize, is_bad: impl Fn(&str) -> bool) -> Vec<String> {
    let mut lines = Vec::new();
    while lines.len() < count {
        let frame = peer.frame().expect("a frame");
        assert_eq!(frame.command, "syslog");
        let line = String::from_utf8(frame.data).expect("text");
        peer.answers(frame.txnr, if is_bad(&line) { "500 no" } else { "200 OK" });
        lines.push(line);
    }
    lines
}

/// With an ID from the position in the dead letter file, the second letter would count as a duplicate of the first.
#[test]
fn by_jetstream_they_keep_their_ids() {
    let Some(server) = NatsServer::start("") else { return };
    let mut client = server.client();
    client.makes_stream("logs.>", json!({}));
    let setup = Setup::new().listen("tcp://127.0.0.1:0").forward(&server.url());
    let relay = setup.start();
    for round in 0..2 {
        for limit in [10_000, -1] {
            let stream = json!({"name": "LOGS", "subjects": ["logs.>"], "storage": "file", "num_replicas": 1, "max_msg_size": limit});
            client.asks("$JS.API.STREAM.UPDATE.LOGS", &stream);
            if limit > 0 {
                relay.door().connect().send(format!("<14>1 - - - - - - {}\n", "x".repeat(12_000)).as_bytes());
                relay.counts("forward_rejected_total", round + 1);
            }
        }
        is_begun(&setup);
        is_done(&setup, &[]);
    }
    relay.counts("forward_resent_total", 2);
    let ids: Vec<String> = client.stored().into_iter().map(|stored| stored.id).collect();
    assert!(matches!(&ids[..], [first, second] if first.ends_with("-0") && second.ends_with("-1")), "{ids:?}");
    relay.stops();
}

/// With line numbers, the collector would regard the lines as duplicates.
#[test]
fn by_relp_they_are_plain_frames() {
    let collector = RelpCollector::new();
    let setup = Setup::new().listen("tcp://127.0.0.1:0").forward(&collector.url());
    let relay = setup.start();
    let mut peer = collector.opens();
    says(&relay, 0..3);
    // A rejected line is tried three times.
    let sent = answers(&mut peer, 5, |line| line.ends_with(" 1"));
    relay.counts("forward_rejected_total", 1);
    assert_eq!(rejected(&relay, &setup), [(1, "500 no".to_owned())]);
    is_begun(&setup);
    // The collector offers numbered lines.
    let mut resender = collector.opens_numbered();
    let again = answers(&mut resender, 1, |_| false);
    assert!(sent.contains(&again[0]) && again[0].ends_with(" 1"), "{again:?}");
    let close = resender.frame().expect("a goodbye");
    assert_eq!(close.command, "close");
    is_done(&setup, &[]);
    relay.counts("forward_delivered_total", 2);
    relay.balances(0);
    relay.stops();
}
