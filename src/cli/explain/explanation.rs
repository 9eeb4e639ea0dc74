//! The explanation of a message, as data. The text for people and the JSON for programs are both made from it; the fields'
//! names, in this order, are the keys of the JSON, which docs/operations.md lists.

use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::config::{self, Config, Framing};
use crate::forward;
use crate::protocol::syslog::{Frame, ListenerMark, Senders, Settings, Shape, StampOrigin, Translator, parse};
use crate::record::{FACILITIES, HeaderField, Record, Rule, SEVERITIES, Stamp, escape, stamp_text};

/// What a relay makes of one message.
#[derive(Serialize)]
pub struct Explanation {
    /// The number of the message in the input, from 1.
    pub number: usize,
    /// The length of the message, without its octet count or newline.
    pub bytes: usize,
    #[serde(serialize_with = "serialize_framing")]
    pub framing: Framing,
    /// Is only the start of the message there, because it is longer than `max-frame` or the input ended too early?
    pub cut: bool,
    pub received: String,
    pub input: ByteString,
    #[serde(serialize_with = "serialize_shape")]
    pub understood_as: Shape,
    pub facility: &'static str,
    pub severity: &'static str,
    pub timestamp: ByteString,
    pub timestamp_origin: &'static str,
    pub timestamp_because: String,
    pub host: ByteString,
    /// The tag as the sender wrote it.
    pub tag: Option<ByteString>,
    pub app_name: ByteString,
    pub proc_id: ByteString,
    pub msg_id: ByteString,
    pub image_name: Option<ByteString>,
    pub container_name: Option<ByteString>,
    pub container_id: Option<ByteString>,
    /// The structured data as it stands in the line.
    pub structured_data: ByteString,
    pub message: ByteString,
    /// The line that a relay would spool.
    pub line: ByteString,
    /// The keys whose values are escaped, because they are not UTF-8.
    pub escaped: Vec<&'static str>,
    /// The `[[drop]]` rule that matches the message. A dropped message goes to no forward.
    pub dropped_by: Option<String>,
    pub forwards: Vec<ForwardOutput>,
    /// The forwards whose `match` does not match the message.
    pub filtered_by: Vec<String>,
    /// The old key of `filtered_by`, for one version.
    pub unwanted_by: Vec<String>,
    #[serde(skip)]
    pub priority: u8,
}

/// The bytes that one target of a forward would be sent.
#[derive(Serialize)]
pub struct ForwardOutput {
    pub forward: String,
    pub to: String,
    pub format: String,
    /// `None`: the transport keeps messages apart (a datagram, a RELP frame).
    #[serde(serialize_with = "serialize_optional_framing")]
    pub framing: Option<Framing>,
    pub bytes: usize,
    pub output: ByteString,
    pub escaped: Vec<&'static str>,
    #[serde(skip)]
    pub is_datagram: bool,
}

/// ByteString that are most often text. JSON has text as it is, and other bytes escaped as in `format = "json"`.
pub struct ByteString(pub Vec<u8>);

impl ByteString {
    fn is_text(&self) -> bool {
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

/// Explains the messages that one listener would receive.
pub struct Explainer<'c> {
    settings: Arc<Settings>,
    mark: ListenerMark,
    senders: Senders,
    config: &'c Config,
    count: usize,
}

impl<'c> Explainer<'c> {
    /// `listener` is the name of the listener that receives the messages.
    pub fn new(config: &'c Config, listener: Option<&str>, senders: Senders) -> Self {
        let mark = ListenerMark::new(listener, config.listen.iter().any(|listener| listener.name.is_some()));
        Self { settings: Arc::new(config.syslog_settings()), mark, senders, config, count: 0 }
    }

    /// Counts the messages explained so far.
    pub fn count(&self) -> usize {
        self.count
    }

    pub fn explain(&mut self, frame: &Frame<'_>, framing: Framing) -> Explanation {
        self.count += 1;
        let reading = parse(frame, &self.settings, self.senders);
        let mut line = Vec::new();
        // A new translator each time, so that no message depends on an earlier one.
        let mut translator = Translator::new(self.settings.clone());
        translator.listen_to(self.mark.clone(), self.senders);
        translator.translate(frame, &mut line);
        let record = Record::from_line(&line, &self.settings.sd_id);
        let origin = reading
            .record
            .timestamp
            .as_ref()
            .map_or(StampOrigin::Received, |stamp| StampOrigin::of(stamp, frame.received));
        let bytes = |bytes: &[u8]| ByteString(bytes.to_vec());
        let header = |field| ByteString(HeaderField::or_nil(field).into_owned());
        let dropped_by = Rule::first_match(&self.config.drop, &record).map(ToString::to_string);
        let takes = |forward: &&config::Forward| dropped_by.is_none() && Rule::lets_pass(&forward.matches, &record);
        let (wanting, others): (Vec<_>, Vec<_>) = self.config.forward.iter().partition(takes);
        // In RFC 5424 it is APP-NAME.
        let app_name = || reading.record.app_name.map(|field| field.said());
        let tag = reading.record.tag.as_deref().or_else(|| app_name().filter(|_| reading.shape == Shape::Rfc5424));
        let filtered_by: Vec<String> = match dropped_by {
            Some(_) => Vec::new(),
            None => others.iter().map(|forward| forward.name.clone()).collect(),
        };
        let mut explanation = Explanation {
            number: self.count,
            bytes: frame.bytes.len(),
            framing,
            cut: frame.cut,
            received: stamp_text(&Stamp::Received(frame.received)),
            input: bytes(frame.bytes),
            understood_as: reading.shape,
            facility: FACILITIES.get(usize::from(record.facility)).copied().unwrap_or_default(),
            severity: SEVERITIES.get(usize::from(record.severity)).copied().unwrap_or_default(),
            timestamp: ByteString(record.stamp_text().into_bytes()),
            timestamp_origin: origin_keyword(origin),
            timestamp_because: origin_reason(origin),
            host: header(record.hostname),
            tag: tag.map(bytes),
            app_name: header(record.app_name),
            proc_id: header(record.proc_id),
            msg_id: header(record.msg_id),
            image_name: record.image_name().map(bytes),
            container_name: record.container_name().map(bytes),
            container_id: record.container_id().map(bytes),
            structured_data: bytes(record.structured_data.as_sent()),
            message: bytes(record.message.unwrap_or_default()),
            line: bytes(&line),
            escaped: Vec::new(),
            forwards: self.outputs(&wanting, &line),
            filtered_by: filtered_by.clone(),
            unwanted_by: filtered_by,
            dropped_by,
            priority: record.facility * 8 + record.severity,
        };
        explanation.escaped = explanation.keys_without_text();
        explanation
    }

    /// The output of each target of these forwards for a line.
    fn outputs(&self, forwards: &[&config::Forward], line: &[u8]) -> Vec<ForwardOutput> {
        let each = forwards.iter().flat_map(|settings| settings.to.iter().map(move |target| (settings, target)));
        each.map(|(settings, target)| {
            let encoding = forward::encoding(settings, target, &self.settings.sd_id);
            let mut output = Vec::new();
            encoding.append(line, &mut Vec::new(), &mut output);
            let output = ByteString(output);
            ForwardOutput {
                forward: settings.name.clone(),
                to: target.to_string(),
                format: encoding.format.to_string(),
                framing: encoding.framing,
                bytes: output.0.len(),
                escaped: if output.is_text() { Vec::new() } else { vec!["output"] },
                output,
                is_datagram: target.address.is_udp(),
            }
        })
        .collect()
    }
}

impl Explanation {
    /// The keys whose values are not text.
    fn keys_without_text(&self) -> Vec<&'static str> {
        let fields = [
            ("input", Some(&self.input)),
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
        StampOrigin::Configured { .. } => "configured",
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
            let far = match distance.abs() / 86_400 {
                0 => format!("{} hours", distance.abs() / 3600),
                1 => "1 day".to_owned(),
                days => format!("{days} days"),
            };
            format!(
                "it has neither year nor zone; it is {far} from when it was read, too far to tell the zone: `time-zone` says \
                 {offset}"
            )
        }
        StampOrigin::Received => {
            "the sender gave none, or none that can be: it is when the message was read".to_owned()
        }
    }
}

fn framing_keyword(framing: Framing) -> &'static str {
    match framing {
        Framing::OctetCounting => "octet-counting",
        Framing::Newline => "newline",
    }
}

fn serialize_framing<S: Serializer>(framing: &Framing, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(framing_keyword(*framing))
}

fn serialize_optional_framing<S: Serializer>(framing: &Option<Framing>, serializer: S) -> Result<S::Ok, S::Error> {
    framing.map(framing_keyword).serialize(serializer)
}

fn serialize_shape<S: Serializer>(shape: &Shape, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(shape.as_str())
}
