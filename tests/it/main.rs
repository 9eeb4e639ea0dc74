//! The stories: what a user sees of a relay, told against the real program. A module for each kind of story;
//! `tests/support/mod.rs` says what belongs into which. One target, so that what all of them use is compiled and linked
//! once: `cargo test --test it`, or some of it, `cargo test --test it names::`.
//!
//! What needs a process of its own, or much time, is a target of its own beside this one.

mod activation;
mod answers;
mod apis;
mod aws;
mod certificates;
mod check;
mod collectors;
mod crash;
mod delivers;
mod deployments;
mod descriptors;
mod disk;
mod elasticsearch;
mod explain;
mod failover;
mod files;
mod fluent;
mod fluent_corpus;
mod fluent_out;
mod fluent_peers;
mod framings;
mod frozen;
mod gelf;
mod gelf_out;
mod handshakes;
mod http_proxies;
mod journal;
mod links;
mod log;
mod loops;
mod losses;
mod manual;
mod multiline;
mod names;
mod nats;
mod openssl;
mod otlp;
mod outage;
mod outputs;
mod pending;
mod private;
mod probe;
mod probe_stores;
mod proofs;
mod proxies;
mod refuses;
mod reload;
mod relp;
mod resend;
mod routes;
mod senders;
mod shapes;
mod splunk;
mod spool_command;
mod status;
mod store_faults;
#[path = "../support/mod.rs"]
mod support;
mod tidy;
mod unchanged;
mod upgrade;
mod watchdog;
mod wire_faults;
