//! The probe: whether the spool can be written, asked of the thread that writes it. That thread alone knows whether it
//! stands still, and whether it could make room; and what it tries is not the spool but a file beside it, so that asking
//! changes nothing.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::WeakUnboundedSender;
use tokio::sync::{Mutex, oneshot};
use tokio::time::timeout;

use super::inlet::{Inlet, Queued};
use super::writer::{LastRefusal, Writer, is_full};
use crate::files;

/// A writer that has not answered by then stands still. Below the 3 s that our image's HEALTHCHECK waits.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// An answer is good for so long: however often it is asked, the disk is touched no more than this.
const ANSWER_HOLDS: Duration = Duration::from_secs(1);
/// What the disk refused so long ago says nothing about now. Losses are told every 5 s, so it is tried again before.
const REFUSAL_HOLDS: Duration = Duration::from_secs(10);
/// What is written to try, in bytes: the longest message there is by default.
const PROBE_BYTES: usize = 64 << 10;
const PROBE_FILE: &str = "probe";

/// Asks whether the spool can be written.
pub struct Prober {
    queue: WeakUnboundedSender<Queued>,
    asked: Mutex<Asked>,
}

#[derive(Default)]
struct Asked {
    last: Option<(Instant, Result<(), String>)>,
    /// A question without an answer yet: there is never more than one in the queue.
    open: Option<oneshot::Receiver<Result<(), String>>>,
}

impl Prober {
    /// Asks the writer behind `inlet`, and does not keep it from ending.
    pub fn new(inlet: &Inlet) -> Self {
        Self { queue: inlet.weak_queue(), asked: Mutex::default() }
    }

    /// Whether a line that came now would be spooled, as far as the disk has a say in it. A spool that is full by its own
    /// `max-size` can be written: what becomes of lines then is its policy's choice. Errors say why not.
    pub async fn ask(&self) -> Result<(), String> {
        let mut asked = self.asked.lock().await;
        if let Some((at, answer)) = &asked.last
            && at.elapsed() < ANSWER_HOLDS
        {
            return answer.clone();
        }
        let answer = self.answer(&mut asked.open).await;
        asked.last = Some((Instant::now(), answer.clone()));
        answer
    }

    async fn answer(&self, open: &mut Option<oneshot::Receiver<Result<(), String>>>) -> Result<(), String> {
        let ended = || Err("the spool is closed: the relay is stopping".to_owned());
        // Who asks may leave before there is an answer: the question stays open.
        let waiting = match open {
            Some(waiting) => waiting,
            None => {
                let (answer, waiting) = oneshot::channel();
                let asked = self.queue.upgrade().is_some_and(|queue| queue.send(Queued::Probe(answer)).is_ok());
                if !asked {
                    return ended();
                }
                open.insert(waiting)
            }
        };
        match timeout(ANSWER_WITHIN, waiting).await {
            Ok(answer) => {
                *open = None;
                answer.unwrap_or_else(|_| ended())
            }
            Err(_) => Err(format!("the spool's writer has stood still for {ANSWER_WITHIN:?}; is the disk hanging?")),
        }
    }
}

impl Writer {
    /// Whether the disk takes what is written.
    pub(super) fn probe(&self) -> Result<(), String> {
        let dir = &self.log.dir;
        if let Some(LastRefusal { at, why }) = &self.last_refusal
            && at.elapsed() < REFUSAL_HOLDS
        {
            return Err(format!("the disk of {} refuses lines: {why}", dir.display()));
        }
        match write_probe(dir) {
            // There is room for the next line, at the price of older ones; the policy says that it may be paid.
            Err(error) if is_full(&error) && self.could_make_room() => Ok(()),
            Err(error) => Err(format!("{} cannot be written: {error}", dir.display())),
            Ok(()) => Ok(()),
        }
    }

    fn could_make_room(&self) -> bool {
        self.log.can_evict() || (self.current.is_some() && self.has_lines() && self.log.all_retired(self.end))
    }
}

fn write_probe(dir: &Path) -> io::Result<()> {
    let path = dir.join(PROBE_FILE);
    let written = files::create(&path).and_then(|mut file| file.write_all(&[0; PROBE_BYTES]));
    // Also what a full disk took of it.
    let removed = fs::remove_file(&path);
    written.and(removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[tokio::test]
    async fn a_writer_that_stands_still_is_asked_once() {
        let (inlet, mut queued) = Inlet::new(None, Metrics::new().spool());
        let prober = Prober::new(&inlet);
        let (first, second) = tokio::join!(prober.ask(), prober.ask());
        assert!(first.as_ref().is_err_and(|why| why.contains("stood still")), "{first:?}");
        assert_eq!((first, queued.len()), (second, 1));
        // The one that is open is waited for when the answer is no longer good.
        prober.asked.lock().await.last = None;
        let Ok(Queued::Probe(answer)) = queued.try_recv() else { panic!("a probe") };
        answer.send(Ok(())).expect("somebody waits");
        assert_eq!((prober.ask().await, queued.len()), (Ok(()), 0));
        // It does not keep the queue open.
        prober.asked.lock().await.last = None;
        drop(inlet);
        assert!(prober.ask().await.is_err_and(|why| why.contains("stopping")));
    }
}
