//! `logferry explain`: reads messages, and prints how a relay with this config would process them: the framing and format of
//! each message, the origin of its timestamp, and the bytes that each forward would send.

mod explanation;
mod fields;
mod input;
pub mod properties;
mod steps;
mod text;

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::net::IpAddr;
use std::path::PathBuf;

use super::{Failure, load, print};
use crate::config::{Config, Limits, Listen, Overrides, known_names};
use crate::listen::{ingest, local_addresses};
use crate::protocol::syslog::{LocalAddresses, Senders};
use crate::record::{UnixMicros, escape_json};
use explanation::Explainer;
use input::Input;

pub use explanation::{Destiny, Explanation, Finding};
pub use input::ReadAs;
pub use steps::StepsExplanation;

/// The maximum size of the input, in bytes. The command is for a few messages.
const MAX_INPUT: u64 = 16 * 1024 * 1024;

#[derive(clap::Args)]
#[command(mut_arg("forward", |forward| {
    let help = forward.get_help().cloned().unwrap_or_default();
    forward.value_name("URL|NAME").help(format!("{help}. A `name` of the config: this forward alone"))
}))]
pub struct Arguments {
    #[command(flatten)]
    overrides: Overrides,

    /// What to read; bytes, as a sender sends them [default: stdin]
    file: Option<PathBuf>,

    /// The protocol that the input is read as [default: that of --listener, or syslog]
    #[arg(long = "as", value_enum, value_name = "PROTOCOL")]
    read_as: Option<ReadAs>,

    /// One JSON object for each message (docs/commands.md names the keys)
    #[arg(long)]
    json: bool,

    /// The `name` of the listener that messages come in by, for rules that ask and for its `max-frame` and `from`
    /// [default: those of the first one that speaks the protocol, and no name]
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,

    /// The address that messages come from, for rules that ask and for the host of messages that name none [default: none]
    #[arg(long, value_name = "ADDRESS")]
    peer: Option<IpAddr>,
}

/// The format of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OutputFormat {
    Plain,
    Coloured,
    Json,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut overrides = arguments.overrides.clone();
    let names = overrides.take_forward_names();
    let mut config = load(&overrides)?;
    keep_forwards(&mut config, &names)?;
    let listener = arguments.listener.as_deref();
    if let Some(name) = listener.filter(|name| named(&config, name).is_none()) {
        let named: Vec<&str> = config.listen.iter().filter_map(|listen| listen.name.as_deref()).collect();
        let known = known_names(&named);
        return Err(Failure::usage(format!(
            "explain: --listener {name}: no [[listen]] has this `name`; there are: {known}"
        )));
    }
    let read_as = read_as(&config, arguments.read_as, listener);
    let mut input = Vec::new();
    let (name, read) = match &arguments.file {
        Some(file) => {
            (file.display().to_string(), File::open(file).and_then(|file| file.take(MAX_INPUT).read_to_end(&mut input)))
        }
        None => ("stdin".to_owned(), io::stdin().lock().take(MAX_INPUT).read_to_end(&mut input)),
    };
    read.map_err(|error| Failure::failed(format!("explain: cannot read {name}: {error}")))?;
    let format = match arguments.json {
        true => OutputFormat::Json,
        false if wants_colour() => OutputFormat::Coloured,
        false => OutputFormat::Plain,
    };
    let mut written = Ok(());
    let sender = arguments.peer.map(|peer| (peer, local_addresses()));
    let context = InputContext { read_as, listener, sender, received: ingest::now() };
    let count = explain(&input, &config, &context, |finding| {
        if written.is_ok() {
            written = print(formatted(finding, format));
        }
    });
    written?;
    // This sentence has no JSON form.
    if count == 0 && format != OutputFormat::Json { print(format!("no message on {name}\n")) } else { Ok(()) }
}

/// Removes the forwards that `--forward` does not name, if it names any.
fn keep_forwards(config: &mut Config, names: &[String]) -> Result<(), Failure> {
    let known: Vec<&str> = config.forward.iter().map(|forward| forward.name.as_str()).collect();
    if let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) {
        let known = known.join(", ");
        return Err(Failure::usage(format!(
            "explain: --forward {name}: no [[forward]] has this `name`; there are: {known}"
        )));
    }
    config.forward.retain(|forward| names.is_empty() || names.contains(&forward.name));
    Ok(())
}

fn named<'c>(config: &'c Config, name: &str) -> Option<&'c Listen> {
    config.listen.iter().find(|listener| listener.name.as_deref() == Some(name))
}

/// The protocol of the input: `said`, or else that of the listener.
pub fn read_as(config: &Config, said: Option<ReadAs>, listener: Option<&str>) -> ReadAs {
    let of_listener = listener.and_then(|name| named(config, name));
    let of_listener = of_listener.map(|listener| ReadAs::of(listener.address.protocol()));
    said.or(of_listener).unwrap_or(ReadAs::Syslog)
}

/// Is stdout a terminal, and is NO_COLOR unset or empty (no-color.org)?
pub fn wants_colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn formatted(finding: &Finding, format: OutputFormat) -> Vec<u8> {
    match (finding, format) {
        (Finding::Message(message), OutputFormat::Json) => json(message),
        (Finding::Message(message), format) => text::format(message, format == OutputFormat::Coloured),
        (Finding::Refused(refused), OutputFormat::Json) => json(refused),
        (Finding::Refused(refused), format) => text::format_refused(refused, format == OutputFormat::Coloured),
    }
}

fn json(finding: &impl serde::Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(finding).expect("text, numbers and lists of them are always JSON");
    escape_json(&mut line, 0);
    line.push(b'\n');
    line
}

/// The circumstances in which messages arrive.
pub struct InputContext<'n> {
    pub read_as: ReadAs,
    /// The name of the listener, if it has one.
    pub listener: Option<&'n str>,
    /// The sender's address, and those of this machine.
    pub sender: Option<(IpAddr, LocalAddresses)>,
    pub received: UnixMicros,
}

/// Calls `each` with each finding, and returns their number.
fn explain(input: &[u8], config: &Config, context: &InputContext<'_>, mut each: impl FnMut(&Finding)) -> usize {
    read(input, config, context, |finding| each(&finding)).count()
}

/// Calls `each` with each finding, and returns the explainer.
pub fn read<'c>(
    input: &[u8],
    config: &'c Config,
    context: &InputContext<'_>,
    mut each: impl FnMut(Finding),
) -> Explainer<'c> {
    let InputContext { read_as, listener, sender, received } = context;
    let mut listeners = config.listen.iter();
    let by = match listener {
        Some(name) => named(config, name),
        None => listeners.find(|by| ReadAs::of(by.address.protocol()) == *read_as).or(config.listen.first()),
    };
    // Without a name, a listener like the first one of the protocol receives the messages. Rules for its name do not match.
    let by = by.map(|by| Listen { name: listener.map(str::to_owned), ..by.clone() });
    let (peer, local) = sender.clone().map_or_else(Default::default, |(peer, local)| (Some(peer), local));
    let mut explainer = Explainer::new(config, by.as_ref(), (peer, local));
    let none = Limits::default();
    let limits = by.as_ref().map_or(&none, |by| &by.limits);
    let senders = by.as_ref().map_or(Senders::Anybody, |by| by.from);
    let input = Input { bytes: input, limits, senders, received: *received };
    input.read(*read_as, &mut explainer, &mut each);
    explainer
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, any};

    use super::*;

    /// 2026-11-20T22:27:28Z
    const RECEIVED: UnixMicros = UnixMicros(1_795_213_648_000_000);

    fn output_of(input: &[u8], config: &str, format: OutputFormat) -> String {
        output_as(ReadAs::Syslog, input, config, format)
    }

    fn output_as(read_as: ReadAs, input: &[u8], config: &str, format: OutputFormat) -> String {
        let text = format!("hostname = \"node-7\"\n{config}");
        let config = Config::parse(None, &text, &Overrides::default(), &|_| None).expect("a good config");
        let mut out = Vec::new();
        let context = InputContext { read_as, listener: None, sender: None, received: RECEIVED };
        explain(input, &config, &context, |finding| out.extend(formatted(finding, format)));
        String::from_utf8(out).expect("nothing but text")
    }

    /// Asserts that the output has these lines, with repeated blanks removed.
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

    const SHAPED: &str = r#"
        [[forward]]
        name = "search"
        to = "udp://logs"
        parse = ["json", "logfmt"]
        prefix = "k_"
        keep = ["!secret"]
        time-from = "time"
        severity-from = "level"
        message-from = "msg"
        drop-fields = "k_host"
        match = [{ severity = "debug" }, { field = { k_pid = ">7" } }]
        mask = { pattern = "token=[a-z]+" }
        fields = { env = "prod" }
    "#;

    #[test]
    fn each_step_of_a_forward() {
        let line = |text: &str| format!("<14>1 2026-11-20T22:27:28Z h web - - - {text}\n");
        let told = |text: &str| {
            let told = output_of(line(text).as_bytes(), SHAPED, OutputFormat::Plain);
            told[told.find("  forward").expect("a forward")..].to_owned()
        };
        let text = r#"{"time":"2026-11-20T01:02:03Z","level":"error","msg":"a token=abc","pid":14314,"host":"x","secret":[1]}"#;
        assert_eq!(
            told(text),
            r#"  forward search: step by step
    parsed         as json
    found          time (text) 2026-11-20T01:02:03Z: the time
    found          level (text) error: the severity and field k_level
    found          msg (text) a ***: the text
    found          pid (number) 14314: field k_pid
    found          host (text) x: field k_host
    found          secret (array) [1]: left out by `keep`
    left out       k_host
    matched        by rule 2 of `match`: { field = "k_pid=>7" }
    masked         pattern `token=[a-z]+`
    field added    env (text) prod
  forward search: to udp://logs:514 as rfc5424, one datagram, 148 bytes
    <11>1 2026-11-20T01:02:03Z h web - - [fields@32473 original_severity="info" k_level="error" env="prod"][json@32473 fields="{\"k_pid\":14314}"] a ***

"#
        );
        let filtered = "  forward search: filtered: no rule of its `match` matches\n";
        assert_eq!(told("plain text"), format!("{filtered}    misread        no form of `parse` fits the text\n\n"));
        let beyond = told(r#"{"a":1e999}"#);
        assert!(beyond.starts_with(&format!("{filtered}    misread        not parsed, beyond a limit: ")), "{beyond}");
    }

    #[test]
    fn the_steps_as_json() {
        let input = b"<14>1 2026-11-20T22:27:28Z h web - - - level=debug pid=1 msg=\"token=abc\"\n";
        let told = output_of(input, SHAPED, OutputFormat::Json);
        let start = told.find("\"steps\":").expect("steps");
        let steps = &told[start..told.find(",\"forwards\":").expect("behind them")];
        let expected = String::new()
            + r#""steps":[{"forward":"search","parsed_as":"logfmt","found":["#
            + r#"{"name":"level","type":"text","value":"debug","escaped":false,"becomes":"field","becomes_field":"k_level","is_severity":true},"#
            + r#"{"name":"pid","type":"number","value":1,"escaped":false,"becomes":"field","becomes_field":"k_pid","is_severity":false},"#
            + r#"{"name":"msg","type":"text","value":"***","escaped":false,"becomes":"message","becomes_field":null,"is_severity":false}],"#
            + r#""severity_guessed":false,"dropped_fields":[],"filtered":false,"match_rule":1,"matched_by":"{ severity = \"debug\" }","#
            + r#""masked":["pattern `token=[a-z]+`"],"#
            + r#""added":[{"name":"env","type":"text","value":"prod","escaped":false}],"misread":[]}]"#;
        assert_eq!(steps, expected);
    }

    /// Each destination shows the form that it would get.
    #[test]
    fn what_log_stores_and_buses_would_get() {
        let input = b"<14>1 2026-11-20T22:27:28Z h web - - - hello\n";
        let forward =
            |name: &str, to: &str, keys: &str| format!("[[forward]]\nname = \"{name}\"\nto = \"{to}\"\n{keys}\n");
        for (name, to, keys, expected) in [
            (
                "es",
                "https://es:9200/x",
                "api = \"elasticsearch\"\nindex = \"logs-{host}-default\"",
                [
                    "es: to https://es:9200/x as elasticsearch, in a request to https://es:9200/x/_bulk, 343 bytes",
                    "{\"create\":{\"_index\":\"logs-h-default\",\"_id\":\"SPOOL-1-0\"}}\\x0a{\"@timestamp\":",
                ],
            ),
            (
                "loki",
                "http://loki:3100",
                "api = \"loki\"",
                [
                    "as loki, in a request to http://loki:3100/loki/api/v1/push, ",
                    "{\"streams\":[{\"stream\":{\"job\":\"logferry\",\"host\":\"h\",",
                ],
            ),
            (
                "bucket",
                "s3://logs/p/",
                "region = \"eu-central-1\"",
                [
                    "as s3, in the object https://logs.s3.eu-central-1.amazonaws.com:443/p/2026/11/20/SPOOL-bucket-1-0.ndjson.gz, ",
                    "\"message\":\"hello\"}\\x0a",
                ],
            ),
            (
                "bus",
                "nats://bus",
                "subject = \"logs.{host}.{app}\"",
                ["bus: to nats://bus:4222 as json, in a message to logs.h.web, ", "\"message\":\"hello\"}"],
            ),
            ("fluent", "fluent://f", "", ["fluent: to fluent://f:24224 as fluent, in a chunk, ", "\\xa3log\\xa5hello"]),
            (
                "graylog",
                "gelf+tcp://g",
                "",
                ["graylog: to gelf+tcp://g:12201 as gelf, ", "\"short_message\":\"hello\""],
            ),
        ] {
            let told = output_of(input, &forward(name, to, keys), OutputFormat::Plain);
            for part in expected {
                assert!(told.contains(part), "{part}\n{told}");
            }
        }
    }

    #[test]
    fn what_is_hidden_and_sampled_before_the_spool() {
        let config = "[[listen]]\naddress = \"udp://127.0.0.1:0\"\n[[listen]]\naddress = \"relp://127.0.0.1:0\"\n\
                      [[mask]]\npattern = \"password=[^ ]+\"\nat = \"intake\"\n\
                      [[sample]]\none-of = 10\napp = \"web\"\nmessage = \"*password=hunter*\"\n\
                      [[forward]]\nto = \"stdout:\"";
        let input = b"<14>1 2026-11-20T22:27:28Z h web - - - login password=hunter2 ok\n";
        let told = output_of(input, config, OutputFormat::Plain);
        for part in [
            "login *** ok",
            "a [[mask]] at intake has hidden something before the spool",
            "[[sample]] keeps one of 10: { app = \"web\", message = \"*password=hunter*\" }\n",
        ] {
            assert!(told.contains(part), "{part}\n{told}");
        }
        assert!(!told.contains("hunter2"), "{told}");
        let json = output_of(input, config, OutputFormat::Json);
        assert!(json.contains("\"sampled_by\":\"one of 10: ") && json.contains("\"masked\":true"), "{json}");
        assert!(!output_of(b"<14>nothing\n", config, OutputFormat::Json).contains("\"masked\":true"));
    }

    #[test]
    fn framing_and_control_characters() {
        check(
            b"10 <13>\x1b[31mx<13>plain\n",
            &["message 1: 10 bytes, octet counting", "message \\x1b[31mx", "message 2: 9 bytes, newline framing"],
        );
        // Digits after a blank are no count. A count is valid even if its message stays incomplete.
        check(b" 4 <13>x\n9 <13>", &["message 1: 8 bytes, newline framing", "message 2: 4 bytes, octet counting, cut"]);
        check(b"<13>no end", &["message 1: 10 bytes, newline framing"]);
        assert_eq!(output_of(b"", "", OutputFormat::Plain), "");
        // A character that would reverse the rest of the line.
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
            "Nov 21 03:58:00",
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
                "timestamp 2026-11-20T17:28:00.123456-05:00",
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
            + r#""host":"node-7","tag":"nginx:1.25/proj-web-1/2a9052a5c36e","tag_fits":true,"app_name":"proj-web-1","proc_id":"2a9052a5c36e","msg_id":"-","#
            + r#""image_name":"nginx:1.25","container_name":"proj-web-1","container_id":"2a9052a5c36e","#
            + r#""structured_data":"[docker@32473 image=\"nginx:1.25\" name=\"proj-web-1\" id=\"2a9052a5c36e\"]","#
            + r#""fields":[],"fields_left_out":0,"#
            + r#""message":"a\\\\\\xff","line":""#
            + line
            + r#"","escaped":["input","message","line"],"dropped_by":null,"joined_to":null,"#
            + r#""steps":[{"forward":"central","parsed_as":null,"found":[],"severity_guessed":false,"dropped_fields":[],"#
            + r#""filtered":false,"match_rule":null,"matched_by":null,"masked":[],"added":[],"misread":[]}],"#
            + r#""forwards":[{"forward":"central","to":"tcp://logs:514","format":"rfc5424","#
            + r#""framing":"newline","bytes":134,"output":""#
            + line
            + r#"\n","escaped":["output"]}],"filtered_by":[],"unwanted_by":[]}"#
            + "\n";
        assert_eq!(formatted, expected);
    }

    #[test]
    fn a_message_of_gelf_and_what_is_none() {
        let input = b"{\"short_message\":\"a\\u001bb\",\"timestamp\":1795213648.5,\"level\":3,\"host\":\"web\",\"_n\":1.50,\"_t\":\"x\"}\0[1]\0";
        assert_eq!(
            output_as(ReadAs::Gelf, input, "[[forward]]\nto = \"tcp://logs\"", OutputFormat::Plain),
            r#"message 1
  understood as    GELF
  priority         11 (facility user, severity err)
  timestamp        2026-11-20T22:27:28.5Z
  because          as the sender wrote it, in the form that RFC 5424 allows
  host             web
  tag              (none)
  image            (none)
  container        (none)
  container id     (none)
  structured data  [fields@32473 t="x"][json@32473 fields="{\"n\":1.50}"][logferry@32473 driver="gelf"]
  field            t (text) x
  field            n (number) 1.50
  message          a\x1bb
  line             <11>1 2026-11-20T22:27:28.5Z web - - - [fields@32473 t="x"][json@32473 fields="{\"n\":1.50}"][logferry@32473 driver="gelf"] a\x1bb
  forward central: to tcp://logs:514 as rfc5424, newline framing, 128 bytes
    <11>1 2026-11-20T22:27:28.5Z web - - - [fields@32473 t="x"][json@32473 fields="{\"n\":1.50}"][logferry@32473 driver="gelf"] a\x1bb\x0a

message 2
  refused as no-object: a message is JSON, but no object

"#
        );
    }

    #[test]
    fn what_is_refused_has_the_name_that_counts_it() {
        let check = |read_as: ReadAs, input: &[u8], names: &[&str]| {
            let json = output_as(read_as, input, "", OutputFormat::Json);
            let refused = json.lines().filter_map(|line| {
                let object: serde_json::Value = serde_json::from_str(line).expect("JSON");
                object["refused"].as_str().map(str::to_owned)
            });
            assert_eq!(refused.collect::<Vec<_>>(), names, "{json}");
        };
        check(ReadAs::Fluent, b"\xc0\xc0", &[]);
        check(ReadAs::Fluent, b"\x93\xa3tag\x01\x80\x92\x01\x01", &["tag"]);
        check(ReadAs::Fluent, b"\x93\xa3tag\x01", &["unfinished"]);
        check(ReadAs::Fluent, b"<13>hello, is anybody here?", &["no-array"]);
        check(ReadAs::Gelf, b"\x1f\x8b\x08", &["bad-gzip"]);
        check(ReadAs::Gelf, b"\x1e\x0fidentity\0\x02{", &["chunk-expired"]);
        check(ReadAs::Gelf, b"{\"short_message\":\"a", &["unfinished"]);
        check(ReadAs::Splunk, b"{\"event\":\"a\"}{}", &["no-event"]);
        check(ReadAs::Splunk, b"", &["no-data"]);
        check(ReadAs::Journal, b"MESSAGE=a\n\nno field\nx", &["bad-name"]);
        check(ReadAs::Journal, b"MESSAGE\n\x01\0\0\0\0\0\0\0ab", &["bad-length"]);
        check(ReadAs::Journal, b"MESSAGE=a", &["unfinished"]);
    }

    /// The expected number of the message that each one continues; 0: none.
    #[track_caller]
    fn check_joined(listener: &str, messages: &[(&str, usize)]) {
        let input: String = messages.iter().map(|(message, _)| format!("{message}\n")).collect();
        let config = format!("[[listen]]\n{listener}\n[[forward]]\nto = \"tcp://logs\"");
        let json = output_of(input.as_bytes(), &config, OutputFormat::Json);
        let found = json.lines().map(|line| {
            let explanation: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let (joined, forwards) = (explanation["joined_to"].as_u64(), explanation["forwards"].as_array().unwrap());
            assert_eq!(forwards.is_empty(), joined.is_some(), "{line}");
            joined.unwrap_or(0) as usize
        });
        assert_eq!(found.collect::<Vec<_>>(), messages.iter().map(|(_, joined)| *joined).collect::<Vec<_>>());
        let plain = output_of(input.as_bytes(), &config, OutputFormat::Plain);
        let said = plain.matches("  a further line of message ").count();
        assert_eq!(said, messages.iter().filter(|(_, joined)| *joined > 0).count(), "{plain}");
    }

    #[test]
    fn lines_that_belong_together() {
        let messages = [
            ("<30>Nov 20 22:27:28 x/web/2a9052a5c36e[1]: Exception", 0),
            ("<30>Nov 20 22:27:28 x/api/2a9052a5c36e[1]: other", 0),
            ("<30>Nov 20 22:27:28 x/web/2a9052a5c36e[1]: \tat a.B", 1),
            ("  without a priority", 1),
            ("<13>", 0),
            ("  behind what has no text", 0),
            ("  and behind that", 6),
        ];
        check_joined("address = \"tcp://:514\"\nmultiline = \"indented\"", &messages);
        check_joined("address = \"tcp://:514\"", &messages.map(|(message, _)| (message, 0)));
        // A datagram without a header cannot be matched to the one before it.
        let mut datagrams = messages;
        (datagrams[3].1, datagrams[6].1) = (0, 0);
        check_joined("address = \"udp://:514\"\nmultiline = \"indented\"", &datagrams);
        let by_pattern = [
            ("<30>Nov 20 22:27:28 x/web/2a9052a5c36e[1]: [INFO] first", 0),
            ("<30>Nov 20 22:27:29 x/api/2a9052a5c36e[1]: other", 0),
            ("<30>Nov 20 22:27:29 x/web/2a9052a5c36e[1]: second", 1),
            ("<30>Nov 20 22:27:29 x/web/2a9052a5c36e[1]: [INFO] next", 0),
            ("without a priority", 4),
            ("<30>Nov 20 22:27:29 x/api/2a9052a5c36e[1]: another", 2),
            ("without a priority", 2),
        ];
        check_joined("address = \"tcp://:514\"\nmultiline = '^\\['", &by_pattern);
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

        #[test]
        fn any_bytes_of_other_protocols_are_explained(
            pieces in proptest::collection::vec(
                proptest::prop_oneof![
                    proptest::sample::select(vec![
                        &b"\x93\xa1t\x01\x81\xa3log\xa1\xff"[..], b"\x92\xa1t\x91\x92\x01\x80", b"{\"short_message\":\"\xe2\x80\xae\"}", b"\0",
                        b"{\"event\":\"x\",\"time\":1}", b"{\"event\":{\"line\":1}}", b"MESSAGE=\x1bx\n", b"MESSAGE\n\x01\0\0\0\0\0\0\0\n\n",
                        b"\n", b"_n\":[1,null]", b"\x1f\x8b", b"\x1e\x0f",
                    ]).prop_map(<[u8]>::to_vec),
                    proptest::collection::vec(any::<u8>(), 0..10),
                ],
                0..12,
            ),
        ) {
            properties::any_bytes_of_others(&pieces.concat());
        }
    }
}
