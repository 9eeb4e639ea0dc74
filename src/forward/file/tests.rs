//! Lines whose file cannot be written, tested with real files.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use nix::libc::O_NONBLOCK;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use prometheus_client::metrics::counter::Counter;
use tempfile::TempDir;

use super::files::MANY_FILES;
use super::refused::{DAY, TRY_AGAIN_AFTER};
use super::*;
use crate::forward::log_limiter::LogLimiter;
use crate::record::Format;

const MOST: usize = 256;

struct Logs {
    dir: TempDir,
    files: Files,
    refused: Arc<Refused>,
    diverted: Counter,
}

/// The last word of each line, for each file by its path below the directory.
type Found = BTreeMap<String, Vec<String>>;

impl Logs {
    fn new() -> Self {
        Self::of("{host}/{name}.log")
    }

    fn of(template: &str) -> Self {
        let dir = TempDir::new().expect("a directory");
        let diverted = Counter::default();
        let limiter = Arc::new(LogLimiter::new("central"));
        let refused = Arc::new(Refused::new(limiter, Default::default(), diverted.clone()));
        let files = Files::new(&dir.path().join(template), MOST, refused.clone(), Abandoned::default());
        fs::create_dir(dir.path().join("n7")).expect("a directory");
        Self { dir, files, refused, diverted }
    }

    /// Writes a line for each container. The line contains the container's name.
    fn write(&mut self, names: &[impl AsRef<str>]) -> io::Result<Outcome> {
        let encoding = Encoding {
            format: Some(Format::Rfc3164),
            framing: Some(crate::config::Framing::Newline),
            escaped: true,
            sd_id: "docker@32473".to_owned(),
        };
        let line = |name: &str| format!("<30>1 2026-11-20T22:27:33Z n7 {name} - - - {name}").into_bytes();
        let lines: Vec<_> = names.iter().map(|name| line(name.as_ref())).collect();
        self.files.write(lines.iter().map(Vec::as_slice), &encoding, &mut Vec::new())
    }

    #[track_caller]
    fn writes(&mut self, names: &[impl AsRef<str>]) {
        assert_eq!(self.write(names).expect("no trouble"), Outcome::Done);
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// The content of the regular files.
    fn found(&self) -> Found {
        let mut found = BTreeMap::new();
        let mut dirs = vec![self.dir.path().to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).expect("a directory") {
                let (path, kind) = entry.map(|entry| (entry.path(), entry.file_type())).expect("an entry");
                match kind.expect("a type") {
                    kind if kind.is_dir() => dirs.push(path),
                    kind if kind.is_file() => {
                        let text = fs::read_to_string(&path).expect("text");
                        let last = |line: &str| line.rsplit(' ').next().map(str::to_owned);
                        let below = path.strip_prefix(self.dir.path()).expect("below");
                        found.insert(below.display().to_string(), text.lines().filter_map(last).collect());
                    }
                    _ => {}
                }
            }
        }
        found
    }

    /// Asserts that lines for n7/web-1.log go to the others, and all other lines to their own files.
    #[track_caller]
    fn diverts_web_1(mut self) {
        let names: Vec<_> = (0..3).map(|n| format!("web-{n}")).collect();
        self.writes(&names);
        self.writes(&names);
        assert_eq!(self.files.sync_and_close().expect("synced"), Outcome::Done);
        let own = |n: usize| (format!("n7/web-{n}.log"), vec![format!("web-{n}"); 2]);
        let others = ("_others/_others.log".to_owned(), vec!["web-1".to_owned(); 2]);
        assert_eq!(self.found(), [own(0), own(2), others].into());
        assert_eq!(self.diverted.get(), 2);
    }
}

#[test]
fn a_directory_of_that_name_stops_nobody() {
    let logs = Logs::new();
    fs::create_dir(logs.path("n7/web-1.log")).expect("a directory");
    logs.diverts_web_1();
}

#[test]
fn a_link_to_itself_stops_nobody() {
    let logs = Logs::new();
    symlink("web-1.log", logs.path("n7/web-1.log")).expect("a link");
    logs.diverts_web_1();
}

#[test]
fn a_link_to_nowhere_stops_nobody() {
    let logs = Logs::new();
    symlink("/nonexistent/web-1.log", logs.path("n7/web-1.log")).expect("a link");
    logs.diverts_web_1();
}

#[test]
fn a_socket_stops_nobody() {
    let logs = Logs::new();
    let _listener = UnixListener::bind(logs.path("n7/web-1.log")).expect("a socket");
    logs.diverts_web_1();
}

#[test]
fn a_pipe_without_a_reader_stops_nobody() {
    let logs = Logs::new();
    mkfifo(&logs.path("n7/web-1.log"), Mode::S_IRWXU).expect("a pipe");
    logs.diverts_web_1();
}

#[test]
fn a_full_disk_of_one_path_stops_nobody() {
    let logs = Logs::new();
    symlink("/dev/full", logs.path("n7/web-1.log")).expect("a link");
    logs.diverts_web_1();
}

/// The lines that fit into the pipe stay in it.
#[test]
fn a_pipe_that_nobody_reads_stops_nobody() {
    let mut logs = Logs::new();
    let path = logs.path("n7/web-1.log");
    mkfifo(&path, Mode::S_IRWXU).expect("a pipe");
    let mut pipe = fs::OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path).expect("a reader");
    let names: Vec<String> = (0..10_000).map(|_| "web-1".to_owned()).chain(["web-2".to_owned()]).collect();
    logs.writes(&names);
    // This closes the writer's end of the pipe.
    assert_eq!(logs.files.sync_and_close().expect("synced"), Outcome::Done);
    let mut read = String::new();
    pipe.read_to_string(&mut read).expect("text");
    let in_the_pipe = read.matches('\n').count();
    let found = logs.found();
    assert!(in_the_pipe > 0, "{in_the_pipe}");
    assert_eq!(in_the_pipe + found["_others/_others.log"].len(), 10_000);
    assert_eq!(found["n7/web-2.log"], ["web-2"]);
}

/// A template of many fields, each of them as long as may be.
#[test]
fn a_path_that_is_too_long_stops_nobody() {
    let mut logs = Logs::of(&format!("{}x.log", "{name}/".repeat(40)));
    let long = "y".repeat(128);
    logs.writes(&["web-0", &long, "web-2"]);
    let found = logs.found();
    assert_eq!(found.len(), 3);
    assert_eq!(found[&format!("{}x.log", "_others/".repeat(40))], [long]);
}

#[test]
fn a_file_that_can_be_written_again_has_its_lines_again() {
    let mut logs = Logs::new();
    fs::create_dir(logs.path("n7/web-1.log")).expect("a directory");
    logs.writes(&["web-1"]);
    fs::remove_dir(logs.path("n7/web-1.log")).expect("it is empty");
    logs.writes(&["web-1"]);
    logs.refused.memory().ages(TRY_AGAIN_AFTER);
    logs.writes(&["web-1"]);
    let found = logs.found();
    assert_eq!((found["_others/_others.log"].len(), found["n7/web-1.log"].len()), (2, 1));
}

/// No line of a batch stays in a file when the forward has to wait, because the batch is written again.
#[test]
fn without_the_file_of_the_others_the_forward_waits() {
    let mut logs = Logs::new();
    fs::create_dir(logs.path("n7/web-1.log")).expect("a directory");
    fs::create_dir(logs.path("_others")).expect("a directory");
    symlink("_others.log", logs.path("_others/_others.log")).expect("a link");
    let error = logs.write(&["web-0", "web-1"]).expect_err("it cannot be written").to_string();
    assert!(error.contains("/_others/_others.log: ") && error.contains("web-1.log"), "{error}");
    assert!(logs.found().values().all(Vec::is_empty), "{:?}", logs.found());
    assert_eq!(logs.diverted.get(), 0);
}

/// Lines of a path without fields have no other place.
#[test]
fn a_path_of_all_lines_is_waited_for() {
    let mut logs = Logs::of("all.log");
    symlink("/dev/full", logs.path("all.log")).expect("a link");
    let error = logs.write(&["web-0"]).expect_err("it cannot be written").to_string();
    assert!(error.ends_with("all.log: No space left on device (os error 28)"), "{error}");
}

#[test]
fn names_beyond_the_most_share_a_file() {
    let mut logs = Logs::new();
    logs.refused.memory().new_files = 3;
    let names = |from: usize, to: usize| (from..to).map(|n| format!("web-{n}")).collect::<Vec<_>>();
    (0..5).for_each(|n| logs.writes(&names(n, n + 1)));
    logs.files.sync_and_close().expect("synced");
    // Names that have a file keep it.
    logs.writes(&names(0, 3));
    let own = |n: usize| (format!("n7/web-{n}.log"), vec![format!("web-{n}"); 2]);
    let others = ("_others/_others.log".to_owned(), names(3, 5));
    assert_eq!(logs.found(), (0..3).map(own).chain([others]).collect());
    // The next day.
    logs.refused.memory().ages(DAY);
    logs.writes(&names(4, 5));
    assert_eq!(logs.found()["n7/web-4.log"], ["web-4"]);
}

#[test]
fn a_file_that_cannot_be_made_is_none_of_a_days() {
    let mut logs = Logs::new();
    let before = logs.refused.memory().new_files;
    symlink("/nonexistent/web-1.log", logs.path("n7/web-1.log")).expect("a link");
    logs.writes(&["web-1"]);
    assert_eq!(logs.refused.memory().new_files, before);
}

#[test]
fn many_files_are_synced_and_closed_like_few() {
    let mut logs = Logs::new();
    let names: Vec<_> = (0..2 * MOST + 1).map(|n| format!("web-{n}")).collect();
    for names in names.chunks(10) {
        logs.writes(names);
        assert!(logs.files.open_files() <= MOST);
    }
    assert!(logs.files.open_files() > MOST / 2, "those that were written last stay open");
    logs.writes(&names[..MANY_FILES + 1]);
    logs.files.sync_and_close().expect("synced");
    assert_eq!(logs.files.open_files(), 0);
    let found = logs.found();
    assert_eq!(found.len(), names.len());
    assert_eq!(found["n7/web-0.log"], ["web-0"; 2]);
}

#[test]
fn what_is_written_is_whole_or_not_there() {
    let dir = TempDir::new().expect("a directory");
    let mut file = open::make(&dir.path().join("log")).expect("a file");
    let append = |file: &mut File, lines: &[u8]| {
        open::append(file, lines, open::Patience::Short, &Abandoned::default()).map_err(|unwritten| unwritten.written)
    };
    append(&mut file, b"one\n").expect("written");
    let mut full = File::options().append(true).open("/dev/full").expect("a device");
    assert_eq!(append(&mut full, b"one\ntwo\n"), Err(0));
    append(&mut file, b"two\n").expect("written");
    assert_eq!(fs::read_to_string(dir.path().join("log")).expect("text"), "one\ntwo\n");
}
