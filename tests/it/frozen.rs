//! The disk hangs for a while, as during a snapshot of its volume: started calls do not return. Work without the disk continues, no sender
//! waits longer than configured, and the relay reports it.

use std::fs;
use std::thread;

use nix::libc::SIGTERM;

use crate::support::disk::Device;
use crate::support::http::{get, status};
use crate::support::relp::RelpFrame;
use crate::support::{
    Collector, Docker, Format, Framing, Relay, RelpPeer, Setup, eventually, installed, relp, says_at_length,
};

/// More than the relay's and the kernel's buffers hold of a stream before the sender blocks.
const MORE_THAN_FITS: usize = 24 << 20;
/// Bytes per message.
const LOUD: usize = 16_000;

fn setup(collector: &Collector) -> Setup {
    Setup::new()
        .top("grace = \"1s\"")
        .spool("max-wait = \"1s\"")
        .listen("tcp://127.0.0.1:0")
        .listen("relp://127.0.0.1:0")
        .forward_with(&collector.url(), "framing = \"octet-counting\"")
}

/// `None`: see [`Device::mount`].
fn mount(setup: &Setup) -> Option<Device> {
    installed("fsfreeze", "util-linux")?;
    Device::mount(setup, "has_journal")
}

fn ready(relay: &Relay) -> (u16, String) {
    let answer = get(relay, "/ready");
    (answer.status, answer.body)
}

#[test]
fn a_disk_that_hangs_holds_nobody_up() {
    let mut collector = Collector::tcp_away(Framing::OctetCounting);
    let setup = setup(&collector);
    let Some(device) = mount(&setup) else { return };
    let relay = setup.start();
    says_at_length(&relay, 0..500, 1000);
    relay.has_spooled(500);
    let frozen = device.freeze();
    // Lines in memory are still delivered, and the collector's acknowledgements are processed.
    collector.comes();
    collector.frames(500);
    relay.counts_up_to("forward_delivered_total", 500);
    // A sender that waits for acknowledgements is blocked.
    let mut peer = RelpPeer::opened(&relay.doors()[1]);
    for n in 500..600 {
        peer.sends(&relp::frame(n - 498, "syslog", format!("<14>1 - - - - - - {n:01000}").as_bytes()));
    }
    // A sender without acknowledgements is blocked for a moment; then its lines are dropped and counted.
    let door = relay.door().clone();
    let sender = thread::spawn(move || {
        let (mut wire, container) = (door.connect(), Docker::new(Format::Rfc5424Micro, "loud"));
        let text = vec![b'x'; LOUD];
        (0..MORE_THAN_FITS / LOUD).for_each(|_| wire.says(&container, &text));
    });
    let answer = eventually("it is not ready", || Some(ready(&relay)).filter(|(status, _)| *status == 503));
    assert!(answer.1.contains("is the disk hanging?"), "{}", answer.1);
    assert_eq!(status(&relay)["ready"], false);
    eventually("the sender has said all", || sender.is_finished().then_some(()));
    eventually("it is counted", || {
        (relay.metrics().with("spool_dropped_total", "reason=\"stalled\"") > 100).then_some(())
    });
    relay.says("the writer has stalled");
    assert_eq!(ready(&relay).0, 503, "it hangs to this day");
    drop(frozen);
    // The held lines are spooled now, and acknowledged.
    assert!(peer.frames(100).iter().all(RelpFrame::is_ok));
    eventually("it is ready again", || (ready(&relay).0 == 200).then_some(()));
    sender.join().expect("it has said all");
    eventually("all of it is spooled or counted", || {
        let metrics = relay.metrics();
        let settled = metrics.sum("spool_spooled_total") + metrics.sum("spool_dropped_total");
        let received = metrics.sum("listen_received_total");
        (received >= (600 + MORE_THAN_FITS / LOUD) as u64 && settled == received).then_some(())
    });
    says_at_length(&relay, 600..700, 1000);
    relay.counts("forward_pending", 0);
    let numbers = || collector.messages().iter().filter_map(|text| text.parse::<usize>().ok()).collect::<Vec<_>>();
    eventually("all is delivered", || (numbers().last() == Some(&699)).then_some(()));
    assert_eq!(numbers(), Vec::from_iter(0..700));
    relay.balances(0);
    relay.stops();
}

/// A process cannot end during a hanging system call, but by then the relay has released everything else.
#[test]
fn a_disk_that_hangs_keeps_no_relay_from_stopping() {
    let mut collector = Collector::tcp_away(Framing::OctetCounting);
    let setup = setup(&collector);
    let Some(device) = mount(&setup) else { return };
    let mut relay = setup.start();
    says_at_length(&relay, 0..500, 1000);
    relay.has_spooled(500);
    let frozen = device.freeze();
    collector.comes();
    collector.frames(500);
    says_at_length(&relay, 500..510, 1000);
    eventually("it hangs", || (ready(&relay).0 == 503).then_some(()));
    relay.signal(SIGTERM);
    relay.says("was not written and synced within the grace period");
    relay.says("stopped");
    let stat = format!("/proc/{}/stat", relay.id());
    eventually("nothing of it runs", || {
        let stat = fs::read_to_string(&stat).expect("it hangs");
        stat.rsplit_once(") ")?.1.starts_with('Z').then_some(())
    });
    drop(frozen);
    assert_eq!(relay.ends().code(), Some(0));
    // Lines that were not spooled are lost; the spooled lines are delivered.
    let relay = setup.start();
    says_at_length(&relay, 510..520, 1000);
    eventually("the next one delivers", || collector.numbers().ends_with(&Vec::from_iter(510..520)).then_some(()));
    relay.stops();
}

/// More lines than the relay keeps in memory after it has written them.
const BACKLOG: usize = 4000;

/// Like a network file system whose server is away: data outside the page cache cannot be read. Only the reader's thread waits.
#[test]
fn a_disk_that_hangs_when_it_is_read_holds_no_sender_up() {
    let mut collector = Collector::tcp_away(Framing::OctetCounting);
    let setup = setup(&collector);
    let Some(device) = Device::with_room(&setup, 64 << 20) else { return };
    let relay = setup.start();
    says_at_length(&relay, 0..BACKLOG, 1000);
    relay.has_spooled(BACKLOG);
    let Some(hanging) = device.reads_hang(relay.id()) else { return };
    collector.comes();
    relay.says("watchdog: thread spool-reader has stalled for 2 s; it waits for the kernel (state D");
    // The relay accepts and writes lines, and answers HTTP requests.
    says_at_length(&relay, BACKLOG..BACKLOG + 100, 1000);
    relay.has_spooled(BACKLOG + 100);
    assert_eq!((get(&relay, "/live").status, collector.count()), (200, 0));
    assert_eq!(status(&relay)["standstills"][0]["part"], "thread spool-reader");
    drop(hanging);
    collector.frames(BACKLOG + 100);
    relay.has_delivered(BACKLOG + 100, 0);
    assert!(collector.numbers().into_iter().eq(0..BACKLOG + 100));
    relay.stops();
}

#[test]
fn a_disk_that_hangs_when_it_is_read_keeps_no_relay_from_stopping() {
    let mut collector = Collector::tcp_away(Framing::OctetCounting);
    let setup = setup(&collector);
    let Some(device) = Device::with_room(&setup, 64 << 20) else { return };
    let mut relay = setup.start();
    says_at_length(&relay, 0..BACKLOG, 1000);
    relay.has_spooled(BACKLOG);
    let Some(hanging) = device.reads_hang(relay.id()) else { return };
    collector.comes();
    relay.says("watchdog: thread spool-reader has stalled");
    relay.signal(SIGTERM);
    relay.says("stopped");
    // A signal ends a thread that waits for a read, unlike a thread that waits for a write.
    assert_eq!(relay.ends().code(), Some(0));
    drop(hanging);
    let relay = setup.start();
    relay.has_delivered(0, BACKLOG);
    assert!(collector.numbers().into_iter().eq(0..BACKLOG));
    relay.stops();
}
