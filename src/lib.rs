//! logferry: a syslog relay for Docker hosts that loses nothing on the way to a collector named by DNS.
//!
//! # The way of a message
//!
//! ```text
//! socket ─ listen ─▶ bytes ─ protocol ─▶ Record ─ admission ─▶ line ─ spool ─▶ Chunk ─ forward ─▶ collector
//!                                                                      ▲                        │
//!                                                                      └── Position: "up to here is safe" ◀┘
//! ```
//!
//! One direction, four stages; the only thing that comes back is a position. There is one path: every message goes
//! through the spool. A *record* is what was said, by whom and when, whatever protocol brought it; what may pass is asked of
//! the record. Its *line* is a complete RFC 5424 message without framing, our canonical form; the spool holds lines as opaque
//! bytes, and another output format is rendered from the line. Stages exchange batches, never single messages.
//!
//! # Invariants
//!
//! 1. Only `relay` knows all stages. Nothing else imports `listen` or `forward`, but the commands in `cli`, and `internals`
//!    for tests.
//! 2. `record`, `protocol`, `spool::record`, `spool::batch`, `spool::ledger`, `forward::delivery`, `forward::encode` and `shape` hold no async, no socket,
//!    no file and no clock.
//! 3. One doorway for each dependency: hickory only in `forward::names`, rustls types built only in `tls`, `toml` only
//!    in `config`, hyper only in `http`, `admin` and `listen::http`, askama only in `admin`, tracing-subscriber only in `log`, x509-cert only in `certificate`,
//!    tables of time zones only in `record::zone`, regex-lite only in `record::expression`, `subtle`, `form_urlencoded` and
//!    `data-encoding` only where `tests/it/tidy.rs` says.
//! 4. What a session finds and answers does not depend on where the bytes were cut.
//! 5. Every queue, buffer, connection count, wait and file has a limit with a name, a unit and a default.
//! 6. Counters conserve: `metrics` has the books.
//! 7. A stranger cannot make us log, block, grow or restart. Per-message events are counters.
//! 8. One vocabulary: `[spool]` in the config, `src/spool/`, `logferry_spool_*`, `spool: …` in commits.
//! 9. `unsafe` is in `sys` alone, a file for each system call.
//! 10. A secret is a type that prints as `***`; it comes from a variable or a file of its own, never from the config file.
//! 11. The runtime's one thread waits for no disk: files are touched on threads of their own and in `spawn_blocking`, and every
//!     wait for them has an end.
//!
//! `tests/it/tidy.rs` holds the code to 1, 2, 3, 9 and 11.

// Bytes from the network or the disk must not end the process; an `expect` states why it cannot fail.
#![warn(clippy::unwrap_used)]
// What the compiler cannot check is in `sys`, a file for each system call, and nowhere else.
#![deny(unsafe_code)]
// Whoever reads these docs works on the code: `cargo doc --document-private-items`.
#![allow(rustdoc::private_intra_doc_links)]

// In reading order.

// The face and the wiring.
mod cli;
mod log;
mod losses;
mod relay;
mod watchdog;

// Stage 1: sockets → batches.
mod listen;

// Stage 2: frames → records → lines; what is spoken with senders and collectors.
mod protocol;
mod record;

// Stage 3: lines → disk → batches.
mod spool;

// Stage 4: batches → collectors.
mod forward;
mod shape;

// What the stages share.
mod certificate;
mod config;
mod descriptors;
mod files;
mod hex;
mod http;
mod identity;
mod interfaces;
mod loops;
mod metrics;
mod sorted;
mod status;
mod sys;
mod tasks;
mod tls;

// What an operator may ask.
mod admin;

// The program, and what this repository's tests see of its insides.
pub use cli::main;
#[doc(hidden)]
pub mod internals;

// What a unit test needs and a machine may lack.
#[cfg(test)]
#[path = "../tests/support/skip.rs"]
#[allow(dead_code)]
mod skip;

#[cfg(test)]
mod eventually;
