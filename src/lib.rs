//! logferry: a syslog relay for Docker hosts. It loses no message on the way to a collector, which it finds by DNS.
//!
//! This file is the map: the way of a message, the modules in reading order, and the invariants. Each module opens with its own
//! purpose and a list of its files. `docs/glossary.md` explains the terms, and `CONTRIBUTING.md` how to work on the code.
//!
//! # The way of a message
//!
//! ```text
//! socket ─ listen ─▶ bytes ─ protocol ─▶ Record ─ admission ─▶ line ─ spool ─▶ Chunk ─ forward ─▶ collector
//!                                                                       ▲                 │
//!                                                                       └─── Position ────┘
//!                                                                         "up to here is safe"
//! ```
//!
//! Messages move in one direction, through four stages. Only a position comes back: the collector has all lines up to it. Every
//! message passes through the spool; there is no second path. Stages exchange batches, never single messages.
//!
//! - A *record* holds the text of a message, its originator and its time, whatever protocol brought it. Admission decides by the
//!   record whether a message is let in.
//! - A *line* is the record as a complete RFC 5424 message without framing, our canonical form. The spool stores lines as opaque
//!   bytes. Every other output format is rendered from the line.
//!
//! # The modules, in reading order
//!
//! The program and the wiring:
//!
//! - `cli`: the commands, and the program's entry
//! - `relay`: starts, reloads and stops the stages
//! - `log`: the relay's log, on stderr and in the spool
//! - `losses`: reports lost lines to the collector as messages
//! - `watchdog`: finds and reports parts that stall
//!
//! The stages:
//!
//! 1. `listen`: receives from sockets, decides which messages are let in, and fills batches
//! 2. `protocol`: parses and writes the protocols of senders and collectors; `record`: a message as a record and as a line
//! 3. `spool`: stores lines on disk
//! 4. `forward`: sends lines to collectors; `shape`: changes a line before it is sent
//!
//! Shared by the stages:
//!
//! - `config`: the settings; `descriptors`: the budget of file descriptors
//! - `metrics`: the counters; `status`: the states of listeners and forwards
//! - `tls`, `certificate`, `identity`: TLS in both directions, the facts in a certificate, the relay's own key
//! - `http`: HTTP/1.1 as a server; `interfaces`: network interfaces; `loops`: detects forwards that lead back to this relay
//! - `files`, `hex`, `sorted`, `tasks`: small helpers; `sys`: system calls that need `unsafe`
//!
//! For operators and tests:
//!
//! - `admin`: the status page, `/status`, `/metrics`, `/live`, `/ready` and the live tail
//! - `internals`: private items for the tests, benches, fuzz targets and examples of this repository
//!
//! # Invariants
//!
//! 1. Only `relay` knows all stages. No other module imports `listen` or `forward`. Exceptions: the commands in `cli`, and
//!    `internals` for tests.
//! 2. These modules decide and do not act; they contain no async, socket, file or clock: `record`, `protocol`, `shape`,
//!    `spool::{record, batch, progress, ledger}`, `forward::{delivery, encode, filtered_chunk}` and
//!    `forward::tcp::{in_flight, read_estimator}`.
//! 3. Each dependency is used in few places: hickory only in `forward::names`, `toml` only in `config`, hyper only in `http`,
//!    `admin`, `listen::http` and `forward::http`, askama only in `admin`, tracing-subscriber only in `log`, x509-cert only in
//!    `certificate`, tables of time zones only in `record::zone`, regex-lite only in `record::expression`. Only `tls` builds rustls
//!    types. `tests/it/tidy.rs` lists the places of ring, flate2, `subtle`, `form_urlencoded` and `data-encoding`.
//! 4. The messages and answers of a session do not depend on where the reads have cut its bytes.
//! 5. Every queue, buffer, connection count, wait and file has a limit with a name, a unit and a default.
//! 6. Counters balance: each line that comes in is counted once by its fate. `metrics` states the equations.
//! 7. A stranger cannot make the relay log, block, grow or restart. An event of a single message is a counter, not a log entry.
//! 8. A part has one name everywhere: `[spool]` in the config, `src/spool/`, `logferry_spool_*`, `spool: …` in commits.
//! 9. `unsafe` is in `sys` alone, with one file for each system call.
//! 10. A secret has a type of its own, which prints `***`. It comes from an environment variable or from its own file, never from the
//!     config file.
//! 11. The runtime has one thread, which never waits for a disk. Files are accessed on separate threads and in `spawn_blocking`, and
//!     every wait for them has a timeout.
//!
//! `tests/it/tidy.rs` checks 1, 2, 3, 9 and 11.

// Bytes from the network or the disk must not end the process. An `expect` states why it cannot fail.
#![warn(clippy::unwrap_used)]
// Only `sys` allows it.
#![deny(unsafe_code)]
// The docs are for people who work on the code: `cargo doc --document-private-items`.
#![allow(rustdoc::private_intra_doc_links)]

// The program and the wiring.
mod cli;
mod log;
mod losses;
mod relay;
mod watchdog;

// Stage 1: sockets → batches.
mod listen;

// Stage 2: frames → records → lines; and the protocols of senders and collectors.
mod protocol;
mod record;

// Stage 3: lines → disk → batches.
mod spool;

// Stage 4: batches → collectors.
mod forward;
mod shape;

// Shared by the stages.
mod certificate;
mod coalescing;
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

// For operators.
mod admin;

// The program's entry, and the private items that this repository's tests use.
pub use cli::main;
#[doc(hidden)]
pub mod internals;

// Skips a unit test on a machine that lacks what the test needs.
#[cfg(test)]
#[path = "../tests/support/skip.rs"]
#[allow(dead_code)]
mod skip;

#[cfg(test)]
mod eventually;
