//! An entry as a record. Labels and environment variables of a container can overwrite the keys of Docker's driver, but not its tag. So the
//! tag decides first which container it is. Keys that are invalid or contradict the tag stay fields.

use std::borrow::Cow;

use super::{Entry, Time, Value, json};
use crate::protocol::outline::Outline;
use crate::protocol::session::ToRecord;
use crate::protocol::syslog::{Senders, Settings, is_id};
use crate::record::header::{MAX_APP_NAME, MAX_PROC_ID};
use crate::record::{
    Container, Fields, Fraction, HeaderField, LocalStamp, MAX_FIELD_BYTES, Record, Source, UnixMicros,
    Value as FieldValue, borrowed, escape,
};

/// The keys that may hold the message. The first key in this list counts, wherever it stands in the entry.
const MESSAGE_KEYS: [&[u8]; 4] = [b"log", b"message", b"msg", b"MESSAGE"];
/// The name of the input in the record.
const DRIVER: &[u8] = b"fluent";
/// As in Docker's syslog driver: daemon.info for stdout, daemon.err for stderr.
const INFO: u8 = 3 << 3 | 6;
const ERR: u8 = 3 << 3 | 3;

/// An entry with its tag, and the keys in it that are known.
pub struct Event<'a> {
    tag: &'a [u8],
    entry: Entry<'a>,
    known: Known<'a>,
    /// The joined message, where the entry is the first of several pieces.
    joined: Option<&'a [u8]>,
    /// Whether the record keeps the keys about pieces, if the entry has any.
    is_piece: bool,
    /// The longest message that is kept, in bytes; the rest is cut off.
    max_message: usize,
}

impl<'a> Event<'a> {
    pub fn new(tag: &'a [u8], entry: Entry<'a>, max_message: usize) -> Self {
        Self { tag, entry, known: Known::find(&entry), joined: None, is_piece: true, max_message }
    }

    /// The event of several pieces, if `self` is the first of them.
    pub fn joined(self, message: &'a [u8], is_whole: bool) -> Self {
        Self { joined: Some(message), is_piece: !is_whole, ..self }
    }

    /// The piece that this entry is, if it is a piece.
    pub fn piece(&self) -> Option<Piece<'a>> {
        if !self.known.has_piece_s_id {
            return None;
        }
        let (mut id, mut ordinal, mut is_last) = (None, None, false);
        for (key, value) in self.entry.pairs() {
            match (key.text()?, value.text()) {
                (PARTIAL_ID, text) => id = text,
                (PARTIAL_ORDINAL, text) => ordinal = text.and_then(|text| str::from_utf8(text).ok()?.parse().ok()),
                (PARTIAL_LAST, text) => is_last = text == Some(b"true"),
                _ => {}
            }
        }
        let text = |known: Option<(usize, &'a [u8])>| known.map_or(&b""[..], |(_, text)| text);
        let Known { message, id: container, source, .. } = &self.known;
        let (message, container, source) = (text(*message), text(*container), text(*source));
        Some(Piece { id: id?, ordinal: ordinal?, is_last, container, source, message })
    }

    pub fn tag(&self) -> &'a [u8] {
        self.tag
    }

    pub fn entry(&self) -> Entry<'a> {
        self.entry
    }

    /// The complete message.
    fn message(&self) -> Option<&'a [u8]> {
        self.joined.or(self.known.message.map(|(_, text)| text))
    }
}

impl ToRecord for Event<'_> {
    /// The record names no host: Docker's driver runs on this host.
    fn to_record<'r>(&'r self, settings: &'r Settings, received: UnixMicros) -> Record<'r> {
        let Self { tag, entry, known, .. } = self;
        let mut used = [known.message, None, None, None].map(|key| key.map(|(at, _)| at));
        let text = |key: Option<(usize, &'r [u8])>| key.map(|(_, text)| text);
        let mut use_key = |place: usize, key: Option<(usize, &'r [u8])>| used[place] = key.map(|(at, _)| at);

        let told = settings.tag_templates.split(tag, Senders::Anybody);
        let mut id = told.id.as_ref().and_then(borrowed);
        if let Some(said) = text(known.id).filter(|said| is_id(said))
            && said.starts_with(id.unwrap_or_default())
        {
            id = Some(said);
            use_key(1, known.id);
        }
        let mut name = told.name.as_ref().and_then(borrowed);
        if let Some(said) = text(known.name).map(|said| said.strip_prefix(b"/").unwrap_or(said))
            && !said.is_empty()
            && name.is_none_or(|name| name == said)
        {
            name = Some(said);
            use_key(2, known.name);
        }
        let source = text(known.source).and_then(Source::by_name);
        if source.is_some() {
            use_key(3, known.source);
        }
        let container = Container { image: told.image, name: name.map(Cow::from), id: id.map(Cow::from) };

        let mut record = Record::new(if source == Some(Source::Stderr) { ERR } else { INFO });
        let said = entry.time.and_then(in_utc);
        let unread = entry.time.filter(|_| said.is_none()).map(|time| time.seconds.to_string().into_bytes().into());
        record.date(said, unread, received);
        record.app_name = name.or(id).or(Some(tag)).and_then(|name| HeaderField::legal(name, MAX_APP_NAME));
        record.proc_id = id.and_then(|id| HeaderField::legal(id, MAX_PROC_ID));
        record.container = Some(container).filter(Container::is_known);
        record.tag = Some((*tag).into());
        record.driver = Some(DRIVER.into());
        record.source = source;
        record.fields = fields(entry, &used, self.is_piece);
        record.message = self.message().map(|message| &message[..message.len().min(self.max_message)]);
        record.cut = self.is_cut();
        record
    }

    /// An outline exists where all keys but the message may equal those of the entry before: for entries of Docker's driver, or of Fluent
    /// Bit for FireLens.
    fn outline(&self) -> Option<Outline<'_>> {
        let Known { message, id, name, source, behind, .. } = self.known;
        let (_, text) = message?;
        if self.joined.is_some() || text.len() > self.max_message {
            return None;
        }
        let origin = match (id, name, source) {
            // In any order: Go's maps have none.
            (Some((_, id)), Some((_, name)), Some((_, source @ (b"stdout" | b"stderr"))))
                if self.entry.record.left() == 2 * DOCKER_S_KEYS =>
            {
                [self.tag, id, name, source]
            }
            _ => {
                let all = self.entry.record.bytes();
                [self.tag, &all[..all.len() - behind.0], &all[all.len() - behind.1..], b""]
            }
        };
        let (stamp, nanoseconds) = match self.entry.time {
            Some(time) => in_utc(time).map(|(stamp, nanoseconds)| (Some(stamp), nanoseconds))?,
            None => (None, 0),
        };
        Some(Outline { origin, stamp, nanoseconds, text: text.into(), tells_pieces: true })
    }

    fn is_cut(&self) -> bool {
        self.message().is_some_and(|message| message.len() > self.max_message)
    }

    fn tells_pieces(&self) -> bool {
        true
    }
}

/// A piece of a message that Docker's driver has split (moby `daemon/logger/fluentd/fluentd.go`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The same in all pieces of a message of one stream of one container.
    pub id: &'a [u8],
    pub container: &'a [u8],
    pub source: &'a [u8],
    /// 1 for the first.
    pub ordinal: u32,
    pub is_last: bool,
    pub message: &'a [u8],
}

/// The number of keys that Docker's driver writes to each entry: container_id, container_name, source and log.
const DOCKER_S_KEYS: u64 = 4;
const PARTIAL_ID: &[u8] = b"partial_id";
const PARTIAL_ORDINAL: &[u8] = b"partial_ordinal";
const PARTIAL_LAST: &[u8] = b"partial_last";
/// The keys that the driver adds to a piece.
const PARTIAL_KEYS: [&[u8]; 4] = [b"partial_message", PARTIAL_ID, PARTIAL_ORDINAL, PARTIAL_LAST];

/// Keys that become more than fields: the position of each, and its text.
#[derive(Default)]
struct Known<'a> {
    message: Option<(usize, &'a [u8])>,
    id: Option<(usize, &'a [u8])>,
    name: Option<(usize, &'a [u8])>,
    source: Option<(usize, &'a [u8])>,
    /// The number of bytes from the message's value to the end, and behind that value.
    behind: (usize, usize),
    /// Whether there is a partial_id: only pieces have one.
    has_piece_s_id: bool,
}

impl<'a> Known<'a> {
    fn find(entry: &Entry<'a>) -> Self {
        let mut known = Self::default();
        let mut best = MESSAGE_KEYS.len();
        let mut items = entry.record;
        // Not `pairs`: this runs for each message, and a pair of values is large.
        for at in 0.. {
            let Some(key) = items.next() else { break };
            let from = items.bytes().len();
            let (Some(key), Some(text)) = (key.text(), items.next().and_then(|value| value.text())) else { continue };
            let place = match key {
                b"container_id" => &mut known.id,
                b"container_name" => &mut known.name,
                b"source" => &mut known.source,
                PARTIAL_ID => {
                    known.has_piece_s_id = true;
                    continue;
                }
                _ => match MESSAGE_KEYS[..best].iter().position(|name| *name == key) {
                    Some(rank) => {
                        best = rank;
                        known.behind = (from, items.bytes().len());
                        &mut known.message
                    }
                    None => continue,
                },
            };
            *place = Some((at, text));
        }
        known
    }
}

/// The time in UTC, and the nanoseconds below a microsecond. `None`: out of the range of a stamp.
fn in_utc(Time { seconds, nanoseconds }: Time) -> Option<(LocalStamp, u16)> {
    let fraction = nanoseconds.map_or(Fraction::default(), |nanoseconds| Fraction::of_micros(nanoseconds / 1000));
    Some((LocalStamp::in_utc(seconds, fraction)?, (nanoseconds.unwrap_or_default() % 1000) as u16))
}

/// All keys but the used ones. The keys about pieces are left out once the message is joined.
fn fields<'a>(entry: &Entry<'a>, used: &[Option<usize>], is_piece: bool) -> Fields<'a> {
    let mut fields = Fields::default();
    // Most entries of containers have no other keys.
    if entry.record.left() == 2 * used.iter().flatten().count() as u64 {
        return fields;
    }
    for (at, (key, value)) in entry.pairs().enumerate() {
        let is_about_pieces = || key.text().is_some_and(|key| PARTIAL_KEYS.contains(&key));
        if used.contains(&Some(at)) || !is_piece && is_about_pieces() {
            continue;
        }
        // Before the value is read: an untrusted sender may send millions of keys.
        if fields.are_full() {
            fields.leave_out(1);
            continue;
        }
        match field_value(value) {
            Some(value) => fields.push(field_name(key), value),
            None => fields.leave_out(1),
        }
    }
    fields
}

fn field_name(key: Value<'_>) -> Cow<'_, str> {
    match key.text() {
        Some(text) => match std::str::from_utf8(text) {
            Ok(name) => name.into(),
            Err(_) => escape(text).into(),
        },
        None => {
            let mut name = Vec::new();
            json::append(key, &mut name);
            String::from_utf8(name).unwrap_or_default().into()
        }
    }
}

/// `None`: the value is larger than all fields of a record together may be.
fn field_value(value: Value<'_>) -> Option<FieldValue<'_>> {
    let text = match value {
        Value::Str(text) | Value::Bin(text) | Value::Ext(_, text) => text,
        Value::Float(number) if !number.is_finite() => {
            return Some(FieldValue::Text(number.to_string().into_bytes().into()));
        }
        Value::Array(items) | Value::Map(items) if items.bytes().len() > MAX_FIELD_BYTES => return None,
        value => {
            let mut json = Vec::new();
            json::append(value, &mut json);
            return FieldValue::written(json);
        }
    };
    Some(FieldValue::Text(text.into()))
}
