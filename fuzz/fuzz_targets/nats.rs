//! The operations of a NATS server do not depend on where its bytes are cut, and a server reads back each publication.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logferry::internals::protocol::nats::properties::any_bytes(data));
