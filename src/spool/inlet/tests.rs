//! The inlet without a writer behind it, and its end.

use super::*;
use crate::metrics::Metrics;
use crate::spool::{Options, Reader, Spool};

fn batch(lines: usize) -> Batch {
    let mut batch = Batch::new();
    (0..lines).for_each(|n| batch.push(|out| out.extend_from_slice(format!("line {n}").as_bytes())));
    batch
}

/// An inlet with room for `kib`, whose writer takes nothing until the test takes it from the queue.
fn stuck(kib: u32) -> (Inlet, QueueReceiver) {
    let patience = Some(Duration::from_millis(1));
    let (inlet, queued) = Inlet::with_budget(Budget::new(kib), patience, Arc::default(), Metrics::new().spool());
    (Inlet { delivery_budget: Arc::new(Semaphore::new(kib as usize)), ..inlet }, queued)
}

fn lines_of(queued: Option<Queued>) -> u64 {
    match queued.unwrap() {
        Queued::Sent { batch, .. } => batch.line_count(),
        Queued::Delivered(delivery) => delivery.batch.line_count(),
        Queued::Probe(_) | Queued::Fit => 0,
    }
}

#[test]
fn a_stalled_writer_holds_a_thread_no_longer_than_its_patience() {
    let (mut inlet, mut queued) = stuck(2);
    for _ in 0..5 {
        inlet.send_blocking(batch(3));
    }
    assert_eq!(inlet.metrics.dropped_stalled.get(), 9);
    // Stalled: from now on no sender waits, or this would take a year.
    inlet.patience = Some(Duration::from_secs(3 << 24));
    inlet.send_blocking(batch(1));
    assert_eq!(inlet.metrics.dropped_stalled.get(), 10);
    drop(queued.try_recv().unwrap());
    inlet.send_blocking(batch(1));
    assert!(!inlet.budget.stalled.load(Ordering::Relaxed));
    assert_eq!(inlet.metrics.dropped_stalled.get(), 10);
}

#[tokio::test]
async fn a_stalled_writer_holds_a_task_no_longer_than_its_patience() {
    let (mut inlet, mut queued) = stuck(2);
    for _ in 0..5 {
        inlet.send(batch(3)).await;
    }
    assert_eq!(inlet.metrics.dropped_stalled.get(), 9);
    inlet.patience = Some(Duration::from_secs(3 << 24));
    inlet.send(batch(1)).await;
    assert_eq!(inlet.metrics.dropped_stalled.get(), 10);

    // A sender without a limit to its patience gets its batch through.
    let endless = inlet.with_patience(None);
    let waiting = tokio::spawn(async move { endless.send(batch(7)).await });
    drop(queued.try_recv().unwrap());
    waiting.await.unwrap();
    inlet.send(Batch::new()).await;
    assert_eq!(lines_of(queued.try_recv().ok()), 3);
    assert_eq!(lines_of(queued.try_recv().ok()), 7);
    assert!(queued.try_recv().is_err(), "an empty batch was queued");
    assert_eq!(inlet.metrics.dropped_stalled.get(), 10);
}

#[test]
fn the_queue_is_bounded_by_memory_and_not_by_lines() {
    let (inlet, queued) = stuck(QUEUE_KIB);
    for _ in 0..1000 {
        let mut batch = Batch::with_capacity(256 << 10);
        batch.push(|out| out.extend_from_slice(b"one line in a large buffer"));
        inlet.send_blocking(batch);
    }
    assert_eq!(queued.len(), 1000, "memory that is not used was not given back");
    let mut huge = Batch::new();
    (0..9).for_each(|_| huge.push(|out| out.resize(out.len() + (1 << 20), b'x')));
    inlet.send_blocking(huge.clone());
    assert_eq!(inlet.metrics.dropped_stalled.get(), 9);
    let (inlet, _queued) = stuck(QUEUE_KIB);
    inlet.send_blocking(huge);
    assert_eq!(inlet.metrics.dropped_stalled.get(), 0, "larger than the queue, but alone in it");
}

#[tokio::test]
async fn senders_that_wait_take_nothing_from_the_others() {
    let (inlet, mut queued) = stuck(2);
    drop((inlet.deliver(batch(1), None).await, inlet.deliver(batch(1), None).await));
    let theirs = inlet.clone();
    let third = tokio::spawn(async move { drop(theirs.deliver(batch(5), None).await) });
    tokio::task::yield_now().await;
    assert!(!third.is_finished(), "there was no room");
    inlet.send(batch(3)).await;
    inlet.send_blocking(batch(3));
    assert_eq!(inlet.metrics.dropped_stalled.get(), 0);
    drop(queued.try_recv());
    third.await.unwrap();
    let rest: Vec<u64> = std::iter::from_fn(|| queued.try_recv().ok()).map(|one| lines_of(Some(one))).collect();
    assert_eq!(rest, [1, 3, 3, 5]);
}

#[tokio::test]
async fn streams_wait_where_datagrams_still_have_room() {
    let (inlet, mut queued) = stuck(QUEUE_KIB);
    let streams = inlet.of_streams();
    for _ in 0..2 * STREAMS_KIB {
        streams.send(batch(1)).await;
    }
    assert_eq!(inlet.metrics.dropped_stalled.get(), u64::from(STREAMS_KIB));
    inlet.send_blocking(batch(1));
    assert_eq!(inlet.metrics.dropped_stalled.get(), u64::from(STREAMS_KIB));
    // The batch in the other budget changes nothing here: no stream sender waits again for a writer that stands still.
    let forever = Inlet { patience: Some(Duration::from_secs(3 << 24)), ..streams };
    forever.send(batch(1)).await;
    assert_eq!(inlet.metrics.dropped_stalled.get(), u64::from(STREAMS_KIB) + 1);
    drop(queued.try_recv());
    forever.send(batch(1)).await;
    assert_eq!(inlet.metrics.dropped_stalled.get(), u64::from(STREAMS_KIB) + 1);
}

#[tokio::test]
async fn streams_are_read_in_turn() {
    let (inlet, _queued) = stuck(1);
    let mut turns = Vec::new();
    for _ in 0..TURNS {
        turns.push(inlet.of_streams().turn().await);
    }
    let next = inlet.of_streams();
    let waiting = tokio::spawn(async move { next.turn().await.is_some() });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished(), "one too many");
    turns.pop();
    assert!(waiting.await.unwrap());
}

async fn read_to_the_end(mut reader: Reader) -> u64 {
    let mut lines = 0;
    while reader.wait().await {
        while let Some(chunk) = reader.next(1 << 10).unwrap() {
            lines += chunk.run.line_count();
            reader.retire(chunk.end);
        }
    }
    assert_eq!(reader.unretired(), 0);
    lines
}

#[tokio::test]
async fn shutdown_walks_the_way_a_message_walks() {
    for sync in [crate::spool::Sync::Always, crate::spool::Sync::Every(NAP), crate::spool::Sync::Never] {
        let dir = tempfile::tempdir().unwrap();
        let metrics = Metrics::new();
        let options = Options { sync, ..Options::new(dir.path(), 64 << 20, vec!["a".into(), "b".into()]) };
        let Spool { writer, mut readers, .. } = Spool::open(options, &metrics).unwrap();
        let (inlet, thread) = writer.spawn(None).unwrap();
        let (b, a) = (readers.pop().unwrap(), readers.pop().unwrap());
        let (a, b) = (tokio::spawn(read_to_the_end(a)), tokio::spawn(read_to_the_end(b)));

        let other = inlet.with_patience(Some(Duration::from_secs(5)));
        let sender = thread::spawn(move || (0..200).for_each(|_| other.send_blocking(batch(10))));
        for _ in 0..200 {
            inlet.send(batch(10)).await;
        }
        drop(inlet);
        assert_eq!((a.await.unwrap(), b.await.unwrap()), (4000, 4000));
        sender.join().unwrap();
        thread.join().unwrap();
        assert_eq!((metrics.spool().spooled.get(), metrics.spool().errors.get()), (4000, 0));
    }
}

#[test]
fn small_batches_share_a_wake_up_and_a_large_one_has_its_own() {
    let (inlet, _queued) = stuck(QUEUE_KIB);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let is_to_wake = || inlet.queue.wakes_soon();
    runtime.block_on(async {
        inlet.send(batch(1)).await;
        assert!(is_to_wake(), "a task does so");
        drop(inlet.deliver(batch(1), None).await);
        inlet.of_streams().send(batch(1)).await;
        tokio::task::yield_now().await;
        assert!(!is_to_wake());
        inlet.send(batch(10_000)).await;
        assert!(!is_to_wake());
    });
}

#[test]
fn a_writer_is_woken_even_if_the_runtime_ends_before() {
    let (inlet, mut queued) = stuck(QUEUE_KIB);
    let (tell, told) = std::sync::mpsc::channel();
    let writer = thread::spawn(move || {
        while let Some(one) = queued.wait() {
            tell.send(lines_of(Some(one))).unwrap();
        }
    });
    // From here on the writer waits.
    inlet.send_blocking(batch(1));
    assert_eq!(told.recv(), Ok(1));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    // Nothing runs the task that wakes the writer. A clone of the inlet that is dropped would wake it too.
    let streams = inlet.of_streams();
    runtime.block_on(inlet.send(batch(3)));
    runtime.block_on(streams.send(batch(4)));
    drop(runtime);
    assert_eq!((told.recv(), told.recv()), (Ok(3), Ok(4)));
    drop((inlet, streams));
    writer.join().unwrap();
}

#[tokio::test]
async fn small_batches_that_are_written_together_are_read_together() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new(dir.path(), 64 << 20, vec!["a".into()]);
    let Spool { writer, mut readers, .. } = Spool::open(options, &Metrics::new()).unwrap();
    let (inlet, queued) = Inlet::new(None, writer.log.fill.clone(), writer.log.metrics.clone());
    for lines in 1..=10 {
        inlet.send_blocking(batch(lines));
    }
    let large = 10_000;
    inlet.send_blocking(batch(large));
    drop(inlet);
    // It finds all of them, and ends.
    writer.run(queued);
    let chunk = readers[0].next(1 << 20).unwrap().expect("the small ones");
    assert_eq!(chunk.run.line_count(), (1..=10).sum::<usize>() as u64);
    let lines: Vec<_> = chunk.run.lines().collect();
    assert_eq!((lines[0], lines[2], lines[54]), (&b"line 0"[..], &b"line 1"[..], &b"line 9"[..]));
    assert_eq!(readers[0].next(1 << 20).unwrap().expect("the large one").run.line_count(), large as u64);
    assert!(readers[0].next(1 << 20).unwrap().is_none());
}
