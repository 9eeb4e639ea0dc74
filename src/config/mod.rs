//! Settings: every key with its type, unit, default and limits. A [`Config`] that exists is valid.
//!
//! Here are the settings as they are meant; `file` and `overrides` are what was written, `written` and `read` lead from
//! one to the other and `show` back. What is wrong is gathered on the way (`error`), so that one reading names all of it.
//! It reads the one config file and nothing else: no certificate, no socket, no name server. docker/logferry.toml names
//! every key; tests/it/tidy.rs holds it to that.

mod address;
pub mod check;
mod error;
mod file;
mod overrides;
mod peer;
mod range;
mod read;
mod rules;
mod show;
mod written;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;

pub use address::{
    Destination, ForwardAddress, Host, HostPort, ListenAddress, ListenTransport, NetworkAddress, Protocol, SYSLOG_PORT,
    SYSLOG_TLS_PORT, Transport,
};
pub use error::{ConfigError, ConfigErrors};
pub use overrides::Overrides;
pub use peer::{Fingerprint, PeerName};
pub use range::AddressRange;
pub use show::shown_size;

use crate::protocol::syslog::{Senders, Settings, TagTemplate};
use crate::record::{Format, Rule, UtcOffset};
use crate::spool::{Sync, WhenFull};
use error::Source;

/// Read when no `--config` is given and it is there.
pub const DEFAULT_FILE: &str = "/etc/logferry.toml";

pub const DEFAULT_LISTEN: [&str; 2] = ["udp://[::]:514", "tcp://[::]:514"];
/// Bytes of one message, framing excluded. Docker cuts at 16 KiB and adds a header with the tag in it, twice.
pub const DEFAULT_MAX_FRAME: usize = 64 * 1024;
/// A frame must hold what RFC 5424 6.1 makes every receiver take, and fit a datagram's length field and our records.
pub const MAX_FRAME_RANGE: (u64, u64) = (480, 512 * 1024);
/// Bytes asked of the kernel for a UDP socket; it doubles the figure for its own overhead. 6,500 datagrams of 200 bytes.
pub const DEFAULT_RECEIVE_BUFFER: usize = 8 * 1024 * 1024;
/// Connections of one listener. Docker opens one for each container.
pub const DEFAULT_MAX_CONNECTIONS: usize = 10_000;
/// A quarter of them, so that one neighbour cannot take all. All containers of a Docker host come from one address.
pub const DEFAULT_MAX_CONNECTIONS_PER_ADDRESS: usize = 2_500;
/// Bytes of messages that have begun and not ended, of all connections of a listener together.
pub const DEFAULT_MAX_UNFINISHED: ByteSize = ByteSize::mib(16);
/// Half of it is for those from one address. The longest frame must fit into that, and a RELP frame of another logferry.
pub const MAX_UNFINISHED_RANGE: (u64, u64) = (4 << 20, 1 << 40);
/// How long the end of a message is waited for: a message of 64 KiB comes at 1 KiB a second.
pub const DEFAULT_FRAME_TIMEOUT: Duration = Duration::from_secs(60);
/// Each may hold 64 KiB. A handshake takes about a millisecond of CPU time and two round trips.
pub const DEFAULT_MAX_HANDSHAKES: usize = 100;
pub const DEFAULT_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

pub const DEFAULT_SD_ID: &str = "docker@32473";
/// Lines that are made of Docker's pieces of 16 KiB, in bytes: at least two pieces, and what the spool takes at the most.
pub const REJOIN_RANGE: (u64, u64) = (48 * 1024, 512 * 1024);
/// Seconds of its rate that a container may use at once, where `rate-burst` says nothing else.
pub const DEFAULT_BURST_SECONDS: u32 = 10;
/// `[[drop]]` sections: the listeners keep a bit for each.
pub const MOST_RULES: usize = 64;

pub const DEFAULT_SPOOL_DIR: &str = "/var/spool/logferry";
pub const DEFAULT_SPOOL_SIZE: ByteSize = ByteSize::gib(1);
/// Below this the segments would be smaller than a few large messages.
pub const MIN_SPOOL_SIZE: ByteSize = ByteSize::mib(1);
/// Larger than any disk; what is counted of it still has room for a hundred times as much.
pub const MAX_SPOOL_SIZE: ByteSize = ByteSize::pib(1);
pub const DEFAULT_SHED_FROM: u8 = 90;
/// Bytes a second. With less, what queues would take longer than a stop and `/ready` wait.
pub const MAX_RATE_RANGE: (u64, u64) = (8 << 20, 1 << 40);
pub const DEFAULT_SYNC: Duration = Duration::from_secs(1);
/// How long a sender may be held when the disk stands still, before messages are dropped and counted.
pub const DEFAULT_MAX_WAIT: Duration = Duration::from_secs(5);

pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// `TCP_USER_TIMEOUT`: unacknowledged bytes older than this end the connection. Keepalive alone never fires while data
/// is outstanding.
pub const DEFAULT_DEAD_AFTER: Duration = Duration::from_secs(10);
/// Bytes of what a collector's kernel acknowledged that are sent again when the connection breaks…
pub const DEFAULT_REPLAY: ByteSize = ByteSize::kib(64);
/// …unless they were acknowledged longer ago than this, and the collector seems to read.
pub const DEFAULT_REPLAY_FOR: Duration = Duration::from_secs(30);
/// Bytes that are kept of what was acknowledged while the collector seems not to read: half of what Linux lets one
/// socket buffer (`tcp_rmem`, 32 MiB since 6.16), for it counts its own book-keeping too.
pub const DEFAULT_REPLAY_LIMIT: ByteSize = ByteSize::mib(16);
/// Unanswered messages of a RELP session. A round trip of 1 ms allows a million messages a second, one of 50 ms 20,000;
/// what comes twice after a broken session is at most this.
pub const DEFAULT_WINDOW: usize = 1000;
pub const DEFAULT_MAX_BACKOFF: Duration = Duration::from_secs(2);
/// Between two looks whether an earlier collector is back, while a later one serves.
pub const DEFAULT_RETURN_AFTER: Duration = Duration::from_secs(30);

pub const DEFAULT_MIN_TTL: Duration = Duration::from_secs(1);
/// Docker's own DNS answers with a TTL of 600 s: following it would leave a relay on a dead address for ten minutes.
pub const DEFAULT_MAX_TTL: Duration = Duration::from_secs(30);
pub const DEFAULT_RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);

pub const DEFAULT_ADMIN: &str = "127.0.0.1:9514";
/// Below Docker's 10 s between SIGTERM and SIGKILL.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(5);

/// A whole, valid configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// HOSTNAME for messages that carry none.
    pub hostname: String,
    /// How long a stopping relay goes on sending what it has spooled.
    pub grace: Duration,
    pub listen: Vec<Listen>,
    pub syslog: Syslog,
    /// Lines that one of these means are dropped before the spool.
    pub drop: Vec<Rule>,
    pub spool: Spool,
    pub forward: Vec<Forward>,
    pub resolve: Resolve,
    pub admin: Admin,
    pub log: Log,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    pub address: ListenAddress,
    /// Rules mean it by this name, and its lines carry it.
    pub name: Option<String>,
    /// Who sends there.
    pub from: Senders,
    pub tls: Option<ServerTls>,
    /// Are plain-text senders welcome? Always true without `tls`.
    pub plaintext: bool,
    pub receive_buffer: usize,
    pub limits: Limits,
}

/// What senders may do and take. The limits of streams mean nothing to datagrams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Who may send; nobody named: everybody.
    pub allow: Vec<AddressRange>,
    /// Bytes of a frame that are kept.
    pub max_frame: usize,
    /// Connections at a time; more are closed at once.
    pub max_connections: usize,
    /// The same for those of one IPv4 address, or of one /64 of IPv6.
    pub max_connections_per_address: usize,
    /// Bytes of frames that have not ended, of all connections together.
    pub max_unfinished: usize,
    /// From a frame's first byte to its last.
    pub frame_timeout: Duration,
    /// TLS handshakes at a time; others wait for their turn.
    pub max_handshakes: usize,
    /// From the first byte of a TLS connection on.
    pub handshake_timeout: Duration,
}

/// The PEM files of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    pub cert: PathBuf,
    pub key: PathBuf,
    pub client_ca: Option<PathBuf>,
    /// A sender's certificate must carry one of them, if there are any.
    pub client_names: Vec<PeerName>,
    /// A sender's certificate must be one of them, if there are any.
    pub client_fingerprints: Vec<Fingerprint>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            max_frame: DEFAULT_MAX_FRAME,
            max_connections: DEFAULT_MAX_CONNECTIONS,
            max_connections_per_address: DEFAULT_MAX_CONNECTIONS_PER_ADDRESS,
            max_unfinished: DEFAULT_MAX_UNFINISHED.as_u64() as usize,
            frame_timeout: DEFAULT_FRAME_TIMEOUT,
            max_handshakes: DEFAULT_MAX_HANDSHAKES,
            handshake_timeout: DEFAULT_HANDSHAKE_TIMEOUT,
        }
    }
}

impl Limits {
    /// Whether somebody with this address may send.
    pub fn lets_in(&self, address: IpAddr) -> bool {
        self.allow.is_empty() || self.allow.iter().any(|range| range.contains(address))
    }
}

impl ServerTls {
    /// Must senders show a certificate?
    pub fn is_mutual(&self) -> bool {
        self.client_ca.is_some() || !self.client_fingerprints.is_empty()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syslog {
    pub tag_template: TagTemplate,
    pub sd_id: String,
    pub time_zone: UtcOffset,
    /// The longest line that is made of Docker's pieces, in bytes; `None`: they stay what they are.
    pub rejoin: Option<usize>,
    /// What each container may send; `None`: all it likes.
    pub rate: Option<Rate>,
}

/// How many messages of one container are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Messages a second, in the long run.
    pub per_second: u32,
    /// Messages at once, after a silence.
    pub burst: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spool {
    pub dir: PathBuf,
    pub max_size: u64,
    pub when_full: WhenFull,
    pub sync: Sync,
    pub max_wait: Duration,
    /// Percent of `max_size` from which on messages of low severity are refused; `None`: never.
    pub shed_from: Option<u8>,
    /// Bytes a second that are written to it; `None`: all that come.
    pub max_rate: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Names the cursor in the spool and the metrics' label.
    pub name: String,
    /// Tried in this order.
    pub to: Vec<ForwardAddress>,
    /// Only lines that one of these means are forwarded; none: all lines.
    pub matches: Vec<Rule>,
    pub format: Format,
    /// `None`: by the scheme, octet counting for TLS and newline for the rest.
    pub framing: Option<Framing>,
    pub tls: ClientTls,
    pub connect_timeout: Duration,
    pub dead_after: Duration,
    pub max_backoff: Duration,
    pub return_after: Duration,
    pub replay: u64,
    pub replay_for: Duration,
    pub replay_limit: u64,
    /// RELP: no more is taken from the spool while so many messages are unanswered.
    pub window: usize,
}

/// How messages are told apart on a stream (RFC 6587).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    OctetCounting,
    Newline,
}

/// What verifies a collector, and what we show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// `None`: the system's roots, or with fingerprints, no CA at all.
    pub ca: Option<PathBuf>,
    /// Our certificate chain and key, when the collector asks for them.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name in the collector's certificate when `to` says another.
    pub server_name: Option<String>,
    /// The collector's certificate must be one of them, if there are any.
    pub server_fingerprints: Vec<Fingerprint>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolve {
    /// Empty: those of /etc/resolv.conf.
    pub nameservers: Vec<SocketAddr>,
    pub min_ttl: Duration,
    pub max_ttl: Duration,
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    pub listen: Option<SocketAddr>,
    /// Was the address asked for? The default's port being taken is a warning, an explicit one's an error.
    pub explicit: bool,
    /// How many of the busiest containers are exported, each with a series of its own.
    pub containers: usize,
}

/// What the relay says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    pub level: LogLevel,
    /// On stderr.
    pub format: LogFormat,
    /// Down to which level it is put into the spool too, as messages of the relay's own; `None`: never.
    pub to_spool: Option<LogLevel>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Config {
    /// Reads the config file the overrides name, or [`DEFAULT_FILE`] if it is there, and lays the overrides over it.
    pub fn load(overrides: &Overrides) -> Result<Self, ConfigErrors> {
        let Some(path) = overrides.file().map(Path::new) else {
            return Self::parse(None, "", overrides, &env_variable);
        };
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::unreadable(path, &error))?;
        Self::parse(Some(path), &text, overrides, &env_variable)
    }

    /// `[admin] listen` alone, for whoever asks a relay that runs. That goes on as it was when its file has become a bad
    /// one, so that what can still be read counts, and where nothing can, the default.
    pub fn admin_address(overrides: &Overrides) -> Option<SocketAddr> {
        let text = overrides.file().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        let read = |text: &str| Self::read(&Source::new(None, text, &env_variable), overrides);
        let read = read(&text).or_else(|_| read(""));
        read.map_or_else(|_| DEFAULT_ADMIN.parse().ok(), |config| config.admin.listen)
    }

    /// The same from text; `variable` gives the values of `${VAR}`. An error names all that is wrong.
    pub fn parse(
        path: Option<&Path>,
        text: &str,
        overrides: &Overrides,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigErrors> {
        let source = Source::new(path, text, variable);
        let read = Self::read(&source, overrides);
        source.judged(read)
    }

    fn read(source: &Source<'_>, overrides: &Overrides) -> Result<Self, ConfigError> {
        let mut file = written::read(source)?;
        overrides.apply(&mut file);
        if file.listen.is_empty() {
            file.listen = read::default_listeners();
        }
        let listeners = file.listen.iter_mut().map(|section| section.as_mut());
        let on_tcp: Vec<_> = listeners.filter(|section| read::listens_on_tcp(source, section)).collect();
        if on_tcp.is_empty() && overrides.names_listener_tls() {
            source.noted(ConfigError::no_listener_for_tls(), ())?;
        }
        on_tcp.into_iter().for_each(|section| overrides.apply_listener_tls(section));
        let forwards = file.forward.iter_mut().map(|section| section.as_mut());
        let by_tls: Vec<_> = forwards.filter(|section| read::speaks_tls(source, section)).collect();
        if by_tls.is_empty() && overrides.names_forward_tls() {
            source.noted(ConfigError::no_forward_for_tls(), ())?;
        }
        by_tls.into_iter().for_each(|section| overrides.apply_forward_tls(section));
        read::from_file(source, &file)
    }

    /// Whether a relay that runs with this configuration can go on with `new`. An error names what it cannot change.
    pub fn needs_no_restart(&self, new: &Self) -> Result<(), String> {
        let (old_spool, new_spool) = (&self.spool, &new.spool);
        let fixed = [
            ("[spool] dir", old_spool.dir == new_spool.dir),
            ("[spool] sync", old_spool.sync == new_spool.sync),
            ("[spool] max-rate", old_spool.max_rate == new_spool.max_rate),
            ("[spool] max-wait", old_spool.max_wait == new_spool.max_wait),
            ("[admin]", self.admin == new.admin),
            ("[log]", self.log == new.log),
        ];
        match fixed.iter().find(|(_, same)| !same) {
            Some((key, _)) => Err(format!("{key} has changed, and that needs a restart")),
            None => Ok(()),
        }
    }

    /// What decides how a message is read and rendered.
    pub fn syslog_settings(&self) -> Settings {
        Settings {
            hostname: self.hostname.clone(),
            tag_template: self.syslog.tag_template.clone(),
            sd_id: self.syslog.sd_id.clone(),
            utc_offset: self.syslog.time_zone,
        }
    }

    /// The effective settings as a config file, defaults filled in.
    pub fn to_toml(&self) -> String {
        toml::to_string(&show::to_file(self)).expect("a struct of strings, numbers and flags is always TOML")
    }
}

fn env_variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The words for closed sets of other rooms.
const WHEN_FULL: [(&str, WhenFull); 2] = [("drop-oldest", WhenFull::DropOldest), ("drop-newest", WhenFull::DropNewest)];

const LOG_FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];

const SENDERS: [(&str, Senders); 2] = [("anybody", Senders::Anybody), ("docker", Senders::Docker)];

const FRAMINGS: [(&str, Framing); 2] = [("octet-counting", Framing::OctetCounting), ("newline", Framing::Newline)];

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "error" => Ok(Self::Error),
            "warn" => Ok(Self::Warn),
            "info" => Ok(Self::Info),
            "debug" => Ok(Self::Debug),
            "trace" => Ok(Self::Trace),
            _ => Err("write error, warn, info, debug or trace".to_owned()),
        }
    }
}

impl LogLevel {
    fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

#[cfg(test)]
mod tests;
