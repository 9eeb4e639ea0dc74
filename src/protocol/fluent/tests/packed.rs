//! Lines as chunks, and a receiver's greeting.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::protocol::api::LineId;
use crate::protocol::fluent::handshake::{Handshake, Opening, SharedKey, Users};
use crate::protocol::fluent::properties::{any_answers, any_lines};
use crate::record::properties::chosen_line;

const SD_ID: &str = "docker@32473";

fn entries(template: &str, line: &[u8]) -> String {
    let packer = Packer::new(template.parse().expect("a template"), SD_ID.to_owned(), "5b00/central".to_owned());
    let mut out = Vec::new();
    packer.pack([line].into_iter(), (LineId { session: 7, number: 100 }, LineId { session: 7, number: 100 }), &mut out);
    any_lines(&[line]);
    let mut items = Items::of_array(&out).expect("an array");
    let (tag, entries) = (items.next().expect("a tag"), items.next().expect("entries"));
    let Value::Bin(entries) = entries else { panic!("no bin") };
    let mut text = Vec::new();
    json::append(tag, &mut text);
    text.push(b' ');
    json::append(Value::read(entries).expect("an entry").0, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn a_container_s_line_is_what_docker_s_driver_would_send() {
    let line = b"<30>1 2026-11-28T21:37:21.250000Z n7 web 2a9052a5c36e - [docker@32473 image=\"nginx:1.25\" name=\"web\" id=\"2a9052a5c36e\"]\
        [fields@32473 team=\"shop\"][logferry@32473 source=\"stdout\" nanoseconds=\"7\"] GET /";
    let packed = entries("docker.{name}", line);
    // EventTime: 0x6b0b4991 s and 0x0ee6b287 ns.
    assert_eq!(
        packed,
        "\"docker.web\" [\"k\\u000bI\\\\x91\\u000e\u{6c87}\",{\"log\":\"GET /\",\"container_name\":\"/web\",\
         \"container_id\":\"2a9052a5c36e\",\"source\":\"stdout\",\"image_name\":\"nginx:1.25\",\"host\":\"n7\",\"team\":\"shop\"}]"
    );
    assert!(entries("{tag}", line).starts_with("\"nginx:1.25/web/2a9052a5c36e\" "));
}

#[test]
fn what_docker_s_driver_does_not_know_has_keys_of_its_own() {
    let line = b"<131>1 1960-01-01T00:00:00Z n7 cron 812 ID1 [a@1 b=\"c\"][fields@32473 log=\"x\" host=\"y\"]\
        [json@32473 fields=\"{\\\"n\\\":12,\\\"deep\\\":{\\\"a\\\":[1.5,null]}}\"] run";
    assert_eq!(
        entries("{tag}", line),
        "\"cron\" [-315619200,{\"log\":\"run\",\"host\":\"n7\",\"facility\":\"local0\",\"severity\":\"err\",\"app_name\":\"cron\",\
         \"proc_id\":\"812\",\"msg_id\":\"ID1\",\"structured_data\":\"[a@1 b=\\\"c\\\"]\",\"log_\":\"x\",\"host_\":\"y\",\"n\":12,\
         \"deep\":{\"a\":[1.5,null]}}]"
    );
}

/// Each of these lines is in the chunk of its tag, in order.
#[test]
fn a_chunk_has_the_lines_of_a_tag() {
    let lines: Vec<_> = (0..300).map(|number| format!("<30>1 - - app-{} - - - {number}", number % 3)).collect();
    let lines: Vec<_> = lines.iter().map(|line| line.as_bytes()).collect();
    any_lines(&lines);
    let packer = Packer::new(TagTemplate::default(), SD_ID.to_owned(), "5b00/central".to_owned());
    let mut out = Vec::new();
    let names = packer.pack(
        lines.iter().copied(),
        (LineId { session: 7, number: 100 }, LineId { session: 7, number: 399 }),
        &mut out,
    );
    assert_eq!(names.len(), 3);
    let found = super::super::properties::arrays(&out, usize::MAX, []).0;
    for (app, array) in found.iter().enumerate() {
        let read = read(array).expect("a chunk");
        assert_eq!((read.tag, read.mode), (format!("app-{app}").into_bytes(), Mode::PackedForward));
        let expected: Vec<_> = (app..300).step_by(3).map(|number| number.to_string().into_bytes()).collect();
        assert_eq!(read.texts, expected);
    }
}

/// Runs the handshake between both sides. Returns the sender's result.
fn greets(key: &str, user: Option<(&str, &str)>, users: Option<&str>) -> Result<bool, NotLetIn> {
    let users = users.map(|users| Users::read(users).expect("users"));
    let secret = Arc::new(SharedKey::new("sharedkey".to_owned(), users));
    let mut receiver = Opening::new(Handshake::new(secret, [1; 16], [2; 16]));
    let user = user.map(|(name, password)| (name.to_owned(), password.to_owned()));
    let mut sender = Greeting::new(Credentials::new(key.to_owned(), user), [3; 16]);
    let (mut said, mut answered) = (Vec::new(), Vec::new());
    receiver.begin(None, &mut said);
    assert_eq!(sender.hear(&said, &mut answered), Ok(false));
    said.clear();
    let _ = receiver.feed(&answered, &mut said);
    sender.hear(&said, &mut Vec::new())
}

#[test]
fn both_have_to_know_the_key() {
    let denied = |why: &str| Err(NotLetIn::Denied(why.to_owned()));
    assert_eq!(greets("sharedkey", None, None), Ok(true));
    assert_eq!(greets("sharedkey", Some(("alice", "a")), None), Ok(true), "nobody asks for the user");
    assert_eq!(greets("another", None, None), denied("shared_key mismatch"));
    assert_eq!(greets("sharedkey", Some(("alice", "s3:cret")), Some("alice:s3:cret")), Ok(true));
    assert_eq!(
        greets("sharedkey", Some(("alice", "wrong")), Some("alice:s3:cret")),
        denied("username/password mismatch")
    );
    assert_eq!(greets("sharedkey", None, Some("alice:s3:cret")), denied("username/password mismatch"));
    let mut sender = Greeting::new(Credentials::new("sharedkey".to_owned(), None), [3; 16]);
    assert_eq!(sender.hear(b"\x91\x01", &mut Vec::new()), Err(NotLetIn::NoHello));
    let hello = array(&[b"\xa4HELO", b"\x81\xa5nonce\xa4abcd"]);
    assert_eq!(sender.hear(&hello, &mut Vec::new()), Ok(false));
    let pong = array(&[b"\xa4PONG", b"\xc3", b"\xa0", b"\xa1x", &str_(&"0".repeat(128))]);
    assert_eq!(sender.hear(&pong, &mut Vec::new()), Err(NotLetIn::Impostor));
    assert_eq!(format!("{sender:?}").matches("sharedkey").count(), 0, "it never prints");
}

proptest! {
    #[test]
    fn lines_come_back_as_they_were(chosen in vec(vec(any::<u8>(), 0..300), 0..8)) {
        let lines: Vec<_> = chosen.iter().map(|data| chosen_line(data, SD_ID)).collect();
        any_lines(&lines.iter().map(Vec::as_slice).collect::<Vec<_>>());
        any_lines(&chosen.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }

    #[test]
    fn answers_of_any_kind_do_no_harm(stream in vec(any::<u8>(), 0..200), cuts in vec(0..50_usize, 0..4)) {
        any_answers(&stream, &cuts);
        any_answers(&[&b"\x92\xa4HELO\x81\xa5nonce\xa4abcd"[..], &stream].concat(), &cuts);
    }
}
