//! The listener that messages come from, and how it treats the elements that only relays write.

use core::net::IpAddr;

use super::Senders;
use super::host::HostSource;
use crate::record::template::AddedField;
use crate::record::{AddressRange, FIELDS_SD_ID, JSON_SD_ID, OWN_SD_ID, Record, StructuredData, TimeZone};

/// How to treat elements that only relays write, if a sender has written some: the description of the container, its fields, the relay's
/// own params.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Marks {
    /// The elements are trusted.
    #[default]
    Keep,
    /// The elements are removed: the line has what this relay knows.
    Replace,
}

/// The listener that frames come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listening {
    pub mark: ListenerMark,
    pub senders: Senders,
    pub marks: Marks,
    /// Whether each line has the sender's address. Otherwise only lines have it that name no host and are not Docker's.
    pub writes_peer: bool,
    /// Whether anything besides the line depends on that address.
    pub asks_peer: bool,
    pub host: HostSource,
    /// Fields that are added to each line. They replace the sender's fields of the same name.
    pub fields: Vec<AddedField>,
    pub zones: SenderZones,
}

/// The time zones for stamps without one, by sender.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SenderZones {
    /// The zones of address ranges. The first match counts.
    pub ranges: Vec<(Vec<AddressRange>, TimeZone)>,
    /// The zone of all others.
    pub others: Option<TimeZone>,
}

impl SenderZones {
    pub fn of(&self, peer: Option<IpAddr>) -> Option<&TimeZone> {
        let fits = |(ranges, _): &&(Vec<AddressRange>, TimeZone)| {
            peer.is_some_and(|peer| ranges.iter().any(|range| range.contains(peer)))
        };
        self.ranges.iter().find(fits).map(|(_, zone)| zone).or(self.others.as_ref())
    }
}

/// The listener's name in a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListenerMark {
    /// No listener of this relay has a name: the name that another relay has written stays.
    #[default]
    AsItCame,
    /// This listener has no name, but others have: no line may claim that one of them received it.
    Nothing,
    Name(String),
}

impl ListenerMark {
    /// `name`: the listener's name. `any_has_one`: whether any listener has a name.
    pub fn new(name: Option<&str>, any_has_one: bool) -> Self {
        match name {
            Some(name) => Self::Name(name.to_owned()),
            None if any_has_one => Self::Nothing,
            None => Self::AsItCame,
        }
    }
}

impl ListenerMark {
    /// Writes the listener's name to the record. Malformed structured data that could name another listener becomes text.
    pub(super) fn apply<'a>(&'a self, record: &mut Record<'a>) {
        let name = match self {
            Self::AsItCame => return,
            Self::Nothing => None,
            Self::Name(name) => Some(name),
        };
        if record.structured_data == StructuredData::Malformed {
            if !has_marks(record, OWN_SD_ID) {
                return;
            }
            record.structured_data = StructuredData::Nil;
        }
        record.listener = name.map(|name| name.as_bytes().into());
    }
}

/// Whether malformed structured data contains an SD-ID of ours. Other parsers may accept the data, which would then say what only the relay
/// may say. The caller treats it as text.
pub(super) fn has_marks(record: &Record<'_>, sd_id: &str) -> bool {
    let text = record.message.unwrap_or_default();
    let ours = [sd_id, OWN_SD_ID, FIELDS_SD_ID, JSON_SD_ID];
    ours.iter().any(|id| memchr::memmem::find(text, id.as_bytes()).is_some())
}
