//! The spool reads all intact records and finds those behind damage.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logferry::internals::spool::properties::any_records(data));
