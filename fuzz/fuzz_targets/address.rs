//! Addresses, names and the like come back when they are shown.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| logferry::internals::config::properties::any_value(text));
