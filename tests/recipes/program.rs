//! The program of a recipe: a real rsyslog, syslog-ng or logferry with the page's config, and the files that it writes.

use std::fs;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::pages::{Block, Verb, ours, target, text, theirs};
use crate::support::rsyslog::{self, Input};
use crate::support::{self, Program, SyslogNg, eventually};

/// A running program of a recipe.
pub struct Collecting {
    program: Program,
    command: Command,
    /// The scheme and port that it listens on.
    at: (String, u16),
    pub make: Make,
    dir: TempDir,
    /// The relay's part of the recipe, with the test's values.
    pub toml: String,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Make {
    Rsyslog,
    SyslogNg,
    Logferry,
}

impl Make {
    fn of(recipe: &str) -> Self {
        match recipe {
            name if name.starts_with("rsyslog-") => Self::Rsyslog,
            name if name.starts_with("syslog-ng-") => Self::SyslogNg,
            name if name.starts_with("logferry-") => Self::Logferry,
            name => panic!("{name}: of which program?"),
        }
    }

    fn language(self) -> &'static str {
        match self {
            Self::Rsyslog => "rsyslog",
            Self::SyslogNg => "syslog-ng",
            Self::Logferry => "logferry",
        }
    }

    /// The command that starts it with the config in `dir`. `None`: it is not installed.
    fn command(self, scheme: &str, dir: &Path) -> Option<Command> {
        match self {
            Self::Rsyslog => {
                let input = match scheme {
                    "udp" => Input::Udp,
                    "tcp" => Input::Tcp,
                    "tcp+tls" => Input::Tls,
                    "relp" => Input::Relp,
                    "relp+tls" => rsyslog::find(Input::Tls).and(Some(Input::Relp))?,
                    other => panic!("rsyslog has no {other}"),
                };
                rsyslog::find(input).map(|program| rsyslog::command(&program, dir))
            }
            Self::SyslogNg => SyslogNg::find().map(|syslog_ng| syslog_ng.command(dir)),
            Self::Logferry => {
                let mut command = support::relay::logferry();
                command.arg("--config").arg(dir.join("conf"));
                Some(command)
            }
        }
    }

    /// A complete config with the documented part. For rsyslog, it includes that part as Debian's config does.
    fn whole(self, documented: &str, dir: &Path) -> String {
        let at = dir.display();
        match self {
            Self::Rsyslog => {
                fs::write(dir.join("10-logferry.conf"), documented).expect("written");
                format!("global(workDirectory=\"{at}\")\ninclude(file=\"{at}/10-logferry.conf\")\n")
            }
            Self::SyslogNg => documented.to_owned(),
            Self::Logferry => {
                format!("[spool]\ndir = \"{at}/spool\"\n[admin]\nlisten = \"127.0.0.1:0\"\n{documented}")
            }
        }
    }

    /// The message as the program writes it to the container's file, with any transport. No program keeps every byte.
    pub fn kept(self, text: &[u8]) -> Vec<u8> {
        match self {
            Self::Rsyslog => rsyslog::kept(text),
            Self::SyslogNg => support::syslog_ng::kept(text),
            Self::Logferry => {
                let mut visible = Vec::new();
                logferry::internals::record::append_escaped(text, &mut visible);
                visible
            }
        }
    }

    /// Its JSON keys for host, severity, image, name, ID and message.
    pub fn keys(self) -> [&'static str; 6] {
        match self {
            Self::Rsyslog | Self::SyslogNg => ["host", "severity", "image", "name", "id", "message"],
            Self::Logferry => ["host", "severity", "image_name", "container_name", "container_id", "message"],
        }
    }
}

impl Collecting {
    /// `None`: the program is not installed, which has been reported.
    #[track_caller]
    pub fn start(recipe: &str, blocks: &[Block]) -> Option<Self> {
        let make = Make::of(recipe);
        let documented = text(blocks, recipe, Verb::Run, "toml");
        let conf = text(blocks, recipe, Verb::Run, make.language());
        let (scheme, number) = target(&documented);
        let dir = TempDir::new().expect("a directory");
        let mut command = make.command(scheme, dir.path())?;
        fs::create_dir(dir.path().join("docker")).expect("a directory");
        // Another process may take the port before the program does, so this retries.
        let (program, port) = eventually("a collector that listens", || {
            let port = free(scheme)?;
            let filled = theirs(&conf, number, port, dir.path());
            fs::write(dir.path().join("conf"), make.whole(&filled, dir.path())).expect("written");
            up(&mut command, scheme, port).map(|program| (program, port))
        });
        let toml = ours(&documented, port);
        Some(Self { program, command, at: (scheme.to_owned(), port), make, toml, dir })
    }

    /// Kills the program with `kill -9` and starts it again on the same files.
    pub fn is_killed_and_comes_back(&mut self) {
        self.program.kill();
        let (scheme, port) = &self.at;
        self.program = eventually("it is back", || up(&mut self.command, scheme, *port));
    }

    fn file(&self, name: &str) -> Vec<u8> {
        let bytes = fs::read(self.dir.path().join(name)).unwrap_or_default();
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        bytes[..whole].to_vec()
    }

    /// The JSON file, with a line for each message.
    pub fn json(&self) -> Vec<Vec<u8>> {
        lines(&self.file("docker.json"))
    }

    pub fn container_file(&self, host: &str, name: &str) -> Vec<u8> {
        self.file(&format!("docker/{host}/{name}.log"))
    }
}

pub fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    let line = |line: &[u8]| line.strip_suffix(b"\n").expect("only whole lines").to_vec();
    bytes.split_inclusive(|byte| *byte == b'\n').map(line).collect()
}

fn free(scheme: &str) -> Option<u16> {
    let at = match scheme {
        "udp" => UdpSocket::bind("0.0.0.0:0").ok()?.local_addr(),
        _ => TcpListener::bind("0.0.0.0:0").ok()?.local_addr(),
    };
    at.ok().map(|at| at.port())
}

fn up(command: &mut Command, scheme: &str, port: u16) -> Option<Program> {
    let mut program = Program::start(command);
    eventually("the collector listens or ends", || {
        let listens = match scheme {
            // The port is in use once the daemon has bound it.
            "udp" => UdpSocket::bind(("0.0.0.0", port)).is_err(),
            _ => TcpStream::connect(("127.0.0.1", port)).is_ok(),
        };
        (listens || program.has_ended().is_some()).then_some(())
    });
    if program.has_ended().is_some() {
        eprintln!("{}", program.stderr());
        return None;
    }
    Some(program)
}
