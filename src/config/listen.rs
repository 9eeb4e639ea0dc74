//! `[[listen]]`: the addresses for messages, the senders that may use them, and the limits for senders.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;

use super::effective::Table;
use super::error::{ConfigError, Source};
use super::fields::AddedFields;
use super::hostname;
use super::kinds::{Count, Flag, ListOf, NAME, Optional, Path, Size, Special, Text, Time, TimeOrOff, Value, Words};
use super::multiline::Multiline;
use super::secret::{FromVariable, Secret};
use super::settings::{Place, Settings, defaults, settings};
use super::written::{Entry, Leaf, List, Written};
use super::{Fingerprint, ListenAddress, PeerName, Protocol};
use crate::protocol::relp::NumberedStreams;
use crate::protocol::syslog::{HostSource, ListenerMark, Listening, Marks, SenderZones, Senders};
use crate::record::template::AddedField;
use crate::record::{AddressRange, Rule, TimeZone};

pub const DEFAULT_LISTEN: [&str; 2] = ["udp://[::]:514", "tcp://[::]:514"];
/// The default of `max-frame`: bytes of one message, without framing. Docker splits messages at 16 KiB, and adds a header
/// that contains the tag twice.
pub const DEFAULT_MAX_FRAME: usize = 64 * 1024;
/// The limits of `max-frame`, in bytes. RFC 5424 6.1 requires every receiver to accept 480 bytes. A frame of the maximum size
/// must fit into a record of the spool.
const MAX_FRAME_LIMITS: Size = Size(480..=512 * 1024);
/// The size of the receive buffer of a UDP socket, in bytes. The kernel doubles it for its own overhead, which is enough for
/// 6,500 datagrams of 200 bytes.
pub const DEFAULT_RECEIVE_BUFFER: usize = 8 * 1024 * 1024;
/// The default of `max-connections`, for one listener. Docker opens one connection for each container.
const DEFAULT_MAX_CONNECTIONS: usize = 10_000;
/// The default of `max-connections-per-address`: a quarter of all connections, so that one address cannot use all of them.
/// All containers of a Docker host share one address.
const DEFAULT_MAX_CONNECTIONS_PER_ADDRESS: usize = 2_500;
/// The default of `max-unfinished`: bytes of incomplete messages, for all connections of a listener together.
const DEFAULT_MAX_UNFINISHED: ByteSize = ByteSize::mib(16);
/// The limits of `max-unfinished`. Connections from one address may use half of it. The longest frame must fit into that
/// half, and so must a RELP frame of another logferry.
const MAX_UNFINISHED_LIMITS: Size = Size(4 << 20..=1 << 40);
/// The default of `frame-timeout`: a message of 64 KiB fits into it at 1 KiB a second.
const DEFAULT_FRAME_TIMEOUT: Duration = Duration::from_secs(60);
/// The default of `max-handshakes`. Each handshake may use 64 KiB, and takes about a millisecond of CPU time and two round trips.
const DEFAULT_MAX_HANDSHAKES: usize = 100;
const DEFAULT_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

const NUMBERED: Words<NumberedStreams> = Words(&[("any", NumberedStreams::Any), ("proven", NumberedStreams::Proven)]);
const MARKS: Words<Marks> = Words(&[("keep", Marks::Keep), ("replace", Marks::Replace)]);
const SENDERS: Words<Senders> = Words(&[("anybody", Senders::Anybody), ("docker", Senders::Docker)]);

settings! {
    /// One listener.
    pub struct Listen, written as WrittenListen {
        // The default accepts every other key of a section.
        address: ListenAddress = "tcp://0.0.0.0:0".parse().expect("an address"), as Text, key "address";
        /// The name for rules. Lines carry it.
        name: Option<String> = None, as Optional(NAME), key "name";
        /// The kind of senders.
        from: Senders = Senders::Anybody, as SENDERS, key "from";
        /// Whether our elements in a sender's messages are believed; `None` until the whole config is read.
        marks: Option<Marks> = None, as Optional(MARKS), key "marks";
        /// Whether lines carry the address of the sender.
        peer: bool = false, as Flag, key "peer";
        /// The source of HOSTNAME.
        host: HostSource = HostSource::Message, as Special { read: host_source, display: display_host_source }, key "host";
        /// Which lines continue the message before them.
        multiline: Multiline = Multiline::Off, as Text, key "multiline";
        /// The time within which equal messages of one sender are merged; `None`: they are not merged.
        repeat: Option<Duration> = None, as TimeOrOff, key "repeat";
        /// Whether plain text is accepted. Without `tls` it always is. The default is no for a listener that asks for
        /// certificates.
        plaintext: bool = !address.is_tls() && !tls.as_ref().is_some_and(ServerTls::is_mutual), as Flag, key "plaintext";
        receive_buffer: usize = DEFAULT_RECEIVE_BUFFER, as Size(4096..=1 << 30), key "receive-buffer";
        /// The tokens for senders of HEC, or the file with them; neither: senders need none.
        token: Option<Secret> = None, as Optional(FromVariable), key "token";
        token_file: Option<PathBuf> = None, as Optional(Path), key "token-file";
        /// The key for senders of the Forward protocol, or the file with it, and the file with users and their passwords;
        /// none: senders need none.
        shared_key: Option<Secret> = None, as Optional(FromVariable), key "shared-key";
        shared_key_file: Option<PathBuf> = None, as Optional(Path), key "shared-key-file";
        users_file: Option<PathBuf> = None, as Optional(Path), key "users-file";
        /// Fields that are added to each line.
        fields: Vec<AddedField> = Vec::new(), as AddedFields, key "fields".takes_table();
        /// The zone for timestamps without one; `None`: that of `[syslog]`.
        time_zone: Option<TimeZone> = None, as Optional(Text), key "time-zone";
    }
    groups {
        tls: Option<ServerTls>;
        limits: Limits;
    }
    lists {
        /// The zones for ranges of senders. The first range that contains the sender is used.
        time_zones: SenderZone, key "time-zones", or_alone false;
    }
}

settings! {
    /// A time zone for some senders.
    pub struct SenderZone, written as WrittenSenderZone {
        from: Vec<AddressRange> = Vec::new(), as ListOf::text(), key "from";
        zone: Option<TimeZone> = None, as Optional(Text), key "zone";
    }
}

settings! {
    /// The limits for senders. Limits for streams have no effect on datagrams.
    pub struct Limits, written as WrittenLimits {
        /// Addresses that may send; empty: all.
        allow: Vec<AddressRange> = Vec::new(), as ListOf::text(), key "allow";
        /// Whether a proxy in front tells the sender's address (PROXY protocol).
        proxy_protocol: bool = false, as Flag, key "proxy-protocol";
        /// Addresses that may send through the proxy; empty: all.
        client_allow: Vec<AddressRange> = Vec::new(), as ListOf::text(), key "client-allow";
        /// The maximum size of a frame, in bytes. The rest of a longer frame is dropped.
        max_frame: usize = DEFAULT_MAX_FRAME, as MAX_FRAME_LIMITS, key "max-frame";
        /// The maximum number of connections. Further ones are closed at once.
        max_connections: usize = DEFAULT_MAX_CONNECTIONS, as Count, key "max-connections";
        /// The maximum number of connections from one IPv4 address, or from one /64 of IPv6.
        max_connections_per_address: usize = DEFAULT_MAX_CONNECTIONS_PER_ADDRESS,
            as Count, key "max-connections-per-address";
        /// The maximum size of incomplete frames, for all connections together, in bytes.
        max_unfinished: usize = DEFAULT_MAX_UNFINISHED.as_u64() as usize, as MAX_UNFINISHED_LIMITS, key "max-unfinished";
        /// The maximum time from a frame's first byte to its last.
        frame_timeout: Duration = DEFAULT_FRAME_TIMEOUT, as Time, key "frame-timeout";
        /// The maximum number of simultaneous TLS handshakes. Further ones wait.
        max_handshakes: usize = DEFAULT_MAX_HANDSHAKES, as Count, key "max-handshakes";
        /// The senders whose line numbers are believed.
        numbered: NumberedStreams = NumberedStreams::Any, as NUMBERED, key "numbered";
        /// The maximum time of a TLS handshake, from its first byte.
        handshake_timeout: Duration = DEFAULT_HANDSHAKE_TIMEOUT, as Time, key "handshake-timeout";
    }
}

/// The TLS files and peers of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    pub cert: PathBuf,
    pub key: PathBuf,
    pub client_ca: Option<PathBuf>,
    /// If there are any, a sender's certificate must have one of these names.
    pub client_names: Vec<PeerName>,
    /// If there are any, a sender's certificate must have one of these fingerprints.
    pub client_fingerprints: Vec<Fingerprint>,
}

settings! {
    /// The keys of [`ServerTls`].
    pub struct ServerTlsKeys, written as WrittenServerTls {
        cert: Option<PathBuf> = None, as Optional(Path), key "cert".flag(
            "tls-cert", "LOGFERRY_TLS_CERT", "FILE",
            "Certificate chain (PEM) for every tcp://, tcp+tls://, relp+tls://, fluent+tls://, gelf+tls://, splunk+https:// and journal+https:// listener",
        );
        key: Option<PathBuf> = None, as Optional(Path), key "key".flag(
            "tls-key", "LOGFERRY_TLS_KEY", "FILE", "Private key (PEM) of --tls-cert",
        );
        client_ca: Option<PathBuf> = None, as Optional(Path), key "client-ca".flag(
            "tls-client-ca", "LOGFERRY_TLS_CLIENT_CA", "FILE",
            "CA (PEM) that must have signed the certificates of TLS senders",
        );
        client_names: Vec<PeerName> = Vec::new(), as ListOf::text(), key "client-names";
        client_fingerprints: Vec<Fingerprint> = Vec::new(), as ListOf::text(), key "client-fingerprint";
    }
}

impl Listen {
    /// The tokens for senders of HEC; `None`: senders need none.
    pub fn tokens(&self) -> Option<Secret> {
        Secret::of(&self.token, &self.token_file)
    }

    /// The key for senders of the Forward protocol; `None`: senders need none.
    pub fn shared_key(&self) -> Option<Secret> {
        Secret::of(&self.shared_key, &self.shared_key_file)
    }

    /// Users and their passwords; `None`: senders need no user.
    pub fn users(&self) -> Option<Secret> {
        Secret::of(&None, &self.users_file)
    }

    /// The files with tokens, keys and passwords.
    pub fn secret_files(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.token_file, &self.shared_key_file, &self.users_file].into_iter().flatten()
    }

    /// The files that authenticate senders, and the listener's own certificate and key.
    pub fn credential_files(&self) -> Vec<PathBuf> {
        let tls = self.tls.iter().flat_map(|tls| [Some(&tls.cert), Some(&tls.key), tls.client_ca.as_ref()]);
        tls.flatten().chain(self.secret_files()).cloned().collect()
    }
}

impl Default for Limits {
    fn default() -> Self {
        defaults()
    }
}

impl Limits {
    /// Whether senders with this address are allowed.
    pub fn lets_in(&self, address: IpAddr) -> bool {
        self.allow.is_empty() || self.allow.iter().any(|range| range.contains(address))
    }

    /// Whether senders with this address are allowed through a proxy.
    pub fn lets_in_client(&self, address: IpAddr) -> bool {
        self.client_allow.is_empty() || self.client_allow.iter().any(|range| range.contains(address))
    }
}

impl ServerTls {
    /// Whether senders must show a certificate.
    pub fn is_mutual(&self) -> bool {
        self.client_ca.is_some() || !self.client_fingerprints.is_empty()
    }
}

impl Settings for Option<ServerTls> {
    type Written = WrittenServerTls;

    fn read(written: &WrittenServerTls, place: &Place<'_>) -> Result<Self, ConfigError> {
        if let Some(problem) = tls_conflict(written, place) {
            return place.source.note(problem, None);
        }
        let ServerTlsKeys { cert, key, client_ca, client_names, client_fingerprints } =
            ServerTlsKeys::read(written, place)?;
        Ok(cert.zip(key).map(|(cert, key)| ServerTls { cert, key, client_ca, client_names, client_fingerprints }))
    }

    fn display(&self, table: &mut Table) {
        let Some(ServerTls { cert, key, client_ca, client_names, client_fingerprints }) = self.clone() else { return };
        ServerTlsKeys { cert: Some(cert), key: Some(key), client_ca, client_names, client_fingerprints }.display(table);
    }
}

fn tls_conflict(written: &WrittenServerTls, place: &Place<'_>) -> Option<ConfigError> {
    let bad = |key: &str, leaf: &Leaf, says: &str| Some(place.source.bad(&place.key(key), leaf, says));
    match (written.cert.first(), written.key.first()) {
        (Some(leaf), None) => return bad("cert", leaf, "`cert` needs `key`, its private key"),
        (None, Some(leaf)) => return bad("key", leaf, "`key` needs `cert`, its certificate chain"),
        (None, None) => {
            let mut rest = None;
            written.each(&mut |key, entry| rest = rest.take().or(entry.first().map(|leaf| (key.name, leaf.clone()))));
            let (key, leaf) = rest?;
            return bad(key, &leaf, &format!("`{key}` needs `cert` and `key`"));
        }
        (Some(_), Some(_)) => {}
    }
    // A name in a certificate proves nothing without the CA that signed it.
    let leaf = written.client_names.first().filter(|_| !written.client_ca.is_written())?;
    bad("client-names", leaf, "`client-names` needs `client-ca`: anybody can write any name into a certificate")
}

/// Whether a listener at this address can use a certificate.
fn takes_tls(address: &ListenAddress) -> bool {
    address.is_tls() || address.may_be_tls()
}

/// Whether the TLS flags apply to this section. An invalid address is noted when it is read.
pub fn section_takes_tls(source: &Source<'_>, section: &WrittenListen) -> bool {
    let value = Value { source, key: "listen.address", entry: &section.address };
    section.address.is_written() && value.parse(str::parse::<ListenAddress>).is_ok_and(|address| takes_tls(&address))
}

const HOST_SOURCES: [(&str, HostSource); 3] =
    [("message", HostSource::Message), ("address", HostSource::Address), ("name", HostSource::Name)];

fn host_source(text: &str) -> Result<HostSource, String> {
    let nearly = |word: &str| strsim::osa_distance(&text.to_ascii_lowercase(), word) <= 1;
    match HOST_SOURCES.into_iter().find(|(word, _)| nearly(word)) {
        Some((word, source)) if word == text => Ok(source),
        // It is probably a typing error, and would become the host of every line.
        Some((word, _)) => Err(format!("write \"{word}\", or a host name that is not nearly that word")),
        None => hostname(text).map(HostSource::Text).map_err(|says| {
            format!("write \"message\", \"address\", \"name\", or one host name for all senders: {says}")
        }),
    }
}

fn display_host_source(source: &HostSource) -> String {
    match source {
        HostSource::Message => "message".to_owned(),
        HostSource::Address => "address".to_owned(),
        HostSource::Name => "name".to_owned(),
        HostSource::Text(text) => text.clone(),
    }
}

/// The default listeners, or those of `--listen`.
pub fn listeners<'u>(flag: &str, urls: impl IntoIterator<Item = &'u str>) -> List<WrittenListen> {
    let address = |url| Entry::one(Leaf::from_override(flag, url));
    List::unwritten(urls.into_iter().map(|url| WrittenListen { address: address(url), ..WrittenListen::default() }))
}

/// The settings for reading the messages of a listener. `all`: all listeners, `rules`: the rules that are applied before a
/// line is spooled.
pub fn listening<'r>(own: Option<&Listen>, all: &[Listen], rules: impl IntoIterator<Item = &'r Rule>) -> Listening {
    let any_has_name = all.iter().any(|listener| listener.name.is_some());
    let listening = Listening {
        mark: ListenerMark::new(own.and_then(|own| own.name.as_deref()), any_has_name),
        asks_peer: rules.into_iter().any(|rule| !rule.peer.is_empty()),
        ..Listening::default()
    };
    match own {
        Some(Listen { from: senders, marks, peer: writes_peer, host, fields, time_zone, time_zones, .. }) => {
            let range = |senders: &SenderZone| Some((senders.from.clone(), senders.zone.clone()?));
            let ranges = time_zones.iter().filter_map(range).collect();
            let zones = SenderZones { ranges, others: time_zone.clone() };
            let marks = marks.unwrap_or_default();
            let (host, fields) = (host.clone(), fields.clone());
            Listening { senders: *senders, marks, writes_peer: *writes_peer, host, fields, zones, ..listening }
        }
        None => listening,
    }
}

/// Decides whether marks are believed, for listeners that do not set `marks`. Docker's are not. Marks of senders that use
/// RELP or client certificates are. Marks of other senders are believed only while nothing depends on them. `rules`: all
/// rules.
pub fn decide_marks<'r>(listeners: &mut [Listen], rules: impl IntoIterator<Item = &'r Rule>) {
    let something_asks =
        listeners.iter().any(|listener| listener.name.is_some()) || rules.into_iter().any(Rule::asks_marks);
    for listener in listeners {
        let is_relay_s =
            listener.address.protocol() == Protocol::Relp || listener.tls.as_ref().is_some_and(ServerTls::is_mutual);
        let replaces = listener.from == Senders::Docker || !is_relay_s && (something_asks || listener.peer);
        listener.marks.get_or_insert(if replaces { Marks::Replace } else { Marks::Keep });
    }
}

/// Notes contradictions within a listener's settings, and between listeners.
pub fn check(source: &Source<'_>, sections: &List<WrittenListen>, listeners: &[Listen]) -> Result<(), ConfigError> {
    for (at, ((span, section), listener)) in sections.sections.iter().zip(listeners).enumerate() {
        if !section.address.is_written() {
            source.missing("listen", span.clone(), "address", "address = \"udp://0.0.0.0:514\"")?;
        }
        if let Some(problem) = conflict(source, section, listener) {
            source.note(problem, ())?;
        }
        check_zones(source, section, listener)?;
        Secret::check_keys(source, ("listen", "token"), [&section.token, &section.token_file])?;
        Secret::check_keys(source, ("listen", "shared-key"), [&section.shared_key, &section.shared_key_file])?;
        let mut before = listeners[..at].iter();
        let is_taken = |other: &Listen| other.address.shares_socket_with(&listener.address);
        if let Some(leaf) = section.address.first()
            && !listener.address.has_any_port()
            && before.clone().any(is_taken)
        {
            source.note(source.bad("listen.address", leaf, "another listener has this address already"), ())?;
        }
        if let Some(leaf) = section.name.first()
            && before.any(|other| other.name.is_some() && other.name == listener.name)
        {
            source.note(source.bad("listen.name", leaf, "another listener has this name already"), ())?;
        }
        let says = match listener.address.protocol() {
            Protocol::Relp => {
                "Docker's driver speaks no RELP; write it at the udp, tcp or unix listener that the driver is pointed at"
            }
            Protocol::Journal => "a journal has the lines of all programs of a host; take it out",
            Protocol::Syslog | Protocol::Fluent | Protocol::Gelf | Protocol::Splunk => continue,
        };
        if let Some(leaf) = section.from.first().filter(|_| listener.from == Senders::Docker) {
            source.note(source.bad("listen.from", leaf, says), ())?;
        }
    }
    Ok(())
}

/// Notes zones without senders, and senders without a zone.
fn check_zones(source: &Source<'_>, section: &WrittenListen, listener: &Listen) -> Result<(), ConfigError> {
    for (span, zone) in &section.time_zones.sections {
        if !zone.from.is_written() {
            source.missing("listen.time-zones", span.clone(), "from", "from = \"10.0.0.0/8\"")?;
        }
        if !zone.zone.is_written() {
            source.missing("listen.time-zones", span.clone(), "zone", "zone = \"Europe/Berlin\"")?;
        }
        if let Some(leaf) = zone.from.first().filter(|_| listener.address.path().is_some()) {
            let says = "senders of unix:// and unixgram:// have no address; `time-zone` is the zone of them all";
            source.note(source.bad("listen.time-zones.from", leaf, says), ())?;
        }
    }
    Ok(())
}

/// The problem of a listener that joins lines although its senders wait for an answer to each message.
fn joins_what_is_answered(source: &Source<'_>, section: &WrittenListen, listener: &Listen) -> Option<ConfigError> {
    let says = match listener.address.protocol() {
        Protocol::Relp => {
            "RELP's numbers stand for lines, and none is joined; write it at the listener that takes them first"
        }
        Protocol::Splunk | Protocol::Journal => "each message is answered for itself here, and none is joined",
        Protocol::Syslog | Protocol::Fluent | Protocol::Gelf => return None,
    };
    let multiline = section.multiline.first().filter(|_| listener.multiline != Multiline::Off);
    let repeat = section.repeat.first().filter(|_| listener.repeat.is_some());
    let bad = |key, leaf| source.bad(key, leaf, says);
    multiline.map(|leaf| bad("listen.multiline", leaf)).or(repeat.map(|leaf| bad("listen.repeat", leaf)))
}

/// A contradiction within a listener's settings.
fn conflict(source: &Source<'_>, section: &WrittenListen, listener: &Listen) -> Option<ConfigError> {
    let Listen { address, plaintext, .. } = listener;
    let tls = &section.tls;
    let no_files = ![&tls.cert, &tls.key, &tls.client_ca].iter().any(|entry| entry.is_written());
    let of_address = |says| section.address.first().map(|leaf| source.bad("listen.address", leaf, says));
    let of_plaintext = |says| section.plaintext.first().map(|leaf| source.bad("listen.plaintext", leaf, says));
    if address.is_tls() && no_files {
        return of_address("TLS needs `cert` and `key` (PEM files)");
    }
    if !no_files && !takes_tls(address) {
        return of_address(
            "`cert` and `key` belong to tcp://, tcp+tls://, relp+tls://, fluent+tls://, gelf+tls://, splunk+https:// and journal+https:// listeners",
        );
    }
    let token = section.token.first().map(|leaf| ("listen.token", leaf));
    let token = token.or(section.token_file.first().map(|leaf| ("listen.token-file", leaf)));
    if let Some((key, leaf)) = token.filter(|_| address.protocol() != Protocol::Splunk) {
        // The written value is not quoted, because it may be a secret.
        return Some(source.located(key, leaf, "only splunk+http:// and splunk+https:// listeners ask for a token"));
    }
    let key = section.shared_key.first().map(|leaf| ("listen.shared-key", leaf));
    let key = key.or(section.shared_key_file.first().map(|leaf| ("listen.shared-key-file", leaf)));
    let users = section.users_file.first().map(|leaf| ("listen.users-file", leaf));
    let may_ask = address.protocol() == Protocol::Fluent && address.is_tcp();
    if let Some((key, leaf)) = key.or(users).filter(|_| !may_ask) {
        return Some(source.located(key, leaf, "only fluent:// and fluent+tls:// listeners ask for a shared key"));
    }
    if let Some((users, leaf)) = users.filter(|_| key.is_none()) {
        return Some(source.located(
            users,
            leaf,
            "users are asked for beside a key; write `shared-key` or `shared-key-file`",
        ));
    }
    if let Some(leaf) = section.limits.allow.first().filter(|_| address.path().is_some()) {
        let says = "senders of unix:// and unixgram:// have no address; the mode of the socket's directory decides which users may send";
        return Some(source.bad("listen.allow", leaf, says));
    }
    if let Some(leaf) = section.limits.client_allow.first().filter(|_| !listener.limits.proxy_protocol) {
        let says = "it is about what a proxy tells and needs `proxy-protocol = true`; without a proxy write `allow`";
        return Some(source.bad("listen.client-allow", leaf, says));
    }
    let proxy = section.limits.proxy_protocol.first().filter(|_| listener.limits.proxy_protocol);
    if let Some(leaf) = proxy.filter(|_| address.path().is_some()) {
        let says = "proxies speak so to listeners with an IP address, and to none with a path";
        return Some(source.bad("listen.proxy-protocol", leaf, says));
    }
    if let Some(leaf) = section.marks.first().filter(|_| listener.from == Senders::Docker)
        && listener.marks == Some(Marks::Keep)
    {
        let says = "where only Docker sends (`from`) there are no marks of relays; take it out, or write \"replace\"";
        return Some(source.bad("listen.marks", leaf, says));
    }
    let by_address = [HostSource::Address, HostSource::Name].contains(&listener.host);
    let peer = section.peer.first().filter(|_| listener.peer).map(|leaf| ("listen.peer", leaf));
    let host = section.host.first().filter(|_| by_address).map(|leaf| ("listen.host", leaf));
    if let Some((key, leaf)) = peer.or(host).filter(|_| address.path().is_some()) {
        return Some(source.bad(key, leaf, "senders of unix:// and unixgram:// have no address"));
    }
    let proves = listener.limits.numbered == NumberedStreams::Proven;
    if let Some(leaf) = section.limits.numbered.first().filter(|_| proves && address.protocol() != Protocol::Relp) {
        let says = "only RELP numbers lines; write it at a relp:// or relp+tls:// listener";
        return Some(source.bad("listen.numbered", leaf, says));
    }
    if let Some(problem) = joins_what_is_answered(source, section, listener) {
        return Some(problem);
    }
    if *plaintext && address.is_tls() {
        return of_plaintext("this scheme takes TLS only; for both on one port write tcp://");
    }
    if !plaintext && no_files {
        return of_plaintext("without `cert` and `key` plain text is all there is");
    }
    None
}
