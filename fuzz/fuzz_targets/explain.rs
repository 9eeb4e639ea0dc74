//! One message in is one message out, through all rooms but the spool; and what other protocols bring is explained.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    logferry::internals::cli::any_message(data);
    logferry::internals::cli::any_message_of_others(data);
});
