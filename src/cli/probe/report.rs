//! The result of a probe, as a table for people and as JSON for programs.

use std::fmt::Write as _;

use serde::Serialize;

use super::arrivals::Arrivals;
use super::sender::Sender;

/// The result. Its fields are the keys of the JSON.
#[derive(Serialize)]
pub struct Report {
    sent: u32,
    seconds: f64,
    arrived: u32,
    lost: u32,
    /// The numbers of lost messages: the first and the last of each run, at most [`MAX_RANGES`] runs.
    missing: Vec<(u32, u32)>,
    /// The number of runs that are not in `missing`.
    more_missing: usize,
    duplicates: u64,
    out_of_order: u32,
    /// Messages that the relay did not accept.
    refused: u32,
    /// Why the relay did not accept the last of them, or why it ended a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused_why: Option<String>,
    /// Milliseconds from sending to arrival; `None` if nothing has arrived.
    latency_ms: Option<Latency>,
    /// Messages that arrived before they were sent: the clocks differ.
    too_early: u32,
    interrupted: bool,
}

#[derive(Serialize)]
struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

/// The maximum number of runs of lost messages in the report.
const MAX_RANGES: usize = 20;

impl Report {
    pub fn of(sender: &Sender, arrivals: &Arrivals, interrupted: bool) -> Self {
        let sent = sender.sent();
        let mut tally = arrivals.tally(sent);
        let lost = tally.missing.iter().map(|(first, last)| last - first + 1).sum();
        let more_missing = tally.missing.len().saturating_sub(MAX_RANGES);
        tally.missing.truncate(MAX_RANGES);
        Self {
            sent,
            seconds: sender.elapsed().as_secs_f64(),
            arrived: sent - lost,
            lost,
            missing: tally.missing,
            more_missing,
            duplicates: tally.duplicates,
            out_of_order: tally.out_of_order,
            refused: sender.refused(),
            refused_why: sender.last_error(),
            latency_ms: Latency::of(&tally.latencies),
            too_early: tally.too_early,
            interrupted,
        }
    }

    /// The error says why the probe has failed.
    pub fn verdict(&self) -> Result<(), String> {
        match (self.lost, self.interrupted) {
            (0, false) => Ok(()),
            (lost, true) => Err(format!("probe: interrupted; {lost} of {} messages had not arrived", self.sent)),
            (lost, false) => Err(format!("probe: {lost} of {} messages were lost", self.sent)),
        }
    }

    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("text and numbers are always JSON") + "\n"
    }

    pub fn table(&self, from_udp: bool) -> String {
        let Self { sent, arrived, lost, duplicates, out_of_order, seconds, .. } = self;
        let mut out = String::new();
        let rate = if *seconds > 0.0 { format!(" in {seconds:.1} s") } else { String::new() };
        let numbers = if *lost > 0 { format!(": {}", self.numbers()) } else { String::new() };
        let _ = writeln!(out, "sent        {sent}{rate}\narrived     {arrived}\nlost        {lost}{numbers}");
        let _ = writeln!(out, "duplicates  {duplicates}");
        let _ = writeln!(
            out,
            "order       {}",
            match out_of_order {
                0 => "as sent".to_owned(),
                late => format!("{late} came behind a later one"),
            }
        );
        if let Some(Latency { p50, p90, p99, max }) = &self.latency_ms {
            let _ = writeln!(out, "latency     p50 {p50:.1} ms  p90 {p90:.1} ms  p99 {p99:.1} ms  max {max:.1} ms");
        }
        if self.too_early > 0 {
            let _ = writeln!(
                out,
                "            {} messages arrived before they were sent: the clocks of two machines differ",
                self.too_early
            );
        }
        if let Some(why) = &self.refused_why {
            let _ = match self.refused {
                0 => writeln!(out, "refused     the relay has ended a connection: {why}"),
                refused => writeln!(out, "refused     {refused} messages were not taken by the relay: {why}"),
            };
        }
        if *lost > 0 {
            out.push_str(&self.hint(from_udp));
        }
        out
    }

    fn numbers(&self) -> String {
        let range = |(first, last): &(u32, u32)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        let named: Vec<String> = self.missing.iter().map(range).collect();
        let more = if self.more_missing > 0 { format!(" and {} more runs", self.more_missing) } else { String::new() };
        named.join(", ") + &more
    }

    fn hint(&self, from_udp: bool) -> String {
        let mut out = "\nwhere to look, in the relay's /metrics:\n".to_owned();
        if from_udp {
            out += "  logferry_listen_kernel_drops_total    datagrams that came too fast: raise net.core.rmem_max\n";
        }
        out += "  logferry_listen_received_total        fewer than were sent: they never came there\n\
                \x20 logferry_spool_dropped_total          refused, by reason: full, error, stalled, severity; rate; rule\n\
                \x20 logferry_forward_filtered_total       its `match` does not mean them\n\
                \x20 logferry_forward_pending              still in the spool: the collector is away, or --wait too short\n\
                \x20 logferry_forward_evicted_total        given up, because the spool was full\n";
        out
    }
}

impl Latency {
    fn of(sorted: &[u32]) -> Option<Self> {
        let last = sorted.len().checked_sub(1)?;
        let at = |percent: usize| f64::from(sorted[(sorted.len() * percent / 100).min(last)]) / 1000.0;
        Some(Self { p50: at(50), p90: at(90), p99: at(99), max: f64::from(sorted[last]) / 1000.0 })
    }
}
