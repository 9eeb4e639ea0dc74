//! The same for RELP, and what its frames carry.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logferry::internals::protocol::relp::properties::any_bytes(data));
