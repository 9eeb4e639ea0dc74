//! What the kernel says of a running process (proc(5)).

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::eventually;

/// `/proc` counts time in these, on every machine we build for (`USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;

/// What a spool's files are called here.
const SEGMENT: &str = "segment";

/// Looks in a row that find the same, until it is believed.
const BELIEVED: usize = 20;

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

    /// Open ones.
    #[track_caller]
    pub fn descriptors(self) -> u64 {
        fs::read_dir(format!("/proc/{}/fd", self.0)).expect("it runs").count() as u64
    }

    /// What they are, sorted: the names of files, and of sockets and the like that they are some. Without directories, which
    /// are only open to be synced. A spool's segments count as one: where one ends is no news.
    #[track_caller]
    fn kinds_of_descriptors(self) -> Vec<String> {
        let open = fs::read_dir(format!("/proc/{}/fd", self.0)).expect("it runs").flatten();
        // One that was closed since then is not there any more.
        let targets = open.filter_map(|entry| fs::read_link(entry.path()).ok()).filter(|target| !target.is_dir());
        let mut kinds: Vec<String> = targets.map(|target| kind(&target)).collect();
        kinds.sort();
        kinds.dedup_by(|next, last| next == last && last == SEGMENT);
        kinds
    }

    /// The same when nobody connects: look after look they are what they were. What was closed last takes a moment.
    #[track_caller]
    pub fn steady_descriptors(self) -> Vec<String> {
        let (mut last, mut same) = (Vec::new(), 0);
        eventually("the same descriptors, look after look", || {
            let now = self.kinds_of_descriptors();
            // A segment that was deleted stays open until the next sync.
            let is_done = !now.iter().any(|kind| kind.ends_with("(deleted)"));
            same = if is_done && now == last { same + 1 } else { 0 };
            last = now;
            (same >= BELIEVED).then(|| std::mem::take(&mut last))
        })
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

/// `socket:[7]` is a socket, and a spool's segments come and go.
fn kind(target: &Path) -> String {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let is_segment = target.extension().is_some_and(|end| end == "seg");
    if is_segment { SEGMENT.to_owned() } else { name.split(':').next().unwrap_or_default().to_owned() }
}
