//! Stalls are logged, shown and reported to health checks: a hanging disk, a stalled runtime, a stalled forward.

use std::process::Command;
use std::time::Duration;

use crate::support::disk::Device;
use crate::support::http::{get, status};
use crate::support::relay::logferry;
use crate::support::{Collector, Framing, Notified, Relay, Setup, eventually, installed, skip, within};

/// Longer than the 15 s after which a forward counts as stalled.
const PATIENCE: Duration = Duration::from_secs(60);

/// The stalled parts in `/status`.
fn standstills(relay: &Relay) -> Vec<String> {
    let now = status(relay);
    let found = now["standstills"].as_array().expect("a list").iter();
    found.map(|found| found["part"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn a_thread_that_hangs_at_its_disk_is_named_and_the_relay_not_ready() {
    let collector = Collector::tcp_away(Framing::Newline);
    let setup = Setup::new().listen("tcp://127.0.0.1:0").forward(&collector.url());
    let Some(device) = Device::mount(&setup, "^has_journal") else { return };
    let Some(_) = installed("fsfreeze", "util-linux") else { return };
    let relay = setup.start();
    let frozen = device.freeze();
    relay.door().connect().send(b"<13>a line for a disk that hangs\n");
    relay.says("watchdog: thread spool-writer has stalled for 2 s; it waits for the kernel (state D");
    assert_eq!(standstills(&relay), ["thread spool-writer"]);
    let answer = get(&relay, "/ready");
    assert_eq!((answer.status, get(&relay, "/live").status), (503, 200), "{}", answer.body);
    drop(frozen);
    relay.says("watchdog: thread spool-writer goes on, after ");
    relay.has_spooled(1);
    eventually("all is well again", || (get(&relay, "/ready").status == 200).then_some(()));
    assert!(standstills(&relay).is_empty());
    let said = relay.stderr();
    assert_eq!(said.matches("watchdog: ").count(), 2, "{said}");
    drop((relay, device));
}

/// The runtime's thread is delayed before the system call that waits for events.
#[test]
fn a_runtime_that_stands_still_is_said_by_the_thread_that_watches_and_health_fails() {
    let Some(strace) = installed("strace", "strace") else { return };
    if !Command::new(&strace).args(["-D", "-qq", "-o", "/dev/null", "true"]).status().expect("it runs").success() {
        return skip("ptrace", "strace may not trace here (ptrace)");
    }
    let setup = Setup::new().listen("tcp://127.0.0.1:0").forward("tcp://127.0.0.1:1");
    let relay = setup.command();
    let mut traced = Command::new(strace);
    traced.args(["-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=epoll_wait"]);
    traced.args(["-e", "inject=epoll_wait:delay_enter=12000000:when=20"]).arg(relay.get_program()).env_clear();
    traced.envs(relay.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let relay = setup.start_with(&mut traced);
    let admin = relay.admin().to_string();
    let healthy = || logferry().args(["health", "--admin", &admin]).output().expect("it runs").status.success();
    relay.says(
        "watchdog: the runtime (all connections, forwards and the admin port) has stalled for 2 s; it waits for ",
    );
    assert!(!healthy(), "nobody answers");
    relay.says("watchdog: the runtime (all connections, forwards and the admin port) goes on, after ");
    assert!(healthy());
}

#[test]
fn a_service_manager_that_asks_for_it_hears_that_the_relay_is_alive() {
    let setup = Setup::new().listen("tcp://127.0.0.1:0").forward("tcp://127.0.0.1:1");
    let mut command = setup.command();
    let manager = Notified::by(command.env("WATCHDOG_USEC", "2000000"), &setup);
    let relay = setup.start_with(&mut command);
    for state in ["READY=1", "WATCHDOG=1", "WATCHDOG=1"] {
        manager.is_told(state);
    }
    drop(relay);
}

#[test]
fn a_forward_of_which_nothing_goes_makes_the_relay_unready_where_that_is_asked_for() {
    let mut collector = Collector::tcp_away(Framing::Newline);
    let setup = Setup::new().admin("ready = [\"forwards\"]").listen("tcp://127.0.0.1:0").forward(&collector.url());
    let relay = setup.start();
    assert_eq!(get(&relay, "/ready").status, 200, "nothing is pending");
    relay.door().connect().send(b"<13>a line that nobody takes\n");
    let why = within(PATIENCE, || Some(get(&relay, "/ready")).filter(|answer| answer.status == 503))
        .expect("it is not ready");
    assert!(why.body.starts_with("forward central has stalled for 15 s; it waits for a connection"), "{}", why.body);
    assert_eq!(standstills(&relay), ["forward central"]);
    collector.comes();
    eventually("it is ready", || (get(&relay, "/ready").status == 200).then_some(()));
    // The watchdog logs nothing, because the forward has already logged that it cannot connect.
    assert!(!relay.stderr().contains("watchdog: "));
    relay.has_delivered(1, 0);
}
