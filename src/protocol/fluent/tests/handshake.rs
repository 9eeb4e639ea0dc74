//! Senders that are accepted where a key is needed, and senders that are not. The digests are those of Python's hashlib, and of Fluent Bit
//! (`tests/corpus-drivers`), whose HELO had this nonce and this salt.

use std::sync::Arc;
use std::time::Instant;

use proptest::prelude::*;

use super::conversation::{OPEN_TIMEOUT, Talk, asking, bounds, message};
use super::*;
use crate::protocol::fluent::handshake::{BadUsers, Handshake, SharedKey, Users};
use crate::protocol::properties::{Commit, Outcome, outcome};
use crate::protocol::session::{AnySession, Phase, Session, Violation};

const NONCE: &[u8; 16] = b"0123456789abcdef";
const AUTH: &[u8; 16] = b"fedcba9876543210";
const KEY: &str = "sharedkey";
const USERS: &str = "bob:b\n\nalice:s3:cret\n";
/// `sha512(b"salt" + b"web-1" + NONCE + KEY)`
const DIGEST: &str = "cefc8f6b30fafc79965a1777f125a60cba4c3c5106af99c4abfe9d2ee3f03365533f30ef82378b938480a912a0172b25cb2cf04d1612848a60ba3f190b90db02";
/// `sha512(AUTH + b"alice" + b"s3:cret")`
const ALICE: &str = "74183ad0179ec46af3584b68f7a268b49d5b3b2b6eeb3cbb552033b430f9f418b11a46f49d5c96890255a4c137472e46a157a3027d5883de46213165be9ff565";
/// `sha512(b"salt" + b"logferry" + NONCE + KEY)`
const PONG: &str = "3885a3f3d8d7d7d70c61e662f91a2f2f848826fa61eb276efc5965d813255c3dda9bcb12a54b787398456bf4e9d9e94f75047d9aba8f53512d9531df5ae0e299";

fn session(users: Option<&str>) -> FluentSession {
    let users = users.map(|users| Users::read(users).expect("users"));
    let secret = Arc::new(SharedKey::new(KEY.to_owned(), users));
    FluentSession::with_handshake(bounds(), Handshake::new(secret, *NONCE, *AUTH))
}

/// A session that has said HELO.
fn opened(users: Option<&str>) -> Talk {
    let mut talk = Talk::of(session(users));
    talk.session.opened(talk.now, &mut talk.answers);
    let auth = if users.is_some() { &b"\xc4\x10fedcba9876543210"[..] } else { b"\xa0" };
    let hello = [b"\x92\xa4HELO\x83\xa5nonce\xc4\x100123456789abcdef\xa4auth", auth, b"\xa9keepalive\xc3"].concat();
    assert_eq!((talk.session.phase(), talk.answered()), (Phase::Opening, hello));
    talk
}

fn ping(digest: &str, user: &str, password: &str) -> Vec<u8> {
    array(&[b"\xa4PING", &str_("web-1"), &bin(b"salt"), &str_(digest), &str_(user), &str_(password)])
}

fn pong(digest: &str) -> Vec<u8> {
    [&b"\x95\xa4PONG\xc3\xa0\xa8logferry\xd9\x80"[..], digest.as_bytes()].concat()
}

fn refusal(reason: &str) -> Vec<u8> {
    let head = [0xa0 | u8::try_from(reason.len()).expect("short")];
    [&b"\x95\xa4PONG\xc2"[..], &head, reason.as_bytes(), b"\xa0\xa0"].concat()
}

fn entry(text: &str) -> Vec<u8> {
    message("t", &conversation::event(&[("log", text.as_bytes())]), None)
}

#[test]
fn who_has_the_key_is_let_in() {
    for (users, said) in [
        (None, ping(DIGEST, "", "")),
        // Answers that the listener did not ask for are ignored.
        (None, ping(DIGEST, "mallory", "x")),
        (None, array(&[b"\xa4PING", &bin(b"web-1"), &str_("salt"), &bin(DIGEST.as_bytes()), b"\xc0", b"\xc0"])),
        (Some(USERS), ping(DIGEST, "alice", ALICE)),
    ] {
        let mut talk = opened(users);
        assert!(!talk.session.has_begun());
        talk.hears(&said);
        assert_eq!((talk.session.phase(), talk.answered()), (Phase::Open, pong(PONG)));
        assert!(talk.session.has_begun());
        talk.hears(&entry("a"));
        assert_eq!(talk.messages(), [("a".to_owned(), false)]);
        assert_eq!(talk.session.timer(talk.now + 2 * OPEN_TIMEOUT, &mut talk.heard), Ok(None), "it is over");
    }
}

/// Each sender gets the reason in Fluentd's words, and nothing that follows counts.
#[test]
fn who_has_it_not_is_told_so_and_refused() {
    let wrong = DIGEST.replace('c', "d");
    for (users, said, name, reason) in [
        (None, ping(&wrong, "", ""), "shared-key", "shared_key mismatch"),
        (None, ping("", "", ""), "shared-key", "shared_key mismatch"),
        (None, ping(&DIGEST.to_uppercase(), "", ""), "shared-key", "shared_key mismatch"),
        (Some(USERS), ping(&wrong, "alice", ALICE), "shared-key", "shared_key mismatch"),
        (Some(USERS), ping(DIGEST, "alice", &ALICE.replace('c', "d")), "user", "username/password mismatch"),
        (Some(USERS), ping(DIGEST, "bob", ALICE), "user", "username/password mismatch"),
        (Some(USERS), ping(DIGEST, "mallory", ALICE), "user", "username/password mismatch"),
        (Some(USERS), ping(DIGEST, "", ""), "user", "username/password mismatch"),
        // A sender without a key, and messages that nearly are a PING.
        (None, entry("a"), "ping", "invalid ping message"),
        (None, message("t", &conversation::event(&[]), Some(b"c")), "ping", "invalid ping message"),
        (None, array(&[b"\xa4PING"]), "ping", "invalid ping message"),
        (
            None,
            array(&[b"\xa4PONG", b"\xa0", b"\xa0", &str_(DIGEST), b"\xa0", b"\xa0"]),
            "ping",
            "invalid ping message",
        ),
        (
            None,
            array(&[b"\xa4PING", b"\xa0", b"\x07", &str_(DIGEST), b"\xa0", b"\xa0"]),
            "ping",
            "invalid ping message",
        ),
        (None, array(&[b"\xa4PING", &bin(&[0; 5000])]), "ping", "invalid ping message"),
    ] {
        let mut talk = opened(users);
        let told = talk.reads(&[said, entry("behind")].concat()).expect_err("it has no key");
        assert_eq!((told.name, talk.answered()), (name, refusal(reason)));
        assert!(!told.why.contains(KEY) && !told.why.contains("s3:cret"), "{told:?}");
        assert_eq!((talk.session.phase(), talk.session.owed(), talk.session.has_begun()), (Phase::Closing, 0, true));
        talk.hears(&entry("later"));
        assert_eq!((talk.messages(), talk.answered()), (vec![], vec![]));
    }
}

/// The digest is of another connection's nonce.
#[test]
fn what_was_said_on_another_connection_lets_nobody_in() {
    let secret = Arc::new(SharedKey::new(KEY.to_owned(), None));
    let handshake = Handshake::new(secret, *b"0123456789abcdeg", *AUTH);
    let mut talk = Talk::of(FluentSession::with_handshake(bounds(), handshake));
    assert_eq!(talk.reads(&ping(DIGEST, "", "")).map_err(|told| told.name), Err("shared-key"));
}

#[test]
fn fluent_bit_is_let_in() {
    for (file, users) in
        [("fluentbit-forward-sharedkey.raw", None), ("fluentbit-forward-sharedkey-user-ack.raw", Some("alice:s3cret"))]
    {
        let path = format!("{}/tests/corpus-drivers/{file}", env!("CARGO_MANIFEST_DIR"));
        let mut talk = opened(users);
        talk.hears(&std::fs::read(path).expect("a recording"));
        assert_eq!((talk.session.phase(), talk.messages().len()), (Phase::Open, 2), "{file}");
    }
}

/// Single bytes do not extend the deadline.
#[test]
fn a_handshake_is_waited_for_so_long() {
    let mut talk = opened(None);
    let start = talk.now;
    let said = ping(DIGEST, "", "");
    talk.now = start + OPEN_TIMEOUT / 2;
    talk.hears(&said[..100]);
    assert!(talk.session.unfinished() && talk.session.memory() >= 100);
    assert_eq!(talk.session.timer(talk.now, &mut talk.heard), Ok(Some(start + OPEN_TIMEOUT)));
    let late = talk.session.timer(start + OPEN_TIMEOUT, &mut talk.heard);
    assert_eq!((late, talk.session.phase()), (Err(Violation::new("no PING came in time")), Phase::Over));
}

#[test]
fn lists_of_users_are_read_and_never_shown() {
    for (text, bad) in [
        ("", BadUsers::Nobody),
        ("\n\n", BadUsers::Nobody),
        ("alice:secret\nhunter2", BadUsers::Line(2)),
        (":hunter2", BadUsers::Line(1)),
        ("\nhunter2:", BadUsers::Line(2)),
        ("alice:hunter2\nbob:b\nalice:hunter2", BadUsers::Twice(3)),
    ] {
        let told = Users::read(text).err().expect(text);
        assert_eq!(told, bad);
        assert!(!told.to_string().contains("hunter2"));
    }
    let secret = SharedKey::new("hunter2".to_owned(), Users::read("a:hunter2").ok());
    assert_eq!(format!("{secret:?}"), "***");
}

/// The outcome of a stream behind HELO, fed in these pieces.
fn comes_of(stream: &[u8], users: Option<&str>, pieces: &[usize], now: Instant) -> Outcome {
    outcome(
        AnySession::Fluent(Box::new(session(users))),
        stream,
        pieces.iter().copied(),
        None,
        Commit::AfterEachFeed,
        now,
    )
}

#[test]
fn no_two_cuts_of_a_handshake_matter() {
    let now = Instant::now();
    let ack = array(&[b"\xa1t", b"\x01", RECORD, &asking(b"c")]);
    for stream in [
        [b"\xc0", &ping(DIGEST, "alice", ALICE)[..], b"\xc0", &ack].concat(),
        [&ping(DIGEST, "alice", "")[..], &ack].concat(),
        [&ack[..], &ping(DIGEST, "alice", ALICE)].concat(),
    ] {
        let whole = comes_of(&stream, Some(USERS), &[], now);
        for first in 0..=stream.len() {
            for second in [1, 2, 7, stream.len() / 2] {
                assert_eq!(comes_of(&stream, Some(USERS), &[first, second], now), whole, "{first} {second}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The outcome is the same for any cuts, and no sender is accepted without proof of the key.
    #[test]
    fn what_is_no_ping_lets_nobody_in(
        has_ping: bool,
        place in 0..300usize,
        changed in prop::option::of(any::<u8>()),
        behind in prop::collection::vec(any::<u8>(), 0..30),
        pieces in prop::collection::vec(0..60usize, 0..10),
    ) {
        let now = Instant::now();
        let mut stream = if has_ping { ping(DIGEST, "alice", ALICE) } else { Vec::new() };
        let good = stream.clone();
        if let (Some(byte), true) = (changed, place < stream.len()) {
            stream[place] = byte;
        }
        let is_good = has_ping && stream == good;
        stream.extend(behind);
        let whole = comes_of(&stream, Some(USERS), &[], now);
        prop_assert_eq!(&comes_of(&stream, Some(USERS), &pieces, now), &whole);
        let is_in = whole.answers.windows(6).any(|six| six == b"PONG\xc3\xa0");
        prop_assert_eq!(is_in, is_good);
        prop_assert!(is_in || whole.messages.is_empty());
    }
}
