//! `logferry probe`: numbered messages into a running relay, and which of them come out at the other end, how often, in
//! which order and how long after: the acceptance test of an installation.

mod arrivals;
mod report;
mod sender;
mod tail;

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::collector::Collector;
use super::wire::Door;
use super::{Failure, print, runtime};
use crate::config::{
    ClientTls, DEFAULT_MAX_TTL, DEFAULT_MIN_TTL, DEFAULT_RESOLVE_TIMEOUT, Destination, ForwardAddress, ForwardProtocol,
    ListenAddress, ListenTransport, Protocol, Resolve, Transport,
};
use crate::forward::{Patience, Resolver};
use arrivals::{Arrivals, Token};
use report::Report;
use sender::Sender;

#[derive(clap::Args)]
pub struct Arguments {
    /// Where to send to: the relay's udp://, tcp://, tcp+tls://, unix:// or unixgram://, as in Docker's syslog-address
    #[arg(long, value_name = "URL")]
    from: String,

    /// Where the messages come out: tcp:// or udp:// on which the probe listens itself, as the collector of a [[forward]];
    /// or file:///path, which the central server writes
    #[arg(long, value_name = "URL")]
    at: String,

    /// Messages to send
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    count: u32,

    /// Messages a second
    #[arg(long, value_name = "N", default_value = "1000/s", value_parser = per_second)]
    rate: u32,

    /// How long to wait for the next missing message when all are sent
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    wait: Duration,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,

    /// The driver's `tag` option
    #[arg(long, value_name = "TEMPLATE", default_value = "{{.ImageName}}/{{.Name}}/{{.ID}}")]
    tag: String,

    /// CA (PEM) that signed the relay's certificate [default: the system's roots]
    #[arg(long, value_name = "FILE")]
    ca: Option<String>,

    /// Certificate chain (PEM) to show to a relay that asks for one
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<String>,

    /// Private key (PEM) of --cert
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<String>,

    /// Name in the relay's certificate, when it is not the one in --from
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
}

/// Each has a place in memory, of four bytes.
const MOST_MESSAGES: u32 = 10_000_000;
/// How often progress is told, and the end looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// A relay that could not connect to a collector tries again this often at least; what is sent earlier waits for it, and
/// that would be taken for latency.
const CONNECTED_WITHIN: Duration = Duration::from_secs(5);
/// What comes twice may come a moment later.
const LINGER: Duration = Duration::from_millis(500);

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.rate == 0 || !(1..=MOST_MESSAGES).contains(&arguments.count) {
        return Err(Failure::usage(format!(
            "probe: --rate must be above zero and --count between 1 and {MOST_MESSAGES}"
        )));
    }
    let runtime = runtime()?;
    let (doors, tls) = runtime.block_on(doors(arguments))?;
    let arrivals = Arc::new(Arrivals::new(Token::random(), arguments.count));
    let exit = Exit::open(&arguments.at, &arrivals)?;
    let interrupted = runtime.block_on(async {
        tokio::select! {
            said = tokio::signal::ctrl_c() => said.map(|()| true),
            () = exit.is_connected() => Ok(false),
        }
    });
    let tag = arguments.tag.clone();
    let (token, count, rate) = (arrivals.token().clone(), arguments.count, arguments.rate);
    let was_interrupted = |said: std::io::Result<bool>| {
        said.map_err(|error| Failure::failed(format!("probe: cannot handle signals: {error}")))
    };
    if was_interrupted(interrupted)? {
        return Err(Failure::failed("probe: interrupted before anything was sent"));
    }
    let sender = Sender::start(doors, tls, sender::Messages { token, tag, count, rate })
        .map_err(|error| Failure::failed(format!("probe: cannot start a thread: {error}")))?;
    let interrupted = runtime.block_on(async {
        tokio::select! {
            said = tokio::signal::ctrl_c() => said.map(|()| true),
            () = all_is_there(&sender, &arrivals, arguments.wait) => Ok(false),
        }
    });
    progress_ends();
    let report = Report::of(&sender, &arrivals, was_interrupted(interrupted)?);
    let from_udp = arguments.from.starts_with("udp:");
    print(if arguments.json { report.json() } else { report.table(from_udp) })?;
    report.verdict().map_err(Failure::failed)
}

/// Ends when everything has arrived, or nothing has for too long.
async fn all_is_there(sender: &Sender, arrivals: &Arrivals, wait: Duration) {
    let mut quiet = (Instant::now(), 0);
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        let (sent, arrived) = (sender.sent(), arrivals.distinct());
        progress(&format!("sent {sent}  arrived {arrived}"));
        if arrived != quiet.1 || !sender.finished() {
            quiet = (Instant::now(), arrived);
        }
        if sender.finished() && (arrived >= sent || quiet.0.elapsed() >= wait) {
            return tokio::time::sleep(LINGER).await;
        }
    }
}

/// Where messages come out.
enum Exit {
    Tcp(Collector),
    Other,
}

impl Exit {
    fn open(at: &str, arrivals: &Arc<Arrivals>) -> Result<Self, Failure> {
        let (seen, usage) = (arrivals.clone(), |says: String| Failure::usage(format!("probe: --at: {says}")));
        let cannot = |error| Failure::config(&format!("probe: cannot listen on {at}: {error}; choose another --at"));
        let on_frame = move |frame: &[u8]| seen.take(frame);
        if at.starts_with("file:") {
            let ForwardAddress::File(path) = at.parse().map_err(usage)? else {
                return Err(usage(format!("`{at}`: write file:///var/log/central.log")));
            };
            return tail::start(path, on_frame).map(|()| Self::Other).map_err(|says| Failure::config(&says));
        }
        let listen: ListenAddress = at.parse().map_err(usage)?;
        match (listen.protocol(), listen.transport()) {
            (Protocol::Syslog, ListenTransport::Tcp(address)) => {
                let collector = Collector::tcp(*address, on_frame).map_err(cannot)?;
                eprintln!("probe: collecting on tcp://{}", collector.address);
                Ok(Self::Tcp(collector))
            }
            (Protocol::Syslog, ListenTransport::Udp(address)) => {
                let collector = Collector::udp(*address, on_frame).map_err(cannot)?;
                eprintln!("probe: collecting on udp://{}", collector.address);
                Ok(Self::Other)
            }
            _ => Err(usage(format!(
                "`{at}`: the probe itself listens on tcp:// and udp://; with anything else let the collector write a file, \
                 and name that: --at file:///var/log/central.log"
            ))),
        }
    }

    /// Until a relay is connected, or for so long that it is of no use to wait.
    async fn is_connected(&self) {
        let Self::Tcp(collector) = self else { return };
        let start = Instant::now();
        while collector.accepted() == 0 && start.elapsed() < CONNECTED_WITHIN {
            progress("waiting for a relay to connect");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        progress_ends();
        if collector.accepted() == 0 {
            eprintln!("probe: no relay has connected to {} yet; sending all the same", collector.address);
        }
    }
}

/// The relay's addresses, looked up where it is a name, and what to show it. Of a datagram nobody learns whether it was
/// taken: there the first address is the only one.
async fn doors(arguments: &Arguments) -> Result<(Vec<Door>, ClientTls), Failure> {
    let Arguments { from, ca, cert, key, server_name, .. } = arguments;
    let usage = |says: String| Failure::usage(format!("probe: --from: {says}"));
    let mut tls = ClientTls {
        ca: ca.as_ref().map(Into::into),
        cert: cert.as_ref().map(Into::into),
        key: key.as_ref().map(Into::into),
        server_name: server_name.clone(),
        ..ClientTls::default()
    };
    if from.starts_with("unix") {
        let address: ListenAddress = from.parse().map_err(usage)?;
        return Ok((vec![Door::from_address(&address).expect("a unix socket")], tls));
    }
    let address: ForwardAddress = from.parse().map_err(usage)?;
    let network = address.network().map(|at| (at.protocol(), at.transport(), at.destination()));
    let (to, door, max): (_, fn(_) -> Door, _) = match network {
        Some((ForwardProtocol::Syslog, Transport::Udp, to @ Destination::Host(_))) => (to, Door::Udp, 1),
        Some((ForwardProtocol::Syslog, Transport::Tcp, to @ Destination::Host(_))) => (to, Door::Tcp, usize::MAX),
        Some((ForwardProtocol::Syslog, Transport::Tls, to @ Destination::Host(_))) => (to, Door::Tls, usize::MAX),
        _ => {
            return Err(usage(format!(
                "`{from}`: a container sends by udp://, tcp://, tcp+tls://, unix:// or unixgram://"
            )));
        }
    };
    let (min_ttl, max_ttl, timeout) = (DEFAULT_MIN_TTL, DEFAULT_MAX_TTL, DEFAULT_RESOLVE_TIMEOUT);
    let resolver = Resolver::new(Resolve { nameservers: Vec::new(), min_ttl, max_ttl, timeout });
    let answer = resolver.resolve(to, Patience::BothFamilies).await;
    let answer = answer.map_err(|error| Failure::config(&format!("probe: --from: {to} does not resolve: {error}")))?;
    let Some(first) = answer.endpoints.first() else {
        return Err(Failure::config(&format!("probe: --from: {to} has no address")));
    };
    if tls.server_name.is_none() {
        tls.server_name = Some(first.host.clone());
    }
    Ok((answer.endpoints.iter().take(max).map(|endpoint| door(endpoint.peer)).collect(), tls))
}

fn per_second(text: &str) -> Result<u32, String> {
    text.strip_suffix("/s").unwrap_or(text).parse().map_err(|_| "write 1000/s".to_owned())
}

/// On a terminal, one line that changes; elsewhere nothing.
fn progress(text: &str) {
    let mut stderr = std::io::stderr();
    if stderr.is_terminal() {
        let _ = write!(stderr, "\r\x1b[K{text}");
    }
}

fn progress_ends() {
    progress("");
}
