//! pthread_getattr_np(3), for the static binary of the image only: replaces glibc's function.
//!
//! The standard library calls it to find the end of a thread's stack, so that it can report a stack overflow before the process
//! dies. glibc's function parses `/proc/self/maps` with `sscanf`, which links 108 kB of formats, floating-point numbers and
//! locales into a static binary. Without it, a stack overflow still kills the process by SIGSEGV, but the standard library does
//! not report it.

#![allow(unsafe_code)]

use nix::libc;

/// Fails with ENOSYS, which the standard library handles, as it does on systems without `/proc`.
// SAFETY: the signature is that of glibc. Nothing is read or written, and callers read `attributes` only after a result of 0.
#[unsafe(no_mangle)]
extern "C" fn pthread_getattr_np(_: libc::pthread_t, _attributes: *mut libc::pthread_attr_t) -> libc::c_int {
    libc::ENOSYS
}
