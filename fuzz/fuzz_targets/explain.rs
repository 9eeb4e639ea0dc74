//! One message in is one message out, through all stages but the spool. Input of other protocols is explained too.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    logferry::internals::cli::any_message(data);
    logferry::internals::cli::any_message_of_others(data);
});
