//! Metrics of this process from the operating system, under the names that every Prometheus client library uses
//! (<https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>), and so without our prefix. Nothing is stored:
//! each scrape asks the kernel. No other process can count the descriptors, because the relay closes `/proc/PID` even to its own
//! user.

use std::fmt;
use std::fs;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Exports the values of the moment. A value that the kernel does not give (a sandbox without `/proc`) is left out.
#[derive(Debug)]
pub struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        if let Some(seconds) = cpu_seconds() {
            let help = "Time that this process had of all processors";
            let metric = ConstCounter::new(seconds);
            metric.encode(encoder.encode_descriptor(
                "process_cpu",
                help,
                Some(&Unit::Seconds),
                MetricType::Counter,
            )?)?;
        }
        let bytes = Unit::Bytes;
        let gauges = [
            ("process_open_fds", "Open file descriptors", None, open_descriptors()),
            ("process_max_fds", "Most file descriptors that may be open", None, max_descriptors()),
            ("process_resident_memory", "Memory of this process that is in RAM", Some(&bytes), resident_bytes()),
        ];
        for (name, help, unit, value) in gauges {
            if let Some(value) = value {
                let metric = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
                metric.encode(encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?)?;
            }
        }
        Ok(())
    }
}

fn cpu_seconds() -> Option<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let microseconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 * 1e6 + time.tv_usec() as f64;
    Some((microseconds(usage.user_time()) + microseconds(usage.system_time())) / 1e6)
}

/// Open descriptors, without the one that is open for counting.
fn open_descriptors() -> Option<u64> {
    let open = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    open.checked_sub(1)
}

fn max_descriptors() -> Option<u64> {
    getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft)
}

fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn the_kernel_is_asked_each_time() {
        const MANY: u64 = 500;
        let more = || {
            let before = open_descriptors().unwrap();
            let _files: Vec<File> = (0..MANY).map(|_| File::open("/dev/null").unwrap()).collect();
            i128::from(open_descriptors().unwrap()) - i128::from(before)
        };
        // Tests that run in parallel open files of their own, and may close hundreds of them meanwhile.
        assert!((0..50).any(|_| (i128::from(MANY / 2)..i128::from(MANY * 2)).contains(&more())));
        assert!(max_descriptors().unwrap() >= open_descriptors().unwrap());
        assert!((1 << 20..1 << 40).contains(&resident_bytes().unwrap()));
        assert!(cpu_seconds().unwrap() > 0.0);
    }
}
