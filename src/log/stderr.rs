//! A thread that writes to standard error, so that a full pipe or a slow disk does not hold the relay. Lines that do not fit into its
//! queue are dropped.

use std::io::Write;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

/// Lines that may wait. As many again may be in the current write.
const MAX_QUEUED: usize = 1000;
/// How long the last lines may take.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

/// The queue of the writing thread.
pub struct Stderr(Arc<Shared>);

/// Dropping the value waits until all lines are written, for [`FLUSH_WITHIN`] at most.
pub struct FlushOnDrop(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    lines: Vec<String>,
    /// No further line will come.
    over: bool,
    /// The thread has written every line and ended.
    written: bool,
}

/// Starts the thread, which writes lines to `out`.
pub fn start(out: impl Write + Send + 'static) -> (Stderr, FlushOnDrop) {
    let shared = Arc::new(Shared::default());
    let writing = shared.clone();
    let write = move || writing.write(out);
    thread::Builder::new().name("log".into()).spawn(write).expect("the system has a thread left at start");
    (Stderr(shared.clone()), FlushOnDrop(shared))
}

impl Stderr {
    pub fn write(&self, line: String) {
        let mut queue = self.0.lock();
        if queue.lines.len() < MAX_QUEUED {
            queue.lines.push(line);
            self.0.changed.notify_all();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock()
    }

    fn write(&self, mut out: impl Write) {
        loop {
            let idle = |queue: &mut Queue| queue.lines.is_empty() && !queue.over;
            let mut queue = self.lock();
            self.changed.wait_while(&mut queue, idle);
            let lines = std::mem::take(&mut queue.lines);
            if lines.is_empty() {
                queue.written = true;
                self.changed.notify_all();
                return;
            }
            drop(queue);
            // A failed write is not reported: there is no other place to report it.
            let _ = out.write_all(lines.concat().as_bytes());
        }
    }
}

impl Drop for FlushOnDrop {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.over = true;
        self.0.changed.notify_all();
        self.0.changed.wait_while_for(&mut queue, |queue| !queue.written, FLUSH_WITHIN);
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Takes one write for each permit.
    struct Pipe {
        permits: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.permits.recv().map_err(io::Error::other)?;
            self.written.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_pipe_that_nobody_reads_holds_nobody() {
        let ((permit, permits), (written, arrived)) = (channel(), channel());
        let (stderr, end) = start(Pipe { permits, written });
        (0..10 * MAX_QUEUED).for_each(|n| stderr.write(format!("{n}\n")));
        (0..10).for_each(|_| permit.send(()).unwrap());
        drop(end);
        let text = String::from_utf8(arrived.try_iter().flatten().collect()).unwrap();
        let lines: Vec<usize> = text.lines().map(|line| line.parse().unwrap()).collect();
        assert!((MAX_QUEUED..=2 * MAX_QUEUED).contains(&lines.len()), "{}", lines.len());
        assert!(lines.is_sorted() && lines[0] == 0, "in order, from the first on");
    }

    #[test]
    fn what_was_said_last_is_written() {
        let ((permit, permits), (written, arrived)) = (channel(), channel());
        let (stderr, end) = start(Pipe { permits, written });
        stderr.write("the last words\n".to_owned());
        permit.send(()).unwrap();
        drop(end);
        assert_eq!(arrived.try_recv().unwrap(), b"the last words\n");
        stderr.write("too late\n".to_owned());
    }
}
