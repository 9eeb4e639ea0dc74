//! Whatever a record says comes back from its line.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logferry::record::properties::any_bytes(data));
