//! Kills the process of a spool before each of its system calls that change the disk. When the spool is opened again,
//! it must have every acknowledged line, no line that was not sent, and the right order, and its books must balance.
//! strace counts the calls and kills the process.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Command, ExitStatus};
use std::task::{Context, Poll, Waker};

use logferry::internals::metrics::Metrics;
use logferry::internals::spool::{Batch, Options, Origin, Reader, Spool, Sync, WhenFull, Writer};
use support::{installed, run, shown, skip};
use tempfile::TempDir;

/// Calls that change a directory or a file, with their names on all architectures. strace counts each name separately.
const CALLS: &str = "?openat,?open,?mkdir,?mkdirat,?write,?writev,?pwrite64,?pwritev,?fsync,?fdatasync,?ftruncate,\
                     ?rename,?renameat,?renameat2,?unlink,?unlinkat,?copy_file_range,?fallocate";
const ROUNDS: usize = 40;
const FORWARDS: [&str; 2] = ["quick", "slow"];
const STREAM: &str = "0123/central";
/// Environment variable: the victim's directory.
const PLACE: &str = "SPOOL_CRASH_PLACE";

#[derive(Clone, Debug)]
enum Step {
    /// One batch of our own lines.
    Append(Vec<Vec<u8>>),
    /// Lines of another relay, starting with its line number `first`. Some of them are repeated.
    Deliver { first: usize, lines: Vec<Vec<u8>> },
    /// Reads lines and retires them.
    Retire { reader: usize },
    /// Closes the spool and opens it again.
    Reopen,
}

/// The steps, and the spool's contents after all of them: every line by its number.
#[derive(Default)]
struct History {
    steps: Vec<Step>,
    lines: Vec<Vec<u8>>,
    /// All lines of the other relay.
    sent: Vec<Vec<u8>>,
    /// By the number of spooled lines: how many of them are the other relay's.
    sent_by: Vec<usize>,
}

impl History {
    fn new() -> Self {
        let mut history = Self { sent_by: vec![0], ..Self::default() };
        for round in 0..ROUNDS {
            // Some lines are longer than a segment.
            let text = |at: usize| {
                format!("{round:04} {at} {}", "x".repeat((round * 37 + at * 101) % 300 + round / 39 * 1000))
            };
            let own: Vec<_> = (0..1 + round % 4).map(|at| format!("own {}", text(at)).into_bytes()).collect();
            own.iter().for_each(|line| history.is_spooled(line.clone(), false));
            history.steps.push(Step::Append(own));
            if round % 2 == 0 {
                let first = history.sent.len().saturating_sub(round % 3);
                let new: Vec<_> = (0..1 + round % 5).map(|at| format!("sent {}", text(at)).into_bytes()).collect();
                history.sent.extend(new.iter().cloned());
                new.into_iter().for_each(|line| history.is_spooled(line, true));
                history.steps.push(Step::Deliver { first, lines: history.sent[first..].to_vec() });
            }
            history.steps.push(Step::Retire { reader: 0 });
            if round % 5 == 4 {
                history.steps.push(Step::Retire { reader: 1 });
            }
            if round % 9 == 8 {
                history.steps.push(Step::Reopen);
            }
        }
        history
    }

    fn is_spooled(&mut self, line: Vec<u8>, sent: bool) {
        self.lines.push(line);
        self.sent_by.push(self.sent_by[self.sent_by.len() - 1] + usize::from(sent));
    }
}

fn options(place: &Path) -> Options {
    let forwards = FORWARDS.map(String::from).to_vec();
    Options {
        segment_bytes: 1 << 10,
        sync: Sync::Always,
        when_full: WhenFull::DropNewest,
        ..Options::new(place.join("spool"), 1 << 20, forwards)
    }
}

/// The process that is killed. It records each step before and after it.
struct Victim {
    place: PathBuf,
    journal: File,
    /// `None` only while the spool is reopened.
    open: Option<(Writer, Vec<Reader>)>,
}

impl Victim {
    fn new(place: PathBuf) -> Self {
        let journal = File::options().append(true).create(true).open(place.join("journal")).unwrap();
        let mut victim = Self { place, journal, open: None };
        victim.open();
        victim
    }

    fn open(&mut self) {
        let Spool { writer, readers, .. } = Spool::open(options(&self.place), &Metrics::new()).unwrap();
        self.open = Some((writer, readers));
    }

    fn notes(&mut self, what: &str, number: usize) {
        self.journal.write_all(format!("{what} {number}\n").as_bytes()).unwrap();
    }

    /// `behind`: the number of spooled lines after this step.
    fn does(&mut self, step: &Step, behind: usize) {
        self.notes("spooling", behind);
        let (writer, readers) = self.open.as_mut().unwrap();
        match step {
            Step::Append(lines) => writer.append(&mut [batch(lines)]),
            Step::Deliver { first, lines } => deliver(writer, *first, lines),
            Step::Retire { reader } => {
                let reader = &mut readers[*reader];
                while let Some(chunk) = reader.next(2000).unwrap() {
                    reader.retire(chunk.end);
                }
            }
            Step::Reopen => {
                let before: Vec<u64> = readers.iter().map(|reader| reader.position().line).collect();
                self.open = None;
                for (name, line) in FORWARDS.iter().zip(&before) {
                    self.notes(&format!("closed {name}"), *line as usize);
                }
                self.open();
                let (_, readers) = self.open.as_ref().unwrap();
                assert!(readers.iter().map(|reader| reader.position().line).eq(before), "a good end forgets");
            }
        }
        self.notes("spooled", behind);
    }
}

fn batch(lines: &[Vec<u8>]) -> Batch {
    let mut batch = Batch::new();
    lines.iter().for_each(|line| batch.push(|out| out.extend_from_slice(line)));
    batch
}

fn deliver(writer: &mut Writer, first: usize, lines: &[Vec<u8>]) {
    let origin = Origin { stream: STREAM.to_owned(), session: 1, first_line: first as u64, was: None };
    let receipt = pin!(writer.deliver(batch(lines), Some(origin)));
    assert_eq!(receipt.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(())));
}

/// The victim's record of its progress.
struct Journal(Vec<(String, usize)>);

impl Journal {
    fn read(place: &Path) -> Self {
        let text = fs::read_to_string(place.join("journal")).unwrap_or_default();
        let entry = |line: &str| line.rsplit_once(' ').map(|(what, number)| (what.to_owned(), number.parse().unwrap()));
        Self(text.lines().map(|line| entry(line).unwrap()).collect())
    }

    fn last(&self, what: &str) -> usize {
        self.0.iter().rev().find(|(known, _)| known == what).map_or(0, |(_, number)| *number)
    }
}

/// Opens the spool that the victim left, and checks all of it.
fn check(place: &Path, history: &History) {
    let journal = Journal::read(place);
    let metrics = Metrics::new();
    let Spool { mut writer, mut readers, report, .. } = Spool::open(options(place), &metrics).unwrap();
    assert!(report.damaged.is_empty() && report.stale_cursors.is_empty(), "{report:?}");
    let end = (readers[0].position().line + readers[0].unretired()) as usize;
    let begun = journal.last("spooled")..=journal.last("spooling");
    assert!(begun.contains(&end), "{end} lines, and not {begun:?}");
    let waiting: Vec<u64> = readers.iter().map(Reader::unretired).collect();
    for (reader, name) in readers.iter_mut().zip(FORWARDS) {
        let closed = journal.last(&format!("closed {name}"));
        assert!((closed..=end).contains(&(reader.position().line as usize)), "{name} has forgotten");
        assert_eq!(read(reader, &history.lines), end, "{name}");
    }
    // The other relay sends again all lines without a receipt. This test sends all lines.
    deliver(&mut writer, 0, &history.sent);
    let new = &history.sent[history.sent_by[end]..];
    assert_eq!(metrics.spool().spooled.get(), new.len() as u64, "a line of the other relay is here twice, or not");
    let lines = [&history.lines[..end], new].concat();
    for (reader, (name, waiting)) in readers.iter_mut().zip(FORWARDS.iter().zip(waiting)) {
        assert_eq!(read(reader, &lines), lines.len(), "{name}");
        let books = metrics.forward(name);
        assert_eq!(books.delivered.get(), waiting + new.len() as u64, "the books of {name}");
        assert_eq!((books.evicted.get(), books.damaged.get(), reader.unretired()), (0, 0, 0), "the books of {name}");
    }
    drop((writer, readers));
    let Spool { readers, report, .. } = Spool::open(options(place), &Metrics::new()).unwrap();
    assert_eq!((report.torn_bytes, report.damaged.len()), (0, 0));
    assert!(readers.iter().all(|reader| reader.unretired() == 0));
}

/// Reads and retires all lines and returns the end. Each line must match its number.
fn read(reader: &mut Reader, lines: &[Vec<u8>]) -> usize {
    while let Some(chunk) = reader.next(2000).unwrap() {
        for (line, behind) in chunk.lines() {
            assert_eq!(shown(line), shown(&lines[behind.line as usize - 1]), "line {}", behind.line);
        }
        reader.retire(chunk.end);
    }
    reader.position().line as usize
}

/// Runs the victim under strace, which logs its calls or kills it before a given call.
fn victim(strace: &Path, place: &Path, arguments: &[&str]) -> (ExitStatus, String) {
    let mut command = Command::new(strace);
    command.args(["-f", "-qq"]).args(arguments).arg(std::env::current_exe().unwrap());
    command.args(["--exact", "the_victim", "--ignored", "--nocapture", "--test-threads=1"]).env(PLACE, place);
    let output = run(&mut command);
    (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The calls that concern a directory: the name of each, and its ordinal among the calls of that name on its thread.
fn calls(log: &str, place: &str) -> Vec<(String, usize)> {
    let mut counts = BTreeMap::new();
    let mut found = Vec::new();
    for line in log.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let Some((name, rest)) = call.trim_start().split_once('(') else { continue };
        let count = counts.entry((thread, name)).or_insert(0);
        *count += 1;
        if rest.contains(place) && !rest.contains("/journal") {
            found.push((name.to_owned(), *count));
        }
    }
    found
}

#[test]
fn nothing_is_lost_wherever_the_process_is_killed() {
    let Some(strace) = installed("strace", "strace") else { return };
    let history = History::new();
    let calls = {
        let place = tempdir();
        let log = place.path().join("log");
        let trace = format!("trace={CALLS}");
        let (status, said) = victim(&strace, place.path(), &["-y", "-o", log.to_str().unwrap(), "-e", &trace]);
        if said.contains("ptrace") && said.contains("not permitted") {
            return skip("ptrace", "strace may not trace here (ptrace)");
        }
        assert!(status.success(), "{said}");
        check(place.path(), &history);
        calls(&fs::read_to_string(log).unwrap(), place.path().to_str().unwrap())
    };
    let names: BTreeSet<&str> = calls.iter().map(|(name, _)| name.as_str()).collect();
    assert!(calls.len() > 200 && names.len() >= 5, "{} calls: {names:?}", calls.len());
    let mut killed = 0;
    for (name, count) in &calls {
        let place = tempdir();
        let inject = format!("inject={name}:signal=KILL:when={count}");
        let (status, said) = victim(&strace, place.path(), &["-o", "/dev/null", "-e", &inject]);
        assert!(status.success() || status.signal() == Some(nix::libc::SIGKILL), "{said}");
        killed += usize::from(!status.success());
        check(place.path(), &history);
    }
    // The time decides when a cursor is written, so a run may have fewer of these calls.
    assert!(killed * 10 >= calls.len() * 9, "only {killed} of {} were killed", calls.len());
    println!("killed before {killed} of {} calls", calls.len());
}

#[test]
#[ignore = "is what the other test kills"]
fn the_victim() {
    let Some(place) = std::env::var_os(PLACE) else { return };
    let mut victim = Victim::new(place.into());
    let (history, mut behind) = (History::new(), 0);
    for step in &history.steps {
        behind += match step {
            Step::Append(lines) => lines.len(),
            Step::Deliver { first, lines } => {
                let known = history.sent_by[behind] - first;
                lines.len() - known
            }
            Step::Retire { .. } | Step::Reopen => 0,
        };
        victim.does(step, behind);
    }
    assert_eq!(behind, history.lines.len());
}

/// In memory if possible: each history syncs a hundred times.
fn tempdir() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}
