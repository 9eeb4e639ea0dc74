//! A config comes back when it is shown, or each mistake has its place.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| logferry::internals::config::properties::any_text(text));
