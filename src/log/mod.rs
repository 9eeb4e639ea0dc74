//! The relay's log: on stderr, as text or as JSON, and with `[log] to-spool` also as messages in the spool, which every forward
//! delivers.
//!
//! The log has states, not events: callers of `tracing` ensure that no sender, collector or name server can cause an entry
//! repeatedly. Nothing waits here: entries that do not fit into a queue are dropped.
//!
//! A span, `tracing::error_span!("forward", name)`, gives context to all entries in it: the line begins with `forward central: `,
//! and the JSON has `"forward": "central"`. The level of spans is *error*, so that they exist at every `[log] level`.
//!
//! In reading order: `entry`, one entry and its three forms; `layers`, from an event to where it is written; `stderr`, and
//! `stream`, the way into the spool; `throttle`, for callers whose event others can cause.

mod entry;
mod layers;
mod stderr;
mod stream;
mod throttle;

use std::io::{self, Write};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};

use crate::config::{self, LogFormat, LogLevel};
use crate::metrics::LogMetrics;
use crate::record::escaped;
use entry::Entry;
use layers::{Reader, ToSpool, ToStderr};
use stderr::FlushOnDrop;
pub use stream::Stream;
pub use throttle::Throttle;

/// The format of stderr. [`last_words`] needs it after the log has ended.
static FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// The running log. Dropping the value writes the lines that are queued.
pub struct Logging {
    _flush: FlushOnDrop,
}

/// Makes this the log of the process: every later call of `tracing` is written. A second call changes nothing. The stream is `Some` if
/// messages are to go into the spool; they wait in it until it [runs](Stream::run).
pub fn start(settings: &config::Log, metrics: LogMetrics) -> (Logging, Option<Stream>) {
    let (stderr, flush) = stderr::start(io::stderr());
    let _ = FORMAT.set(settings.format);
    let level = filter(settings.level);
    // Events of libraries are logged only at the levels debug and trace: hickory warns of each datagram that is no answer, and
    // anyone can send such datagrams. Events of libraries never go into the spool.
    let others = if level >= LevelFilter::DEBUG { level } else { LevelFilter::OFF };
    let to_stderr = ToStderr { format: settings.format, stderr }.with_filter(ours(level).with_default(others));
    let spool_level = settings.to_spool.map_or(LevelFilter::OFF, filter);
    let (sender, stream) = settings.to_spool.map(|_| stream::new(metrics)).unzip();
    let to_spool = sender.map(|sender| ToSpool(sender).with_filter(ours(spool_level)));
    let reader = Reader.with_filter(ours(level.max(spool_level)).with_default(others));
    let log = tracing_subscriber::registry().with(reader).with(to_stderr).with(to_spool);
    let _ = tracing::subscriber::set_global_default(log);
    (Logging { _flush: flush }, stream)
}

/// The filter that passes the relay's own events, down to a level.
fn ours(level: LevelFilter) -> Targets {
    Targets::new().with_target(env!("CARGO_CRATE_NAME"), level)
}

/// Writes the last words of a command to stderr, each line as a line of its own. They are escaped as the log is, because an argument
/// or a collector's words may be in them. `eprintln!` would panic when stderr is closed.
pub fn last_words(says: &str) {
    let line = match FORMAT.get() {
        Some(LogFormat::Json) => Entry::error(says).json(),
        Some(LogFormat::Text) | None => says.lines().map(|line| format!("logferry: {}\n", escaped(line))).collect(),
    };
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Writes last words as [`last_words`] does, and gives up after `time`: a full pipe would never take them.
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

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}
