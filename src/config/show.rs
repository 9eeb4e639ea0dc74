//! The way back, from what is meant to what could be written: for `logferry check`, and for the test that holds the
//! shipped config file to naming every key.

use std::path::Path;
use std::time::Duration;

use super::file::{self, Leaf, Leaves, Origin, Scalar, unwritten};
use super::*;

/// Every setting, defaults filled in.
pub fn to_file(config: &Config) -> file::File {
    let text = |value: String| Some(Leaf::from_override("", value));
    let time = |value: Duration| text(humantime::format_duration(value).to_string());
    let number = |value: usize| Some(Leaf { value: Scalar::Number(value as i64), origin: Origin::Override("") });
    let shown_path = |value: &Path| text(value.display().to_string());
    let listen = |listen: &Listen| file::Listen {
        address: text(listen.address.to_string()),
        name: listen.name.clone().and_then(text),
        from: text(word_for(&SENDERS, &listen.from).to_owned()),
        cert: listen.tls.as_ref().and_then(|tls| shown_path(&tls.cert)),
        key: listen.tls.as_ref().and_then(|tls| shown_path(&tls.key)),
        client_ca: listen.tls.as_ref().and_then(|tls| tls.client_ca.as_deref().and_then(shown_path)),
        client_names: shown_list(listen.tls.iter().flat_map(|tls| &tls.client_names)),
        client_fingerprint: shown_list(listen.tls.iter().flat_map(|tls| &tls.client_fingerprints)),
        plaintext: Some(Leaf { value: Scalar::Flag(listen.plaintext), origin: Origin::Override("") }),
        allow: shown_list(&listen.limits.allow),
        max_frame: text(shown_size(listen.limits.max_frame as u64)),
        receive_buffer: text(shown_size(listen.receive_buffer as u64)),
        max_connections: number(listen.limits.max_connections),
        max_connections_per_address: number(listen.limits.max_connections_per_address),
        max_unfinished: text(shown_size(listen.limits.max_unfinished as u64)),
        frame_timeout: time(listen.limits.frame_timeout),
        max_handshakes: number(listen.limits.max_handshakes),
        handshake_timeout: time(listen.limits.handshake_timeout),
    };
    let forward = |forward: &Forward| file::Forward {
        name: text(forward.name.clone()),
        to: Leaves(forward.to.iter().filter_map(|to| text(to.to_string())).collect()),
        matches: file::Rules { rules: forward.matches.iter().map(rule).collect(), written: None },
        format: text(forward.format.to_string()),
        framing: forward.framing.and_then(|framing| text(word_for(&FRAMINGS, &framing).to_owned())),
        ca: forward.tls.ca.as_deref().and_then(shown_path),
        cert: forward.tls.identity.as_ref().and_then(|(cert, _)| shown_path(cert)),
        key: forward.tls.identity.as_ref().and_then(|(_, key)| shown_path(key)),
        server_name: forward.tls.server_name.clone().and_then(text),
        server_fingerprint: shown_list(&forward.tls.server_fingerprints),
        connect_timeout: time(forward.connect_timeout),
        dead_after: time(forward.dead_after),
        max_backoff: time(forward.max_backoff),
        return_after: time(forward.return_after),
        replay: text(shown_size(forward.replay)),
        replay_for: time(forward.replay_for),
        replay_limit: text(shown_size(forward.replay_limit)),
        window: number(forward.window),
    };
    file::File {
        hostname: text(config.hostname.clone()),
        grace: time(config.grace),
        listen: config.listen.iter().map(listen).map(unwritten).collect(),
        syslog: file::Syslog {
            tag_template: text(config.syslog.tag_template.to_string()),
            sd_id: text(config.syslog.sd_id.clone()),
            time_zone: text(config.syslog.time_zone.to_string()),
            rejoin: text(config.syslog.rejoin.map_or("off".to_owned(), |longest| shown_size(longest as u64))),
            rate_limit: text(config.syslog.rate.map_or("off".to_owned(), |rate| format!("{}/s", rate.per_second))),
            rate_burst: config
                .syslog
                .rate
                .map(|rate| Leaf { value: Scalar::Number(rate.burst.into()), origin: Origin::Override("") }),
        },
        drop: config.drop.iter().map(rule).map(unwritten).collect(),
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
            max_rate: text(config.spool.max_rate.map_or("off".to_owned(), |rate| format!("{}/s", shown_size(rate)))),
            shed_from: text(config.spool.shed_from.map_or("off".to_owned(), |percent| format!("{percent}%"))),
        },
        forward: config.forward.iter().map(forward).map(unwritten).collect(),
        resolve: file::Resolve {
            nameservers: Leaves(
                config.resolve.nameservers.iter().filter_map(|server| text(server.to_string())).collect(),
            ),
            min_ttl: time(config.resolve.min_ttl),
            max_ttl: time(config.resolve.max_ttl),
            timeout: time(config.resolve.timeout),
        },
        admin: file::Admin {
            listen: text(config.admin.listen.map_or("off".to_owned(), |listen| listen.to_string())),
            containers: Some(Leaf {
                value: Scalar::Number(config.admin.containers as i64),
                origin: Origin::Override(""),
            }),
        },
        log: file::Log {
            level: text(config.log.level.word().to_owned()),
            format: text(word_for(&LOG_FORMATS, &config.log.format).to_owned()),
            to_spool: text(config.log.to_spool.map_or("off", LogLevel::word).to_owned()),
        },
    }
}

fn rule(rule: &Rule) -> file::Rule {
    let leaves =
        |written: &[String]| Leaves(written.iter().map(|name| Leaf::from_override("", name.clone())).collect());
    file::Rule {
        image: leaves(&rule.image.written()),
        name: leaves(&rule.name.written()),
        app: leaves(&rule.app.written()),
        host: leaves(&rule.host.written()),
        listener: leaves(&rule.listener.written()),
        facility: leaves(rule.facility.written()),
        severity: leaves(rule.severity.written()),
    }
}

fn shown_list<'a, T: ToString + 'a>(values: impl IntoIterator<Item = &'a T>) -> Leaves {
    Leaves(values.into_iter().map(|value| Leaf::from_override("", value.to_string())).collect())
}

/// Whole units where the number is one, so that 65536 comes back as 64KiB and 65537 as itself.
pub fn shown_size(bytes: u64) -> String {
    let units = [(1u64 << 50, "PiB"), (1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

fn word_for<T: PartialEq>(choices: &[(&'static str, T)], choice: &T) -> &'static str {
    choices.iter().find(|(_, known)| known == choice).map_or("", |(word, _)| word)
}
