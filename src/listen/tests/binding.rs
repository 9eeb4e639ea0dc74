//! Binding: the errors for the operator, and the files that are left behind.

use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use super::{bound, listen, loopbacks, options};
use crate::config::ListenAddress;
use crate::eventually::eventually;
use crate::listen::{BindError, Options, bind, datagram};
use crate::metrics::Metrics;

fn refused(options: Options) -> String {
    bind(options, Metrics::new().listener("trial")).map(|bound| bound.address()).expect_err("it was bound").to_string()
}

#[test]
fn the_port_the_kernel_chose_is_told() {
    for scheme in ["udp", "tcp"] {
        for host in [loopbacks(), &[""]].concat() {
            let address = bound(options(&format!("{scheme}://{host}:0"))).0.address();
            assert!(address.socket_address().is_some_and(|at| at.port() != 0), "{address}");
        }
    }
}

#[test]
fn in_use() {
    for scheme in ["udp", "tcp"] {
        let (first, _) = bound(options(&format!("{scheme}://127.0.0.1:0")));
        let error = refused(options(&first.address().to_string()));
        assert!(error.contains(&format!("{}: in use; `ss -l", first.address())), "{error}");
    }
}

/// Root may bind any port, so this tests only the text.
#[test]
fn not_allowed() {
    let address: ListenAddress = "udp://0.0.0.0:514".parse().unwrap();
    let error = BindError::Denied(address).to_string();
    assert!(error.contains("cannot bind udp://0.0.0.0:514: permission denied"), "{error}");
    assert!(error.contains("NET_BIND_SERVICE") && error.contains("ip_unprivileged_port_start"), "{error}");
}

/// A regular file cannot be registered with the runtime, like a socket on a host without room for it. That is an error and no
/// panic: a panic would end a relay that is only told to listen on one more address.
#[tokio::test]
async fn a_socket_that_cannot_be_waited_for() {
    let (mut bound, _) = bound(options("tcp://127.0.0.1:0"));
    bound.socket = OwnedFd::from(tempfile::tempfile().unwrap()).into();
    bound.socket.set_nonblocking(true).unwrap();
    let error = bound.prepare().map(|_| ()).expect_err("it was prepared").to_string();
    assert!(error.contains("making ready to read"), "{error}");
}

/// No host has memory for such a stack.
#[test]
fn no_thread_is_left() {
    let (bound, _) = bound(options("udp://127.0.0.1:0"));
    assert!(datagram::Idle::with_stack(bound.socket, usize::MAX >> 8).is_err());
}

#[test]
fn an_address_of_another_host() {
    let error = refused(options("tcp://192.0.2.1:0"));
    assert!(error.contains("no interface has this address"), "{error}");
}

#[test]
fn tls_without_a_certificate() {
    assert!(refused(options("tcp+tls://127.0.0.1:0")).contains("needs a certificate"));
    let only_tls = Options { plaintext: false, ..options("tcp://127.0.0.1:0") };
    assert!(refused(only_tls).contains("refuses plain text and has no certificate"));
}

#[test]
fn everybody_may_write_to_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    for scheme in ["unix", "unixgram"] {
        let path = dir.path().join(scheme);
        let _bound = bound(options(&format!("{scheme}://{}", path.display())));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
    }
}

#[tokio::test]
async fn a_socket_file_goes_with_its_listener() {
    let dir = tempfile::tempdir().unwrap();
    for scheme in ["unix", "unixgram"] {
        let path = dir.path().join(scheme);
        let trial = listen(&format!("{scheme}://{}", path.display()));
        assert!(path.exists());
        trial.stopped().await;
        assert!(!path.exists(), "{scheme}");
    }
}

#[tokio::test]
async fn but_not_a_file_somebody_else_put_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let trial = listen(&format!("unix://{}", path.display()));
    let next = dir.path().join("next");
    let _successor = UnixListener::bind(&next).unwrap();
    fs::rename(next, &path).unwrap();
    trial.stopped().await;
    assert!(path.exists());
}

#[test]
fn a_dead_relays_socket_file_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (stream, datagram) = (dir.path().join("stream"), dir.path().join("datagram"));
    drop(UnixListener::bind(&stream).unwrap());
    drop(UnixDatagram::bind(&datagram).unwrap());
    let _one = bound(options(&format!("unix://{}", stream.display())));
    let _two = bound(options(&format!("unixgram://{}", datagram.display())));
}

#[test]
fn a_living_ones_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (stream, datagram) = (dir.path().join("stream"), dir.path().join("datagram"));
    let _one = UnixListener::bind(&stream).unwrap();
    let _two = UnixDatagram::bind(&datagram).unwrap();
    for scheme in ["unix", "unixgram"] {
        for path in [&stream, &datagram] {
            let error = refused(options(&format!("{scheme}://{}", path.display())));
            assert!(error.contains("in use; `ss -lxp"), "{error}");
            assert!(path.exists());
        }
    }
}

#[test]
fn any_other_file_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notes");
    fs::write(&path, "precious").unwrap();
    let error = refused(options(&format!("unix://{}", path.display())));
    assert!(error.contains("it is no socket"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    let missing = refused(options(&format!("unix://{}/a/b", dir.path().display())));
    assert!(missing.contains(&io::Error::from_raw_os_error(2).to_string()), "{missing}");
}

/// After a cleaner of temporary files or a recreated volume, the socket exists without a name.
#[tokio::test]
async fn a_name_that_is_removed_is_bound_again() {
    let dir = tempfile::tempdir().unwrap();
    let volume = dir.path().join("volume");
    fs::create_dir(&volume).unwrap();
    let (stream, datagram) = (volume.join("stream"), volume.join("datagram"));
    let streams = listen(&format!("unix://{}", stream.display()));
    let datagrams = listen(&format!("unixgram://{}", datagram.display()));
    let mut before = UnixStream::connect(&stream).unwrap();
    before.write_all(b"<30>before\n").unwrap();
    fs::remove_dir_all(&volume).unwrap();
    // Without the directory the name cannot be bound. The relay tries again.
    assert!(UnixStream::connect(&stream).is_err());
    fs::create_dir(&volume).unwrap();
    eventually(|| UnixStream::connect(&stream).is_ok(), || "the stream's name".to_owned()).await;
    let mut after = UnixStream::connect(&stream).unwrap();
    after.write_all(b"<30>after\n").unwrap();
    before.write_all(b"<30>still there\n").unwrap();
    streams.until("all three", |trial| trial.count() == 3).await;
    let sender = UnixDatagram::unbound().unwrap();
    eventually(|| sender.send_to(b"<30>once more", &datagram).is_ok(), || "the datagrams' name".to_owned()).await;
    datagrams.expect(&["<30>once more"]).await;
    assert_eq!((streams.metrics.rebinds.get(), datagrams.metrics.rebinds.get()), (1, 1));
    drop((before, after));
    streams.stopped().await;
    datagrams.stopped().await;
    assert_eq!(fs::read_dir(&volume).unwrap().count(), 0, "the new names are removed too");
}
