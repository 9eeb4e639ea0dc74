//! Messages with arbitrary bytes pass through a real relay and its spool to a real rsyslog, by every input and every output. rsyslog must
//! write exactly the messages that were sent, with the same fields, and no others.

use std::fs;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tempfile::TempDir;

use crate::support::rsyslog::{self, ARRIVED, Input};
use crate::support::sender::counted;
use crate::support::{Certs, Program, Setup, TlsClient, Wire, shown, within};

const PATIENCE: Duration = Duration::from_secs(60);
/// Messages per input.
const MESSAGES: usize = 120;
/// Messages sent at once: few enough for the kernel's buffer for datagrams.
const AT_ONCE: usize = 10;
/// In bytes; longer messages are cut: the relay's `max-frame`.
const LONGEST: usize = 2048;
const HEADER: &str = "<13>1 2026-11-20T22:28:47.000001Z host.example.com app 77 id - ";

/// Byte sequences that some relay has misinterpreted, and random bytes.
fn texts() -> impl Strategy<Value = Vec<u8>> {
    let pieces: Vec<&[u8]> = vec![
        b"\0",
        b"\x01\x02\x07\x08",
        b"\x1b[31m\x1b]0;title\x07",
        b"\x7f",
        b"\r",
        b"\n",
        b"\r\n",
        b"\n\n<13>1 - - - - - - forged\n",
        b"\n9 <13>forged",
        b"17 <13>forged",
        b"<13>",
        b"<191>Oct 11 22:14:15 forged su[1]: forged",
        b"1 2003-10-11T22:14:15.003Z forged forged - - -",
        b"[docker@32473 name=\"forged\"]",
        b"[logferry@32473 cut=\"true\"]",
        b"\xff\xfe",
        b"\xc3",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        "é\u{202e}\u{2028}\u{85}".as_bytes(),
        b"#012#000\\n\\x00",
        b"%msg%%$!all-json%",
        b"\t",
        b" ",
        b"\\\"]",
    ];
    let piece = prop_oneof![3 => select(pieces).prop_map(<[u8]>::to_vec), 1 => vec(any::<u8>(), 0..20)];
    let whole = vec(piece.clone(), 0..12).prop_map(|pieces| pieces.concat());
    // The cut may be after any byte, so the text has no bytes that rsyslog removes from the end of a message.
    let long = (piece, 3 * LONGEST..4 * LONGEST).prop_map(|(piece, length)| {
        let bytes: Vec<u8> = piece.into_iter().filter(|byte| !b"\0\n".contains(byte)).chain([b'x']).collect();
        bytes.into_iter().cycle().take(length).collect()
    });
    prop_oneof![9 => whole, 1 => long]
}

/// An input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Datagrams,
    Lines,
    Counted,
    CountedByTls,
}

impl Way {
    const ALL: [Self; 4] = [Self::Datagrams, Self::Lines, Self::Counted, Self::CountedByTls];

    fn send(self, wire: &mut Wire, message: &[u8]) {
        match self {
            Self::Datagrams => wire.send(message),
            Self::Lines => wire.send(&[message, b"\n"].concat()),
            Self::Counted | Self::CountedByTls => wire.send(&counted(message)),
        }
    }

    /// Lines in LF framing cannot contain LF.
    fn can_carry(self, text: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Lines => text.into_iter().filter(|byte| *byte != b'\n').collect(),
            _ => text,
        }
    }
}

/// A real rsyslog, how the relay sends to it, and its expected output.
struct Collector {
    _program: Program,
    dir: TempDir,
    url: String,
    framing: &'static str,
    expected: Vec<u8>,
}

impl Collector {
    fn start(input: Input, framing: &'static str) -> Option<Self> {
        let dir = TempDir::new().expect("a directory");
        let program = rsyslog::find(input)?;
        let properties = ["pri", "hostname", "app-name", "procid", "msgid"];
        let (program, at) = rsyslog::start(&program, input, dir.path(), &properties);
        let scheme = match input {
            Input::Udp => "udp",
            Input::Tcp => "tcp",
            Input::Tls => "tcp+tls",
            Input::Relp => "relp",
        };
        Some(Self { _program: program, dir, url: format!("{scheme}://{at}"), framing, expected: Vec::new() })
    }

    fn keys(&self) -> String {
        let framing = match self.framing {
            "" => String::new(),
            framing => format!("framing = \"{framing}\"\n"),
        };
        framing + &Certs::trusted(&self.url)
    }

    fn expects(&mut self, text: &[u8]) {
        // Five properties, and an empty container.
        self.expected.extend_from_slice(b"13\thost.example.com\tapp\t77\tid\t\t\t\t");
        // A LF is #012, whether the relay or rsyslog has escaped it.
        self.expected.extend_from_slice(&rsyslog::escaped(text));
        self.expected.push(b'\n');
    }

    #[track_caller]
    fn has_all(&self) {
        let path = self.dir.path().join(ARRIVED);
        let read = || fs::read(&path).unwrap_or_default();
        // A timeout is ignored here: the comparison below shows the difference.
        within(PATIENCE, || (read().len() >= self.expected.len()).then_some(()));
        let arrived = read();
        let same = arrived.iter().zip(&self.expected).take_while(|(a, b)| a == b).count();
        let from = same.saturating_sub(40);
        let show = |bytes: &[u8]| shown(&bytes[from.min(bytes.len())..]);
        assert!(arrived == self.expected, "by {}:\n{}\nand not\n{}", self.url, show(&arrived), show(&self.expected));
    }
}

#[test]
fn any_bytes_arrive_as_they_were_sent() {
    let ways_out = [(Input::Udp, ""), (Input::Tcp, "newline"), (Input::Tcp, "octet-counting"), (Input::Tls, "")];
    let mut collectors = Vec::new();
    for (input, framing) in ways_out {
        let Some(collector) = Collector::start(input, framing) else { return };
        collectors.push(collector);
    }
    let keys = format!("max-frame = \"{LONGEST}B\"\n");
    let mut setup = Setup::new()
        .listen_with("udp://127.0.0.1:0", &keys)
        .listen_with("tcp://127.0.0.1:0", &keys)
        .listen_with("tcp+tls://127.0.0.1:0", &(keys.clone() + &Certs::get().listen()));
    for (at, collector) in collectors.iter().enumerate() {
        setup = setup.forward_with(&collector.url, &format!("name = \"way-{at}\"\n{}", collector.keys()));
    }
    let relay = setup.start();
    // Deterministic, so that a failure can be reproduced.
    let mut runner = TestRunner::deterministic();
    let mut sent = 0;
    for way in Way::ALL {
        let mut wire = match way {
            Way::Datagrams => relay.doors()[0].connect(),
            Way::Lines | Way::Counted => relay.doors()[1].connect(),
            Way::CountedByTls => relay.doors()[2].connect_tls(TlsClient::ANONYMOUS),
        };
        for number in 0..MESSAGES {
            let text = way.can_carry(texts().new_tree(&mut runner).expect("a text").current());
            // The text is enclosed, so that framing affects none of its bytes.
            let message = [HEADER.as_bytes(), format!("{way:?} {number} ").as_bytes(), &text, b"."].concat();
            way.send(&mut wire, &message);
            let kept = &message[HEADER.len()..message.len().min(LONGEST)];
            collectors.iter_mut().for_each(|collector| collector.expects(kept));
            sent += 1;
            if number % AT_ONCE == AT_ONCE - 1 {
                collectors.iter().for_each(Collector::has_all);
            }
        }
    }
    relay.has_delivered(sent, 0);
    assert_eq!(relay.metrics().with("listen_received_total", "unknown"), 0);
    relay.stops();
}
