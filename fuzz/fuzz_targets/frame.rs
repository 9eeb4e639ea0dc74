//! Any stream, cut anywhere, gives the same frames.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logferry::internals::protocol::framing::properties::any_bytes(data));
