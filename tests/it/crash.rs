//! A relay stops or crashes. The next relay delivers the spooled lines.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::ops::Range;
use std::path::PathBuf;

use nix::fcntl::{FcntlArg, fcntl};

use crate::support::program::{SIGINT, SIGTERM};
use crate::support::{Collector, Docker, Format, Framing, Notified, Program, Relay, Setup, eventually, says};

/// Small enough for a debug build, large enough for several chunks.
const MESSAGES: usize = 3000;

fn setup(collector: &Collector) -> Setup {
    let setup = Setup::new().listen("tcp://127.0.0.1:0");
    setup.forward_with(&collector.url(), "framing = \"octet-counting\"")
}

/// Fails unless exactly these numbers have arrived, in order.
#[track_caller]
fn arrived(collector: &Collector, expected: Range<usize>) {
    collector.frames(expected.len());
    assert!(collector.numbers().into_iter().eq(expected.clone()), "not {expected:?}: {:?}", collector.numbers());
}

fn newest_segment(setup: &Setup) -> PathBuf {
    setup.segments().pop().expect("a segment")
}

/// A relay is killed with lines waiting; then the collector comes up.
fn killed_with_lines_waiting(collector: &mut Collector) -> Setup {
    let setup = setup(collector);
    let relay = setup.start();
    says(&relay, 0..MESSAGES);
    relay.has_spooled(MESSAGES);
    relay.kill();
    collector.comes();
    setup
}

#[test]
fn a_killed_relay_delivers_what_it_had_spooled() {
    let mut collector = Collector::tcp_away(Framing::OctetCounting);
    let setup = killed_with_lines_waiting(&mut collector);
    let relay = setup.start();
    arrived(&collector, 0..MESSAGES);
    relay.has_delivered(0, MESSAGES);
    // New lines follow.
    says(&relay, MESSAGES..MESSAGES + 100);
    arrived(&collector, 0..MESSAGES + 100);
    relay.has_delivered(100, MESSAGES);
    relay.stops();
}

#[test]
fn a_relay_killed_again_and_again_loses_nothing() {
    let mut collector = Collector::tcp_away(Framing::OctetCounting);
    let setup = setup(&collector);
    for round in 0..4 {
        let relay = setup.start();
        says(&relay, round * 500..(round + 1) * 500);
        relay.has_spooled(500);
        relay.kill();
    }
    collector.comes();
    let relay = setup.start();
    arrived(&collector, 0..2000);
    relay.has_delivered(0, 2000);
    relay.stops();
}

/// Lines in flight may be delivered twice. All spooled lines are delivered.
#[test]
fn a_relay_killed_while_it_delivers_loses_nothing() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = setup(&collector);
    let relay = setup.start();
    let container = Docker::new(Format::Rfc5424Micro, "web");
    let mut wire = relay.door().connect();
    let mut sent = 0;
    while collector.count() < 500 {
        wire.says(&container, sent.to_string().as_bytes());
        sent += 1;
    }
    let spooled = relay.metrics().sum("spool_spooled_total") as usize;
    relay.kill();
    let relay = setup.start();
    eventually("all that was spooled", || {
        let got: BTreeSet<_> = collector.numbers().into_iter().collect();
        (0..spooled).all(|number| got.contains(&number)).then_some(())
    });
    let got: BTreeSet<_> = collector.numbers().into_iter().collect();
    assert!(got.iter().copied().eq(0..got.len()), "a hole");
    relay.counts("forward_waiting", 0);
    relay.stops();
}

#[test]
fn a_delivered_line_is_not_delivered_again_after_a_good_end() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = setup(&collector);
    for round in 0..3 {
        let relay = setup.start();
        says(&relay, round * 100..(round + 1) * 100);
        relay.has_delivered(100, 0);
        relay.stops();
    }
    arrived(&collector, 0..300);
}

/// The cursor is in the middle of a segment: the next relay continues there, without duplicates.
#[test]
fn a_relay_goes_on_where_the_last_one_stopped() {
    let mut collector = Collector::tcp(Framing::OctetCounting);
    let setup = setup(&collector).top("grace = \"100ms\"");
    let relay = setup.start();
    says(&relay, 0..100);
    relay.has_delivered(100, 0);
    collector.goes();
    says(&relay, 100..200);
    relay.has_spooled(200);
    relay.stops();
    collector.comes();
    let relay = setup.start();
    arrived(&collector, 0..200);
    relay.has_delivered(0, 100);
    relay.stops();
}

/// A power failure during a write leaves garbage instead of the next record.
#[test]
fn garbage_behind_the_last_line_is_cut_off() {
    let mut collector = Collector::tcp_away(Framing::OctetCounting);
    let setup = killed_with_lines_waiting(&mut collector);
    let mut segment = OpenOptions::new().append(true).open(newest_segment(&setup)).expect("a segment");
    segment.write_all(&[0xa5; 700]).expect("written");
    let relay = setup.start();
    relay.says("cut off a write that a crash had left unfinished");
    says(&relay, MESSAGES..MESSAGES + 10);
    arrived(&collector, 0..MESSAGES + 10);
    relay.has_delivered(10, MESSAGES);
    relay.stops();
}

/// An incomplete last write: the lines before it are delivered, and the torn line is not.
#[test]
fn a_torn_segment_delivers_what_is_whole() {
    for torn in [1, 7, 100, 12_345] {
        let mut collector = Collector::tcp_away(Framing::OctetCounting);
        let setup = killed_with_lines_waiting(&mut collector);
        let segment = OpenOptions::new().write(true).open(newest_segment(&setup)).expect("a segment");
        let length = segment.metadata().expect("a length").len();
        segment.set_len(length - torn).expect("truncated");
        let relay = setup.start();
        let waiting = eventually("the books are open", || {
            let metrics = relay.metrics();
            let held = metrics.sum("forward_pending") + metrics.sum("forward_delivered_total");
            (held > 0).then_some(held as usize)
        });
        // A line has about 150 bytes.
        let lost = MESSAGES - waiting;
        assert!((1..=1 + torn as usize / 100).contains(&lost), "{torn} bytes cost {lost} lines");
        says(&relay, MESSAGES..MESSAGES + 10);
        collector.frames(waiting + 10);
        let expected = (0..waiting).chain(MESSAGES..MESSAGES + 10);
        assert!(collector.numbers().into_iter().eq(expected), "torn by {torn}: {:?}", collector.numbers());
        relay.has_delivered(10, waiting);
        relay.stops();
    }
}

/// Without its cursor file, a forward delivers lines twice and loses none.
#[test]
fn a_lost_cursor_costs_duplicates_and_nothing_else() {
    let mut collector = Collector::tcp_away(Framing::OctetCounting);
    let setup = killed_with_lines_waiting(&mut collector);
    let spool = fs::read_dir(setup.path("spool")).expect("a spool").map(|entry| entry.expect("an entry").path());
    let cursors: Vec<_> = spool.filter(|path| path.to_string_lossy().contains("cursor.")).collect();
    assert_eq!(cursors.len(), 1);
    fs::write(&cursors[0], b"no cursor").expect("overwritten");
    let relay = setup.start();
    arrived(&collector, 0..MESSAGES);
    relay.stops();
}

#[test]
fn a_second_relay_on_the_same_spool_is_refused() {
    let collector = Collector::tcp_away(Framing::OctetCounting);
    let setup = setup(&collector);
    let relay = setup.start();
    let mut second = Program::start(&mut setup.command());
    assert_eq!(second.ends().code(), Some(78));
    let said = eventually("it says why", || second.stderr().lines().last().map(str::to_owned));
    let dir = setup.path("spool");
    let says = format!("logferry: spool: {} is in use by another relay; give each its own directory", dir.display());
    assert_eq!(said, says);
    // The first relay is not affected.
    says_one(&relay);
    relay.has_spooled(1);
}

fn says_one(relay: &Relay) {
    says(relay, 0..1);
}

/// After SIGTERM the relay reads the kernel's socket buffers, delivers the spooled lines, and then ends.
#[test]
fn a_stopping_relay_reads_out_its_sockets_and_delivers() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = Setup::new()
        .listen("tcp://127.0.0.1:0")
        .listen("unix://{dir}/in.sock")
        .listen("udp://127.0.0.1:0")
        .listen("unixgram://{dir}/in.dgram");
    let relay = setup.forward_with(&collector.url(), "framing = \"octet-counting\"").start();
    let container = Docker::new(Format::Rfc3164, "web");
    let mut wires: Vec<_> = relay.doors().iter().map(crate::support::Door::connect).collect();
    for number in 0..100 {
        wires.iter_mut().for_each(|wire| wire.says(&container, number.to_string().as_bytes()));
    }
    // Stop without a wait until the messages are read.
    relay.stops();
    let mut got = collector.numbers();
    got.sort_unstable();
    assert!(got.into_iter().eq((0..400).map(|at| at / 4)), "{:?}", collector.numbers());
}

/// A collector that returns within the grace period still receives everything.
#[test]
fn a_stopping_relay_waits_for_its_collector_within_the_grace_period() {
    for signal in [SIGTERM, SIGINT] {
        let mut collector = Collector::tcp_away(Framing::OctetCounting);
        let setup = setup(&collector).top("grace = \"1m\"");
        let mut relay = setup.start();
        says(&relay, 0..MESSAGES);
        relay.has_spooled(MESSAGES);
        relay.signal(signal);
        relay.says("stopping");
        collector.comes();
        assert_eq!(relay.ends().code(), Some(0));
        arrived(&collector, 0..MESSAGES);
        assert!(!relay.stderr().contains("they stay in the spool"), "{}", relay.stderr());
    }
}

#[test]
fn what_the_grace_period_does_not_suffice_for_stays_in_the_spool() {
    let mut collector = Collector::tcp_away(Framing::OctetCounting);
    let setup = setup(&collector).top("grace = \"100ms\"");
    let relay = setup.start();
    says(&relay, 0..MESSAGES);
    relay.has_spooled(MESSAGES);
    let said = relay.stops().stderr;
    assert!(said.contains(&format!("stopping with {MESSAGES} lines pending and 0 replayable")), "{said}");
    collector.comes();
    let relay = setup.start();
    arrived(&collector, 0..MESSAGES);
    relay.has_delivered(0, MESSAGES);
    relay.stops();
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut collector = Collector::tcp_away(Framing::OctetCounting);
    // Longer than a test's patience.
    let setup = setup(&collector).top("grace = \"1h\"");
    let mut relay = setup.start();
    says(&relay, 0..MESSAGES);
    relay.has_spooled(MESSAGES);
    relay.signal(SIGTERM);
    relay.says("stopping");
    relay.signal(SIGTERM);
    assert_eq!(relay.ends().code(), Some(143));
    relay.says("second signal: ending at once");
    collector.comes();
    let relay = setup.start();
    arrived(&collector, 0..MESSAGES);
    relay.has_delivered(0, MESSAGES);
    relay.stops();
}

/// A stopped relay removes its socket files, because a remaining file would look like a running relay. A killed relay leaves them, and the
/// next relay replaces them.
#[test]
fn socket_files_go_with_the_relay_and_do_not_keep_the_next_one_out() {
    let setup = Setup::new().listen("unix://{dir}/in.sock").listen("unixgram://{dir}/in.dgram").forward("stdout:");
    let (stream, datagram) = (setup.path("in.sock"), setup.path("in.dgram"));
    setup.start().stops();
    assert!(!stream.exists() && !datagram.exists());
    setup.start().kill();
    assert!(stream.exists() && datagram.exists());
    let relay = setup.start();
    for door in relay.doors() {
        door.connect().says(&Docker::new(Format::Default, "web"), b"hello");
    }
    relay.has_delivered(2, 0);
    relay.stops();
}

/// The relay cannot log anything, not even that it stops.
#[test]
fn a_second_signal_ends_at_once_behind_a_full_pipe() {
    let collector = Collector::tcp_away(Framing::OctetCounting);
    let setup = setup(&collector).top("grace = \"1h\"");
    let relay = setup.start();
    says(&relay, 0..MESSAGES);
    relay.has_spooled(MESSAGES);
    relay.kill();
    let mut command = setup.command();
    let manager = Notified::by(&mut command, &setup);
    let (_unread, mut stderr) = std::io::pipe().expect("a pipe");
    let size = fcntl(&stderr, FcntlArg::F_SETPIPE_SZ(4096)).expect("a pipe");
    stderr.write_all(&vec![b'x'; usize::try_from(size).expect("a size")]).expect("it has room for so much");
    let mut program = Program::start_with_stderr(&mut command, stderr);
    manager.is_told("READY=1");
    program.signal(SIGTERM);
    manager.is_told("STOPPING=1");
    program.signal(SIGTERM);
    assert_eq!(program.ends().code(), Some(143));
}
