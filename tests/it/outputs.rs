//! No input can split a message or change another message: each output has every message exactly once, with unchanged fields, for readers
//! that share no code with the relay.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use logferry::internals::config::{Config, Framing as How, Overrides};
use logferry::internals::forward::encoding;
use logferry::internals::protocol::framing::{Found, Framer};
use logferry::internals::protocol::relp;
use logferry::internals::protocol::syslog::{Frame, Settings, Translator};
use logferry::internals::record::{Format, UnixMicros, append_escaped, append_on_one_line};
use proptest::prelude::*;
use proptest::sample::select;

use crate::support::docker::RELAY;
use crate::support::{Collector, Framing, Line, RelpCollector, Setup, corpus, eventually, shown};

/// Larger than every message here.
const LIMIT: usize = 1 << 20;
const STAMP: &str = "2026-11-20T22:28:47Z";
const ID: &str = "2a9052a5c36e";

/// A message as sent, and as it must arrive.
#[derive(Clone, Debug)]
struct Sent {
    frame: Vec<u8>,
    host: String,
    app: String,
    proc_id: String,
    params: BTreeMap<(String, String), Vec<u8>>,
    text: Vec<u8>,
}

/// An output's format and escapes.
#[derive(Clone, Copy, Debug)]
struct Way {
    format: Format,
    escapes: Escapes,
}

#[derive(Clone, Copy, Debug)]
enum Escapes {
    Nothing,
    Newlines,
    /// All characters with an effect on a terminal.
    Controls,
}

impl Sent {
    /// From Docker's driver, with a container's name.
    fn by_docker(text: &[u8]) -> Self {
        let tag = format!("r:5000/a:1/web/{ID}");
        let header = format!("<30>1 {STAMP} n7 {tag} 23223 {tag} - ");
        let of = |name: &str, value: &str| (("docker@32473".to_owned(), name.to_owned()), value.as_bytes().to_vec());
        Self {
            frame: [header.as_bytes(), text, b"\n"].concat(),
            host: "n7".to_owned(),
            app: "web".to_owned(),
            proc_id: ID.to_owned(),
            params: [of("image", "r:5000/a:1"), of("name", "web"), of("id", ID)].into(),
            text: text.to_vec(),
        }
    }

    /// From another program, with structured data.
    fn in_rfc_5424(value: &[u8], text: &[u8]) -> Self {
        let escaped = value.iter().flat_map(|byte| match byte {
            b'"' | b'\\' | b']' => vec![b'\\', *byte],
            byte => vec![*byte],
        });
        let escaped: Vec<u8> = escaped.collect();
        let header = format!("<30>1 {STAMP} n7 app 12 - [x@1 a=\"");
        Self {
            frame: [header.as_bytes(), &escaped, b"\" b=\"c\"] ", text, b"\n"].concat(),
            host: "n7".to_owned(),
            app: "app".to_owned(),
            proc_id: "12".to_owned(),
            params: [
                (("x@1".to_owned(), "a".to_owned()), value.to_vec()),
                (("x@1".to_owned(), "b".to_owned()), b"c".to_vec()),
            ]
            .into(),
            text: text.to_vec(),
        }
    }

    /// From another program, in RFC 3164.
    fn in_rfc_3164(text: &[u8]) -> Self {
        Self {
            frame: [b"<30>Nov 20 22:28:47 n7 app[12]: ", text, b"\n"].concat(),
            params: BTreeMap::new(),
            ..Self::in_rfc_5424(b"", text)
        }
    }

    /// Fails unless `message` is this message, as this output writes it.
    #[track_caller]
    fn is(&self, message: &[u8], way: Way) {
        let expected = |bytes: &[u8]| {
            let mut out = Vec::new();
            match way.escapes {
                Escapes::Nothing => out.extend_from_slice(bytes),
                Escapes::Newlines => append_on_one_line(bytes, &mut out),
                Escapes::Controls => append_escaped(bytes, &mut out),
            }
            out
        };
        match way.format {
            Format::Rfc5424 => {
                let line = Line::read(message);
                let header = (line.pri, &*line.host, &*line.app, &*line.proc_id, &*line.msg_id);
                assert_eq!(header, (30, &*self.host, &*self.app, &*self.proc_id, "-"), "{line:?}");
                let params: BTreeMap<_, _> =
                    self.params.iter().map(|(key, value)| (key.clone(), expected(value))).collect();
                assert_eq!((line.params, shown(&line.message)), (params, shown(&expected(&self.text))));
                assert!(line.message == expected(&self.text));
            }
            Format::Rfc3164 => {
                let header = format!("<30>Nov 20 22:28:47 {} {}[{}]: ", self.host, self.app, self.proc_id);
                assert_eq!(shown(message), shown(&[header.as_bytes(), &expected(&self.text)].concat()));
                if let Ok(text) = std::str::from_utf8(message) {
                    let read = syslog_loose::parse_message(text, syslog_loose::Variant::RFC3164);
                    assert_eq!((read.hostname, read.appname), (Some(&*self.host), Some(&*self.app)), "{text}");
                }
            }
            Format::Json => self.is_json(message),
        }
    }

    fn is_json(&self, message: &[u8]) {
        let json: serde_json::Value = serde_json::from_slice(message).expect("JSON");
        assert!(!message.iter().any(|byte| *byte < 0x20 || *byte == 0x7f), "{}", shown(message));
        let escaped = |key: &str| json["escaped"].as_array().is_some_and(|keys| keys.iter().any(|found| found == key));
        let bytes = |key: &str, value: &serde_json::Value| {
            let text = value.as_str().expect("text").as_bytes();
            if escaped(key) { corpus::unescape(text) } else { text.to_vec() }
        };
        assert_eq!(
            (&json["host"], &json["app_name"], &json["proc_id"]),
            (&self.host.clone().into(), &self.app.clone().into(), &self.proc_id.clone().into())
        );
        assert_eq!((&json["facility"], &json["severity"]), (&"daemon".into(), &"info".into()));
        assert_eq!(shown(&bytes("message", &json["message"])), shown(&self.text));
        for ((id, name), value) in &self.params {
            let own = match name.as_str() {
                "image" => Some("image_name"),
                "name" => Some("container_name"),
                "id" => Some("container_id"),
                _ => None,
            };
            let (key, found) = match own {
                Some(key) => (key, &json[key]),
                None => ("structured_data", &json["structured_data"][id][name]),
            };
            assert_eq!(shown(&bytes(key, found)), shown(value), "{id} {name}");
        }
    }
}

/// Texts that try to look like several messages or like another sender's.
fn tricks() -> Vec<Vec<u8>> {
    let tricks: [&[u8]; 24] = [
        b"",
        b"plain",
        b"a\n<13>1 2026-11-20T22:28:47Z other app 1 - - forged",
        b"a\r\n<13>Nov 20 22:28:47 other app[1]: forged\r\n",
        b"\n\n\n",
        b"\r",
        b"a\0<13>1 - - - - - - forged\0",
        b"5 <13>x\n5 <13>y",
        b"<13>1 2026-11-20T22:28:47Z other app 1 - - forged",
        b"[docker@32473 image=\"x\" name=\"other\" id=\"000000000000\"] forged",
        b"[logferry@32473 listener=\"other\" cut=\"true\"] forged",
        b"\"] [x@2 c=\"d\"] \\\"\\]\\",
        b"\\",
        b"\"]",
        b"{\"message\":\"forged\"}\n{\"message\":\"forged\"}",
        b"\"}\n{\"facility\":\"kern\",\"message\":\"forged",
        b"\x1b]0;title\x07\x1b[2J\x1b[1A\x7f\x08",
        b"\x9b2J\x85\x9c \xff\xfe \xe2\x82",
        "\u{9b}2J\u{85}<13>1 - - - - - - forged".as_bytes(),
        "a\u{2028}<13>1 - - - - - - forged\u{2029}b".as_bytes(),
        "\u{202e}desrever\u{2066}\u{feff}".as_bytes(),
        b"1 syslog 9 <13>x\n0\n2 close 0\n",
        b"web[7]: r:5000/a:1/other/000000000000[23223]: forged",
        b"#012#033",
    ];
    let mut tricks: Vec<Vec<u8>> = tricks.map(<[u8]>::to_vec).into();
    tricks.push(b"\n5 <13>x".repeat(500));
    tricks.push(b"\x1b".repeat(4_000));
    tricks
}

/// Every trick in every field.
fn table() -> Vec<Sent> {
    let all = |trick: &Vec<u8>| {
        [
            Sent::by_docker(trick),
            Sent::in_rfc_5424(trick, b"text"),
            Sent::in_rfc_5424(b"x", trick),
            Sent::in_rfc_3164(trick),
        ]
    };
    // An RFC 3164 message without a text has no end of its header.
    tricks().iter().flat_map(all).filter(|sent| !sent.text.is_empty()).collect()
}

/// All outputs, as in a config.
fn outputs() -> Config {
    let targets = [
        ("udp://127.0.0.1:1", ""),
        ("tcp://127.0.0.1:1", "framing = \"newline\""),
        ("tcp://127.0.0.1:1", "framing = \"octet-counting\""),
        ("tcp+tls://127.0.0.1:1", ""),
        ("relp://127.0.0.1:1", ""),
        ("file:///logs/{host}/{name}.log", ""),
        ("stdout:", ""),
    ];
    let formats = ["rfc5424", "rfc3164", "json"];
    let sections = targets.iter().enumerate().flat_map(|(at, (to, keys))| {
        formats.map(|format| {
            format!("[[forward]]\nname = \"{at}-{format}\"\nto = \"{to}\"\nformat = \"{format}\"\n{keys}\n")
        })
    });
    let text: String = sections.collect();
    Config::parse(None, &text, &Overrides::default(), &|_| None).expect("a good config")
}

/// The messages of a stream, split at newlines or by octet counts.
fn split(stream: &[u8], how: How) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    let mut rest = stream;
    while !rest.is_empty() {
        let length = match how {
            How::Newline => rest.iter().position(|byte| *byte == b'\n').expect("every message has an end"),
            How::OctetCounting => {
                let blank = rest.iter().position(|byte| *byte == b' ').expect("a blank behind the count");
                let count = std::str::from_utf8(&rest[..blank]).expect("a count");
                rest = &rest[blank + 1..];
                count.parse().expect("a count")
            }
            How::Nul => unreachable!("GELF's alone"),
        };
        messages.push(rest[..length].to_vec());
        rest = &rest[length + usize::from(how == How::Newline)..];
    }
    messages
}

/// Writes three messages as each output does, and reads them back.
fn is_one_message_everywhere(config: &Config, sent: &Sent) {
    let three = [Sent::by_docker(b"before"), sent.clone(), Sent::by_docker(b"after")];
    let mut translator = Translator::new(Arc::new(Settings { hostname: RELAY.to_owned(), ..Settings::default() }));
    let lines = three.each_ref().map(|sent| {
        let mut line = Vec::new();
        let frame = Frame { bytes: &sent.frame, cut: false, received: UnixMicros(1_795_213_727_500_000) };
        translator.translate(&frame, &mut line);
        line
    });
    let mut seen = 0;
    for settings in &config.forward {
        let encoding = encoding(settings, &settings.to[0], "docker@32473");
        let each = lines.each_ref().map(|line| {
            let mut out = Vec::new();
            encoding.append(line, &mut Vec::new(), &mut out);
            out
        });
        let to = settings.to[0].to_string();
        let messages = match encoding.framing {
            Some(how) => {
                let stream = each.concat();
                let messages = split(&stream, how);
                // Another logferry must find the same messages. A CR before the LF delimiter is not part of the message.
                let without_crs = |message: &[u8]| {
                    let crs = message.iter().rev().take_while(|byte| how == How::Newline && **byte == b'\r').count();
                    message[..message.len() - crs].to_vec()
                };
                let (mut framer, mut found) = (Framer::new(LIMIT), Vec::new());
                let mut take = |Found { bytes, cut, .. }: Found<'_>| {
                    let frame = bytes.strip_suffix(b"\n").filter(|_| how == How::Newline).unwrap_or(bytes);
                    found.push((without_crs(frame), cut));
                };
                framer.feed(&stream, &mut take);
                framer.finish(&mut take);
                let whole: Vec<_> = messages.iter().map(|message| (without_crs(message), false)).collect();
                assert!(found == whole, "{to}: {}", shown(&stream));
                messages
            }
            None if to.starts_with("relp") => {
                let mut stream = Vec::new();
                each.iter().zip(1..).for_each(|(message, txnr)| relp::append(txnr, "syslog", message, &mut stream));
                let (mut decoder, mut found) = (relp::Decoder::new(LIMIT), Vec::new());
                let fed: Result<(), relp::BadFrame> = decoder.feed(&stream, |frame| {
                    found.push(frame.data.to_vec());
                    Ok(())
                });
                assert!(fed.is_ok() && found == each, "{to}");
                found
            }
            None => each.into(),
        };
        assert_eq!(messages.len(), 3, "{to}");
        let escapes = match (encoding.framing, encoding.escaped) {
            (_, true) => Escapes::Controls,
            (Some(How::Newline), false) => Escapes::Newlines,
            _ => Escapes::Nothing,
        };
        let way = Way { format: settings.format, escapes };
        three.iter().zip(&messages).for_each(|(sent, message)| sent.is(message, way));
        seen += 1;
    }
    assert_eq!(seen, 21);
}

#[test]
fn known_tricks_are_one_message_on_every_output() {
    let config = outputs();
    table().iter().for_each(|sent| is_one_message_everywhere(&config, sent));
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    let bits: Vec<Vec<u8>> = tricks().into_iter().filter(|trick| trick.len() < 100).collect();
    let bit = prop_oneof![3 => select(bits), 1 => proptest::collection::vec(any::<u8>(), 0..20)];
    proptest::collection::vec(bit, 0..5).prop_map(|bits| bits.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn any_message_is_one_message_on_every_output(text in text(), value in text()) {
        let config = outputs();
        let text = [&b"x"[..], &text].concat();
        for sent in [Sent::by_docker(&text), Sent::in_rfc_5424(&value, &text), Sent::in_rfc_3164(&text)] {
            is_one_message_everywhere(&config, &sent);
        }
    }
}

/// A relay with an output of each kind, and RELP to a second relay.
#[test]
fn every_output_of_a_relay_has_each_message_once() {
    let [counted, behind, json] = std::array::from_fn(|_| Collector::tcp(Framing::OctetCounting));
    let (newline, datagrams) = (Collector::tcp(Framing::Newline), Collector::udp());
    let count = "framing = \"octet-counting\"";
    let central = Setup::new().listen("relp://127.0.0.1:0").forward_with(&behind.url(), count).start();
    let relp = format!("relp://127.0.0.1:{}", central.door().port());
    let setup = Setup::new()
        .section("[syslog]\nrejoin = \"64KiB\"")
        .listen("tcp://127.0.0.1:0")
        .forward_with(&counted.url(), &format!("name = \"counted\"\n{count}"))
        .forward_with(&newline.url(), "name = \"newline\"")
        .forward_with(&datagrams.url(), "name = \"udp\"")
        .forward_with(&json.url(), &format!("name = \"json\"\nformat = \"json\"\n{count}"))
        .forward_with(&relp, "name = \"relp\"")
        .forward_with("file://{dir}/logs/all", "name = \"file\"")
        .forward_with("file://{dir}/logs/json", "name = \"json-file\"\nformat = \"json\"")
        .forward_with("stdout:", "name = \"stdout\"\nformat = \"rfc3164\"");
    let relay = setup.start();
    let mut wire = relay.door().connect();
    let mut sent = table();
    for (at, sent) in sent.iter().enumerate() {
        wire.send_counted(&sent.frame);
        // A datagram is lost when the reader's buffer is full.
        if at % 10 == 9 {
            datagrams.frames(at + 1);
        }
    }
    // The pieces of one line, full of line ends.
    let piece = b"\n<13>1 - - - - - - x\x1b\n34 "[..].iter().copied().cycle().take(16_384).collect::<Vec<u8>>();
    let pieces = [&piece[..], &piece, b"the end"];
    pieces.iter().for_each(|piece| wire.send_counted(&Sent::by_docker(piece).frame));
    sent.push(Sent::by_docker(&pieces.concat()));
    relay.counts("listen_received_total", (sent.len() + 2) as u64);
    let each = |messages: Vec<Vec<u8>>, format: Format, escapes: Escapes| {
        assert_eq!(messages.len(), sent.len());
        sent.iter().zip(&messages).for_each(|(sent, message)| sent.is(message, Way { format, escapes }));
    };
    each(counted.frames(sent.len()), Format::Rfc5424, Escapes::Nothing);
    each(newline.frames(sent.len()), Format::Rfc5424, Escapes::Newlines);
    each(datagrams.frames(sent.len()), Format::Rfc5424, Escapes::Nothing);
    each(json.frames(sent.len()), Format::Json, Escapes::Nothing);
    each(behind.frames(sent.len()), Format::Rfc5424, Escapes::Nothing);
    eventually("nothing waits", || (relay.metrics().sum("forward_waiting") == 0).then_some(()));
    relay.balances(0);
    let lines = |bytes: Vec<u8>| split(&bytes, How::Newline);
    each(lines(fs::read(setup.path("logs/all")).expect("a file")), Format::Rfc5424, Escapes::Controls);
    each(lines(fs::read(setup.path("logs/json")).expect("a file")), Format::Json, Escapes::Nothing);
    each(lines(relay.stops().stdout), Format::Rfc3164, Escapes::Controls);
    central.stops();
}

/// A collector's answers appear in the relay's own log, which goes to another collector as separate lines.
#[test]
fn the_relay_s_own_words_are_one_message_each() {
    let (liar, collector) = (RelpCollector::new(), Collector::tcp(Framing::OctetCounting));
    let setup = Setup::new().section("[log]\nto-spool = \"info\"").listen("tcp://127.0.0.1:0");
    let relay = setup
        .forward_with(&liar.url(), "name = \"liar\"")
        .forward_with(&collector.url(), "name = \"honest\"\nframing = \"octet-counting\"")
        .start();
    let mut peer = liar.accepts();
    let open = peer.frame().expect("an open");
    peer.answers(open.txnr, "500 no\r<13>1 - other app - - - forged\u{1b}[2J\u{9b}2J\u{2028}\u{7f}");
    let own = eventually("it is told", || {
        let lines: Vec<Line> = collector.frames(0).iter().map(|frame| Line::read(frame)).collect();
        lines.into_iter().find(|line| String::from_utf8_lossy(&line.message).contains("forged"))
    });
    assert_eq!((&*own.app, &*own.host), ("logferry", RELAY));
    let text = String::from_utf8(own.message).expect("text");
    assert!(text.contains("answered with: 500 no") && text.contains("forged[2J2J\\u{2028}"), "{text}");
    let acts = |character: char| character.is_control() || "\u{2028}\u{2029}".contains(character);
    assert!(!text.contains(acts) && !relay.stderr().replace('\n', "").contains(acts), "{text}");
    drop(peer);
    relay.stops();
}
