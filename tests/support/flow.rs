//! A container that keeps printing while a test does other things.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Docker, Door, Format, eventually};

/// Numbered messages that flow until the test ends them.
pub struct Flow {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Flow {
    pub fn into(door: &Door) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, counter, mut wire) = (stop.clone(), sent.clone(), door.connect());
        let thread = std::thread::spawn(move || {
            let container = Docker::new(Format::Rfc5424Micro, "web");
            while !stopped.load(Ordering::Relaxed) {
                let number = counter.load(Ordering::Relaxed);
                wire.says(&container, number.to_string().as_bytes());
                counter.store(number + 1, Ordering::Relaxed);
                // A pace, and no wait for a condition: hundreds of lines per second, like a busy container.
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Self { stop, sent, thread }
    }

    /// Waits for `more` further messages.
    pub fn goes_on(&self, more: usize) {
        let goal = self.sent.load(Ordering::Relaxed) + more;
        eventually("more is sent", || (self.sent.load(Ordering::Relaxed) >= goal).then_some(()));
    }

    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    /// Stops the flow and returns the number of messages sent.
    pub fn ends(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the relay takes everything");
        self.sent.load(Ordering::Relaxed)
    }
}
