//! An entry as a record.
//!
//! - PRIORITY is the severity, by default info. SYSLOG_FACILITY is the facility, by default user. journald forwards the same to syslog
//!   (`journald-native.c`, `syslog_fixup_facility`). Only the kernel's own entries have the facility kern.
//! - The header consists of `_HOSTNAME`, SYSLOG_IDENTIFIER or else `_COMM`, SYSLOG_PID or else `_PID`, and MESSAGE_ID. MESSAGE_ID has the
//!   purpose of MSGID, and its 32 digits just fit there.
//! - The time is the sender's `_SOURCE_REALTIME_TIMESTAMP`, or else the entry's time.
//! - A container's ID identifies entries of Docker's and Podman's drivers. The record of a container is as their other drivers make it: its
//!   facility is daemon, its name is APP-NAME, its ID is PROCID, and the severities 6 and 3 mean stdout and stderr. Any process may write
//!   such fields, and any label may overwrite them. So none of them is certain, and each is carried as it is.
//! - All other fields keep their names from the journal, except [`NOT_CARRIED`]. A field that the header repeats unchanged is not carried
//!   twice, and a field with an invalid value stays a field.
//!
//! journald itself adds fields that senders cannot forge. The record carries those that help to search and to tell senders apart: unit,
//! user, program with its command line, machine, boot, transport, and the kernel's fields of devices and audits. The rest describes how the
//! process is confined and grouped; it would bring each line to a kilobyte.

use std::borrow::Cow;

use super::Entry;
use super::reader::MESSAGE;
use crate::protocol::session::ToRecord;
use crate::protocol::syslog::{Settings, is_id, original_host};
use crate::record::header::{MAX_APP_NAME, MAX_HOSTNAME, MAX_MSG_ID, MAX_PROC_ID};
use crate::record::{Container, Fields, Fraction, HeaderField, LocalStamp, Record, Source, UnixMicros, Value};

/// The name of the input in the record.
const DRIVER: &[u8] = b"journal";
const INFO: u8 = 6;
const ERR: u8 = 3;
const KERN: u8 = 0;
const USER: u8 = 1;
const DAEMON: u8 = 3;
const LAST_FACILITY: u8 = 23;

/// Fields that a record does not carry: how a process is confined and grouped, or how and when the journal received its line.
const NOT_CARRIED: [&str; 16] = [
    "_CAP_EFFECTIVE",
    "_GID",
    "_SELINUX_CONTEXT",
    "_AUDIT_SESSION",
    "_SYSTEMD_CGROUP",
    "_SYSTEMD_SLICE",
    "_SYSTEMD_USER_SLICE",
    "_SYSTEMD_SESSION",
    "_SYSTEMD_OWNER_UID",
    "_SYSTEMD_INVOCATION_ID",
    "_RUNTIME_SCOPE",
    "_STREAM_ID",
    "_LINE_BREAK",
    "_SOURCE_MONOTONIC_TIMESTAMP",
    "_SOURCE_BOOTTIME_TIMESTAMP",
    "SYSLOG_TIMESTAMP",
];
/// Fields of a container's line that name dockerd or conmon as its writer. The unit is carried: Podman's units are those of the containers.
const OF_THE_DRIVER: [&str; 5] = ["_PID", "_UID", "_COMM", "_EXE", "_CMDLINE"];

/// The part of a long line that a container's driver has split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// The same for all parts of a line. `None`: Podman and older versions of Docker write no ID. There, the parts of a line are
    /// consecutive entries of one container and source, and the next entry that is not a part ends them.
    pub id: Option<&'a [u8]>,
    /// From 1.
    pub ordinal: Option<u64>,
    pub is_last: bool,
}

impl<'a> Entry<'a> {
    /// The record of the entry. `received` is the time at which it was read.
    pub fn record(&self, received: UnixMicros) -> Record<'a> {
        let mut telling = Telling { entry: *self, told: Vec::new() };
        let message = telling.tell(MESSAGE, Some);
        let container = telling.container();
        let severity = telling.tell("PRIORITY", severity).unwrap_or(INFO);
        let default = if container.is_some() { DAEMON } else { USER };
        let is_kernel = self.get("_TRANSPORT") == Some(b"kernel");
        let facility = telling.tell("SYSLOG_FACILITY", |text| facility(text).filter(|said| *said != KERN || is_kernel));
        let mut record = Record { driver: Some(DRIVER.into()), message, cut: self.is_cut(), ..Record::new(0) };
        (record.facility, record.severity) = (facility.unwrap_or(default), severity);
        let stamps = ["_SOURCE_REALTIME_TIMESTAMP", "__REALTIME_TIMESTAMP"];
        let said = stamps.iter().find_map(|name| telling.tell(name, time));
        let unread = if said.is_some() { None } else { stamps.iter().find_map(|name| telling.tell(name, Some)) };
        record.date(said, unread.map(Cow::Borrowed), received);
        if let Some(host) = telling.tell("_HOSTNAME", Some) {
            record.hostname = HeaderField::legal(host, MAX_HOSTNAME);
            record.original_host = record.hostname.and_then(|field| original_host(host, field));
        }
        match container {
            Some(container) => telling.identify(container, &mut record),
            None => {
                record.app_name = telling.either("SYSLOG_IDENTIFIER", "_COMM", MAX_APP_NAME);
                record.proc_id = telling.either("SYSLOG_PID", "_PID", MAX_PROC_ID);
            }
        }
        record.msg_id = telling.header("MESSAGE_ID", MAX_MSG_ID);
        record.fields = telling.fields(record.container.is_some());
        record
    }

    /// The part of a line that the message is, if it is a part.
    pub fn part(&self) -> Option<Part<'a>> {
        let is_true = |name| self.get(name) == Some(b"true");
        let id = self.get("CONTAINER_PARTIAL_ID");
        // The last part lacks this field. Readers that know no other field do not see that it is a part.
        let goes_on = is_true("CONTAINER_PARTIAL_MESSAGE");
        if id.is_none() && !goes_on {
            return None;
        }
        let ordinal = self.get("CONTAINER_PARTIAL_ORDINAL").and_then(number);
        Some(Part { id, ordinal, is_last: !goes_on || is_true("CONTAINER_PARTIAL_LAST") })
    }
}

impl ToRecord for Entry<'_> {
    fn to_record<'r>(&'r self, _: &'r Settings, received: UnixMicros) -> Record<'r> {
        self.record(received)
    }

    fn is_cut(&self) -> bool {
        Entry::is_cut(self)
    }

    fn tells_pieces(&self) -> bool {
        true
    }
}

/// An entry, and the fields of it that the record contains already.
struct Telling<'a> {
    entry: Entry<'a>,
    told: Vec<usize>,
}

impl<'a> Telling<'a> {
    /// Marks the first field of a name as told, if `read` accepts its value.
    fn tell<T>(&mut self, name: &str, read: impl FnOnce(&'a [u8]) -> Option<T>) -> Option<T> {
        let (at, (_, value)) = self.entry.fields().enumerate().find(|(_, (known, _))| *known == name)?;
        let said = read(value)?;
        self.told.push(at);
        Some(said)
    }

    /// A field for the header. It also stays a field where the header cannot contain it unchanged.
    fn header(&mut self, name: &str, max: usize) -> Option<HeaderField<'a>> {
        let value = self.entry.get(name)?;
        let field = HeaderField::legal(value, max)?;
        if field.is_verbatim() && field.said().len() == value.len() {
            self.tell(name, Some);
        }
        Some(field)
    }

    /// The first of two fields that exists, for the header. The other one is marked as told if it has the same value.
    fn either(&mut self, first: &str, second: &str, max: usize) -> Option<HeaderField<'a>> {
        let Some(field) = self.header(first, max) else { return self.header(second, max) };
        self.tell(second, |value| (value == field.said()).then_some(()));
        Some(field)
    }

    /// The container, if the entry has its ID.
    fn container(&mut self) -> Option<Container<'a>> {
        let valid = |id: &'a [u8]| is_id(id).then_some(id);
        let full = self.tell("CONTAINER_ID_FULL", valid);
        let short = self.tell("CONTAINER_ID", |id| valid(id).filter(|id| full.is_none_or(|full| full.starts_with(id))));
        let id = full.or(short)?;
        let some = |text: &'a [u8]| (!text.is_empty()).then_some(Cow::Borrowed(text));
        let (name, image) = (self.tell("CONTAINER_NAME", some), self.tell("IMAGE_NAME", some));
        Some(Container { image, name, id: Some(id.into()) })
    }

    /// Fills in the container's identity, as the records of Docker's other drivers have it.
    fn identify(&mut self, container: Container<'a>, record: &mut Record<'a>) {
        let borrowed = |text: &Option<Cow<'a, [u8]>>| match text {
            Some(Cow::Borrowed(text)) => Some(*text),
            _ => None,
        };
        let (name, id) = (borrowed(&container.name), borrowed(&container.id));
        record.app_name = name.or(id).and_then(|name| HeaderField::legal(name, MAX_APP_NAME));
        record.proc_id = id.and_then(|id| HeaderField::legal(id, MAX_PROC_ID));
        let tag = self.tell("CONTAINER_TAG", |tag| (!tag.is_empty()).then_some(tag));
        // Docker writes the tag here, and Podman the name.
        self.tell("SYSLOG_IDENTIFIER", |said| [tag, name, id].contains(&Some(said)).then_some(()));
        record.tag = tag.map(Cow::Borrowed);
        record.source = match record.severity {
            INFO => Some(Source::Stdout),
            ERR => Some(Source::Stderr),
            _ => None,
        };
        record.container = Some(container);
    }

    /// The fields that are not marked as told.
    fn fields(&self, of_container: bool) -> Fields<'a> {
        let mut fields = Fields::default();
        for (at, (name, value)) in self.entry.fields().enumerate() {
            let is_dropped = name.starts_with("__")
                || NOT_CARRIED.contains(&name)
                || (of_container && OF_THE_DRIVER.contains(&name));
            if !is_dropped && !self.told.contains(&at) {
                fields.push(name, Value::Text(value.into()));
            }
        }
        fields.leave_out(self.entry.left_out());
        fields
    }
}

fn severity(text: &[u8]) -> Option<u8> {
    match text {
        [digit @ b'0'..=b'7'] => Some(digit - b'0'),
        _ => None,
    }
}

fn facility(text: &[u8]) -> Option<u8> {
    number(text).and_then(|number| u8::try_from(number).ok()).filter(|facility| *facility <= LAST_FACILITY)
}

/// Microseconds since 1970.
fn time(text: &[u8]) -> Option<(LocalStamp, u16)> {
    let micros = number(text)?;
    let fraction = Fraction::of_micros((micros % 1_000_000) as u32);
    Some((LocalStamp::in_utc((micros / 1_000_000) as i64, fraction)?, 0))
}

fn number(digits: &[u8]) -> Option<u64> {
    // Excludes `+1`, which `parse` accepts.
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()
}
