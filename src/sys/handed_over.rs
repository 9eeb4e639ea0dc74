//! A descriptor that is known by its number alone, because the process was started with it (sd_listen_fds(3)).

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use nix::libc;

/// A copy of it, to keep. The number is the caller's word: where it is nobody's an error comes back, and where it is
/// somebody else's the copy is of that.
pub fn copy_of_handed_over(descriptor: RawFd) -> io::Result<OwnedFd> {
    if descriptor < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: it is borrowed for one call, which copies what is behind the number, or says that nothing is. Nothing is read,
    // written or closed by that number, so whoever owns it sees nothing of it; -1, which no `BorrowedFd` may be, is refused
    // above.
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
