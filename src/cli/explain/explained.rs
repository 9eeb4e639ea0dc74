//! What is known of a message, as data: for people and for programs the same. In JSON the keys are these fields' names, in
//! this order; docs/operations.md has them.

use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::config::{self, Config, Framing};
use crate::forward;
use crate::protocol::syslog::{Frame, ListenerMark, Senders, Settings, Shape, StampOrigin, Translator, parse};
use crate::record::{FACILITIES, HeaderField, Record, Rule, SEVERITIES, Stamp, escape, stamp_text};

#[derive(Serialize)]
pub struct Explained {
    /// Counts the messages, from 1.
    pub number: usize,
    /// Of the message, without its octet count or newline.
    pub bytes: usize,
    #[serde(serialize_with = "framing_word")]
    pub framing: Framing,
    /// Longer than `max-frame`, or its input ended too early: only its start is there.
    pub cut: bool,
    pub received: String,
    pub input: Bytes,
    #[serde(serialize_with = "shape_word")]
    pub understood_as: Shape,
    pub facility: &'static str,
    pub severity: &'static str,
    pub timestamp: Bytes,
    pub timestamp_origin: &'static str,
    pub timestamp_because: String,
    pub host: Bytes,
    /// As the sender wrote it.
    pub tag: Option<Bytes>,
    pub app_name: Bytes,
    pub proc_id: Bytes,
    pub msg_id: Bytes,
    pub image_name: Option<Bytes>,
    pub container_name: Option<Bytes>,
    pub container_id: Option<Bytes>,
    /// As it stands in the line.
    pub structured_data: Bytes,
    pub message: Bytes,
    /// What would be in the spool.
    pub line: Bytes,
    pub escaped: Vec<&'static str>,
    /// The `[[drop]]` rule that means it, if one does: then it goes nowhere.
    pub dropped_by: Option<String>,
    pub forwards: Vec<Output>,
    /// The forwards whose `match` does not mean it.
    pub filtered_by: Vec<String>,
    /// The key of before for `filtered_by`, for one version.
    pub unwanted_by: Vec<String>,
    #[serde(skip)]
    pub priority: u8,
}

/// What one target of a forward would be sent.
#[derive(Serialize)]
pub struct Output {
    pub forward: String,
    pub to: String,
    pub format: String,
    /// `None`: the transport keeps messages apart (a datagram, a RELP frame).
    #[serde(serialize_with = "maybe_framing_word")]
    pub framing: Option<Framing>,
    pub bytes: usize,
    pub output: Bytes,
    pub escaped: Vec<&'static str>,
    #[serde(skip)]
    pub is_datagram: bool,
}

/// Bytes that are most often text. In JSON they are written as `format = "json"` writes what is none, and named in
/// `escaped`.
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    fn is_text(&self) -> bool {
        std::str::from_utf8(&self.0).is_ok()
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => serializer.serialize_str(&escape(&self.0)),
        }
    }
}

/// Explains one message after the other.
pub struct Explainer<'c> {
    settings: Arc<Settings>,
    mark: ListenerMark,
    senders: Senders,
    config: &'c Config,
    count: usize,
}

impl<'c> Explainer<'c> {
    /// `listener`: the name of the one that messages come in by.
    pub fn new(config: &'c Config, listener: Option<&str>, senders: Senders) -> Self {
        let mark = ListenerMark::new(listener, config.listen.iter().any(|listener| listener.name.is_some()));
        Self { settings: Arc::new(config.syslog_settings()), mark, senders, config, count: 0 }
    }

    /// Messages explained.
    pub fn count(&self) -> usize {
        self.count
    }

    pub fn explain(&mut self, frame: &Frame<'_>, framing: Framing) -> Explained {
        self.count += 1;
        let reading = parse(frame, &self.settings, self.senders);
        let mut line = Vec::new();
        // A new one each time: nothing that came before may have a say.
        let mut translator = Translator::new(self.settings.clone());
        translator.listen_to(self.mark.clone(), self.senders);
        translator.translate(frame, &mut line);
        let record = Record::from_line(&line, &self.settings.sd_id);
        let origin = reading
            .record
            .timestamp
            .as_ref()
            .map_or(StampOrigin::Received, |stamp| StampOrigin::of(stamp, frame.received));
        let bytes = |bytes: &[u8]| Bytes(bytes.to_vec());
        let header = |field| Bytes(HeaderField::or_nil(field).into_owned());
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
        let mut explained = Explained {
            number: self.count,
            bytes: frame.bytes.len(),
            framing,
            cut: frame.cut,
            received: stamp_text(&Stamp::Received(frame.received)),
            input: bytes(frame.bytes),
            understood_as: reading.shape,
            facility: FACILITIES.get(usize::from(record.facility)).copied().unwrap_or_default(),
            severity: SEVERITIES.get(usize::from(record.severity)).copied().unwrap_or_default(),
            timestamp: Bytes(record.stamp_text().into_bytes()),
            timestamp_origin: origin_word(origin),
            timestamp_because: because(origin),
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
        explained.escaped = explained.not_text();
        explained
    }

    /// Where the line goes, and as what.
    fn outputs(&self, forwards: &[&config::Forward], line: &[u8]) -> Vec<Output> {
        let each = forwards.iter().flat_map(|settings| settings.to.iter().map(move |target| (settings, target)));
        each.map(|(settings, target)| {
            let encoding = forward::encoding(settings, target, &self.settings.sd_id);
            let mut output = Vec::new();
            encoding.append(line, &mut Vec::new(), &mut output);
            let output = Bytes(output);
            Output {
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

impl Explained {
    fn not_text(&self) -> Vec<&'static str> {
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

fn origin_word(origin: StampOrigin) -> &'static str {
    match origin {
        StampOrigin::Written => "written",
        StampOrigin::Respelt => "respelt",
        StampOrigin::Live { .. } => "live",
        StampOrigin::Configured { .. } => "configured",
        StampOrigin::Received => "received",
    }
}

fn because(origin: StampOrigin) -> String {
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

fn word(framing: Framing) -> &'static str {
    match framing {
        Framing::OctetCounting => "octet-counting",
        Framing::Newline => "newline",
    }
}

fn framing_word<S: Serializer>(framing: &Framing, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(word(*framing))
}

fn maybe_framing_word<S: Serializer>(framing: &Option<Framing>, serializer: S) -> Result<S::Ok, S::Error> {
    framing.map(word).serialize(serializer)
}

fn shape_word<S: Serializer>(shape: &Shape, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(shape.as_str())
}
