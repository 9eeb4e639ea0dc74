//! What a relay has open when nothing happens, so that a test can say that nothing was left behind; and how it has few.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::{Relay, eventually};

/// What a spool's files are called here.
const SEGMENT: &str = "segment";

/// Looks in a row that find the same, until it is believed.
const BELIEVED: usize = 20;

/// Segments that one look may find more than another: the writer's, one for each of a few forwards, and on a busy disk those that are
/// deleted and wait for the next sync, which an ordinary user cannot tell from others.
const SEGMENTS: u64 = 8;

/// Where strangers come from: more addresses than the share of one would need.
const ADDRESSES: usize = 16;
/// How long one waits for the kernel, whose queue is full where nobody accepts.
const TAKEN_WITHIN: Duration = Duration::from_secs(1);

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

/// A command whose process may not open more files than that, and may not raise the limit.
pub fn with_files(most: usize, command: &Command) -> Command {
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("ulimit -n {most} && exec \"$0\" \"$@\"")]).arg(command.get_program());
    limited.args(command.get_args()).env_clear();
    limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    limited
}

/// Connections that say nothing: so many, or as many as the kernel takes for whoever is there. One that is reset at once was taken
/// and refused, and is not among them.
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
