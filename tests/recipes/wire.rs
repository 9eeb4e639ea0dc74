//! Pages whose programs are not available: the frames that a program would get with the page's config, and two of the
//! parsers.

use crate::pages::{Block, Verb, blocks, ours, target, text};
use crate::said::{Said, messages};
use crate::support::{Collector, Framing, Setup};

/// The frames that an unavailable program would get: a relay with the page's config sends them to a collector that
/// records them.
struct Wired {
    frames: Vec<Vec<u8>>,
    all: Vec<Said>,
}

impl Wired {
    #[track_caller]
    fn of(recipe: &str, blocks: &[Block]) -> Self {
        let toml = text(blocks, recipe, Verb::Check, "toml");
        let (scheme, _) = target(&toml);
        let framing = match (scheme, toml.contains("framing = \"newline\"")) {
            (_, true) => Framing::Newline,
            ("tcp+tls", false) => Framing::OctetCounting,
            (other, false) => panic!("{recipe}: what does {other} do by default?"),
        };
        let collector = Collector::tls(framing, toml.contains("key = "));
        let relay = Setup::new().listen("tcp://127.0.0.1:0").section(&ours(&toml, collector.port())).start();
        let (all, mut wire) = (messages(), relay.door().connect());
        all.iter().for_each(|said| wire.send_counted(&said.sent));
        let frames = collector.frames(all.len());
        assert_eq!(frames.len(), all.len(), "{recipe}");
        relay.has_delivered(all.len(), 0);
        relay.stops();
        Self { frames, all }
    }
}

#[test]
fn programs_that_are_not_here_are_sent_what_the_pages_say() {
    let blocks = blocks();
    let pages: Vec<_> = blocks.iter().filter(|block| block.verb == Verb::Wire).collect();
    assert!(pages.len() >= 10, "only {} lines on the wire", pages.len());
    for page in pages {
        let wired = Wired::of(&page.name, &blocks);
        assert_eq!(page.text.trim_end(), String::from_utf8_lossy(&wired.frames[0]), "{}", page.at);
    }
}

/// Vector uses this crate to parse. Its source trims a line first.
#[test]
fn vectors_parser_reads_all_fields() {
    let Wired { frames, all } = Wired::of("vector-syslog", &blocks());
    for (frame, said) in frames.iter().zip(&all) {
        let line = String::from_utf8_lossy(frame);
        let year = |_| panic!("no year in {line}");
        let read = syslog_loose::parse_message_with_year_exact(line.trim(), year, syslog_loose::Variant::Either)
            .unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(read.structured_data.len(), 1, "{line}");
        let element = &read.structured_data[0];
        let params: Vec<(String, String)> =
            element.params().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let of_ours = [("image", &said.image), ("name", &said.name), ("id", &said.id)];
        assert_eq!(element.id, "docker@32473");
        assert_eq!(params, of_ours.map(|(name, value)| (name.to_owned(), value.clone())), "{line}");
        assert_eq!(read.hostname, Some(&*said.host));
        assert_eq!(read.severity.map(|severity| severity.as_str()), Some(said.severity));
        // The page says that Vector trims the message.
        assert_eq!(read.msg, String::from_utf8_lossy(&said.message).trim(), "{line}");
    }
}

/// The page's parser, in another regex engine than Fluent Bit's, and Fluent Bit's stock parser, which the page warns
/// about.
#[test]
fn fluent_bits_parser_reads_all_fields() {
    let blocks = blocks();
    let parser = text(&blocks, "fluent-bit-parser", Verb::NotRun, "ini");
    let pattern = parser.lines().find_map(|line| line.trim().strip_prefix("Regex")).expect("a regex").trim();
    let ours = regex_lite::Regex::new(pattern).expect("a regex");
    let stock = r"^<(?<pri>[0-9]{1,5})>1 (?<time>[^ ]+) (?<host>[^ ]+) (?<ident>[^ ]+) (?<pid>[-0-9]+) (?<msgid>[^ ]+) (?<extradata>(\[(.*)\]|-)) (?<message>.+)$";
    let stock = regex_lite::Regex::new(stock).expect("a regex");

    let Wired { frames, all } = Wired::of("fluent-bit-syslog", &blocks);
    let mut read = 0;
    for (frame, said) in frames.iter().zip(&all) {
        let Ok(line) = std::str::from_utf8(frame) else { continue };
        read += 1;
        let found = ours.captures(line).unwrap_or_else(|| panic!("no match: {line}"));
        let field = |name: &str| found.name(name).map_or("", |field| field.as_str());
        let plain = |name: &str| field(name).replace("\\\"", "\"").replace("\\]", "]").replace("\\\\", "\\");
        assert_eq!([plain("image"), plain("name"), plain("id")], [&*said.image, &*said.name, &*said.id], "{line}");
        assert_eq!(field("message").as_bytes(), said.message, "{line}");
        assert_eq!((field("host"), field("sd")), (&*said.host, ""), "{line}");
    }
    assert!(read > 300, "only {read} lines are UTF-8");
    let sample = std::str::from_utf8(&frames[0]).expect("text");
    assert!(!stock.is_match(sample), "the page says that the parser of its own drops our lines: {sample}");
    for other in [
        "<44>1 2026-11-20T22:27:33Z h logferry - gap [gap@32473 lines=\"12\" reason=\"evicted\"] 12 messages were lost here",
        "<13>1 2026-11-20T22:27:33Z h app - - - text ] with [ brackets",
        "<13>1 2026-11-20T22:27:33Z h app - - -",
    ] {
        assert!(ours.is_match(other), "{other}");
    }
}
