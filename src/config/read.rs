//! From what was written to what is meant: each section's values, their limits, and what must stand together.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;

use super::error::Source;
use super::file::{self, Leaf, Section, unwritten};
use super::rules;
use super::show::shown_size;
use super::*;
use crate::syslog::is_sd_id;

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
    address.is_tls() || matches!(address, ListenAddress::Tcp(_))
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
        let taken = !listener.address.has_any_port() && listeners.iter().any(|other| other.address == listener.address);
        if let Some(leaf) = section.as_ref().address.as_ref().filter(|_| taken) {
            return Err(source.bad("listen.address", leaf, "another listener has this address already"));
        }
        let same = |other: &Listen| other.name.is_some() && other.name == listener.name;
        if let Some(leaf) = section.as_ref().name.as_ref().filter(|_| listeners.iter().any(same)) {
            return Err(source.bad("listen.name", leaf, "another listener has this name already"));
        }
        listeners.push(listener);
    }
    Ok(listeners)
}

fn listener(source: &Source<'_>, section: &Section<file::Listen>) -> Result<Listen, ConfigError> {
    let (span, section) = (section.span(), section.as_ref());
    let Some(leaf) = &section.address else {
        return Err(source.missing("listen", span, "address", "address = \"udp://0.0.0.0:514\""));
    };
    let address: ListenAddress = source.value("listen.address", leaf)?;
    let tls = server_tls(source, section)?;
    let tls_only = address.is_tls();
    if tls_only && tls.is_none() {
        return Err(source.bad("listen.address", leaf, "TLS needs `cert` and `key` (PEM files)"));
    }
    if tls.is_some() && !takes_tls(&address) {
        let says = "`cert` and `key` belong to tcp://, tcp+tls:// and relp+tls:// listeners";
        return Err(source.bad("listen.address", leaf, says));
    }
    // Who asks for certificates does not mean to take everybody else's plain text.
    let mutual = tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    let plaintext = source.or("listen.plaintext", &section.plaintext, !tls_only && !mutual)?;
    if let Some(leaf) = section.plaintext.as_ref().filter(|_| plaintext && tls_only) {
        return Err(source.bad(
            "listen.plaintext",
            leaf,
            "this scheme takes TLS only; for both on one port write tcp://",
        ));
    }
    if let Some(leaf) = section.plaintext.as_ref().filter(|_| !plaintext && tls.is_none()) {
        return Err(source.bad("listen.plaintext", leaf, "without `cert` and `key` plain text is all there is"));
    }
    let (least, most) = MAX_FRAME_RANGE;
    Ok(Listen {
        address,
        name: section.name.as_ref().map(|leaf| name(source, "listen.name", leaf)).transpose()?,
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
            if !is_sd_id(&id) {
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
        rejoin: rejoin(source, &section.rejoin)?,
        rate: rate(source, section)?,
    })
}

fn rejoin(source: &Source<'_>, leaf: &Option<Leaf>) -> Result<Option<usize>, ConfigError> {
    let (least, most) = REJOIN_RANGE;
    match leaf {
        None => Ok(None),
        Some(leaf) if source.text("syslog.rejoin", leaf)? == "off" => Ok(None),
        leaf => Ok(Some(size(source, "syslog.rejoin", leaf, most, least, most)? as usize)),
    }
}

fn rate(source: &Source<'_>, section: &file::Syslog) -> Result<Option<Rate>, ConfigError> {
    let key = "syslog.rate-limit";
    let limit = section.rate_limit.as_ref().map(|leaf| Ok((leaf, source.text(key, leaf)?))).transpose()?;
    let Some((leaf, text)) = limit.filter(|(_, text)| text != "off") else {
        return match &section.rate_burst {
            Some(leaf) => {
                Err(source.bad("syslog.rate-burst", leaf, "there is no `rate-limit` that it could belong to"))
            }
            None => Ok(None),
        };
    };
    let per_second = match text.strip_suffix("/s").map(str::trim_end).and_then(|number| number.parse().ok()) {
        Some(number @ 1..=10_000_000) => number,
        _ => return Err(source.bad(key, leaf, "write messages a second, such as \"1000/s\", or \"off\"")),
    };
    let burst =
        number(source, "syslog.rate-burst", &section.rate_burst, (per_second * DEFAULT_BURST_SECONDS) as usize)?;
    Ok(Some(Rate { per_second, burst: u32::try_from(burst).unwrap_or(u32::MAX) }))
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
        shed_from: shed_from(source, &section.shed_from)?,
    })
}

fn shed_from(source: &Source<'_>, leaf: &Option<Leaf>) -> Result<Option<u8>, ConfigError> {
    let Some(leaf) = leaf else { return Ok(Some(DEFAULT_SHED_FROM)) };
    match source.text("spool.shed-from", leaf)?.as_str() {
        "off" => Ok(None),
        text => match text.strip_suffix('%').and_then(|percent| percent.parse().ok()) {
            Some(percent @ 1..=99) => Ok(Some(percent)),
            _ => Err(source.bad("spool.shed-from", leaf, "write a share of `max-size` such as \"90%\", or \"off\"")),
        },
    }
}

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

fn forwards(
    source: &Source<'_>,
    sections: &[Section<file::Forward>],
    listeners: &[&str],
) -> Result<Vec<Forward>, ConfigError> {
    let mut names = HashSet::new();
    let mut forwards = Vec::with_capacity(sections.len());
    for section in sections {
        if section.as_ref().name.is_none() && sections.len() > 1 {
            let says = "name = \"central\": with several forwards each needs its own name, its place in the spool is kept under it";
            return Err(source.missing("forward", section.span(), "name", says));
        }
        let forward = forward(source, section, listeners)?;
        if !names.insert(forward.name.clone()) {
            let leaf = section.as_ref().name.as_ref().expect("a name that came twice was written");
            return Err(source.bad("forward.name", leaf, "another forward has this name already"));
        }
        forwards.push(forward);
    }
    Ok(forwards)
}

fn forward(source: &Source<'_>, section: &Section<file::Forward>, listeners: &[&str]) -> Result<Forward, ConfigError> {
    let (span, section) = (section.span(), section.as_ref());
    let name = match &section.name {
        Some(leaf) => name(source, "forward.name", leaf)?,
        None => "central".to_owned(),
    };
    if section.to.0.is_empty() {
        return Err(source.missing("forward", span, "to", "to = [\"tcp+tls://logs.example.com:6514\"]"));
    }
    let to = section.to.0.iter().map(|leaf| source.value("forward.to", leaf)).collect::<Result<Vec<_>, _>>()?;
    let speaks_tls = to.iter().any(ForwardAddress::is_tls);
    let framing = match &section.framing {
        Some(leaf) => Some(one_of(source, "forward.framing", &Some(leaf.clone()), &FRAMINGS, Framing::Newline)?),
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
        tls: client_tls(source, section, speaks_tls)?,
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
    let keys =
        [("ca", &section.ca), ("cert", &section.cert), ("key", &section.key), ("server-name", &section.server_name)];
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

/// A name that can be a part of a file's.
fn name(source: &Source<'_>, key: &str, leaf: &Leaf) -> Result<String, ConfigError> {
    let name = source.text(key, leaf)?;
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    if name.is_empty() || name.len() > 64 || !name.bytes().all(legal) {
        return Err(source.bad(key, leaf, "a name is 1 to 64 of a-z, 0-9, - and _"));
    }
    Ok(name)
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
