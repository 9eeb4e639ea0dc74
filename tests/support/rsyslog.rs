//! A real rsyslog as a collector: its inputs and its output, for all tests that use one.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Certs, Program, eventually, installed, own_port, skip};

/// The protocol that it listens for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    Udp,
    Tcp,
    Tls,
    Relp,
}

/// Its output file, in its directory.
pub const ARRIVED: &str = "arrived";

/// The program. `None`: it is not installed, or lacks this input.
pub fn find(input: Input) -> Option<PathBuf> {
    let program = installed("rsyslogd", "rsyslog")?;
    let (module, package, what) = match input {
        Input::Udp | Input::Tcp => return Some(program),
        Input::Tls => ("lmnsd_ossl.so", "rsyslog-openssl", "TLS"),
        Input::Relp => ("imrelp.so", "rsyslog-relp", "RELP"),
    };
    if !has_module(module) {
        skip(package, &format!("rsyslog has no {what} (Debian: apt-get install {package})"));
        return None;
    }
    Some(program)
}

pub fn has_module(name: &str) -> bool {
    modules().is_some_and(|dir| dir.join(name).is_file())
}

/// The directory of rsyslog's modules.
pub fn modules() -> Option<PathBuf> {
    let libraries = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path().join("rsyslog"));
    libraries.chain(["/usr/lib/rsyslog".into(), "/usr/lib64/rsyslog".into()]).find(|dir| dir.join("lmnet.so").is_file())
}

/// rsyslog in the foreground, with the config `conf` of its directory.
pub fn command(program: &Path, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("-n").arg("-f").arg(dir.join("conf")).arg("-i").arg(dir.join("pid"));
    command
}

/// Starts rsyslog on a free port, and waits until it listens. Its files are in `dir`. It writes control characters as `#` and three octal
/// digits, as it does by default ([`escaped`]).
#[track_caller]
pub fn start(program: &Path, input: Input, dir: &Path, properties: &[&str]) -> (Program, SocketAddr) {
    // Another process may take the port between the check and the bind.
    eventually("an rsyslog that listens", || {
        let at = match input {
            Input::Udp => UdpSocket::bind(own_port()).ok()?.local_addr().ok()?,
            Input::Tcp | Input::Relp => TcpListener::bind(own_port()).ok()?.local_addr().ok()?,
            // The certificate is for this address.
            Input::Tls => TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?,
        };
        let conf = conf(input, at, dir, properties).replace("OnReceive=\"off\"", "OnReceive=\"on\"");
        fs::write(dir.join("conf"), conf).expect("written");
        let mut daemon = Program::start(&mut command(program, dir));
        eventually("it listens or ends", || {
            let listens = match input {
                // Once rsyslog listens, the port cannot be bound.
                Input::Udp => UdpSocket::bind(at).is_err(),
                Input::Tcp | Input::Tls | Input::Relp => TcpStream::connect(at).is_ok(),
            };
            (listens || daemon.has_ended().is_some()).then_some(())
        });
        daemon.has_ended().is_none().then_some((daemon, at))
    })
}

/// A config that writes a line for each message: these properties, the relay's fields about the container, and the message, separated by
/// tabs. Without properties, only the message.
///
/// The queues are direct: rsyslog writes each message before it reads more, so that a crash loses as little as possible.
pub fn conf(input: Input, at: SocketAddr, dir: &Path, properties: &[&str]) -> String {
    let (ip, port, dir) = (at.ip(), at.port(), dir.display());
    let bound = format!("address=\"{ip}\" port=\"{port}\" ruleset=\"arrived\"");
    let input = match input {
        Input::Udp => format!("module(load=\"imudp\")\ninput(type=\"imudp\" rcvbufSize=\"4m\" {bound})"),
        Input::Tcp => format!("module(load=\"imtcp\" maxFrameSize=\"131072\")\ninput(type=\"imtcp\" {bound})"),
        Input::Tls => format!("{}\ninput(type=\"imtcp\" {bound})", tls()),
        Input::Relp => format!("module(load=\"imrelp\")\ninput(type=\"imrelp\" maxDataSize=\"128k\" {bound})"),
    };
    let taken_apart = if properties.is_empty() { "" } else { "action(type=\"mmpstrucdata\")" };
    format!(
        "global(workDirectory=\"{dir}\" maxMessageSize=\"128k\" net.enableDNS=\"off\" \
         parser.escapeControlCharactersOnReceive=\"off\")\n\
         module(load=\"mmpstrucdata\")\n\
         template(name=\"line\" type=\"list\") {{ {} property(name=\"msg\") constant(value=\"\\n\") }}\n\
         ruleset(name=\"arrived\" queue.type=\"Direct\") {{\n\
         {taken_apart}\n\
         action(type=\"omfile\" file=\"{dir}/{ARRIVED}\" template=\"line\" queue.type=\"Direct\")\n\
         }}\n\
         {input}\n",
        fields(properties),
    )
}

/// A message's text in rsyslog's output, by every protocol: NUL is escaped like a control character by default, and a NUL at the end is
/// removed.
pub fn kept(text: &[u8]) -> Vec<u8> {
    without_nul_at_the_end(text).split(|byte| *byte == 0).collect::<Vec<_>>().join(&b"#000"[..])
}

/// A message's text in rsyslog's output with the default escapes.
pub fn escaped(text: &[u8]) -> Vec<u8> {
    let escape = |byte: &u8| match byte {
        0..32 => format!("#{byte:03o}").into_bytes(),
        byte => vec![*byte],
    };
    text.iter().flat_map(escape).collect()
}

pub fn without_nul_at_the_end(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &text[..end]
}

/// TLS settings: our certificates, and no client certificates.
pub fn tls() -> String {
    let certs = Certs::get();
    let (ca, cert, key) = (certs.path("ca.pem"), certs.path("server.pem"), certs.path("server-key.pem"));
    format!(
        "global(defaultNetstreamDriverCAFile=\"{ca}\" defaultNetstreamDriverCertFile=\"{cert}\" \
         defaultNetstreamDriverKeyFile=\"{key}\")\n\
         module(load=\"imtcp\" maxFrameSize=\"131072\" streamDriver.name=\"ossl\" streamDriver.mode=\"1\" \
         streamDriver.authMode=\"anon\")"
    )
}

/// Each property, followed by a tab.
fn fields(properties: &[&str]) -> String {
    if properties.is_empty() {
        return String::new();
    }
    let property = |name: &str| match name {
        "timereported" => format!("property(name=\"{name}\" dateFormat=\"rfc3339\")"),
        _ => format!("property(name=\"{name}\")"),
    };
    let container = ["image", "name", "id"].map(|name| format!("property(name=\"$!rfc5424-sd!docker@32473!{name}\")"));
    let all = properties.iter().map(|name| property(name)).chain(container);
    all.map(|field| field + " constant(value=\"\\t\") ").collect()
}
