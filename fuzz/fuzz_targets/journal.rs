//! Any body of systemd's journal gives the same entries wherever it is cut, and each entry is a record. Only entries in
//! the spool count as known.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logferry::internals::protocol::journal::properties::any_bytes(data));
