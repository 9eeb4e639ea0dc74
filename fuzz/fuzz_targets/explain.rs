//! One message in is one message out, through all rooms but the spool.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logferry::internals::cli::any_message(data));
