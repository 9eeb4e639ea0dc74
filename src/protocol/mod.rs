//! What is spoken on the wire, in both directions, as bytes. Pure: no socket, no file, no clock, no async.
//!
//! - `framing` where a syslog message ends in a stream (RFC 6587)
//! - `properties` what must hold for all sessions
//! - `relp`    syslog with an answer for each message
//! - `session` what each protocol must say of a connection of senders, and the protocols there are
//! - `syslog`  what a message says: Docker's shapes, RFC 5424, RFC 3164

pub mod framing;
pub mod properties;
pub mod relp;
pub mod session;
pub mod syslog;
