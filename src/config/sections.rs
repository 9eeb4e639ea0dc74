//! `[resolve]`, `[admin]` and `[log]`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::error::{ConfigError, Source};
use super::kinds::{CountTo, Flag, ListOf, Optional, Path, Special, Text, Time, Words};
use super::secret::Secret;
use super::settings::{defaults, settings};
use crate::metrics::MAX_CONTAINERS;

const DEFAULT_MIN_TTL: Duration = Duration::from_secs(1);
/// Docker's own DNS answers with a TTL of 600 s. With that TTL a relay would keep a dead address for ten minutes.
const DEFAULT_MAX_TTL: Duration = Duration::from_secs(30);
const DEFAULT_RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);

pub const DEFAULT_ADMIN: &str = "127.0.0.1:9514";

const LOG_FORMATS: Words<LogFormat> = Words(&[("text", LogFormat::Text), ("json", LogFormat::Json)]);

settings! {
    /// The settings for name lookups.
    pub struct Resolve, written as WrittenResolve {
        /// The name servers; empty: those of /etc/resolv.conf.
        nameservers: Vec<SocketAddr> = Vec::new(),
            as ListOf { read: nameserver, display: ToString::to_string }, key "nameservers";
        min_ttl: Duration = DEFAULT_MIN_TTL, as Time, key "min-ttl";
        max_ttl: Duration = DEFAULT_MAX_TTL, as Time, key "max-ttl";
        timeout: Duration = DEFAULT_RESOLVE_TIMEOUT, as Time, key "timeout";
    }
}

settings! {
    /// The admin port.
    pub struct Admin, written as WrittenAdmin {
        listen: Option<SocketAddr> = DEFAULT_ADMIN.parse().ok(), as Special { read: admin, display: display_admin },
            key "listen".needs_restart().flag(
                "admin", "LOGFERRY_ADMIN", "ADDRESS",
                "Address of the status page, /status, /metrics, /live and /ready, or `off` [default: 127.0.0.1:9514]",
            );
        /// The file for the real address. It is written when all listeners listen, for those who ask for port 0.
        address_file: Option<PathBuf> = None, as Optional(Path), key "address-file".needs_restart();
        /// The problems that make `/ready` answer 503.
        ready: Vec<ReadyCheck> = vec![ReadyCheck::Spool, ReadyCheck::Listeners],
            as ListOf { read: ready_check, display: display_ready_check }, key "ready".needs_restart();
        /// Whether the live tail is available.
        tail: bool = false, as Flag, key "tail".needs_restart();
        tail_token_file: Option<PathBuf> = None, as Optional(Path), key "tail-token-file".needs_restart();
        /// The number of busiest containers that get a metric series of their own.
        containers: usize = 0, as CountTo(MAX_CONTAINERS), key "containers".needs_restart();
    }
    derived {
        /// Whether the address is configured. If the port is in use, that is a warning for the default address, and an
        /// error for a configured one.
        explicit: bool = |written: &WrittenAdmin| written.listen.is_written();
    }
}

/// A problem that makes a relay unready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadyCheck {
    /// The spool cannot be written, or a thread that writes it hangs.
    Spool,
    /// A listener accepts nothing.
    Listeners,
    /// A forward has pending lines, but sends none.
    Forwards,
}

const READY_CHECKS: [(&str, ReadyCheck); 3] =
    [("spool", ReadyCheck::Spool), ("listeners", ReadyCheck::Listeners), ("forwards", ReadyCheck::Forwards)];

fn ready_check(text: &str) -> Result<ReadyCheck, String> {
    let found = READY_CHECKS.iter().find(|(word, _)| *word == text);
    found.map(|(_, check)| *check).ok_or_else(|| "write \"spool\", \"listeners\" or \"forwards\"".to_owned())
}

fn display_ready_check(check: &ReadyCheck) -> String {
    READY_CHECKS.iter().find(|(_, known)| known == check).map_or_else(String::new, |(word, _)| (*word).to_owned())
}

settings! {
    /// The log: what the relay says about itself.
    pub struct Log, written as WrittenLog {
        level: LogLevel = LogLevel::Info, as Text, key "level".needs_restart().flag(
            "log", "LOGFERRY_LOG", "LEVEL", "error, warn, info, debug or trace [default: info]",
        );
        /// The format of the log on stderr.
        format: LogFormat = LogFormat::Text, as LOG_FORMATS, key "format".needs_restart().flag(
            "log-format", "LOGFERRY_LOG_FORMAT", "FORMAT", "How that is written: text or json [default: text]",
        );
        /// The lowest level of log messages that are also spooled, as messages of the relay; `None`: none are.
        to_spool: Option<LogLevel> = None, as Special { read: to_spool, display: display_to_spool },
            key "to-spool".needs_restart();
    }
}

impl Admin {
    /// The token for the live tail; `None`: everybody who can reach the port may use it.
    pub fn tail_token(&self) -> Option<Secret> {
        Secret::of(&None, &self.tail_token_file)
    }
}

impl Default for Resolve {
    fn default() -> Self {
        defaults()
    }
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

/// Notes a minimum TTL above the maximum.
pub fn check_resolve(source: &Source<'_>, written: &WrittenResolve, resolve: &Resolve) -> Result<(), ConfigError> {
    let leaf = written.max_ttl.first().or(written.min_ttl.first());
    match leaf.filter(|_| resolve.min_ttl > resolve.max_ttl) {
        Some(leaf) => source.note(source.bad("resolve.max-ttl", leaf, "`max-ttl` must not be below `min-ttl`"), ()),
        None => Ok(()),
    }
}

/// Notes a live tail that strangers could use.
pub fn check_admin(source: &Source<'_>, written: &WrittenAdmin, admin: &Admin) -> Result<(), ConfigError> {
    let is_open = admin.listen.is_some_and(|address| !address.ip().to_canonical().is_loopback());
    match written.tail.first().filter(|_| admin.tail && is_open && admin.tail_token_file.is_none()) {
        Some(leaf) => {
            let says = "others than this machine reach [admin] listen; write `tail-token-file = \"/run/secrets/tail-token\"` too, or \
                        listen on 127.0.0.1";
            source.note(source.bad("admin.tail", leaf, says), ())
        }
        None => Ok(()),
    }
}

fn nameserver(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse::<SocketAddr>();
    address
        .or_else(|_| text.parse().map(|ip| SocketAddr::new(ip, 53)))
        .map_err(|_| "a name server is an IP address, with a port if it is not 53: 10.0.0.2:53".to_owned())
}

fn admin(text: &str) -> Result<Option<SocketAddr>, String> {
    match text.parse() {
        _ if text == "off" => Ok(None),
        Ok(address) => Ok(Some(address)),
        Err(_) => Err("write an IP address and a port, such as 127.0.0.1:9514, or \"off\"".to_owned()),
    }
}

fn display_admin(address: &Option<SocketAddr>) -> String {
    address.map_or("off".to_owned(), |address| address.to_string())
}

fn to_spool(text: &str) -> Result<Option<LogLevel>, String> {
    match text {
        "off" => Ok(None),
        level => level.parse().map(Some).map_err(|says: String| format!("{says}, or \"off\"")),
    }
}

fn display_to_spool(level: &Option<LogLevel>) -> String {
    level.map_or("off".to_owned(), |level| level.to_string())
}

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

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        })
    }
}
