//! Addresses, names and similar values survive printing and parsing.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| logferry::internals::config::properties::any_value(text));
