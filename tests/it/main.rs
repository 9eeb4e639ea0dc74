//! The stories: what a user sees of a relay, told against the real program. A module for each kind of story;
//! `tests/support/mod.rs` says what belongs into which. One target, so that what all of them use is compiled and linked
//! once: `cargo test --test it`, or some of it, `cargo test --test it names::`.
//!
//! What needs a process of its own, or much time, is a target of its own beside this one.

mod activation;
mod answers;
mod certificates;
mod check;
mod collectors;
mod crash;
mod delivers;
mod deployments;
mod descriptors;
mod disk;
mod explain;
mod failover;
mod files;
mod frozen;
mod links;
mod log;
mod losses;
mod manual;
mod names;
mod openssl;
mod outage;
mod outputs;
mod pending;
mod private;
mod probe;
mod proofs;
mod refuses;
mod reload;
mod relp;
mod routes;
mod spool_command;
mod status;
#[path = "../support/mod.rs"]
mod support;
mod tidy;
mod unchanged;
mod upgrade;
mod watchdog;
