//! `logferry health`: asks the admin port of a relay in the same container for `/ready`. A scratch image has no shell and no
//! curl.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use super::Failure;
use crate::config::{Config, Overrides};

/// The timeout of a connect, a read and a write. Docker's default for a whole health check is 30 s.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The bytes of the answer that are read: the status line, and a body with the reason.
const MAX_ANSWER: u64 = 4096;

pub fn run(overrides: &Overrides) -> Result<(), Failure> {
    let Some(address) = Config::admin_address(overrides) else {
        return Err(Failure::failed(
            "health: [admin] listen is \"off\", so the relay answers no requests; give it an address",
        ));
    };
    let address = reachable(address);
    let answer = ask(address).map_err(|error| Failure::failed(no_answer(address, &error)))?;
    if answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.0 200") {
        return Ok(());
    }
    let status = answer.lines().next().unwrap_or("nothing");
    let why = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body.trim_end());
    Err(Failure::failed(format!("health: http://{address}/ready says {status}: {why}")))
}

fn no_answer(address: SocketAddr, error: &std::io::Error) -> String {
    match error.kind() {
        // Linux says that of a read that has timed out.
        ErrorKind::WouldBlock | ErrorKind::TimedOut => format!(
            "health: no answer from {address} within {} s; if another program has this port, change [admin] listen",
            TIMEOUT.as_secs()
        ),
        _ => format!(
            "health: no answer from {address}: {error}; is the relay running? Its address is [admin] listen (LOGFERRY_ADMIN)"
        ),
    }
}

/// The address to connect to. For a port that is bound to every address it is loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(stream, "GET /ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
