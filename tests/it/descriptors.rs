//! A process that may open few files, and strangers who open connections: what the relay needs for itself is left to it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;

use socket2::{Domain, Socket, Type};

use crate::support::http::{get, status};
use crate::support::relay::logferry;
use crate::support::{Collector, Door, Framing, Setup, eventually};

const FILES: usize = 256;
/// More than a process with so few files can hold, from more addresses than its share for one would need.
const STRANGERS: usize = 400;
const ADDRESSES: usize = 16;

/// The relay's command, where it may not open more than [`FILES`] files and may not raise that limit.
fn limited(command: &Command) -> Command {
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("ulimit -n {FILES} && exec \"$0\" \"$@\"")]).arg(command.get_program());
    limited.args(command.get_args()).env_clear();
    limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    limited
}

/// A connection that says nothing, from one of many addresses.
fn silent(to: SocketAddr, number: usize) -> TcpStream {
    let from = IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1 + (number % ADDRESSES) as u8));
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::new(from, 0).into()).expect("an address of loopback");
    socket.connect(&to.into()).expect("the kernel accepts");
    socket.into()
}

#[test]
fn strangers_with_silent_connections_leave_the_relay_what_it_needs() {
    let mut collector = Collector::tcp_away(Framing::Newline);
    let setup = Setup::new().listen("udp://127.0.0.1:0").listen("tcp://127.0.0.1:0").forward(&collector.url());
    let relay = setup.start_with(&mut limited(&setup.command()));
    let Door::Tcp(to) = relay.doors()[1] else { panic!("TCP") };
    let strangers: Vec<TcpStream> = (0..STRANGERS).map(|number| silent(to, number)).collect();
    eventually("each of them is let in or refused", || {
        let metrics = relay.metrics();
        (metrics.sum("listen_accepted_total") == STRANGERS as u64).then_some(())
    });
    let metrics = relay.metrics();
    assert!(metrics.sum("listen_connections") > 50, "so many that nobody else could be a sender");
    assert!(metrics.sum("listen_refused_total") > 100);
    assert!(metrics.sum("process_open_fds") < FILES as u64 - 32);
    // Only now there is somebody to dial.
    collector.comes();
    relay.door().connect().send(b"<13>an honest line");
    assert_eq!(collector.lines(1)[0].message, b"an honest line");
    assert_eq!(get(&relay, "/ready").status, 200);
    let health = logferry().args(["health", "--admin", &relay.admin().to_string()]).output().expect("it runs");
    assert!(health.status.success(), "{health:?}");
    // What became of the limit is said, and shown.
    relay.says("max-connections is 140 and not 10000, because this process may open only 256 files");
    let listeners = &status(&relay)["listeners"];
    assert_eq!((&listeners[0]["max_connections"], &listeners[1]["max_connections"]), (&().into(), &140.into()));
    relay.has_delivered(1, 0);
    drop(strangers);
}

#[test]
fn check_says_which_limits_would_be_lowered() {
    let setup = Setup::new().listen("tcp://127.0.0.1:0").forward("tcp://127.0.0.1:514");
    let mut check = setup.command();
    let output = limited(check.arg("check")).output().expect("it runs");
    let says = String::from_utf8_lossy(&output.stderr);
    assert!(says.contains("warning: listen tcp://127.0.0.1:0: max-connections is 142 and not 10000"), "{says}");
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("max-connections = 10000"), "as it is configured");
}
