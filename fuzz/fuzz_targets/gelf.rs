//! GELF is the same however it was cut, stays within its limits, and its records come back from their lines.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logferry::internals::protocol::gelf::properties::any_bytes(
    data,
    std::time::Instant::now()
));
