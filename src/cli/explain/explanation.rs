//! The explanation of a message, as data. It is the source of the text for people and of the JSON for programs. The fields'
//! names, in this order, are the keys of the JSON, which docs/commands.md lists.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::fields::{FieldExplanation, explained};
use super::input::ReadAs;
use super::steps::StepsExplanation;
use crate::config::{self, Config, Framing, Multiline};
use crate::forward::{Shown, shape, shown};
use crate::listen::multiline_key;
use crate::protocol::framing::FoundBy;
use crate::protocol::session::{Protocol, ToRecord, Violation};
use crate::protocol::syslog::{
    Frame, Listening, LocalAddresses, Settings, Shape, StampOrigin, Translator, has_priority, parse,
};
use crate::record::{
    Container, FACILITIES, HeaderField, Record, Rule, SEVERITIES, Stamp, UnixMicros, escape, stamp_text,
};
use crate::shape::{self, Shaped, Tally, Trace};

/// A message or a refusal that was found in the input.
pub enum Finding {
    Message(Box<Explanation>),
    Refused(RefusedInput),
}

/// Input that a relay refuses.
#[derive(Serialize)]
pub struct RefusedInput {
    /// The number of the refusal, counted with the messages.
    pub number: usize,
    /// The `reason` label of logferry_listen_refused_total.
    pub refused: &'static str,
    pub because: String,
}

/// How a message is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Understood {
    Syslog(Shape),
    Other(ReadAs),
}

/// The explanation of one message.
#[derive(Serialize)]
pub struct Explanation {
    /// The number of the message in the input, from 1.
    pub number: usize,
    /// The length of the message, without its octet count or newline. Only syslog has a frame for each message.
    pub bytes: Option<usize>,
    #[serde(serialize_with = "serialize_found_by")]
    pub framing: Option<FoundBy>,
    /// Is only the start of the message there, because the message is longer than `max-frame`, or because the input ended too
    /// early?
    pub cut: bool,
    pub received: String,
    pub input: Option<ByteString>,
    #[serde(serialize_with = "serialize_understood")]
    pub understood_as: Understood,
    pub facility: &'static str,
    pub severity: &'static str,
    pub timestamp: ByteString,
    pub timestamp_origin: &'static str,
    pub timestamp_because: String,
    pub host: ByteString,
    /// The tag as the sender wrote it.
    pub tag: Option<ByteString>,
    /// Does the tag of a container fit a template? `None`: the sender is no container.
    pub tag_fits: Option<bool>,
    pub app_name: ByteString,
    pub proc_id: ByteString,
    pub msg_id: ByteString,
    pub image_name: Option<ByteString>,
    pub container_name: Option<ByteString>,
    pub container_id: Option<ByteString>,
    /// The structured data as in the line.
    pub structured_data: ByteString,
    pub fields: Vec<FieldExplanation>,
    /// The number of fields that exceed the limits of a line.
    pub fields_left_out: u32,
    pub message: ByteString,
    /// The line that a relay would spool.
    pub line: ByteString,
    /// The keys whose values are escaped, because they are not UTF-8.
    pub escaped: Vec<&'static str>,
    /// The `[[drop]]` rule that matches the message. A dropped message goes to no forward.
    pub dropped_by: Option<String>,
    /// The `[[sample]]` rule that matches the message. Of such messages only one in `one-of` is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampled_by: Option<String>,
    /// Has a `[[mask]]` at intake hidden a part of the message?
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub masked: bool,
    /// The number of the message that this one continues (`multiline`). This one is not sent by itself.
    pub joined_to: Option<usize>,
    /// The steps of each forward, including forwards that filter the message.
    pub steps: Vec<StepsExplanation>,
    pub forwards: Vec<ForwardOutput>,
    /// The forwards whose `match` does not match the message.
    pub filtered_by: Vec<String>,
    /// The old key of `filtered_by`, kept for one version.
    pub unwanted_by: Vec<String>,
    #[serde(skip)]
    pub priority: u8,
}

/// The result for a line: the rules that match, the steps and the outputs.
pub struct Destiny {
    pub dropped_by: Option<String>,
    /// The `[[sample]]` rule that matches the line.
    sampled_by: Option<String>,
    /// The line after the masks at intake; `None`: they hide nothing.
    hidden: Option<Vec<u8>>,
    pub steps: Vec<StepsExplanation>,
    pub forwards: Vec<ForwardOutput>,
}

/// The bytes for one target of a forward.
#[derive(Serialize)]
pub struct ForwardOutput {
    pub forward: String,
    pub to: String,
    pub format: String,
    /// `None`: the protocol separates messages (a datagram, a RELP frame).
    #[serde(serialize_with = "serialize_optional_framing")]
    pub framing: Option<Framing>,
    pub bytes: usize,
    pub output: ByteString,
    pub escaped: Vec<&'static str>,
    /// The carrier of the message if there is no framing.
    #[serde(skip)]
    pub within: String,
}

/// Bytes that are usually text. In JSON, text is written as it is, and other bytes are escaped as in `format = "json"`.
pub struct ByteString(pub Vec<u8>);

impl ByteString {
    pub fn is_text(&self) -> bool {
        std::str::from_utf8(&self.0).is_ok()
    }
}

impl Serialize for ByteString {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => serializer.serialize_str(&escape(&self.0)),
        }
    }
}

/// A message as it was received, with data that its line does not have.
struct Came<'f> {
    /// The frame; only for syslog.
    frame: Option<(&'f Frame<'f>, FoundBy)>,
    cut: bool,
    received: UnixMicros,
    understood_as: Understood,
    origin: StampOrigin,
    /// The tag as the sender wrote it.
    tag: Option<Vec<u8>>,
    tag_fits: Option<bool>,
    line: Vec<u8>,
}

fn origin(stamp: Option<&Stamp<'_>>, received: UnixMicros) -> StampOrigin {
    stamp.map_or(StampOrigin::Received, |stamp| StampOrigin::of(stamp, received))
}

/// Explains the messages that one listener would receive.
pub struct Explainer<'c> {
    settings: Arc<Settings>,
    listening: Listening,
    /// The sender, if it is known, and the addresses of this machine.
    peer: Option<IpAddr>,
    local: Arc<LocalAddresses>,
    config: &'c Config,
    /// The masks at intake.
    masks: Option<shape::Shape>,
    /// The shape of each forward, in the order of the config.
    shapes: Vec<shape::Shape>,
    /// Whether every message is kept, whatever `[[sample]]` says: RELP's messages are.
    keeps_all: bool,
    count: usize,
    /// Which lines continue the message before them.
    multiline: Multiline,
    is_datagram: bool,
    /// The last message with each header, and the last message of all.
    begun: HashMap<Vec<u8>, usize>,
    last: Option<usize>,
}

impl<'c> Explainer<'c> {
    /// `listener` receives the messages. `peer` is the sender, if it is known.
    pub fn new(
        config: &'c Config,
        listener: Option<&config::Listen>,
        (peer, local): (Option<IpAddr>, LocalAddresses),
    ) -> Self {
        let mut settings = config.syslog_settings();
        let listening = config::listening(listener, &config.listen, config::intake_rules(&config.drop, &config.sample));
        settings.time_zone = listening.zones.of(peer).cloned().or(settings.time_zone);
        let multiline = listener.map_or(Multiline::Off, |listener| listener.multiline.clone());
        let is_datagram = listener.is_some_and(|listener| listener.address.is_datagram());
        let masks = shape::Shape::of_masks(config.intake_masks(), &settings.sd_id);
        let shapes = config.forward.iter().map(|forward| shape(forward, &settings.sd_id)).collect();
        let keeps_all = listener.is_some_and(|listener| listener.address.protocol() == Protocol::Relp);
        let (settings, local, begun) = (Arc::new(settings), Arc::new(local), HashMap::new());
        Self {
            settings,
            listening,
            peer,
            local,
            config,
            masks,
            shapes,
            keeps_all,
            count: 0,
            multiline,
            is_datagram,
            begun,
            last: None,
        }
    }

    /// The number of messages and refusals so far.
    pub fn count(&self) -> usize {
        self.count
    }

    pub fn explain(&mut self, frame: &Frame<'_>, framing: FoundBy) -> Explanation {
        let settings = self.settings.clone();
        let reading = parse(frame, &settings, self.listening.senders);
        let mut line = Vec::new();
        self.translator().translate(frame, &mut line);
        let Record { timestamp, app_name, tag, container, .. } = &reading.record;
        // In RFC 5424 the tag is APP-NAME.
        let app_name = || app_name.map(|field| field.said());
        let tag = tag.as_deref().or_else(|| app_name().filter(|_| reading.shape == Shape::Rfc5424));
        self.explain_line(Came {
            frame: Some((frame, framing)),
            cut: frame.cut,
            received: frame.received,
            understood_as: Understood::Syslog(reading.shape),
            origin: origin(timestamp.as_ref(), frame.received),
            tag: tag.map(<[u8]>::to_vec),
            tag_fits: container.as_ref().filter(|_| reading.shape == Shape::Docker).map(Container::is_known),
            line,
        })
    }

    /// Explains a message of another protocol than syslog.
    pub fn explain_record(&mut self, said: &impl ToRecord, by: ReadAs, received: UnixMicros) -> Explanation {
        let mut translator = self.translator();
        let message = translator.take(said, received);
        let Record { timestamp, tag, container, .. } = &message.record;
        let mut came = Came {
            frame: None,
            cut: said.is_cut(),
            received,
            understood_as: Understood::Other(by),
            origin: origin(timestamp.as_ref(), received),
            tag: tag.as_deref().map(<[u8]>::to_vec),
            tag_fits: container.as_ref().map(Container::is_known),
            line: Vec::new(),
        };
        message.write(&mut came.line);
        self.explain_line(came)
    }

    /// Explains a refusal.
    pub fn refuse(&mut self, why: &Violation) -> RefusedInput {
        self.count += 1;
        RefusedInput { number: self.count, refused: why.name, because: why.why.to_string() }
    }

    /// A new translator, so that no message depends on an earlier one.
    fn translator(&self) -> Translator {
        let mut translator = Translator::new(self.settings.clone());
        translator.set_local(self.local.clone());
        translator.set_peer(self.peer);
        translator.listen_to(self.listening.clone());
        translator
    }

    fn explain_line(&mut self, came: Came<'_>) -> Explanation {
        self.count += 1;
        let settings = self.settings.clone();
        let Came { cut, received, understood_as, origin, tag_fits, .. } = came;
        let said = Record::from_line(&came.line, &settings.sd_id);
        let bytes = |bytes: &[u8]| ByteString(bytes.to_vec());
        let header = |field| ByteString(HeaderField::or_nil(field).into_owned());
        let joined_to = self.joined_to(&came, &said);
        let Destiny { dropped_by, sampled_by, hidden, steps, forwards } = self.destiny(&came.line, joined_to.is_none());
        let line = hidden.as_deref().unwrap_or(&came.line);
        let record = Record::from_line(line, &settings.sd_id);
        let filtered = steps.iter().filter(|steps| steps.filtered);
        let filtered_by: Vec<String> = filtered.map(|steps| steps.forward.clone()).collect();
        let mut explanation = Explanation {
            number: self.count,
            bytes: came.frame.map(|(frame, _)| frame.bytes.len()),
            framing: came.frame.map(|(_, framing)| framing),
            cut,
            received: stamp_text(&Stamp::Received(received)),
            input: came.frame.map(|(frame, _)| bytes(frame.bytes)),
            understood_as,
            facility: FACILITIES.get(usize::from(record.facility)).copied().unwrap_or_default(),
            severity: SEVERITIES.get(usize::from(record.severity)).copied().unwrap_or_default(),
            timestamp: ByteString(record.stamp_text().into_bytes()),
            timestamp_origin: origin_keyword(origin),
            timestamp_because: origin_reason(origin),
            host: header(record.hostname),
            tag: came.tag.as_deref().map(bytes),
            tag_fits,
            app_name: header(record.app_name),
            proc_id: header(record.proc_id),
            msg_id: header(record.msg_id),
            image_name: record.image_name().map(bytes),
            container_name: record.container_name().map(bytes),
            container_id: record.container_id().map(bytes),
            structured_data: bytes(record.structured_data.as_sent()),
            fields: explained(&record.fields),
            fields_left_out: record.fields.left_out(),
            message: bytes(record.message.unwrap_or_default()),
            line: bytes(line),
            escaped: Vec::new(),
            joined_to,
            steps,
            forwards,
            filtered_by: filtered_by.clone(),
            unwanted_by: filtered_by,
            dropped_by,
            sampled_by,
            masked: hidden.is_some(),
            priority: record.facility * 8 + record.severity,
        };
        explanation.escaped = explanation.keys_without_text();
        explanation
    }

    /// The line after the masks at intake; `None`: they hide nothing.
    fn hidden(&self, line: &[u8]) -> Option<Vec<u8>> {
        let (mut hidden, mut tally) = (Vec::new(), Tally::default());
        let shaped = self.masks.as_ref()?.apply_to_all(line, &mut hidden, &mut tally);
        (shaped == Shaped::Changed).then_some(hidden)
    }

    /// The number of the message that this one continues. The result is that of a listener for messages in quick succession.
    fn joined_to(&mut self, came: &Came<'_>, record: &Record<'_>) -> Option<usize> {
        // Of datagrams, only those of containers are known to belong together.
        if self.multiline == Multiline::Off || self.is_datagram && record.container.is_none() {
            return None;
        }
        let text = record.message.unwrap_or_default();
        let Came { line, cut, .. } = came;
        let key = multiline_key(("", 0), &line[..line.len() - text.len()]).unwrap_or_default();
        let is_bare = !self.is_datagram && came.frame.is_some_and(|(frame, _)| !has_priority(frame.bytes));
        let last = if is_bare { self.last } else { self.begun.get(&key).copied() };
        let joined = last.filter(|_| !cut && self.multiline.is_further(text));
        let begins = joined.is_none() && !cut && !text.is_empty();
        self.last = joined.or(begins.then_some(self.count));
        if joined.is_none() {
            match begins {
                true => self.begun.insert(key, self.count),
                false => self.begun.remove(&key),
            };
        }
        joined
    }

    /// The result for a line. A line that continues another goes to no forward.
    fn destiny(&self, line: &[u8], is_whole: bool) -> Destiny {
        let record = Record::from_line(line, &self.settings.sd_id);
        // `[[drop]]` and `[[sample]]` are applied before there is a line, when the peer is still known.
        let sent = Record { peer: record.peer.or(self.peer), ..record };
        let dropped_by = Rule::first_match(&self.config.drop, &sent).map(ToString::to_string);
        let mut samples = self.config.sample.iter().filter(|_| dropped_by.is_none() && !self.keeps_all);
        let sampled_by = samples.find(|sample| sample.rule.matches(&sent));
        let sampled_by = sampled_by.map(|sample| format!("one of {}: {}", sample.one_of, sample.rule));
        let hidden = self.hidden(line);
        let line = hidden.as_deref().unwrap_or(line);
        let forwards = self.config.forward.iter().filter(|_| dropped_by.is_none() && is_whole);
        let shaped = forwards.clone().zip(&self.shapes);
        let steps: Vec<_> = shaped.map(|(forward, shape)| steps(forward, shape, line)).collect();
        let outputs = forwards.zip(&steps).flat_map(|(forward, steps)| self.outputs(forward, steps)).collect();
        Destiny { dropped_by, sampled_by, steps, forwards: outputs, hidden }
    }

    /// The result for a message that is joined with its further lines.
    pub fn destiny_of_joined(&self, first: &Explanation, further: &[&Explanation]) -> Destiny {
        let mut line = first.line.0.clone();
        for explanation in further {
            line.push(b'\n');
            line.extend_from_slice(&explanation.message.0);
        }
        self.destiny(&line, true)
    }

    /// The output for each target of a forward, for the line that it sends.
    fn outputs(&self, settings: &config::Forward, steps: &StepsExplanation) -> Vec<ForwardOutput> {
        let Some(line) = &steps.line else { return Vec::new() };
        let output = |target| {
            let Shown { format, framing, within, bytes } = shown(settings, target, &self.settings.sd_id, line);
            let output = ByteString(bytes);
            ForwardOutput {
                forward: settings.name.clone(),
                to: target.to_string(),
                format,
                framing,
                bytes: output.0.len(),
                escaped: if output.is_text() { Vec::new() } else { vec!["output"] },
                output,
                within,
            }
        };
        settings.to.iter().map(output).collect()
    }
}

/// The steps of a forward for a line.
fn steps(settings: &config::Forward, shape: &shape::Shape, line: &[u8]) -> StepsExplanation {
    let (mut out, mut tally, mut trace) = (Vec::new(), Tally::default(), Trace::default());
    let shaped = shape.trace(line, &mut out, &mut tally, &mut trace);
    if shaped == Shaped::AsItIs {
        out.extend_from_slice(line);
    }
    StepsExplanation::new(settings, trace, &tally, (shaped, out))
}

impl Explanation {
    /// The keys whose values are not UTF-8.
    fn keys_without_text(&self) -> Vec<&'static str> {
        let fields = [
            ("input", self.input.as_ref()),
            ("timestamp", Some(&self.timestamp)),
            ("host", Some(&self.host)),
            ("tag", self.tag.as_ref()),
            ("app_name", Some(&self.app_name)),
            ("proc_id", Some(&self.proc_id)),
            ("msg_id", Some(&self.msg_id)),
            ("image_name", self.image_name.as_ref()),
            ("container_name", self.container_name.as_ref()),
            ("container_id", self.container_id.as_ref()),
            ("structured_data", Some(&self.structured_data)),
            ("message", Some(&self.message)),
            ("line", Some(&self.line)),
        ];
        fields.iter().filter(|(_, field)| field.is_some_and(|field| !field.is_text())).map(|(name, _)| *name).collect()
    }
}

fn origin_keyword(origin: StampOrigin) -> &'static str {
    match origin {
        StampOrigin::Written => "written",
        StampOrigin::Respelt => "respelt",
        StampOrigin::Live { .. } => "live",
        StampOrigin::Configured { .. } | StampOrigin::Late { .. } => "configured",
        StampOrigin::Received => "received",
    }
}

fn origin_reason(origin: StampOrigin) -> String {
    match origin {
        StampOrigin::Written => "as the sender wrote it".to_owned(),
        StampOrigin::Respelt => "as the sender wrote it, in the form that RFC 5424 allows".to_owned(),
        StampOrigin::Live { offset } => {
            let (minutes, zone) = (offset.seconds().abs() / 60, format!("so the sender's zone is {offset}"));
            let apart = match offset.seconds() {
                0 => String::new(),
                east if east > 0 => format!("{}:{:02} ahead of ", minutes / 60, minutes % 60),
                _ => format!("{}:{:02} behind ", minutes / 60, minutes % 60),
            };
            format!("it has neither year nor zone; to the quarter hour it is {apart}when it was read, {zone}")
        }
        StampOrigin::Configured { offset, distance } => {
            format!(
                "it has no zone of its own; `time-zone` says {offset}, where it is {} from when it was read",
                far(distance)
            )
        }
        StampOrigin::Late { distance } => format!(
            "it has neither year nor zone; it is {} from when it was read, too far to tell the zone: `time-zone` says UTC",
            far(distance)
        ),
        StampOrigin::Received => {
            "the sender gave none, or none that can be: it is when the message was read".to_owned()
        }
    }
}

/// The time between a timestamp and the receipt of its message.
fn far(seconds: i64) -> String {
    let (number, unit) = match seconds.abs() {
        seconds @ 0..120 => (seconds, "second"),
        seconds @ 120..7200 => (seconds / 60, "minute"),
        seconds @ 7200..86_400 => (seconds / 3600, "hour"),
        seconds => (seconds / 86_400, "day"),
    };
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}

fn framing_keyword(framing: Framing) -> &'static str {
    match framing {
        Framing::OctetCounting => "octet-counting",
        Framing::Newline => "newline",
        Framing::Nul => "nul",
    }
}

fn serialize_found_by<S: Serializer>(found_by: &Option<FoundBy>, serializer: S) -> Result<S::Ok, S::Error> {
    let keyword = |found_by| match found_by {
        FoundBy::Count => framing_keyword(Framing::OctetCounting),
        FoundBy::Line => framing_keyword(Framing::Newline),
        FoundBy::Nul => "nul",
    };
    found_by.map(keyword).serialize(serializer)
}

fn serialize_optional_framing<S: Serializer>(framing: &Option<Framing>, serializer: S) -> Result<S::Ok, S::Error> {
    framing.map(framing_keyword).serialize(serializer)
}

fn serialize_understood<S: Serializer>(understood: &Understood, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match understood {
        Understood::Syslog(shape) => shape.as_str(),
        Understood::Other(protocol) => protocol.keyword(),
    })
}
