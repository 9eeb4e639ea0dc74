//! What is told of the listener that messages come from, and what it makes of them.

use core::net::IpAddr;

use super::Senders;
use super::host::HostSource;
use crate::record::template::AddedField;
use crate::record::{AddressRange, FIELDS_SD_ID, JSON_SD_ID, OWN_SD_ID, Record, StructuredData, TimeZone};

/// What becomes of elements that only relays write, where a sender has written some: who the container is, its fields, what a
/// relay knows of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Marks {
    /// The elements are believed.
    #[default]
    Keep,
    /// The elements are taken out: the line says what this relay knows.
    Replace,
}

/// The listener that frames come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listening {
    pub mark: ListenerMark,
    pub senders: Senders,
    pub marks: Marks,
    /// Whether each line says which address has sent it. Otherwise only those do that name no host and are not Docker's.
    pub writes_peer: bool,
    /// Whether more than the line depends on that address.
    pub asks_peer: bool,
    pub host: HostSource,
    /// On each line, in the place of what the sender has under that name.
    pub fields: Vec<AddedField>,
    pub zones: SenderZones,
}

/// The zones of senders' stamps that have none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SenderZones {
    /// The zones of some senders; the first that fits counts.
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

/// What a line says of the listener that took it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListenerMark {
    /// Listeners have no names here: what another relay may have said is left as it is.
    #[default]
    AsItCame,
    /// Some listeners have names, this one has none: nobody can say that another one took it.
    Nothing,
    Name(String),
}

impl ListenerMark {
    /// `name`: the listener's; `any_has_one`: whether some listener has a name.
    pub fn new(name: Option<&str>, any_has_one: bool) -> Self {
        match name {
            Some(name) => Self::Name(name.to_owned()),
            None if any_has_one => Self::Nothing,
            None => Self::AsItCame,
        }
    }
}

impl ListenerMark {
    /// Makes the record say what the relay knows, and nothing that only the relay may say.
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

/// What a relay would read as its own in structured data that is malformed. For others it may be well formed, and say what only we
/// may say: it is text then.
pub(super) fn has_marks(record: &Record<'_>, sd_id: &str) -> bool {
    let text = record.message.unwrap_or_default();
    let ours = [sd_id, OWN_SD_ID, FIELDS_SD_ID, JSON_SD_ID];
    ours.iter().any(|id| memchr::memmem::find(text, id.as_bytes()).is_some())
}
