//! Makes the sockets. Every error in an address shows here, before anything runs, in words that a woken operator can act on. No
//! runtime is needed and nothing is read.

mod activation;
mod name;

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::RawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, SockAddr, Socket, TcpKeepalive, Type};

pub use activation::find as handed_over;
pub use activation::refuse_strays;
pub use name::{NameWatch, SocketFile};

use super::{BACKLOG, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_RETRIES};
use crate::config::{ListenAddress, ListenTransport};

/// Every user of the host may log. The permissions of the socket's directory restrict who can.
const SOCKET_MODE: u32 = 0o666;

/// Why a listener could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Not allowed to listen there.
    #[error("listen: cannot bind {0}: permission denied; {advice}", advice = may_bind(.0))]
    Denied(ListenAddress),
    /// Another socket listens there.
    #[error("listen: cannot bind {0}: in use; {advice}", advice = who_listens(.0))]
    InUse(ListenAddress),
    /// This host does not have the address.
    #[error(
        "listen: cannot bind {0}: no interface has this address (inside a container its own addresses count, not the \
         host's); 0.0.0.0 or [::] takes all there are"
    )]
    NotHere(ListenAddress),
    /// TLS was asked for without a certificate.
    #[error("listen: {0} needs a certificate: set `cert` and `key`, or listen on tcp://")]
    NoCertificate(ListenAddress),
    /// Plain text is refused, and there is no certificate for TLS.
    #[error(
        "listen: {0} refuses plain text and has no certificate, so nobody could ever log: set `cert` and `key`, or take \
         `plaintext = false` away"
    )]
    NeitherPlainNorTls(ListenAddress),
    /// The socket's path is a file that is no socket.
    #[error(
        "listen: cannot bind {0}: there is a file of this name, and it is no socket; move it away (docker makes a \
         directory of a bind mount whose source is missing)"
    )]
    NotASocket(ListenAddress),
    /// No listener takes a socket that was handed over: its descriptor and address.
    #[error(
        "listen: descriptor {0} was handed over ({1}) and no `listen` address takes it, so nobody would be heard there; \
         name this very address in `listen` or LOGFERRY_LISTEN, or take it out of the .socket unit"
    )]
    Stray(RawFd, String),
    /// Several listeners take a socket that was handed over.
    #[error(
        "listen: descriptor {0} was handed over ({1}) and two `listen` addresses take it, so each sender would meet one of \
         them by chance; keep one"
    )]
    Contested(RawFd, String),
    /// The sockets that were handed over cannot be used.
    #[error(
        "listen: cannot have the sockets that LISTEN_FDS says were handed over: {0}; unset LISTEN_FDS where nothing hands \
         any over"
    )]
    HandedOver(#[source] io::Error),
    /// Anything else, with the step that failed.
    #[error("listen: cannot bind {0}: {1}: {2}")]
    Other(ListenAddress, &'static str, #[source] io::Error),
}

/// Binds an address. Senders can reach the socket from here on.
pub fn open(address: &ListenAddress) -> Result<(Socket, Option<SocketFile>), BindError> {
    match address.transport() {
        ListenTransport::Udp(at) => Ok((inet(address, *at, Type::DGRAM)?, None)),
        ListenTransport::Unixgram(path) => unix(address, path, Type::DGRAM).map(|(socket, file)| (socket, Some(file))),
        ListenTransport::Tcp(at) | ListenTransport::Tls(at) => {
            let socket = inet(address, *at, Type::STREAM)?;
            keep_alive(address, &socket)?;
            listen(address, &socket)?;
            Ok((socket, None))
        }
        ListenTransport::Unix(path) => {
            let (socket, file) = unix(address, path, Type::STREAM)?;
            listen(address, &socket)?;
            Ok((socket, Some(file)))
        }
    }
}

/// Configures a socket that was handed over like one of the relay's own. Its backlog is its owner's decision.
pub fn made_ready(address: &ListenAddress, socket: Socket) -> Result<Socket, BindError> {
    let is_stream = !address.is_datagram();
    if address.is_tcp() {
        keep_alive(address, &socket)?;
    }
    socket
        .set_nonblocking(is_stream)
        .map_err(|error| BindError::Other(address.clone(), "setting whether it blocks", error))?;
    Ok(socket)
}

/// Requests a receive buffer of `wanted` bytes, beyond the host's limit if permitted, and returns the granted size. (The kernel
/// doubles the request, because its own book-keeping counts too: socket(7).)
pub fn grow_receive_buffer(socket: &Socket, wanted: usize) -> io::Result<usize> {
    let wanted = wanted.min(i32::MAX as usize / 2);
    if setsockopt(socket, sockopt::RcvBufForce, &wanted).is_err() {
        socket.set_recv_buffer_size(wanted)?;
    }
    socket.recv_buffer_size()
}

/// The receive buffer that the kernel would grant. An unbound socket is used to find out.
pub fn grantable_receive_buffer(wanted: usize) -> io::Result<usize> {
    grow_receive_buffer(&Socket::new(Domain::IPV4, Type::DGRAM, None)?, wanted)
}

/// Sets keepalive. Linux copies it to every accepted connection: one call instead of four for each of them.
fn keep_alive(address: &ListenAddress, socket: &Socket) -> Result<(), BindError> {
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_RETRIES);
    socket.set_tcp_keepalive(&keepalive).map_err(|error| BindError::Other(address.clone(), "setting keepalive", error))
}

fn listen(address: &ListenAddress, socket: &Socket) -> Result<(), BindError> {
    socket
        .listen(BACKLOG)
        .and_then(|()| socket.set_nonblocking(true))
        .map_err(|error| sorted(address, "listening", error))
}

fn inet(address: &ListenAddress, at: SocketAddr, kind: Type) -> Result<Socket, BindError> {
    match try_inet(at, kind) {
        // `[::]` means all addresses; a host without IPv6 has only IPv4 ones.
        Err(error) if at.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && no_ipv6(&error) => {
            try_inet((Ipv4Addr::UNSPECIFIED, at.port()).into(), kind)
        }
        result => result,
    }
    .map_err(|error| sorted(address, "binding", error))
}

fn try_inet(at: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), kind, None)?;
    if kind == Type::STREAM {
        // After a restart, old connections linger in TIME_WAIT. Not for UDP: there it would let two listeners share a port, and one
        // of them would receive nothing.
        socket.set_reuse_address(true)?;
    }
    if at.is_ipv6() && at.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&at.into())?;
    Ok(socket)
}

fn no_ipv6(error: &io::Error) -> bool {
    [Errno::EAFNOSUPPORT, Errno::EADDRNOTAVAIL].iter().any(|&errno| error.raw_os_error() == Some(errno as i32))
}

fn unix(address: &ListenAddress, path: &Path, kind: Type) -> Result<(Socket, SocketFile), BindError> {
    let other = |step| move |error| BindError::Other(address.clone(), step, error);
    let name = SockAddr::unix(path).map_err(other("naming the socket"))?;
    clear_stale(address, path, &name, kind)?;
    let socket = Socket::new(Domain::UNIX, kind, None).map_err(other("opening a socket"))?;
    socket.bind(&name).map_err(|error| sorted(address, "binding", error))?;
    let file = SocketFile::of(path).map_err(other("looking at the socket file"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE)).map_err(other("setting its mode"))?;
    Ok((socket, file))
}

/// Removes a socket file that a killed relay has left: a file on which nothing answers.
fn clear_stale(address: &ListenAddress, path: &Path, name: &SockAddr, kind: Type) -> Result<(), BindError> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(BindError::NotASocket(address.clone())),
        Ok(_) => {}
        Err(_) => return Ok(()), // There is no file, or bind reports the error.
    }
    let other = |step| move |error| BindError::Other(address.clone(), step, error);
    let caller = Socket::new(Domain::UNIX, kind, None).map_err(other("opening a socket"))?;
    caller.set_nonblocking(true).map_err(other("making it non-blocking"))?;
    match caller.connect(name) {
        // Any other result means that a process has the socket: a full backlog, another type of socket, a mode that denies access.
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(other("removing the socket file a dead process left"))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        _ => Err(BindError::InUse(address.clone())),
    }
}

fn sorted(address: &ListenAddress, step: &'static str, error: io::Error) -> BindError {
    match error.kind() {
        ErrorKind::PermissionDenied => BindError::Denied(address.clone()),
        ErrorKind::AddrInUse => BindError::InUse(address.clone()),
        ErrorKind::AddrNotAvailable => BindError::NotHere(address.clone()),
        _ => BindError::Other(address.clone(), step, error),
    }
}

/// The hint for the case that `ss` shows no process, or this one.
const OURS: &str =
    "if it is another `listen` of ours: [::] takes IPv4 too, and what changes at one port needs a restart";

/// The advice for an address that this process may not bind.
fn may_bind(address: &ListenAddress) -> String {
    match address.path() {
        Some(path) => format!("{} must be writable for this user", path.parent().unwrap_or(path).display()),
        None => {
            "ports below 1024 need CAP_NET_BIND_SERVICE (docker: `--user 0:65534 --cap-add NET_BIND_SERVICE`, or on a \
                 bridge network --sysctl net.ipv4.ip_unprivileged_port_start=0), or choose a port >= 1024"
                .to_owned()
        }
    }
}

/// The command that shows which process has an address.
fn who_listens(address: &ListenAddress) -> String {
    match address.transport() {
        ListenTransport::Udp(at) => format!("`ss -lunp 'sport = :{}'` shows by whom; {OURS}", at.port()),
        ListenTransport::Tcp(at) | ListenTransport::Tls(at) => {
            format!("`ss -ltnp 'sport = :{}'` shows by whom; {OURS}", at.port())
        }
        ListenTransport::Unix(path) | ListenTransport::Unixgram(path) => {
            format!("`ss -lxp src {}` shows by whom", path.display())
        }
    }
}
