//! What is spoken on the wire, in both directions, as bytes. Pure: no socket, no file, no clock, no async.
//!
//! - `framing` where a syslog message ends in a stream (RFC 6587)
//! - `relp`    syslog with an answer for each message

pub mod framing;
pub mod relp;
