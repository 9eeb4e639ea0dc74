//! What is spoken on the wire, in both directions, as bytes. Pure: no socket, no file, no clock, no async.
//!
//! - `api`     requests of log stores that take lines by HTTP, and their answers
//! - `answers` what is owed to a sender that is answered
//! - `fluent`  entries of Docker's `fluentd` driver, Fluentd and Fluent Bit (Forward protocol)
//! - `foreign` what is spoken by those who came to the wrong port
//! - `framing` where a syslog message ends in a stream (RFC 6587)
//! - `gelf`    JSON objects, in datagrams and streams
//! - `held`    what is held of a message that has not ended
//! - `inflate` what is compressed with gzip or zlib
//! - `journal` entries of systemd's journal (Journal Export Format)
//! - `nats`    what is published to NATS and its JetStream, and the answers
//! - `outline` messages of which most came before
//! - `properties` what must hold for all sessions
//! - `proxy`   for whom a proxy speaks (PROXY protocol)
//! - `relp`    syslog with an answer for each message
//! - `seconds` decimal seconds since 1970
//! - `session` what each protocol must say of a connection of senders, and the protocols there are
//! - `sigv4`   AWS' signature of a request
//! - `splunk`  events of Splunk's HTTP Event Collector
//! - `syslog`  what a message says: Docker's shapes, RFC 5424, RFC 3164

mod answers;
pub mod api;
pub mod fluent;
pub mod foreign;
pub mod framing;
pub mod gelf;
mod held;
pub mod inflate;
pub mod journal;
pub mod nats;
pub mod outline;
pub mod properties;
pub mod proxy;
pub mod relp;
mod seconds;
pub mod session;
pub mod sigv4;
pub mod splunk;
pub mod syslog;
#[cfg(test)]
mod tests;

pub use seconds::read as read_seconds;
pub use syslog::read_stamp;
