//! The room as a whole, one feature after the other: what comes in, and what line comes out.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

/// 2026-11-20T22:28:47.5Z
const NOW: UnixMicros = UnixMicros(1_795_213_727_500_000);
const ID: &str = "2a9052a5c36e";

fn settings() -> Settings {
    Settings { hostname: "relay-1".to_owned(), ..Settings::default() }
}

fn line_with(settings: Settings, frame: Frame<'_>) -> (Vec<u8>, Shape) {
    let mut out = Vec::new();
    let shape = Translator::new(Arc::new(settings)).translate(&frame, &mut out);
    (out, shape)
}

#[track_caller]
fn check_frame(settings: Settings, frame: Frame<'_>, shape: Shape, expected: &[u8]) {
    let (out, understood) = line_with(settings, frame);
    assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(expected));
    assert_eq!(out, expected);
    assert_eq!(understood, shape);
}

#[track_caller]
fn check(input: &str, shape: Shape, expected: &str) {
    let frame = Frame { bytes: input.as_bytes(), cut: false, received: NOW };
    check_frame(settings(), frame, shape, expected.as_bytes());
}

#[track_caller]
fn check_received(received: i64, offset: &str, stamp: &str, expected: &str) {
    let settings = Settings { utc_offset: offset.parse().unwrap(), ..settings() };
    let input = format!("<30>{stamp} {ID}[1]: x");
    let frame = Frame { bytes: input.as_bytes(), cut: false, received: UnixMicros(received) };
    let (out, _) = line_with(settings, frame);
    let line = Line::parse(&out, "docker@32473");
    assert_eq!(String::from_utf8_lossy(line.timestamp), expected);
}

fn unix(text: &str) -> i64 {
    chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros()
}

const SD: &str = "[docker@32473 image=\"nginx:1.25\" name=\"web\" id=\"2a9052a5c36e\"]";

#[test]
fn reads_the_shapes_of_docker() {
    let expected = |host: &str, stamp: &str| format!("<30>1 {stamp} {host} web {ID} - {SD} hello");
    let utc = "2026-11-20T22:28:47Z";
    let tag = format!("nginx:1.25/web/{ID}");
    let cases = [
        (format!("<30>Nov 20 22:28:47 {tag}[23223]: hello"), "relay-1", utc),
        (format!("<30>Nov 20 22:28:47 node-7.example.com {tag}[23223]: hello"), "node-7.example.com", utc),
        (
            format!("<30>Nov 20 17:28:47 127.0.0.1:59893 {tag}[1]: hello"),
            "127.0.0.1:59893",
            "2026-11-20T17:28:47-05:00",
        ),
        (format!("<30>Nov 21 03:58:46 @ {tag}[1]: hello"), "@", "2026-11-21T03:58:46+05:30"),
        (format!("<30>2026-11-20T22:28:47.123Z n7 {tag}[1]: hello"), "n7", "2026-11-20T22:28:47.123Z"),
        (format!("<30>1 {utc} n7 {tag} 23223 {tag} - hello"), "n7", utc),
        (format!("<30>1 {utc} - {tag} 23223 {tag} - hello"), "relay-1", utc),
        (
            format!("<30>1 2026-11-21T03:58:53.720366+05:30 n7 {tag} 1 {tag} - hello"),
            "n7",
            "2026-11-21T03:58:53.720366+05:30",
        ),
    ];
    for (input, host, stamp) in cases {
        check(&input, Shape::Docker, &expected(host, stamp));
        check(&(input + "\n"), Shape::Docker, &expected(host, stamp));
    }
}

#[test]
fn a_container_with_less_in_its_tag() {
    let utc = "2026-11-20T22:28:47Z";
    let check_with = |template: &str, tag: &str, expected: &str| {
        let settings = Settings { tag_template: template.parse().unwrap(), ..settings() };
        for input in [format!("<30>Nov 20 22:28:47 {tag}[7]: x"), format!("<30>1 {utc} - {tag} 7 {tag} - x")] {
            let frame = Frame { bytes: input.as_bytes(), cut: false, received: NOW };
            let expected = format!("<30>1 {utc} relay-1 {expected} x");
            check_frame(settings.clone(), frame, Shape::Docker, expected.as_bytes());
        }
    };
    let full = "2a9052a5c36e".repeat(5) + "0000";
    check_with("static", ID, "2a9052a5c36e 2a9052a5c36e - [docker@32473 id=\"2a9052a5c36e\"]");
    check_with("{{.FullID}}", &full, &format!("{} {full} - [docker@32473 id=\"{full}\"]", &full[..48]));
    check_with("{{.Name}}", "web", "web 7 - [docker@32473 name=\"web\"]");
    check_with("{{.ImageName}}", "a:1", "a:1 7 - [docker@32473 image=\"a:1\"]");
    check_with(
        "{{.ImageName}}/{{.ID}}",
        "a\"b\\c]/2a9052a5c36e",
        "2a9052a5c36e 2a9052a5c36e - [docker@32473 image=\"a\\\"b\\\\c\\]\" id=\"2a9052a5c36e\"]",
    );
    let long = "w".repeat(60);
    check_with("{{.Name}}", &long, &format!("{} 7 - [docker@32473 name=\"{long}\"]", &long[..48]));
}

#[test]
fn a_tag_that_is_no_container_is_kept() {
    let check_tag = |tag: &str, shape: Shape, expected: &str| {
        check(
            &format!("<30>Nov 20 22:28:47 {tag}[7]: x"),
            Shape::Rfc3164,
            &format!("<30>1 2026-11-20T22:28:47Z {expected} x"),
        );
        check(
            &format!("<30>1 2026-11-20T22:28:47Z - {tag} 7 {tag} - x"),
            shape,
            &format!("<30>1 2026-11-20T22:28:47Z {expected} x"),
        );
    };
    check_tag("static", Shape::Docker, "relay-1 static 7 - -");
    check_tag("svc:", Shape::Docker, "relay-1 svc: 7 - -");
    check_tag("/a//b/", Shape::Docker, "relay-1 /a//b/ 7 - -");
    check_tag("café", Shape::Docker, "relay-1 caf__ 7 - [docker@32473 tag=\"café\"]");
    check_tag("a\nb", Shape::Docker, "relay-1 a_b 7 - [docker@32473 tag=\"a\nb\"]");
    let long = "t".repeat(300);
    check_tag(&long, Shape::Docker, &format!("relay-1 {} 7 - [docker@32473 tag=\"{long}\"]", &long[..48]));
}

#[test]
fn finds_tags_with_blanks() {
    let check_with = |template: &str, header: &str, expected: &str| {
        let settings = Settings { tag_template: template.parse().unwrap(), ..settings() };
        let input = format!("<30>{header} hello[1]: x");
        let (out, _) = line_with(settings, Frame { bytes: input.as_bytes(), cut: false, received: NOW });
        let line = Line::parse(&out, "docker@32473");
        let text = String::from_utf8_lossy;
        assert_eq!(format!("{} {}", text(line.hostname), text(line.app_name)), expected, "{input}");
        assert_eq!(text(line.message), "hello[1]: x", "{input}");
    };
    let default = "{{.ImageName}}/{{.Name}}/{{.ID}}";
    let at = "Nov 20 22:28:47";
    for template in [default, "my app", "a[1]: b", " {{.Name}} "] {
        let utc = "1 2026-11-20T22:28:47Z n7";
        let kept = |tag: &str, else_: &str| if template == tag { "web".to_owned() } else { else_.to_owned() };
        check_with(template, &format!("{utc} my app 7 my app -"), "n7 my_app");
        check_with(template, &format!("{utc} a[1]: b 7 a[1]: b -"), "n7 a[1]:_b");
        check_with(template, &format!("{utc}  web  7  web  -"), &format!("n7 {}", kept(" {{.Name}} ", "_web_")));
        check_with(template, &format!("{at} n7 my app[7]:"), "n7 my_app");
        check_with(template, &format!("{at} n7  web [7]:"), &format!("n7 {}", kept(" {{.Name}} ", "_web_")));
        check_with(template, &format!("{at}  web [7]:"), &format!("relay-1 {}", kept(" {{.Name}} ", "_web_")));
    }
    // What only the template can tell: without it `my` is a host, as good as any.
    check_with("my app", &format!("{at} my app[7]:"), "relay-1 my_app");
    check_with("a[1]: b", &format!("{at} a[1]: b[7]:"), "relay-1 a[1]:_b");
    check_with("a[1]: b", &format!("{at} n7 a[1]: b[7]:"), "n7 a[1]:_b");
    check_with(default, &format!("{at} my app[7]:"), "my app");
}

#[test]
fn the_message_is_carried_byte_for_byte() {
    let texts: [&[u8]; 22] = [
        b" ",
        b"   indented",
        b"trailing  ",
        b"\r",
        b"a\rb\r",
        b"\x00nul\x00",
        b"\x1b[31mred\x1b[0m",
        b"caf\xe9 \xff\xfe",
        b"\xef\xbb\xbfbom",
        b"[x y=\"z\"] text",
        b"[",
        b"- dash",
        b"-",
        b"<34>Oct 11 22:14:15 x y[1]: z",
        b"<30>1 2026-11-20T22:28:47Z h a 1 a - x",
        b"57 <30>1 x",
        b": colon",
        b"a[1]: b",
        b"in\nside",
        b"\n",
        b"\\\"]",
        b"\xe2",
    ];
    let tag = format!("nginx:1.25/web/{ID}");
    let headers = [
        format!("<30>Nov 20 22:28:47 {tag}[7]: "),
        format!("<30>Nov 20 22:28:47 n7 {tag}[7]: "),
        format!("<30>1 2026-11-20T22:28:47Z n7 {tag} 7 {tag} - "),
        "<30>1 2026-11-20T22:28:47Z n7 my app 7 my app - ".to_owned(),
        "<30>1 2026-11-20T22:28:47Z n7 other 7 ID4 - ".to_owned(),
        "<30>1 2026-11-20T22:28:47Z n7 other 7 ID4 [a b=\"c\"] ".to_owned(),
        "<38>Nov 20 22:28:47 n7 sshd: ".to_owned(),
        "<38>Nov 20 22:28:47 sshd[1]: ".to_owned(),
        "<38>Nov 20 22:28:47 su: ".to_owned(),
    ];
    for header in &headers {
        for text in texts {
            let bytes = [header.as_bytes(), text, b"\n"].concat();
            let (out, _) = line_with(settings(), Frame { bytes: &bytes, cut: false, received: NOW });
            let line = Line::parse(&out, "docker@32473");
            assert_eq!(line.message, text, "{}", String::from_utf8_lossy(&bytes));
        }
    }
}

#[test]
fn an_empty_message_is_none() {
    let utc = "2026-11-20T22:28:47Z";
    check(
        &format!("<30>Nov 20 22:28:47 {ID}[7]: "),
        Shape::Docker,
        &format!("<30>1 {utc} relay-1 {ID} {ID} - [docker@32473 id=\"{ID}\"]"),
    );
    check(
        &format!("<30>Nov 20 22:28:47 {ID}[7]:"),
        Shape::Docker,
        &format!("<30>1 {utc} relay-1 {ID} {ID} - [docker@32473 id=\"{ID}\"]"),
    );
    check(
        &format!("<30>1 {utc} n7 {ID} 7 {ID} -"),
        Shape::Docker,
        &format!("<30>1 {utc} n7 {ID} {ID} - [docker@32473 id=\"{ID}\"]"),
    );
    check(
        &format!("<30>1 {utc} n7 {ID} 7 {ID} - \n"),
        Shape::Docker,
        &format!("<30>1 {utc} n7 {ID} {ID} - [docker@32473 id=\"{ID}\"]"),
    );
    check("", Shape::Unknown, "<13>1 2026-11-20T22:28:47.500000Z relay-1 - - - -");
    check("\n", Shape::Unknown, "<13>1 2026-11-20T22:28:47.500000Z relay-1 - - - -");
    check("<30>", Shape::Unknown, "<30>1 2026-11-20T22:28:47.500000Z relay-1 - - - -");
}

#[test]
fn finds_the_year_and_the_zone() {
    let now = unix("2026-11-20T22:28:47Z");
    check_received(now, "UTC", "Nov 20 22:28:47", "2026-11-20T22:28:47Z");
    check_received(now, "UTC", "Nov 20 22:28:52", "2026-11-20T22:28:52Z");
    check_received(now, "UTC", "Nov 20 22:21:30", "2026-11-20T22:21:30Z");
    check_received(now, "UTC", "Nov 20 22:21:00", "2026-11-20T22:21:00-00:15");
    check_received(now, "UTC", "Nov 20 17:28:46", "2026-11-20T17:28:46-05:00");
    check_received(now, "UTC", "Nov 21 04:13:47", "2026-11-21T04:13:47+05:45");
    check_received(now, "UTC", "Nov 21 12:28:47", "2026-11-21T12:28:47+14:00");
    check_received(now, "UTC", "Nov 20 10:28:47", "2026-11-20T10:28:47-12:00");
    // Too far off to be a zone: the configured one.
    check_received(now, "UTC", "Nov 20 09:28:47", "2026-11-20T09:28:47Z");
    check_received(now, "+05:30", "Nov  8 22:34:57", "2026-11-08T22:34:57+05:30");
    check_received(now, "-05:00", "Nov 25 01:02:03", "2026-11-25T01:02:03-05:00");
    // New Year, in both directions.
    check_received(unix("2027-01-01T03:00:00Z"), "UTC", "Dec 31 22:00:00", "2026-12-31T22:00:00-05:00");
    check_received(unix("2026-12-31T22:00:00Z"), "UTC", "Jan  1 03:30:00", "2027-01-01T03:30:00+05:30");
    check_received(unix("2027-01-01T00:00:01Z"), "UTC", "Dec 31 23:59:59", "2026-12-31T23:59:59Z");
    check_received(unix("2026-12-31T23:59:59Z"), "UTC", "Jan  1 00:00:01", "2027-01-01T00:00:01Z");
    check_received(unix("2027-01-03T00:00:00Z"), "UTC", "Dec 25 00:00:00", "2026-12-25T00:00:00Z");
    check_received(unix("2026-12-30T00:00:00Z"), "UTC", "Jan  4 00:00:00", "2027-01-04T00:00:00Z");
    // Half a year off: the zone decides which side is nearer.
    check_received(unix("2026-07-02T12:30:00Z"), "+14:00", "Jan  1 06:00:00", "2027-01-01T06:00:00+14:00");
    check_received(unix("2026-07-02T12:30:00Z"), "-12:00", "Jan  1 06:00:00", "2026-01-01T06:00:00-12:00");
    // 29 February.
    check_received(unix("2028-02-29T12:00:00Z"), "UTC", "Feb 29 12:00:00", "2028-02-29T12:00:00Z");
    check_received(unix("2028-03-01T02:00:00Z"), "UTC", "Feb 29 21:00:00", "2028-02-29T21:00:00-05:00");
    check_received(unix("2028-02-28T20:00:00Z"), "UTC", "Feb 29 01:30:00", "2028-02-29T01:30:00+05:30");
    check_received(unix("2027-03-01T00:00:00Z"), "UTC", "Feb 29 12:00:00", "2028-02-29T12:00:00Z");
    check_received(now, "UTC", "Feb 29 12:00:00", "2026-11-20T22:28:47.000000Z");
    // Dates that do not exist.
    for stamp in ["Feb 30 12:00:00", "Nov 31 12:00:00", "Nov  0 12:00:00", "Nov 20 24:00:00", "Nov 20 22:60:00"] {
        check_received(now, "UTC", stamp, "2026-11-20T22:28:47.000000Z");
    }
    // Clocks that are nowhere near.
    for received in [i64::MIN, -1, 0, i64::MAX] {
        let (out, _) = line_with(
            settings(),
            Frame { bytes: b"<30>Dec 31 23:59:59 a[1]: x", cut: false, received: UnixMicros(received) },
        );
        assert!(time::is_rfc3339(Line::parse(&out, "").timestamp, 6), "{}", String::from_utf8_lossy(&out));
    }
}

#[test]
fn a_remembered_stamp_is_not_another_one() {
    let mut translator = Translator::new(Arc::new(settings()));
    let mut check = |received: &str, stamp: &str, expected: &str| {
        let (mut out, bytes) = (Vec::new(), format!("<30>{stamp} a[1]: x"));
        translator
            .translate(&Frame { bytes: bytes.as_bytes(), cut: false, received: UnixMicros(unix(received)) }, &mut out);
        assert_eq!(String::from_utf8_lossy(Line::parse(&out, "").timestamp), expected);
    };
    for _ in 0..2 {
        check("2026-11-20T22:28:47Z", "Nov 20 22:28:47", "2026-11-20T22:28:47Z");
        check("2026-11-20T22:28:47Z", "Nov 20 17:28:47", "2026-11-20T17:28:47-05:00");
        check("2027-11-20T17:28:47Z", "Nov 20 17:28:47", "2027-11-20T17:28:47Z");
        check("2026-11-20T22:28:47.000001Z", "Feb 30 17:28:47", "2026-11-20T22:28:47.000001Z");
        check("2026-11-20T22:28:47.999999Z", "Feb 30 17:28:47", "2026-11-20T22:28:47.999999Z");
        check("2026-11-20T22:28:48.000000Z", "Feb 30 17:28:47", "2026-11-20T22:28:48.000000Z");
    }
}

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
    // Not to the letter.
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
        ("Nov 20 22:28:47 su: job[1]: x", format!("{utc} relay-1 su - - - job[1]: x")),
        ("Nov 20 22:28:47 su: no host", format!("{utc} relay-1 su - - - no host")),
        ("Nov 20 22:28:47 n7 kernel: [ 1.0] x", format!("{utc} n7 kernel - - - [ 1.0] x")),
        ("Nov 20 22:28:47 n7 app[a/1]: x", format!("{utc} n7 app a/1 - - x")),
        (" Nov 20 22:28:47 n7 su: x", format!("{utc} n7 su - - - x")),
        ("nov 20  22:28:47 n7 su: x", format!("{utc} n7 su - - - x")),
        ("Nov 20 2026 22:28:47 n7 su: x", format!("{utc} n7 su - - - x")),
        ("Nov 20 2019 22:28:47 n7 su: x", "2019-11-20T22:28:47Z n7 su - - - x".to_owned()),
        ("Nov 20 2026 22:28:47: %ASA-6-302013: Built", format!("{utc} relay-1 %ASA-6-302013 - - - Built")),
        ("Nov 20 2026 22:28:47 fw1 : %ASA-6-302013: Built", format!("{utc} fw1 - - - - %ASA-6-302013: Built")),
        ("Feb 30 22:28:47 n7 su: x", "2026-11-20T22:28:47.500000Z n7 su - - - x".to_owned()),
        ("2026-11-20T22:28:47Z n7 su: x", format!("{utc} n7 su - - - x")),
        ("2026-11-20T22:28:47.123456789+05:30 n7 su: x", "2026-11-20T22:28:47+05:30 n7 su - - - x".to_owned()),
        ("Nov 20 22:28:47 n7 sü: x", format!("{utc} n7 s__ - - [docker@32473 tag=\"sü\"] x")),
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
        "tag[1]: x",
        "1",
        "1 ",
        "1 2026",
        "Nov",
        "Nov 20",
        "Xyz 20 22:28:47 a b: c",
        "99999",
    ] {
        check(&format!("<191>{text}"), Shape::Unknown, &format!("<191>1 {head} {text}"));
    }
    check("<0>x", Shape::Unknown, &format!("<0>1 {head} x"));
}

#[test]
fn a_cut_frame_says_so() {
    let check_cut = |input: &str, expected: &str| {
        let (out, _) = line_with(settings(), Frame { bytes: input.as_bytes(), cut: true, received: NOW });
        assert_eq!(String::from_utf8_lossy(&out), expected);
    };
    let cut = "[logferry@32473 cut=\"true\"]";
    let utc = "2026-11-20T22:28:47Z";
    check_cut("x\n", &format!("<13>1 2026-11-20T22:28:47.500000Z relay-1 - - - {cut} x\n"));
    check_cut(
        &format!("<30>Nov 20 22:28:47 nginx:1.25/web/{ID}[7]: x"),
        &format!("<30>1 {utc} relay-1 web {ID} - {SD}{cut} x"),
    );
    check_cut(&format!("<30>1 {utc} h a - - - x"), &format!("<30>1 {utc} h a - - {cut} x"));
    check_cut(&format!("<30>1 {utc} h a - - [b] x"), &format!("<30>1 {utc} h a - - [b]{cut} x"));
    check_cut(&format!("<30>1 {utc} h a - - [b]{cut} x"), &format!("<30>1 {utc} h a - - [b]{cut} x"));
    check_cut(&format!("<30>1 {utc} h a - - [b c=\"x"), &format!("<30>1 {utc} h a - - [b c=\"x"));
}

#[track_caller]
fn check_render(line: &[u8], format: Format, expected: &str) {
    let mut out = Vec::new();
    render(line, format, "docker@32473", &mut out);
    assert_eq!(String::from_utf8_lossy(&out), expected);
}

#[test]
fn renders_rfc_3164() {
    let check = |line: &str, expected: &str| check_render(line.as_bytes(), Format::Rfc3164, expected);
    check(
        &format!("<30>1 2026-11-08T22:28:47.5+05:30 n7 web {ID} - {SD} hi"),
        &format!("<30>Nov  8 22:28:47 n7 web[{ID}]: hi"),
    );
    check("<0>1 2026-01-20T22:28:47Z n7 su - - - hi", "<0>Jan 20 22:28:47 n7 su: hi");
    check("<13>1 2026-12-31T22:28:47Z n7 - - - -", "<13>Dec 31 22:28:47 n7 -: ");
    check("no line", "no line");
}

#[test]
fn renders_json() {
    let check = |line: &[u8], expected: &str| check_render(line, Format::Json, expected);
    check(
        format!("<30>1 2026-11-08T22:28:47Z n7 web {ID} - {SD} say \"hi\"\x00\\").as_bytes(),
        r#"{"timestamp":"2026-11-08T22:28:47Z","host":"n7","facility":"daemon","severity":"info","app_name":"web","proc_id":"2a9052a5c36e","image_name":"nginx:1.25","container_name":"web","container_id":"2a9052a5c36e","message":"say \"hi\"\u0000\\"}"#,
    );
    check(
        br#"<191>1 2026-11-08T22:28:47Z n7 a 1 ID4 [x@1 b="1" a="\"\\\]\n" b="2" b="3"][logferry@32473 cut="true"][docker@32473 name="w" tag="t u"] x"#,
        r#"{"timestamp":"2026-11-08T22:28:47Z","host":"n7","facility":"local7","severity":"debug","app_name":"a","proc_id":"1","msg_id":"ID4","container_name":"w","structured_data":{"docker@32473":{"tag":"t u"},"logferry@32473":{"cut":"true"},"x@1":{"a":"\"\\]\\n","b":["1","2","3"]}},"message":"x"}"#,
    );
    check(
        b"<13>1 2026-11-08T22:28:47Z n7 - - - - a\\xe9 \xe9\xff",
        r#"{"timestamp":"2026-11-08T22:28:47Z","host":"n7","facility":"user","severity":"notice","message":"a\\\\xe9 \\xe9\\xff","escaped":["message"]}"#,
    );
    check(
        b"<13>1 2026-11-08T22:28:47Z n\xe9 - - - [a b=\"\xff\" c=\"\\\\\"] ",
        r#"{"timestamp":"2026-11-08T22:28:47Z","host":"n\\xe9","facility":"user","severity":"notice","structured_data":{"a":{"b":"\\xff","c":"\\\\"}},"message":"","escaped":["host","structured_data"]}"#,
    );
    check(
        b"<13>1 2026-11-08T22:28:47Z n - - - [bad sd] x",
        r#"{"timestamp":"2026-11-08T22:28:47Z","host":"n","facility":"user","severity":"notice","message":"[bad sd] x"}"#,
    );
    check(b"no line", r#"{"facility":"user","severity":"notice","message":"no line"}"#);
    check(b"", r#"{"facility":"user","severity":"notice","message":""}"#);
}

#[test]
fn settings_read_and_show() {
    for text in ["UTC", "+05:30", "-05:00", "+14:00", "-12:00", "+00:01", "-00:30"] {
        assert_eq!(text.parse::<UtcOffset>().unwrap().to_string(), text);
    }
    assert_eq!("Z".parse::<UtcOffset>().unwrap(), UtcOffset::UTC);
    assert_eq!("+00:00".parse::<UtcOffset>().unwrap(), UtcOffset::UTC);
    for text in ["", "+", "05:30", "+5:30", "+0530", "+05:60", "+14:01", "-12:01", "+ab:cd", "+05:300", "utc", "é5:30"]
    {
        assert!(text.parse::<UtcOffset>().is_err(), "{text}");
    }
    for text in ["rfc5424", "rfc3164", "json"] {
        assert_eq!(text.parse::<Format>().unwrap().to_string(), text);
    }
    assert!("JSON".parse::<Format>().is_err());
    assert!(
        is_sd_id("docker@32473") && !is_sd_id("") && !is_sd_id("a b") && !is_sd_id("a]") && !is_sd_id(&"a".repeat(33))
    );
}

/// Where `syslog_loose` is known to be right, we say the same.
#[test]
fn agrees_with_syslog_loose() {
    let frames = [
        format!("<30>Nov 20 22:28:47 n7 {ID}[7]: hello"),
        "<38>Nov 20 22:28:47 n7 sshd[123]: accepted".to_owned(),
        "<38>Nov  8 02:03:04 n7 su: root failed".to_owned(),
        "<0>Nov 20 22:28:47 n7 app text".to_owned(),
        format!("<30>1 2026-11-20T22:28:47Z n7 nginx:1.25/web/{ID} 7 nginx:1.25/web/{ID} - hello"),
        "<165>1 2003-10-11T22:14:15.003Z h evntslog - ID47 [exampleSDID@32473 iut=\"3\" a=\"b\\\"c\"] text".to_owned(),
        "<34>1 2003-10-11T22:14:15.003-07:00 h su 8 - - text".to_owned(),
    ];
    for frame in &frames {
        let theirs =
            syslog_loose::parse_message_with_year_tz(frame, |_| 2026, Some(chrono::Utc), syslog_loose::Variant::Either);
        let ours = parse(&Frame { bytes: frame.as_bytes(), cut: false, received: NOW }, &settings());
        assert_eq!(Some(ours.facility), theirs.facility.map(|facility| facility as u8), "{frame}");
        assert_eq!(Some(ours.severity), theirs.severity.map(|severity| severity as u8), "{frame}");
        assert_eq!(ours.hostname, theirs.hostname.map(str::as_bytes), "{frame}");
        assert_eq!(ours.tag, theirs.appname.map(str::as_bytes), "{frame}");
        assert_eq!(ours.proc_id.map(String::from_utf8_lossy), theirs.procid.map(|id| id.to_string().into()), "{frame}");
        assert_eq!(ours.message, Some(theirs.msg.as_bytes()), "{frame}");
        let (mut out, stamp) = (Vec::new(), theirs.timestamp.unwrap());
        Clock::default().write(&ours.timestamp, &mut out);
        if !frame.contains("Nov  8") {
            assert_eq!(
                chrono::DateTime::parse_from_rfc3339(std::str::from_utf8(&out).unwrap()).unwrap(),
                stamp,
                "{frame}"
            );
        }
    }
}

/// Headers and bits of headers, so that chance gets past the first bytes.
fn likely_frame() -> impl Strategy<Value = Vec<u8>> {
    let bits: Vec<&'static [u8]> = vec![
        b"<30>",
        b"<191>",
        b"<",
        b">",
        b"1 ",
        b"2026-11-20T22:28:47Z",
        b"2026-11-20T22:28:47.123456789+05:30",
        b" ",
        b"  ",
        b"Nov 20 22:28:47 ",
        b"Nov  8 2026 1:2:3",
        b"Feb 30 22:28:47 ",
        b"host ",
        b"nginx:1.25/web/2a9052a5c36e",
        b"[7]: ",
        b"[",
        b"]",
        b": ",
        b":",
        b"-",
        b"- ",
        b" - ",
        b"web",
        b" 7 ",
        b"[a b=\"c\"]",
        b"[a b=\"",
        b"\\",
        b"\"",
        b"=",
        b"\n",
        b"\0",
        b"\xff",
        b"\xc3\xa9",
        b"\t",
        b"[docker@32473 name=\"",
        b"[logferry@32473 cut=\"true\"]",
    ];
    let bit = prop_oneof![
        8 => proptest::sample::select(bits).prop_map(<[u8]>::to_vec),
        1 => proptest::collection::vec(any::<u8>(), 0..8),
    ];
    proptest::collection::vec(bit, 0..14).prop_map(|bits| bits.concat())
}

fn check_any(bytes: &[u8], cut: bool, received: i64, template: &str) {
    let settings = Settings { tag_template: template.parse().unwrap(), ..settings() };
    let frame = Frame { bytes, cut, received: UnixMicros(received) };
    let message = parse(&frame, &settings);
    let (out, shape) = line_with(settings.clone(), frame);
    assert_eq!(shape, message.shape);
    let line = Line::parse(&out, &settings.sd_id);
    assert_eq!(line.message, message.message.unwrap_or_default());
    assert_ne!(line.timestamp, b"-");
    if message.shape != Shape::Rfc5424 {
        assert_eq!(line.container_name.as_deref(), message.container.name);
        assert_eq!(line.container_id.as_deref(), message.container.id);
        assert_eq!(line.image_name.as_deref(), message.container.image);
    }
    // What one relay made, the next one does not change. (A LF at the end would be taken for the next one's framing.)
    if out.last() != Some(&b'\n') {
        let again = Frame { bytes: &out, cut: false, received: UnixMicros(received) };
        assert_eq!(line_with(settings.clone(), again).0, out, "{}", String::from_utf8_lossy(&out));
    }
    for line in [&out[..], bytes] {
        let mut json = Vec::new();
        render(line, Format::Json, &settings.sd_id, &mut json);
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert!(json["message"].is_string());
        if let Ok(text) = std::str::from_utf8(Line::parse(line, &settings.sd_id).message) {
            assert_eq!(json["message"], text);
        }
        render(line, Format::Rfc3164, &settings.sd_id, &mut Vec::new());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_carried(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut: bool, received: i64) {
        check_any(&bytes, cut, received, "{{.ImageName}}/{{.Name}}/{{.ID}}");
    }

    #[test]
    fn likely_bytes_are_carried(bytes in likely_frame(), cut: bool, template in 0usize..3) {
        let template = ["{{.ImageName}}/{{.Name}}/{{.ID}}", "my {{.Command}} {{.Name}}", "{{.Name}}"][template];
        check_any(&bytes, cut, NOW.0, template);
    }
}
