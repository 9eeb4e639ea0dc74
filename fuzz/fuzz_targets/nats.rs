//! What a server of NATS says does not depend on where its bytes were cut, and what is published is what a subscriber reads.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logferry::internals::protocol::nats::properties::any_bytes(data));
