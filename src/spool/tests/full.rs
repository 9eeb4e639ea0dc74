//! The spool reaches its size, or the disk is full or breaks: the tests check which lines are given up, and the
//! counters.

use super::*;

#[test]
fn a_full_spool_drops_the_oldest_lines_and_counts_them() {
    let home = Home::with(|options| {
        options.max_bytes = 64 << 10;
        options.segment_bytes = 8 << 10;
    });
    let mut spool = home.open();
    let first = spool.readers[0].next(1);
    assert!(first.unwrap().is_none());
    for step in 0..500 {
        spool.append(step * 5..step * 5 + 5);
        assert!(home.segment_bytes() <= 64 << 10, "over the cap");
        if step == 3 {
            // Lines that are read and not retired must not count as delivered when they are evicted.
            spool.readers[0].next(200).unwrap().unwrap();
        }
    }
    assert!(home.segment_bytes() > 48 << 10, "more was evicted than had to be");
    let evicted = spool.evicted(0);
    assert!(evicted > 1000);
    assert_eq!(spool.read_numbers(0), range(evicted..2500));
    spool.retire_all(0);
    assert_eq!(spool.delivered(0) + evicted, 2500);
}

#[test]
fn a_full_spool_can_refuse_new_lines_instead() {
    let home = Home::with(|options| {
        options.max_bytes = 64 << 10;
        options.segment_bytes = 8 << 10;
        options.when_full = WhenFull::DropNewest;
    });
    let mut spool = home.open();
    (0..500).for_each(|step| spool.append(step * 5..step * 5 + 5));
    assert!(home.segment_bytes() <= 64 << 10, "over the cap");
    let dropped = spool.metrics.spool().dropped_full.get();
    assert_eq!(spool.spooled() + dropped, 2500);
    let read = spool.read_numbers(0);
    assert!(dropped > 1000 && read.len() as u64 == spool.spooled());
    spool.retire_all(0);
    spool.append(3000..3005);
    assert_eq!(spool.read_numbers(0), range(3000..3005));
}

#[test]
fn no_batch_is_larger_than_the_spool() {
    for when_full in [WhenFull::DropOldest, WhenFull::DropNewest] {
        let home = Home::with(|options| {
            options.max_bytes = 64 << 10;
            options.when_full = when_full;
        });
        let mut spool = home.open();
        spool.append(0..5);
        spool.append(0..5000);
        assert!(home.segment_bytes() <= 64 << 10);
        assert_eq!(spool.metrics.spool().dropped_full.get(), 5000);
        assert_eq!(spool.read_numbers(0), range(0..5), "lines were given up for nothing");
    }
}

#[test]
fn a_full_disk_costs_the_oldest_lines_first() {
    let home = Home::new();
    let mut spool = home.open();
    (0..20).for_each(|step| spool.append(step * 5..step * 5 + 5));
    let oldest = home.files(".seg").remove(0);
    spool.writer.faults.push_back(ErrorKind::StorageFull);
    spool.append(100..105);
    assert!(!oldest.exists());
    assert_eq!(spool.metrics.spool().dropped_error.get(), 0);
    let evicted = spool.evicted(0);
    assert_eq!(spool.read_numbers(0), range(evicted..105));

    spool.writer.faults.extend([ErrorKind::StorageFull; 2]);
    spool.append(105..110);
    assert_eq!(spool.metrics.spool().dropped_error.get(), 5);
    spool.append(110..115);
    assert_eq!(spool.read_numbers(0), range(110..115));
    drop(spool);
    assert_eq!(home.open().report.torn_bytes, 0, "a failed write left something behind");
}

#[test]
fn a_full_disk_never_costs_the_segment_that_is_written_to() {
    let home = Home::new();
    let mut spool = home.open();
    spool.append(0..5);
    spool.writer.faults.push_back(ErrorKind::StorageFull);
    spool.append(5..10);
    assert_eq!((spool.evicted(0), spool.metrics.spool().dropped_error.get()), (0, 5));
    spool.append(10..15);
    assert_eq!(spool.read_numbers(0), [range(0..5), range(10..15)].concat());
}

#[test]
fn a_full_disk_costs_new_lines_where_old_ones_are_dearer() {
    let home = Home::with(|options| options.when_full = WhenFull::DropNewest);
    let mut spool = home.open();
    (0..20).for_each(|step| spool.append(step * 5..step * 5 + 5));
    spool.writer.faults.push_back(ErrorKind::StorageFull);
    spool.append(100..105);
    spool.append(105..110);
    assert_eq!((spool.evicted(0), spool.metrics.spool().dropped_error.get()), (0, 5));
    assert_eq!(spool.read_numbers(0), [range(0..100), range(105..110)].concat());
}

#[test]
fn a_full_disk_takes_lines_again_when_all_is_delivered() {
    let home = Home::new();
    let mut spool = home.open();
    spool.append(0..5);
    spool.read_numbers(0);
    spool.retire_all(0);
    let full = home.files(".seg").remove(0);
    spool.writer.faults.push_back(ErrorKind::StorageFull);
    spool.append(5..10);
    assert!(!full.exists(), "it holds the room that a new one needs");
    assert_eq!((spool.metrics.spool().dropped_error.get(), spool.read_numbers(0)), (0, range(5..10)));
    let mut answer = spool.deliver(10..11);
    spool.retire_all(0);
    spool.writer.faults.push_back(ErrorKind::StorageFull);
    let mut held = spool.deliver(11..15);
    spool.again();
    assert_eq!((answer.now(), held.now()), (Some(Ok(())), Some(Ok(()))));
    drop(spool);
    assert_eq!(home.open().read_numbers(0), range(11..15));
}

#[test]
fn a_broken_segment_is_left_for_a_new_one() {
    let home = Home::new();
    let mut spool = home.open();
    spool.append(0..5);
    spool.writer.faults.push_back(ErrorKind::Other);
    spool.append(5..10);
    assert_eq!((home.files(".seg").len(), spool.evicted(0)), (2, 0));
    // A disk that stays broken must not be filled with empty segments.
    for step in 0..10 {
        spool.writer.faults.extend([ErrorKind::Other; 2]);
        spool.append(100 + step..101 + step);
        spool.writer.faults.clear();
    }
    assert_eq!(spool.metrics.spool().dropped_error.get(), 10);
    assert!(home.files(".seg").len() <= 3);
    spool.append(10..15);
    assert_eq!(spool.read_numbers(0), range(0..15));
}

#[test]
fn a_sync_that_failed_behind_our_back_is_not_forgotten() {
    let home = Home::with(|options| {
        options.sync = Sync::Every(Duration::from_millis(1));
        options.segment_bytes = 128 << 10;
    });
    let mut spool = home.open();
    spool.append(0..5);
    let sync::Flush::Behind(behind) = &spool.writer.flush else { panic!("another policy") };
    // A pipe cannot be synced.
    let pipe = std::sync::Arc::new(fs::File::from(std::os::fd::OwnedFd::from(std::io::pipe().unwrap().0)));
    behind.mark(&pipe);
    while spool.metrics.spool().errors.get() == 0 {
        std::thread::yield_now();
    }
    spool.append(5..6);
    assert_eq!(home.files(".seg").len(), 2);
    // A disk that fails again after a good sync is not filled with segments.
    let synced = spool.metrics.spool().syncs.get();
    spool.append(6..7);
    while spool.metrics.spool().syncs.get() == synced {
        std::thread::yield_now();
    }
    let sync::Flush::Behind(behind) = &spool.writer.flush else { panic!("another policy") };
    let errors = spool.metrics.spool().errors.get();
    behind.mark(&pipe);
    while spool.metrics.spool().errors.get() == errors {
        std::thread::yield_now();
    }
    let segments = home.files(".seg").len();
    spool.append(7..8);
    assert_eq!(home.files(".seg").len(), segments);
}
