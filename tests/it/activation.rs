//! Socket activation, as systemd does it: the service manager keeps the sockets open, so that messages sent while no relay runs are not
//! lost. The test acts as the service manager, because `systemd-socket-activate` hands its sockets to one relay only.

use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::SockRef;

use crate::support::program::{SIGHUP, SIGTERM};
use crate::support::{Collector, Flow, Framing, Notified, Program, Relay, Setup, eventually};

const CONFIG_ERROR: i32 = 78;
const MESSAGES: usize = 10;
/// In bytes: enough for seconds of a container's output, and not the size that the relay would set.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;

/// A socket of every kind, and the directory of the unix sockets.
struct Manager {
    udp: UdpSocket,
    tcp: TcpListener,
    _unix: UnixListener,
    unixgram: UnixDatagram,
    descriptors: [RawFd; 4],
}

impl Manager {
    fn new(setup: &Setup) -> Self {
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        // Like systemd for `ReceiveBuffer=`; only root may exceed the host's limit.
        if setsockopt(&udp, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            SockRef::from(&udp).set_recv_buffer_size(RECEIVE_BUFFER).expect("a socket option");
        }
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let unix = UnixListener::bind(setup.path("log.sock")).expect("a fresh directory");
        let unixgram = UnixDatagram::bind(setup.path("datagrams.sock")).expect("a fresh directory");
        let descriptors = [udp.as_raw_fd(), tcp.as_raw_fd(), unix.as_raw_fd(), unixgram.as_raw_fd()];
        Self { udp, tcp, _unix: unix, unixgram, descriptors }
    }

    /// Adds a listener for each of the sockets.
    fn listeners(&self, setup: Setup) -> Setup {
        let (udp, tcp) = (self.udp.local_addr().expect("bound"), self.tcp.local_addr().expect("bound"));
        let setup = setup.listen(&format!("udp://{udp}")).listen(&format!("tcp://{tcp}"));
        setup.listen("unix://{dir}/log.sock").listen("unixgram://{dir}/datagrams.sock")
    }

    /// The command, with the sockets passed to it.
    fn hands_to(&self, command: &Command) -> Command {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\""]).arg(command.get_program()).args(command.get_args());
        shell.env_clear().env("LISTEN_FDS", self.descriptors.len().to_string());
        shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let descriptors = self.descriptors;
        // SAFETY: only system calls on descriptors that stay open as long as this process.
        unsafe { shell.pre_exec(move || arrange(descriptors)) };
        shell
    }

    fn starts(&self, setup: &Setup) -> Relay {
        setup.start_with(&mut self.hands_to(&setup.command()))
    }
}

/// Moves the descriptors to 3 and up, where LISTEN_FDS expects them. They move to high numbers first, because some may already be in that
/// range in another order.
fn arrange<const N: usize>(descriptors: [RawFd; N]) -> std::io::Result<()> {
    const OUT_OF_THE_WAY: RawFd = 100;
    let mut copies = descriptors;
    for copy in &mut copies {
        // SAFETY: system calls without pointers.
        *copy = unsafe { libc::fcntl(*copy, libc::F_DUPFD_CLOEXEC, OUT_OF_THE_WAY) };
    }
    for (wanted, copy) in (3..).zip(copies) {
        // SAFETY: as above.
        if unsafe { libc::dup2(copy, wanted) } < 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}

#[test]
fn what_is_sent_while_no_relay_runs_waits_for_one() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = Setup::new().forward_with(&collector.url(), "framing = \"octet-counting\"");
    let manager = Manager::new(&setup);
    let buffer = SockRef::from(&manager.udp).recv_buffer_size().expect("a socket option");
    let setup = manager.listeners(setup);
    let relay = manager.starts(&setup);
    let doors = relay.doors().to_vec();
    relay.stops();
    assert!(setup.path("log.sock").exists() && setup.path("datagrams.sock").exists(), "they are not ours to remove");

    let mut sent = 0;
    let wires: Vec<_> = doors
        .iter()
        .map(|door| {
            let mut wire = door.connect();
            for number in 0..MESSAGES {
                wire.send(format!("<30>1 - host app - - - {number}\n").as_bytes());
                sent += 1;
            }
            wire
        })
        .collect();
    let relay = manager.starts(&setup);
    collector.frames(sent);
    assert_eq!(relay.metrics().sum("listen_accepted_total"), 2);
    assert_eq!(relay.metrics().sum("listen_receive_buffer_bytes"), buffer as u64, "it is the manager's to say");
    drop(wires);
    relay.has_delivered(sent, 0);
    relay.stops();
}

#[test]
fn a_restart_loses_no_datagram() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = Setup::new().forward_with(&collector.url(), "framing = \"octet-counting\"");
    let manager = Manager::new(&setup);
    let setup = manager.listeners(setup);
    let mut relay = manager.starts(&setup);
    let flow = Flow::into(relay.door());
    for _ in 0..2 {
        flow.goes_on(100);
        relay.stops();
        flow.goes_on(100);
        relay = manager.starts(&setup);
    }
    flow.goes_on(100);
    let sent = flow.ends();
    collector.frames(sent);
    assert!(collector.numbers().into_iter().eq(0..sent), "each once, in order");
    relay.stops();

    // State of a socket outlives the relay: a shutdown would be a permanent end-of-file for every later relay.
    for ended in [manager.udp.set_nonblocking(true), manager.unixgram.set_nonblocking(true)] {
        ended.expect("a socket option");
    }
    let read = [manager.udp.recv(&mut [0; 1]), manager.unixgram.recv(&mut [0; 1])];
    for read in read {
        assert!(matches!(&read, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock), "{read:?}");
    }
}

#[test]
fn a_socket_that_no_listener_takes_is_refused_by_name() {
    let setup = Setup::new();
    let manager = Manager::new(&setup);
    let udp = manager.udp.local_addr().expect("bound");
    let tcp = manager.tcp.local_addr().expect("bound");
    let setup = setup.listen(&format!("udp://{udp}"));
    let mut program = Program::start(&mut manager.hands_to(&setup.command()));
    assert_eq!(program.ends().code(), Some(CONFIG_ERROR));
    eventually("it says which", || {
        let said = program.stderr();
        said.contains(&format!("descriptor 4 was handed over (tcp://{tcp}) and no `listen` address takes it"))
            .then_some(())
    });
}

#[test]
fn a_reload_may_not_leave_one_unread() {
    let old = Setup::new();
    let manager = Manager::new(&old);
    let old = manager.listeners(old);
    let relay = manager.starts(&old);
    Setup::new().listen(&format!("tcp://{}", manager.tcp.local_addr().expect("bound"))).replaces(&old);
    relay.signal(SIGHUP);
    relay.says("config: not reloaded, the old one stays in force: listen: descriptor 3 was handed over (udp://");
    relay.stops();
}

#[test]
fn the_service_manager_is_told_when_the_relay_is_ready_and_when_it_stops() {
    let setup = Setup::new().listen("udp://127.0.0.1:0");
    let mut command = setup.command();
    let manager = Notified::by(&mut command, &setup);
    let mut relay = setup.start_with(&mut command);
    manager.is_told("READY=1");
    relay.signal(SIGTERM);
    manager.is_told("STOPPING=1");
    assert_eq!(relay.ends().code(), Some(0));
}
