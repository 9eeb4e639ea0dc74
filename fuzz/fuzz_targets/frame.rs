//! Any stream gives the same frames wherever it is cut.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logferry::internals::protocol::framing::properties::any_bytes(data));
