//! Reports lost lines to the collector in-band: a message of the relay's own states how many lines were lost for which reason.
//!
//! Counters have the same numbers, but a reader who meets a gap in a log looks at the log. The reports cover what the books call
//! dropped, evicted, damaged or rejected, and what the kernel dropped; the sum of all reports is the sum of those counters.

use std::time::Duration;

use chrono::{SecondsFormat, Utc};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::metrics::{ForwardMetrics, ListenMetrics, LogMetrics, Metrics, SpoolMetrics};
use crate::record::{escaped, sd_param};
use crate::spool::{Batch, Inlet, Receipt};

/// How often the counters are read. A continuing loss is reported this often at most, whatever its size.
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// How long the last report may take when the relay stops or its configuration changes.
const LAST_REPORT_WITHIN: Duration = Duration::from_secs(1);
/// Facility syslog (5), severity warning (4): RFC 5424 6.2.1.
const PRI: u8 = 5 << 3 | 4;

/// The reason of lines that a collector has refused for good.
const REJECTED: &str = "rejected";
/// The reason of lines that a collector has refused without saying which they were.
const SHORT: &str = "short";

/// A reason for which lines are lost at one place.
struct Loss {
    reason: &'static str,
    /// The listener or forward, as a parameter of structured data: its name and value.
    place: Option<(&'static str, String)>,
    says: &'static str,
    counter: Counter,
    reported: u64,
}

/// Reads the counters of losses, and writes reports into the spool.
pub struct LossReporter {
    losses: Vec<Loss>,
    hostname: String,
    inlet: Inlet,
    /// Counts the reports as received, so that the books balance.
    metrics: ListenMetrics,
    /// The receipt of the report that the spool does not have yet. It is kept while the reporter does not run, because dropping a
    /// receipt withdraws its report.
    awaited: Option<Receipt>,
}

impl LossReporter {
    /// Makes a reporter that watches the spool and the log, and no listener or forward yet.
    pub fn new(hostname: &str, inlet: Inlet, metrics: &Metrics) -> Self {
        let own = metrics.listener("logferry");
        let mut reporter =
            Self { losses: Vec::new(), hostname: hostname.to_owned(), inlet, metrics: own, awaited: None };
        reporter.watch_spool(&metrics.spool());
        reporter.watch_log(&metrics.log());
        reporter
    }

    /// Sets the HOSTNAME of the reports.
    pub fn set_hostname(&mut self, hostname: &str) {
        hostname.clone_into(&mut self.hostname);
    }

    fn watch_spool(&mut self, metrics: &SpoolMetrics) {
        self.watch("full", None, "the spool was full", &metrics.dropped_full);
        self.watch(
            "severity",
            None,
            "the spool was nearly full and they were of low severity",
            &metrics.dropped_severity,
        );
        self.watch("rate", None, "their containers sent more than rate-limit allows", &metrics.dropped_rate);
        self.watch("error", None, "the disk refused them", &metrics.dropped_error);
        self.watch("stalled", None, "the disk stalled", &metrics.dropped_stalled);
    }

    fn watch_log(&mut self, metrics: &LogMetrics) {
        self.watch("log-rate", None, "the relay said more about itself than it tells", &metrics.dropped_rate);
        self.watch("log-full", None, "the relay said more about itself than waits for room", &metrics.dropped_full);
    }

    pub fn watch_listener(&mut self, address: &str, metrics: &ListenMetrics) {
        let place = Some(("listener", address.to_owned()));
        self.watch("receive-buffer", place, "the kernel's receive buffer was full", &metrics.kernel_drops);
    }

    pub fn watch_forward(&mut self, name: &str, metrics: &ForwardMetrics) {
        let place = || Some(("forward", name.to_owned()));
        self.watch("evicted", place(), "the spool was full and they were the oldest", &metrics.evicted);
        self.watch("damaged", place(), "the disk gave them back damaged", &metrics.damaged);
        let says = "the store took their request without them, and did not say which they were";
        self.watch(SHORT, place(), says, &metrics.short);
        let says = "the collector refused them for good; they are in dead-letter/ beside the spool (logferry spool cat --dead)";
        self.watch(REJECTED, place(), says, &metrics.rejected);
    }

    fn watch(
        &mut self,
        reason: &'static str,
        place: Option<(&'static str, String)>,
        says: &'static str,
        counter: &Counter,
    ) {
        let known = |loss: &Loss| loss.reason == reason && loss.place == place;
        if !self.losses.iter().any(known) {
            self.losses.push(Loss { reason, place, says, counter: counter.clone(), reported: 0 });
        }
    }

    /// Reports until `stop` is dropped, and then once more.
    pub async fn run(mut self, mut stop: oneshot::Receiver<()>) -> Self {
        let mut ticks = interval(REPORT_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let reported = async {
                // The next report waits until the spool has the last one. A full spool holds a report.
                if let Some(receipt) = &mut self.awaited {
                    let _ = receipt.await;
                    self.awaited = None;
                }
                ticks.tick().await;
                self.awaited = self.report().await;
            };
            tokio::select! {
                () = reported => {}
                _ = &mut stop => break,
            }
        }
        // The writer appends this report with the rest of its queue, if there is room.
        if self.awaited.is_none() {
            self.awaited = timeout(LAST_REPORT_WITHIN, self.report()).await.ok().flatten();
        }
        self
    }

    /// Delivers one message for each loss that has grown. The spool never drops these messages; it makes the reporter wait. If this
    /// future is dropped early, the next report includes what this one has not delivered.
    async fn report(&mut self) -> Option<Receipt> {
        let stamp = Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true);
        let mut batch = Batch::new();
        let counted: Vec<u64> = self.losses.iter().map(|loss| loss.counter.get()).collect();
        for (loss, counted) in self.losses.iter().zip(&counted) {
            let lines = loss.unreported(*counted);
            if lines > 0 {
                batch.push(|out| out.extend_from_slice(loss.line(lines, &stamp, &self.hostname).as_bytes()));
            }
        }
        if batch.is_empty() {
            return None;
        }
        let lines = batch.line_count();
        let receipt = self.inlet.deliver(batch, None).await;
        self.metrics.received.inc_by(lines);
        for (loss, counted) in self.losses.iter_mut().zip(counted) {
            if loss.unreported(counted) > 0 {
                loss.reported = counted;
            }
        }
        Some(receipt)
    }
}

impl Loss {
    /// The number of lines that are not in any report yet.
    fn unreported(&self, counted: u64) -> u64 {
        let lines = counted - self.reported;
        // The one line rejected since may be the last report itself. Reporting it would cause a rejection and a report for ever.
        let own = u64::from([REJECTED, SHORT].contains(&self.reason) && self.reported > 0);
        if lines > own { lines } else { 0 }
    }

    fn line(&self, lines: u64, stamp: &str, hostname: &str) -> String {
        let Self { reason, place, says, .. } = self;
        let (param, at) = match place {
            // The path of a listener may hold any character.
            Some((kind, name)) => {
                let name = escaped(name);
                (sd_param(kind, &name), format!(" at {kind} {name}"))
            }
            None => Default::default(),
        };
        let became = if *reason == REJECTED { "rejected" } else { "lost" };
        format!(
            "<{PRI}>1 {stamp} {hostname} logferry - gap [gap@32473 lines=\"{lines}\" reason=\"{reason}\"{param}] \
             {lines} messages were {became} here{at}: {says}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rejection_of_a_report_is_not_reported() {
        let counter = Counter::default();
        let mut loss = Loss { reason: REJECTED, place: None, says: "no", counter, reported: 0 };
        assert_eq!([0, 1, 7].map(|counted| loss.unreported(counted)), [0, 1, 7]);
        loss.reported = 7;
        assert_eq!([7, 8, 9].map(|counted| loss.unreported(counted)), [0, 0, 2]);
        assert!(loss.line(2, "-", "-").ends_with("] 2 messages were rejected here: no"));
    }

    #[test]
    fn a_loss_is_a_legal_message() {
        let place = Some(("listener", "unix:///run/a]\"b".to_owned()));
        let loss = Loss { reason: "full", place, says: "the spool was full", counter: Counter::default(), reported: 0 };
        let line = loss.line(12, "2026-11-21T04:05:06.000007Z", "node-7");
        assert_eq!(
            line,
            "<44>1 2026-11-21T04:05:06.000007Z node-7 logferry - gap [gap@32473 lines=\"12\" reason=\"full\" \
             listener=\"unix:///run/a\\]\\\"b\"] 12 messages were lost here at listener unix:///run/a]\"b: the spool was full"
        );
        let place = Some(("listener", "unix:///run/a\x1b[2J\n<13>".to_owned()));
        let line = Loss { place, ..loss }.line(12, "-", "-");
        assert!(!line.contains(char::is_control), "{line:?}");
    }
}
