//! The message of the probe's container in the format of each log driver.

use chrono::{DateTime, Utc};
use serde_json::json;

use super::sender::{IMAGE, NAME};
use crate::cli::log_driver::{RelayAddress, rfc5424micro};
use crate::protocol::fluent::append_str;

/// The log drivers that the probe can imitate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    Syslog,
    Fluentd,
    Gelf,
}

/// The container, as its driver describes it in each message.
pub struct Container {
    /// The engine's host name.
    pub host: String,
    /// The driver's `tag` option, expanded.
    pub tag: String,
    /// 64 hexadecimal digits.
    pub id: String,
}

impl Driver {
    /// A line of the container, framed for this address.
    pub fn message(self, to: &RelayAddress, now: DateTime<Utc>, container: &Container, line: &str) -> Vec<u8> {
        match self {
            Self::Syslog => rfc5424micro(to, now, &container.host, &container.tag, line),
            Self::Fluentd => fluentd(now, container, line),
            Self::Gelf => gelf(to, now, container, line),
        }
    }
}

/// An entry with `fluentd-sub-second-precision`: an array of four, as in moby `daemon/logger/fluentd/fluentd.go`.
fn fluentd(now: DateTime<Utc>, container: &Container, line: &str) -> Vec<u8> {
    let mut out = vec![0x94];
    append_str(container.tag.as_bytes(), &mut out);
    // The tag of EventTime: fixext 8, type 0.
    out.extend_from_slice(&[0xd7, 0]);
    out.extend_from_slice(&(now.timestamp() as u32).to_be_bytes());
    out.extend_from_slice(&now.timestamp_subsec_nanos().to_be_bytes());
    let record = [
        ("container_id", &*container.id),
        ("container_name", &format!("/{NAME}")),
        ("source", "stdout"),
        ("log", line),
    ];
    out.push(0x80 | record.len() as u8);
    for (key, value) in record {
        append_str(key.as_bytes(), &mut out);
        append_str(value.as_bytes(), &mut out);
    }
    // An empty option map.
    out.push(0x80);
    out
}

/// A message without compression, as in moby `daemon/logger/gelf/gelf.go`. Over streams a NUL follows.
fn gelf(to: &RelayAddress, now: DateTime<Utc>, container: &Container, line: &str) -> Vec<u8> {
    let message = json!({
        "version": "1.1",
        "host": container.host,
        "short_message": line,
        "timestamp": now.timestamp_millis() as f64 / 1000.0,
        "level": 6,
        "_command": "probe",
        "_container_id": container.id,
        "_container_name": NAME,
        "_image_name": IMAGE,
        "_tag": container.tag,
    });
    let mut out = message.to_string().into_bytes();
    if !matches!(to, RelayAddress::Udp(_)) {
        out.push(0);
    }
    out
}
