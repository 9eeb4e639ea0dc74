//! The spool as a link sees it: the next lines, and their outcome.

use std::io;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::sleep_until;

use super::delivery::{Progress, Reason, Refusals, Rejected};
use super::filtered_chunk::FilteredChunk;
use super::half_closed::{HalfClosed, Stretch, Teller};
use super::lines::Lines;
use super::log_limiter::LogLimiter;
use crate::log::Throttle;
use crate::loops::{Marker, Marks};
use crate::metrics::ForwardMetrics;
use crate::protocol::api::ORIGINAL_TIME;
use crate::protocol::relp::Numbering;
use crate::shape::{Shape, Tally};
use crate::spool::{Hysteresis, Position};
use crate::status::SharedForwardStatus;

/// Bytes of records taken from the spool at once: one write to the link. They are few, so that little is sent twice after a broken
/// connection.
const CHUNK_BYTES: usize = 64 * 1024;

/// The wait before a disk that cannot be read or written is tried again. It may come back.
const DISK_RETRY: Duration = Duration::from_secs(1);

/// How often the log reports that lines are rejected, or sent with another time.
const TELL_EVERY: Duration = Duration::from_secs(600);

pub struct Source {
    lines: Lines,
    shape: Shape,
    /// Decides which lines are marked; `None`: no line ever is.
    marker: Option<Marker>,
    metrics: ForwardMetrics,
    /// Lines below this number were sent before, or may have been.
    sent: u64,
    /// True: the forward ends, and the rest stays in the spool.
    leaving: watch::Receiver<bool>,
    /// Connections that were left and are not settled, and the signal that one of them has news.
    half_closed: HalfClosed,
    news: watch::Receiver<()>,
    /// The spool cannot be read.
    unreadable: Hysteresis,
    /// When to try to read it again.
    retry_at: Option<Instant>,
    /// A dead letter cannot be written.
    unwritable: Hysteresis,
    /// The lines that collectors have refused. The link holds them while it carries.
    pub refusals: Refusals,
    /// The last verdict was *stop*, and nothing has been delivered since.
    stopped: bool,
    /// Lines delivered since the start.
    delivered: u64,
    /// Limits the log line about rejected lines.
    throttle: Throttle,
    /// Limits the log line about lines with the time of sending.
    restamped: Throttle,
    state: SharedForwardStatus,
    limiter: Arc<LogLimiter>,
}

impl Source {
    pub fn new(
        (lines, marker): (Lines, Option<Marker>),
        shape: Shape,
        (metrics, state): (ForwardMetrics, SharedForwardStatus),
        limiter: Arc<LogLimiter>,
        (leaving, half_closed): (watch::Receiver<bool>, HalfClosed),
    ) -> Self {
        metrics.stopped.set(0);
        let mut source = Self {
            sent: lines.acknowledged().line,
            lines,
            shape,
            marker,
            metrics,
            leaving,
            news: half_closed.news(),
            half_closed,
            unreadable: Hysteresis::default(),
            retry_at: None,
            unwritable: Hysteresis::default(),
            refusals: Refusals::default(),
            stopped: false,
            delivered: 0,
            throttle: Throttle::new(TELL_EVERY),
            restamped: Throttle::new(TELL_EVERY),
            state,
            limiter,
        };
        source.rewind();
        source
    }

    /// The next lines, which are about to be sent; `None` when there are none now: everything has been read, the disk is being
    /// read or fails, or nothing more shall be sent. [`wait`](Self::wait) says when to ask again. Does not wait for a disk.
    pub async fn next(&mut self) -> Option<FilteredChunk> {
        self.next_of(CHUNK_BYTES).await
    }

    /// The next lines, about this many bytes of them but at least one line.
    pub async fn next_of(&mut self, bytes: usize) -> Option<FilteredChunk> {
        let lines = self.read(bytes).await?;
        self.metrics.resent.inc_by(lines.count_before(self.sent));
        self.sent = self.sent.max(lines.end().line);
        Some(lines)
    }

    async fn read(&mut self, bytes: usize) -> Option<FilteredChunk> {
        let mut lines = self.next_chunk(bytes)?;
        if let Some(marker) = &mut self.marker
            && let marks @ (Marks::First | Marks::All) = marker.marks()
        {
            lines.mark(marks, marker.mark(), self.shape.sd_id());
        }
        self.lines.note_filtered(lines.filtered());
        let Tally { misread, masked } = lines.tally();
        misread.counts().into_iter().for_each(|(what, count)| self.metrics.misread.add(what, count));
        self.metrics.masked.inc_by(masked);
        if lines.is_empty() {
            // An empty chunk does not make the link wait, so a spool full of filtered lines would starve other tasks.
            yield_now().await;
        }
        Some(lines)
    }

    /// Retires filtered lines up to the first line that matches: filtered lines need no connection. Call it only while nothing is in
    /// flight.
    pub async fn pass_filtered(&mut self) {
        if self.shape.means_all() {
            return;
        }
        loop {
            match self.read(CHUNK_BYTES).await {
                Some(lines) if lines.is_empty() => drop(self.retire_up_to(lines.end())),
                None if self.is_waiting_for_disk() && self.wait().await => {}
                _ => break,
            }
        }
        self.rewind();
    }

    fn next_chunk(&mut self, bytes: usize) -> Option<FilteredChunk> {
        if self.is_left() || self.retry_at.is_some() {
            return None;
        }
        match self.lines.next(bytes, &self.shape) {
            Ok(chunk) => {
                if chunk.is_some() && self.unreadable.ends() {
                    tracing::info!("spool: can be read again");
                }
                chunk
            }
            Err(error) => {
                if self.unreadable.begins() {
                    tracing::error!("spool: cannot read: {error}; trying again until it can be read");
                }
                self.retry_at = Some(Instant::now() + DISK_RETRY);
                None
            }
        }
    }

    /// Whether there are lines that have not been read from the disk yet.
    fn is_waiting_for_disk(&self) -> bool {
        self.retry_at.is_some() || self.lines.is_reading()
    }

    /// The name under which this forward's lines are numbered.
    pub fn numbering(&self) -> Numbering {
        self.lines.numbering()
    }

    /// Waits for more lines. False: no more will come, because the relay is stopping or the forward ends.
    pub async fn wait(&mut self) -> bool {
        loop {
            let Self { lines, leaving, retry_at, news, .. } = self;
            let more = async {
                let Some(at) = *retry_at else { return lines.wait().await };
                sleep_until(at.into()).await;
                *retry_at = None;
                true
            };
            tokio::select! {
                biased;
                () = is_true(leaving) => return false,
                more = more => return more,
                Ok(()) = news.changed() => {}
            }
            self.settle_half_closed();
        }
    }

    /// Whether the forward is to end now.
    pub fn is_left(&self) -> bool {
        *self.leaving.borrow()
    }

    /// Waits until the forward is to end. The future may be kept while the source is used.
    pub fn left(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut leaving = self.leaving.clone();
        async move { is_true(&mut leaving).await }
    }

    /// The collector has everything before `reached` for good: it will not be sent again.
    pub fn retire(&mut self, reached: Position) {
        self.takes_lines();
        let delivered = self.retire_up_to(reached);
        self.note_delivered(delivered);
    }

    /// Does not retire lines of left connections that are not settled.
    fn retire_up_to(&mut self, position: Position) -> u64 {
        match self.half_closed.reaches() {
            Some(behind) => self.lines.retire_beyond(behind, position),
            None => self.lines.retire(position),
        }
    }

    /// Applies the outcome of lines. Waits while a dead letter cannot be written, because the cursor must not pass its line before.
    /// Dropping the future loses nothing.
    pub async fn settle(&mut self, progress: &mut Progress) {
        self.settle_half_closed();
        self.metrics.resent.inc_by(mem::take(&mut progress.resent));
        if mem::take(&mut progress.delivered) {
            self.takes_lines();
        }
        if let Some(why) = progress.busy.take() {
            self.say_busy(&why);
        }
        while let Some(rejected) = progress.rejected.front()
            && !self.is_left()
        {
            match self.reject(rejected).await {
                Ok(()) => drop(progress.rejected.pop_front()),
                Err(error) => {
                    if self.unwritable.begins() {
                        tracing::error!(
                            parent: self.limiter.span(),
                            "a line that the collector refuses cannot be written to the dead letters: {error}; nothing more is delivered until it can"
                        );
                    }
                    tokio::time::sleep(DISK_RETRY).await;
                }
            }
        }
        if let Some(position) = progress.safe.take().filter(|_| progress.rejected.is_empty()) {
            let delivered = self.retire_up_to(position);
            self.note_delivered(delivered);
        }
        if let Some(position) = progress.acknowledged.take() {
            let delivered = self.lines.acknowledge(position);
            self.note_delivered(delivered);
        }
    }

    fn say_busy(&self, why: &str) {
        let problem = format!("the collector cannot take lines now: {why}");
        self.state.failed(&problem);
        if self.limiter.is_new(&problem) {
            tracing::warn!(parent: self.limiter.span(), "{problem}; {} lines pending, sending again", self.pending());
        }
    }

    fn note_delivered(&mut self, lines: u64) {
        if lines > 0 {
            self.delivered += lines;
            self.limiter.note_delivered();
        }
    }

    async fn reject(&mut self, rejected: &Rejected) -> io::Result<()> {
        self.lines.reject(rejected).await?;
        let Rejected { reason, why, .. } = rejected;
        self.metrics.dead_letters.count(reason.label());
        self.state.rejected(why);
        let name = self.limiter.forward();
        if self.unwritable.ends() {
            tracing::info!(parent: self.limiter.span(), "dead letters can be written again");
        }
        // A client that sends many lines of a kind that the collector refuses must not fill the log.
        if self.throttle.allows(Instant::now()) {
            let who = if *reason == Reason::TooOld { "`too-old`" } else { "the collector" };
            tracing::warn!(
                parent: self.limiter.span(),
                "{who} refuses a line for good ({why}): it is a dead letter, see `logferry spool cat --dead {name}` and logferry_forward_rejected"
            );
        }
        Ok(())
    }

    /// Counts lines that were delivered with the time of sending.
    pub fn note_restamped(&mut self, lines: u64) {
        self.metrics.restamped.inc_by(lines);
        if lines > 0 && self.restamped.allows(Instant::now()) {
            tracing::warn!(
                parent: self.limiter.span(),
                "lines are older than `max-age`: they are sent with the time of sending, and their own is in `{ORIGINAL_TIME}`; logferry_forward_restamped counts them"
            );
        }
    }

    /// The collector refuses everything: no line is given up, and the forward waits. `why`: the collector's own words.
    pub fn stop(&mut self, why: &str) {
        self.stopped = true;
        self.metrics.stopped.set(1);
        self.state.stops();
        let problem = format!("stopped: the collector refuses every line: {why}");
        self.state.failed(&problem);
        // The collector's words may differ each time, so they are not part of the key.
        if self.limiter.is_new("stopped") {
            tracing::error!(
                parent: self.limiter.span(),
                "{problem}; no line is given up, {} are pending, and it goes on by itself when the collector takes lines again",
                self.pending()
            );
        }
    }

    fn takes_lines(&mut self) {
        if mem::take(&mut self.stopped) {
            self.refusals = Refusals::default();
            self.metrics.stopped.set(0);
            self.state.goes_on();
            tracing::info!(parent: self.limiter.span(), "the collector takes lines again");
        }
    }

    /// Goes back to the first line that the collector may not have. Lines on connections that were left and did not break are
    /// skipped.
    pub fn rewind(&mut self) {
        self.settle_half_closed();
        if self.half_closed.is_lost() {
            self.half_closed.forget();
            self.metrics.half_closed.set(0);
        }
        self.lines.rewind_to(self.half_closed.reaches());
    }

    /// Takes in a connection that is left in good order while the collector may not have read all acknowledged bytes. `None`: the lines
    /// are dead letters, or there are too many such connections and the lines are sent again.
    pub fn keep(&mut self) -> Option<Teller> {
        if self.lines.are_resent() {
            return None;
        }
        let teller = self.half_closed.keep(self.lines.acknowledged())?;
        self.metrics.half_closed.set(self.half_closed.count() as i64);
        Some(teller)
    }

    /// Waits until a connection that was left has broken, so that its lines have to be sent again.
    pub fn lost(&self) -> impl Future<Output = ()> + Send + use<> {
        self.half_closed.clone().lost()
    }

    /// Applies the news about connections that were left.
    fn settle_half_closed(&mut self) {
        for Stretch { from, to } in self.half_closed.settle() {
            let delivered = match from {
                Some(from) => self.lines.retire_beyond(from, to),
                None => self.lines.retire(to),
            };
            self.note_delivered(delivered);
        }
        self.metrics.half_closed.set(self.half_closed.count() as i64);
    }

    /// Lines that the collector has not acknowledged.
    pub fn pending(&self) -> u64 {
        self.lines.pending()
    }

    /// Lines that the collector has acknowledged and that may have to be sent again.
    pub fn replayable(&self) -> u64 {
        self.lines.replayable()
    }

    /// Where the lines come from.
    pub fn lines(&mut self) -> &mut Lines {
        &mut self.lines
    }

    /// Lines delivered since the start.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }
}

async fn is_true(leaving: &mut watch::Receiver<bool>) {
    if leaving.wait_for(|left| *left).await.is_err() {
        // The sender half is gone, so the value stays false.
        std::future::pending::<()>().await;
    }
}
