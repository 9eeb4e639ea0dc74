//! Settings: every key with its type, unit, default and limits. A [`Config`] that exists is valid.
//!
//! This module turns what was written (`file`: the TOML, `overrides`: flags and variables) into what is meant. It reads
//! the one config file and nothing else: no certificate, no socket, no name server. docker/logferry.toml names every
//! key; tests/tidy.rs holds it to that.

mod address;
mod error;
mod file;
mod overrides;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;

pub use address::{ForwardAddress, Host, HostPort, ListenAddress, SYSLOG_PORT, SYSLOG_TLS_PORT};
pub use error::ConfigError;
pub use overrides::Overrides;

use crate::spool::{Sync, WhenFull};
use crate::syslog::{Format, TagTemplate, UtcOffset};
use error::Source;
use file::{Leaf, Leaves};

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
pub const DEFAULT_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

pub const DEFAULT_SD_ID: &str = "docker@32473";

pub const DEFAULT_SPOOL_DIR: &str = "/var/spool/logferry";
pub const DEFAULT_SPOOL_SIZE: ByteSize = ByteSize::gib(1);
/// Below this the segments would be smaller than a few large messages.
pub const MIN_SPOOL_SIZE: ByteSize = ByteSize::mib(1);
pub const DEFAULT_SYNC: Duration = Duration::from_secs(1);
/// How long a sender may be held when the disk stands still, before messages are dropped and counted.
pub const DEFAULT_MAX_WAIT: Duration = Duration::from_secs(5);

pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// `TCP_USER_TIMEOUT`: unacknowledged bytes older than this end the connection. Keepalive alone never fires while data
/// is outstanding.
pub const DEFAULT_DEAD_AFTER: Duration = Duration::from_secs(10);
pub const DEFAULT_MAX_BACKOFF: Duration = Duration::from_secs(5);

pub const DEFAULT_MIN_TTL: Duration = Duration::from_secs(1);
/// Docker's own DNS answers with a TTL of 600 s: following it would leave a relay on a dead address for ten minutes.
pub const DEFAULT_MAX_TTL: Duration = Duration::from_secs(30);
pub const DEFAULT_RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);

pub const DEFAULT_ADMIN: &str = "127.0.0.1:9514";
/// Below Docker's 10 s between SIGTERM and SIGKILL.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(5);

/// A whole, valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// HOSTNAME for messages that carry none.
    pub hostname: String,
    /// How long a stopping relay goes on sending what it has spooled.
    pub grace: Duration,
    pub listen: Vec<Listen>,
    pub syslog: Syslog,
    pub spool: Spool,
    pub forward: Vec<Forward>,
    pub resolve: Resolve,
    pub admin: Admin,
    pub log: LogLevel,
}

#[derive(Clone, Debug)]
pub struct Listen {
    pub address: ListenAddress,
    pub tls: Option<ServerTls>,
    /// Are plain-text senders welcome? Always true without `tls`.
    pub plaintext: bool,
    pub max_frame: usize,
    pub receive_buffer: usize,
    pub max_connections: usize,
    pub handshake_timeout: Duration,
}

/// The PEM files of a listener.
#[derive(Clone, Debug)]
pub struct ServerTls {
    pub cert: PathBuf,
    pub key: PathBuf,
    pub client_ca: Option<PathBuf>,
}

#[derive(Clone, Debug)]
pub struct Syslog {
    pub tag_template: TagTemplate,
    pub sd_id: String,
    pub time_zone: UtcOffset,
}

#[derive(Clone, Debug)]
pub struct Spool {
    pub dir: PathBuf,
    pub max_size: u64,
    pub when_full: WhenFull,
    pub sync: Sync,
    pub max_wait: Duration,
}

#[derive(Clone, Debug)]
pub struct Forward {
    /// Names the cursor in the spool and the metrics' label.
    pub name: String,
    /// Tried in this order.
    pub to: Vec<ForwardAddress>,
    pub format: Format,
    /// `None`: by the scheme, octet counting for TLS and newline for the rest.
    pub framing: Option<Framing>,
    pub tls: ClientTls,
    pub connect_timeout: Duration,
    pub dead_after: Duration,
    pub max_backoff: Duration,
}

/// How messages are told apart on a stream (RFC 6587).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    OctetCounting,
    Newline,
}

/// What verifies a collector, and what we show it.
#[derive(Clone, Debug, Default)]
pub struct ClientTls {
    /// `None`: the system's roots.
    pub ca: Option<PathBuf>,
    /// Our certificate chain and key, when the collector asks for them.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name in the collector's certificate when `to` says another.
    pub server_name: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Resolve {
    /// Empty: those of /etc/resolv.conf.
    pub nameservers: Vec<SocketAddr>,
    pub min_ttl: Duration,
    pub max_ttl: Duration,
    pub timeout: Duration,
}

#[derive(Clone, Debug)]
pub struct Admin {
    pub listen: Option<SocketAddr>,
    /// Was the address asked for? The default's port being taken is a warning, an explicit one's an error.
    pub explicit: bool,
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
    pub fn load(overrides: &Overrides) -> Result<Self, ConfigError> {
        let named = overrides.config.as_deref().filter(|path| !path.as_os_str().is_empty());
        let path = match named {
            Some(path) => path,
            None if Path::new(DEFAULT_FILE).exists() => Path::new(DEFAULT_FILE),
            None => return Self::parse(None, "", overrides, &env_variable),
        };
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::unreadable(path, &error))?;
        Self::parse(Some(path), &text, overrides, &env_variable)
    }

    /// The same from text; `variable` gives the values of `${VAR}`.
    pub fn parse(
        path: Option<&Path>,
        text: &str,
        overrides: &Overrides,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let source = Source { path, text, variable };
        let mut file: file::File = toml::from_str(text).map_err(|error| source.toml_error(&error))?;
        overrides.apply(&mut file);
        for section in &mut file.listen {
            if listens_on_tcp(&source, section) {
                overrides.apply_tls(section);
            }
        }
        from_file(&source, &file)
    }

    /// The effective settings as a config file, defaults filled in.
    pub fn to_toml(&self) -> String {
        toml::to_string(&to_file(self)).expect("a struct of strings, numbers and flags is always TOML")
    }
}

fn env_variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn listens_on_tcp(source: &Source<'_>, section: &file::Listen) -> bool {
    let address = section.address.as_ref().and_then(|leaf| source.value::<ListenAddress>("listen.address", leaf).ok());
    matches!(address, Some(ListenAddress::Tcp(_) | ListenAddress::Tls(_)))
}

fn from_file(source: &Source<'_>, file: &file::File) -> Result<Config, ConfigError> {
    Ok(Config {
        hostname: hostname(source, &file.hostname)?,
        grace: duration(source, "grace", &file.grace, DEFAULT_GRACE)?,
        listen: listeners(source, &file.listen)?,
        syslog: syslog(source, &file.syslog)?,
        spool: spool(source, &file.spool)?,
        forward: forwards(source, &file.forward)?,
        resolve: resolve(source, &file.resolve)?,
        admin: admin(source, &file.admin)?,
        log: source.or("log.level", &file.log.level, LogLevel::Info)?,
    })
}

/// RFC 5424 6.2.4: at most 255 printable ASCII characters, none of them a blank.
fn hostname(source: &Source<'_>, leaf: &Option<Leaf>) -> Result<String, ConfigError> {
    let legal = |name: &str| (1..=255).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic());
    match leaf {
        Some(leaf) => {
            let name = source.text("hostname", leaf)?;
            if legal(&name) {
                return Ok(name);
            }
            Err(source.bad("hostname", leaf, "a host name is 1 to 255 printable ASCII characters without blanks"))
        }
        None => {
            let own = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
            Ok(own.filter(|name| legal(name)).unwrap_or_else(|| "localhost".to_owned()))
        }
    }
}

fn listeners(source: &Source<'_>, sections: &[file::Listen]) -> Result<Vec<Listen>, ConfigError> {
    if !sections.is_empty() {
        return sections.iter().map(|section| listener(source, section)).collect();
    }
    let default = |url: &&'static str| file::Listen {
        address: Some(Leaf::from_override("the default listeners", *url)),
        ..file::Listen::default()
    };
    DEFAULT_LISTEN.iter().map(|url| listener(source, &default(url))).collect()
}

fn listener(source: &Source<'_>, section: &file::Listen) -> Result<Listen, ConfigError> {
    let Some(leaf) = &section.address else {
        return Err(source.missing("listen", "address", "address = \"udp://0.0.0.0:514\""));
    };
    let address: ListenAddress = source.value("listen.address", leaf)?;
    let tls = server_tls(source, section)?;
    let tls_only = matches!(address, ListenAddress::Tls(_));
    if tls_only && tls.is_none() {
        return Err(source.bad("listen.address", leaf, "tcp+tls:// needs `cert` and `key` (PEM files)"));
    }
    if !tls_only && tls.is_some() && !matches!(address, ListenAddress::Tcp(_)) {
        return Err(source.bad("listen.address", leaf, "`cert` and `key` belong to tcp:// and tcp+tls:// listeners"));
    }
    let plaintext = source.or("listen.plaintext", &section.plaintext, !tls_only)?;
    if let Some(leaf) = section.plaintext.as_ref().filter(|_| !plaintext && tls.is_none()) {
        return Err(source.bad("listen.plaintext", leaf, "without `cert` and `key` plain text is all there is"));
    }
    let (least, most) = MAX_FRAME_RANGE;
    Ok(Listen {
        address,
        tls,
        plaintext,
        max_frame: size(source, "listen.max-frame", &section.max_frame, DEFAULT_MAX_FRAME as u64, least, most)?
            as usize,
        receive_buffer: size(
            source,
            "listen.receive-buffer",
            &section.receive_buffer,
            DEFAULT_RECEIVE_BUFFER as u64,
            4096,
            1 << 30,
        )? as usize,
        max_connections: number(source, "listen.max-connections", &section.max_connections, DEFAULT_MAX_CONNECTIONS)?,
        handshake_timeout: duration(
            source,
            "listen.handshake-timeout",
            &section.handshake_timeout,
            DEFAULT_HANDSHAKE_TIMEOUT,
        )?,
    })
}

fn server_tls(source: &Source<'_>, section: &file::Listen) -> Result<Option<ServerTls>, ConfigError> {
    match (&section.cert, &section.key) {
        (Some(cert), Some(key)) => Ok(Some(ServerTls {
            cert: path(source, "listen.cert", cert)?,
            key: path(source, "listen.key", key)?,
            client_ca: section.client_ca.as_ref().map(|leaf| path(source, "listen.client-ca", leaf)).transpose()?,
        })),
        (Some(leaf), None) => Err(source.bad("listen.cert", leaf, "`cert` needs `key`, its private key")),
        (None, Some(leaf)) => Err(source.bad("listen.key", leaf, "`key` needs `cert`, its certificate chain")),
        (None, None) => match &section.client_ca {
            Some(leaf) => Err(source.bad("listen.client-ca", leaf, "`client-ca` needs `cert` and `key`")),
            None => Ok(None),
        },
    }
}

fn syslog(source: &Source<'_>, section: &file::Syslog) -> Result<Syslog, ConfigError> {
    let sd_id = match &section.sd_id {
        Some(leaf) => {
            let id = source.text("syslog.sd-id", leaf)?;
            // RFC 5424 6.3.2: SD-NAME is 1 to 32 printable ASCII characters except `=`, blank, `]` and `"`.
            let legal = |b: u8| b.is_ascii_graphic() && !matches!(b, b'=' | b']' | b'"');
            if id.is_empty() || id.len() > 32 || !id.bytes().all(legal) {
                let says = "an SD-ID is 1 to 32 printable characters without = ] and \", such as docker@32473";
                return Err(source.bad("syslog.sd-id", leaf, says));
            }
            id
        }
        None => DEFAULT_SD_ID.to_owned(),
    };
    Ok(Syslog {
        tag_template: source.or("syslog.tag-template", &section.tag_template, TagTemplate::default())?,
        sd_id,
        time_zone: source.or("syslog.time-zone", &section.time_zone, UtcOffset::UTC)?,
    })
}

fn spool(source: &Source<'_>, section: &file::Spool) -> Result<Spool, ConfigError> {
    let dir = match &section.dir {
        Some(leaf) => path(source, "spool.dir", leaf)?,
        None => PathBuf::from(DEFAULT_SPOOL_DIR),
    };
    Ok(Spool {
        dir,
        max_size: size(
            source,
            "spool.max-size",
            &section.max_size,
            DEFAULT_SPOOL_SIZE.as_u64(),
            MIN_SPOOL_SIZE.as_u64(),
            u64::MAX,
        )?,
        when_full: one_of(source, "spool.when-full", &section.when_full, &WHEN_FULL, WhenFull::DropOldest)?,
        sync: sync(source, &section.sync)?,
        max_wait: duration(source, "spool.max-wait", &section.max_wait, DEFAULT_MAX_WAIT)?,
    })
}

const WHEN_FULL: [(&str, WhenFull); 2] = [("drop-oldest", WhenFull::DropOldest), ("drop-newest", WhenFull::DropNewest)];

const FRAMINGS: [(&str, Framing); 2] = [("octet-counting", Framing::OctetCounting), ("newline", Framing::Newline)];

fn sync(source: &Source<'_>, leaf: &Option<Leaf>) -> Result<Sync, ConfigError> {
    let Some(leaf) = leaf else { return Ok(Sync::Every(DEFAULT_SYNC)) };
    match source.text("spool.sync", leaf)?.as_str() {
        "always" => Ok(Sync::Always),
        "never" => Ok(Sync::Never),
        text => match humantime::parse_duration(text) {
            Ok(every) if !every.is_zero() => Ok(Sync::Every(every)),
            _ => Err(source.bad("spool.sync", leaf, "write a time such as \"1s\", \"always\" or \"never\"")),
        },
    }
}

fn forwards(source: &Source<'_>, sections: &[file::Forward]) -> Result<Vec<Forward>, ConfigError> {
    if sections.is_empty() {
        let to = Leaves(vec![Leaf::from_override("the default forward", "stdout:")]);
        let stdout = file::Forward { to, ..file::Forward::default() };
        return Ok(vec![forward(source, &stdout, "stdout")?]);
    }
    let mut names = HashSet::new();
    let mut forwards = Vec::with_capacity(sections.len());
    for section in sections {
        if section.name.is_none() && sections.len() > 1 {
            let says = "name = \"central\": with several forwards each needs its own name, its place in the spool is kept under it";
            return Err(source.missing("forward", "name", says));
        }
        let forward = forward(source, section, "central")?;
        if !names.insert(forward.name.clone()) {
            let leaf = section.name.as_ref().expect("a name that came twice was written");
            return Err(source.bad("forward.name", leaf, "another forward has this name already"));
        }
        forwards.push(forward);
    }
    Ok(forwards)
}

fn forward(source: &Source<'_>, section: &file::Forward, default_name: &str) -> Result<Forward, ConfigError> {
    let name = match &section.name {
        Some(leaf) => {
            let name = source.text("forward.name", leaf)?;
            let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
            if name.is_empty() || name.len() > 64 || !name.bytes().all(legal) {
                return Err(source.bad("forward.name", leaf, "a name is 1 to 64 of a-z, 0-9, - and _"));
            }
            name
        }
        None => default_name.to_owned(),
    };
    if section.to.0.is_empty() {
        return Err(source.missing("forward", "to", "to = [\"tcp+tls://logs.example.com:6514\"]"));
    }
    let to = section.to.0.iter().map(|leaf| source.value("forward.to", leaf)).collect::<Result<Vec<_>, _>>()?;
    let framing = match &section.framing {
        Some(leaf) => Some(one_of(source, "forward.framing", &Some(leaf.clone()), &FRAMINGS, Framing::Newline)?),
        None => None,
    };
    Ok(Forward {
        name,
        to,
        format: source.or("forward.format", &section.format, Format::Rfc5424)?,
        framing,
        tls: client_tls(source, section)?,
        connect_timeout: duration(
            source,
            "forward.connect-timeout",
            &section.connect_timeout,
            DEFAULT_CONNECT_TIMEOUT,
        )?,
        dead_after: duration(source, "forward.dead-after", &section.dead_after, DEFAULT_DEAD_AFTER)?,
        max_backoff: duration(source, "forward.max-backoff", &section.max_backoff, DEFAULT_MAX_BACKOFF)?,
    })
}

fn client_tls(source: &Source<'_>, section: &file::Forward) -> Result<ClientTls, ConfigError> {
    let identity = match (&section.cert, &section.key) {
        (Some(cert), Some(key)) => Some((path(source, "forward.cert", cert)?, path(source, "forward.key", key)?)),
        (Some(leaf), None) => return Err(source.bad("forward.cert", leaf, "`cert` needs `key`, its private key")),
        (None, Some(leaf)) => return Err(source.bad("forward.key", leaf, "`key` needs `cert`, its certificate chain")),
        (None, None) => None,
    };
    Ok(ClientTls {
        ca: section.ca.as_ref().map(|leaf| path(source, "forward.ca", leaf)).transpose()?,
        identity,
        server_name: section.server_name.as_ref().map(|leaf| source.text("forward.server-name", leaf)).transpose()?,
    })
}

fn resolve(source: &Source<'_>, section: &file::Resolve) -> Result<Resolve, ConfigError> {
    let nameserver = |leaf: &Leaf| {
        let text = source.text("resolve.nameservers", leaf)?;
        let address = text.parse::<SocketAddr>();
        address.or_else(|_| text.parse().map(|ip| SocketAddr::new(ip, 53))).map_err(|_| {
            source.bad(
                "resolve.nameservers",
                leaf,
                "a name server is an IP address, with a port if it is not 53: 10.0.0.2:53",
            )
        })
    };
    let nameservers = section.nameservers.0.iter().map(nameserver).collect::<Result<Vec<_>, _>>()?;
    let min_ttl = duration(source, "resolve.min-ttl", &section.min_ttl, DEFAULT_MIN_TTL)?;
    let max_ttl = duration(source, "resolve.max-ttl", &section.max_ttl, DEFAULT_MAX_TTL)?;
    if let Some(leaf) = section.max_ttl.as_ref().or(section.min_ttl.as_ref()).filter(|_| min_ttl > max_ttl) {
        return Err(source.bad("resolve.max-ttl", leaf, "`max-ttl` must not be below `min-ttl`"));
    }
    Ok(Resolve {
        nameservers,
        min_ttl,
        max_ttl,
        timeout: duration(source, "resolve.timeout", &section.timeout, DEFAULT_RESOLVE_TIMEOUT)?,
    })
}

fn admin(source: &Source<'_>, section: &file::Admin) -> Result<Admin, ConfigError> {
    let Some(leaf) = &section.listen else {
        return Ok(Admin { listen: DEFAULT_ADMIN.parse().ok(), explicit: false });
    };
    let text = source.text("admin.listen", leaf)?;
    if text == "off" {
        return Ok(Admin { listen: None, explicit: true });
    }
    let listen = text.parse().map_err(|_| {
        source.bad("admin.listen", leaf, "write an IP address and a port, such as 127.0.0.1:9514, or \"off\"")
    })?;
    Ok(Admin { listen: Some(listen), explicit: true })
}

fn path(source: &Source<'_>, key: &str, leaf: &Leaf) -> Result<PathBuf, ConfigError> {
    let text = source.text(key, leaf)?;
    if text.is_empty() {
        return Err(source.bad(key, leaf, "a path must not be empty"));
    }
    Ok(PathBuf::from(text))
}

fn duration(source: &Source<'_>, key: &str, leaf: &Option<Leaf>, default: Duration) -> Result<Duration, ConfigError> {
    let Some(leaf) = leaf else { return Ok(default) };
    match humantime::parse_duration(&source.text(key, leaf)?) {
        Ok(time) if !time.is_zero() && time <= Duration::from_secs(86_400) => Ok(time),
        _ => Err(source.bad(
            key,
            leaf,
            "write a time above zero and up to a day, with its unit: \"500ms\", \"10s\", \"1m\"",
        )),
    }
}

fn size(
    source: &Source<'_>,
    key: &str,
    leaf: &Option<Leaf>,
    default: u64,
    least: u64,
    most: u64,
) -> Result<u64, ConfigError> {
    let Some(leaf) = leaf else { return Ok(default) };
    match source.text(key, leaf)?.parse::<ByteSize>() {
        Ok(size) if (least..=most).contains(&size.as_u64()) => Ok(size.as_u64()),
        Ok(_) if most == u64::MAX => Err(source.bad(key, leaf, &format!("at least {}", shown_size(least)))),
        Ok(_) => Err(source.bad(key, leaf, &format!("from {} to {}", shown_size(least), shown_size(most)))),
        Err(_) => Err(source.bad(key, leaf, "write a size such as \"64KiB\", \"512MiB\" or \"1GiB\"")),
    }
}

fn number(source: &Source<'_>, key: &str, leaf: &Option<Leaf>, default: usize) -> Result<usize, ConfigError> {
    let Some(leaf) = leaf else { return Ok(default) };
    match source.text(key, leaf)?.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(source.bad(key, leaf, "write a whole number above zero")),
    }
}

fn one_of<T: Copy>(
    source: &Source<'_>,
    key: &str,
    leaf: &Option<Leaf>,
    choices: &[(&str, T)],
    default: T,
) -> Result<T, ConfigError> {
    let Some(leaf) = leaf else { return Ok(default) };
    let text = source.text(key, leaf)?;
    match choices.iter().find(|(word, _)| *word == text) {
        Some((_, choice)) => Ok(*choice),
        None => {
            let words: Vec<String> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            Err(source.bad(key, leaf, &format!("write {}", words.join(" or "))))
        }
    }
}

fn word_for<T: PartialEq>(choices: &[(&'static str, T)], choice: &T) -> &'static str {
    choices.iter().find(|(_, known)| known == choice).map_or("", |(word, _)| word)
}

/// Whole units where the number is one, so that 65536 comes back as 64KiB and 65537 as itself.
fn shown_size(bytes: u64) -> String {
    let units = [(1u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
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

/// The way back: what `logferry check` prints, and what tells the shipped file's test which keys there are.
fn to_file(config: &Config) -> file::File {
    let text = |value: String| Some(Leaf::from_override("", value));
    let time = |value: Duration| text(humantime::format_duration(value).to_string());
    let shown_path = |value: &Path| text(value.display().to_string());
    let listen = |listen: &Listen| file::Listen {
        address: text(listen.address.to_string()),
        cert: listen.tls.as_ref().and_then(|tls| shown_path(&tls.cert)),
        key: listen.tls.as_ref().and_then(|tls| shown_path(&tls.key)),
        client_ca: listen.tls.as_ref().and_then(|tls| tls.client_ca.as_deref().and_then(shown_path)),
        plaintext: Some(Leaf { value: file::Scalar::Flag(listen.plaintext), origin: file::Origin::Override("") }),
        max_frame: text(shown_size(listen.max_frame as u64)),
        receive_buffer: text(shown_size(listen.receive_buffer as u64)),
        max_connections: Some(Leaf {
            value: file::Scalar::Number(listen.max_connections as i64),
            origin: file::Origin::Override(""),
        }),
        handshake_timeout: time(listen.handshake_timeout),
    };
    let forward = |forward: &Forward| file::Forward {
        name: text(forward.name.clone()),
        to: Leaves(forward.to.iter().filter_map(|to| text(to.to_string())).collect()),
        format: text(forward.format.to_string()),
        framing: forward.framing.and_then(|framing| text(word_for(&FRAMINGS, &framing).to_owned())),
        ca: forward.tls.ca.as_deref().and_then(shown_path),
        cert: forward.tls.identity.as_ref().and_then(|(cert, _)| shown_path(cert)),
        key: forward.tls.identity.as_ref().and_then(|(_, key)| shown_path(key)),
        server_name: forward.tls.server_name.clone().and_then(text),
        connect_timeout: time(forward.connect_timeout),
        dead_after: time(forward.dead_after),
        max_backoff: time(forward.max_backoff),
    };
    file::File {
        hostname: text(config.hostname.clone()),
        grace: time(config.grace),
        listen: config.listen.iter().map(listen).collect(),
        syslog: file::Syslog {
            tag_template: text(config.syslog.tag_template.to_string()),
            sd_id: text(config.syslog.sd_id.clone()),
            time_zone: text(config.syslog.time_zone.to_string()),
        },
        spool: file::Spool {
            dir: shown_path(&config.spool.dir),
            max_size: text(shown_size(config.spool.max_size)),
            when_full: text(word_for(&WHEN_FULL, &config.spool.when_full).to_owned()),
            sync: match config.spool.sync {
                Sync::Always => text("always".to_owned()),
                Sync::Never => text("never".to_owned()),
                Sync::Every(every) => time(every),
            },
            max_wait: time(config.spool.max_wait),
        },
        forward: config.forward.iter().map(forward).collect(),
        resolve: file::Resolve {
            nameservers: Leaves(
                config.resolve.nameservers.iter().filter_map(|server| text(server.to_string())).collect(),
            ),
            min_ttl: time(config.resolve.min_ttl),
            max_ttl: time(config.resolve.max_ttl),
            timeout: time(config.resolve.timeout),
        },
        admin: file::Admin { listen: text(config.admin.listen.map_or("off".to_owned(), |listen| listen.to_string())) },
        log: file::Log { level: text(config.log.word().to_owned()) },
    }
}

#[cfg(test)]
mod tests;
