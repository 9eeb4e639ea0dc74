//! Bodies of hostile senders: each is refused by its name, in its place, and at little cost.

use super::*;

/// Checks the number of events before the refused one, and the answer.
#[track_caller]
fn refused(body: &[u8], expected: Refused, before: u64, status: u16, answer: &str) {
    let mut count = 0;
    let why = records(events(), body, Senders::Anybody, |_| count += 1).expect_err("refused");
    let told = why.answer(Some(count));
    assert_eq!((why, count, told.status, &*told.body), (expected, before, status, answer), "{}", body.escape_ascii());
}

fn numbered(text: &str, code: u16, number: u64) -> String {
    format!(r#"{{"text":"{text}","code":{code},"invalid-event-number":{number}}}"#)
}

#[test]
fn what_is_no_event_is_refused_with_its_number() {
    let good = br#"{"event":"a"}"#;
    for (bad, expected) in [
        (&b"x"[..], Refused::NotJson),
        (b"}", Refused::NotJson),
        (b"]", Refused::NotJson),
        (b",", Refused::NotJson),
        (b"{]", Refused::NotJson),
        (b"{}}", Refused::EventRequired),
        (b"{\"event\":\"a\nb\"}", Refused::NotJson),
        (b"{\"event\":01}", Refused::NotJson),
        (b"{\"event\"}", Refused::NotJson),
        (b"{\"event\":\"a\",}", Refused::NotJson),
        (b"[,]", Refused::NotJson),
        (b"\"a\"", Refused::NoObject),
        (b"1", Refused::NoObject),
        (b"null", Refused::NoObject),
        (b"[1]", Refused::NoObject),
        (b"[[{}]]", Refused::NoObject),
        (b"{\"event\":\"\xff\"}", Refused::NotUtf8),
        (b"{\"event\":\"a", Refused::Unfinished),
        (b"{", Refused::Unfinished),
        (b"[", Refused::Unfinished),
    ] {
        for before in 0..2 {
            let body = [&good.repeat(before), bad].concat();
            let number = before as u64;
            match expected {
                Refused::EventRequired => {
                    refused(&body, expected, number, 400, &numbered("Event field is required", 12, number))
                }
                _ => refused(&body, expected, number, 400, &numbered("Invalid data format", 6, number)),
            }
        }
    }
    // Events behind the first bad one are not taken.
    let body = [&b"["[..], good, b",{},", good, b"]"].concat();
    refused(&body, Refused::EventRequired, 1, 400, &numbered("Event field is required", 12, 1));
    let array = [&b"["[..], good, b" ", good, b"]"].concat();
    refused(&array, Refused::NotJson, 1, 400, &numbered("Invalid data format", 6, 1));
    let open = [&b"["[..], good, b","].concat();
    refused(&open, Refused::Unfinished, 1, 400, &numbered("Invalid data format", 6, 1));
}

#[test]
fn an_event_that_is_empty_is_refused() {
    for none in ["{}", r#"{"host":"h"}"#, r#"{"fields":null}"#] {
        refused(none.as_bytes(), Refused::EventRequired, 0, 400, &numbered("Event field is required", 12, 0));
    }
    for blank in ["null", "\"\"", "\" \\t\"", "{}", "[ ]", "{ }"] {
        let body = format!(r#"{{"event":"a"}}{{"event":{blank},"fields":{{"a":1}}}}"#);
        refused(body.as_bytes(), Refused::EventBlank, 1, 400, &numbered("Event field cannot be blank", 13, 1));
    }
}

#[test]
fn a_body_without_an_event_is_no_data() {
    let answer = r#"{"text":"No data","code":5}"#;
    for none in ["", " ", "\r\n\n", "[]", " [ ] "] {
        refused(none.as_bytes(), Refused::NoData, 0, 400, answer);
    }
    for (post, none) in [
        (Post { is_raw: true, ..events() }, &b"\r\n\n\r"[..]),
        (Post { is_gzip: true, ..events() }, b""),
        (Post { is_gzip: true, ..events() }, &gzip(b" ")),
    ] {
        assert_eq!(records(post, none, Senders::Anybody, |_| panic!("an event")), Err(Refused::NoData));
    }
}

#[test]
fn what_is_deep_or_has_many_names_is_refused() {
    let deep = |depth: usize| format!(r#"{{"event":{}1{}}}"#, "[".repeat(depth), "]".repeat(depth));
    let format = numbered("Invalid data format", 6, 0);
    refused(deep(MAX_DEPTH).as_bytes(), Refused::TooDeep, 0, 400, &format);
    refused(deep(100_000).as_bytes(), Refused::TooDeep, 0, 400, &format);
    check(&deep(MAX_DEPTH - 1), |record| assert_eq!(record.message.map(<[u8]>::len), Some(2 * MAX_DEPTH - 1)));
    // Brackets in a text are text.
    check(r#"{"event":"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\"[["}"#, |_| {});
    let names = |count: usize| {
        let names: String = (0..count).map(|n| format!(",\"{n}\":{n}")).collect();
        format!("{{\"event\":\"a\"{names}}}")
    };
    refused(names(MAX_KEYS + 1).as_bytes(), Refused::TooManyKeys, 0, 400, &format);
    let twice = format!("{{{}\"event\":1}}", "\"event\":1,".repeat(MAX_KEYS + 1));
    refused(twice.as_bytes(), Refused::TooManyKeys, 0, 400, &format);
    check(&names(MAX_KEYS), |record| assert_eq!(record.fields.left_out() as usize, MAX_KEYS - 64));
    // The names in `fields` have the limit of fields.
    let fields: String = (0..2000).map(|n| format!("\"{n}\":{n},")).collect();
    check(&format!("{{\"event\":\"a\",\"fields\":{{{fields}\"x\":1}}}}"), |record| {
        assert_eq!(record.fields.left_out(), 2001 - 64);
    });
}

#[test]
fn what_is_longer_than_the_limit_is_refused_before_it_is_there() {
    let limits = Limits { max_event: 100, max_message: 50, max_body: 200 };
    let event = |len: usize| format!("{{\"event\":\"{}\"}}", "a".repeat(len - 12)).into_bytes();
    let exact = [event(100), event(99)].concat();
    for cut in [0, 1, 50, 100, 150] {
        any_body(&events(), &exact, limits, &[cut, 1]);
        let (lines, end) = found(&events(), &[exact.clone(), event(101)].concat(), limits, [cut, 30]);
        assert_eq!((lines.len(), end), (2, Err(Refused::TooLong)));
    }
    // The event never ends.
    assert_eq!(found(&events(), &event(1000)[..101], limits, []).1, Err(Refused::TooLong));
    assert_eq!(found(&events(), &event(1000)[..100], limits, []).1, Err(Refused::Unfinished));
    let answer = Refused::TooLong.answer(Some(2));
    assert_eq!(
        (answer.status, &*answer.body),
        (413, r#"{"text":"Content Too Large","code":413,"invalid-event-number":2}"#)
    );

    let post = Post { is_gzip: true, ..events() };
    assert_eq!(found(&post, &gzip(&exact), Limits { max_body: 199, ..limits }, []).0.len(), 2);
    assert_eq!(found(&post, &gzip(&exact), Limits { max_body: 198, ..limits }, []).1, Err(Refused::TooLarge));
    assert_eq!(found(&post, &[0x1f; 201], limits, [100]).1, Err(Refused::TooLarge));
    assert_eq!(&*Refused::TooLarge.answer(Some(2)).body, r#"{"text":"Content Too Large","code":413}"#);
}

#[test]
fn a_long_text_is_cut_and_says_so() {
    let limits = Limits { max_message: 20, ..LIMITS };
    let settings = Settings::default();
    for (event, kept, is_cut) in [
        (r#""01234567890123456789""#, "01234567890123456789", false),
        (r#""01234567890123456789a""#, "01234567890123456789", true),
        (r#"{"a":"0123456789012345"}"#, r#"{"a":"01234567890123"#, true),
        (r#"{"line":"01234567890123456789a","source":"stdout"}"#, "01234567890123456789", true),
        // Only with its tag, the text exceeds the limit.
        (r#""2a9052a5c36e 012345678""#, "0123456", true),
        (r#""2a9052a5c36e 0123456""#, "0123456", false),
    ] {
        let body = format!(r#"{{"event":{event},"time":"1795898403.057468","host":"h"}}"#);
        any_body(&events(), body.as_bytes(), limits, &[1, 20]);
        let mut read = Body::new(events(), limits, Senders::Anybody);
        let fed = read.feed(body.as_bytes(), |message| {
            let record = message.to_record(&settings, RECEIVED);
            assert_eq!(
                (text(record.message).as_str(), record.cut, message.is_cut()),
                (kept, is_cut, is_cut),
                "{event}"
            );
        });
        assert_eq!((fed, read.found()), (Ok(()), 1));
    }
}

#[test]
fn a_long_line_is_cut_and_says_so() {
    let limits = Limits { max_event: 0, max_message: 10, max_body: 0 };
    let settings = Settings::default();
    let body = b"0123456789\n0123456789\r\n\xff\0\r\r\n0123456789abc\n\r\nlast\r";
    for cut in 0..body.len() {
        let mut read = Body::new(Post { is_raw: true, ..events() }, limits, Senders::Anybody);
        let mut seen = Vec::new();
        let mut take = |message: &Message<'_>| {
            let record = message.to_record(&settings, RECEIVED);
            seen.push((record.message.expect("a line").to_vec(), record.cut));
        };
        read.feed(&body[..cut], &mut take).expect("lines");
        read.feed(&body[cut..], &mut take).expect("lines");
        assert_eq!(read.finish(&mut take), Ok(false));
        let expected: [(&[u8], bool); 5] = [
            (b"0123456789", false),
            // Only with its CR, the line exceeds the limit.
            (b"0123456789", true),
            (b"\xff\0\r", false),
            (b"0123456789", true),
            (b"last", false),
        ];
        assert_eq!(seen, expected.map(|(line, is_cut)| (line.to_vec(), is_cut)), "{cut}");
    }
}

#[test]
fn a_bomb_is_refused_within_the_limit() {
    let bomb = gzip(&vec![b' '; 10_000_000]);
    let limits = Limits { max_event: 1000, max_message: 1000, max_body: 100_000 };
    assert!(bomb.len() < limits.max_body);
    let post = Post { is_gzip: true, ..events() };
    assert_eq!(found(&post, &bomb, limits, [1000]), (vec![], Err(Refused::TooLarge)));
    let good = gzip(br#"{"event":"a"}"#);
    for end in 1..good.len() {
        assert_eq!(found(&post, &good[..end], limits, [3]), (vec![], Err(Refused::BadGzip)), "{end}");
    }
    assert_eq!(found(&post, b"{\"event\":\"a\"}", limits, []), (vec![], Err(Refused::BadGzip)));
}

/// An unfinished event takes memory only for the bytes received. A finished event takes none.
#[test]
fn what_has_not_ended_costs_what_has_come() {
    let limits = Limits { max_event: 1 << 30, max_message: 1 << 30, max_body: 1 << 30 };
    let mut read = Body::new(events(), limits, Senders::Anybody);
    read.feed(b"{\"event\":\"a\"}", |_| {}).expect("an event");
    assert_eq!(read.held(), 0);
    read.feed(b"{\"event\":", |_| {}).expect("a piece");
    assert_eq!(read.held(), 9);
}
