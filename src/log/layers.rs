//! The layers over tracing-subscriber's registry: the reader makes an entry of an event, and the layers above it write the entry.
//!
//! An event is read once, so that stderr and the stream have one timestamp for it.

use std::cell::RefCell;

use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::entry::{Entry, Fields};
use super::stderr::Stderr;
use super::stream::StreamSender;
use crate::config::LogFormat;

thread_local! {
    /// The entry of the event that this thread reports, on its way from the reader to the layers above.
    static CURRENT: RefCell<Option<Entry>> = const { RefCell::new(None) };
}

/// The layer that reads events, with the fields of their spans. Its filter must pass every event that a layer above it passes.
pub struct Reader;

/// The layer that writes to stderr.
pub struct ToStderr {
    pub format: LogFormat,
    pub stderr: Stderr,
}

/// The layer that sends entries to the stream into the spool.
pub struct ToSpool(pub StreamSender);

impl<S> Layer<S> for Reader
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut entry = Entry::of(event);
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(fields) = span.extensions().get::<Fields>() {
                entry.push_span(span.name(), fields);
            }
        }
        CURRENT.set(Some(entry));
    }
}

impl<S: Subscriber> Layer<S> for ToStderr {
    fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
        let line = CURRENT.with_borrow(|entry| {
            entry.as_ref().map(|entry| match self.format {
                LogFormat::Text => entry.text(),
                LogFormat::Json => entry.json(),
            })
        });
        line.into_iter().for_each(|line| self.stderr.write(line));
    }
}

impl<S: Subscriber> Layer<S> for ToSpool {
    fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
        CURRENT.with_borrow(|entry| entry.iter().for_each(|entry| self.0.take(entry)));
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::log::{ours, stderr, stream};
    use crate::metrics::Metrics;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The content of stderr after these events.
    fn written(level: tracing::level_filters::LevelFilter, events: impl FnOnce()) -> String {
        let shared = Shared::default();
        let (stderr, written) = stderr::start(shared.clone());
        let to_stderr = ToStderr { format: LogFormat::Text, stderr }.with_filter(ours(level));
        let log = tracing_subscriber::registry().with(Reader.with_filter(ours(level))).with(to_stderr);
        tracing::subscriber::with_default(log, events);
        drop(written);
        String::from_utf8(shared.0.lock().clone()).expect("text")
    }

    #[test]
    fn a_span_is_context_at_every_level_and_its_fields_may_come_later() {
        let text = written(tracing::level_filters::LevelFilter::WARN, || {
            let forward = tracing::error_span!("forward", name = "central", address = tracing::field::Empty);
            let within = forward.enter();
            tracing::warn!(lines = 3, "one");
            forward.record("address", "10.0.0.1:514");
            tracing::error!("two");
            tracing::info!("three");
            drop(within);
            tracing::warn!("four");
            tracing::warn!(target: "hickory", "five");
        });
        let lines: Vec<&str> = text.lines().map(|line| line.split_at(27).1).collect();
        let first = "  WARN forward central: one lines=3";
        assert_eq!(lines, [first, " ERROR forward central 10.0.0.1:514: two", "  WARN four"]);
    }

    #[test]
    fn the_stream_says_what_stderr_says() {
        let shared = Shared::default();
        let (stderr, written) = stderr::start(shared.clone());
        let (sender, mut stream) = stream::new(Metrics::new().log());
        let log = tracing_subscriber::registry()
            .with(Reader)
            .with(ToStderr { format: LogFormat::Text, stderr })
            .with(Some(ToSpool(sender)));
        tracing::subscriber::with_default(log, || {
            let forward = tracing::error_span!("forward", name = "central");
            forward.in_scope(|| tracing::warn!("away"));
        });
        drop(written);
        let text = String::from_utf8(shared.0.lock().clone()).expect("text");
        let (stamp, words) = text.trim_end().split_once("  WARN ").expect("a level");
        assert_eq!(words, "forward central: away");
        assert_eq!(stream.taken().expect("an entry").syslog("h"), format!("<44>1 {stamp} h logferry - log - {words}"));
    }
}
