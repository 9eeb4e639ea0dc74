//! A low descriptor limit, and many idle connections: the relay keeps enough descriptors for itself.

use crate::support::descriptors::{strangers, with_files};
use crate::support::http::{get, status};
use crate::support::relay::logferry;
use crate::support::{Collector, Door, Framing, Setup, eventually};

const FILES: usize = 256;
/// More connections than a process with this limit can hold.
const STRANGERS: usize = 400;

#[test]
fn strangers_with_silent_connections_leave_the_relay_what_it_needs() {
    let mut collector = Collector::tcp_away(Framing::Newline);
    let setup = Setup::new().listen("udp://127.0.0.1:0").listen("tcp://127.0.0.1:0").forward(&collector.url());
    let relay = setup.start_with(&mut with_files(FILES, &setup.command()));
    let Door::Tcp(to) = relay.doors()[1] else { panic!("TCP") };
    let strangers = strangers(to, STRANGERS);
    eventually("each of them is let in or refused", || {
        let metrics = relay.metrics();
        (metrics.sum("listen_accepted_total") == STRANGERS as u64).then_some(())
    });
    let metrics = relay.metrics();
    assert!(metrics.sum("listen_connections") > 50, "so many that nobody else could be a sender");
    assert!(metrics.sum("listen_refused_total") > 100);
    assert!(metrics.sum("process_open_fds") < FILES as u64 - 32);
    // The relay cannot connect to the collector before this point.
    collector.comes();
    relay.door().connect().send(b"<13>an honest line");
    assert_eq!(collector.lines(1)[0].message, b"an honest line");
    assert_eq!(get(&relay, "/ready").status, 200);
    let health = logferry().args(["health", "--admin", &relay.admin().to_string()]).output().expect("it runs");
    assert!(health.status.success(), "{health:?}");
    // The relay logs the lowered limit, and `/status` shows it.
    relay.says("max-connections is 124 and not 10000, because this process may open only 256 files");
    let listeners = &status(&relay)["listeners"];
    assert_eq!((&listeners[0]["max_connections"], &listeners[1]["max_connections"]), (&().into(), &124.into()));
    relay.has_delivered(1, 0);
    drop(strangers);
}

#[test]
fn check_says_which_limits_would_be_lowered() {
    let setup = Setup::new().listen("tcp://127.0.0.1:0").forward("tcp://127.0.0.1:514");
    let mut check = setup.command();
    let output = with_files(FILES, check.args(["check", "--print"])).output().expect("it runs");
    let says = String::from_utf8_lossy(&output.stderr);
    assert!(says.contains("warning: listen tcp://127.0.0.1:0: max-connections is 126 and not 10000"), "{says}");
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("max-connections = 10000"), "as it is configured");
}
