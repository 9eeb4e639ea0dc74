//! A spool opens with any content in its newest segment, and its books balance.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // On tmpfs if possible, because a spool syncs when it is closed.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory");
    logferry::internals::spool::properties::any_segment(dir.path(), data);
});
