//! A ledger read from any marks and lines survives a snapshot, and the snapshot stays within its limit.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logferry::internals::spool::properties::any_ledger(data));
