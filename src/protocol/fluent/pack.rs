//! Lines as chunks: `[tag, bin: entries end to end, {"chunk": name, "size": lines}]` (PackedForward), one for each tag. Each entry has the
//! keys that Docker's driver writes (moby `daemon/logger/fluentd/fluentd.go`). Other keys carry the facts for which the driver has no key.

use std::borrow::Cow;
use std::collections::HashMap;

use data_encoding::BASE64;

use super::handshake::sha512_of;
use super::tag::TagTemplate;
use super::write::{Map, append_array, append_bin, append_int, append_json, append_str};
use crate::protocol::api::{LineId, foreign_text, with_own_names};
use crate::record::{FACILITIES, Record, SEVERITIES, Source, Value};

/// Names a chunk: base64 of 128 bits, as the specification says. A chunk of the same lines gets the same name each time.
pub type ChunkName = [u8; 24];

/// Packs lines into chunks.
#[derive(Debug)]
pub struct Packer {
    tag: TagTemplate,
    /// The SD-ID of the element with a line's image, name and ID.
    sd_id: String,
    /// The name under which the lines are numbered.
    stream: String,
}

/// The severities and the facility that Docker's driver gives to stdout and stderr.
const DAEMON: u8 = 3;
const INFO: u8 = 6;
const ERR: u8 = 3;

impl Packer {
    pub fn new(tag: TagTemplate, sd_id: String, stream: String) -> Self {
        Self { tag, sd_id, stream }
    }

    /// Appends a chunk for each tag of these lines, in the order in which the tags first occur. Lines of one tag keep their order. Returns
    /// the names of the chunks, which the receiver has to acknowledge. `first` and `last` are the permanent IDs of the first and the last
    /// line.
    pub fn pack<'l>(
        &self,
        lines: impl Iterator<Item = &'l [u8]>,
        (first, last): (LineId, LineId),
        out: &mut Vec<u8>,
    ) -> Vec<ChunkName> {
        let mut groups: Vec<Group> = Vec::new();
        let mut places: HashMap<Vec<u8>, usize> = HashMap::new();
        let (mut tag, mut group_of_last) = (Vec::new(), usize::MAX);
        for line in lines {
            let record = Record::from_line(line, &self.sd_id);
            tag.clear();
            self.tag.append(&record, &mut tag);
            // Most lines have the tag of the line before.
            if groups.get(group_of_last).is_none_or(|group| group.tag != tag) {
                group_of_last = places.get(&tag).copied().unwrap_or_else(|| {
                    places.insert(tag.clone(), groups.len());
                    groups.push(Group { tag: tag.clone(), ..Group::default() });
                    groups.len() - 1
                });
            }
            let group = &mut groups[group_of_last];
            group.count += 1;
            append_entry(&record, &self.sd_id, &mut group.entries);
        }
        let append = |(place, group): (usize, &Group)| {
            let name = self.name((first, last), group.count, place);
            append_array(3, out);
            append_str(&group.tag, out);
            append_bin(&group.entries, out);
            let mut options = Map::begin(out);
            options.text("chunk", &name);
            append_int(group.count as i128, options.key("size"));
            options.end();
            name
        };
        groups.iter().enumerate().map(append).collect()
    }

    fn name(&self, (first, last): (LineId, LineId), count: usize, place: usize) -> ChunkName {
        let text = format!(
            "{}/{}/{}/{}/{}/{count}/{place}",
            self.stream, first.session, first.number, last.session, last.number
        );
        let mut name = [0; 24];
        BASE64.encode_mut(&sha512_of([text.as_bytes()])[..16], &mut name);
        name
    }
}

/// Lines of one tag.
#[derive(Default)]
struct Group {
    tag: Vec<u8>,
    count: usize,
    entries: Vec<u8>,
}

/// Appends `[time, record]`.
fn append_entry(record: &Record<'_>, sd_id: &str, out: &mut Vec<u8>) {
    append_array(2, out);
    append_time(record, out);
    let mut map = Map::begin(out);
    map.text("log", record.text());
    let mut ours = vec!["log"];
    let mut say = |key: &'static str, value: Option<&[u8]>| {
        if let Some(value) = value {
            map.text(key, value);
            ours.push(key);
        }
    };
    // Docker writes a container's name with a leading slash.
    let name =
        record.container_name().map(|name| if name.starts_with(b"/") { name.into() } else { [b"/", name].concat() });
    say("container_name", name.as_deref());
    say("container_id", record.container_id());
    say("source", record.source.map(|source| source.as_str().as_bytes()));
    say("image_name", record.image_name());
    say("host", record.host_as_written().as_deref());
    if !is_docker_s(record) {
        say("facility", FACILITIES.get(usize::from(record.facility)).map(|name| name.as_bytes()));
        say("severity", SEVERITIES.get(usize::from(record.severity)).map(|name| name.as_bytes()));
    }
    let is_known = record.container.is_some() || record.driver.is_some();
    say("app_name", record.app_name.filter(|_| !is_known).map(|name| name.written()).as_deref());
    say("proc_id", record.own_proc_id().map(|proc_id| proc_id.written()).as_deref());
    say("msg_id", record.msg_id.map(|msg_id| msg_id.written()).as_deref());
    say("peer", record.peer.map(|peer| peer.to_string()).as_deref().map(str::as_bytes));
    say("structured_data", foreign_text(record, sd_id).as_deref());
    for (name, value) in with_own_names(&record.fields, Cow::Borrowed, |name| ours.contains(&name)) {
        match value {
            Value::Text(text) => map.text(&name, text),
            Value::Json(json) => append_json(json.as_str(), map.key(&name)),
        }
    }
    map.end();
}

/// Whether facility and severity say no more than `source`.
fn is_docker_s(record: &Record<'_>) -> bool {
    let severity = if record.source == Some(Source::Stderr) { ERR } else { INFO };
    let is_docker_s = record.container.is_some() || record.driver.is_some();
    is_docker_s && (record.facility, record.severity) == (DAEMON, severity)
}

/// EventTime, or whole seconds where EventTime is too small. A line without a timestamp gets 0, which receivers take for "no time".
fn append_time(record: &Record<'_>, out: &mut Vec<u8>) {
    let micros = record.time().map_or(0, |time| time.0);
    let seconds = micros.div_euclid(1_000_000);
    let Ok(short) = u32::try_from(seconds) else { return append_int(seconds.into(), out) };
    let nanoseconds = micros.rem_euclid(1_000_000) as u32 * 1000 + u32::from(record.nanoseconds);
    out.extend_from_slice(&[0xd7, 0]);
    out.extend_from_slice(&short.to_be_bytes());
    out.extend_from_slice(&nanoseconds.to_be_bytes());
}
