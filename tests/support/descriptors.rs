//! What a relay has open when nothing happens, so that a test can say that nothing was left behind.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::{Relay, eventually};

/// What a spool's files are called here.
const SEGMENT: &str = "segment";

/// Looks in a row that find the same, until it is believed.
const BELIEVED: usize = 20;

/// Segments that one look may find more than another: the writer's, and one for each of a few forwards.
const SEGMENTS: u64 = 3;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Descriptors {
    /// By what they are, sorted: the names of files, and of sockets and the like that they are some. Without directories,
    /// which are only open to be synced. A spool's segments count as one: where one ends is no news.
    Kinds(Vec<String>),
    /// How many, as the relay exports it. All there is for a user who is not root, since the relay closes `/proc/PID/fd`.
    Count(u64),
}

impl Descriptors {
    /// Waits until look after look finds what the last one found. What was closed last takes a moment.
    #[track_caller]
    pub fn of(relay: &Relay) -> Self {
        let (mut last, mut same) = (None, 0);
        eventually("the same descriptors, look after look", || {
            let now = Self::now(relay);
            // A segment that was deleted stays open until the next sync.
            let is_done = !matches!(&now, Self::Kinds(kinds) if kinds.iter().any(|kind| kind.ends_with("(deleted)")));
            let now = Some(now);
            same = if is_done && now == last { same + 1 } else { 0 };
            last = now;
            (same >= BELIEVED).then(|| last.take()).flatten()
        })
    }

    /// Nothing is left behind of what came after `self`.
    #[track_caller]
    pub fn are_all_of(&self, later: &Self) {
        match (self, later) {
            (Self::Count(before), Self::Count(after)) => {
                assert!(*after <= before + SEGMENTS, "{after} descriptors are open, and {before} were before");
            }
            (before, after) => assert_eq!(after, before, "descriptors that are left behind"),
        }
    }

    #[track_caller]
    fn now(relay: &Relay) -> Self {
        let open = match fs::read_dir(format!("/proc/{}/fd", relay.id())) {
            Ok(open) => open,
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return Self::Count(relay.metrics().sum("process_open_fds"));
            }
            Err(error) => panic!("the relay runs: {error}"),
        };
        // One that was closed since then is not there any more.
        let targets = open.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
        let mut kinds: Vec<String> = targets.filter(|target| !target.is_dir()).map(|target| kind(&target)).collect();
        kinds.sort();
        kinds.dedup_by(|next, last| next == last && last == SEGMENT);
        Self::Kinds(kinds)
    }
}

/// `socket:[7]` is a socket, and a spool's segments come and go.
fn kind(target: &Path) -> String {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let is_segment = target.extension().is_some_and(|end| end == "seg");
    if is_segment { SEGMENT.to_owned() } else { name.split(':').next().unwrap_or_default().to_owned() }
}
