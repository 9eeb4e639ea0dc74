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
}

/// A look-up without an address. Its text names the cause.
#[derive(Clone, Debug)]
pub struct ResolveError(String);

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Resolver {
    pub fn new(settings: config::Resolve) -> Self {
        Self { settings }
    }

    /// Every address of `name`, within the configured time.
    pub async fn resolve(&self, name: &str) -> Result<Answer, ResolveError> {
        let v4 = self.lookup(name, LookupIpStrategy::Ipv4Only);
        let v6 = self.lookup(name, LookupIpStrategy::Ipv6Only);
        let (v4, v6) = first_then_briefly(v4, v6).await;
        let answers =
            [v6, v4].map(|family| family.unwrap_or_else(|| Err(ResolveError("no answer in time".to_owned()))));
        let addresses = interleave(&answers);
        if !addresses.is_empty() {
            let ttl = answers.iter().flatten().map(|found| found.ttl).min().unwrap_or(self.settings.min_ttl);
            return Ok(Answer { addresses, ttl: ttl.clamp(self.settings.min_ttl, self.settings.max_ttl) });
        }
        // Both failed: the IPv4 answer's reason is the one people look for.
        let [_, v4] = answers;
        Err(v4.err().unwrap_or_else(|| ResolveError("no address".to_owned())))
    }

    async fn lookup(&self, name: &str, family: LookupIpStrategy) -> Result<Answer, ResolveError> {
        let resolver = self.fresh(family).map_err(|error| ResolveError(error.to_string()))?;
        match tokio::time::timeout(self.settings.timeout, resolver.lookup_ip(name)).await {
            Ok(Ok(found)) => Ok(Answer {
                addresses: found.iter().collect(),
                ttl: found.valid_until().saturating_duration_since(Instant::now()),
            }),
            Ok(Err(error)) => Err(ResolveError(reason(&error))),
            Err(_) => Err(ResolveError(format!("no answer within {:?}", self.settings.timeout))),
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

fn reason(error: &NetError) -> String {
    if error.is_nx_domain() {
        "the name does not exist (NXDOMAIN)".to_owned()
    } else if error.is_no_records_found() {
        "the name has no address".to_owned()
    } else {
        error.to_string()
    }
}

/// Waits for a family that has addresses, then a moment longer for the other. `None`: it was not waited for any longer.
async fn first_then_briefly(
    a: impl Future<Output = Result<Answer, ResolveError>>,
    b: impl Future<Output = Result<Answer, ResolveError>>,
) -> (Option<Result<Answer, ResolveError>>, Option<Result<Answer, ResolveError>>) {
    let (mut a, mut b) = (std::pin::pin!(a), std::pin::pin!(b));
    tokio::select! {
        first = &mut a => {
            let second = if first.is_ok() { tokio::time::timeout(SECOND_FAMILY_WAIT, b).await.ok() } else { Some(b.await) };
            (Some(first), second)
        }
        first = &mut b => {
            let second = if first.is_ok() { tokio::time::timeout(SECOND_FAMILY_WAIT, a).await.ok() } else { Some(a.await) };
            (second, Some(first))
        }
    }
}

/// RFC 8305 4: the families in turn, so that one that leads nowhere delays the other by one attempt at most.
fn interleave(families: &[Result<Answer, ResolveError>; 2]) -> Vec<IpAddr> {
    let [first, second] = families.each_ref().map(|family| family.as_ref().map_or(&[][..], |found| &found.addresses));
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

    fn family(addresses: &[&str]) -> Result<Answer, ResolveError> {
        let addresses = addresses.iter().map(|text| text.parse().expect("a literal address")).collect();
        Ok(Answer { addresses, ttl: Duration::from_secs(1) })
    }

    #[test]
    fn families_take_turns() {
        let both = interleave(&[family(&["::1", "::2"]), family(&["127.0.0.1", "127.0.0.2", "127.0.0.3"])]);
        let shown: Vec<String> = both.iter().map(IpAddr::to_string).collect();
        assert_eq!(shown, ["::1", "127.0.0.1", "::2", "127.0.0.2", "127.0.0.3"]);
        let one = interleave(&[Err(ResolveError(String::new())), family(&["127.0.0.1"])]);
        assert_eq!(one.len(), 1);
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
        let answer = runtime.block_on(resolver.resolve("localhost")).expect("localhost is in /etc/hosts");
        assert!(answer.addresses.iter().all(IpAddr::is_loopback), "{answer:?}");
        assert_eq!(answer.ttl, Duration::from_secs(30), "the hosts file's day is clamped");
    }
}
