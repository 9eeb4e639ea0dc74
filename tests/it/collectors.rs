//! Other collectors: how a real rsyslog and a real syslog-ng read our lines.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::support::docker::hard_texts;
use crate::support::program::SIGTERM;
use crate::support::rsyslog::{self, Input};
use crate::support::syslog_ng;
use crate::support::{Certs, Docker, Flow, Format, Program, Setup, SyslogNg, eventually, own_port, shown};

/// A daemon that writes a line for each message: its fields separated by tabs, and the message last.
struct Daemon {
    program: Option<Program>,
    make: Make,
    at: SocketAddr,
    input: Input,
    dir: TempDir,
}

#[derive(Clone)]
enum Make {
    Rsyslog(PathBuf),
    SyslogNg(SyslogNg),
}

/// A message as a daemon has understood it.
#[derive(Debug, PartialEq)]
struct Arrival {
    pri: u8,
    host: String,
    app: String,
    proc_id: String,
    container: [String; 3],
    message: Vec<u8>,
}

impl Make {
    fn rsyslog(input: Input) -> Option<Self> {
        rsyslog::find(input).map(Self::Rsyslog)
    }

    fn syslog_ng() -> Option<Self> {
        SyslogNg::find().map(Self::SyslogNg)
    }
}

impl Daemon {
    #[track_caller]
    fn start(make: Make, input: Input) -> Self {
        let dir = TempDir::new().expect("a directory");
        // Another process may take the port between the check and the bind.
        let (program, at) = eventually("a daemon that listens", || {
            let at = free(input)?;
            up(&make, input, at, dir.path()).map(|program| (program, at))
        });
        Self { program: Some(program), make, at, input, dir }
    }

    fn url(&self) -> String {
        let scheme = match self.input {
            Input::Udp => "udp",
            Input::Tcp => "tcp",
            Input::Tls => "tcp+tls",
            Input::Relp => "relp",
        };
        format!("{scheme}://{}", self.at)
    }

    fn stops(&mut self) {
        let mut program = self.program.take().expect("it runs");
        program.signal(SIGTERM);
        program.ends();
    }

    fn starts_again(&mut self) {
        let up = || up(&self.make, self.input, self.at, self.dir.path());
        self.program = Some(eventually("the daemon is back", up));
    }

    /// All arrivals, except a last line that is still being written.
    fn arrivals(&self) -> Vec<Arrival> {
        let bytes = fs::read(self.dir.path().join(rsyslog::ARRIVED)).unwrap_or_default();
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        bytes[..whole].split_inclusive(|byte| *byte == b'\n').map(|line| arrival(&line[..line.len() - 1])).collect()
    }
}

fn arrival(line: &[u8]) -> Arrival {
    let fields: Vec<_> = line.splitn(8, |byte| *byte == b'\t').collect();
    assert_eq!(fields.len(), 8, "{}", shown(line));
    let text = |at: usize| String::from_utf8_lossy(fields[at]).into_owned();
    Arrival {
        pri: text(0).parse().expect("a priority"),
        host: text(1),
        app: text(2),
        proc_id: text(3),
        container: [4, 5, 6].map(text),
        message: fields[7].to_vec(),
    }
}

fn free(input: Input) -> Option<SocketAddr> {
    match input {
        Input::Udp => UdpSocket::bind(own_port()).ok()?.local_addr().ok(),
        Input::Tcp | Input::Relp => TcpListener::bind(own_port()).ok()?.local_addr().ok(),
        // The certificate is for this address.
        Input::Tls => TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok(),
    }
}

fn up(make: &Make, input: Input, at: SocketAddr, dir: &Path) -> Option<Program> {
    let (conf, mut command) = match make {
        Make::Rsyslog(program) => {
            let properties = ["pri", "hostname", "app-name", "procid"];
            (rsyslog::conf(input, at, dir, &properties), rsyslog::command(program, dir))
        }
        Make::SyslogNg(syslog_ng) => (syslog_ng_conf(input, at, dir), syslog_ng.command(dir)),
    };
    fs::write(dir.join("conf"), conf).expect("written");
    let mut program = Program::start(&mut command);
    eventually("the daemon listens or ends", || {
        let listens = match input {
            // Once the daemon listens, the port cannot be bound.
            Input::Udp => UdpSocket::bind(at).is_err(),
            Input::Tcp | Input::Tls | Input::Relp => TcpStream::connect(at).is_ok(),
        };
        (listens || program.has_ended().is_some()).then_some(())
    });
    if program.has_ended().is_some() {
        eprintln!("{}", program.stderr());
        return None;
    }
    Some(program)
}

fn syslog_ng_conf(input: Input, at: SocketAddr, dir: &Path) -> String {
    let (dir, ip, port, certs) = (dir.display(), at.ip(), at.port(), Certs::get());
    let transport = match input {
        Input::Udp => "transport(\"udp\")".to_owned(),
        Input::Tcp => "transport(\"tcp\")".to_owned(),
        Input::Tls => format!(
            "transport(\"tls\") tls(cert-file(\"{}\") key-file(\"{}\") peer-verify(optional-untrusted))",
            certs.path("server.pem"),
            certs.path("server-key.pem")
        ),
        Input::Relp => unreachable!("syslog-ng speaks no RELP"),
    };
    let sd = ["image", "name", "id"].map(|name| format!("${{.SDATA.docker@32473.{name}}}")).join("\\t");
    format!(
        "@version: 3.35\n\
         options {{ keep-hostname(yes); log-msg-size(131072); use-dns(no); stats-freq(0); }};\n\
         source relay {{ syslog(ip({ip}) port({port}) {transport}); }};\n\
         destination arrived {{ file(\"{dir}/arrived\" \
         template(\"${{PRI}}\\t${{HOST}}\\t${{PROGRAM}}\\t${{PID}}\\t{sd}\\t${{MESSAGE}}\\n\")); }};\n\
         log {{ source(relay); destination(arrived); }};\n"
    )
}

/// The hard texts, in all of Docker's formats, as this daemon understands them. `kept` maps a text to the daemon's output, which is the
/// same for every sender.
#[track_caller]
fn understands_docker(make: Option<Make>, input: Input, keys: &str, kept: impl Fn(&[u8]) -> Vec<u8>) {
    let Some(make) = make else { return };
    let daemon = Daemon::start(make, input);
    let keys = format!("{keys}\n{}", Certs::trusted(&daemon.url()));
    let relay = Setup::new().listen("tcp://127.0.0.1:0").forward_with(&daemon.url(), &keys).start();
    let mut wire = relay.door().connect();
    let texts = hard_texts();
    let mut sent = 0;
    for format in Format::ALL {
        let container = Docker::new(format, &format!("web-{format:?}"));
        texts.iter().for_each(|text| wire.says(&container, text));
        sent += texts.len();
        // Wait, because a datagram is lost when the daemon's buffer is full.
        eventually("the daemon has written all", || (daemon.arrivals().len() >= sent).then_some(()));
        let arrivals = daemon.arrivals();
        assert_eq!(arrivals.len(), sent);
        for (arrival, text) in arrivals[sent - texts.len()..].iter().zip(&texts) {
            assert_eq!(shown(&arrival.message), shown(&kept(text)), "{arrival:?}");
            assert!(arrival.message == kept(text), "{arrival:?}");
            let header = (arrival.pri, &*arrival.host, &*arrival.app, &*arrival.proc_id);
            assert_eq!(header, (30, container.host(), &*container.name, &*container.id), "{arrival:?}");
            assert_eq!(arrival.container, [&*container.image, &*container.name, &*container.id], "{arrival:?}");
        }
    }
    relay.has_delivered(sent, 0);
    relay.stops();
}

#[test]
fn rsyslog_by_tcp() {
    understands_docker(Make::rsyslog(Input::Tcp), Input::Tcp, "", rsyslog::kept);
}

#[test]
fn rsyslog_by_tcp_with_octet_counts() {
    understands_docker(Make::rsyslog(Input::Tcp), Input::Tcp, "framing = \"octet-counting\"", rsyslog::kept);
}

#[test]
fn rsyslog_by_udp() {
    understands_docker(Make::rsyslog(Input::Udp), Input::Udp, "", rsyslog::kept);
}

#[test]
fn rsyslog_by_tls() {
    understands_docker(Make::rsyslog(Input::Tls), Input::Tls, "", rsyslog::kept);
}

#[test]
fn syslog_ng_by_tcp() {
    understands_docker(Make::syslog_ng(), Input::Tcp, "framing = \"octet-counting\"", syslog_ng::kept);
}

#[test]
fn syslog_ng_by_udp() {
    understands_docker(Make::syslog_ng(), Input::Udp, "", syslog_ng::kept);
}

#[test]
fn syslog_ng_by_tls() {
    understands_docker(Make::syslog_ng(), Input::Tls, "", syslog_ng::kept);
}

/// The daemon restarts while messages flow, as after a change of its config.
#[track_caller]
fn is_restarted(make: Option<Make>, input: Input) {
    let Some(make) = make else { return };
    let mut daemon = Daemon::start(make, input);
    let keys = format!("framing = \"octet-counting\"\n{}", Certs::trusted(&daemon.url()));
    let relay = Setup::new().listen("tcp://127.0.0.1:0").forward_with(&daemon.url(), &keys).start();
    let flow = Flow::into(relay.door());
    let numbers = |daemon: &Daemon| -> BTreeSet<usize> {
        let text = |arrival: &Arrival| String::from_utf8_lossy(&arrival.message).parse().expect("a number");
        daemon.arrivals().iter().map(text).collect()
    };
    for _ in 0..5 {
        flow.goes_on(50);
        daemon.stops();
        flow.goes_on(50);
        daemon.starts_again();
        let goal = flow.sent();
        eventually("it has caught up", || numbers(&daemon).contains(&goal).then_some(()));
    }
    let sent = flow.ends();
    relay.has_delivered(sent, 0);
    eventually("the last one", || numbers(&daemon).contains(&(sent - 1)).then_some(()));
    let got = numbers(&daemon);
    let lost: Vec<_> = (0..sent).filter(|number| !got.contains(number)).collect();
    assert!(lost.is_empty(), "{} of {sent} are lost: {lost:?}", lost.len());
    relay.stops();
}

#[test]
fn a_restarted_rsyslog_gets_everything() {
    is_restarted(Make::rsyslog(Input::Tcp), Input::Tcp);
}

#[test]
fn a_restarted_rsyslog_gets_everything_by_tls() {
    is_restarted(Make::rsyslog(Input::Tls), Input::Tls);
}

#[test]
fn a_restarted_syslog_ng_gets_everything() {
    is_restarted(Make::syslog_ng(), Input::Tcp);
}
