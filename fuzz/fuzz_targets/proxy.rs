//! A PROXY protocol header ends at its declared length and reads the same wherever it is cut.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logferry::internals::protocol::proxy::properties::any_bytes(data));
