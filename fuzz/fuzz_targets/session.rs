//! What a session finds and answers does not depend on where its bytes were cut, nor on when they are in the spool.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logferry::internals::protocol::properties::any_bytes(
    data,
    std::time::Instant::now()
));
