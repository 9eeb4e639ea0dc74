//! mmap(2) and munmap(2), for tests alone: memory of this process with a page in it that is not there. Read through
//! `/proc/self/mem` it behaves as a disk that has lost a sector.

#![allow(unsafe_code)]

use nix::libc::{MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, PROT_READ, PROT_WRITE, mmap, munmap};

/// The start of such memory: four pages of `byte`, of which the second is gone. The memory stays for as long as the process.
pub fn in_memory(page: usize, byte: u8) -> u64 {
    // SAFETY: a mapping of our own, which nobody else knows; it is filled while it is whole, and no pointer or reference to
    // it is left when the page goes.
    unsafe {
        let start = mmap(std::ptr::null_mut(), 4 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        assert_ne!(start, MAP_FAILED);
        start.cast::<u8>().write_bytes(byte, 4 * page);
        assert_eq!(munmap(start.byte_add(page), page), 0);
        start as u64
    }
}
