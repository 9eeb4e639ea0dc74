//! pthread_getattr_np(3), for the image's static binary alone: an answer instead of glibc's function.
//!
//! The standard library asks it where a thread's stack ends, so that a stack overflow is named when it kills the process. glibc reads
//! `/proc/self/maps` with `sscanf` to answer, which brings 108 kB of formats, floating-point numbers and locales into a static binary.
//! Without an answer a stack overflow still kills the process, by SIGSEGV, and the standard library does not name it.

#![allow(unsafe_code)]

use nix::libc;

/// "Not known", which the standard library expects of kernels without `/proc`.
// SAFETY: the signature is glibc's, nothing is read or written, and callers look at `attributes` only after 0.
#[unsafe(no_mangle)]
extern "C" fn pthread_getattr_np(_: libc::pthread_t, _attributes: *mut libc::pthread_attr_t) -> libc::c_int {
    libc::ENOSYS
}
