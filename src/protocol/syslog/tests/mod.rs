//! Tests of the whole module, feature by feature: a frame comes in, a line comes out.
//!
//! This file has Docker's messages. `forged`: text that imitates structure on a listener for Docker only. `others`: messages of all other
//! senders. `words`: where their host and tag end. `stamps`: times. `peers`: senders' addresses. `render`: the output formats. `any`:
//! property tests.

mod any;
mod forged;
mod others;
mod peers;
mod render;
mod stamps;
mod words;

use std::sync::Arc;

use super::*;
use crate::record::{Format, UtcOffset, is_sd_id, render, structured_data, time};

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

/// The parts of a line as written.
struct Line<'a> {
    record: Record<'a>,
    timestamp: String,
    hostname: Cow<'a, [u8]>,
    app_name: Cow<'a, [u8]>,
    message: &'a [u8],
}

impl<'a> Line<'a> {
    fn parse(line: &'a [u8], sd_id: &str) -> Self {
        let record = Record::from_line(line, sd_id);
        let (hostname, app_name) = (HeaderField::or_nil(record.hostname), HeaderField::or_nil(record.app_name));
        let message = record.message.unwrap_or_default();
        Self { timestamp: record.stamp_text(), hostname, app_name, message, record }
    }
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

const SD: &str = "[docker@32473 image=\"nginx:1.25\" name=\"web\" id=\"2a9052a5c36e\"]";

/// Otherwise the next relay would find the signature in the line, and change the line.
#[test]
fn docker_s_signature_counts_whatever_the_stamp_is() {
    let tag = format!("nginx:1.25/web/{ID}");
    let expected = format!("<30>1 2026-11-20T22:28:47.500000Z n7 web {ID} - {SD} hello");
    check(&format!("<30>1 - n7 {tag} 23223 {tag} - hello"), Shape::Docker, &expected);
    let ten_digits = format!("<30>1 2026-11-20T22:28:47.0123456789Z n7 {tag} 23223 {tag} - hello");
    check(&ten_digits, Shape::Docker, &expected.replace(".500000", ".012345"));
    let utc = "2026-11-20T22:28:47Z";
    let expected = format!("<30>1 {utc} n7 web {ID} - {SD}");
    check(&format!("<30>1 {utc}  n7  {tag} 23223  {tag} - "), Shape::Docker, &expected);
    // No signature: the process is no number, or the tags differ.
    check(
        &format!("<30>1 - n7 {tag} x {tag} - hello"),
        Shape::Rfc5424,
        &format!("<30>1 2026-11-20T22:28:47.500000Z n7 {tag} x {tag} - hello"),
    );
    check("<30>1 - n7 a 1 b - hello", Shape::Rfc5424, "<30>1 2026-11-20T22:28:47.500000Z n7 a 1 b - hello");
}

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
        let settings = Settings { tag_templates: template.parse().unwrap(), ..settings() };
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
    // A tag that is no container's is kept as a param of `logferry@`, not `docker@`.
    let others = |expected: &str| expected.replace("docker@", "logferry@");
    let check_tag = |tag: &str, shape: Shape, expected: &str| {
        check(
            &format!("<30>Nov 20 22:28:47 {tag}[7]: x"),
            Shape::Rfc3164,
            &format!("<30>1 2026-11-20T22:28:47Z {} x", others(expected)),
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
        let settings = Settings { tag_templates: template.parse().unwrap(), ..settings() };
        let input = format!("<30>{header} hello[1]: x");
        let (out, _) = line_with(settings, Frame { bytes: input.as_bytes(), cut: false, received: NOW });
        let line = Line::parse(&out, "docker@32473");
        let text = String::from_utf8_lossy;
        assert_eq!(format!("{} {}", text(&line.hostname), text(&line.app_name)), expected, "{input}");
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
        check_with(template, &format!("{at} n7  web [7]:"), "n7 web");
        check_with(template, &format!("{at}  web [7]:"), &format!("relay-1 {}", kept(" {{.Name}} ", "_web_")));
    }
    // Only the template can tell: without it `my` is a valid host.
    check_with("my app", &format!("{at} my app[7]:"), "relay-1 my_app");
    check_with("a[1]: b", &format!("{at} a[1]: b[7]:"), "relay-1 a[1]:_b");
    check_with("a[1]: b", &format!("{at} n7 a[1]: b[7]:"), "n7 a[1]:_b");
    check_with(default, &format!("{at} my app[7]:"), "my app");
    // A command may be any words, so a split without a host is as likely as one with a host. Docker's default format has no host.
    check_with("{{.Command}} {{.Name}}", &format!("{at} sh -c web[7]:"), "relay-1 web");
}

#[test]
fn a_container_cannot_print_a_tag() {
    let check_with = |template: &str, text: &str, app_name: &str, expected: &str| {
        let settings = Settings { tag_templates: template.parse().unwrap(), ..settings() };
        let input = format!("<30>Nov 20 22:28:47 {text}");
        let (out, _) = line_with(settings, Frame { bytes: input.as_bytes(), cut: false, received: NOW });
        let line = Line::parse(&out, "docker@32473");
        assert_eq!(String::from_utf8_lossy(line.message), expected, "{input}");
        assert_eq!(String::from_utf8_lossy(&line.app_name), app_name, "{input}");
    };
    for template in ["{{.ImageName}}/{{.Name}}/{{.ID}}", "my app {{.Name}}", "{{.Command}} {{.Name}}"] {
        check_with(template, "static[7]: my app web[8]: x", "static", "my app web[8]: x");
        check_with(template, "static[7]: a/web/2a9052a5c36e[8]: x", "static", "a/web/2a9052a5c36e[8]: x");
    }
    check_with("my app {{.Name}}", "n7 static[7]: my app web[8]: x", "static", "my app web[8]: x");
    check_with("my app {{.Name}}", "n7 my app web[7]: my app evil[8]: x", "web", "my app evil[8]: x");
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
    // Params of earlier relays stay.
    let theirs = "[logferry@32473 listener=\"dmz\"]";
    let both = "[logferry@32473 listener=\"dmz\" cut=\"true\"]";
    check_cut(&format!("<30>1 {utc} h a - - {theirs}[b] x"), &format!("<30>1 {utc} h a - - [b]{both} x"));
    check_cut(&format!("<30>1 {utc} h a - - [b c=\"x"), &format!("<30>1 {utc} h a - - [b c=\"x"));
}

/// A cached header has the fields too.
#[test]
fn fields_of_a_listener_are_on_each_line() {
    let field = |name: &str, value: &str| crate::record::template::AddedField::new(name, value).expect("a field");
    let fields = vec![field("env", "prod"), field("tag", "{image.tag}"), field("none", "{label.a}")];
    let mut translator = Translator::new(Arc::new(settings()));
    translator.listen_to(Listening { fields, ..Listening::default() });
    for text in ["a", "b"] {
        let frame = format!("<30>Nov 20 22:28:47 nginx:1.25/web/{ID}[7]: {text}");
        let frame = Frame { bytes: frame.as_bytes(), cut: false, received: NOW };
        assert_eq!(translator.find(&frame).is_some(), text == "b");
        let mut line = Vec::new();
        translator.translate(&frame, &mut line);
        let expected = format!("relay-1 web {ID} - {SD}[fields@32473 env=\"prod\" tag=\"1.25\"] {text}");
        let line = String::from_utf8_lossy(&line).into_owned();
        assert!(line.ends_with(&expected), "{line}");
    }
}
