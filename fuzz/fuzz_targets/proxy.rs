//! A header of the PROXY protocol ends where it says, and says the same however it is cut.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logferry::internals::protocol::proxy::properties::any_bytes(data));
