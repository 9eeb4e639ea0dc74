//! A timestamp lies within the text, and the next relay reads it unchanged.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logferry::internals::protocol::syslog::stamp_properties::any_bytes(data));
