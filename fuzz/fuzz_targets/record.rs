//! What is whole in the spool is read, what stands behind damage is found.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logferry::internals::spool::properties::any_records(data));
