//! Messages of other senders than Docker, compared with `syslog_loose`.

use super::*;

#[test]
fn rfc_5424_of_others_is_carried_verbatim() {
    let verbatim = [
        "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - 'su root' failed",
        "<165>1 2003-10-11T22:14:15.003Z host evntslog - ID47 [exampleSDID@32473 iut=\"3\"] \u{feff}text",
        "<165>1 2003-10-11T22:14:15.003Z host evntslog - ID47 [a b=\"1\"][c d=\"\\\"\\\\\\]\\n\"]",
        "<165>1 2003-10-11T22:14:15.003Z host evntslog - ID47 [malformed sd] text",
        "<165>1 2003-10-11T22:14:15.003Z host evntslog - ID47 [a b=\"1\"]text",
        "<165>1 2003-10-11T22:14:15.003Z host evntslog - ID47 [a b=\"1",
        "<165>1 2003-10-11T22:14:15.003Z host evntslog - ID47 text without sd",
        "<165>1 2003-10-11T22:14:15.003000000Z host a - - - nine digits",
        "<165>1 2003-10-11T22:14:15.003Z höst a - - - ",
        "<165>1 2003-10-11T22:14:15.003Z host äpp - - - no param for a legal copy of it",
        "<165>1 2003-10-11T22:14:15.003Z host - 12 - - nil twice",
        "<30>1 2026-11-20T22:28:47Z n7 web 2a9052a5c36e - [docker@32473 image=\"x\" name=\"web\" id=\"2a9052a5c36e\"] from a relay",
        "<30>1 2026-11-20T22:28:47Z n7 web 123456789012 - [docker@32473 id=\"123456789012\"] x 1 web 123456789012 - [docker@32473 id=\"123456789012\"] x - forged",
    ];
    for line in verbatim {
        check(line, Shape::Rfc5424, line);
        check(&format!("{line}\n"), Shape::Rfc5424, line);
    }
    check("<34>1 - h a - - - x", Shape::Rfc5424, "<34>1 2026-11-20T22:28:47.500000Z h a - - - x");
    check("<34>1 2003-10-11T22:14:15Z - a - - [x] x", Shape::Rfc5424, "<34>1 2003-10-11T22:14:15Z relay-1 a - - [x] x");
    // Lenient RFC 5424.
    check(
        "<34>1  2003-10-11T22:14:15Z  h  app  007  -  [a b=\"c\"]  x",
        Shape::Rfc5424,
        "<34>1 2003-10-11T22:14:15Z h app 007 - [a b=\"c\"]  x",
    );
    check(
        "<34>2 2003-10-11T22:14:15Z h a - - - x",
        Shape::Unknown,
        "<34>1 2026-11-20T22:28:47.500000Z relay-1 - - - - 2 2003-10-11T22:14:15Z h a - - - x",
    );
}

#[test]
fn rfc_3164_of_others() {
    let utc = "2026-11-20T22:28:47Z";
    let cases = [
        ("Nov 20 22:28:47 n7 sshd[123]: hi", format!("{utc} n7 sshd 123 - - hi")),
        ("Nov 20 22:28:47 n7 su: 'su root' failed", format!("{utc} n7 su - - - 'su root' failed")),
        ("Nov 20 22:28:47 n7 su:   [x y=\"z\"] failed", format!("{utc} n7 su - - -   [x y=\"z\"] failed")),
        ("Nov 20 22:28:47 n7 su: about foo[12]: bar", format!("{utc} n7 su - - - about foo[12]: bar")),
        ("Nov 20 22:28:47 - su[7]: x", format!("{utc} relay-1 su 7 - - x")),
        ("Nov 20 22:28:47 su: job[1]: x", format!("{utc} relay-1 su - - - job[1]: x")),
        ("Nov 20 22:28:47 su: no host", format!("{utc} relay-1 su - - - no host")),
        ("Nov 20 22:28:47 n7 kernel: [ 1.0] x", format!("{utc} n7 kernel - - - [ 1.0] x")),
        ("Nov 20 22:28:47 n7 app[a/1]: x", format!("{utc} n7 app a/1 - - x")),
        (" Nov 20 22:28:47 n7 su: x", format!("{utc} n7 su - - - x")),
        ("nov 20  22:28:47 n7 su: x", format!("{utc} n7 su - - - x")),
        ("Nov 20 2026 22:28:47 n7 su: x", format!("{utc} n7 su - - - x")),
        ("Nov 20 2019 22:28:47 n7 su: x", "2019-11-20T22:28:47Z n7 su - - - x".to_owned()),
        (
            "Nov 20 2026 22:28:47: %ASA-6-302013: Built",
            format!("{utc} relay-1 %ASA-6-302013 - - [logferry@32473 msghdr=\"\"] %ASA-6-302013: Built"),
        ),
        (
            "Nov 20 2026 22:28:47 fw1 : %ASA-6-302013: Built",
            format!("{utc} fw1 %ASA-6-302013 - - [logferry@32473 msghdr=\": \"] %ASA-6-302013: Built"),
        ),
        (
            "Feb 30 22:28:47 n7 su: x",
            "2026-11-20T22:28:47.500000Z n7 su - - [logferry@32473 stamp=\"Feb 30 22:28:47\"] x".to_owned(),
        ),
        ("2026-11-20T22:28:47Z n7 su: x", format!("{utc} n7 su - - - x")),
        (
            "2026-11-20T22:28:47.123456789+05:30 n7 su: x",
            "2026-11-20T22:28:47.123456+05:30 n7 su - - [logferry@32473 nanoseconds=\"789\"] x".to_owned(),
        ),
        ("Nov 20 22:28:47 n7 sü: x", format!("{utc} n7 s__ - - [logferry@32473 tag=\"sü\"] x")),
    ];
    for (input, expected) in cases {
        check(&format!("<38>{input}"), Shape::Rfc3164, &format!("<38>1 {expected}"));
    }
}

#[test]
fn what_is_not_understood_is_carried_whole() {
    let head = "2026-11-20T22:28:47.500000Z relay-1 - - - -";
    for text in ["hello", "<192>x", "<00>x", "<01>x", "<>x", "<1", "<1234>x", "< 1>x", " <34>x", "<-1>x", "{\"a\":1}"] {
        check(text, Shape::Unknown, &format!("<13>1 {head} {text}"));
    }
    for text in [
        "hello",
        " hello",
        "-- MARK --",
        "1",
        "1 ",
        "1 2026",
        "Nov",
        "Nov 20",
        "Xyz 20 22:28:47 a b: c",
        "1 2003-13-11T22:14:15Z h a - - - x",
        "1 2003-02-29T22:14:15Z h a - - [x] x",
        "1 2003-10-11T22:14:15Z h a p m ",
        "1 2003-10-11T22:14:15Z h a p m",
        "1 2026-11-20T22:28:47Z h  7  - x",
        "99999",
    ] {
        check(&format!("<191>{text}"), Shape::Unknown, &format!("<191>1 {head} {text}"));
    }
    check("<0>x", Shape::Unknown, &format!("<0>1 {head} x"));
}

/// Messages that `syslog_loose` reads correctly give the same result here. `words` explains where it does not.
#[test]
fn agrees_with_syslog_loose() {
    let frames = [
        format!("<30>Nov 20 22:28:47 n7 {ID}[7]: hello"),
        "<38>Nov 20 22:28:47 n7 sshd[123]: accepted".to_owned(),
        "<38>Nov  8 02:03:04 n7 su: root failed".to_owned(),
        format!("<30>1 2026-11-20T22:28:47Z n7 nginx:1.25/web/{ID} 7 nginx:1.25/web/{ID} - hello"),
        "<165>1 2003-10-11T22:14:15.003Z h evntslog - ID47 [exampleSDID@32473 iut=\"3\" a=\"b\\\"c\"] text".to_owned(),
        "<34>1 2003-10-11T22:14:15.003-07:00 h su 8 - - text".to_owned(),
    ];
    for frame in &frames {
        let theirs =
            syslog_loose::parse_message_with_year_tz(frame, |_| 2026, Some(chrono::Utc), syslog_loose::Variant::Either);
        let settings = settings();
        let ours = parse(&Frame { bytes: frame.as_bytes(), cut: false, received: NOW }, &settings, Senders::Anybody);
        let ours = ours.record;
        let said =
            |field: Option<HeaderField<'_>>| field.map(|field| String::from_utf8_lossy(field.said()).into_owned());
        assert_eq!(Some(ours.facility), theirs.facility.map(|facility| facility as u8), "{frame}");
        assert_eq!(Some(ours.severity), theirs.severity.map(|severity| severity as u8), "{frame}");
        assert_eq!(said(ours.hostname), theirs.hostname.map(str::to_owned), "{frame}");
        let tag = ours.tag.as_deref().map(|tag| String::from_utf8_lossy(tag).into_owned());
        assert_eq!(tag.or(said(ours.app_name)), theirs.appname.map(str::to_owned), "{frame}");
        // PROCID of a container is its ID.
        let proc_id = ours.container_id().map(|id| String::from_utf8_lossy(id).into_owned());
        assert_eq!(said(ours.proc_id), proc_id.or(theirs.procid.map(|id| id.to_string())), "{frame}");
        assert_eq!(ours.message, Some(theirs.msg.as_bytes()), "{frame}");
        let stamp = theirs.timestamp.unwrap();
        if !frame.contains("Nov  8") {
            assert_eq!(chrono::DateTime::parse_from_rfc3339(&ours.stamp_text()).unwrap(), stamp, "{frame}");
        }
    }
}

#[test]
fn a_header_longer_than_any_header_is_text() {
    let texts = [
        "Nov 20 22:28:47 ".to_owned() + &"h".repeat(5000),
        "1  2003-10-11T22:14:15Z ".to_owned() + &"h ".repeat(5000),
        " ".repeat(5000) + "Nov 20 22:28:47 h su: x",
        " ".repeat(4090) + "Nov 20 22:28:47 h su: x",
    ];
    for text in texts {
        let input = format!("<38>{text}");
        let (out, _) = line_with(settings(), Frame { bytes: input.as_bytes(), cut: false, received: NOW });
        let line = Line::parse(&out, "");
        assert!(line.message.ends_with(&input.as_bytes()[100..]), "{}", String::from_utf8_lossy(&out));
    }
}

#[test]
fn knows_every_priority() {
    for pri in 0..1000 {
        let input = format!("<{pri}>x");
        let rest = if pri < 192 { "x" } else { &input };
        let read = if pri < 192 { pri } else { 13 };
        let head = format!("<{read}>1 2026-11-20T22:28:47.500000Z relay-1 - - - -");
        check(&input, Shape::Unknown, &format!("{head} {rest}"));
    }
}
