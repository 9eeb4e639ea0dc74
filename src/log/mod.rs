//! What the relay says about itself: on stderr, as text or as JSON, and where `[log] to-spool` asks for it as messages of
//! its own, which go where all messages go.
//!
//! It says states, not events: whoever calls `tracing` here sees to it that no sender, collector or name server can make
//! him do it again and again. Nothing waits here: what does not fit in a queue is dropped.
//!
//! In reading order: `event`, what is said and its three forms; `stderr`, and `stream`, the way into the spool.

mod event;
mod stderr;
mod stream;

use std::io::{self, Write};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use chrono::{SecondsFormat, Utc};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::config::{self, LogFormat, LogLevel};
use crate::metrics::LogMetrics;
use event::Said;
use stderr::{Stderr, Written};
use stream::Entrance;
pub use stream::Stream;

/// How lines are written to stderr, for the last one, which is said when nobody logs any more.
static FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// Logs until it is dropped, which writes what is left.
pub struct Logging {
    _written: Written,
}

/// Whatever calls `tracing` in this process is said from now on. The second time nothing changes: a process has one log.
/// The stream is there if messages are to go into the spool; nobody carries them until it [runs](Stream::run).
pub fn start(settings: &config::Log, metrics: LogMetrics) -> (Logging, Option<Stream>) {
    let (stderr, written) = stderr::start(io::stderr());
    let (spool, stream) = match settings.to_spool {
        Some(level) => {
            let (entrance, stream) = stream::new(metrics);
            (Some((filter(level), entrance)), Some(stream))
        }
        None => (None, None),
    };
    let _ = FORMAT.set(settings.format);
    let log = Log { level: filter(settings.level), format: settings.format, stderr, spool };
    let _ = tracing::subscriber::set_global_default(log);
    (Logging { _written: written }, stream)
}

/// The last words of a command. `eprintln!` would panic where nobody can hear them.
pub fn last_words(says: &str) {
    let line = match FORMAT.get() {
        Some(LogFormat::Json) => Said::error(says).json(&now()),
        Some(LogFormat::Text) | None => says.lines().map(|line| format!("logferry: {line}\n")).collect(),
    };
    let _ = io::stderr().write_all(line.as_bytes());
}

/// The same for whoever ends at once: behind a full pipe nobody may ever hear it, so that is not waited for.
pub fn last_words_within(time: Duration, says: &'static str) {
    let (said, heard) = mpsc::channel();
    let say = move || {
        last_words(says);
        let _ = said.send(());
    };
    if thread::Builder::new().spawn(say).is_ok() {
        let _ = heard.recv_timeout(time);
    }
}

/// Takes what is said through `tracing`.
struct Log {
    level: LevelFilter,
    format: LogFormat,
    stderr: Stderr,
    /// What is not above this level goes into the spool too.
    spool: Option<(LevelFilter, Entrance)>,
}

impl Log {
    /// Down to which level something is written to stderr. Libraries are heard only by those who look for a mistake in us:
    /// hickory warns of each datagram that is no answer, and anybody can send those.
    fn level_of(&self, of: &Metadata<'_>) -> LevelFilter {
        if is_ours(of) || self.level >= LevelFilter::DEBUG { self.level } else { LevelFilter::OFF }
    }

    fn spools(&self, of: &Metadata<'_>) -> Option<&Entrance> {
        let (level, entrance) = self.spool.as_ref()?;
        (is_ours(of) && of.level() <= level).then_some(entrance)
    }
}

/// Spans are nothing to us.
impl Subscriber for Log {
    fn enabled(&self, of: &Metadata<'_>) -> bool {
        of.is_event() && (of.level() <= &self.level_of(of) || self.spools(of).is_some())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let spool = self.spool.as_ref().map_or(LevelFilter::OFF, |(level, _)| *level);
        Some(self.level.max(spool))
    }

    fn event(&self, event: &Event<'_>) {
        let (said, stamp) = (Said::of(event), now());
        if event.metadata().level() <= &self.level_of(event.metadata()) {
            let line = match self.format {
                LogFormat::Text => said.text(&stamp),
                LogFormat::Json => said.json(&stamp),
            };
            self.stderr.write(line);
        }
        if let Some(entrance) = self.spools(event.metadata()) {
            entrance.take(said, stamp);
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn is_ours(of: &Metadata<'_>) -> bool {
    of.target().split("::").next() == Some(env!("CARGO_CRATE_NAME"))
}

fn now() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true)
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}
