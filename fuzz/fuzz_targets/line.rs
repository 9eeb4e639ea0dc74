//! Any record survives the round trip through its line.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logferry::internals::record::properties::any_bytes(data));
