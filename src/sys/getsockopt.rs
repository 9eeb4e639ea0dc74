//! getsockopt(2), for options whose value is a kernel structure that newer kernels only extend at its end: `TCP_INFO`,
//! `SO_MEMINFO`. The macro `sockopt_impl!` of `nix` panics on a kernel that is older than the structure.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc;

/// The first `N` bytes of an option's value. `None`: this kernel has fewer.
pub fn socket_option<const N: usize>(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
) -> io::Result<Option<[u8; N]>> {
    let mut value = [0u8; N];
    let mut length = N as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `value`, which has that many, and the new length to `length`. Both
    // outlive the call. Any bytes are a valid `[u8; N]`. For a descriptor that is no socket, the call fails.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut length) };
    Errno::result(result)?;
    Ok((length as usize == N).then_some(value))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn it_is_read_up_to_as_many_bytes_as_are_asked_for() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let kind = |value: Option<[u8; 4]>| value.map(i32::from_ne_bytes);
        let get = socket_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_TYPE).unwrap();
        assert_eq!(kind(get), Some(libc::SOCK_DGRAM));
        let part: Option<[u8; 1]> = socket_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_TYPE).unwrap();
        assert_eq!(part, Some([libc::SOCK_DGRAM.to_ne_bytes()[0]]));
    }

    #[test]
    fn a_kernel_that_knows_less_is_told_from_one_that_knows_all() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let more: Option<[u8; 5]> = socket_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_TYPE).unwrap();
        assert_eq!(more, None);
    }

    #[test]
    fn what_has_no_such_option_is_an_error() {
        let file = File::open("/dev/null").unwrap();
        let refused = socket_option::<4>(file.as_fd(), libc::SOL_SOCKET, libc::SO_TYPE).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ENOTSOCK));
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(socket_option::<4>(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_INFO).is_err());
    }
}
