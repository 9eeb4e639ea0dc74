//! Any message is carried, with the same content in each format.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logferry::internals::protocol::syslog::properties::any_bytes(data));
