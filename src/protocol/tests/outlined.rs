//! A message whose outline is known gets the same line as it does without the outline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{file, rows_any};
use crate::protocol::outline::Outline;
use crate::protocol::relp::{NumberedStreams, Proofs};
use crate::protocol::session::{Ack, AnySession, Bounds, Numbers, Protocol, Session, Sink, ToRecord};
use crate::protocol::splunk;
use crate::protocol::syslog::{Senders, Settings, Translator};
use crate::record::UnixMicros;

const RECEIVED: UnixMicros = UnixMicros(1_795_898_357_000_000);

/// Compares each line with the line that the outline predicts.
struct Foretold {
    settings: Arc<Settings>,
    translator: Translator,
    /// The line predicted by the outline, before the message was read.
    line: Option<Vec<u8>>,
    messages: usize,
    foretold: usize,
}

impl Foretold {
    fn new() -> Self {
        let settings = Arc::new(Settings { hostname: "relay-1".to_owned(), ..Settings::default() });
        Self { translator: Translator::new(settings.clone()), settings, line: None, messages: 0, foretold: 0 }
    }

    fn foretell(&mut self, outline: &Outline<'_>) {
        let Some(known) = self.translator.find_outlined(outline, RECEIVED) else { return };
        let mut line = Vec::new();
        self.translator.write_known(&known, &mut line);
        self.line = Some(line);
    }
}

impl Sink for Foretold {
    fn frame(&mut self, _: &[u8], _: bool) -> bool {
        panic!("this protocol has no frames of syslog")
    }

    fn known(&mut self, outline: &Outline<'_>) -> Option<bool> {
        self.line = None;
        self.foretell(outline);
        None
    }

    fn record(&mut self, message: &impl ToRecord) -> bool {
        if let Some(outline) = message.outline() {
            self.foretell(&outline);
        }
        let [mut line, mut remembered] = [Vec::new(), Vec::new()];
        Translator::new(self.settings.clone()).take(message, RECEIVED).write(&mut line);
        self.translator.take(message, RECEIVED).write(&mut remembered);
        let show = |line: &[u8]| line.escape_ascii().to_string();
        assert_eq!(show(&remembered), show(&line));
        self.messages += 1;
        if let Some(foretold) = self.line.take() {
            self.foretold += 1;
            assert_eq!(show(&foretold), show(&line));
        }
        true
    }

    fn ticket(&mut self, _: Ack, _: Option<Numbers<'_>>) {}
}

fn feed(protocol: Protocol, stream: &[u8], to: &mut Foretold) {
    let proofs = Proofs { streams: NumberedStreams::Any, nonce: [0; 32], signer: |_, _, _| None };
    let minute = Duration::from_secs(60);
    let bounds = Bounds {
        max_frame: 1 << 16,
        max_array: 1 << 20,
        max_line: 1 << 20,
        frame_timeout: minute,
        open_timeout: minute,
        proofs,
        senders: Senders::Anybody,
    };
    let mut session = AnySession::new(protocol, bounds).expect("a protocol with sessions");
    let _ = session.feed(stream, Instant::now(), to, &mut Vec::new());
}

fn events(body: &[u8], to: &mut Foretold) {
    let post = splunk::Post { is_raw: false, is_gzip: false, channel: None, given: splunk::Given::default() };
    let limits = splunk::Limits { max_event: 1 << 20, max_message: 1 << 16, max_body: 0 };
    let mut body_of = splunk::Body::new(post, limits, Senders::Anybody);
    let _ = body_of.feed(body, |message| _ = to.record(message));
}

#[test]
fn what_docker_sends_again_and_again_is_foretold() {
    for (protocol, driver, least) in [(Protocol::Fluent, "fluentd", 100), (Protocol::Gelf, "gelf", 60)] {
        let mut files: Vec<_> = rows_of(driver).collect();
        files.dedup();
        let mut to = Foretold::new();
        for name in &files {
            // Twice: the second time most outlines are known.
            (0..2).for_each(|_| feed(protocol, &file(name), &mut to));
        }
        assert!(to.foretold > least, "{driver}: {} of {}", to.foretold, to.messages);
    }
    let event = r#"{"event":{"line":"a \"b\" é","source":"stderr","tag":"nginx/web/413e768d8d07"},"time":"1795898403.057468","host":"h"}"#;
    let mut to = Foretold::new();
    events(event.repeat(3).as_bytes(), &mut to);
    assert_eq!((to.messages, to.foretold), (3, 2));
}

fn rows_of(driver: &str) -> impl Iterator<Item = String> {
    let wanted = driver.to_owned();
    let all = rows_any(move |row| row["file"].starts_with(&wanted) && !row["file"].contains("udp"));
    all.into_iter().map(|row| row["file"].clone())
}

const GELF: &str = r#"{"version":"1.1","host":"h","short_message":"a \"b\" é","timestamp":1795898283.607,"level":6,"_container_id":"ad2d3811b5d3","_container_name":"web","_image_name":"nginx","_tag":"t"}"#;
const PARTS: [&str; 10] =
    ["\\u00e9", "\\ud800", "\\n", "\t", "\"", "\\", "0", ".5", "e9", ",\"short_message\":\"x\",\"timestamp\":1"];

proptest! {
    /// The predictions stay correct for changed messages.
    #[test]
    fn nothing_else_is_foretold(
        changes in proptest::collection::vec((0..GELF.len(), 0..12_usize, 0..PARTS.len()), 0..3),
        again in 0..GELF.len(),
    ) {
        let mut changed = GELF.as_bytes().to_vec();
        for (at, len, part) in changes {
            let at = at.min(changed.len());
            let end = (at + len).min(changed.len());
            changed.splice(at..end, PARTS[part].bytes());
        }
        let mut to = Foretold::new();
        let mut other = changed.clone();
        // This message differs in one byte.
        if let Some(byte) = other.get_mut(again) {
            *byte = b'7';
        }
        for message in [GELF.as_bytes(), &changed, &changed, &other, GELF.as_bytes(), &other] {
            feed(Protocol::Gelf, &[message, b"\0"].concat(), &mut to);
        }
    }
}
