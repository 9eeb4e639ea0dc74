//! A container that prints typical and unusual log lines, and the messages that must arrive.

use super::docker::{Container, Images, docker};
use super::relay::Relay;
use std::path::Path;

pub const TRANSPORTS: [&str; 5] = ["udp", "tcp", "tcp+tls", "unix", "unixgram"];
/// The empty format is Docker's default, without host name and year.
pub const FORMATS: [&str; 4] = ["", "rfc3164", "rfc5424", "rfc5424micro"];

/// Docker's driver cuts a line after this many bytes and does not mark the pieces.
pub const PIECE: usize = 16384;

const STDERR: u8 = 3;
const STDOUT: u8 = 6;

/// Prints the odd lines first, then ten ordinary ones at a time, and one on stderr, until /talk/enough appears. Writes
/// the number of lines into a file, so that the test does not rely on the lines that arrive.
const SCRIPT: &str = r#"
cat /talk/odd
n=0
while [ ! -e /talk/enough ]; do
  i=0
  while [ $i -lt 10 ]; do i=$((i+1)); n=$((n+1)); echo "line $n"; done
  echo "error $n" >&2
  sleep 0.1
done
echo $n > /talk/$1
"#;

/// One message of one container as it must arrive.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Said {
    pub severity: u8,
    pub message: Vec<u8>,
}

pub struct Talker {
    pub container: Container,
    pub what: String,
    pub id: String,
    pub format: &'static str,
}

impl Talker {
    /// `talk` is the directory of [`prepare`], shared by all talkers.
    pub fn start(images: &Images, relay: &Relay, talk: &Path, transport: &'static str, format: &'static str) -> Self {
        let what = format!("{}-{}", transport.replace('+', "."), if format.is_empty() { "default" } else { format });
        let mut args = vec!["--network".to_owned(), "none".into(), "--log-driver".into(), "syslog".into()];
        let mut options = relay.log_options("syslog", transport);
        options.push("tag={{.ImageName}}/{{.Name}}/{{.ID}}".into());
        if !format.is_empty() {
            options.push(format!("syslog-format={format}"));
        }
        args.extend(options.into_iter().flat_map(|option| ["--log-opt".into(), option]));
        args.extend(["--volume".into(), format!("{}:/talk", talk.display())]);
        args.push(images.talker.clone());
        args.extend(["/bin/sh", "-c", SCRIPT, "talker", &what].map(String::from));
        let container = Container::run(&what, &args);
        let id = container.id();
        Self { container, what, id, format }
    }

    /// Waits until the container has ended. Returns the messages of its lines, in the order of each stream.
    pub fn said(&self, talk: &Path) -> Vec<Said> {
        docker(["wait", &self.container.name]);
        let count = std::fs::read_to_string(talk.join(&self.what)).expect("a talker leaves its count");
        let count: usize = count.trim().parse().expect("a number");
        let stdout = odd_messages().into_iter().chain((1..=count).map(|n| format!("line {n}").into_bytes()));
        let stderr = (1..=count / 10).map(|n| format!("error {}", n * 10).into_bytes());
        let said = |severity| move |message| Said { severity, message };
        stdout.map(said(STDOUT)).chain(stderr.map(said(STDERR))).collect()
    }
}

/// Writes the talkers' input into an empty directory.
pub fn prepare(talk: &Path) {
    std::fs::write(talk.join("odd"), odd_lines().concat()).expect("a file in our directory");
}

/// Tells the talkers to finish.
pub fn enough(talk: &Path) {
    std::fs::write(talk.join("enough"), "").expect("a file in our directory");
}

/// The lines that talkers print first. All differ, so that duplicates can be detected.
pub fn odd_lines() -> Vec<Vec<u8>> {
    let long = |name: char, length: usize| -> Vec<u8> {
        let counted: String = (0..length / 8 + 1).map(|n| format!("{name}{n:06} ")).collect();
        counted.as_bytes()[..length].to_vec()
    };
    let cut_character = [long('d', PIECE - 1), "€uro".into()].concat();
    let lines: Vec<Vec<u8>> = vec![
        b"\ttab at the start,\ttab inside, tab at the end\t".into(),
        b"    at com.example.Main.run(Main.java:17)".into(),
        b"blanks at the end   ".into(),
        b"".into(),
        b" ".into(),
        b"carriage return at the end\r".into(),
        b"\r".into(),
        b"10%\r50%\r100%".into(),
        b"\x1b[31mred\x1b[0m, bell \x07, delete \x7f, start of heading \x01.".into(),
        b"nul [\x00] inside".into(),
        b"caf\xe9 \xff\xfe is not UTF-8".into(),
        "Grüße aus 東京 🚢".into(),
        "\u{feff}a byte order mark first".into(),
        b"a C1 control \x85 and \xe2\x80\xa8 a line separator".into(),
        b"<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8".into(),
        b"<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - looks like RFC 5424".into(),
        b"57 <30>1 2026-11-20T22:27:42Z host tag 1 tag - looks counted".into(),
        b"[info x=\"1\"] looks like structured data".into(),
        b"- a dash first".into(),
        b"nginx:1.25/other/0123456789ab[1]: looks like a tag".into(),
        br#"{"quotes": "\"", "backslash": "\\", "bracket": "]"}"#.into(),
        br"a literal #012 and \n and \x0a".into(),
        long('a', PIECE),
        long('b', PIECE + 1),
        long('c', 40_000),
        cut_character,
    ];
    lines.into_iter().map(|line| [line, b"\n".into()].concat()).collect()
}

/// The messages that arrive for the odd lines. Docker's driver sends none for an empty line and several for a long one,
/// and rsyslog writes NUL as `#000`.
fn odd_messages() -> Vec<Vec<u8>> {
    let lines = odd_lines();
    let pieces = lines.iter().flat_map(|line| line[..line.len() - 1].chunks(PIECE));
    pieces.map(|piece| piece.iter().flat_map(|&b| if b == 0 { b"#000".to_vec() } else { vec![b] }).collect()).collect()
}
