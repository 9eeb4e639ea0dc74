//! HEC events and lines are the same wherever their body is cut, stay within their limits, and survive the round trip
//! through their lines. Each head is read or answered, and only stored events are acknowledged.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logferry::internals::protocol::splunk::properties::any_bytes(
    data,
    std::time::Instant::now()
));
