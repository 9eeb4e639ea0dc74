//! What the stories are told with: a real relay as a child process, senders that speak like Docker, collectors that
//! write down what arrives, a name server, certificates.
//!
//! Where the next test goes: into a module of `tests/it`, which is one target.
//!
//! - `delivers.rs`    a message, a way in, a way out, a format, a framing
//! - `nats.rs`        JetStream of NATS: each line once, whoever dies; a server of a cluster, too
//! - `wire_faults.rs` JetStream, Forward and GELF × what goes wrong; `store_faults.rs`: each API of log stores
//! - `names.rs`       the collector's name: it moves, dies, does not resolve, is a service; `answers.rs`: every wrong answer
//! - `failover.rs`    several collectors in order: who takes over, and who is returned to
//! - `resend.rs`      dead letters that are sent again
//! - `relp.rs`        RELP: what is answered, what is sent again, what another make says
//! - `fluent.rs`      the Forward protocol: what is answered, what comes again, who else sends it; `fluent_corpus.rs`: all that was recorded
//! - `fluent_out.rs`  lines that go out by the Forward protocol
//! - `certificates.rs`  files of certificates that change, and who is let in with which; `openssl.rs`: what TLS refuses
//! - `handshakes.rs`  what a forward, and `check --connect`, say of a handshake that fails
//! - `links.rs`       the wire itself: it is cut, it swallows packets
//! - `loops.rs`       a forward that leads back to its own relay
//! - `outage.rs`      the collector hangs, dies, comes back
//! - `crash.rs`       the relay ends: killed, stopped, started again on the same spool
//! - `reload.rs`      the relay changes while it runs
//! - `disk.rs`        the spool's disk is full, failing, read-only, not ours, gone; `frozen.rs`: it hangs; `losses.rs`: what is said of lines that are lost
//! - `files.rs`     a `file://` that cannot be written
//! - `gelf.rs`        GELF by UDP, TCP and TLS, from Docker's driver and from others
//! - `gelf_out.rs`  lines that go out by GELF
//! - `framings.rs`  where messages end: what senders put between them, and what containers cannot forge
//! - `descriptors.rs` a process that may open few files, and strangers who want them
//! - `proofs.rs`    whose numbers of lines a relay believes
//! - `multiline.rs`  which lines become one message
//! - `routes.rs`      which line goes where, which is dropped, which pieces are one
//! - `shapes.rs`     what a forward makes of lines: fields, time, severity
//! - `senders.rs`    who has sent it, and what a line says of that
//! - `proxies.rs`    a proxy in front, who says for whom he speaks
//! - `activation.rs`  sockets that a service manager keeps; `deployments.rs`: the files people deploy with; `package.rs`: the Debian package
//! - `refuses.rs`     what a user gets wrong, and what the other commands say
//! - `collectors.rs`  a collector of another make: rsyslog, syslog-ng; `unchanged.rs`: hostile bytes, seen by one
//! - `check.rs`       what `logferry check` finds; `explain.rs`: what `logferry explain` shows; `expectations.rs`: `logferry test`
//! - `private.rs`     what the relay keeps to itself: memory, keys, files
//! - `log.rs`         what the relay says about itself; `manual.rs`: what packages ship beside it
//! - `spool_command.rs`  what a person sees who looks into a spool
//! - `probe.rs`       what the probe says of a chain that works, and of one that does not; `probe_stores.rs`: what it reads back from stores
//! - `status.rs`      what an operator sees: the status page, /status, /ready
//! - `monitoring.rs`  what Prometheus and Grafana are given; `watchdog.rs`: what stands still, and who is told
//! - `outputs.rs`     what must hold for a message on every output, whoever wrote it
//! - `tidy.rs`        what must hold for the files of this repository
//!
//! A target of its own is what takes long, wants the machine for itself or runs itself as a process:
//!
//! - `faults/`        whatever kills, stops, moves or cuts, and how much of a steady load arrives
//! - `soak/`          hours of load and change, and what grows; `hostile/`: thousands of strangers, and what they cost
//! - `engine/`        a real Docker engine; `swarm/`: a real Swarm; `recipes/`: docs/recipes and docs/destinations, run
//! - `senders/`       what devices and libraries send, and docs/senders.md
//! - `docs.rs`        links between pages, the book's table of contents, and how long sentences are
//! - `corpus.rs`      what a captured message means, and that reading it allocates nothing
//! - `shape.rs`       what a forward finds in lines of programs (`tests/shape`)
//! - `simulation/`    relays, network, disk and clock from a seed, in one thread: what nobody has thought of
//! - `spool_model.rs` every history of a spool, in this process, where no test beside it may start another that holds its
//!   lock for a moment; `spool_crash.rs`: every end of one
//!
//! Rules: conditions with a deadline ([`eventually`]) and never a sleep; port 0 and never a number; nothing is timed. A
//! story ends with the books ([`Relay::has_delivered`]).

// Each target compiles this for itself and uses a part of it.
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

/// Only a test that fails waits for so long; a machine that is busy with other things may need some of it.
pub const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Waits until `condition` has something to return.
#[track_caller]
pub fn eventually<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    let Some(value) = within(PATIENCE, condition) else { panic!("waited {PATIENCE:?} in vain: {what}") };
    value
}

/// The same for whoever has another patience, and something to say when it runs out.
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
    // A test beside us that forks while we copy the program holds our copy open for writing for a moment.
    let started = || match command.output() {
        Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => None,
        output => Some(output.expect("logferry starts")),
    };
    eventually("nobody holds the program", started)
}

/// The binary where `nobody` can start it, and how.
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

/// Bytes as a person can read them.
pub fn shown(bytes: &[u8]) -> String {
    let shown = bytes.escape_ascii().to_string();
    if shown.len() > 300 { format!("{}… ({} bytes)", &shown[..300], bytes.len()) } else { shown }
}
