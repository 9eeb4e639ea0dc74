//! What stands in a stamp's place is a place in the text, and a time that the next relay reads as it is.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logferry::internals::protocol::syslog::stamp_properties::any_bytes(data));
