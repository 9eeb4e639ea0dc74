//! A config survives printing and parsing, or each error has its position.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| logferry::internals::config::properties::any_text(text));
