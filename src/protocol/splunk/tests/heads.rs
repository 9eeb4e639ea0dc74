//! Heads of requests and their answers; acknowledgements.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::properties::{any_acks, any_bytes, any_head};
use super::*;

const TOKEN: &[u8] = b"Splunk t-1";
const CHANNEL: &str = "6f3a1c7e-0b52-4d6f-9a51-2f0d3c4b5a69";

fn tokens() -> Tokens {
    Tokens::list(vec!["t-0".to_owned(), "t-1".to_owned()])
}

fn post(path: &str) -> Head<'_> {
    Head { method: "POST", path, authorization: Some(TOKEN), ..Head::default() }
}

#[track_caller]
fn refused(head: Head<'_>, expected: Refused, status: u16, body: &str) {
    let why = Request::read(&head, &tokens()).expect_err(body);
    let answer = why.answer(None);
    assert_eq!((why, answer.status, &*answer.body), (expected, status, body));
}

#[test]
fn each_path_has_its_methods() {
    let read = |method: &str, path: &str| Request::read(&Head { method, ..post(path) }, &tokens());
    for path in ["", "/event", "/event/1.0", "/raw", "/raw/1.0", "/ack", "/ack/1.0", "/health", "/health/1.0"] {
        let path = format!("/services/collector{path}");
        let is_health = path.contains("health");
        let methods = if is_health { "GET, OPTIONS" } else { "POST, OPTIONS" };
        assert_eq!(read("OPTIONS", &path), Ok(Request::Options(methods)));
        match read("POST", &path) {
            Ok(Request::Ack(None)) => assert!(path.contains("ack")),
            Ok(Request::Post(post)) => assert_eq!(post, Post { is_raw: path.contains("raw"), ..events() }),
            other => assert_eq!((other, is_health), (Err(Refused::Method(methods)), true)),
        }
        assert_eq!(read("GET", &path), if is_health { Ok(Request::Health) } else { Err(Refused::Method(methods)) });
        assert_eq!(read("PUT", &path), Err(Refused::Method(methods)));
        assert_eq!(read("post", &path), Err(Refused::Method(methods)));
    }
    let nowhere = r#"{"text":"The requested URL was not found on this server.","code":404}"#;
    for path in ["/", "", "/services/collector/", "/services/collectors", "/services/collector/event/2.0", "/event"] {
        refused(post(path), Refused::Path, 404, nowhere);
    }
    let head = Head { method: "GET", ..post("/services/collector/event") };
    let method = Refused::Method("POST, OPTIONS");
    refused(head, method, 405, nowhere);
    assert_eq!(method.answer(None).header, Some(("allow", "POST, OPTIONS")));
}

#[test]
fn who_may_send_is_answered_as_splunk_does() {
    let with = |authorization: Option<&'static [u8]>, query: &'static str| Head {
        authorization,
        query,
        ..post("/services/collector/event")
    };
    // Basic: `x:t-1`, and `x:y:t-1`.
    for good in [TOKEN, b"splunk   t-1 ", b"Splunk t-0", b"Basic eDp0LTE=", b"BASIC OnQtMQ=="] {
        assert!(Request::read(&with(Some(good), "token=nonsense"), &tokens()).is_ok(), "{}", good.escape_ascii());
    }
    let body = r#"{"text":"Token is required","code":2}"#;
    refused(with(None, ""), Refused::TokenRequired, 401, body);
    refused(with(Some(b" "), ""), Refused::TokenRequired, 401, body);
    let body = r#"{"text":"Invalid authorization","code":3}"#;
    for bad in [&b"Bearer t-1"[..], b"t-1", b"Splunk", b"Basic", b"Basic !", b"Basic dC0x", b"Basic eDo=", b"Splunkt-1"]
    {
        refused(Head { authorization: Some(bad), ..with(None, "") }, Refused::InvalidAuthorization, 401, body);
    }
    assert_eq!(Refused::InvalidAuthorization.answer(None).header, Some(("www-authenticate", "Splunk")));
    let body = r#"{"text":"Invalid token","code":4}"#;
    for bad in [&b"Splunk t-2"[..], b"Splunk t-", b"Splunk t-11", b"Splunk t-1 t-1", b"Basic eDp5OnQtMQ=="] {
        refused(Head { authorization: Some(bad), ..with(None, "") }, Refused::InvalidToken, 403, body);
    }
    refused(with(None, "token=t-2"), Refused::InvalidToken, 403, body);
    let body = r#"{"text":"Query string authorization is not enabled","code":16}"#;
    refused(with(None, "a=b&token=t%2D1"), Refused::QueryToken, 400, body);

    let read = |head: &Head<'_>, tokens: &Tokens| Request::read(head, tokens).map(|_| ());
    for anything in [None, Some(&b"Splunk t-2"[..]), Some(b"Bearer x")] {
        assert_eq!(read(&with(anything, ""), &Tokens::any()), Ok(()));
    }
    assert_eq!(read(&with(None, "token=x"), &Tokens::any()), Err(Refused::QueryToken));
    assert_eq!(read(&with(Some(TOKEN), ""), &Tokens::list(vec![])), Err(Refused::InvalidToken));
    assert_eq!(format!("{:?} {:?}", tokens(), Tokens::any()), "*** ***");
}

#[test]
fn health_needs_no_token_and_says_where_one_is_wrong() {
    let health = |authorization| Head { method: "GET", authorization, ..post("/services/collector/health") };
    for good in [None, Some(TOKEN)] {
        assert_eq!(Request::read(&health(good), &tokens()), Ok(Request::Health));
    }
    let body = r#"{"text":"Invalid token","code":21}"#;
    refused(health(Some(b"Splunk t-2")), Refused::InvalidHealthToken, 400, body);
    let answers = [false, true].map(Answer::health);
    assert_eq!(
        answers.map(|answer| (answer.status, answer.body.into_owned())),
        [
            (200, r#"{"text":"HEC is healthy","code":17}"#.to_owned()),
            (503, r#"{"text":"HEC is unhealthy, queues are full","code":18}"#.to_owned()),
        ]
    );
}

#[test]
fn a_query_is_decoded_and_a_channel_is_where_either_says() {
    let read = |head: Head<'_>| match Request::read(&head, &tokens()) {
        Ok(Request::Post(post)) => post,
        other => panic!("{other:?}"),
    };
    let raw = post("/services/collector/raw");
    let query = "host=a+b%2Fc&source=&sourcetype=st&index=i&time=1.5&channel=6F3A1C7E0B524D6F9A512F0D3C4B5A69&x=y&sourcetype=last";
    let given = Given {
        host: Some("a b/c".to_owned()),
        time: Some("1.5".to_owned()),
        source: None,
        sourcetype: Some("last".to_owned()),
        index: Some("i".to_owned()),
    };
    let channel = Channel::read(CHANNEL.as_bytes());
    assert!(channel.is_some());
    assert_eq!(read(Head { query, ..raw }), Post { is_raw: true, is_gzip: false, channel, given });
    assert_eq!(read(Head { channel: Some(CHANNEL.as_bytes()), ..raw }).channel, channel);
    // Without a question for acknowledgements the channel may be any text, as with Splunk.
    for none in [None, Some(&b""[..]), Some(b"mine"), Some(&CHANNEL.as_bytes()[1..])] {
        assert_eq!(read(Head { channel: none, ..raw }).channel, None);
    }
    let body = r#"{"text":"Invalid data channel","code":11}"#;
    refused(Head { channel: Some(b"mine"), ..post("/services/collector/ack") }, Refused::InvalidChannel, 400, body);
    for digits in ["", &"0".repeat(31), &"0".repeat(33), "0000000000000000000000000000000g"] {
        assert_eq!(Channel::read(digits.as_bytes()), None);
    }
}

#[test]
fn a_body_is_gzip_or_as_it_is() {
    let with = |encoding: &'static str| Head { encoding: Some(encoding.as_bytes()), ..post("/services/collector") };
    for (encoding, expected) in [("gzip", true), ("GZIP", true), ("x-gzip", true), ("identity", false), ("", false)] {
        assert!(
            matches!(Request::read(&with(encoding), &tokens()), Ok(Request::Post(post)) if post.is_gzip == expected)
        );
    }
    for other in ["deflate", "br", "zstd", "gzip, gzip", "gzi"] {
        refused(with(other), Refused::Encoding, 415, r#"{"text":"Unsupported Media Type","code":415}"#);
    }
}

#[test]
fn what_was_stored_is_safe_and_nothing_else() {
    let (mut acks, now) = (Acks::new(2, Duration::from_secs(600)), Instant::now());
    let [one, two, three] = ["1", "2", "3"].map(|digit| Channel::read(digit.repeat(32).as_bytes()).expect("a GUID"));
    let ask = |acks: &mut Acks, channel, body: &str, now| {
        acks.answer(Some(channel), body.as_bytes(), now).map(|answer| (answer.status, answer.body.into_owned()))
    };
    let safe = |body: &str| Ok((200, body.to_owned()));
    assert_eq!([acks.stored(one, now), acks.stored(one, now), acks.stored(two, now)], [Some(0), Some(1), Some(0)]);
    assert_eq!(&*Answer::success(Some(1)).body, r#"{"text":"Success","code":0,"ackId":1}"#);
    assert_eq!(&*Answer::success(None).body, r#"{"text":"Success","code":0}"#);
    // Every question gets `true`, not only the first.
    for _ in 0..2 {
        let question = r#"{"acks":[2,0,1,0]}"#;
        assert_eq!(ask(&mut acks, one, question, now), safe(r#"{"acks":{"0":true,"1":true,"2":false}}"#));
    }
    assert_eq!(ask(&mut acks, three, r#"{"acks":[0]}"#, now), safe(r#"{"acks":{"0":false}}"#));
    assert_eq!(ask(&mut acks, three, r#"{"acks":[]}"#, now), safe(r#"{"acks":{}}"#));
    // The least recently used channel makes room.
    assert_eq!((acks.stored(three, now), acks.channels()), (Some(0), 2));
    assert_eq!(ask(&mut acks, two, r#"{"acks":[0]}"#, now), safe(r#"{"acks":{"0":false}}"#));
    assert_eq!(ask(&mut acks, one, r#"{"acks":[1]}"#, now), safe(r#"{"acks":{"1":true}}"#));
    // A question counts as a use.
    let later = now + Duration::from_secs(599);
    assert_eq!(ask(&mut acks, one, r#"{"acks":[1]}"#, later), safe(r#"{"acks":{"1":true}}"#));
    let later = later + Duration::from_secs(1);
    assert_eq!(ask(&mut acks, three, r#"{"acks":[0]}"#, later), safe(r#"{"acks":{"0":false}}"#));
    assert_eq!(acks.channels(), 1);
}

#[test]
fn a_question_that_is_none_is_refused() {
    let (mut acks, now) = (Acks::new(2, Duration::from_secs(600)), Instant::now());
    let channel = Channel::read(CHANNEL.as_bytes());
    let missing = acks.answer(None, br#"{"acks":[0]}"#, now).expect_err("no channel").answer(None);
    assert_eq!((missing.status, &*missing.body), (400, r#"{"text":"Data channel is missing","code":10}"#));
    for bad in ["", "[0]", "{}", r#"{"acks":0}"#, r#"{"acks":[-1]}"#, r#"{"acks":["0"]}"#, r#"{"acks":[0]"#] {
        assert_eq!(acks.answer(channel, bad.as_bytes(), now), Err(Refused::NotJson), "{bad}");
    }
    assert_eq!(&*Refused::NotJson.answer(None).body, r#"{"text":"Invalid data format","code":6}"#);
    assert_eq!(acks.answer(channel, &vec![b' '; MAX_ACK_BODY + 1], now), Err(Refused::TooLarge));
    let mut none = Acks::new(0, Duration::from_secs(600));
    assert_eq!(none.stored(channel.expect("a GUID"), now), None);
    let disabled = none.answer(None, b"", now).expect_err("disabled").answer(None);
    assert_eq!((disabled.status, &*disabled.body), (400, r#"{"text":"ACK is disabled","code":14}"#));
}

proptest! {
    #[test]
    fn any_head_is_read_or_refused(
        method in "POST|GET|OPTIONS|\\PC{0,3}", path in "/services/collector(/event|/raw|/ack|/health)?(/1.0)?",
        query in "[a-z=&%+0-9]{0,30}|token=t|channel=[0-9a-f-]{32}", token in "(Splunk|Basic|x) [a-zA-Z0-9=]{0,8}|",
        channel in "[0-9a-f-]{30,36}|", encoding in "gzip|x|",
    ) {
        any_head(format!("{method}\n{path}\n{query}\n{token}\n{channel}\n{encoding}").as_bytes());
    }

    #[test]
    fn no_order_of_questions_makes_anything_safe(steps in proptest::collection::vec(any::<u8>(), 0..200)) {
        any_acks(&steps, Instant::now());
    }

    /// The input of the fuzz target, with likely bytes.
    #[test]
    fn whatever_comes_stays_within_the_limits_and_comes_back(
        head in any::<[u8; 4]>(),
        tail in proptest::collection::vec(prop_oneof![any::<u8>(), proptest::sample::select(&b"{}[]:,\"\\\r\n _1e.a"[..])], 0..200),
    ) {
        any_bytes(&[&head[..], &tail].concat(), Instant::now());
    }

    #[test]
    fn whatever_an_event_says_comes_back(
        texts in proptest::collection::vec("\\PC{0,8}|\"(\\\\\\\\|\\\\u[0-9a-f]{4}|[a-z])*\"|[0-9.e-]{1,6}|[\\[\\]{}]{1,4}", 0..6),
        between in "[ ,\n\\[\\]]{0,2}",
    ) {
        let names = ["event", "time", "host", "source", "fields", "x"];
        let member = |(text, name): (&String, &str)| format!("\"{name}\":{}", if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() { text.clone() } else { serde_json::Value::from(text.as_str()).to_string() });
        let event = format!("{{{}}}", texts.iter().zip(names).map(member).collect::<Vec<_>>().join(","));
        let body = [event.as_str(), &between, &event].concat();
        any_body(&events(), body.as_bytes(), LIMITS, &[body.len() / 2, 1]);
    }
}
