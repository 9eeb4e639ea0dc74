//! STAGE 2: the wire protocols, in both directions, as bytes. Pure: no socket, no file, no clock, no async.
//!
//! - `api`     HTTP requests to log stores, and their answers
//! - `answers` answers that a session owes its sender
//! - `fluent`  entries of Docker's `fluentd` driver, Fluentd and Fluent Bit (Forward protocol)
//! - `foreign` detection of clients on the wrong port
//! - `framing` where a syslog message ends in a stream (RFC 6587)
//! - `gelf`    JSON objects, in datagrams and streams
//! - `held`    the buffer of an unfinished message
//! - `inflate` decompression of gzip and zlib
//! - `journal` entries of systemd's journal (Journal Export Format)
//! - `nats`    messages to NATS and its JetStream, and the answers
//! - `outline` messages that share most of their content with earlier ones
//! - `properties` invariants of all sessions
//! - `proxy`   the address that a proxy announces (PROXY protocol)
//! - `relp`    syslog with an answer for each message
//! - `seconds` decimal seconds since 1970
//! - `session` the trait of all stream protocols, and the list of protocols
//! - `sigv4`   AWS' signature of a request
//! - `splunk`  events of Splunk's HTTP Event Collector
//! - `syslog`  parsing of messages: Docker's shapes, RFC 5424, RFC 3164

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
