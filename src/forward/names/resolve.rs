//! Names to addresses. No other file uses hickory.
//!
//! Each look-up makes a fresh resolver without a cache: /etc/resolv.conf and /etc/hosts are read anew and TTLs are exact,
//! for 60 µs. A and AAAA are asked side by side, so that a name server that drops one of them costs nothing while
//! the other is answered. No answer is final, not even NXDOMAIN: a search list also makes one out of a SERVFAIL.
//!
//! A service is its SRV records, and then the addresses of each of their hosts.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::answer::{Answer, Endpoint, Family, Service, Unanswered, in_order, interleave, not_too_many};
use crate::config::{self, Destination, Host, HostPort};
use crate::sorted::sort_by_key;
use crate::tasks::spawn_blocking;

/// How much longer than the first family's answer the second one may take: RFC 8305 3 says 50 ms.
const SECOND_FAMILY_WAIT: Duration = Duration::from_millis(50);

/// Asks for addresses as the `[resolve]` section says.
#[derive(Clone, Debug)]
pub struct Resolver {
    settings: config::Resolve,
    /// Lets one look-up at a time read the system's name servers and hosts.
    reading: Arc<Semaphore>,
}

/// How long to wait for the second family once the first has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Briefly, because a connection waits for the answer (RFC 8305 3).
    OneFamily,
    /// Both families are waited for, as long as a look-up may take: the answer decides whether a name has moved.
    BothFamilies,
}

/// A look-up without an address. Its text names the cause.
#[derive(Clone, Debug)]
pub struct ResolveError {
    says: String,
    /// The name server said that there is no such record. It did not just fail to answer.
    definite: bool,
}

/// One family's part of an answer.
#[derive(Clone, Debug)]
struct Found {
    addresses: Vec<IpAddr>,
    ttl: Duration,
}

/// The answer for a host: the parts of both families.
#[derive(Clone, Debug)]
struct HostAnswer {
    v4: Result<Found, ResolveError>,
    v6: Result<Found, ResolveError>,
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.says)
    }
}

impl Resolver {
    pub fn new(settings: config::Resolve) -> Self {
        Self { settings, reading: Arc::new(Semaphore::new(1)) }
    }

    /// The addresses of `to`. One look-up may take the configured time; a service needs two, one after the other.
    pub async fn resolve(&self, to: &Destination, patience: Patience) -> Result<Answer, ResolveError> {
        let (services, ttl) = match to {
            Destination::Host(HostPort { host: Host::Address(address), port }) => {
                return Ok(Answer::literal(SocketAddr::new(*address, *port), to.to_string()));
            }
            Destination::Host(HostPort { host: Host::Name(name), port }) => {
                (vec![Service { priority: 0, host: name.clone(), port: *port, weight: 0 }], Duration::MAX)
            }
            Destination::Service(name) => self.services(name).await?,
        };
        let mut answer = Answer { endpoints: Vec::new(), ttl, unanswered: Vec::new() };
        let mut problem = None;
        for (service, found) in self.hosts(services, patience).await {
            if found.addresses().is_empty() {
                // Both families failed: report the reason of the IPv4 answer, which people look for.
                problem = found.v4.clone().err();
            }
            found.add_to(&mut answer, &service);
        }
        if answer.endpoints.is_empty() {
            return Err(problem.unwrap_or_else(|| failed("the name has no address")));
        }
        answer.ttl = answer.ttl.clamp(self.settings.min_ttl, self.settings.max_ttl);
        Ok(answer)
    }

    /// The hosts of a service in the order in which they are tried, and how long that order is valid.
    async fn services(&self, name: &str) -> Result<(Vec<Service>, Duration), ResolveError> {
        let resolver = self.fresh(LookupIpStrategy::Ipv4Only).await?;
        let found = match tokio::time::timeout(self.settings.timeout, resolver.srv_lookup(dns_name(name)?)).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return Err(reason(&error, "SRV record")),
            Err(_) => return Err(self.no_answer()),
        };
        let services: Vec<Service> = found.answers().iter().filter_map(|record| service(&record.data)).collect();
        if services.is_empty() {
            // RFC 2782: a record with the target `.` says that the service is not available.
            return Err(definite("the service is not offered there"));
        }
        Ok((
            in_order(services, |sum| rand::random_range(0..=sum)),
            found.valid_until().saturating_duration_since(Instant::now()),
        ))
    }

    /// The name of an address in DNS (PTR), if it has one, and how long the name is valid.
    pub async fn name_of(&self, address: IpAddr) -> Result<(Option<String>, Duration), ResolveError> {
        let resolver = self.fresh(LookupIpStrategy::Ipv4Only).await?;
        match tokio::time::timeout(self.settings.timeout, resolver.reverse_lookup(address)).await {
            Ok(Ok(found)) => {
                let names = found.answers().iter().filter_map(|record| match &record.data {
                    RData::PTR(name) => Some(name.0.to_ascii().trim_end_matches('.').to_owned()),
                    _ => None,
                });
                let name = names.into_iter().find(|name| !name.is_empty());
                Ok((name, found.valid_until().saturating_duration_since(Instant::now())))
            }
            Ok(Err(error)) if error.is_nx_domain() || error.is_no_records_found() => Ok((None, Duration::ZERO)),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(self.no_answer()),
        }
    }

    /// The addresses of each service's host, looked up side by side.
    async fn hosts(&self, services: Vec<Service>, patience: Patience) -> Vec<(Service, HostAnswer)> {
        let mut look_ups = JoinSet::new();
        for (at, service) in services.into_iter().enumerate() {
            let resolver = self.clone();
            look_ups.spawn(async move {
                let found = resolver.host(&service.host, patience).await;
                (at, service, found)
            });
        }
        let mut answers = look_ups.join_all().await;
        sort_by_key(&mut answers, |(at, _, _)| *at);
        answers.into_iter().map(|(_, service, found)| (service, found)).collect()
    }

    async fn host(&self, name: &str, patience: Patience) -> HostAnswer {
        let v4 = self.lookup(name, LookupIpStrategy::Ipv4Only);
        let v6 = self.lookup(name, LookupIpStrategy::Ipv6Only);
        let (v4, v6) = match patience {
            Patience::OneFamily => first_then_briefly(v4, v6).await,
            Patience::BothFamilies => tokio::join!(v4, v6),
        };
        HostAnswer { v4, v6 }
    }

    async fn lookup(&self, name: &str, family: LookupIpStrategy) -> Result<Found, ResolveError> {
        let resolver = self.fresh(family).await?;
        match tokio::time::timeout(self.settings.timeout, resolver.lookup_ip(dns_name(name)?)).await {
            Ok(Ok(found)) => Ok(Found {
                addresses: not_too_many(found.iter().collect()),
                ttl: found.valid_until().saturating_duration_since(Instant::now()),
            }),
            Ok(Err(error)) => Err(reason(&error, "address")),
            Err(_) => Err(self.no_answer()),
        }
    }

    /// The error names the servers that were asked.
    fn no_answer(&self) -> ResolveError {
        let servers: Vec<String> = self.settings.nameservers.iter().map(SocketAddr::to_string).collect();
        let asked =
            if servers.is_empty() { "the name servers of /etc/resolv.conf".to_owned() } else { servers.join(", ") };
        failed(format!("no answer from {asked} within {:?}", self.settings.timeout))
    }

    /// Reads /etc/resolv.conf and /etc/hosts, on one pool thread at a time. It must not block the runtime, because their disk may
    /// hang.
    async fn fresh(&self, family: LookupIpStrategy) -> Result<TokioResolver, ResolveError> {
        let (settings, reading) = (self.settings.clone(), self.reading.clone());
        let read = async {
            let turn = reading.acquire_owned().await.ok()?;
            let built = spawn_blocking(move || {
                let built = build(&settings, family);
                drop(turn);
                built
            });
            built.await.ok()
        };
        match tokio::time::timeout(self.settings.timeout, read).await.ok().flatten() {
            Some(built) => built.map_err(|error| failed(error.to_string())),
            None => Err(failed(format!(
                "/etc/resolv.conf and /etc/hosts cannot be read within {:?}; is their disk hanging?",
                self.settings.timeout
            ))),
        }
    }
}

fn build(settings: &config::Resolve, family: LookupIpStrategy) -> Result<TokioResolver, NetError> {
    let mut builder = if settings.nameservers.is_empty() {
        TokioResolver::builder_tokio()?
    } else {
        let servers = settings.nameservers.iter().map(name_server).collect();
        let config = ResolverConfig::from_name_servers(servers);
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options = builder.options_mut();
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Always;
    options.ip_strategy = family;
    options.attempts = 1;
    options.timeout = settings.timeout / 2;
    builder.build()
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

impl HostAnswer {
    /// The families in turn, IPv6 first.
    fn addresses(&self) -> Vec<IpAddr> {
        let of = |family: &Result<Found, ResolveError>| family.as_ref().map_or(Vec::new(), |f| f.addresses.clone());
        interleave(&of(&self.v6), &of(&self.v4))
    }

    /// Adds a service's endpoints, and the families without an answer.
    fn add_to(&self, answer: &mut Answer, service: &Service) {
        let host = service.host.trim_end_matches('.');
        for address in self.addresses() {
            let peer = SocketAddr::new(address, service.port);
            answer.endpoints.push(Endpoint { peer, host: host.to_owned(), priority: service.priority });
        }
        for (family, found) in [(Family::V4, &self.v4), (Family::V6, &self.v6)] {
            match found {
                Ok(found) => answer.ttl = answer.ttl.min(found.ttl),
                Err(error) if error.definite => {}
                Err(_) => answer.unanswered.push(Unanswered { host: host.to_owned(), family }),
            }
        }
    }
}

/// `None`: not a record of the service, or the target `.` that says there is none.
fn service(record: &RData) -> Option<Service> {
    let RData::SRV(record) = record else { return None };
    if record.target.is_root() {
        return None;
    }
    // The dot at the end stays, so that no search list is tried.
    let host = record.target.to_ascii();
    Some(Service { priority: record.priority, host, port: record.port, weight: record.weight })
}

fn reason(error: &NetError, wanted: &str) -> ResolveError {
    if error.is_nx_domain() {
        definite("the name does not exist (NXDOMAIN)")
    } else if error.is_no_records_found() {
        definite(format!("the name has no {wanted}"))
    } else {
        failed(error.to_string())
    }
}

fn definite(says: impl Into<String>) -> ResolveError {
    ResolveError { says: says.into(), definite: true }
}

/// A name as DNS has it. Docker's names may have `_`, which IDNA refuses.
fn dns_name(name: &str) -> Result<Name, ResolveError> {
    Name::from_str_relaxed(name).map_err(|error| failed(error.to_string()))
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

#[cfg(test)]
mod tests {
    use super::*;

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
        let localhost = Destination::Host(HostPort { host: Host::Name("localhost".to_owned()), port: 514 });
        let answer =
            runtime.block_on(resolver.resolve(&localhost, Patience::BothFamilies)).expect("localhost is in /etc/hosts");
        assert!(answer.endpoints.iter().all(|endpoint| endpoint.peer.ip().is_loopback()), "{answer:?}");
        assert_eq!(answer.ttl, Duration::from_secs(30), "the hosts file's day is clamped");
    }
}
