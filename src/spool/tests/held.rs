//! Senders that can be made to wait: none of their lines is dropped, and no other line is evicted for them.

use super::*;
use crate::metrics::Metrics;

fn small(when_full: WhenFull) -> Home {
    Home::with(|options| {
        options.max_bytes = 64 << 10;
        options.segment_bytes = 8 << 10;
        options.when_full = when_full;
    })
}

/// Delivers until 20 batches are held. Returns the answers, and the number of delivered lines.
fn overfill(spool: &mut Open) -> (Vec<Answer>, u64) {
    let mut answers = Vec::new();
    for step in 0.. {
        answers.push(spool.deliver(step * 10..step * 10 + 10));
        if answers.iter_mut().filter_map(|answer| answer.now().is_none().then_some(())).count() == 20 {
            return (answers, step * 10 + 10);
        }
    }
    unreachable!()
}

#[test]
fn a_full_spool_makes_them_wait_and_loses_nothing() {
    for when_full in [WhenFull::DropOldest, WhenFull::DropNewest] {
        let home = small(when_full);
        let mut spool = home.open();
        let (mut answers, lines) = overfill(&mut spool);
        let first_held = answers.iter_mut().position(|answer| answer.now().is_none()).unwrap();
        assert!(answers[first_held..].iter_mut().all(|answer| answer.now().is_none()), "one got past another");
        assert_eq!(spool.metrics.spool().held.get(), 200);
        assert_eq!((spool.evicted(0), spool.metrics.spool().dropped_full.get()), (0, 0));
        assert!(home.segment_bytes() <= 64 << 10);

        let mut read = Vec::new();
        while answers.iter_mut().any(|answer| answer.now().is_none()) {
            let before = read.len();
            read.extend(spool.read_numbers(0));
            assert!(read.len() > before, "held although there is room");
            spool.retire_all(0);
            spool.again();
        }
        read.extend(spool.read_numbers(0));
        assert_eq!(read, range(0..lines));
        assert!(answers.iter_mut().all(|answer| answer.now() == Some(Ok(()))));
        assert_eq!((spool.spooled(), spool.evicted(0), spool.metrics.spool().held.get()), (lines, 0, 0));
    }
}

#[test]
fn the_others_go_on_meanwhile() {
    let home = small(WhenFull::DropNewest);
    let mut spool = home.open();
    let (mut answers, lines) = overfill(&mut spool);
    let spooled = spool.spooled();
    spool.append(5000..5001);
    let gone_on = spool.spooled() - spooled + spool.metrics.spool().dropped_full.get();
    assert_eq!((gone_on, spool.metrics.spool().held.get()), (1, 200));

    // If the policy allows eviction, old lines are evicted for senders that cannot wait; the held batches get the room
    // that is left.
    let home = small(WhenFull::DropOldest);
    let mut other = home.open();
    let (_, _) = overfill(&mut other);
    let step = other.spooled();
    (0..20).for_each(|n| other.append(step + n * 10..step + n * 10 + 10));
    assert!(other.evicted(0) > 0 && other.metrics.spool().dropped_full.get() == 0);

    spool.read_numbers(0);
    spool.retire_all(0);
    spool.again();
    assert!(answers[lines as usize / 10 - 20].now().is_some());
}

/// A sender without an answer sends again. Held copies would delay the answers of all later senders.
#[test]
fn who_hangs_up_takes_back_what_found_no_room() {
    let home = small(WhenFull::DropNewest);
    let mut spool = home.open();
    let (mut answers, lines) = overfill(&mut spool);
    let first_held = answers.iter_mut().position(|answer| answer.now().is_none()).unwrap();
    answers.truncate(first_held + 1);
    let mut numbered = spool.deliver_from("other", 0..3);
    spool.again();
    let metrics = spool.metrics.spool();
    assert_eq!(
        (metrics.dropped_withdrawn.get(), metrics.held.get()),
        (190, 13),
        "those of whom somebody waits, and numbered ones"
    );
    drop(std::mem::replace(&mut numbered, spool.deliver_from("other", 3..5)));
    spool.again();
    assert_eq!(metrics.held.get(), 15, "numbered lines stay in their order");
    spool.read_numbers(0);
    spool.retire_all(0);
    spool.again();
    assert!(answers[first_held].now() == Some(Ok(())) && numbered.now() == Some(Ok(())));
    assert_eq!((metrics.held.get(), spool.spooled()), (0, lines - 190 + 5));
}

#[test]
fn a_disk_that_refuses_makes_them_wait_in_order() {
    for fault in [ErrorKind::StorageFull, ErrorKind::Other] {
        let home = Home::new();
        let mut spool = home.open();
        (0..20).for_each(|step| spool.append(step * 5..step * 5 + 5));
        let segments = home.files(".seg").len();
        spool.writer.faults.extend([fault; 12]);
        let mut answers: Vec<Answer> = (0..5).map(|n| spool.deliver(100 + n * 5..105 + n * 5)).collect();
        (0..7).for_each(|_| spool.again());
        assert!(answers.iter_mut().all(|answer| answer.now().is_none()));
        assert!(home.files(".seg").len() <= segments + 1, "a broken disk fills with empty segments");
        spool.again();
        assert!(answers.iter_mut().all(|answer| answer.now() == Some(Ok(()))));
        assert_eq!(spool.read_numbers(0), range(0..125));
        assert_eq!((spool.evicted(0), spool.metrics.spool().dropped_error.get()), (0, 0));
        drop(spool);
        assert_eq!(home.open().read_numbers(0), range(0..125));
    }
}

#[test]
fn what_could_never_fit_is_refused() {
    let home = small(WhenFull::DropOldest);
    let mut spool = home.open();
    let mut answers = [spool.deliver(0..5), spool.deliver(0..5000), spool.deliver(5..10)];
    assert_eq!(answers.each_mut().map(|answer| answer.now()), [Some(Ok(())), Some(Err(NotSpooled)), Some(Ok(()))]);
    assert_eq!(spool.metrics.spool().dropped_full.get(), 5000);
    assert_eq!(spool.read_numbers(0), range(0..10));
    assert_eq!(spool.deliver(0..0).now(), Some(Ok(())), "nothing is easily spooled");
}

#[test]
fn what_is_held_when_the_spool_closes_stays_with_its_sender() {
    let home = small(WhenFull::DropOldest);
    let mut spool = home.open();
    let (mut answers, _) = overfill(&mut spool);
    let metrics = spool.metrics.spool();
    drop(spool);
    assert_eq!(answers.iter_mut().filter_map(|answer| answer.now()?.err()).count(), 20);
    assert_eq!((metrics.held.get(), metrics.dropped_full.get() + metrics.dropped_error.get()), (0, 0));
}

#[test]
fn a_receipt_is_a_promise_only_after_the_sync() {
    let home = Home::with(|options| options.sync = Sync::Always);
    let mut spool = home.open();
    spool.append(0..5);
    let segments = home.files(".seg").len();
    spool.writer.sync_faults = 1;
    let mut answer = spool.deliver(5..10);
    assert_eq!((answer.now(), spool.read_numbers(0)), (None, range(0..5)));
    spool.again();
    assert_eq!((answer.now(), spool.read_numbers(0)), (Some(Ok(())), range(5..10)));
    assert!(home.files(".seg").len() > segments, "a file of which a sync has failed was believed");
    // Lines of senders that cannot wait are published without that promise.
    spool.writer.sync_faults = 1;
    spool.append(10..15);
    assert_eq!((spool.read_numbers(0), spool.metrics.spool().errors.get()), (range(10..15), 2));
    drop(spool);
    assert_eq!(home.open().read_numbers(0), range(0..15));
}

#[tokio::test]
async fn a_thread_that_holds_goes_on_when_there_is_room() {
    let home = small(WhenFull::DropNewest);
    let metrics = Metrics::new();
    let Spool { writer, mut readers, .. } = Spool::open(home.options.clone(), &metrics).unwrap();
    let (inlet, thread) = writer.spawn(None).unwrap();
    let sender = tokio::spawn(async move {
        for step in 0..200 {
            let lines: Vec<String> = (step * 10..step * 10 + 10).map(line).collect();
            inlet.deliver(batch(&lines), None).await.await.unwrap();
        }
    });
    while metrics.spool().held.get() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut read = Vec::new();
    while readers[0].wait().await {
        while let Some(chunk) = readers[0].next(1 << 12).unwrap() {
            read.extend(chunk.run.lines().map(number));
            readers[0].retire(chunk.end);
        }
    }
    sender.await.unwrap();
    thread.join().unwrap();
    assert_eq!(read, range(0..2000));
}

/// A segment's head has the spool's id and the ledger: without the head and the older segments, the spool would be
/// another one.
#[test]
fn a_new_segments_head_is_synced_before_what_is_older_goes() {
    let home = Home::with(|options| {
        options.sync = Sync::Always;
        options.segment_bytes = 8 << 10;
    });
    let mut spool = home.open();
    spool.append(0..5);
    let first = home.files(".seg");
    // More than two segments of lines, each retired at once. No delivery waits for them, so that only heads are synced.
    for step in 1..100 {
        spool.writer.sync_faults = 10;
        spool.append(step * 5..step * 5 + 5);
        spool.retire_all(0);
        assert_eq!(home.files(".seg"), first);
    }
    spool.writer.sync_faults = 0;
    (100..200).for_each(|step| spool.append(step * 5..step * 5 + 5));
    spool.retire_all(0);
    assert!(!home.files(".seg").contains(&first[0]));
}
