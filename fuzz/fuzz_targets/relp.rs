//! Any RELP stream gives the same frames wherever it is cut, and the data of valid frames survives a round trip.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logferry::internals::protocol::relp::properties::any_bytes(data));
