//! What other relays have delivered is known again.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logferry::internals::spool::properties::any_ledger(data));
