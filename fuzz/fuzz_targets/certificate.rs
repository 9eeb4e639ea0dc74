//! The description of an untrusted certificate is safe to print on a terminal. No certificate causes a panic.

#![no_main]

use logferry::internals::certificate::read;

libfuzzer_sys::fuzz_target!(|der: &[u8]| {
    let Ok(facts) = read(der) else { return };
    let names = facts.names.iter().map(ToString::to_string);
    let texts = [facts.subject, facts.issuer].into_iter().chain(names);
    texts.for_each(|text| assert!(!text.contains(char::is_control), "{text:?}"));
    assert_eq!(facts.fingerprint_sha256.len(), 64);
});
