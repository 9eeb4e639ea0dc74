//! System calls for which no dependency has a safe function, one file for each. Only these files may use `unsafe`: the compiler
//! refuses it elsewhere, and `tests/it/tidy.rs` compares the list of these files with the directory.
//!
//! Each file exports a safe function. Its types exclude the errors of callers: a descriptor is a
//! [`BorrowedFd`](std::os::fd::BorrowedFd), which is open as long as it is borrowed, and the kernel writes into bytes or
//! integers, for which every bit pattern is valid. `handed_over` is the only exception, and says why.

mod getsockopt;
mod handed_over;
#[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
mod stack;
mod unsent;

pub use getsockopt::socket_option;
pub use handed_over::copy_of_handed_over;
pub use unsent::unacknowledged;

#[cfg(test)]
pub mod hole;
