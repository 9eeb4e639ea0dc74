//! Collectors of other makes: what a real rsyslog and a real syslog-ng make of our lines.
//!
//! syslog-ng cannot be installed beside rsyslog from Debian's packages. It is also found where it was unpacked:
//! `apt-get download syslog-ng-core libivykis0 libnet1 libpcre3 libwrap0`, then `dpkg -x` each into `target/syslog-ng`.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;

use support::docker::hard_texts;
use support::program::SIGTERM;
use support::{Certs, Docker, Flow, Format, Program, Setup, eventually, installed, shown, skipped};
use tempfile::TempDir;

/// A daemon that writes a line for each message: its fields with a tab between them, the message last.
struct Daemon {
    program: Option<Program>,
    make: Make,
    at: SocketAddr,
    transport: Transport,
    dir: TempDir,
}

#[derive(Clone)]
enum Make {
    Rsyslog(PathBuf),
    /// The program, and the directory it was unpacked in.
    SyslogNg(PathBuf, Option<PathBuf>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Transport {
    Udp,
    Tcp,
    Tls,
}

/// What a daemon understood.
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
    fn rsyslog() -> Option<Self> {
        installed("rsyslogd", "rsyslog").map(Self::Rsyslog)
    }

    fn syslog_ng() -> Option<Self> {
        let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/syslog-ng");
        let program = unpacked.join("usr/sbin/syslog-ng");
        if program.is_file() {
            return Some(Self::SyslogNg(program, Some(unpacked)));
        }
        installed("syslog-ng", "syslog-ng-core").map(|program| Self::SyslogNg(program, None))
    }
}

impl Daemon {
    #[track_caller]
    fn start(make: Make, transport: Transport) -> Self {
        let dir = TempDir::new().expect("a directory");
        // Somebody else may take the port between the asking and the taking.
        let (program, at) = eventually("a daemon that listens", || {
            let at = free(transport)?;
            up(&make, transport, at, dir.path()).map(|program| (program, at))
        });
        Self { program: Some(program), make, at, transport, dir }
    }

    fn url(&self) -> String {
        let scheme = match self.transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tcp+tls",
        };
        format!("{scheme}://{}", self.at)
    }

    fn stops(&mut self) {
        let mut program = self.program.take().expect("it runs");
        program.signal(SIGTERM);
        program.ends();
    }

    fn starts_again(&mut self) {
        let up = || up(&self.make, self.transport, self.at, self.dir.path());
        self.program = Some(eventually("the daemon is back", up));
    }

    /// All there are; a last line that is still being written is left for later.
    fn arrivals(&self) -> Vec<Arrival> {
        let bytes = fs::read(self.dir.path().join("arrived")).unwrap_or_default();
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

fn free(transport: Transport) -> Option<SocketAddr> {
    match transport {
        Transport::Udp => UdpSocket::bind("127.0.0.1:0").ok()?.local_addr().ok(),
        Transport::Tcp | Transport::Tls => TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok(),
    }
}

fn up(make: &Make, transport: Transport, at: SocketAddr, dir: &Path) -> Option<Program> {
    let (config, shown) = (dir.join("conf"), dir.display());
    let mut command = match make {
        Make::Rsyslog(program) => {
            fs::write(&config, rsyslog_conf(transport, at, dir)).expect("written");
            let mut command = Command::new(program);
            command.arg("-n").arg("-f").arg(&config).arg("-i").arg(dir.join("pid"));
            command
        }
        Make::SyslogNg(program, unpacked) => {
            fs::write(&config, syslog_ng_conf(transport, at, dir)).expect("written");
            let mut command = Command::new(program);
            command.args(["--foreground", "--stderr", "--no-caps"]).arg(format!("--cfgfile={shown}/conf"));
            command.arg(format!("--pidfile={shown}/pid")).arg(format!("--control={shown}/control"));
            command.arg(format!("--persist-file={shown}/persist"));
            if let Some(root) = unpacked {
                let root = root.display();
                command.arg(format!("--module-path={root}/usr/lib/syslog-ng/3.38"));
                let libraries = format!(
                    "{root}/usr/lib/x86_64-linux-gnu:{root}/usr/lib/syslog-ng:{root}/lib/x86_64-linux-gnu:{root}/usr/lib/aarch64-linux-gnu:{root}/lib/aarch64-linux-gnu"
                );
                command.env("LD_LIBRARY_PATH", libraries);
            }
            command
        }
    };
    let mut program = Program::start(&mut command);
    eventually("the daemon listens or ends", || {
        let listens = match transport {
            // The port is taken when the daemon has it.
            Transport::Udp => UdpSocket::bind(at).is_err(),
            Transport::Tcp | Transport::Tls => TcpStream::connect(at).is_ok(),
        };
        (listens || program.has_ended().is_some()).then_some(())
    });
    if program.has_ended().is_some() {
        eprintln!("{}", program.stderr());
        return None;
    }
    Some(program)
}

fn rsyslog_conf(transport: Transport, at: SocketAddr, dir: &Path) -> String {
    let (dir, ip, port, certs) = (dir.display(), at.ip(), at.port(), Certs::get());
    let (ca, cert, key) = (certs.path("ca.pem"), certs.path("server.pem"), certs.path("server-key.pem"));
    let input = match transport {
        Transport::Udp => format!("module(load=\"imudp\")\ninput(type=\"imudp\" address=\"{ip}\" port=\"{port}\")"),
        Transport::Tcp => format!(
            "module(load=\"imtcp\" maxFrameSize=\"131072\")\ninput(type=\"imtcp\" address=\"{ip}\" port=\"{port}\")"
        ),
        Transport::Tls => format!(
            "global(defaultNetstreamDriverCAFile=\"{ca}\" defaultNetstreamDriverCertFile=\"{cert}\" \
             defaultNetstreamDriverKeyFile=\"{key}\")\n\
             module(load=\"imtcp\" maxFrameSize=\"131072\" streamDriver.name=\"ossl\" streamDriver.mode=\"1\" \
             streamDriver.authMode=\"anon\")\n\
             input(type=\"imtcp\" address=\"{ip}\" port=\"{port}\")"
        ),
    };
    let fields = ["pri", "hostname", "app-name", "procid"].map(|name| format!("property(name=\"{name}\")"));
    let data = ["image", "name", "id"].map(|name| format!("property(name=\"$!rfc5424-sd!docker@32473!{name}\")"));
    let tab = " constant(value=\"\\t\") ";
    format!(
        "global(workDirectory=\"{dir}\" maxMessageSize=\"128k\" net.enableDNS=\"off\" \
         parser.escapeControlCharactersOnReceive=\"off\")\n\
         module(load=\"mmpstrucdata\")\n{input}\n\
         template(name=\"fields\" type=\"list\") {{ {}{tab}{}{tab}property(name=\"msg\") constant(value=\"\\n\") }}\n\
         action(type=\"mmpstrucdata\")\n\
         action(type=\"omfile\" file=\"{dir}/arrived\" template=\"fields\")\n",
        fields.join(tab),
        data.join(tab),
    )
}

fn syslog_ng_conf(transport: Transport, at: SocketAddr, dir: &Path) -> String {
    let (dir, ip, port, certs) = (dir.display(), at.ip(), at.port(), Certs::get());
    let transport = match transport {
        Transport::Udp => "transport(\"udp\")".to_owned(),
        Transport::Tcp => "transport(\"tcp\")".to_owned(),
        Transport::Tls => format!(
            "transport(\"tls\") tls(cert-file(\"{}\") key-file(\"{}\") peer-verify(optional-untrusted))",
            certs.path("server.pem"),
            certs.path("server-key.pem")
        ),
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

/// The hard texts, in all of Docker's formats, as this daemon understands them. `kept` says what it makes of a message,
/// whoever sends it.
#[track_caller]
fn understands_docker(make: Option<Make>, transport: Transport, keys: &str, kept: impl Fn(&[u8]) -> Vec<u8>) {
    let Some(make) = make else { return };
    if transport == Transport::Tls && !speaks_tls(&make) {
        return skipped("rsyslog has no TLS (Debian: apt-get install rsyslog-openssl)");
    }
    let daemon = Daemon::start(make, transport);
    let keys = match transport {
        Transport::Tls => format!("{keys}\nca = \"{}\"", Certs::get().path("ca.pem")),
        _ => keys.to_owned(),
    };
    let relay = Setup::new().listen("tcp://127.0.0.1:0").forward_with(&daemon.url(), &keys).start();
    let mut wire = relay.door().connect();
    let texts = hard_texts();
    let mut sent = 0;
    for format in Format::ALL {
        let container = Docker::new(format, &format!("web-{format:?}"));
        texts.iter().for_each(|text| wire.says(&container, text));
        sent += texts.len();
        // A datagram that the daemon has no room for is lost.
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

fn speaks_tls(make: &Make) -> bool {
    let Make::Rsyslog(_) = make else { return true };
    let modules = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path().join("rsyslog"));
    modules
        .chain(["/usr/lib/rsyslog".into(), "/usr/lib64/rsyslog".into()])
        .any(|dir| dir.join("lmnsd_ossl.so").is_file())
}

/// rsyslog writes NUL as it writes control characters by default, and drops it at a message's end.
fn by_rsyslog(text: &[u8]) -> Vec<u8> {
    without_nul_at_the_end(text).split(|byte| *byte == 0).collect::<Vec<_>>().join(&b"#000"[..])
}

/// syslog-ng drops NUL at a message's end, and a BOM at its start, which RFC 5424 makes a mark and not a text.
fn by_syslog_ng(text: &[u8]) -> Vec<u8> {
    let text = without_nul_at_the_end(text);
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text).to_vec()
}

fn without_nul_at_the_end(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &text[..end]
}

#[test]
fn rsyslog_by_tcp() {
    understands_docker(Make::rsyslog(), Transport::Tcp, "", by_rsyslog);
}

#[test]
fn rsyslog_by_tcp_with_octet_counts() {
    understands_docker(Make::rsyslog(), Transport::Tcp, "framing = \"octet-counting\"", by_rsyslog);
}

#[test]
fn rsyslog_by_udp() {
    understands_docker(Make::rsyslog(), Transport::Udp, "", by_rsyslog);
}

#[test]
fn rsyslog_by_tls() {
    understands_docker(Make::rsyslog(), Transport::Tls, "", by_rsyslog);
}

#[test]
fn syslog_ng_by_tcp() {
    understands_docker(Make::syslog_ng(), Transport::Tcp, "framing = \"octet-counting\"", by_syslog_ng);
}

#[test]
fn syslog_ng_by_udp() {
    understands_docker(Make::syslog_ng(), Transport::Udp, "", by_syslog_ng);
}

#[test]
fn syslog_ng_by_tls() {
    understands_docker(Make::syslog_ng(), Transport::Tls, "", by_syslog_ng);
}

/// Restarted, as an operator does after a change of its config, while messages flow.
#[track_caller]
fn is_restarted(make: Option<Make>, transport: Transport) {
    let Some(make) = make else { return };
    if transport == Transport::Tls && !speaks_tls(&make) {
        return skipped("rsyslog has no TLS (Debian: apt-get install rsyslog-openssl)");
    }
    let mut daemon = Daemon::start(make, transport);
    let keys = format!("framing = \"octet-counting\"\nca = \"{}\"", Certs::get().path("ca.pem"));
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
    is_restarted(Make::rsyslog(), Transport::Tcp);
}

#[test]
fn a_restarted_rsyslog_gets_everything_by_tls() {
    is_restarted(Make::rsyslog(), Transport::Tls);
}

#[test]
fn a_restarted_syslog_ng_gets_everything() {
    is_restarted(Make::syslog_ng(), Transport::Tcp);
}
