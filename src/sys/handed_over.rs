//! A descriptor that is known only by its number, because the process inherited it at its start (sd_listen_fds(3)).

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use nix::libc;

/// A duplicate of the descriptor, for the caller to own. The caller vouches for the number: if no descriptor is open under it, an
/// error is returned; if another part of the process owns it, the duplicate is of that descriptor.
pub fn copy_of_handed_over(descriptor: RawFd) -> io::Result<OwnedFd> {
    if descriptor < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the descriptor is borrowed for one call, which duplicates it or fails. Nothing is read, written or closed through
    // the number, so an owner of the descriptor is not affected. -1, which a `BorrowedFd` must not be, is refused above.
    let handed_over = unsafe { BorrowedFd::borrow_raw(descriptor) };
    handed_over.try_clone_to_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::Shutdown;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_copy_is_of_the_same_socket_and_leaves_the_original_open() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let copy = copy_of_handed_over(ours.as_raw_fd()).unwrap();
        assert_ne!(copy.as_raw_fd(), ours.as_raw_fd());
        drop(UnixStream::from(copy));
        ours.shutdown(Shutdown::Write).unwrap();
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_number_that_is_nobodys_is_an_error() {
        for number in [-1, RawFd::MIN, RawFd::MAX] {
            assert_eq!(copy_of_handed_over(number).unwrap_err().raw_os_error(), Some(libc::EBADF), "{number}");
        }
    }
}
