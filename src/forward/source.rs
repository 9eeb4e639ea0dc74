//! The spool as a link sees it: the next lines, and what becomes of them.

use std::io;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::sleep_until;

use super::acknowledged::Acknowledged;
use super::delivery::{Progress, Refusals, Rejected};
use super::filtered_chunk::FilteredChunk;
use super::log_limiter::LogLimiter;
use crate::metrics::ForwardMetrics;
use crate::protocol::relp::{Numbering, Prover};
use crate::record::Rule;
use crate::spool::{Chunk, Hysteresis, Position, Reader};
use crate::status::SharedForwardStatus;

/// Bytes of records taken from the spool at once: one write to the link, small enough that what is sent twice after a
/// broken connection stays small.
const CHUNK_BYTES: usize = 64 * 1024;

/// A disk that cannot be read or written is tried again after this: it may come back, and a busy loop helps nobody.
const DISK_RETRY: Duration = Duration::from_secs(1);

/// How often it is said that lines are rejected.
const TELL_EVERY: Duration = Duration::from_secs(600);

pub struct Source {
    reader: Reader,
    /// Which lines are meant; none: all.
    rules: Vec<Rule>,
    /// The SD-ID under which image, name and id are found in a line.
    sd_id: String,
    metrics: ForwardMetrics,
    /// Lines below this number were sent before, or may have been.
    sent: u64,
    /// True: the forward ends, whatever is left in the spool.
    leaving: watch::Receiver<bool>,
    /// What is known of connections that were left.
    acknowledged: Acknowledged,
    /// The spool cannot be read.
    unreadable: Hysteresis,
    /// When to try to read it again.
    retry_at: Option<Instant>,
    /// A dead letter cannot be written.
    unwritable: Hysteresis,
    /// What the collectors have refused. The link has it while it carries.
    pub refusals: Refusals,
    /// The last verdict was *stop*, and nothing was delivered since.
    stopped: bool,
    /// Lines delivered since the start.
    delivered: u64,
    /// When it was last said that lines are rejected.
    told: Option<Instant>,
    state: SharedForwardStatus,
    limiter: Arc<LogLimiter>,
}

impl Source {
    pub fn new(
        reader: Reader,
        (rules, sd_id): (Vec<Rule>, String),
        (metrics, state): (ForwardMetrics, SharedForwardStatus),
        limiter: Arc<LogLimiter>,
        (leaving, acknowledged): (watch::Receiver<bool>, Acknowledged),
    ) -> Self {
        metrics.stopped.set(0);
        let mut source = Self {
            sent: reader.acknowledged().line,
            reader,
            rules,
            sd_id,
            metrics,
            leaving,
            acknowledged,
            unreadable: Hysteresis::default(),
            retry_at: None,
            unwritable: Hysteresis::default(),
            refusals: Refusals::default(),
            stopped: false,
            delivered: 0,
            told: None,
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

    /// The next lines, about so many bytes of them but at least one line.
    pub async fn next_of(&mut self, bytes: usize) -> Option<FilteredChunk> {
        let lines = self.read(bytes).await?;
        self.metrics.resent.inc_by(lines.count_before(self.sent));
        self.sent = self.sent.max(lines.end().line);
        Some(lines)
    }

    async fn read(&mut self, bytes: usize) -> Option<FilteredChunk> {
        let lines = FilteredChunk::new(self.next_chunk(bytes)?, &self.rules, &self.sd_id);
        self.reader.note_filtered(lines.filtered());
        if lines.is_empty() {
            // Nothing to send will make the link wait, and a spool full of such lines must not hold everybody up.
            yield_now().await;
        }
        Some(lines)
    }

    /// Passes what is filtered, up to the first line that is not: without a connection it need not wait for one. Only while
    /// nothing is on its way.
    pub async fn pass_filtered(&mut self) {
        if self.rules.is_empty() {
            return;
        }
        loop {
            match self.read(CHUNK_BYTES).await {
                Some(lines) if lines.is_empty() => drop(self.reader.retire(lines.end())),
                None if self.is_waiting_for_disk() && self.wait().await => {}
                _ => break,
            }
        }
        self.reader.rewind();
    }

    fn next_chunk(&mut self, bytes: usize) -> Option<Chunk> {
        if self.is_left() || self.retry_at.is_some() {
            return None;
        }
        match self.reader.next(bytes) {
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

    /// There are lines, and they are not here yet.
    fn is_waiting_for_disk(&self) -> bool {
        self.retry_at.is_some() || self.reader.is_reading()
    }

    /// The name under which this forward's lines are numbered.
    pub fn numbering(&self) -> Numbering {
        let prover = self.reader.identity().map(|identity| -> Arc<dyn Prover> { identity });
        Numbering { stream: self.reader.stream(), prover }
    }

    /// Waits for more than was had; false when nothing more will come: the relay is stopping, or the forward ends.
    pub async fn wait(&mut self) -> bool {
        let Self { reader, leaving, retry_at, .. } = self;
        let more = async {
            let Some(at) = *retry_at else { return reader.wait().await };
            sleep_until(at.into()).await;
            *retry_at = None;
            true
        };
        tokio::select! {
            biased;
            () = is_true(leaving) => false,
            more = more => more,
        }
    }

    /// Whether the forward is to end now.
    pub fn is_left(&self) -> bool {
        *self.leaving.borrow()
    }

    /// Waits until the forward is to end, whatever is left. May be kept while the source is used.
    pub fn left(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut leaving = self.leaving.clone();
        async move { is_true(&mut leaving).await }
    }

    /// The collector has everything before `reached` for good: it will not be sent again.
    pub fn retire(&mut self, reached: Position) {
        self.takes_lines();
        let delivered = self.reader.retire(reached);
        self.note_delivered(delivered);
    }

    /// Takes note of what became of lines. Waits where a dead letter cannot be written, for the cursor must not pass its line
    /// before. Dropping the future loses nothing.
    pub async fn settle(&mut self, progress: &mut Progress) {
        self.retire_old();
        self.metrics.resent.inc_by(mem::take(&mut progress.resent));
        if mem::take(&mut progress.delivered) {
            self.takes_lines();
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
            let delivered = self.reader.retire(position);
            self.note_delivered(delivered);
        }
        if let Some(position) = progress.acknowledged.take() {
            let delivered = self.reader.acknowledge(position);
            self.note_delivered(delivered);
        }
    }

    fn note_delivered(&mut self, lines: u64) {
        if lines > 0 {
            self.delivered += lines;
            self.limiter.note_delivered();
        }
    }

    async fn reject(&mut self, Rejected { session, line, why, bytes }: &Rejected) -> io::Result<()> {
        self.reader.reject((*session, *line), why, bytes).await?;
        let name = self.limiter.forward();
        if self.unwritable.ends() {
            tracing::info!(parent: self.limiter.span(), "dead letters can be written again");
        }
        // Whoever can send a line that the collector does not take must not fill the log.
        if self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            self.told = Some(Instant::now());
            tracing::warn!(
                parent: self.limiter.span(),
                "the collector refuses a line for good ({why}): it is a dead letter, see `logferry spool cat --dead {name}` and logferry_forward_rejected"
            );
        }
        Ok(())
    }

    /// The collector refuses everything: nothing is given up, and the forward waits. `why`: in its own words.
    pub fn stop(&mut self, why: &str) {
        self.stopped = true;
        self.metrics.stopped.set(1);
        self.state.stops();
        let problem = format!("stopped: the collector refuses every line: {why}");
        self.state.failed(&problem);
        // Whatever words it has for it each time.
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

    /// Goes back to the first line the collector may not have.
    pub fn rewind(&mut self) {
        self.retire_old();
        self.reader.rewind();
    }

    /// Takes note of what was acknowledged on a connection that is left in good order, and when it is old.
    pub fn note_left(&self, marks: impl IntoIterator<Item = (Position, Instant)>) {
        self.acknowledged.add(marks);
    }

    fn retire_old(&mut self) {
        if let Some(position) = self.acknowledged.old(Instant::now()) {
            let delivered = self.reader.retire(position);
            self.note_delivered(delivered);
        }
    }

    /// Lines that the collector has not got.
    pub fn pending(&self) -> u64 {
        self.reader.pending()
    }

    /// Lines that the collector has got and that may have to be sent again.
    pub fn replayable(&self) -> u64 {
        self.reader.replayable()
    }

    /// Lines delivered since the start.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }
}

async fn is_true(leaving: &mut watch::Receiver<bool>) {
    if leaving.wait_for(|left| *left).await.is_err() {
        // Nobody is left who could say so.
        std::future::pending::<()>().await;
    }
}
