//! A relay is told to stop while hundreds of connections have unread lines and the disk is slow. The relay must read
//! the lines in the kernel's buffers, but not all connections at once.

use std::net::TcpListener;

use super::crowd::Crowd;
use super::stand::PATIENCE;
use super::support::program::{SIGCONT, SIGSTOP, SIGTERM};
use super::support::{Door, Setup, within};

/// Connections, and the complete lines that each has sent when the relay continues, as far as the kernel's buffers hold
/// them. They are more than the relay reads in one turn.
const STRANGERS: usize = 200;
const LINES: usize = 800;
const TEXT: usize = 400;
/// The memory that reading them may cost, in KiB. The relay reads a few connections at a time to their end; all
/// together have more than 50 MB. The cost is 12 MB to 18 MB on a quiet machine, and 37 MB were measured during a
/// build.
const MOST_KIB: u64 = 44 << 10;

#[test]
fn a_stop_reads_in_turn() {
    let _alone = super::alone();
    // Never reads, so that the relay keeps running and can be inspected.
    let collector = TcpListener::bind("127.0.0.1:0").expect("a port");
    let to = format!("tcp://{}", collector.local_addr().expect("bound"));
    let setup =
        Setup::new().spool("max-rate = \"8MiB/s\"").top("grace = \"10m\"").listen("tcp://127.0.0.1:0").forward(&to);
    let relay = setup.start();
    let Door::Tcp(door) = *relay.door() else { panic!("{:?}", relay.doors()) };
    relay.counts("forward_connected", 1);
    let crowd = Crowd::comes(door, STRANGERS);
    relay.counts("listen_connections", STRANGERS as u64);
    let start = relay.process().kib("VmHWM");
    relay.signal(SIGSTOP);
    let line = format!("<13>{}\n", "x".repeat(TEXT));
    let _crowd = crowd.sends(line.repeat(LINES).as_bytes());
    relay.signal(SIGTERM);
    relay.signal(SIGCONT);
    let read_out = || (relay.metrics().sum("listen_connections") == 0).then_some(());
    assert!(within(PATIENCE, read_out).is_some(), "connections are left: {:?}", relay.metrics());
    assert!(relay.metrics().sum("spool_spooled_total") >= STRANGERS as u64, "nothing was held");
    let more = relay.process().kib("VmHWM") - start;
    println!("hostile: a stop: {STRANGERS} strangers, {:.1} MB more than before", more as f64 / 1024.0);
    assert!(more <= MOST_KIB, "{more} kB more than before, and {MOST_KIB} are allowed");
    relay.kill();
}
