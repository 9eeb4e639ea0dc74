//! A spool opens whatever its newest segment holds, and the books balance.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // In memory: a spool syncs when it is closed.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory");
    logferry::internals::spool::properties::any_segment(dir.path(), data);
});
