//! `logferry probe`, the acceptance test of an installation: it sends numbered messages through a running relay, and reports
//! which of them arrive at the other end, how often, in which order and with which latency.

mod arrivals;
mod drivers;
mod report;
mod sender;
mod tail;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::frame_receiver::FrameReceiver;
use super::log_driver::RelayAddress;
use super::progress::{self, Progress};
use super::{Failure, load, print, runtime, variables};
use crate::config::{
    ClientTls, ForwardAddress, ListenAddress, ListenTransport, Protocol, ReachedListener, Resolve, Transport,
};
use crate::forward::{Patience, ReadBack, Resolver, tls_connector};
use crate::listen::ingest::now;
use arrivals::{Arrivals, Token};
use drivers::Driver;
use report::Report;
use sender::Sender;

#[derive(clap::Args)]
pub struct Arguments {
    /// Where to send to: the relay's udp://, tcp://, tcp+tls://, unix:// or unixgram://, as in Docker's syslog-address; or its fluent://,
    /// fluent+tls://, fluent+unix://, gelf+udp://, gelf+tcp:// or gelf+tls://, as Docker's fluentd and gelf drivers send
    #[arg(long, value_name = "URL")]
    from: String,

    /// Where the messages come out: the name of a forward to Elasticsearch, Loki or NATS, from where they are read back;
    /// tcp:// or udp:// on which the probe listens itself, as the collector of a forward; or file:///path, which the central
    /// server writes
    #[arg(long, value_name = "NAME|URL")]
    at: String,

    /// Config file that has the forward of that name; without it /etc/logferry.toml is read
    #[arg(long, short, env = "LOGFERRY_CONFIG", value_name = "FILE")]
    config: Option<String>,

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

/// The maximum of `--count`. Each message takes four bytes of memory.
const MAX_MESSAGES: u32 = 10_000_000;
/// How often the probe prints its progress and checks whether it is done.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How long the probe waits for the relay's connection before it sends. Messages sent earlier would have to wait for the
/// connection, which would count as latency.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the probe waits for duplicates after the last message.
const DUPLICATES_WAIT: Duration = Duration::from_millis(500);
/// The maximum time of the last look into a store.
const LAST_LOOK: Duration = Duration::from_secs(10);

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.rate == 0 || !(1..=MAX_MESSAGES).contains(&arguments.count) {
        return Err(Failure::usage(format!(
            "probe: --rate must be above zero and --count between 1 and {MAX_MESSAGES}"
        )));
    }
    let runtime = runtime()?;
    let (driver, addresses, tls) = runtime.block_on(relay_addresses(arguments))?;
    let arrivals = Arc::new(Arrivals::new(Token::random(), arguments.count));
    let mut sink = Sink::open(arguments, &arrivals)?;
    match runtime.block_on(unless_interrupted(sink.is_ready(&arrivals)))? {
        Some(ready) => ready?,
        None => return Err(Failure::failed("probe: interrupted before anything was sent")),
    }
    let tag = arguments.tag.clone();
    let (token, count, rate) = (arrivals.token().clone(), arguments.count, arguments.rate);
    let by_udp = matches!(addresses[..], [RelayAddress::Udp(_), ..]);
    let sender = Sender::start(addresses, tls, sender::Messages { token, driver, tag, count, rate })
        .map_err(|error| Failure::failed(format!("probe: cannot start a thread: {error}")))?;
    let done = runtime.block_on(unless_interrupted(async {
        let mut progress = Progress::new();
        tokio::select! {
            () = all_arrived(&sender, &arrivals, (arguments.count, arguments.wait), &mut progress) => {}
            () = sink.follow(&arrivals) => {}
        }
        sink.looks_once_more(&arrivals).await;
    }));
    let report = Report::of(&sender, &arrivals, done?.is_none());
    print(if arguments.json { report.json() } else { report.table(by_udp) })?;
    report.verdict().map_err(Failure::failed)
}

/// `None`: Ctrl-C has interrupted the work.
async fn unless_interrupted<T>(work: impl Future<Output = T>) -> Result<Option<T>, Failure> {
    tokio::select! {
        said = tokio::signal::ctrl_c() => match said {
            Ok(()) => Ok(None),
            Err(error) => Err(Failure::failed(format!("probe: cannot handle signals: {error}"))),
        },
        done = work => Ok(Some(done)),
    }
}

/// Waits until all messages have arrived, or until none has arrived for `wait`.
async fn all_arrived(sender: &Sender, arrivals: &Arrivals, (count, wait): (u32, Duration), progress: &mut Progress) {
    let mut quiet = (Instant::now(), 0);
    loop {
        tokio::time::sleep(POLL_INTERVAL).await;
        let (sent, arrived) = (sender.sent(), arrivals.distinct());
        progress.show(arrived.into(), count.into(), format_args!("sent {sent}, arrived {arrived}"));
        if arrived != quiet.1 || !sender.finished() {
            quiet = (Instant::now(), arrived);
        }
        if sender.finished() && (arrived >= sent || quiet.0.elapsed() >= wait) {
            return tokio::time::sleep(DUPLICATES_WAIT).await;
        }
    }
}

/// The end of the chain, where the messages arrive.
enum Sink {
    Tcp(FrameReceiver),
    /// A store that a forward writes to, from which messages are read back.
    Store(Box<ReadBack>),
    Other,
}

impl Sink {
    fn open(arguments: &Arguments, arrivals: &Arc<Arrivals>) -> Result<Self, Failure> {
        let at = &*arguments.at;
        let (seen, usage) = (arrivals.clone(), |says: String| Failure::usage(format!("probe: --at: {says}")));
        let cannot = |error| Failure::config(&format!("probe: cannot listen on {at}: {error}; choose another --at"));
        let on_frame = move |frame: &[u8]| seen.record(frame);
        if !at.contains(':') {
            return read_back(arguments, arrivals.token()).map(|store| Self::Store(Box::new(store)));
        }
        if at.starts_with("file:") {
            let ForwardAddress::File(path) = at.parse().map_err(usage)? else {
                return Err(usage(format!("`{at}`: write file:///var/log/central.log")));
            };
            return tail::follow(path, on_frame).map(|()| Self::Other).map_err(|says| Failure::config(&says));
        }
        let listen: ListenAddress = at.parse().map_err(usage)?;
        match (listen.protocol(), listen.transport()) {
            (Protocol::Syslog, ListenTransport::Tcp(address)) => {
                let receiver = FrameReceiver::tcp(*address, on_frame).map_err(cannot)?;
                eprintln!("probe: collecting on tcp://{}", receiver.address);
                Ok(Self::Tcp(receiver))
            }
            (Protocol::Syslog, ListenTransport::Udp(address)) => {
                let receiver = FrameReceiver::udp(*address, on_frame).map_err(cannot)?;
                eprintln!("probe: collecting on udp://{}", receiver.address);
                Ok(Self::Other)
            }
            _ => Err(usage(format!(
                "`{at}`: the probe itself listens on tcp:// and udp://; what a forward brings to Elasticsearch, Loki or NATS it \
                 reads back by the forward's name (--at central); with anything else let the collector write a file, and name \
                 that: --at file:///var/log/central.log"
            ))),
        }
    }

    /// Waits until a relay connects, for at most [`CONNECT_TIMEOUT`]. A store must answer a first look instead.
    async fn is_ready(&mut self, arrivals: &Arrivals) -> Result<(), Failure> {
        match self {
            Self::Tcp(receiver) => wait_for_relay(receiver).await,
            Self::Store(store) => store
                .look(&mut |line| arrivals.record(line))
                .await
                .map_err(|why| Failure::config(&format!("probe: --at: the messages cannot be read back: {why}")))?,
            Self::Other => {}
        }
        Ok(())
    }

    /// Looks into a store repeatedly.
    async fn follow(&mut self, arrivals: &Arrivals) {
        let Self::Store(store) = self else { return std::future::pending().await };
        let mut said = String::new();
        loop {
            if let Err(why) = store.look(&mut |line| arrivals.record(line)).await
                && why != said
            {
                progress::clear();
                eprintln!("probe: the messages cannot be read back now: {why}; trying again");
                said = why;
            }
            tokio::time::sleep(store.pause()).await;
        }
    }

    /// Looks into a store one last time, for at most [`LAST_LOOK`].
    async fn looks_once_more(&mut self, arrivals: &Arrivals) {
        let Self::Store(store) = self else { return };
        let look = tokio::time::timeout(LAST_LOOK, store.look(&mut |line| arrivals.record(line))).await;
        if let Some(why) = look.unwrap_or_else(|_| Err(format!("no answer within {LAST_LOOK:?}"))).err() {
            progress::clear();
            eprintln!("probe: what came last could not be read back: {why}");
        }
    }
}

async fn wait_for_relay(receiver: &FrameReceiver) {
    let start = Instant::now();
    while receiver.accepted() == 0 && start.elapsed() < CONNECT_TIMEOUT {
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    if receiver.accepted() == 0 {
        eprintln!("probe: no relay has connected to {} yet; sending all the same", receiver.address);
    }
}

/// The reader for the store of the forward that `--at` names.
fn read_back(arguments: &Arguments, token: &Token) -> Result<ReadBack, Failure> {
    let at = &arguments.at;
    // A config may be incomplete without the relay's variables.
    let config = load(&variables()?.with_file(arguments.config.clone())).map_err(|failure| Failure {
        says: format!(
            "probe: --at {at} is no URL and so the name of a forward, but the config is not good\n{}",
            failure.says
        ),
        ..failure
    })?;
    let usage = |says: String| Failure::usage(format!("probe: --at {at}: {says}"));
    let Some(settings) = config.forward.iter().find(|forward| forward.name == *at) else {
        let names: Vec<&str> = config.forward.iter().map(|forward| forward.name.as_str()).collect();
        let names = names.join(", ");
        return Err(usage(format!(
            "it is no URL, and no [[forward]] has this `name`; there are: {names} (--config FILE)"
        )));
    };
    let cannot = |error| Failure::config(&format!("probe: --at {at}: {error}"));
    let connector = tls_connector(settings).map_err(|error| cannot(error.to_string()))?;
    let (resolver, mark) = (Resolver::new(config.resolve.clone()), (token.text(), now()));
    ReadBack::new(Arc::new(settings.clone()), resolver, connector, mark).ok_or_else(|| {
        usage(format!(
            "nothing can be read back from {}; that can be done with Elasticsearch, Loki and NATS. Let the collector write a file, \
             and name that: --at file:///var/log/central.log",
            settings.to.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        ))
    })
}

/// Looks up the relay's addresses, and reads the TLS settings for them. For UDP only the first address is used, because no
/// answer to a datagram would show whether an address works.
async fn relay_addresses(arguments: &Arguments) -> Result<(Driver, Vec<RelayAddress>, ClientTls), Failure> {
    let Arguments { from, ca, cert, key, server_name, .. } = arguments;
    let usage = |says: String| Failure::usage(format!("probe: --from: {says}"));
    let mut tls = ClientTls {
        ca: ca.as_ref().map(Into::into),
        cert: cert.as_ref().map(Into::into),
        key: key.as_ref().map(Into::into),
        server_name: server_name.clone(),
        ..ClientTls::default()
    };
    let (protocol, transport, to) = match from.parse().map_err(usage)? {
        ReachedListener::Unix(address) => {
            let driver = driver(from, address.protocol()).map_err(usage)?;
            return Ok((driver, vec![RelayAddress::of(address.transport())], tls));
        }
        ReachedListener::Network { protocol, transport, to } => (protocol, transport, to),
    };
    let driver = driver(from, protocol).map_err(usage)?;
    let (address_of, max): (fn(_) -> RelayAddress, _) = match transport {
        Transport::Udp => (RelayAddress::Udp, 1),
        Transport::Tcp => (RelayAddress::Tcp, usize::MAX),
        Transport::Tls => (RelayAddress::Tls, usize::MAX),
    };
    let resolver = Resolver::new(Resolve::default());
    let answer = resolver.resolve(&to, Patience::BothFamilies).await;
    let answer = answer.map_err(|error| Failure::config(&format!("probe: --from: {to} does not resolve: {error}")))?;
    let Some(first) = answer.endpoints.first() else {
        return Err(Failure::config(&format!("probe: --from: {to} has no address")));
    };
    if tls.server_name.is_none() {
        tls.server_name = Some(first.host.clone());
    }
    Ok((driver, answer.endpoints.iter().take(max).map(|endpoint| address_of(endpoint.peer)).collect(), tls))
}

/// The driver that speaks the protocol.
fn driver(from: &str, protocol: Protocol) -> Result<Driver, String> {
    match protocol {
        Protocol::Syslog => Ok(Driver::Syslog),
        Protocol::Fluent => Ok(Driver::Fluentd),
        Protocol::Gelf => Ok(Driver::Gelf),
        Protocol::Splunk | Protocol::Journal => Err(format!(
            "`{from}`: the probe does not speak {protocol}; send by another listener of the relay, behind which all is the same"
        )),
        Protocol::Relp => Err(format!(
            "`{from}`: a container sends by udp://, tcp://, tcp+tls://, unix://, unixgram://, fluent://, fluent+tls://, \
             fluent+unix://, gelf+udp://, gelf+tcp:// or gelf+tls://"
        )),
    }
}

fn per_second(text: &str) -> Result<u32, String> {
    text.strip_suffix("/s").unwrap_or(text).parse().map_err(|_| "write 1000/s".to_owned())
}
