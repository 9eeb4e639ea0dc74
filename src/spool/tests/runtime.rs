//! Changes while the spool is open: forwards come and go, limits change.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::keeper::{self, Job, Work};
use super::*;

fn fill(spool: &mut Open, steps: u64) {
    (0..steps).for_each(|step| spool.append(step * 5..step * 5 + 5));
}

#[test]
fn a_forward_can_come_while_the_spool_runs() {
    let home = Home::new();
    let mut spool = home.open();
    fill(&mut spool, 8);
    let reader = now(spool.handle.add_reader("b", &spool.metrics)).unwrap();
    spool.readers.push(reader);
    // All lines ever spooled are still there, so its books are those of a reader that was there from the start.
    spool.pending_at_start.push(0);
    assert_eq!((spool.readers[1].unretired(), spool.read_numbers(1)), (40, range(0..40)));
    spool.retire_all(0);
    let segments = home.files(".seg").len();
    assert!(segments > 1, "it holds nothing back");
    let end = spool.writer.end;
    spool.readers[1].retire(end);
    assert_eq!(home.files(".seg").len(), 1);
}

#[test]
fn a_forward_that_came_back_goes_on_where_it_was() {
    let mut home = Home::with(|options| options.forwards = vec!["a".into(), "b".into()]);
    let mut spool = home.open();
    fill(&mut spool, 4);
    let chunk = spool.readers[1].next(300).unwrap().unwrap();
    spool.readers[1].retire(chunk.end);
    drop(spool);
    home.options.forwards.pop();
    let mut spool = home.open();
    let reader = now(spool.handle.add_reader("b", &spool.metrics)).unwrap();
    assert_eq!(reader.position(), chunk.end);
    spool.pending_at_start.push(reader.pending());
    spool.readers.push(reader);
    assert_eq!(spool.read_numbers(1), range(chunk.end.line..20));
    spool.check_books();
}

#[test]
fn a_dropped_reader_stays_known_and_a_forgotten_one_does_not() {
    let home = Home::with(|options| options.forwards = vec!["a".into(), "b".into()]);
    let mut spool = home.open();
    fill(&mut spool, 4);
    spool.retire_all(0);
    let again = now(spool.handle.add_reader("b", &spool.metrics)).err().unwrap();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);

    let chunk = spool.readers[1].next(300).unwrap().unwrap();
    spool.readers[1].retire(chunk.end);
    spool.readers.pop();
    fill(&mut spool, 4);
    spool.retire_all(0);
    assert!(home.files(".seg").len() > 1, "what waited for a dropped reader is gone");
    let reader = now(spool.handle.add_reader("b", &spool.metrics)).unwrap();
    assert_eq!((reader.position(), reader.unretired()), (chunk.end, 40 - chunk.end.line));

    reader.forget();
    assert_eq!((home.files(".seg").len(), home.files("cursor.b").len()), (1, 0));
    let metrics = spool.metrics.forward("b");
    assert_eq!((metrics.pending(), metrics.replayable()), (0, 0));
    // A later forward of the same name begins as a new one.
    fill(&mut spool, 1);
    let reader = now(spool.handle.add_reader("b", &spool.metrics)).unwrap();
    assert_eq!(reader.unretired(), 45 - reader.position().line);
}

/// The demo removes its directory once its relay has ended.
#[test]
fn nothing_is_written_behind_the_last_answer() {
    let home = Home::new();
    let spool = home.open();
    let log = spool.writer.log.clone();
    let users = Arc::strong_count(&log);
    let (jobs, queued) = mpsc::channel();
    let (answer, settled) = oneshot::channel();
    // The second job waits until cursors may be written again.
    for job in [Job::WriteCursors, Job::WriteCursors, Job::Settle(answer)] {
        jobs.send((log.clone(), job)).unwrap();
    }
    let weak = Arc::downgrade(&log);
    let keeper = thread::spawn(move || keeper::run(Work::default(), weak, &queued));
    settled.blocking_recv().unwrap();
    fs::remove_dir_all(home.dir.path()).unwrap();
    // A waiting job holds a reference to its log.
    let deadline = Instant::now() + Duration::from_secs(20);
    while Arc::strong_count(&log) > users {
        assert!(Instant::now() < deadline, "a job waits for ever");
        thread::yield_now();
    }
    drop(jobs);
    keeper.join().unwrap();
    assert_eq!(spool.metrics.spool().errors.get(), 0);
}

#[test]
fn a_spool_made_smaller_or_larger_keeps_to_it() {
    for when_full in [WhenFull::DropOldest, WhenFull::DropNewest] {
        let home = Home::with(|options| options.max_bytes = 1 << 20);
        let mut spool = home.open();
        fill(&mut spool, 1000);
        assert!(home.segment_bytes() > 200 << 10);
        spool.handle.set_limits(100 << 10, when_full);
        let before = home.segment_bytes();
        spool.writer.fit();
        spool.check_books();
        match when_full {
            WhenFull::DropOldest => assert!(home.segment_bytes() <= 100 << 10, "it waits for a line"),
            WhenFull::DropNewest => assert_eq!(home.segment_bytes(), before, "old lines are given up"),
        }
        spool.append(5000..5005);
        match when_full {
            WhenFull::DropOldest => assert!(home.segment_bytes() <= 100 << 10 && spool.evicted(0) > 0),
            WhenFull::DropNewest => assert_eq!(spool.metrics.spool().dropped_full.get(), 5),
        }
        spool.read_numbers(0);
        spool.retire_all(0);
        fill(&mut spool, 1000);
        assert!(home.segment_bytes() <= 100 << 10);
        let before = spool.spooled();
        spool.handle.set_limits(8 << 20, WhenFull::DropNewest);
        fill(&mut spool, 2000);
        assert_eq!(spool.spooled() - before, 10_000);
        spool.handle.set_limits(0, WhenFull::DropOldest);
        spool.append(0..5);
        assert_eq!(spool.read_numbers(0).last(), Some(&4));
    }
}

#[test]
fn what_is_held_goes_in_when_the_spool_is_made_larger() {
    let home = Home::with(|options| options.max_bytes = 64 << 10);
    let mut spool = home.open();
    let mut answer = loop {
        let mut answer = spool.deliver(0..50);
        if answer.now().is_none() {
            break answer;
        }
    };
    spool.handle.set_limits(1 << 20, WhenFull::DropOldest);
    spool.again();
    assert_eq!((answer.now(), spool.evicted(0)), (Some(Ok(())), 0));
}

/// The writer may be slower than its rate, and must not be faster.
#[test]
fn a_writer_with_a_rate_is_not_faster() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = Metrics::new();
    let options = Options { max_rate: Some(8 << 20), ..Options::new(dir.path(), 64 << 20, vec!["a".into()]) };
    let Spool { writer, .. } = Spool::open(options, &metrics).unwrap();
    let began = Instant::now();
    let (inlet, thread) = writer.spawn(None).unwrap();
    for _ in 0..5 {
        let mut batch = Batch::new();
        batch.push(|out| out.resize(1 << 20, b'x'));
        inlet.send_blocking(batch);
    }
    // The writer ends when all senders are gone, and then waits for nothing.
    while metrics.spool().spooled.get() < 4 {
        std::thread::yield_now();
    }
    assert!(began.elapsed() >= Duration::from_millis(3 * 125), "{:?}", began.elapsed());
    drop(inlet);
    thread.join().unwrap();
    assert_eq!(metrics.spool().spooled.get(), 5);
}

/// One errand brings many lines, and the reader returns them in chunks of the size that the caller asks for.
#[test]
fn what_is_read_ahead_comes_in_pieces_of_any_size() {
    let home = Home::new();
    let mut spool = home.open();
    fill(&mut spool, 40);
    spool.writer.log.forget_fresh();
    let (_jobs, errands) = spool.writer.log.hang();
    assert!(spool.readers[0].next(300).unwrap().is_none());
    errands.try_iter().for_each(|errand| errand.run());
    let mut lines = Vec::new();
    while let Some(chunk) = spool.readers[0].next(if lines.len() < 20 { 1 } else { 1 << 20 }).unwrap() {
        assert!(chunk.start.line == lines.len() as u64 && (lines.len() >= 20 || chunk.run.line_count() == 1));
        lines.extend(chunk.lines().map(|(line, _)| number(line)));
        assert_eq!(chunk.end.line, lines.len() as u64);
    }
    assert!(lines.len() > 50 && lines == range(0..lines.len() as u64), "{lines:?}");
    assert_eq!(errands.try_iter().count(), 1, "more is read when all of it is had");
}

/// The threads hang, and no call of a forward waits for them. Their requests do not pile up.
#[test]
fn a_disk_that_hangs_holds_no_reader() {
    let home = Home::new();
    let mut spool = home.open();
    fill(&mut spool, 4);
    spool.writer.log.forget_fresh();
    let (jobs, errands) = spool.writer.log.hang();
    for _ in 0..3 {
        assert!(spool.readers[0].next(100).unwrap().is_none());
        assert!(spool.readers[0].is_reading());
        assert_eq!(spool.readers[0].rewind(), 0);
    }
    let late = errands.try_iter().collect::<Vec<_>>();
    assert_eq!(late.len(), 1, "one read at a time");
    // A late result is stale by then: the lines are read again.
    late.into_iter().for_each(|errand| errand.run());
    assert!(now(spool.readers[0].wait()) && spool.readers[0].next(100).unwrap().is_none());
    errands.try_iter().for_each(|errand| errand.run());
    assert!(now(spool.readers[0].wait()));
    let chunk = spool.readers[0].next(100).unwrap().expect("lines");
    assert_eq!((chunk.start.line, spool.readers[0].rewind()), (0, chunk.end.line));
    for line in 1..=chunk.end.line {
        spool.readers[0].retire(Position { line, ..chunk.end });
    }
    assert_eq!((spool.delivered(0), jobs.try_iter().count()), (chunk.end.line, 1), "one job for all positions");
    // The last written lines need no disk, even if it hangs.
    spool.retire_all(0);
    spool.append(20..25);
    assert_eq!(spool.read_numbers(0), range(20..25));
    assert!(errands.try_iter().next().is_none());
    spool.check_books();
}
