//! The probe: whether the spool can be written, asked of the thread that writes it. That thread alone knows whether it
//! stands still, and whether it could make room; and what it tries is not the spool but a file beside it, so that asking
//! changes nothing.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::mpsc::WeakUnboundedSender;
use tokio::sync::watch;
use tokio::time::timeout_at;

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
    /// There is never more than one question without an answer; held for arithmetic only.
    asked: Mutex<Option<Question>>,
}

/// When the writer answered, and what: `None`, as long as it has not.
pub(super) type Answered = Option<(Instant, Result<(), String>)>;

/// What the writer was asked. Everybody who asks meanwhile, or soon after, gets the answer to it.
#[derive(Clone)]
struct Question {
    asked: Instant,
    answer: watch::Receiver<Answered>,
}

impl Prober {
    /// Asks the writer behind `inlet`, and does not keep it from ending.
    pub fn new(inlet: &Inlet) -> Self {
        Self { queue: inlet.weak_queue(), asked: Mutex::default() }
    }

    /// Whether a line that came now would be spooled, as far as the disk has a say in it. A spool that is full by its own
    /// `max-size` can be written: what becomes of lines then is its policy's choice. Errors say why not.
    pub async fn ask(&self) -> Result<(), String> {
        let ended = || Err("the spool is closed: the relay is stopping".to_owned());
        let Some(Question { asked, mut answer }) = self.question() else { return ended() };
        // Whoever asks a writer that has stalled for so long already hears it at once.
        let end = (asked + ANSWER_WITHIN).into();
        match timeout_at(end, answer.wait_for(Option::is_some)).await {
            Ok(Ok(answered)) => answered.as_ref().map_or_else(ended, |(_, answer)| answer.clone()),
            Ok(Err(_)) => ended(),
            Err(_) => Err(format!("the spool's writer has stalled for {ANSWER_WITHIN:?}; is the disk hanging?")),
        }
    }

    /// The one that is open, or whose answer still holds; else a new one. `None`: there is nobody to ask any more.
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
    /// Whether the disk takes what is written.
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
            // There is room for the next line, at the price of older ones; the policy says that it may be paid.
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
        let (inlet, mut queued) = Inlet::new(None, Default::default(), Metrics::new().spool());
        let prober = Prober::new(&inlet);
        let (first, second) = tokio::join!(prober.ask(), prober.ask());
        assert!(first.as_ref().is_err_and(|why| why.contains("stalled")), "{first:?}");
        assert_eq!((first, queued.len()), (second, 1));
        // Whoever asks now hears at once what the one that is open has come to.
        let Ok(Queued::Probe(answer)) = queued.try_recv() else { panic!("a probe") };
        answer.send_replace(Some((Instant::now(), Ok(()))));
        assert_eq!((prober.ask().await, queued.len()), (Ok(()), 0));
        // An answer from long ago is none.
        answer.send_replace(Some((Instant::now() - ANSWER_HOLDS, Ok(()))));
        assert!(prober.ask().await.is_err_and(|why| why.contains("stalled")));
        let Ok(Queued::Probe(answer)) = queued.try_recv() else { panic!("another probe") };
        answer.send_replace(Some((Instant::now() - ANSWER_HOLDS, Ok(()))));
        // It does not keep the queue open.
        drop(inlet);
        assert!(prober.ask().await.is_err_and(|why| why.contains("stopping")));
    }
}
