//! Whatever a container prints, a shaped line is a line: what nobody has asked to change is as it was.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logferry::internals::shape::properties::any_bytes(data));
