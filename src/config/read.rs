//! From what was written to what is meant: each section's values, their limits, and what must stand together. What is
//! wrong is noted, and something stands in for it until all has been read: an `Err` here is the end of that.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;

use super::error::Source;
use super::file::{self, Leaf, Leaves, Section, unwritten};
use super::rules;
use super::show::shown_size;
use super::*;
use crate::metrics::MOST_CONTAINERS;
use crate::record::{OWN_SD_ID, is_sd_id};

pub fn listens_on_tcp(source: &Source<'_>, section: &file::Listen) -> bool {
    let address = section.address.as_ref().and_then(|leaf| source.value::<ListenAddress>("listen.address", leaf).ok());
    matches!(address, Some(address) if takes_tls(&address))
}

pub fn speaks_tls(source: &Source<'_>, section: &file::Forward) -> bool {
    let target = |leaf| source.value::<ForwardAddress>("forward.to", leaf).ok();
    section.to.0.iter().filter_map(target).any(|target| target.is_tls())
}

/// Whether a certificate makes sense there.
fn takes_tls(address: &ListenAddress) -> bool {
    address.is_tls() || address.may_be_tls()
}

pub fn from_file(source: &Source<'_>, file: &file::File) -> Result<Config, ConfigError> {
    let listen = listeners(source, &file.listen)?;
    let names: Vec<&str> = listen.iter().filter_map(|listener| listener.name.as_deref()).collect();
    Ok(Config {
        hostname: hostname(source, &file.hostname)?,
        grace: duration(source, "grace", &file.grace, DEFAULT_GRACE)?,
        drop: rules::dropped(source, &file.drop, &names)?,
        forward: forwards(source, &file.forward, &names)?,
        listen,
        syslog: syslog(source, &file.syslog)?,
        spool: spool(source, &file.spool)?,
        resolve: resolve(source, &file.resolve)?,
        admin: admin(source, &file.admin)?,
        log: log(source, &file.log)?,
    })
}

/// RFC 5424 6.2.4: at most 255 printable ASCII characters, none of them a blank.
fn hostname(source: &Source<'_>, leaf: &Option<Leaf>) -> Result<String, ConfigError> {
    let legal = |name: &str| (1..=255).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic());
    match leaf {
        Some(leaf) => {
            let name = match source.text("hostname", leaf) {
                Ok(name) => name,
                Err(problem) => return source.noted(problem, String::new()),
            };
            if legal(&name) {
                return Ok(name);
            }
            let says = "a host name is 1 to 255 printable ASCII characters without blanks";
            source.noted(source.bad("hostname", leaf, says), name)
        }
        None => {
            let own = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
            Ok(own.filter(|name| legal(name)).unwrap_or_else(|| "localhost".to_owned()))
        }
    }
}

/// The listeners of a relay that names none.
pub fn default_listeners() -> Vec<Section<file::Listen>> {
    let address = |url: &str| Some(Leaf::from_override("the default listeners", url));
    let listener = |url: &&str| unwritten(file::Listen { address: address(url), ..file::Listen::default() });
    DEFAULT_LISTEN.iter().map(listener).collect()
}

fn listeners(source: &Source<'_>, sections: &[Section<file::Listen>]) -> Result<Vec<Listen>, ConfigError> {
    let mut listeners: Vec<Listen> = Vec::with_capacity(sections.len());
    for section in sections {
        let listener = listener(source, section)?;
        let taken = !listener.address.has_any_port()
            && listeners.iter().any(|other| other.address.is_the_socket_of(&listener.address));
        if let Some(leaf) = section.as_ref().address.as_ref().filter(|_| taken) {
            source.noted(source.bad("listen.address", leaf, "another listener has this address already"), ())?;
        }
        let same = |other: &Listen| other.name.is_some() && other.name == listener.name;
        if let Some(leaf) = section.as_ref().name.as_ref().filter(|_| listeners.iter().any(same)) {
            source.noted(source.bad("listen.name", leaf, "another listener has this name already"), ())?;
        }
        listeners.push(listener);
    }
    Ok(listeners)
}

fn listener(source: &Source<'_>, section: &Section<file::Listen>) -> Result<Listen, ConfigError> {
    let (span, section) = (section.span(), section.as_ref());
    // The address that takes all that the rest of a section can say.
    let stand_in = "tcp://0.0.0.0:0".parse::<ListenAddress>().expect("an address");
    if section.address.is_none() {
        source.missing("listen", span, "address", "address = \"udp://0.0.0.0:514\"")?;
    }
    let address = source.or("listen.address", &section.address, stand_in)?;
    let tls = server_tls(source, section).or_else(|problem| source.noted(problem, None))?;
    let tls_only = address.is_tls();
    // Who asks for certificates does not mean to take everybody else's plain text.
    let mutual = tls.as_ref().is_some_and(ServerTls::is_mutual);
    let plaintext = source.or("listen.plaintext", &section.plaintext, !tls_only && !mutual)?;
    if let Some(problem) = listener_conflict(source, section, &address, plaintext) {
        source.noted(problem, ())?;
    }
    Ok(Listen {
        from: senders(source, section, &address)?,
        address,
        name: source.or_by(&section.name, None, |leaf| name(source, "listen.name", leaf).map(Some))?,
        tls,
        plaintext,
        receive_buffer: size(
            source,
            "listen.receive-buffer",
            &section.receive_buffer,
            DEFAULT_RECEIVE_BUFFER as u64,
            4096,
            1 << 30,
        )? as usize,
        limits: limits(source, section)?,
    })
}

fn limits(source: &Source<'_>, section: &file::Listen) -> Result<Limits, ConfigError> {
    let default = Limits::default();
    let bytes = |key, leaf, default, (least, most)| Ok(size(source, key, leaf, default as u64, least, most)? as usize);
    Ok(Limits {
        allow: list(source, "listen.allow", &section.allow)?,
        max_frame: bytes("listen.max-frame", &section.max_frame, default.max_frame, MAX_FRAME_RANGE)?,
        max_connections: number(source, "listen.max-connections", &section.max_connections, default.max_connections)?,
        max_connections_per_address: number(
            source,
            "listen.max-connections-per-address",
            &section.max_connections_per_address,
            default.max_connections_per_address,
        )?,
        max_unfinished: bytes(
            "listen.max-unfinished",
            &section.max_unfinished,
            default.max_unfinished,
            MAX_UNFINISHED_RANGE,
        )?,
        frame_timeout: duration(source, "listen.frame-timeout", &section.frame_timeout, default.frame_timeout)?,
        max_handshakes: number(source, "listen.max-handshakes", &section.max_handshakes, default.max_handshakes)?,
        handshake_timeout: duration(
            source,
            "listen.handshake-timeout",
            &section.handshake_timeout,
            default.handshake_timeout,
        )?,
    })
}

fn senders(source: &Source<'_>, section: &file::Listen, address: &ListenAddress) -> Result<Senders, ConfigError> {
    let from = one_of(source, "listen.from", &section.from, &SENDERS, Senders::Anybody)?;
    match &section.from {
        Some(leaf) if from == Senders::Docker && address.protocol() == Protocol::Relp => {
            let says = "Docker's driver speaks no RELP; write it at the udp, tcp or unix listener that the driver is pointed at";
            source.noted(source.bad("listen.from", leaf, says), from)
        }
        _ => Ok(from),
    }
}

/// What a listener's settings cannot mean together.
fn listener_conflict(
    source: &Source<'_>,
    section: &file::Listen,
    address: &ListenAddress,
    plaintext: bool,
) -> Option<ConfigError> {
    let (tls_only, files) = (address.is_tls(), [&section.cert, &section.key, &section.client_ca]);
    let no_files = files.iter().all(|file| file.is_none());
    let of_address = |says| section.address.as_ref().map(|leaf| source.bad("listen.address", leaf, says));
    let of_plaintext = |says| section.plaintext.as_ref().map(|leaf| source.bad("listen.plaintext", leaf, says));
    if tls_only && no_files {
        return of_address("TLS needs `cert` and `key` (PEM files)");
    }
    if !no_files && !takes_tls(address) {
        return of_address("`cert` and `key` belong to tcp://, tcp+tls:// and relp+tls:// listeners");
    }
    if let Some(leaf) = section.allow.0.first().filter(|_| address.path().is_some()) {
        let says =
            "senders of unix:// and unixgram:// have no address; who may send is in the mode of the socket's directory";
        return Some(source.bad("listen.allow", leaf, says));
    }
    if plaintext && tls_only {
        return of_plaintext("this scheme takes TLS only; for both on one port write tcp://");
    }
    if !plaintext && no_files {
        return of_plaintext("without `cert` and `key` plain text is all there is");
    }
    None
}

fn server_tls(source: &Source<'_>, section: &file::Listen) -> Result<Option<ServerTls>, ConfigError> {
    match (&section.cert, &section.key) {
        (Some(cert), Some(key)) => Ok(Some(ServerTls {
            cert: path(source, "listen.cert", cert)?,
            key: path(source, "listen.key", key)?,
            client_ca: section.client_ca.as_ref().map(|leaf| path(source, "listen.client-ca", leaf)).transpose()?,
            client_names: client_names(source, section)?,
            client_fingerprints: list(source, "listen.client-fingerprint", &section.client_fingerprint)?,
        })),
        (Some(leaf), None) => Err(source.bad("listen.cert", leaf, "`cert` needs `key`, its private key")),
        (None, Some(leaf)) => Err(source.bad("listen.key", leaf, "`key` needs `cert`, its certificate chain")),
        (None, None) => {
            let keys = [
                ("client-ca", section.client_ca.as_ref()),
                ("client-names", section.client_names.0.first()),
                ("client-fingerprint", section.client_fingerprint.0.first()),
            ];
            match keys.into_iter().find_map(|(key, leaf)| Some((key, leaf?))) {
                Some((key, leaf)) => {
                    Err(source.bad(&format!("listen.{key}"), leaf, &format!("`{key}` needs `cert` and `key`")))
                }
                None => Ok(None),
            }
        }
    }
}

/// Names are worth as much as who vouches for them.
fn client_names(source: &Source<'_>, section: &file::Listen) -> Result<Vec<PeerName>, ConfigError> {
    if let Some(leaf) = section.client_names.0.first().filter(|_| section.client_ca.is_none()) {
        let says = "`client-names` needs `client-ca`: anybody can write any name into a certificate";
        return Err(source.bad("listen.client-names", leaf, says));
    }
    list(source, "listen.client-names", &section.client_names)
}

fn list<T: FromStr<Err = String>>(source: &Source<'_>, key: &str, leaves: &Leaves) -> Result<Vec<T>, ConfigError> {
    leaves.0.iter().map(|leaf| source.value(key, leaf)).collect()
}

fn syslog(source: &Source<'_>, section: &file::Syslog) -> Result<Syslog, ConfigError> {
    let sd_id = source.or_by(&section.sd_id, DEFAULT_SD_ID.to_owned(), |leaf| {
        let id = source.text("syslog.sd-id", leaf)?;
        let says = "an SD-ID is 1 to 32 printable characters without = ] and \", such as docker@32473";
        match id.as_str() {
            OWN_SD_ID => Err(source.bad("syslog.sd-id", leaf, "that is what the relay calls what it says itself")),
            _ if is_sd_id(&id) => Ok(id),
            _ => Err(source.bad("syslog.sd-id", leaf, says)),
        }
    })?;
    Ok(Syslog {
        tag_template: source.or("syslog.tag-template", &section.tag_template, TagTemplate::default())?,
        sd_id,
        time_zone: source.or("syslog.time-zone", &section.time_zone, UtcOffset::UTC)?,
        rejoin: rejoin(source, &section.rejoin)?,
        rate: rate(source, section)?,
    })
}

fn rejoin(source: &Source<'_>, leaf: &Option<Leaf>) -> Result<Option<usize>, ConfigError> {
    let (least, most) = REJOIN_RANGE;
    source.or_by(leaf, None, |leaf| {
        let text = source.text("syslog.rejoin", leaf)?;
        match text.parse::<ByteSize>() {
            _ if text == "off" => Ok(None),
            Ok(size) if (least..=most).contains(&size.as_u64()) => Ok(Some(size.as_u64() as usize)),
            _ => {
                let says = format!("write \"off\", or a size from {} to {}", shown_size(least), shown_size(most));
                Err(source.bad("syslog.rejoin", leaf, &says))
            }
        }
    })
}

fn rate(source: &Source<'_>, section: &file::Syslog) -> Result<Option<Rate>, ConfigError> {
    let per_second = source.or_by(&section.rate_limit, None, |leaf| {
        let text = source.text("syslog.rate-limit", leaf)?;
        match text.strip_suffix("/s").map(str::trim_end).and_then(|number| number.parse().ok()) {
            Some(number @ 1..=10_000_000) => Ok(Some(number)),
            _ if text == "off" => Ok(None),
            _ => {
                let says = "write messages a second, such as \"1000/s\", or \"off\"";
                Err(source.bad("syslog.rate-limit", leaf, says))
            }
        }
    })?;
    let Some(per_second) = per_second else {
        if let Some(leaf) = section.rate_burst.as_ref().filter(|_| section.rate_limit.is_none()) {
            let says = "there is no `rate-limit` that it could belong to";
            source.noted(source.bad("syslog.rate-burst", leaf, says), ())?;
        }
        return Ok(None);
    };
    let ten_seconds = (per_second * DEFAULT_BURST_SECONDS) as usize;
    let burst = number(source, "syslog.rate-burst", &section.rate_burst, ten_seconds)?;
    Ok(Some(Rate { per_second, burst: u32::try_from(burst).unwrap_or(u32::MAX) }))
}

fn spool(source: &Source<'_>, section: &file::Spool) -> Result<Spool, ConfigError> {
    let dir = source.or_by(&section.dir, PathBuf::from(DEFAULT_SPOOL_DIR), |leaf| path(source, "spool.dir", leaf))?;
    Ok(Spool {
        dir,
        max_size: size(
            source,
            "spool.max-size",
            &section.max_size,
            DEFAULT_SPOOL_SIZE.as_u64(),
            MIN_SPOOL_SIZE.as_u64(),
            MAX_SPOOL_SIZE.as_u64(),
        )?,
        when_full: one_of(source, "spool.when-full", &section.when_full, &WHEN_FULL, WhenFull::DropOldest)?,
        sync: sync(source, &section.sync)?,
        max_wait: duration(source, "spool.max-wait", &section.max_wait, DEFAULT_MAX_WAIT)?,
        shed_from: shed_from(source, &section.shed_from)?,
        max_rate: max_rate(source, &section.max_rate)?,
    })
}

fn max_rate(source: &Source<'_>, leaf: &Option<Leaf>) -> Result<Option<u64>, ConfigError> {
    let (least, most) = MAX_RATE_RANGE;
    source.or_by(leaf, None, |leaf| {
        let text = source.text("spool.max-rate", leaf)?;
        match text.strip_suffix("/s").and_then(|size| size.trim_end().parse::<ByteSize>().ok()) {
            Some(size) if (least..=most).contains(&size.as_u64()) => Ok(Some(size.as_u64())),
            _ if text == "off" => Ok(None),
            _ => Err(source.bad("spool.max-rate", leaf, "write \"16MiB/s\", at least 8MiB/s, or \"off\"")),
        }
    })
}

fn shed_from(source: &Source<'_>, leaf: &Option<Leaf>) -> Result<Option<u8>, ConfigError> {
    source.or_by(leaf, Some(DEFAULT_SHED_FROM), |leaf| match source.text("spool.shed-from", leaf)?.as_str() {
        "off" => Ok(None),
        text => match text.strip_suffix('%').and_then(|percent| percent.parse().ok()) {
            Some(percent @ 1..=99) => Ok(Some(percent)),
            _ => Err(source.bad("spool.shed-from", leaf, "write a share of `max-size` such as \"90%\", or \"off\"")),
        },
    })
}

fn sync(source: &Source<'_>, leaf: &Option<Leaf>) -> Result<Sync, ConfigError> {
    source.or_by(leaf, Sync::Every(DEFAULT_SYNC), |leaf| match source.text("spool.sync", leaf)?.as_str() {
        "always" => Ok(Sync::Always),
        "never" => Ok(Sync::Never),
        text => match humantime::parse_duration(text) {
            Ok(every) if !every.is_zero() => Ok(Sync::Every(every)),
            _ => Err(source.bad("spool.sync", leaf, "write a time such as \"1s\", \"always\" or \"never\"")),
        },
    })
}

fn forwards(
    source: &Source<'_>,
    sections: &[Section<file::Forward>],
    listeners: &[&str],
) -> Result<Vec<Forward>, ConfigError> {
    let mut names = HashSet::new();
    let mut forwards = Vec::with_capacity(sections.len());
    for section in sections {
        let forward = forward(source, section, listeners)?;
        match &section.as_ref().name {
            None if sections.len() > 1 => {
                let says = "name = \"central\": with several forwards each needs its own name, its place in the spool is kept under it";
                source.missing("forward", section.span(), "name", says)?;
            }
            Some(leaf) if !names.insert(forward.name.clone()) => {
                source.noted(source.bad("forward.name", leaf, "another forward has this name already"), ())?;
            }
            _ => {}
        }
        forwards.push(forward);
    }
    Ok(forwards)
}

fn forward(source: &Source<'_>, section: &Section<file::Forward>, listeners: &[&str]) -> Result<Forward, ConfigError> {
    let (span, section) = (section.span(), section.as_ref());
    let stand_in = section.name.as_ref().map_or("central".to_owned(), Leaf::text);
    let name = source.or_by(&section.name, stand_in, |leaf| name(source, "forward.name", leaf))?;
    if section.to.0.is_empty() {
        source.missing("forward", span, "to", "to = [\"tcp+tls://logs.example.com:6514\"]")?;
    }
    let mut to = Vec::new();
    for leaf in &section.to.0 {
        match source.value("forward.to", leaf) {
            Ok(target) => to.push(target),
            Err(problem) => source.noted(problem, ())?,
        }
    }
    // What could not be read may have been meant to.
    let speaks_tls = to.iter().any(ForwardAddress::is_tls) || to.len() < section.to.0.len().max(1);
    let framing = match &section.framing {
        Some(_) => Some(one_of(source, "forward.framing", &section.framing, &FRAMINGS, Framing::Newline)?),
        None => None,
    };
    let replay = size(source, "forward.replay", &section.replay, DEFAULT_REPLAY.as_u64(), 0, 1 << 30)?;
    let limit = DEFAULT_REPLAY_LIMIT.as_u64().max(replay);
    let replay_limit = size(source, "forward.replay-limit", &section.replay_limit, limit, replay, 1 << 30)?;
    Ok(Forward {
        name,
        to,
        matches: rules::matches(source, &section.matches, listeners)?,
        format: source.or("forward.format", &section.format, Format::Rfc5424)?,
        framing,
        tls: client_tls(source, section, speaks_tls).or_else(|problem| source.noted(problem, ClientTls::default()))?,
        connect_timeout: duration(
            source,
            "forward.connect-timeout",
            &section.connect_timeout,
            DEFAULT_CONNECT_TIMEOUT,
        )?,
        dead_after: duration(source, "forward.dead-after", &section.dead_after, DEFAULT_DEAD_AFTER)?,
        max_backoff: duration(source, "forward.max-backoff", &section.max_backoff, DEFAULT_MAX_BACKOFF)?,
        return_after: duration(source, "forward.return-after", &section.return_after, DEFAULT_RETURN_AFTER)?,
        replay,
        replay_for: duration(source, "forward.replay-for", &section.replay_for, DEFAULT_REPLAY_FOR)?,
        replay_limit,
        window: number(source, "forward.window", &section.window, DEFAULT_WINDOW)?,
    })
}

fn client_tls(source: &Source<'_>, section: &file::Forward, used: bool) -> Result<ClientTls, ConfigError> {
    let keys = [
        ("ca", section.ca.as_ref()),
        ("cert", section.cert.as_ref()),
        ("key", section.key.as_ref()),
        ("server-name", section.server_name.as_ref()),
        ("server-fingerprint", section.server_fingerprint.0.first()),
    ];
    if let Some((key, Some(leaf))) = keys.iter().find(|(_, leaf)| leaf.is_some() && !used) {
        let says = "no target of `to` speaks TLS; write tcp+tls:// or relp+tls://";
        return Err(source.bad(&format!("forward.{key}"), leaf, says));
    }
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
        server_fingerprints: list(source, "forward.server-fingerprint", &section.server_fingerprint)?,
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
    let mut nameservers = Vec::new();
    for leaf in &section.nameservers.0 {
        match nameserver(leaf) {
            Ok(address) => nameservers.push(address),
            Err(problem) => source.noted(problem, ())?,
        }
    }
    let min_ttl = duration(source, "resolve.min-ttl", &section.min_ttl, DEFAULT_MIN_TTL)?;
    let max_ttl = duration(source, "resolve.max-ttl", &section.max_ttl, DEFAULT_MAX_TTL)?;
    if let Some(leaf) = section.max_ttl.as_ref().or(section.min_ttl.as_ref()).filter(|_| min_ttl > max_ttl) {
        source.noted(source.bad("resolve.max-ttl", leaf, "`max-ttl` must not be below `min-ttl`"), ())?;
    }
    Ok(Resolve {
        nameservers,
        min_ttl,
        max_ttl,
        timeout: duration(source, "resolve.timeout", &section.timeout, DEFAULT_RESOLVE_TIMEOUT)?,
    })
}

fn admin(source: &Source<'_>, section: &file::Admin) -> Result<Admin, ConfigError> {
    let default = DEFAULT_ADMIN.parse().ok();
    let listen = source.or_by(&section.listen, default, |leaf| match source.text("admin.listen", leaf)?.as_str() {
        "off" => Ok(None),
        text => text.parse().map(Some).map_err(|_| {
            source.bad("admin.listen", leaf, "write an IP address and a port, such as 127.0.0.1:9514, or \"off\"")
        }),
    })?;
    let containers =
        source.or_by(&section.containers, 0, |leaf| match source.text("admin.containers", leaf)?.parse() {
            Ok(number) if number <= MOST_CONTAINERS => Ok(number),
            _ => Err(source.bad("admin.containers", leaf, &format!("write a number from 0 to {MOST_CONTAINERS}"))),
        })?;
    Ok(Admin { listen, explicit: section.listen.is_some(), containers })
}

/// A name that can be a part of a file's.
fn name(source: &Source<'_>, key: &str, leaf: &Leaf) -> Result<String, ConfigError> {
    let name = source.text(key, leaf)?;
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    if name.is_empty() || name.len() > 64 || !name.bytes().all(legal) {
        return Err(source.bad(key, leaf, "a name is 1 to 64 of a-z, 0-9, - and _"));
    }
    Ok(name)
}

fn log(source: &Source<'_>, section: &file::Log) -> Result<Log, ConfigError> {
    let to_spool = source.or_by(&section.to_spool, None, |leaf| match source.text("log.to-spool", leaf)?.as_str() {
        "off" => Ok(None),
        level => level
            .parse()
            .map(Some)
            .map_err(|_| source.bad("log.to-spool", leaf, "write error, warn, info, debug or trace, or \"off\"")),
    })?;
    Ok(Log {
        level: source.or("log.level", &section.level, LogLevel::Info)?,
        format: one_of(source, "log.format", &section.format, &LOG_FORMATS, LogFormat::Text)?,
        to_spool,
    })
}

fn path(source: &Source<'_>, key: &str, leaf: &Leaf) -> Result<PathBuf, ConfigError> {
    let text = source.text(key, leaf)?;
    if text.is_empty() {
        return Err(source.bad(key, leaf, "a path must not be empty"));
    }
    Ok(PathBuf::from(text))
}

fn duration(source: &Source<'_>, key: &str, leaf: &Option<Leaf>, default: Duration) -> Result<Duration, ConfigError> {
    source.or_by(leaf, default, |leaf| match humantime::parse_duration(&source.text(key, leaf)?) {
        Ok(time) if !time.is_zero() && time <= Duration::from_secs(86_400) => Ok(time),
        _ => Err(source.bad(
            key,
            leaf,
            "write a time above zero and up to a day, with its unit: \"500ms\", \"10s\", \"1m\"",
        )),
    })
}

fn size(
    source: &Source<'_>,
    key: &str,
    leaf: &Option<Leaf>,
    default: u64,
    least: u64,
    most: u64,
) -> Result<u64, ConfigError> {
    source.or_by(leaf, default, |leaf| match source.text(key, leaf)?.parse::<ByteSize>() {
        Ok(size) if (least..=most).contains(&size.as_u64()) => Ok(size.as_u64()),
        Ok(_) => Err(source.bad(key, leaf, &format!("from {} to {}", shown_size(least), shown_size(most)))),
        Err(_) => Err(source.bad(key, leaf, "write a size such as \"64KiB\", \"512MiB\" or \"1GiB\"")),
    })
}

fn number(source: &Source<'_>, key: &str, leaf: &Option<Leaf>, default: usize) -> Result<usize, ConfigError> {
    source.or_by(leaf, default, |leaf| match source.text(key, leaf)?.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(source.bad(key, leaf, "write a whole number above zero")),
    })
}

fn one_of<T: Copy>(
    source: &Source<'_>,
    key: &str,
    leaf: &Option<Leaf>,
    choices: &[(&str, T)],
    default: T,
) -> Result<T, ConfigError> {
    source.or_by(leaf, default, |leaf| {
        let text = source.text(key, leaf)?;
        match choices.iter().find(|(word, _)| *word == text) {
            Some((_, choice)) => Ok(*choice),
            None => {
                let words: Vec<String> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
                Err(source.bad(key, leaf, &format!("write {}", words.join(" or "))))
            }
        }
    })
}
