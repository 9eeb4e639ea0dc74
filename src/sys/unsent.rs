//! ioctl(2) with `SIOCOUTQ`: the bytes written to a TCP connection that the peer has not acknowledged.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

mod ioctl {
    // linux/sockios.h: SIOCOUTQ is TIOCOUTQ.
    nix::ioctl_read_bad!(siocoutq, nix::libc::TIOCOUTQ, nix::libc::c_int);
}

/// The bytes that the peer has not acknowledged; a FIN that was sent counts as one.
pub fn unacknowledged(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: a socket or a terminal writes one int to the pointer, which is valid during the call. Any other file refuses the
    // request.
    unsafe { ioctl::siocoutq(socket.as_raw_fd(), &raw mut bytes) }?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;
    use crate::eventually::eventually;

    #[tokio::test]
    async fn what_a_peer_does_not_take_is_counted_and_what_it_has_taken_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut theirs, _) = listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        // Fills both kernels' buffers: the peer does not read.
        let mut written = 0;
        while let Ok(more) = ours.write(&[b'x'; 1 << 16]) {
            written += more as u64;
        }
        let held = unacknowledged(ours.as_fd()).unwrap();
        assert!(0 < held && held <= written, "{held} of {written}");
        ours.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(theirs.read_to_end(&mut Vec::new()).unwrap() as u64, written);
        // The peer has read the FIN; its kernel may acknowledge it a moment later.
        let left = || unacknowledged(ours.as_fd()).unwrap();
        eventually(|| left() == 0, || format!("the acknowledgement of {} bytes", left())).await;
    }

    #[test]
    fn a_file_has_no_peer() {
        let file = File::open("/dev/null").unwrap();
        assert_eq!(unacknowledged(file.as_fd()).unwrap_err().raw_os_error(), Some(libc::ENOTTY));
    }
}
