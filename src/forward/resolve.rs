//! Names to addresses. The only file that knows hickory.
//!
//! Each look-up is a fresh resolver without a cache: /etc/resolv.conf and /etc/hosts are read anew and TTLs are exact,
//! for 60 µs. A and AAAA are asked side by side, so that a name server that swallows one of them costs nothing while
//! the other answers. No answer is final: not NXDOMAIN either, which a search list also makes out of a SERVFAIL.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;

use crate::config;

/// How much longer than the first family's answer the second may take: RFC 8305 3 says 50 ms.
const SECOND_FAMILY_WAIT: Duration = Duration::from_millis(50);

/// Asks for addresses as the `[resolve]` section says.
#[derive(Clone, Debug)]
pub struct Resolver {
    settings: config::Resolve,
}

/// Where a name points to, and for how long that may be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Never empty; the families in turn, IPv6 first.
    pub addresses: Vec<IpAddr>,
    /// The records' TTL, clamped to `[resolve] min-ttl..=max-ttl`.
    pub ttl: Duration,
    /// Whether there was an answer for IPv4, and for IPv6: addresses, or that there are none.
    pub answered: Answered,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    pub v4: bool,
    pub v6: bool,
}

impl Answer {
    /// The one answer there is for a literal address.
    pub fn literal(address: IpAddr) -> Self {
        Self { addresses: vec![address], ttl: Duration::MAX, answered: Answered { v4: true, v6: true } }
    }

    /// The name does not point to `address`, and that is an answer: a name server that only failed to tell has not said so.
    pub fn excludes(&self, address: IpAddr) -> bool {
        self.has_answered(address) && !self.addresses.contains(&address)
    }

    /// With the addresses of `earlier` for a family that was not answered this time.
    pub fn completed_by(mut self, earlier: &Answer) -> Self {
        let missing = earlier.addresses.iter().filter(|address| !self.has_answered(**address)).copied();
        let missing: Vec<IpAddr> = missing.collect();
        self.addresses.extend(missing);
        self
    }

    fn has_answered(&self, address: IpAddr) -> bool {
        if address.is_ipv4() { self.answered.v4 } else { self.answered.v6 }
    }
}

/// How long to wait for the second family once the first has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Briefly: somebody waits to connect (RFC 8305 3).
    OneFamily,
    /// As long as a look-up may take: the answer decides whether a name has moved.
    BothFamilies,
}

/// A look-up without an address. Its text names the cause.
#[derive(Clone, Debug)]
pub struct ResolveError {
    says: String,
    /// The name server said that there is none; it did not just fail to answer.
    definite: bool,
}

/// One family's part of an answer.
#[derive(Clone, Debug)]
struct Found {
    addresses: Vec<IpAddr>,
    ttl: Duration,
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.says)
    }
}

impl Resolver {
    pub fn new(settings: config::Resolve) -> Self {
        Self { settings }
    }

    /// Every address of `name`, within the configured time.
    pub async fn resolve(&self, name: &str, patience: Patience) -> Result<Answer, ResolveError> {
        let v4 = self.lookup(name, LookupIpStrategy::Ipv4Only);
        let v6 = self.lookup(name, LookupIpStrategy::Ipv6Only);
        let (v4, v6) = match patience {
            Patience::OneFamily => first_then_briefly(v4, v6).await,
            Patience::BothFamilies => tokio::join!(v4, v6),
        };
        let definite =
            |family: &Result<Found, ResolveError>| family.as_ref().map_or_else(|error| error.definite, |_| true);
        let answered = Answered { v4: definite(&v4), v6: definite(&v6) };
        let addresses = interleave(&v6, &v4);
        if addresses.is_empty() {
            // Both failed: the IPv4 answer's reason is the one people look for.
            return Err(v4.err().unwrap_or_else(|| failed("the name has no address")));
        }
        let ttl = [v4, v6].iter().flatten().map(|found| found.ttl).min().unwrap_or(self.settings.min_ttl);
        Ok(Answer { addresses, ttl: ttl.clamp(self.settings.min_ttl, self.settings.max_ttl), answered })
    }

    async fn lookup(&self, name: &str, family: LookupIpStrategy) -> Result<Found, ResolveError> {
        let resolver = self.fresh(family).map_err(|error| failed(error.to_string()))?;
        match tokio::time::timeout(self.settings.timeout, resolver.lookup_ip(name)).await {
            Ok(Ok(found)) => Ok(Found {
                addresses: found.iter().collect(),
                ttl: found.valid_until().saturating_duration_since(Instant::now()),
            }),
            Ok(Err(error)) => Err(reason(&error)),
            Err(_) => Err(failed(format!("no answer within {:?}", self.settings.timeout))),
        }
    }

    fn fresh(&self, family: LookupIpStrategy) -> Result<TokioResolver, NetError> {
        let mut builder = if self.settings.nameservers.is_empty() {
            TokioResolver::builder_tokio()?
        } else {
            let servers = self.settings.nameservers.iter().map(name_server).collect();
            let config = ResolverConfig::from_name_servers(servers);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        let options = builder.options_mut();
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Always;
        options.ip_strategy = family;
        options.attempts = 1;
        options.timeout = self.settings.timeout / 2;
        builder.build()
    }
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let with_port = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    NameServerConfig::new(
        address.ip(),
        true,
        vec![with_port(ConnectionConfig::udp()), with_port(ConnectionConfig::tcp())],
    )
}

fn reason(error: &NetError) -> ResolveError {
    let definite = |says: &str| ResolveError { says: says.to_owned(), definite: true };
    if error.is_nx_domain() {
        definite("the name does not exist (NXDOMAIN)")
    } else if error.is_no_records_found() {
        definite("the name has no address")
    } else {
        failed(error.to_string())
    }
}

fn failed(says: impl Into<String>) -> ResolveError {
    ResolveError { says: says.into(), definite: false }
}

/// Waits for a family that has addresses, then a moment longer for the other.
async fn first_then_briefly(
    a: impl Future<Output = Result<Found, ResolveError>>,
    b: impl Future<Output = Result<Found, ResolveError>>,
) -> (Result<Found, ResolveError>, Result<Found, ResolveError>) {
    let (mut a, mut b) = (std::pin::pin!(a), std::pin::pin!(b));
    let late = || failed("no answer in time");
    tokio::select! {
        first = &mut a => {
            let briefly = if first.is_ok() { SECOND_FAMILY_WAIT } else { Duration::MAX };
            (first, tokio::time::timeout(briefly, b).await.unwrap_or_else(|_| Err(late())))
        }
        first = &mut b => {
            let briefly = if first.is_ok() { SECOND_FAMILY_WAIT } else { Duration::MAX };
            (tokio::time::timeout(briefly, a).await.unwrap_or_else(|_| Err(late())), first)
        }
    }
}

/// RFC 8305 4: the families in turn, so that one that leads nowhere delays the other by one attempt at most.
fn interleave(first: &Result<Found, ResolveError>, second: &Result<Found, ResolveError>) -> Vec<IpAddr> {
    let [first, second] = [first, second].map(|family| family.as_ref().map_or(&[][..], |found| &found.addresses));
    let turns = first.len().max(second.len());
    let mut addresses = Vec::with_capacity(first.len() + second.len());
    for turn in 0..turns {
        addresses.extend(first.get(turn));
        addresses.extend(second.get(turn));
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().expect("a literal address")).collect()
    }

    fn family(texts: &[&str]) -> Result<Found, ResolveError> {
        Ok(Found { addresses: addresses(texts), ttl: Duration::from_secs(1) })
    }

    #[test]
    fn families_take_turns() {
        let both = interleave(&family(&["::1", "::2"]), &family(&["127.0.0.1", "127.0.0.2", "127.0.0.3"]));
        let shown: Vec<String> = both.iter().map(IpAddr::to_string).collect();
        assert_eq!(shown, ["::1", "127.0.0.1", "::2", "127.0.0.2", "127.0.0.3"]);
        let one = interleave(&Err(failed("")), &family(&["127.0.0.1"]));
        assert_eq!(one.len(), 1);
    }

    #[test]
    fn half_an_answer_is_not_a_move() {
        let [v4, v6] = ["127.0.0.1", "::1"].map(|text| text.parse::<IpAddr>().expect("a literal address"));
        let half = Answer { addresses: vec![v6], ttl: Duration::ZERO, answered: Answered { v4: false, v6: true } };
        assert!(!half.excludes(v4), "nothing was said about IPv4");
        let whole = Answer { answered: Answered { v4: true, v6: true }, ..half.clone() };
        assert!(whole.excludes(v4) && !whole.excludes(v6));
        let earlier = Answer { addresses: addresses(&["127.0.0.1", "::2"]), ..whole.clone() };
        assert_eq!(half.completed_by(&earlier).addresses, [v6, v4]);
        assert_eq!(whole.completed_by(&earlier).addresses, [v6]);
    }

    #[test]
    fn literals_and_hosts_need_no_server() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        // A server that is not there: the answer comes from /etc/hosts.
        let resolver = Resolver::new(config::Resolve {
            nameservers: vec![SocketAddr::from(([127, 0, 0, 1], 1))],
            min_ttl: Duration::from_secs(1),
            max_ttl: Duration::from_secs(30),
            timeout: Duration::from_secs(2),
        });
        let answer = runtime
            .block_on(resolver.resolve("localhost", Patience::BothFamilies))
            .expect("localhost is in /etc/hosts");
        assert!(answer.addresses.iter().all(IpAddr::is_loopback), "{answer:?}");
        assert_eq!(answer.ttl, Duration::from_secs(30), "the hosts file's day is clamped");
    }
}
