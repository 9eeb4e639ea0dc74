use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::properties::{Found, any_bytes, any_cut, any_line, found};
use super::*;
use crate::record::Record;

const SESSION: &[u8] = b"INFO {\"max_payload\":1048576} \r\n+OK\r\nPING\r\npong\r\n-ERR 'Authorization Violation'\r\n\
    MSG _INBOX.a.7 1 27\r\n{\"stream\":\"LOGS\", \"seq\":12}\r\nHMSG _INBOX.a.8 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n\
    MSG\t_INBOX.a.9  1 reply 0\r\n\r\nPING\n";

#[test]
fn what_a_server_says_is_found_wherever_it_is_cut() {
    let message =
        |subject: &str, headers: &str, payload: &str| Found::Message(subject.into(), headers.into(), payload.into());
    assert_eq!(
        found(SESSION, []),
        [
            Found::Info(b"{\"max_payload\":1048576}".to_vec()),
            Found::Ok,
            Found::Ping,
            Found::Pong,
            Found::Err(b"Authorization Violation".to_vec()),
            message("_INBOX.a.7", "", "{\"stream\":\"LOGS\", \"seq\":12}"),
            message("_INBOX.a.8", "NATS/1.0 503\r\n\r\n", ""),
            message("_INBOX.a.9", "", ""),
            Found::Ping,
        ]
    );
    for first in 0..SESSION.len() {
        for second in 0..SESSION.len() - first {
            any_cut(SESSION, &[first, second]);
        }
    }
}

#[test]
fn what_is_no_nats_is_the_end() {
    let check = |stream: &str, says: &str| {
        let found = found(stream.as_bytes(), []);
        let Some(Found::Bad(bad)) = found.last() else { panic!("{stream}: {found:?}") };
        assert!(bad.to_string().contains(says), "{stream}: {bad}");
    };
    check("SSH-2.0-OpenSSH_9.2\r\n", "an operation");
    check("HTTP/1.1 400 Bad Request\r\n", "an operation");
    check("\r\n", "an operation");
    for head in
        ["MSG a 1", "MSG a 1 b c 1", "MSG a 1 x", "MSG a 1 -1", "MSG a 1 9999999999", "HMSG a 1 1", "HMSG a 1 b c 1 1"]
    {
        check(&format!("{head}\r\n"), "the head");
    }
    check("HMSG a 1 9 8\r\n", "the length");
    check(&format!("MSG a 1 {}\r\n", MAX_MESSAGE + 1), "the length");
    check("MSG a 1 1\r\nxyz", "the end");
    check(&"x".repeat(MAX_LINE), "too long");
    assert_eq!(found(&b"x".repeat(MAX_LINE - 1), []), []);
}

#[test]
fn a_servers_own_words_about_itself() {
    let info = Info::read(
        br#"{"server_id":"N","version":"2.9.10","proto":1,"headers":true,"max_payload":1048576,"tls_required":true,"nonce":"abc","ldm":true,"connect_urls":["a:1"]}"#,
    );
    let expected = Info {
        nonce: "abc".to_owned(),
        max_payload: Some(1 << 20),
        has_headers: true,
        needs_tls: true,
        has_tls: false,
        is_leaving: true,
    };
    assert_eq!(info, Some(expected));
    assert_eq!(Info::read(b"{}"), Some(Info::default()));
    assert_eq!(Info::read(b"[]"), None);
}

#[test]
fn each_answer_is_a_verdict() {
    let check = |headers: &str, payload: &str, expected: &str| {
        let message = Message { subject: b"s", reply: b"", headers: headers.as_bytes(), payload: payload.as_bytes() };
        let answer = format!("{:?}", Answer::read(&message));
        assert!(answer.starts_with(expected), "{payload}: {answer}");
    };
    check("", r#"{"stream":"LOGS","seq":1}"#, "Stored");
    check("", r#"{"stream":"LOGS", "seq":12,"duplicate": true, "domain":"x"}"#, "Stored");
    check("", r#"{"stream":"LOGS","seq":0,"duplicate":true}"#, "Again");
    check("NATS/1.0 503\r\n\r\n", "", "NoStream");
    check("NATS/1.0 408 Request Timeout\r\n\r\n", "", "Again");
    let error = |code: u32, err_code: u32, says: &str| {
        format!(
            r#"{{"type":"x","error":{{"code":{code},"err_code":{err_code},"description":"{says}"}},"stream":"LOGS","seq":0}}"#
        )
    };
    for (code, err_code, says, expected) in [
        (
            400,
            10054,
            "message size exceeds maximum allowed",
            "Poison(\"message size exceeds maximum allowed (10054)\")",
        ),
        (503, 10077, "message to large", "Poison"),
        (503, 10077, "maximum bytes exceeded", "Again(\"maximum bytes exceeded (10077)\")"),
        (503, 10077, "maximum messages exceeded", "Again"),
        (503, 10008, "JetStream system temporarily unavailable", "Again"),
        (503, 10023, "insufficient resources", "Again"),
        (500, 10047, "insufficient storage resources available", "Again"),
        (400, 10002, "resource limits exceeded for account", "Again"),
        (429, 10167, "too many requests", "Again"),
        (409, 10158, "duplicate message id is in process", "Again"),
        (503, 10039, "JetStream not enabled for account", "Stop"),
        (400, 10109, "invalid operation on sealed stream", "Stop"),
    ] {
        check("", &error(code, err_code, says), expected);
    }
    check("", "got it", "Stop(\"the answer is no stream's: got it\")");
    check("", "", "Stop");
}

#[test]
fn a_message_is_published_under_its_number() {
    let publication =
        Publication { subject: b"logs.n7.web", inbox: "_INBOX.a", number: 12, id: b"5b00/central-1-7", payload: b"{}" };
    let mut out = Vec::new();
    publication.append(&mut out);
    let expected = "HPUB logs.n7.web _INBOX.a.12 43 45\r\nNATS/1.0\r\nNats-Msg-Id: 5b00/central-1-7\r\n\r\n{}\r\n";
    assert_eq!(String::from_utf8(out).expect("text"), expected);
    assert_eq!(publication.byte_len(), 45);
    assert_eq!(answered(b"_INBOX.a.12", "_INBOX.a"), Some(12));
    for other in ["_INBOX.a", "_INBOX.a.", "_INBOX.a.x", "_INBOX.b.12", "_INBOX.a.12.1"] {
        assert_eq!(answered(other.as_bytes(), "_INBOX.a"), None, "{other}");
    }
}

#[test]
fn a_session_is_opened_with_what_the_server_knows_us_by() {
    let check = |login: Login, says: &str| {
        let mut out = Vec::new();
        append_opening(&login, false, "_INBOX.a", &mut out);
        let out = String::from_utf8(out).expect("text");
        let (connect, rest) = out.split_once("\r\n").expect("a line");
        let said: serde_json::Value =
            serde_json::from_str(connect.strip_prefix("CONNECT ").expect("CONNECT")).expect("JSON");
        assert!(said["headers"] == true && said["no_responders"] == true && said["verbose"] == false, "{connect}");
        assert!(connect.ends_with(&format!("{says}}}")), "{connect}");
        assert_eq!(rest, "SUB _INBOX.a.* 1\r\nPING\r\n");
        assert_eq!(format!("{login:?}"), "***");
    };
    check(Login::Nobody, "\"tls_required\":false");
    check(Login::Token("a\"b".to_owned()), r#","auth_token":"a\"b""#);
    check(Login::User { name: "u".to_owned(), password: "p".to_owned() }, r#","user":"u","pass":"p""#);
    check(Login::Nkey { public: "U".to_owned(), signature: "s".to_owned() }, r#","nkey":"U","sig":"s""#);
    check(Login::Jwt { jwt: "j".to_owned(), signature: "s".to_owned() }, r#","jwt":"j","sig":"s""#);
}

/// Seed and public key from the documentation of nkeys.
const SEED_OF_DOCS: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
const PUBLIC_OF_DOCS: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";

#[test]
fn a_key_is_read_from_its_seed() {
    for text in [SEED_OF_DOCS.to_owned(), format!("-----BEGIN-----\n  {SEED_OF_DOCS}\r\n---")] {
        assert_eq!(Nkey::read(&text).map(|key| key.public()), Ok(PUBLIC_OF_DOCS.to_owned()));
    }
    // 64 bytes, without padding.
    let key = Nkey::read(SEED_OF_DOCS).expect("a key");
    assert_eq!(key.sign("nonce").len(), 86);
    assert_eq!(format!("{key:?}"), "***");
    let says = |text: &str| Nkey::read(text).map(|key| key.public()).expect_err(text);
    assert_eq!(says(""), BadKey::NoSeed);
    assert_eq!(says(&SEED_OF_DOCS.replace('3', "4")), BadKey::Damaged);
    assert_eq!(says(&SEED_OF_DOCS[..57]), BadKey::Damaged);
    assert_eq!(says(PUBLIC_OF_DOCS), BadKey::NoSeed);
    // The seed of an account.
    let mut bytes = data_encoding::BASE32_NOPAD.decode(SEED_OF_DOCS.as_bytes()).expect("base32");
    (bytes[0], bytes[1]) = (18 << 3, 0);
    let checksum = nkey::crc16(&bytes[..34]).to_le_bytes();
    bytes[34..].copy_from_slice(&checksum);
    assert_eq!(says(&data_encoding::BASE32_NOPAD.encode(&bytes)), BadKey::NoUser);
}

#[test]
fn credentials_are_a_jwt_and_a_seed() {
    let file = format!(
        "-----BEGIN NATS USER JWT-----\neyJ0eXAi.eyJqdGki.c2ln\n------END NATS USER JWT------\n\n\
         ************************* IMPORTANT *************************\nNKEY Seed printed below can be used to sign\n\n\
         -----BEGIN USER NKEY SEED-----\n{SEED_OF_DOCS}\n------END USER NKEY SEED------\n"
    );
    let creds = Creds::read(&file).expect("credentials");
    assert_eq!((creds.jwt.as_str(), creds.key.public().as_str()), ("eyJ0eXAi.eyJqdGki.c2ln", PUBLIC_OF_DOCS));
    assert_eq!(Creds::read(SEED_OF_DOCS).expect_err("no JWT"), BadKey::NoJwt);
    assert_eq!(Creds::read(&file.replace("eyJ0eXAi.eyJqdGki.c2ln\n", "")).expect_err("no JWT"), BadKey::NoJwt);
    assert_eq!(
        Creds::read(file.split("-----BEGIN USER").next().expect("a part")).expect_err("no seed"),
        BadKey::NoSeed
    );
}

#[test]
fn no_field_is_more_than_a_part_of_a_token() {
    let check = |template: &str, host: &str, name: &str, expected: &str| {
        let line = format!("<30>1 - {host} web - - [docker@32473 image=\"r:5000/a:1\" name=\"{name}\" id=\"\"] x");
        let mut subject = b"what was there before".to_vec();
        SubjectTemplate::new(template).fill(&Record::from_line(line.as_bytes(), "docker@32473"), &mut subject);
        assert_eq!(String::from_utf8(subject).expect("text"), expected);
    };
    check("logs.{host}.{name}", "n7", "web", "logs.n7.web");
    check("logs.{host}.{name}", "n7.example.com", "a.>", "logs.n7_example_com.a__");
    check("{host}.{name}", "$SYS", "*", "_SYS._");
    check("logs.{image}.{id}", "h", "x", "logs.r:5000/a:1._");
    check("logs.{name}", "h", "a b\u{e9}", "logs.a_b__");
    check("{name}", "h", &"x".repeat(1000), &"x".repeat(MAX_FIELD_OF_DOCS));
}

/// The value in docs/destinations/nats.md.
const MAX_FIELD_OF_DOCS: usize = 128;

fn stream() -> impl Strategy<Value = Vec<u8>> {
    let bits: Vec<&'static [u8]> = vec![
        b"MSG a 1 2\r\n",
        b"HMSG a 1 4 5\r\n",
        b"PING\r\n",
        b"INFO {}\r\n",
        b"-ERR 'x'\r\n",
        b"\r\n",
        b"\n",
        b"xx",
        b" ",
        b"1",
        b"NATS/1.0 503",
    ];
    vec(prop_oneof![select(bits).prop_map(<[u8]>::to_vec), vec(any::<u8>(), 0..5)], 0..20)
        .prop_map(|bits| bits.concat())
}

proptest! {
    #[test]
    fn any_stream_is_the_same_in_pieces(stream in stream(), pieces in vec(0_usize..30, 0..8)) {
        any_cut(&stream, &pieces);
    }

    #[test]
    fn any_bytes_are_endured(bytes in vec(any::<u8>(), 0..300)) {
        any_bytes(&bytes);
    }

    #[test]
    fn any_line_has_a_subject_and_is_read_as_it_was_published(line in "(?s)<13>1 - .{0,20} .{0,20} - - .{0,60}") {
        any_line(line.as_bytes());
    }
}
