//! `[[forward]]`: the targets of lines. Each key belongs to certain kinds of targets.

use std::collections::HashSet;
use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;

use super::aws;
use super::effective::Table;
use super::error::{ConfigError, Source};
use super::fluent::{self, FluentKeys, FluentSettings};
use super::http::{self, HttpSettings};
use super::kinds::{Count, CountOrAuto, ListOf, NAME, Optional, Path, Size, Special, Text, Time, Words};
use super::nats::{self, NatsSettings, NatsTarget};
use super::secret::Secret;
use super::settings::{OnlyFor, Place, Settings, defaults, settings};
use super::shape::{self, MaskSettings, ShapeSettings};
use super::written::{Entry, Leaf, List, Written};
use super::{Destination, Fingerprint, ForwardAddress, ForwardProtocol, Proxy, Transport};
use crate::record::template::AddedField;
use crate::record::{Format, Rule};

const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// `TCP_USER_TIMEOUT`: unacknowledged bytes that are older end the connection. Keepalive alone never fires while data is
/// outstanding.
const DEFAULT_DEAD_AFTER: Duration = Duration::from_secs(10);
/// Bytes acknowledged by the collector's kernel that are sent again after the connection breaks.
const DEFAULT_REPLAY: ByteSize = ByteSize::kib(64);
/// How long such bytes are kept at most, while the collector seems to read.
const DEFAULT_REPLAY_FOR: Duration = Duration::from_secs(30);
/// The limit for acknowledged bytes that are kept while the collector seems not to read. It is half of what Linux allows for
/// a socket buffer (`tcp_rmem`, 32 MiB since 6.16), because the buffer also counts the kernel's own overhead.
const DEFAULT_REPLAY_LIMIT: ByteSize = ByteSize::mib(16);
const REPLAY_MAX: u64 = 1 << 30;
/// The longest chunk in Graylog's documentation.
const DEFAULT_MAX_DATAGRAM: usize = 8192;
/// The maximum number of open files of a `file://` target.
const DEFAULT_MAX_OPEN_FILES: usize = 256;
const DEFAULT_MAX_BACKOFF: Duration = Duration::from_secs(2);
/// The time between two attempts to reach an earlier target while a later one is in use.
const DEFAULT_FAILBACK_AFTER: Duration = Duration::from_secs(30);

const NO_REGION: &str = "it needs region = \"eu-central-1\", unless AWS_REGION is set; a server that is not AWS' has one too, often \"us-east-1\"";

const FRAMINGS: Words<Framing> = Words(&[("octet-counting", Framing::OctetCounting), ("newline", Framing::Newline)]);

const STREAMS: OnlyFor = OnlyFor {
    schemes: "tcp:// or tcp+tls://",
    uses: |to| {
        to.network().is_some_and(|to| to.protocol() == ForwardProtocol::Syslog && to.transport() != Transport::Udp)
    },
};
/// Streams whose collectors send no answers.
const REPLAYED: OnlyFor = OnlyFor {
    schemes: "tcp://, tcp+tls://, gelf+tcp:// or gelf+tls://",
    uses: |to| {
        let is_replayed = |protocol| matches!(protocol, ForwardProtocol::Syslog | ForwardProtocol::Gelf);
        to.network().is_some_and(|to| is_replayed(to.protocol()) && to.transport() != Transport::Udp)
    },
};
const GELF_SCHEMES: &str = "gelf+udp://, gelf+tcp:// or gelf+tls://";
const GELF_DATAGRAMS: OnlyFor = OnlyFor { schemes: "gelf+udp://", uses: |to| to.is_gelf() && to.is_udp() };
const ANSWERED: OnlyFor =
    OnlyFor { schemes: "relp://, relp+tls://, nats:// or nats+tls://", uses: |to| to.is_relp() || to.is_nats() };
const FILES: OnlyFor = OnlyFor { schemes: "file://", uses: |to| matches!(to, ForwardAddress::File(_)) };
const CONNECTIONS: OnlyFor = OnlyFor {
    schemes: "tcp://, tcp+tls://, relp://, relp+tls://, http://, https://, s3://, nats://, nats+tls://, fluent://, fluent+tls://, gelf+tcp:// or gelf+tls://",
    uses: |to| to.is_bucket() || to.network().is_some_and(|to| to.transport() != Transport::Udp),
};
const TLS: OnlyFor = OnlyFor {
    schemes: "tcp+tls://, relp+tls://, https://, s3://, nats+tls://, fluent+tls:// or gelf+tls://",
    uses: ForwardAddress::is_tls,
};

/// A forward: its keys, and the targets that result from them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    keys: ForwardKeys,
    /// The masks of `[[mask]]` sections, which all forwards use.
    pub shared_masks: Vec<MaskSettings>,
    /// The targets, in the order in which they are tried.
    pub to: Vec<Target>,
    /// The fields that all forwards add to their lines.
    pub global_fields: Vec<AddedField>,
}

/// A target of a forward, with the way to deliver lines to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub address: ForwardAddress,
    /// The proxy in front of the target.
    pub proxy: Option<Proxy>,
    pub delivery: DeliverySettings,
}

/// The settings of a target, by its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliverySettings {
    /// Syslog on a stream.
    Stream(StreamSettings),
    Relp(RelpSettings),
    /// Syslog in datagrams.
    Datagram,
    /// GELF in datagrams.
    GelfDatagram(GelfSettings),
    /// An API of a log store.
    Http(Box<HttpSettings>),
    Nats(Box<NatsTarget>),
    Fluent(Box<FluentSettings>),
    File(FileSettings),
    Stdout,
}

settings! {
    /// The keys of `[[forward]]`, for all kinds of targets.
    pub struct ForwardKeys, written as WrittenForward {
        /// The name of the cursor in the spool, and the label of metrics.
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
        http: HttpSettings;
        nats: NatsSettings;
        fluent: FluentKeys;
        gelf: GelfKeys;
        file: FileSettings;
        tls: ClientTls;
        shape: ShapeSettings;
    }
    lists {
        /// Only lines that match one of these rules are forwarded; empty: all lines.
        matches: Rule, key "match", or_alone true;
        /// Masks for the lines.
        masks: MaskSettings, key "mask", or_alone true;
    }
}

settings! {
    /// Syslog on a stream has no answers. The bytes that were acknowledged last are kept, to send them again.
    pub struct StreamSettings, written as WrittenStream {
        /// How messages are framed; `None`: the default of the transport.
        framing: Option<Framing> = None, as Optional(FRAMINGS), key "framing".only_for(STREAMS);
        /// Bytes that are sent again after a broken connection.
        replay: u64 = DEFAULT_REPLAY.as_u64(), as Size(0..=REPLAY_MAX), key "replay".only_for(REPLAYED);
        replay_for: Duration = DEFAULT_REPLAY_FOR, as Time, key "replay-for".only_for(REPLAYED);
        /// The limit for bytes that are kept while the collector seems not to read.
        replay_limit: u64 = DEFAULT_REPLAY_LIMIT.as_u64().max(replay),
            as Size(0..=REPLAY_MAX), key "replay-limit".only_for(REPLAYED);
    }
}

settings! {
    pub struct RelpSettings, written as WrittenRelp {
        /// The maximum number of unanswered messages. At the limit nothing is taken from the spool. `None`: as many as the
        /// link has proved to carry.
        window: Option<usize> = None, as CountOrAuto, key "window".only_for(ANSWERED);
    }
}

settings! {
    pub struct GelfKeys, written as WrittenGelf {
        /// The maximum size of a datagram, in bytes. A longer message is split into several.
        max_datagram: usize = DEFAULT_MAX_DATAGRAM, as Size(512..=65_000), key "max-datagram".only_for(GELF_DATAGRAMS);
    }
}

/// The settings of GELF in datagrams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GelfSettings {
    pub max_datagram: usize,
    pub compress: bool,
}

settings! {
    pub struct FileSettings, written as WrittenFile {
        /// The maximum number of open files. Beyond it the least recently written files are closed. It is never more than a
        /// share of the process's limit for descriptors.
        max_open_files: usize = DEFAULT_MAX_OPEN_FILES, as Count, key "max-open-files".only_for(FILES);
    }
}

/// How a stream is divided into messages (RFC 6587).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    OctetCounting,
    Newline,
    /// The framing of GELF over TCP. It cannot be configured.
    Nul,
}

settings! {
    /// The files that verify a collector, and our own certificate. For targets that speak TLS.
    pub struct ClientTls, written as WrittenClientTls {
        /// The CA of the collector; `None`: the system's roots. With fingerprints `None` means no CA at all.
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
        /// The name in the collector's certificate, if it differs from the host in `to`.
        server_name: Option<String> = None,
            as Optional(Special { read: |name| Ok(name.to_owned()), display: String::clone }),
            key "server-name".only_for(TLS).flag(
                "server-name", "LOGFERRY_SERVER_NAME", "NAME",
                "Name in the collector's certificate, when it is not the one in --forward",
            );
        /// If there are any, the collector's certificate must have one of these fingerprints.
        server_fingerprints: Vec<Fingerprint> = Vec::new(), as ListOf::text(), key "server-fingerprint".only_for(TLS);
    }
}

impl ClientTls {
    /// Our certificate chain and key, for a collector that asks for them.
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
    /// The framing of messages; `None`: the protocol separates them (datagrams, RELP's frames).
    pub fn framing(&self) -> Option<Framing> {
        match &self.delivery {
            DeliverySettings::Stream(stream) => Some(stream.framing_to(&self.address)),
            DeliverySettings::Relp(_)
            | DeliverySettings::Datagram
            | DeliverySettings::Http(_)
            | DeliverySettings::Nats(_)
            | DeliverySettings::GelfDatagram(_)
            | DeliverySettings::Fluent(_) => None,
            DeliverySettings::File(_) | DeliverySettings::Stdout => Some(Framing::Newline),
        }
    }

    /// Whether people read the output on terminals, so that it is escaped. A collector gets each byte.
    pub fn is_for_people(&self) -> bool {
        matches!(self.delivery, DeliverySettings::File(_) | DeliverySettings::Stdout)
    }
}

impl StreamSettings {
    /// The framing for an address. RFC 5425 has only octet counting. On plain TCP every collector understands newlines.
    fn framing_to(&self, address: &ForwardAddress) -> Framing {
        if address.is_gelf() {
            return Framing::Nul;
        }
        let usual = if address.is_tls() { Framing::OctetCounting } else { Framing::Newline };
        self.framing.unwrap_or(usual)
    }
}

/// Writes the address as in the config, and the proxy.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)?;
        self.proxy.as_ref().map_or(Ok(()), |proxy| write!(f, " through {proxy}"))
    }
}

impl Target {
    /// The destination to look up and connect to: the proxy, or the target. `None`: the target is on this machine.
    pub fn reached_at(&self) -> Option<&Destination> {
        self.proxy.as_ref().and_then(Proxy::destination).or_else(|| self.address.remote())
    }

    /// `Err`: a variable for the proxy is invalid, or the target's region or URL is.
    fn new(
        address: ForwardAddress,
        keys: &ForwardKeys,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let delivery = match &address {
            ForwardAddress::Bucket(bucket) => {
                let http = HttpSettings { api: http::Api::S3, ..keys.http.clone() };
                let region = http.aws.region_of(&http.s3.endpoint_host(), variable).ok_or(NO_REGION)?;
                let address = bucket.url(http.s3.endpoint.as_ref(), &region)?;
                let proxy = http.proxy.of(&address, variable)?;
                return Ok(Self { address, proxy, delivery: DeliverySettings::Http(Box::new(http)) });
            }
            ForwardAddress::File(_) => DeliverySettings::File(keys.file.clone()),
            ForwardAddress::Stdout => DeliverySettings::Stdout,
            ForwardAddress::Network(to) => match (to.protocol(), to.transport()) {
                (ForwardProtocol::Relp, _) => DeliverySettings::Relp(keys.relp.clone()),
                (ForwardProtocol::Http, _) => DeliverySettings::Http(Box::new(keys.http.clone())),
                (ForwardProtocol::Nats, _) => {
                    DeliverySettings::Nats(Box::new(NatsTarget::new(&keys.nats, &keys.http, keys.relp.window)))
                }
                (ForwardProtocol::Fluent, _) => {
                    DeliverySettings::Fluent(Box::new(FluentSettings::new(&keys.fluent, &keys.http)))
                }
                (ForwardProtocol::Gelf, Transport::Udp) => DeliverySettings::GelfDatagram(GelfSettings {
                    max_datagram: keys.gelf.max_datagram,
                    compress: keys.http.compress,
                }),
                (ForwardProtocol::Syslog, Transport::Udp) => DeliverySettings::Datagram,
                (ForwardProtocol::Syslog | ForwardProtocol::Gelf, Transport::Tcp | Transport::Tls) => {
                    DeliverySettings::Stream(keys.stream.clone())
                }
            },
        };
        let proxy = keys.http.proxy.of(&address, variable)?;
        Ok(Self { address, proxy, delivery })
    }
}

impl Forward {
    /// The masks for the lines: first those of all forwards, then those of this one.
    pub fn all_masks(&self) -> impl Iterator<Item = &MaskSettings> {
        self.shared_masks.iter().chain(&self.masks)
    }

    /// The tokens, keys and passwords of the targets.
    pub fn secrets(&self) -> impl Iterator<Item = Secret> {
        // All targets of such a forward are of the same kind.
        let secrets = match self.to.first().map(|to| &to.delivery) {
            Some(DeliverySettings::Http(http)) => [http.token(), http.password()],
            Some(DeliverySettings::Fluent(fluent)) => fluent.secrets(),
            Some(DeliverySettings::Nats(nats)) => [nats.login.secret(), None],
            _ => [None, None],
        };
        secrets.into_iter().flatten()
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
        if !check_use(written, place)? {
            check_identity(&written.tls, place)?;
        }
        let keys = ForwardKeys::read(&used(written, place.source), place)?;
        check_kinds(written, place)?;
        http::check(&written.http, &written.addresses, place)?;
        shape::check(&written.shape, &keys.shape, place)?;
        shape::check_masks(&written.masks, place)?;
        nats::check(&written.nats, &written.http, &written.addresses, place)?;
        fluent::check(&written.fluent, &written.http, &keys.addresses, place)?;
        if let Some(leaf) = written.stream.replay_limit.first()
            && keys.stream.replay_limit < keys.stream.replay
        {
            let says = "must not be below `replay`";
            place.source.note(place.source.bad(&place.key("replay-limit"), leaf, says), ())?;
        }
        let mut to = Vec::with_capacity(keys.addresses.len());
        for (address, leaf) in keys.addresses.iter().zip(written.addresses.leaves()) {
            match Target::new(address.clone(), &keys, place.source.variable) {
                Ok(target) => to.push(target),
                Err(says) => place.source.note(place.source.bad(&place.key("to"), leaf, &says), ())?,
            }
        }
        Ok(Self { keys, shared_masks: Vec::new(), to, global_fields: Vec::new() })
    }

    fn display(&self, table: &mut Table) {
        WrittenForward::default().each(&mut |key, _| {
            let is_unused = key.only_for.is_some_and(|only_for| !self.addresses.iter().any(only_for.uses));
            if is_unused || http::other_apis_of(key.name, self.http.api).is_some() {
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

/// Notes targets of another kind beside a target that needs all targets to be of its kind.
fn check_kinds(written: &WrittenForward, place: &Place<'_>) -> Result<(), ConfigError> {
    let Some(to) = targets(place.source, written) else { return Ok(()) };
    let kind = |to: &ForwardAddress| match to.network()?.protocol() {
        ForwardProtocol::Syslog | ForwardProtocol::Relp => None,
        ForwardProtocol::Http => Some(http::HTTP.schemes),
        ForwardProtocol::Nats => Some(nats::NATS.schemes),
        ForwardProtocol::Fluent => Some(fluent::FLUENT.schemes),
        ForwardProtocol::Gelf => Some(GELF_SCHEMES),
    };
    let kind = |to: &ForwardAddress| if to.is_bucket() { Some(aws::S3.schemes) } else { kind(to) };
    let Some(schemes) = to.iter().find_map(kind) else { return Ok(()) };
    let is_other = |to: &ForwardAddress| kind(to) != Some(schemes);
    let Some(other) = to.iter().position(is_other).and_then(|at| written.addresses.leaves().get(at)) else {
        return Ok(());
    };
    let says = format!("a forward to {schemes} has no targets of another kind; give them a forward of their own");
    place.source.note(place.source.bad(&place.key("to"), other, &says), ())
}

/// Warns of keys that no target uses. A TLS key is an error if no target speaks TLS, because the lines would be sent in plain
/// text. Returns whether there was such an error.
fn check_use(written: &WrittenForward, place: &Place<'_>) -> Result<bool, ConfigError> {
    // A target that cannot be read may use the keys.
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

/// The keys that a target uses. Other keys are ignored.
fn used(written: &WrittenForward, source: &Source<'_>) -> WrittenForward {
    let mut used = written.clone();
    let Some(to) = targets(source, written) else { return used };
    let api = written.http.said_api(source).filter(|_| to.iter().any(|to| (http::HTTP.uses)(to)));
    used.each_mut(&mut |key, entry| {
        let is_unused = key.only_for.is_some_and(|only_for| !to.iter().any(only_for.uses));
        if is_unused || api.is_some_and(|api| http::other_apis_of(key.name, api).is_some()) {
            *entry = Entry::default();
        }
    });
    used
}

/// The targets of a section. `None`: one of them is invalid, which is noted when the key is read.
fn targets(source: &Source<'_>, section: &WrittenForward) -> Option<Vec<ForwardAddress>> {
    let read = |leaf: &Leaf| source.text("forward.to", leaf).ok()?.parse().ok();
    section.addresses.leaves().iter().map(read).collect::<Option<Vec<_>>>().filter(|to| !to.is_empty())
}

/// Whether a target of the section uses a key.
pub fn section_uses(source: &Source<'_>, section: &WrittenForward, only_for: Option<OnlyFor>) -> bool {
    let read = |leaf: &Leaf| source.text("forward.to", leaf).ok()?.parse::<ForwardAddress>().ok();
    only_for.is_none_or(|only_for| section.addresses.leaves().iter().filter_map(read).any(|to| (only_for.uses)(&to)))
}

/// The forward of `--forward`, or the default forward.
pub fn unwritten(flag: &str, name: Option<&str>, urls: &[&str]) -> List<WrittenForward> {
    let leaf = |text: &&str| Leaf::from_override(flag, text);
    let addresses = Entry::list(urls.iter().map(leaf).collect());
    let name = name.as_ref().map_or_else(Entry::default, |name| Entry::one(leaf(name)));
    List::unwritten([WrittenForward { name, addresses, ..WrittenForward::default() }])
}

/// Notes missing and repeated names.
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
