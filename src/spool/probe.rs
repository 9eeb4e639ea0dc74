//! The probe asks the writer's thread whether the spool can be written. Only that thread knows whether it stands still,
//! and whether it could make room. It writes a test file beside the spool, so that asking changes nothing.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout_at;

use super::inlet::{Inlet, Queued, WeakQueueSender};
use super::writer::{LastRefusal, Writer, is_full};
use crate::files;

/// A writer that has not answered in this time stands still. Less than the 3 s that the image's HEALTHCHECK waits.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// An answer is valid for this time, which limits how often the disk is touched.
const ANSWER_HOLDS: Duration = Duration::from_secs(1);
/// An older refusal of the disk says nothing about now. Losses are reported every 5 s, so a line tries the disk again
/// earlier.
const REFUSAL_HOLDS: Duration = Duration::from_secs(10);
/// The size of the test file, in bytes: the longest message by default.
const PROBE_BYTES: usize = 64 << 10;
const PROBE_FILE: &str = "probe";

/// Asks whether the spool can be written.
pub struct Prober {
    queue: WeakQueueSender,
    /// At most one question is open at a time. The lock is held for arithmetic only.
    asked: Mutex<Option<Question>>,
}

/// The time of the writer's answer, and the answer; `None` as long as there is none.
pub(super) type Answered = Option<(Instant, Result<(), String>)>;

/// A question to the writer. All callers get the same answer while the question is open, and shortly after.
#[derive(Clone)]
struct Question {
    asked: Instant,
    answer: watch::Receiver<Answered>,
}

impl Prober {
    /// A prober of the writer behind `inlet`. It does not keep the writer from ending.
    pub fn new(inlet: &Inlet) -> Self {
        Self { queue: inlet.weak_queue(), asked: Mutex::default() }
    }

    /// Whether the disk would take a line now. A spool that is full by its own `max-size` can be written: its policy
    /// decides about the lines. Errors say why the spool cannot be written.
    pub async fn ask(&self) -> Result<(), String> {
        let ended = || Err("the spool is closed: the relay is stopping".to_owned());
        let Some(Question { asked, mut answer }) = self.question() else { return ended() };
        // The time counts from the first question, so a caller learns at once of a writer that has stalled for
        // longer.
        let end = (asked + ANSWER_WITHIN).into();
        match timeout_at(end, answer.wait_for(Option::is_some)).await {
            Ok(Ok(answered)) => answered.as_ref().map_or_else(ended, |(_, answer)| answer.clone()),
            Ok(Err(_)) => ended(),
            Err(_) => Err(format!("the spool's writer has stalled for {ANSWER_WITHIN:?}; is the disk hanging?")),
        }
    }

    /// The open question, or the last one if its answer is still valid, or else a new one. `None`: the writer is gone.
    fn question(&self) -> Option<Question> {
        let mut asked = self.asked.lock();
        if let Some(question) = &*asked
            && question.answer.borrow().as_ref().is_none_or(|(at, _)| at.elapsed() < ANSWER_HOLDS)
        {
            return Some(question.clone());
        }
        let (answered, answer) = watch::channel(None);
        self.queue.upgrade()?.send(Queued::Probe(answered)).ok()?;
        Some(asked.insert(Question { asked: Instant::now(), answer }).clone())
    }
}

#[cfg(test)]
impl Prober {
    /// A prober whose writer does nothing, for as long as the second value lives.
    pub fn of_a_hung_disk() -> (Self, Box<dyn std::any::Any>) {
        let (inlet, queued) = Inlet::new(None, Default::default(), crate::metrics::Metrics::new().spool());
        (Self::new(&inlet), Box::new((inlet, queued)))
    }
}

impl Writer {
    /// Whether the disk takes lines.
    pub(super) fn probe(&mut self) -> Result<(), String> {
        if let Err(error) = self.keep_home() {
            return Err(format!("{} is not the spool's any more: {error}", self.log.dir.display()));
        }
        let dir = &self.log.dir;
        if let Some(LastRefusal { at, why }) = &self.last_refusal
            && at.elapsed() < REFUSAL_HOLDS
        {
            return Err(format!("the disk of {} refuses lines: {why}", dir.display()));
        }
        match write_probe(dir) {
            // Eviction makes room for the next line, and the policy allows it.
            Err(error) if is_full(&error) && self.could_make_space() => Ok(()),
            Err(error) => Err(format!("{} cannot be written: {error}", dir.display())),
            Ok(()) => Ok(()),
        }
    }

    fn could_make_space(&self) -> bool {
        self.log.can_evict() || (self.current.is_some() && self.has_lines() && self.log.all_retired(self.end))
    }
}

fn write_probe(dir: &Path) -> io::Result<()> {
    let path = dir.join(PROBE_FILE);
    let written = files::create(&path).and_then(|mut file| file.write_all(&[0; PROBE_BYTES]));
    // Also removes the part that a full disk has taken.
    let removed = fs::remove_file(&path);
    written.and(removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[tokio::test]
    async fn a_writer_that_stands_still_is_asked_once() {
        let (inlet, mut queued) = Inlet::new(None, Default::default(), Metrics::new().spool());
        let prober = Prober::new(&inlet);
        let (first, second) = tokio::join!(prober.ask(), prober.ask());
        assert!(first.as_ref().is_err_and(|why| why.contains("stalled")), "{first:?}");
        assert_eq!((first, queued.len()), (second, 1));
        // The next call gets the answer to the open question at once.
        let Ok(Queued::Probe(answer)) = queued.try_recv() else { panic!("a probe") };
        answer.send_replace(Some((Instant::now(), Ok(()))));
        assert_eq!((prober.ask().await, queued.len()), (Ok(()), 0));
        // An old answer is not valid.
        answer.send_replace(Some((Instant::now() - ANSWER_HOLDS, Ok(()))));
        assert!(prober.ask().await.is_err_and(|why| why.contains("stalled")));
        let Ok(Queued::Probe(answer)) = queued.try_recv() else { panic!("another probe") };
        answer.send_replace(Some((Instant::now() - ANSWER_HOLDS, Ok(()))));
        // The prober does not keep the queue open.
        drop(inlet);
        assert!(prober.ask().await.is_err_and(|why| why.contains("stopping")));
    }
}
