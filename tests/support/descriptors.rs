//! A relay's open descriptors while it is idle, so that a test can prove that none leaks; and relays with a low descriptor limit.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::{Relay, eventually};

/// The kind under which a spool's files are counted.
const SEGMENT: &str = "segment";

/// Identical looks in a row before a result is accepted.
const BELIEVED: usize = 20;

/// Segments by which two counts may differ: the writer's segment, one for each of a few forwards, and on a busy disk deleted segments that
/// stay open until the next sync. An unprivileged user cannot tell them from other descriptors.
const SEGMENTS: u64 = 8;

/// Number of source addresses: more than the limit per address requires.
const ADDRESSES: usize = 16;
/// Patience with the kernel, whose queue is full if the relay does not accept.
const TAKEN_WITHIN: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Descriptors {
    /// The kinds of the descriptors, sorted: names of files; for sockets and the like only their type. Directories are left out, because
    /// the relay opens them only to sync them. All segments of a spool count as one: their number changes in normal operation.
    Kinds(Vec<String>),
    /// The number of descriptors, from the relay's metrics. Only root can read more, since the relay closes `/proc/PID/fd`.
    Count(u64),
}

impl Descriptors {
    /// Waits until [`BELIEVED`] looks in a row agree. A descriptor that was just closed takes a moment to disappear.
    #[track_caller]
    pub fn of(relay: &Relay) -> Self {
        let (mut last, mut same) = (None, 0);
        eventually("the same descriptors, look after look", || {
            let now = Self::now(relay);
            // A deleted segment stays open until the next sync.
            let is_done = !matches!(&now, Self::Kinds(kinds) if kinds.iter().any(|kind| kind.ends_with("(deleted)")));
            let now = Some(now);
            same = if is_done && now == last { same + 1 } else { 0 };
            last = now;
            (same >= BELIEVED).then(|| last.take()).flatten()
        })
    }

    /// Fails if `later` has descriptors that `self` has not.
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
        // A descriptor that was closed since the directory was listed has no link any more.
        let targets = open.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
        let mut kinds: Vec<String> = targets.filter(|target| !target.is_dir()).map(|target| kind(&target)).collect();
        kinds.sort();
        kinds.dedup_by(|next, last| next == last && last == SEGMENT);
        Self::Kinds(kinds)
    }
}

/// The descriptor's kind: `socket:[7]` is a socket, and all segments are one kind.
fn kind(target: &Path) -> String {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let is_segment = target.extension().is_some_and(|end| end == "seg");
    if is_segment { SEGMENT.to_owned() } else { name.split(':').next().unwrap_or_default().to_owned() }
}

/// The command with a hard limit of `most` open files.
pub fn with_files(most: usize, command: &Command) -> Command {
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("ulimit -n {most} && exec \"$0\" \"$@\"")]).arg(command.get_program());
    limited.args(command.get_args()).env_clear();
    limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    limited
}

/// Silent connections: `most` of them, or as many as the kernel accepts. Connections that the relay resets at once are not counted.
pub fn strangers(to: SocketAddr, most: usize) -> Vec<TcpStream> {
    let silent = |number: usize| {
        let from = IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1 + (number % ADDRESSES) as u8));
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::new(from, 0).into()).expect("an address of loopback");
        match socket.connect_timeout(&to.into(), TAKEN_WITHIN) {
            Ok(()) => Some(Some(socket.into())),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Some(None),
            Err(_) => None,
        }
    };
    (0..most).map_while(silent).flatten().collect()
}
