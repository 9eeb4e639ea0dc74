//! Parts that stand still are found, named and logged once; parts that are only idle are not.

use std::sync::mpsc::channel;

use tokio::runtime::Builder;

use super::*;
use crate::status::{Forward, Listener, SharedForwardStatus, SharedListenerStatus, Topology};

/// Only a failing test waits for so long.
const PATIENCE: Duration = Duration::from_secs(20);

fn eventually<T>(what: &str, is_so: impl FnMut() -> Option<T>) -> T {
    let mut looks = std::iter::repeat_with(is_so).inspect(|_| thread::sleep(Duration::from_millis(1)));
    let deadline = Instant::now() + PATIENCE;
    looks
        .find_map(|found| found.map(Ok).or_else(|| (Instant::now() > deadline).then_some(Err(()))))
        .and_then(Result::ok)
        .expect(what)
}

fn watch() -> (Watch, Arc<Metrics>, Arc<StatusRegistry>) {
    let (metrics, registry) = (Arc::new(Metrics::new()), Arc::<StatusRegistry>::default());
    (Watch::new(metrics.clone(), registry.clone(), Arc::default()), metrics, registry)
}

/// Looks `count` times while the runtime makes progress. Returns the findings of the last look.
fn looks(watch: &mut Watch, count: u32) -> Vec<Found> {
    let look = |_| {
        watch.heartbeat.beats.fetch_add(1, Ordering::Relaxed);
        watch.look().into_iter().filter(|found| !matches!(found.standstill.part, Part::Thread(_))).collect()
    };
    (0..count).map(look).last().expect("a look")
}

const LONG: u32 = (FORWARD_STANDSTILL.as_millis() / LOOK_EVERY.as_millis()) as u32;

fn forward(state: &SharedForwardStatus) -> Topology {
    let forward = Forward { name: "central".to_owned(), to: Vec::new(), state: state.clone() };
    Topology { forwards: vec![forward], ..Topology::default() }
}

#[test]
fn a_runtime_that_stands_still_is_found_by_the_thread() {
    let standstills = Standstills::default();
    let (release, released) = channel::<()>();
    let (tell, told) = channel();
    let runtime = thread::Builder::new().name("blocked".to_owned());
    let found = standstills.clone();
    let runtime = runtime.spawn(move || {
        Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let watchdog = Watchdog::start(Arc::new(Metrics::new()), Arc::default(), found).unwrap();
            // The heartbeat has noted the thread.
            tokio::task::yield_now().await;
            // Blocks the runtime, which no task may do.
            let _ = released.recv();
            tokio::time::sleep(2 * LOOK_EVERY).await;
            let _ = tell.send(());
            std::future::pending::<()>().await;
            drop(watchdog);
        });
    });
    let standing = |part: &Part| standstills.now().into_iter().find(|found| found.part == *part);
    let found = eventually("the runtime is found to stand still", || standing(&Part::Runtime));
    assert!(found.seconds >= STANDSTILL.as_secs() && found.waits_for.starts_with("the kernel (state S"), "{found}");
    release.send(()).unwrap();
    told.recv().unwrap();
    eventually("it goes on", || standing(&Part::Runtime).is_none().then_some(()));
    drop(runtime);
}

#[test]
fn a_forward_of_which_no_line_goes_is_found_and_one_that_is_slow_is_not() {
    let (mut watch, metrics, registry) = watch();
    let state = SharedForwardStatus::default();
    registry.publish(forward(&state));
    let counts = metrics.forward("central");
    state.connected("tcp://logs:514".to_owned(), None, Duration::MAX);
    assert!(looks(&mut watch, 2 * LONG).is_empty(), "nothing is pending");
    counts.set_left(3, 0);
    for _ in 0..5 {
        assert!(looks(&mut watch, LONG).is_empty(), "not so soon");
        counts.delivered.inc();
    }
    assert!(looks(&mut watch, LONG).is_empty());
    let found = looks(&mut watch, 1);
    let expected = "forward central has stalled for 15 s; it waits for an acknowledgement of tcp://logs:514";
    assert_eq!(found.iter().map(|found| found.standstill.to_string()).collect::<Vec<_>>(), [expected]);
    assert!(!found[0].is_logged_elsewhere);
    // Resending lines is no progress.
    counts.resent.inc_by(1000);
    assert_eq!(looks(&mut watch, 1).len(), 1);
    counts.filtered.inc();
    assert!(looks(&mut watch, 1).is_empty());
    // The forward itself logs that a collector is away.
    state.failed("connection refused");
    state.backs_off();
    let found = looks(&mut watch, LONG + 1);
    assert_eq!(found[0].standstill.waits_for, "a connection to a collector (connection refused)");
    assert!(found[0].is_logged_elsewhere);
    counts.set_left(0, 4);
    assert!(looks(&mut watch, 1).is_empty());
}

#[test]
fn a_listener_that_cannot_accept_is_found_once_that_lasts() {
    let (mut watch, _, registry) = watch();
    let state = SharedListenerStatus::default();
    let address = "tcp://127.0.0.1:514".to_owned();
    let listener =
        Listener { label: address.clone(), address, name: None, max_connections: Some(1), state: state.clone() };
    registry.publish(Topology { listeners: vec![listener], ..Topology::default() });
    state.fails(&"Too many open files");
    assert!(looks(&mut watch, 1).is_empty());
    let found = eventually("it is found", || looks(&mut watch, 1).pop());
    let says = found.standstill.to_string();
    assert!(says.starts_with("listen tcp://127.0.0.1:514 has stalled for 2 s; it waits for"), "{says}");
    assert!(says.ends_with("Too many open files"), "{says}");
    state.works();
    assert!(looks(&mut watch, 1).is_empty());
}

#[test]
fn while_the_runtime_stands_still_nothing_of_it_is_looked_at() {
    let (mut watch, metrics, registry) = watch();
    registry.publish(forward(&SharedForwardStatus::default()));
    metrics.forward("central").set_left(3, 0);
    let last = (0..2 * LONG).map(|_| watch.look()).last().expect("a look");
    assert!(last.iter().all(|found| !matches!(found.standstill.part, Part::Forward(_))));
    assert!(last.iter().any(|found| found.standstill.part == Part::Runtime));
}

#[test]
fn each_standstill_is_logged_when_it_begins_and_when_it_is_over_and_not_too_often() {
    let start = Instant::now();
    let found =
        |seconds| [Found::new(Part::Forward("central".to_owned()), "rain".to_owned(), Duration::from_secs(seconds))];
    let mut log = StandstillLog::default();
    let mut at = |seconds, found: &[Found]| log.update(found, start + Duration::from_secs(seconds));
    assert_eq!(at(2, &found(2)), ["forward central has stalled for 2 s; it waits for rain"]);
    assert_eq!(at(7, &found(7)), [""; 0]);
    assert_eq!(at(9, &[]), ["forward central goes on, after 9 s"]);
    // A standstill that comes and goes.
    for second in 0..25 {
        assert_eq!(at(10 + second * 2, &found(2)), [""; 0]);
        assert_eq!(at(11 + second * 2, &[]), [""; 0]);
    }
    assert_eq!(at(62, &found(2)).len(), 1);
    assert_eq!(at(63, &[]).len(), 1);
    let elsewhere = found(2).map(|found| Found { is_logged_elsewhere: true, ..found });
    assert_eq!(at(200, &elsewhere), [""; 0]);
    assert_eq!(at(201, &[]), [""; 0]);
}

/// A relay that connects again repeats some lines. If lines are repeated without a connection, another sender has used their
/// numbers.
#[test]
fn numbered_lines_that_are_repeated_without_a_connection_are_told() {
    const QUIET: u32 = (REPEATS.as_millis() / LOOK_EVERY.as_millis()) as u32;
    let (mut watch, metrics, _) = watch();
    let (listener, repeated) = (metrics.listener("relp://0.0.0.0:2514"), metrics.spool().dropped_repeated);
    listener.accepted.inc();
    assert!(looks(&mut watch, 2).is_empty());
    repeated.inc_by(100);
    assert!(looks(&mut watch, 1).is_empty(), "it has just connected");
    assert!(looks(&mut watch, 2 * QUIET).is_empty(), "and repeats nothing more");
    repeated.inc();
    let found = looks(&mut watch, 1);
    assert_eq!(found.iter().map(|found| &found.standstill.part).collect::<Vec<_>>(), [&Part::Numbered]);
    assert!(found[0].standstill.to_string().contains("no relay has connected since"));
    assert!(looks(&mut watch, QUIET).is_empty(), "that was all");
    metrics.listener("tcp://0.0.0.0:514").accepted.inc();
    repeated.inc();
    assert_eq!(looks(&mut watch, 1).len(), 1, "no relay has connected");
    listener.accepted.inc();
    repeated.inc();
    looks(&mut watch, QUIET / 2);
    assert!(looks(&mut watch, 1).is_empty());
}
