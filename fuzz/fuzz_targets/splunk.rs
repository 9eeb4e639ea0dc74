//! Events and lines of HEC are the same however their body was cut, stay within their limits, and come back from their lines; heads
//! and acknowledgements are answered.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logferry::internals::protocol::splunk::properties::any_bytes(
    data,
    std::time::Instant::now()
));
