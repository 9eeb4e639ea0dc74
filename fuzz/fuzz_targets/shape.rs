//! Any container output gives a valid line after shaping. Parts that no setting changes stay as they were.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logferry::internals::shape::properties::any_bytes(data));
