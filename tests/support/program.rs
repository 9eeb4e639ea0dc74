//! A child process that does not outlive its test, and its output.

use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Setup, eventually};

pub struct Program {
    name: String,
    child: Child,
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
}

pub use nix::libc::{SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGSTOP, SIGTERM, SIGUSR2};

impl Program {
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        Self::start_with_stderr(command, Stdio::piped())
    }

    /// Starts the program with its stderr redirected. The test sees it only if it is `piped`.
    #[track_caller]
    pub fn start_with_stderr(command: &mut Command, stderr: impl Into<Stdio>) -> Self {
        Self::start_with(command, Stdio::null(), stderr)
    }

    /// Starts the program with a stdin that the test writes to.
    #[track_caller]
    pub fn start_to_talk(command: &mut Command) -> (Self, ChildStdin) {
        let mut program = Self::start_with(command, Stdio::piped(), Stdio::piped());
        let stdin = program.child.stdin.take().expect("piped");
        (program, stdin)
    }

    #[track_caller]
    fn start_with(command: &mut Command, stdin: Stdio, stderr: impl Into<Stdio>) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(stdin).stdout(Stdio::piped()).stderr(stderr);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let stdout = kept(child.stdout.take().expect("piped"));
        let stderr = child.stderr.take().map(kept).unwrap_or_default();
        Self { name, child, stdout, stderr }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn stdout(&self) -> Vec<u8> {
        self.stdout.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    pub fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        // SAFETY: a system call without pointers; the child is not reaped yet, so the pid is its own.
        assert_eq!(unsafe { nix::libc::kill(pid, signal) }, 0, "{} is gone", self.name);
    }

    /// Waits until the program has ended by itself.
    #[track_caller]
    pub fn ends(&mut self) -> ExitStatus {
        eventually(&format!("{} ends", self.name), || self.has_ended())
    }

    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of ours")
    }

    #[track_caller]
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- {} said:\n{}---", self.name, self.stderr());
        }
    }
}

/// Reads to the end, on a thread: a full pipe would block its writer.
fn kept(mut pipe: impl Read + Send + 'static) -> Arc<Mutex<Vec<u8>>> {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = kept.clone();
    std::thread::spawn(move || {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = pipe.read(&mut bytes) {
            keep.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&bytes[..length]);
        }
    });
    kept
}

/// The messages of a program to its service manager (sd_notify(3)).
pub struct Notified(UnixDatagram);

impl Notified {
    /// The messages of the program that `command` starts.
    pub fn by(command: &mut Command, setup: &Setup) -> Self {
        let path = setup.path("notify");
        let socket = UnixDatagram::bind(&path).expect("a fresh directory");
        socket.set_nonblocking(true).expect("a socket option");
        command.env("NOTIFY_SOCKET", path);
        Self(socket)
    }

    /// Waits for the next message, which must be this one.
    #[track_caller]
    pub fn is_told(&self, state: &str) {
        let mut text = [0; 100];
        let told = eventually(state, || self.0.recv(&mut text).ok().map(|length| text[..length].to_vec()));
        assert_eq!(String::from_utf8_lossy(&told).trim(), state);
    }
}
