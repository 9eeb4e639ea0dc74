//! GELF gives the same messages wherever it is cut and stays within its limits. Its records survive the round trip
//! through their lines.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logferry::internals::protocol::gelf::properties::any_bytes(
    data,
    std::time::Instant::now()
));
