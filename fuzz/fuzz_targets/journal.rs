//! Any body of systemd's journal, cut anywhere, gives the same entries, and each is a record; nothing is known that was not taken.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logferry::internals::protocol::journal::properties::any_bytes(data));
