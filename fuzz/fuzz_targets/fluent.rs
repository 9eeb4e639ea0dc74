//! Any stream of the Forward protocol gives the same arrays wherever it is cut, and each entry is a record.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logferry::internals::protocol::fluent::properties::any_bytes(data));
