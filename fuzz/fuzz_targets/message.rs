//! Whatever is sent is carried, and said the same in each format.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logferry::internals::protocol::syslog::properties::any_bytes(data));
