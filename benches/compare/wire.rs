//! `wire` measures the cost of copying alone. One thread reads from all connections, or from one UDP socket, and writes
//! the bytes to each target. It looks for line ends only to keep lines of several connections apart.
//!
//! It runs in its own process, like the relays: this program, started again with `wire` as its first argument.

use std::io::{self, Read, Write};
use std::iter::once;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Command, ExitCode};

use memchr::memrchr;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::SockRef;

use super::load::{RECEIVE_BUFFER, Way};

const ARGUMENT: &str = "wire";

pub fn command(way: Way, from: SocketAddr, to: &[SocketAddr]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.arg(ARGUMENT).arg(if way == Way::Udp { "udp" } else { "tcp" });
    command.args(once(&from).chain(to).map(SocketAddr::to_string));
    command
}

/// Runs the wire when this process was started as one. Then returns its exit code.
pub fn asked_for() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    arguments.next().filter(|first| first == ARGUMENT)?;
    let is_udp = arguments.next()? == "udp";
    let mut addresses = arguments.map(|address| address.parse().expect("an address"));
    let from = addresses.next()?;
    let to = addresses.map(|to: SocketAddr| TcpStream::connect(to).expect("the sink accepts")).collect();
    let copied = if is_udp { copy_datagrams(from, to) } else { copy_streams(from, to) };
    copied.expect("sockets of this machine");
    Some(ExitCode::SUCCESS)
}

fn copy_datagrams(from: SocketAddr, mut to: Vec<TcpStream>) -> io::Result<()> {
    let socket = UdpSocket::bind(from)?;
    SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER)?;
    to.iter().try_for_each(|target| target.set_nodelay(true))?;
    let mut bytes = vec![0; 64 << 10];
    loop {
        let length = socket.recv(&mut bytes)?;
        to.iter_mut().try_for_each(|target| target.write_all(&bytes[..length]))?;
    }
}

fn copy_streams(from: SocketAddr, mut to: Vec<TcpStream>) -> io::Result<()> {
    let listener = TcpListener::bind(from)?;
    to.iter().try_for_each(|target| target.set_nodelay(true))?;
    let mut connections: Vec<(TcpStream, Vec<u8>)> = Vec::new();
    let mut bytes = vec![0; 64 << 10];
    loop {
        let sockets = once(listener.as_fd()).chain(connections.iter().map(|(stream, _)| stream.as_fd()));
        let mut looks: Vec<_> = sockets.map(|socket| PollFd::new(socket, PollFlags::POLLIN)).collect();
        poll(&mut looks, PollTimeout::NONE)?;
        let mut ready = looks.iter().map(|look| look.any().unwrap_or(true)).collect::<Vec<_>>().into_iter();
        let is_new = ready.next() == Some(true);
        connections.retain_mut(|(stream, held)| {
            if ready.next() != Some(true) {
                return true;
            }
            let Ok(length @ 1..) = stream.read(&mut bytes) else { return false };
            held.extend_from_slice(&bytes[..length]);
            if let Some(end) = memrchr(b'\n', held) {
                to.iter_mut().for_each(|target| target.write_all(&held[..=end]).expect("the sink reads"));
                held.drain(..=end);
            }
            true
        });
        if is_new {
            connections.push((listener.accept()?.0, Vec::new()));
        }
    }
}
