//! The kernel's figures about a running process (proc(5)).

use std::fs;
use std::time::Duration;

/// `/proc` counts time in these ticks, on every machine we build for (`USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;

#[derive(Clone, Copy)]
pub struct Process(pub u32);

impl Process {
    /// A line of `/proc/PID/status`: `VmRSS` is the resident set, `RssAnon` its anonymous part, `VmHWM` the peak.
    #[track_caller]
    pub fn kib(self, field: &str) -> u64 {
        self.status(field)
    }

    #[track_caller]
    pub fn threads(self) -> u64 {
        self.status("Threads")
    }

    /// Processor time used so far.
    #[track_caller]
    pub fn cpu(self) -> Duration {
        let stat = self.read("stat");
        // The program's name may contain anything, so count the fields after it: the first of them is the third of stat.
        let fields = stat.rsplit_once(") ").expect("a name").1;
        let ticks: u64 = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
        Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
    }

    #[track_caller]
    fn status(self, field: &str) -> u64 {
        let status = self.read("status");
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.and_then(|value| value.split_whitespace().next()?.parse().ok()).expect("a number of that name")
    }

    #[track_caller]
    fn read(self, name: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{name}", self.0)).expect("it runs")
    }
}
