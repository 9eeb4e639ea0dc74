//! Two machines and a wire between them, made of unnamed network namespaces that disappear with the test.
//!
//! The test's own thread moves to the relay's machine, with everything that it starts and connects. Collectors run on the other machine,
//! within [`Network::there`].

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::process::Command;

use super::{installed, root_can};

/// The relay's address.
pub const HERE: &str = "10.99.0.1";
/// The other machine's addresses, on one interface.
pub const THERE: [&str; 2] = ["10.99.0.2", "10.99.0.3"];

pub struct Network {
    /// The other machine.
    there: File,
}

impl Network {
    /// `None`: this user has no permission, or a program is not installed.
    pub fn new() -> Option<Self> {
        if !root_can("make network namespaces") {
            return None;
        }
        installed("ip", "iproute2")?;
        installed("iptables", "iptables")?;
        // The other machine first, while this thread is still in the real namespace. Then this thread moves to the relay's machine.
        let there = std::thread::spawn(|| own_namespace().and_then(|()| File::open("/proc/thread-self/ns/net")));
        let there = there.join().expect("a thread").expect("a namespace");
        own_namespace().expect("a namespace");
        let network = Self { there };
        network.wire();
        Some(network)
    }

    fn wire(&self) {
        run("ip link set lo up");
        run("ip link add here type veth peer name there");
        // A namespace without a name is addressed by a process that is in it, or by an open file descriptor.
        run(&format!("ip link set there netns /proc/{}/fd/{}", std::process::id(), self.there.as_raw_fd()));
        run(&format!("ip addr add {HERE}/24 dev here"));
        run("ip link set here up");
        self.there(|| {
            run("ip link set lo up");
            THERE.iter().for_each(|address| run(&format!("ip addr add {address}/24 dev there")));
            run("ip link set there up");
        });
    }

    /// Runs `work` on the other machine; threads and processes that it starts stay there.
    pub fn there<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let there = scope.spawn(|| {
                // SAFETY: a system call without pointers, for this thread alone; the descriptor is open.
                let entered = unsafe { nix::libc::setns(self.there.as_raw_fd(), nix::libc::CLONE_NEWNET) };
                assert_eq!(entered, 0, "{}", io::Error::last_os_error());
                work()
            });
            there.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Pulls the plug on the other machine's side: packets disappear without an error.
    pub fn is_cut(&self) {
        self.there(|| run("ip link set there down"));
    }

    pub fn is_mended(&self) {
        self.there(|| run("ip link set there up"));
    }

    /// Silently drops packets to this address.
    pub fn swallows(&self, address: &str) {
        self.there(|| run(&format!("iptables -A INPUT -d {address} -j DROP")));
    }

    /// Limits the wire's rate to the other machine. False: `tc` is not installed.
    pub fn is_slow(&self, rate: &str) -> bool {
        let has_tc = installed("tc", "iproute2").is_some();
        if has_tc {
            run(&format!("tc qdisc add dev here root tbf rate {rate} burst 1600 latency 20s"));
        }
        has_tc
    }

    /// Lifts the rate limit; queued packets are not lost.
    pub fn is_fast(&self) {
        run("tc qdisc change dev here root tbf rate 10gbit burst 1m latency 20s");
    }

    /// Drops one in `packets` packets, in both directions.
    pub fn loses_one_in(&self, packets: u32) {
        let every = format!("-m statistic --mode nth --every {packets} --packet 0 -j DROP");
        self.there(|| ["INPUT", "OUTPUT"].iter().for_each(|chain| run(&format!("iptables -A {chain} {every}"))));
    }
}

/// Moves the calling thread, and processes that it starts, to a new network namespace.
fn own_namespace() -> io::Result<()> {
    // SAFETY: a system call without pointers, for this thread alone.
    match unsafe { nix::libc::unshare(nix::libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn run(command: &str) {
    let mut words = command.split(' ');
    let output = Command::new(words.next().expect("a program")).args(words).output().expect("it is installed");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}
