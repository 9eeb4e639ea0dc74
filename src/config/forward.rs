//! `[[forward]]`: where lines go. What a forward may say depends on that: of its keys each target has those that it uses.

use std::collections::HashSet;
use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;

use super::effective::Table;
use super::error::{ConfigError, Source};
use super::kinds::{Count, CountOrAuto, ListOf, NAME, Optional, Path, Size, Special, Text, Time, Words};
use super::settings::{OnlyFor, Place, Settings, defaults, settings};
use super::written::{Entry, Leaf, List, Written};
use super::{Fingerprint, ForwardAddress, ForwardProtocol, Transport};
use crate::record::{Format, Rule};

const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// `TCP_USER_TIMEOUT`: unacknowledged bytes older than this end the connection. Keepalive alone never fires while data
/// is outstanding.
const DEFAULT_DEAD_AFTER: Duration = Duration::from_secs(10);
/// Bytes of what a collector's kernel acknowledged that are sent again when the connection breaks…
const DEFAULT_REPLAY: ByteSize = ByteSize::kib(64);
/// How long such bytes are kept at most, while the collector seems to read.
const DEFAULT_REPLAY_FOR: Duration = Duration::from_secs(30);
/// Bytes that are kept of what was acknowledged while the collector seems not to read: half of what Linux lets one
/// socket buffer (`tcp_rmem`, 32 MiB since 6.16), for it counts its own book-keeping too.
const DEFAULT_REPLAY_LIMIT: ByteSize = ByteSize::mib(16);
const REPLAY_MAX: u64 = 1 << 30;
/// Files that a `file://` target may have open at once.
const DEFAULT_MAX_OPEN_FILES: usize = 256;
const DEFAULT_MAX_BACKOFF: Duration = Duration::from_secs(2);
/// The time between two attempts to reach an earlier collector, while a later one serves.
const DEFAULT_FAILBACK_AFTER: Duration = Duration::from_secs(30);

const FRAMINGS: Words<Framing> = Words(&[("octet-counting", Framing::OctetCounting), ("newline", Framing::Newline)]);

const STREAMS: OnlyFor = OnlyFor {
    schemes: "tcp:// or tcp+tls://",
    uses: |to| {
        to.network().is_some_and(|to| to.protocol() == ForwardProtocol::Syslog && to.transport() != Transport::Udp)
    },
};
const RELP: OnlyFor = OnlyFor { schemes: "relp:// or relp+tls://", uses: ForwardAddress::is_relp };
const FILES: OnlyFor = OnlyFor { schemes: "file://", uses: |to| matches!(to, ForwardAddress::File(_)) };
const CONNECTIONS: OnlyFor = OnlyFor {
    schemes: "tcp://, tcp+tls://, relp:// or relp+tls://",
    uses: |to| to.network().is_some_and(|to| to.transport() != Transport::Udp),
};
const TLS: OnlyFor = OnlyFor { schemes: "tcp+tls:// or relp+tls://", uses: ForwardAddress::is_tls };

/// A way out of the spool: its keys, and the targets that follow from them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    keys: ForwardKeys,
    /// The targets, in the order in which they are tried.
    pub to: Vec<Target>,
}

/// One place that a forward may send to, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub address: ForwardAddress,
    pub delivery: DeliverySettings,
}

/// The settings of a target, by what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliverySettings {
    /// Syslog on a stream.
    Stream(StreamSettings),
    Relp(RelpSettings),
    /// Syslog in datagrams.
    Datagram,
    File(FileSettings),
    Stdout,
}

settings! {
    /// The keys of `[[forward]]`, whichever target uses them.
    pub struct ForwardKeys, written as WrittenForward {
        /// Names the cursor in the spool and the metrics' label.
        name: String = "central".to_owned(), as NAME, key "name";
        addresses: Vec<ForwardAddress> = Vec::new(), as ListOf::text(), key "to";
        format: Format = Format::Rfc5424, as Text, key "format".flag(
            "format", "LOGFERRY_FORMAT", "FORMAT", "Output format: rfc5424, rfc3164 or json",
        );
        connect_timeout: Duration = DEFAULT_CONNECT_TIMEOUT, as Time, key "connect-timeout".only_for(CONNECTIONS);
        dead_after: Duration = DEFAULT_DEAD_AFTER, as Time, key "dead-after".only_for(CONNECTIONS);
        max_backoff: Duration = DEFAULT_MAX_BACKOFF, as Time, key "max-backoff";
        failback_after: Duration = DEFAULT_FAILBACK_AFTER,
            as Time, key "failback-after".was("return-after").only_for(CONNECTIONS);
    }
    groups {
        stream: StreamSettings;
        relp: RelpSettings;
        file: FileSettings;
        tls: ClientTls;
    }
    lists {
        /// Only lines that match one of these are forwarded; none: all lines.
        matches: Rule, key "match", or_alone true;
    }
}

settings! {
    /// Syslog on a stream has no answers: what was acknowledged last is kept, to be sent again.
    pub struct StreamSettings, written as WrittenStream {
        /// How messages are divided; `None`: as is usual for the transport.
        framing: Option<Framing> = None, as Optional(FRAMINGS), key "framing".only_for(STREAMS);
        /// Bytes that are sent again after a broken connection.
        replay: u64 = DEFAULT_REPLAY.as_u64(), as Size(0..=REPLAY_MAX), key "replay".only_for(STREAMS);
        replay_for: Duration = DEFAULT_REPLAY_FOR, as Time, key "replay-for".only_for(STREAMS);
        /// Bytes that are kept while the collector seems not to read.
        replay_limit: u64 = DEFAULT_REPLAY_LIMIT.as_u64().max(replay),
            as Size(0..=REPLAY_MAX), key "replay-limit".only_for(STREAMS);
    }
}

settings! {
    pub struct RelpSettings, written as WrittenRelp {
        /// No more is taken from the spool while so many messages are unanswered; `None`: as many as the link has shown to
        /// carry.
        window: Option<usize> = None, as CountOrAuto, key "window".only_for(RELP);
    }
}

settings! {
    pub struct FileSettings, written as WrittenFile {
        /// Open at once: those beyond it that were written least recently are closed. Never more than a share of the
        /// descriptors
        /// that the process may have.
        max_open_files: usize = DEFAULT_MAX_OPEN_FILES, as Count, key "max-open-files".only_for(FILES);
    }
}

/// How a stream is divided into messages (RFC 6587).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    OctetCounting,
    Newline,
}

settings! {
    /// What verifies a collector, and the certificate of ours that the collector gets. For those targets that speak TLS.
    pub struct ClientTls, written as WrittenClientTls {
        /// The CA of the collector; `None`: the system's roots, or with fingerprints, no CA at all.
        ca: Option<PathBuf> = None, as Optional(Path), key "ca".only_for(TLS).flag(
            "ca", "LOGFERRY_CA", "FILE",
            "CA (PEM) that signed the collector's certificate [default: the system's roots]",
        );
        cert: Option<PathBuf> = None, as Optional(Path), key "cert".only_for(TLS).flag(
            "cert", "LOGFERRY_CERT", "FILE", "Our certificate chain (PEM), when the collector asks for one",
        );
        key: Option<PathBuf> = None, as Optional(Path), key "key".only_for(TLS).flag(
            "key", "LOGFERRY_KEY", "FILE", "Private key (PEM) of --cert",
        );
        /// The name in the collector's certificate when `to` says another.
        server_name: Option<String> = None,
            as Optional(Special { read: |name| Ok(name.to_owned()), display: String::clone }),
            key "server-name".only_for(TLS).flag(
                "server-name", "LOGFERRY_SERVER_NAME", "NAME",
                "Name in the collector's certificate, when it is not the one in --forward",
            );
        /// Fingerprints of which the collector's certificate must have one, if there are any.
        server_fingerprints: Vec<Fingerprint> = Vec::new(), as ListOf::text(), key "server-fingerprint".only_for(TLS);
    }
}

impl ClientTls {
    /// Our certificate chain and key, when the collector asks for them.
    pub fn identity(&self) -> Option<(&PathBuf, &PathBuf)> {
        self.cert.as_ref().zip(self.key.as_ref())
    }
}

impl Default for ClientTls {
    fn default() -> Self {
        defaults()
    }
}

impl Target {
    /// How messages are kept apart; `None`: the link keeps them apart (datagrams, RELP's frames).
    pub fn framing(&self) -> Option<Framing> {
        match &self.delivery {
            DeliverySettings::Stream(stream) => Some(stream.framing_to(&self.address)),
            DeliverySettings::Relp(_) | DeliverySettings::Datagram => None,
            DeliverySettings::File(_) | DeliverySettings::Stdout => Some(Framing::Newline),
        }
    }

    /// Whether people read the messages at terminals. A collector gets each byte.
    pub fn is_for_people(&self) -> bool {
        matches!(self.delivery, DeliverySettings::File(_) | DeliverySettings::Stdout)
    }
}

impl StreamSettings {
    /// The framing to an address. RFC 5425 knows octet counting only; on plain TCP newlines are what every collector
    /// understands.
    fn framing_to(&self, address: &ForwardAddress) -> Framing {
        let usual = if address.is_tls() { Framing::OctetCounting } else { Framing::Newline };
        self.framing.unwrap_or(usual)
    }
}

/// Writes the address as the config has it.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl Target {
    fn new(address: ForwardAddress, keys: &ForwardKeys) -> Self {
        let delivery = match &address {
            ForwardAddress::File(_) => DeliverySettings::File(keys.file.clone()),
            ForwardAddress::Stdout => DeliverySettings::Stdout,
            ForwardAddress::Network(to) => match (to.protocol(), to.transport()) {
                (ForwardProtocol::Relp, _) => DeliverySettings::Relp(keys.relp.clone()),
                (ForwardProtocol::Syslog, Transport::Udp) => DeliverySettings::Datagram,
                (ForwardProtocol::Syslog, Transport::Tcp | Transport::Tls) => {
                    DeliverySettings::Stream(keys.stream.clone())
                }
            },
        };
        Self { address, delivery }
    }
}

impl Deref for Forward {
    type Target = ForwardKeys;

    fn deref(&self) -> &ForwardKeys {
        &self.keys
    }
}

impl Settings for Forward {
    type Written = WrittenForward;

    fn read(written: &WrittenForward, place: &Place<'_>) -> Result<Self, ConfigError> {
        if !written.addresses.is_written() {
            place.source.missing("forward", place.span.clone(), "to", "to = [\"tcp+tls://logs.example.com:6514\"]")?;
        }
        // What is about TLS is not read where it is refused.
        let keys = match check_use(written, place)? {
            true => ForwardKeys::read(&WrittenForward { tls: WrittenClientTls::default(), ..written.clone() }, place)?,
            false => {
                check_identity(&written.tls, place)?;
                ForwardKeys::read(written, place)?
            }
        };
        if let Some(leaf) = written.stream.replay_limit.first()
            && keys.stream.replay_limit < keys.stream.replay
        {
            let says = "must not be below `replay`";
            place.source.note(place.source.bad(&place.key("replay-limit"), leaf, says), ())?;
        }
        let to = keys.addresses.iter().map(|address| Target::new(address.clone(), &keys)).collect();
        Ok(Self { keys, to })
    }

    fn display(&self, table: &mut Table) {
        WrittenForward::default().each(&mut |key, _| {
            if key.only_for.is_some_and(|only_for| !self.addresses.iter().any(only_for.uses)) {
                table.leave_out(key.name);
            }
        });
        self.keys.display(table);
    }
}

/// Notes a certificate without its key and a key without its certificate.
fn check_identity(written: &WrittenClientTls, place: &Place<'_>) -> Result<(), ConfigError> {
    let (key, leaf, says) = match (written.cert.first(), written.key.first()) {
        (Some(leaf), None) => ("cert", leaf, "`cert` needs `key`, its private key"),
        (None, Some(leaf)) => ("key", leaf, "`key` needs `cert`, its certificate chain"),
        (None, None) | (Some(_), Some(_)) => return Ok(()),
    };
    place.source.note(place.source.bad(&place.key(key), leaf, says), ())
}

/// Warns of keys that no target uses. A TLS key without a target that speaks TLS is an error, because the lines would go out in
/// plain text; then `true` is returned.
fn check_use(written: &WrittenForward, place: &Place<'_>) -> Result<bool, ConfigError> {
    // What cannot be read may have been meant to use it.
    let Some(to) = targets(place.source, written) else { return Ok(false) };
    let mut unused = Vec::new();
    written.each(&mut |key, entry| {
        if let (Some(only_for), Some(leaf)) = (key.only_for, entry.first())
            && !to.iter().any(only_for.uses)
        {
            unused.push((key.name, only_for.schemes, leaf.clone()));
        }
    });
    let mut refused = false;
    for (key, schemes, leaf) in unused {
        let name = place.key(key);
        if schemes == TLS.schemes {
            if !std::mem::replace(&mut refused, true) {
                let says = format!("no target of `to` speaks TLS; write {schemes}");
                place.source.note(place.source.bad(&name, &leaf, &says), ())?;
            }
        } else {
            let forward = written.name.first().map_or("central", |leaf| leaf.text.as_str());
            place.source.warn_of(
                &name,
                &leaf,
                &format!("forward {forward} has no target that uses it ({schemes}); take it out"),
            );
        }
    }
    Ok(refused)
}

/// The targets of a section; `None`: one of them cannot be read, which is noted when the key is read.
fn targets(source: &Source<'_>, section: &WrittenForward) -> Option<Vec<ForwardAddress>> {
    let read = |leaf: &Leaf| source.text("forward.to", leaf).ok()?.parse().ok();
    section.addresses.leaves().iter().map(read).collect::<Option<Vec<_>>>().filter(|to| !to.is_empty())
}

/// Whether a target of the section uses a key of its kind.
pub fn section_uses(source: &Source<'_>, section: &WrittenForward, only_for: Option<OnlyFor>) -> bool {
    let read = |leaf: &Leaf| source.text("forward.to", leaf).ok()?.parse::<ForwardAddress>().ok();
    only_for.is_none_or(|only_for| section.addresses.leaves().iter().filter_map(read).any(|to| (only_for.uses)(&to)))
}

/// The forward that a flag names, or that a relay has without any.
pub fn unwritten(flag: &str, name: Option<&str>, urls: &[&str]) -> List<WrittenForward> {
    let leaf = |text: &&str| Leaf::from_override(flag, text);
    let addresses = Entry::list(urls.iter().map(leaf).collect());
    let name = name.as_ref().map_or_else(Entry::default, |name| Entry::one(leaf(name)));
    List::unwritten([WrittenForward { name, addresses, ..WrittenForward::default() }])
}

/// Notes names that are missing or there twice.
pub fn check(source: &Source<'_>, sections: &List<WrittenForward>, forwards: &[Forward]) -> Result<(), ConfigError> {
    let mut names = HashSet::new();
    for ((span, section), forward) in sections.sections.iter().zip(forwards) {
        match section.name.first() {
            None if forwards.len() > 1 => {
                let says = "name = \"central\": with several forwards each needs its own name, its place in the spool is kept under it";
                source.missing("forward", span.clone(), "name", says)?;
            }
            Some(leaf) if !names.insert(&forward.name) => {
                source.note(source.bad("forward.name", leaf, "another forward has this name already"), ())?;
            }
            _ => {}
        }
    }
    Ok(())
}
