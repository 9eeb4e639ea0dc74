//! System calls for which no crate of ours has a safe function, one file for each. These are the only files that may say
//! `unsafe`: the compiler refuses it elsewhere, and `tests/it/tidy.rs` holds the list of these files to what is here.
//!
//! Each gives a safe function to the rooms. What a caller could get wrong is in its types: a descriptor is a
//! [`BorrowedFd`](std::os::fd::BorrowedFd), which is open for as long as it is borrowed, and what the kernel writes are
//! bytes or integers, of which every pattern is a value. The one exception says why it is one (`handed_over`).

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
