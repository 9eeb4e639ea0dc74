//! Support for the tests: a real relay as a child process, senders that speak like Docker, collectors that record what arrives, a name
//! server, certificates.
//!
//! A new test goes into a module of `tests/it`, which is one target.
//!
//! - `delivers.rs`    a message by each input, output, format and framing
//! - `nats.rs`        NATS JetStream: each line is stored once, although a process or a server of a cluster dies
//! - `wire_faults.rs` faults of JetStream, Forward and GELF connections; `store_faults.rs`: faults of each log store API
//! - `names.rs`       the collector's name: it moves, does not resolve, is a service, loses its server; `answers.rs`: wrong answers
//! - `failover.rs`    several collectors in order: failover and failback
//! - `resend.rs`      dead letters that are sent again
//! - `relp.rs`        RELP: acknowledgements, retransmission, interoperation with rsyslog
//! - `fluent.rs`      the Forward protocol: acknowledgements, retransmission, other senders; `fluent_corpus.rs`: the recorded messages
//! - `fluent_out.rs`  the Forward protocol as an output
//! - `certificates.rs`  certificate files that change, and client certificates; `openssl.rs`: peers that TLS refuses
//! - `handshakes.rs`  reports of a failed handshake, by a forward and by `check --connect`
//! - `links.rs`       network faults: a cut wire, lost packets
//! - `loops.rs`       a forward that leads back to its own relay
//! - `outage.rs`      a collector that hangs, dies, comes back
//! - `crash.rs`       the relay ends: killed, stopped, started again on the same spool
//! - `reload.rs`      the relay changes while it runs
//! - `disk.rs`        the spool's disk is full, failing, read-only, not writable, gone; `frozen.rs`: it hangs; `losses.rs`: lost lines
//! - `files.rs`     a `file://` that cannot be written
//! - `gelf.rs`        GELF by UDP, TCP and TLS, from Docker's driver and from other senders
//! - `gelf_out.rs`    GELF as an output
//! - `framings.rs`    message boundaries: the senders' delimiters, and forgery by containers
//! - `descriptors.rs` few file descriptors, and many connections
//! - `proofs.rs`      the senders whose line numbers a relay trusts
//! - `multiline.rs`   lines that are joined to one message
//! - `routes.rs`      routing, filtering, and pieces of a long line
//! - `shapes.rs`      a forward's changes to lines: fields, time, severity
//! - `senders.rs`     the sender's identity in a line
//! - `proxies.rs`     the PROXY protocol
//! - `activation.rs`  socket activation; `deployments.rs`: files for deployments; `package.rs`: the Debian package
//! - `refuses.rs`     user errors, and the output of the other commands
//! - `collectors.rs`  other collectors: rsyslog, syslog-ng; `unchanged.rs`: hostile bytes that pass through one
//! - `check.rs`       findings of `logferry check`; `explain.rs`: output of `logferry explain`; `expectations.rs`: `logferry test`
//! - `private.rs`     the relay's secrets: memory, keys, files
//! - `log.rs`         the relay's own log; `manual.rs`: documentation in packages
//! - `spool_command.rs`  the command that shows a spool
//! - `probe.rs`       the probe's result for a chain that works, and for a broken chain; `probe_stores.rs`: reading back from stores
//! - `status.rs`      the operator's view: the status page, /status, /ready
//! - `monitoring.rs`  rules and dashboards for Prometheus and Grafana; `watchdog.rs`: stalls, and their reports
//! - `outputs.rs`     properties of every output
//! - `tidy.rs`        rules for the files of this repository
//!
//! A test that takes long, needs the whole machine or starts its own program as a process gets its own target:
//!
//! - `faults/`        kills, stops, moves and cuts under a steady load, and the share of the load that arrives
//! - `soak/`          hours of load and change, and resources that grow; `hostile/`: thousands of strangers, and their cost
//! - `engine/`        a real Docker engine; `swarm/`: a real Swarm; `recipes/`: docs/recipes and docs/destinations, run
//! - `senders/`       messages of devices and libraries, and docs/senders.md
//! - `docs.rs`        links between pages, the book's table of contents, and how long sentences are
//! - `corpus.rs`      the meaning of captured messages, and a parser without allocations
//! - `shape.rs`       fields that a forward finds in programs' lines (`tests/shape`)
//! - `simulation/`    relays, network, disk and clock from a seed, in one thread: unexpected combinations
//! - `spool_model.rs` every history of a spool, in this process: a test beside it could start a child that inherits the spool's lock for
//!   a moment; `spool_crash.rs`: every crash of a spool
//!
//! Rules: wait for conditions with a deadline ([`eventually`]), never sleep; use port 0, never a fixed number; do not measure time. A test
//! ends with a check of the counters ([`Relay::has_delivered`]).

// Each target compiles this module separately and uses a part of it.
#![allow(dead_code, unused_imports)]

pub mod certs;
pub mod collector;
pub mod corpus;
pub mod descriptors;
pub mod disk;
pub mod dns;
pub mod docker;
pub mod drivers;
pub mod flow;
pub mod fluent;
pub mod fluent_receiver;
pub mod hanging_reads;
pub mod held;
pub mod http;
pub mod line;
pub mod nats;
pub mod network;
pub mod pages;
pub mod peers;
pub mod process;
pub mod program;
pub mod python;
pub mod relay;
pub mod relp;
pub mod rsyslog;
pub mod script;
pub mod sender;
pub mod sink;
pub mod skip;
pub mod splice;
pub mod store;
pub mod syslog_ng;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

pub use certs::Certs;
pub use collector::{Collector, Framing, all_arrived_once};
pub use descriptors::Descriptors;
pub use dns::NameServer;
pub use docker::{Docker, Format};
pub use flow::Flow;
pub use fluent::FluentPeer;
pub use fluent_receiver::{Chunk, FluentReceiver, ReceiverPeer};
pub use held::{Held, own_address, own_port};
pub use line::{Line, texts};
pub use nats::{NatsClient, NatsCluster, NatsKey, NatsServer, NatsUser};
pub use network::Network;
pub use peers::{Moto, Osmem, OtlpReceiver};
pub use process::Process;
pub use program::{Notified, Program};
pub use relay::{Metrics, Relay, Setup};
pub use relp::{RelpCollector, RelpFrame, RelpPeer};
pub use script::ScriptedServer;
pub use sender::{Door, TlsClient, Wire, says, says_at_length};
pub use sink::Sink;
pub use skip::{has_ipv6, installed, root_can, skip};
pub use splice::splice;
pub use store::{Store, StorePeer, StoreRequest};
pub use syslog_ng::SyslogNg;

/// Only a test that fails waits this long; a busy machine may need part of it.
pub const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Waits until `condition` has something to return.
#[track_caller]
pub fn eventually<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    let Some(value) = within(PATIENCE, condition) else { panic!("waited {PATIENCE:?} in vain: {what}") };
    value
}

/// Like [`eventually`], with the caller's own deadline and its own handling of a timeout.
pub fn within<T>(patience: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if start.elapsed() >= patience {
            return None;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Runs a command to its end, with nothing on its stdin.
pub fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null());
    // While a parallel test forks, its child briefly holds our copy of the program open for writing.
    let started = || match command.output() {
        Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => None,
        output => Some(output.expect("logferry starts")),
    };
    eventually("nobody holds the program", started)
}

/// Copies the program to a place where `nobody` can start it, and returns the command that does so.
pub fn as_nobody(dir: &tempfile::TempDir) -> Option<Command> {
    if !root_can("become another user") {
        return None;
    }
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("our directory");
    let binary = dir.path().join("logferry");
    fs::copy(env!("CARGO_BIN_EXE_logferry"), &binary).expect("copied");
    let mut command = Command::new(binary);
    command.env_clear().uid(65_534).gid(65_534);
    Some(command)
}

/// Bytes in readable form.
pub fn shown(bytes: &[u8]) -> String {
    let shown = bytes.escape_ascii().to_string();
    if shown.len() > 300 { format!("{}… ({} bytes)", &shown[..300], bytes.len()) } else { shown }
}
