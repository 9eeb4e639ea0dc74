//! What the kernel says of a running process (proc(5)).

use std::fs;
use std::time::Duration;

/// `/proc` counts time in these, on every machine we build for (`USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;

#[derive(Clone, Copy)]
pub struct Process(pub u32);

impl Process {
    /// A line of its `status`: `VmRSS` is what is resident, `RssAnon` what of it is its own, `VmHWM` the most there was.
    #[track_caller]
    pub fn kib(self, field: &str) -> u64 {
        self.status(field)
    }

    #[track_caller]
    pub fn threads(self) -> u64 {
        self.status("Threads")
    }

    /// What it has used of all processors.
    #[track_caller]
    pub fn cpu(self) -> Duration {
        let stat = self.read("stat");
        // Behind the program's name, which may hold anything, the third field of stat is the first.
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
