//! `logferry explain`: reads messages on stdin, and prints what a relay with this config would make of each message: how it frames
//! and understands the message, where the timestamp comes from, and the bytes that each forward would send.

mod explanation;
pub mod properties;
mod text;

use std::io::{self, IsTerminal, Read};

use super::{Failure, load, print};
use crate::config::{Config, Framing, Overrides};
use crate::listen::ingest;
use crate::protocol::framing::Framer;
use crate::protocol::syslog::{Frame, Senders};
use crate::record::{UnixMicros, escape_json};
use explanation::{Explainer, Explanation};

/// Bytes of stdin that are read at most. The command is for a few messages.
const MAX_INPUT: u64 = 16 * 1024 * 1024;

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    overrides: Overrides,

    /// One JSON object for each message (docs/operations.md names the keys)
    #[arg(long)]
    json: bool,

    /// The `name` of the listener that messages come in by, for rules that ask and for its `max-frame` and `from`
    /// [default: those of the first one, and no name]
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
}

/// The format of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OutputFormat {
    Plain,
    Coloured,
    Json,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = load(&arguments.overrides)?;
    let listener = arguments.listener.as_deref();
    if let Some(name) = listener.filter(|name| config.listen.iter().all(|known| known.name.as_deref() != Some(name))) {
        return Err(Failure::usage(format!("explain: --listener {name}: no [[listen]] has this `name`")));
    }
    let mut input = Vec::new();
    let read = io::stdin().lock().take(MAX_INPUT).read_to_end(&mut input);
    read.map_err(|error| Failure::failed(format!("explain: cannot read stdin: {error}")))?;
    let format = match arguments.json {
        true => OutputFormat::Json,
        false if wants_colour() => OutputFormat::Coloured,
        false => OutputFormat::Plain,
    };
    let mut written = Ok(());
    let context = InputContext { listener, received: ingest::now() };
    let count = explain(&input, &config, &context, |explanation| {
        if written.is_ok() {
            written = print(formatted(explanation, format));
        }
    });
    written?;
    // JSON has no object for this sentence.
    if count == 0 && format != OutputFormat::Json { print("no message on stdin\n") } else { Ok(()) }
}

/// Is stdout a terminal, and does NO_COLOR not object (no-color.org)?
fn wants_colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn formatted(explanation: &Explanation, format: OutputFormat) -> Vec<u8> {
    match format {
        OutputFormat::Plain => text::format(explanation, false),
        OutputFormat::Coloured => text::format(explanation, true),
        OutputFormat::Json => {
            let mut line = serde_json::to_vec(explanation).expect("text, numbers and lists of them are always JSON");
            escape_json(&mut line, 0);
            line.push(b'\n');
            line
        }
    }
}

/// How the messages come in.
struct InputContext<'n> {
    /// The name of the listener, if it has one.
    listener: Option<&'n str>,
    received: UnixMicros,
}

/// Calls `each` with the explanation of each message, and returns the number of messages.
fn explain(input: &[u8], config: &Config, context: &InputContext<'_>, mut each: impl FnMut(&Explanation)) -> usize {
    let &InputContext { listener, received } = context;
    let mut listeners = config.listen.iter();
    let by = listeners.find(|by| listener.is_none() || by.name.as_deref() == listener);
    let limit = by.map_or(crate::config::DEFAULT_MAX_FRAME, |by| by.limits.max_frame);
    let senders = by.map_or(Senders::Anybody, |by| by.from);
    let mut explainer = Explainer::new(config, listener, senders);
    let mut framer = Framer::new(limit);
    let mut on_frame = |bytes: &[u8], cut: bool| {
        each(&explainer.explain(&Frame { bytes, cut, received }, framing(input, bytes, cut)));
    };
    framer.feed(input, &mut on_frame);
    framer.finish(&mut on_frame);
    explainer.count()
}

/// The framing of a message. The framer does not report it, but the bytes before the message in the input show it.
fn framing(input: &[u8], frame: &[u8], cut: bool) -> Framing {
    let start = (frame.as_ptr() as usize).wrapping_sub(input.as_ptr() as usize);
    // The last message may be the framer's own copy: a line without a newline, or a counted message without its end.
    let Some(before) = input.get(..start).filter(|_| start < input.len()) else {
        return if cut { Framing::OctetCounting } else { Framing::Newline };
    };
    let digits = before.strip_suffix(b" ").unwrap_or_default();
    let digits = &digits[digits.iter().rposition(|byte| !byte.is_ascii_digit()).map_or(0, |at| at + 1)..];
    let count = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<usize>().ok());
    match count {
        Some(count) if count == frame.len() || (cut && count > frame.len()) => Framing::OctetCounting,
        _ => Framing::Newline,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, any};

    use super::*;

    /// 2026-11-20T22:27:28Z
    const RECEIVED: UnixMicros = UnixMicros(1_795_213_648_000_000);

    fn output_of(input: &[u8], config: &str, format: OutputFormat) -> String {
        let text = format!("hostname = \"node-7\"\n{config}");
        let config = Config::parse(None, &text, &Overrides::default(), &|_| None).expect("a good config");
        let mut out = Vec::new();
        explain(input, &config, &InputContext { listener: None, received: RECEIVED }, |explanation| {
            out.extend(formatted(explanation, format))
        });
        String::from_utf8(out).expect("nothing but text")
    }

    /// Asserts that the output has these lines, with blanks squeezed.
    #[track_caller]
    fn check(input: &[u8], expected: &[&str]) {
        let formatted = output_of(input, "", OutputFormat::Plain);
        let squeezed: Vec<String> =
            formatted.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        for line in expected {
            assert!(squeezed.iter().any(|found| found == line), "`{line}` is not in\n{formatted}");
        }
    }

    #[test]
    fn a_container_s_message() {
        let config = "[[forward]]\nname = \"a\"\nto = [\"tcp+tls://logs\", \"tcp://logs\"]\n\
                      [[forward]]\nname = \"b\"\nformat = \"rfc3164\"\nto = \"udp://logs\"";
        let input = b"<30>Nov 20 22:27:28 nginx:1.25/proj-web-1/2a9052a5c36e[23223]:   at main\n";
        assert_eq!(
            output_of(input, config, OutputFormat::Plain),
            r#"message 1: 72 bytes, newline framing
  understood as    Docker's syslog driver
  priority         30 (facility daemon, severity info)
  timestamp        2026-11-20T22:27:28Z
  because          it has neither year nor zone; to the quarter hour it is when it was read, so the sender's zone is UTC
  host             node-7
  tag              nginx:1.25/proj-web-1/2a9052a5c36e
  image            nginx:1.25
  container        proj-web-1
  container id     2a9052a5c36e
  structured data  [docker@32473 image="nginx:1.25" name="proj-web-1" id="2a9052a5c36e"]
  message            at main
  forward a: to tcp+tls://logs:6514 as rfc5424, octet counting, 143 bytes
    139 <30>1 2026-11-20T22:27:28Z node-7 proj-web-1 2a9052a5c36e - [docker@32473 image="nginx:1.25" name="proj-web-1" id="2a9052a5c36e"]   at main
  forward a: to tcp://logs:514 as rfc5424, newline framing, 140 bytes
    <30>1 2026-11-20T22:27:28Z node-7 proj-web-1 2a9052a5c36e - [docker@32473 image="nginx:1.25" name="proj-web-1" id="2a9052a5c36e"]   at main\x0a
  forward b: to udp://logs:514 as rfc3164, one datagram, 62 bytes
    <30>Nov 20 22:27:28 node-7 proj-web-1[2a9052a5c36e]:   at main

"#
        );
    }

    #[test]
    fn framing_and_control_characters() {
        check(
            b"10 <13>\x1b[31mx<13>plain\n",
            &["message 1: 10 bytes, octet counting", "message \\x1b[31mx", "message 2: 9 bytes, newline framing"],
        );
        // A blank before a line is no count, and a count that never became whole is one.
        check(
            b"6 abc 4 <13>x\n9 <13>",
            &["message 2: 5 bytes, newline framing", "message 3: 4 bytes, octet counting, cut"],
        );
        check(b"<13>no end", &["message 1: 10 bytes, newline framing"]);
        assert_eq!(output_of(b"", "", OutputFormat::Plain), "");
        // Text that would turn the rest of the line around.
        check("<13>a\u{202e}b\n".as_bytes(), &["message a\\xe2\\x80\\xaeb"]);
    }

    #[test]
    fn why_the_time_is_what_it_is() {
        let check = |stamp: &str, says: &[&str]| check(format!("<13>{stamp} host app: x\n").as_bytes(), says);
        check(
            "Nov 20 17:28:00",
            &[
                "timestamp 2026-11-20T17:28:00-05:00",
                "because it has neither year nor zone; to the quarter hour it is 5:00 behind when it was read, so the sender's zone is -05:00",
            ],
        );
        check(
            "Nov 21 04:00:00",
            &[
                "because it has neither year nor zone; to the quarter hour it is 5:30 ahead of when it was read, so the sender's zone is +05:30",
            ],
        );
        check(
            "Aug  1 00:00:00",
            &[
                "timestamp 2026-08-01T00:00:00Z",
                "because it has neither year nor zone; it is 111 days from when it was read, too far to tell the zone: `time-zone` says UTC",
            ],
        );
        let written = "because as the sender wrote it";
        check("2026-11-20T17:28:00-05:00", &["timestamp 2026-11-20T17:28:00-05:00", written]);
        check(
            "2026-11-20t17:28:00.123456789-05:00",
            &[
                "timestamp 2026-11-20T17:28:00-05:00",
                "because as the sender wrote it, in the form that RFC 5424 allows",
            ],
        );
        let none = "because the sender gave none, or none that can be: it is when the message was read";
        check("Feb 30 00:00:00", &["timestamp 2026-11-20T22:27:28.000000Z", none]);
        super::tests::check(b"<13>1 - host app - - - x\n", &["timestamp 2026-11-20T22:27:28.000000Z", none]);
        super::tests::check(b"what?\n", &[none]);
    }

    #[test]
    fn colours_are_beside_the_text() {
        let input = b"<13>\x1b[31mx\n";
        let coloured = output_of(input, "", OutputFormat::Coloured);
        assert!(coloured.contains("\x1b[1mmessage 1: 10 bytes, newline framing\x1b[0m\n"), "{coloured:?}");
        assert!(coloured.contains("\x1b[33m\\x1b\x1b[0m[31mx"), "{coloured:?}");
        let mut plain = coloured;
        for colour in ["\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[33m", "\x1b[36m"] {
            plain = plain.replace(colour, "");
        }
        assert_eq!(plain, output_of(input, "", OutputFormat::Plain));
    }

    #[test]
    fn json_has_the_same_facts() {
        let input = b"<30>Nov 20 22:27:28 nginx:1.25/proj-web-1/2a9052a5c36e[23223]: a\\\xff\n";
        let formatted = output_of(input, "[[forward]]\nto = \"tcp://logs\"", OutputFormat::Json);
        let line = "<30>1 2026-11-20T22:27:28Z node-7 proj-web-1 2a9052a5c36e - [docker@32473 image=\\\"nginx:1.25\\\" \
                    name=\\\"proj-web-1\\\" id=\\\"2a9052a5c36e\\\"] a\\\\\\\\\\\\xff";
        let expected = String::new()
            + r#"{"number":1,"bytes":66,"framing":"newline","cut":false,"received":"2026-11-20T22:27:28.000000Z","#
            + r#""input":"<30>Nov 20 22:27:28 nginx:1.25/proj-web-1/2a9052a5c36e[23223]: a\\\\\\xff","understood_as":"docker","#
            + r#""facility":"daemon","severity":"info","timestamp":"2026-11-20T22:27:28Z","timestamp_origin":"live","#
            + r#""timestamp_because":"it has neither year nor zone; to the quarter hour it is when it was read, so the sender's zone is UTC","#
            + r#""host":"node-7","tag":"nginx:1.25/proj-web-1/2a9052a5c36e","app_name":"proj-web-1","proc_id":"2a9052a5c36e","msg_id":"-","#
            + r#""image_name":"nginx:1.25","container_name":"proj-web-1","container_id":"2a9052a5c36e","#
            + r#""structured_data":"[docker@32473 image=\"nginx:1.25\" name=\"proj-web-1\" id=\"2a9052a5c36e\"]","#
            + r#""message":"a\\\\\\xff","line":""#
            + line
            + r#"","escaped":["input","message","line"],"dropped_by":null,"#
            + r#""forwards":[{"forward":"central","to":"tcp://logs:514","format":"rfc5424","#
            + r#""framing":"newline","bytes":134,"output":""#
            + line
            + r#"\n","escaped":["output"]}],"filtered_by":[],"unwanted_by":[]}"#
            + "\n";
        assert_eq!(formatted, expected);
    }

    proptest::proptest! {
        #[test]
        fn one_message_in_is_one_message_out(
            pieces in proptest::collection::vec(
                proptest::prop_oneof![
                    proptest::sample::select(vec![
                        "<13>", "<15>", "7 <13>a\nb", "5 ", "480 ", "\n", " ", "1 ", "- ", "2026-11-20T22:28:47Z ",
                        "Nov 20 22:28:47 ", "nginx:1.25/web/2a9052a5c36e[7]: ", "[a b=\"c\"] ", "[a b=\"", "\0", "\x1b[31m",
                        "\u{202e}", "\r", "{", "\"", "\\",
                    ]).prop_map(|piece| piece.as_bytes().to_vec()),
                    proptest::collection::vec(any::<u8>(), 0..20),
                ],
                0..30,
            ),
        ) {
            properties::any_bytes(&pieces.concat());
        }
    }
}
