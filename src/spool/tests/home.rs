//! The directory is removed, or emptied, or replaced, while a spool is open in it.

use super::*;

fn empty(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
    }
}

#[test]
fn a_directory_that_vanishes_is_taken_again_with_its_lock() {
    for vanish in [|dir: &Path| fs::remove_dir_all(dir).unwrap(), empty] {
        let home = Home::new();
        let mut spool = home.open();
        spool.append(0..5);
        vanish(home.dir.path());
        assert!(home.try_open().is_ok(), "nobody keeps another relay away");
        vanish(home.dir.path());
        spool.append(5..10);
        assert!(matches!(home.try_open(), Err(OpenError::InUse { .. })), "another relay opens it too");
        let mut answer = spool.deliver(10..15);
        assert_eq!(answer.now(), Some(Ok(())));
        // The last written lines are still in memory.
        assert_eq!(spool.read_numbers(0), range(0..15));
        spool.retire_all(0);
        assert_eq!(spool.writer.probe(), Ok(()));
        spool.append(15..20);
        drop(spool);
        // The spool has its cursor: no line is sent again.
        let mut again = home.open();
        assert_eq!(again.read_numbers(0), range(15..20));
    }
}

/// If another relay has taken the directory first, it owns the directory: this spool writes and removes nothing there,
/// and reports no line as safe.
#[test]
fn a_directory_that_another_spool_has_is_left_alone() {
    let home = Home::new();
    let mut spool = home.open();
    (0..200).for_each(|step| spool.append(step * 5..step * 5 + 5));
    assert!(home.files(".seg").len() > 4);
    empty(home.dir.path());
    let mut other = home.open();
    (0..200).for_each(|step| other.append(step * 5..step * 5 + 5));
    let before = home.files("");
    spool.append(1000..1005);
    assert_eq!(spool.metrics.spool().dropped_error.get(), 5);
    let mut answer = spool.deliver(1005..1010);
    assert_eq!(answer.now(), None);
    let why = spool.writer.probe().unwrap_err();
    assert!(why.contains("another relay has its spool there now"), "{why}");
    spool.retire_all(0);
    assert_eq!(home.files(""), before, "a file of the other one was removed");
    // This holds also after that relay has ended: its files are not ours.
    drop(other);
    let why = spool.writer.probe().unwrap_err();
    assert!(why.contains("another spool is there now"), "{why}");
    empty(home.dir.path());
    assert_eq!(spool.writer.probe(), Ok(()));
    spool.append(1010..1015);
    assert_eq!(answer.now(), Some(Ok(())), "what was held is written");
    assert_eq!(spool.read_numbers(0), [range(1010..1015), range(1005..1010)].concat());
}

/// Only the lock is gone; the segments are ours.
#[test]
fn a_lock_that_is_removed_is_taken_again() {
    let home = Home::new();
    let mut spool = home.open();
    (0..20).for_each(|step| spool.append(step * 5..step * 5 + 5));
    fs::remove_file(home.dir.path().join("lock")).unwrap();
    spool.append(100..105);
    assert!(matches!(home.try_open(), Err(OpenError::InUse { .. })));
    assert_eq!(spool.read_numbers(0), range(0..105));
}
