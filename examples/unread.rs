//! Measures how much a collector's kernel has acknowledged that its program has not read, when the program hangs and is
//! killed. docs/design/replay.md has the results, measured with a real rsyslog. `cargo run --example unread` prints a
//! table in two minutes.
//!
//! rsyslog gets direct queues and an unbuffered file, so that the file shows how much it has read. The example stops
//! rsyslog with SIGSTOP while lines arrive at a steady rate, and kills it some seconds later. Meanwhile the sender
//! samples its socket.

use std::io::{self, ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::libc;

/// linux/tcp.h, `struct tcp_info`.
const TCP_INFO_BYTES: usize = 232;
const TCPI_SND_WND: usize = 228;
/// How long messages flow before the hang. After a burst: how long the burst lasts, and its rate.
const CALM: Duration = Duration::from_secs(3);
const BURST: Duration = Duration::from_secs(2);
const BURST_RATE: u64 = 60_000;
/// The number at the start of each message.
const DIGITS: usize = 8;

struct Case {
    rate: u64,
    bytes: usize,
    burst: bool,
}

/// A sample of the sender's socket: bytes acknowledged, and the send window.
#[derive(Clone, Copy)]
struct Look {
    acknowledged: u64,
    window: u64,
}

fn main() -> io::Result<()> {
    println!(
        "| messages/s | bytes each | after a burst | window (KiB) | edge moved (bytes) | of the window | unread (bytes) | of the window |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for burst in [false, true] {
        for bytes in [60, 200, 1500] {
            for rate in [300, 5_000, 30_000] {
                let case = Case { rate, bytes, burst };
                let (before, edge, unread) = case.run()?;
                let share = |bytes: u64| bytes as f64 / before.window.max(1) as f64;
                println!(
                    "| {rate} | {bytes} | {} | {} | {edge} | {:.2} | {unread} | {:.2} |",
                    if burst { "yes" } else { "" },
                    before.window >> 10,
                    share(edge),
                    share(unread),
                );
            }
        }
    }
    Ok(())
}

impl Case {
    /// The connection at the hang, how far the window's right edge moved afterwards, and the bytes that were
    /// acknowledged and lost.
    fn run(&self) -> io::Result<(Look, u64, u64)> {
        let dir = tempfile::tempdir()?;
        let (mut rsyslog, at) = start_rsyslog(dir.path())?;
        let stream = connect(at)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut sender = Sender { stream, written: 0, numbers: 0, pending: Vec::new() };
        let burst = if self.burst { BURST } else { Duration::ZERO };
        let start = Instant::now();
        let due = |elapsed: Duration| {
            let calm = elapsed.saturating_sub(burst);
            elapsed.min(burst).as_millis() as u64 * BURST_RATE / 1000 + calm.as_millis() as u64 * self.rate / 1000
        };
        while start.elapsed() < burst + CALM {
            sender.send(due(start.elapsed()), self.bytes)?;
        }
        // SAFETY: the signal goes to our own child, which has not been waited for.
        nix::errno::Errno::result(unsafe { libc::kill(rsyslog.id() as libc::pid_t, libc::SIGSTOP) })?;
        let before = sender.look()?;
        let hang = Duration::from_secs(if self.rate < 1000 { 10 } else { 4 });
        while start.elapsed() < burst + CALM + hang {
            sender.send(due(start.elapsed()), self.bytes)?;
        }
        let after = sender.look()?;
        rsyslog.kill()?;
        rsyslog.wait()?;
        let written = std::fs::read(dir.path().join("out"))?;
        let read = written.split(|&byte| byte == b'\n').filter(|line| line.len() >= DIGITS).count() as u64;
        let edge = (after.acknowledged + after.window).saturating_sub(before.acknowledged + before.window);
        Ok((before, edge, after.acknowledged.saturating_sub(read * self.bytes as u64)))
    }
}

struct Sender {
    stream: TcpStream,
    written: u64,
    numbers: u64,
    pending: Vec<u8>,
}

impl Sender {
    /// Queues the messages up to `due`, writes as much as the kernel takes, and sleeps for a moment.
    fn send(&mut self, due: u64, bytes: usize) -> io::Result<()> {
        while self.numbers < due && self.pending.len() < 1 << 20 {
            let head = format!("<14>1 - h a - - - {:0DIGITS$} ", self.numbers);
            self.pending.extend_from_slice(head.as_bytes());
            self.pending.resize(self.pending.len() + bytes - head.len() - 1, b'x');
            self.pending.push(b'\n');
            self.numbers += 1;
        }
        match self.stream.write(&self.pending) {
            Ok(taken) => {
                self.written += taken as u64;
                self.pending.drain(..taken);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        sleep(Duration::from_millis(2));
        Ok(())
    }

    fn look(&self) -> io::Result<Look> {
        let fd = self.stream.as_raw_fd();
        let mut unacknowledged: libc::c_int = 0;
        // SAFETY: the socket is open, and TIOCOUTQ (SIOCOUTQ) writes one int.
        nix::errno::Errno::result(unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &mut unacknowledged) })?;
        let (mut info, mut length) = ([0u8; TCP_INFO_BYTES], TCP_INFO_BYTES as libc::socklen_t);
        // SAFETY: the socket is open, and the call writes at most `length` bytes to `info`.
        let told =
            unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &mut length) };
        nix::errno::Errno::result(told)?;
        let window = u32::from_ne_bytes(info[TCPI_SND_WND..][..4].try_into().expect("four bytes"));
        Ok(Look { acknowledged: self.written - unacknowledged as u64, window: window.into() })
    }
}

fn start_rsyslog(dir: &Path) -> io::Result<(Child, SocketAddr)> {
    // A port that is free now. Another program is unlikely to take it before rsyslog does.
    let at = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let (port, dir) = (at.port(), dir.display());
    let config = format!(
        r#"module(load="imtcp")
global(workDirectory="{dir}")
main_queue(queue.type="Direct")
template(name="number" type="string" string="%msg:1:{DIGITS}%\n")
input(type="imtcp" address="127.0.0.1" port="{port}" ruleset="all")
ruleset(name="all" queue.type="Direct") {{
  action(type="omfile" file="{dir}/out" template="number" asyncWriting="off" flushOnTXEnd="on" ioBufferSize="1k")
}}
"#
    );
    let path = format!("{dir}/rsyslog.conf");
    std::fs::write(&path, config)?;
    let mut command = Command::new("/usr/sbin/rsyslogd");
    command.args(["-n", "-f", &path, "-i", &format!("{dir}/pid")]).stderr(Stdio::null());
    let started = command.spawn();
    let child =
        started.map_err(|error| io::Error::other(format!("rsyslogd (Debian's rsyslog) does not start: {error}")))?;
    Ok((child, at))
}

fn connect(at: SocketAddr) -> io::Result<TcpStream> {
    for _ in 0..200 {
        if let Ok(stream) = TcpStream::connect(at) {
            return Ok(stream);
        }
        sleep(Duration::from_millis(20));
    }
    Err(io::Error::other("rsyslogd does not listen"))
}
