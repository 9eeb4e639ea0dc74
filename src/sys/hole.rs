//! mmap(2) and munmap(2), for tests only: memory of this process with an unmapped page. Read through `/proc/self/mem`, it behaves
//! like a disk with a bad sector.

#![allow(unsafe_code)]

use nix::libc::{MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, PROT_READ, PROT_WRITE, mmap, munmap};

/// The address of such memory: four pages of `byte`, the second of which is unmapped. The other pages stay mapped until the
/// process ends.
pub fn in_memory(page: usize, byte: u8) -> u64 {
    // SAFETY: the mapping is new and no other code uses it. It is filled while it is complete, and no pointer or reference to the
    // page is left when it is unmapped.
    unsafe {
        let start = mmap(std::ptr::null_mut(), 4 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        assert_ne!(start, MAP_FAILED);
        start.cast::<u8>().write_bytes(byte, 4 * page);
        assert_eq!(munmap(start.byte_add(page), page), 0);
        start as u64
    }
}
