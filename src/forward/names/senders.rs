//! Names of senders, from DNS (PTR records of their addresses). No message waits for a name: an unknown name is looked up, and later
//! messages use it.
//!
//! Senders choose the source addresses of their datagrams, so everything has a limit: the addresses that are remembered, those that
//! wait, and those that are looked up at a time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};

use super::Resolver;
use crate::tasks::spawn;

/// Addresses that are remembered. A further one replaces an outdated one; while there is none, the further one has no name.
const MAX_KNOWN: usize = 4096;
/// Addresses that wait for a look-up. Further ones are looked up when they send again.
const MAX_WAITING: usize = 256;
/// Look-ups at a time.
const MAX_LOOK_UPS: usize = 8;
/// How long an answer is valid at least and at most, whatever its TTL.
const MIN_KEPT: Duration = Duration::from_secs(60);
const MAX_KEPT: Duration = Duration::from_secs(3600);

/// Names of senders, as far as they are known.
pub struct SenderNames {
    known: Mutex<HashMap<IpAddr, Known>>,
    wanted: mpsc::Sender<IpAddr>,
}

struct Known {
    /// `None`: the address has no name, or the look-up has not ended.
    name: Option<String>,
    /// When the name is looked up again.
    until: Instant,
}

impl SenderNames {
    /// Looks names up until the value is dropped. Must be called inside the runtime.
    pub fn start(resolver: Resolver) -> Arc<Self> {
        let (wanted, mut comes) = mpsc::channel(MAX_WAITING);
        let names = Arc::new(Self { known: Mutex::default(), wanted });
        let kept = Arc::downgrade(&names);
        spawn(async move {
            let places = Arc::new(Semaphore::new(MAX_LOOK_UPS));
            while let Some(address) = comes.recv().await {
                let Ok(place) = places.clone().acquire_owned().await else { return };
                let (resolver, kept) = (resolver.clone(), kept.clone());
                spawn(async move {
                    let found = resolver.name_of(address).await;
                    drop(place);
                    if let Some(names) = kept.upgrade() {
                        names.learn(address, found.ok(), Instant::now());
                    }
                });
            }
        });
        names
    }

    /// Appends the name of an address, if one is known.
    pub fn append(&self, address: IpAddr, out: &mut String) -> bool {
        let is_due = |until: Instant, now: Instant| until <= now;
        let now = Instant::now();
        let mut known = self.known.lock();
        let name = match known.get_mut(&address) {
            Some(of) if !is_due(of.until, now) => of.name.as_deref(),
            Some(of) => {
                // Only one look-up is started. Until its answer comes, the old name is used.
                if self.wanted.try_send(address).is_ok() {
                    of.until = now + MIN_KEPT;
                }
                of.name.as_deref()
            }
            None => {
                if known.len() >= MAX_KNOWN {
                    known.retain(|_, of| !is_due(of.until, now));
                }
                if known.len() < MAX_KNOWN && self.wanted.try_send(address).is_ok() {
                    known.insert(address, Known { name: None, until: now + MIN_KEPT });
                }
                None
            }
        };
        name.inspect(|name| out.push_str(name)).is_some()
    }

    /// `found`: a name, and how long it is valid. Without an answer the last name stays.
    fn learn(&self, address: IpAddr, found: Option<(Option<String>, Duration)>, now: Instant) {
        if let Some(of) = self.known.lock().get_mut(&address)
            && let Some((name, ttl)) = found
        {
            *of = Known { name, until: now + ttl.clamp(MIN_KEPT, MAX_KEPT) };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokio::net::UdpSocket;

    use super::*;
    use crate::config;

    fn names() -> (SenderNames, mpsc::Receiver<IpAddr>) {
        let (wanted, comes) = mpsc::channel(MAX_WAITING);
        (SenderNames { known: Mutex::default(), wanted }, comes)
    }

    fn name(names: &SenderNames, address: IpAddr) -> Option<String> {
        let mut name = String::new();
        names.append(address, &mut name).then_some(name)
    }

    #[test]
    fn a_name_is_asked_for_once_and_kept_while_there_is_no_other() {
        let (names, mut comes) = names();
        let address: IpAddr = "192.0.2.9".parse().expect("an address");
        assert_eq!((name(&names, address), name(&names, address)), (None, None));
        assert_eq!((comes.try_recv(), comes.try_recv().is_err()), (Ok(address), true));
        names.learn(address, Some((Some("switch-9".to_owned()), Duration::ZERO)), Instant::now());
        assert_eq!(name(&names, address).as_deref(), Some("switch-9"));
        // The name is outdated: it is looked up again, and no answer comes.
        names.known.lock().get_mut(&address).expect("known").until = Instant::now();
        assert_eq!(name(&names, address).as_deref(), Some("switch-9"));
        assert_eq!(name(&names, address).as_deref(), Some("switch-9"));
        assert_eq!((comes.try_recv(), comes.try_recv().is_err()), (Ok(address), true), "once for all messages");
        names.learn(address, None, Instant::now());
        assert_eq!(name(&names, address).as_deref(), Some("switch-9"));
        names.learn(address, Some((None, Duration::ZERO)), Instant::now());
        assert_eq!(name(&names, address), None);
    }

    /// Whatever the TTL: the owner of the zone must not make us ask at each message, or never again.
    #[test]
    fn a_name_is_kept_for_a_minute_to_an_hour() {
        let (names, _comes) = names();
        let (address, now): (IpAddr, _) = ("192.0.2.9".parse().expect("an address"), Instant::now());
        name(&names, address);
        for (ttl, kept) in [
            (Duration::ZERO, MIN_KEPT),
            (Duration::from_secs(600), Duration::from_secs(600)),
            (Duration::from_secs(86_400), MAX_KEPT),
        ] {
            names.learn(address, Some((Some("switch-9".to_owned()), ttl)), now);
            assert_eq!(names.known.lock()[&address].until, now + kept, "{ttl:?}");
        }
    }

    /// Eight look-ups wait for their answers, and the others wait for these.
    #[tokio::test]
    async fn few_are_looked_up_at_a_time() {
        const SENDERS: usize = 40;
        /// Only a test that fails waits for so long.
        const PATIENCE: Duration = Duration::from_secs(20);
        let server = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let nameservers = vec![server.local_addr().expect("an address")];
        let timeout = Duration::from_secs(600);
        let names = SenderNames::start(Resolver::new(config::Resolve { nameservers, timeout, ..Default::default() }));
        for number in 0..SENDERS {
            assert_eq!(name(&names, IpAddr::from([192, 0, 2, number as u8])), None);
        }
        let (mut asked, mut open, mut answered) = (Vec::new(), VecDeque::new(), 0);
        while answered < SENDERS {
            let mut query = [0; 512];
            let received = tokio::time::timeout(PATIENCE, server.recv_from(&mut query)).await;
            let (len, from) = received.expect("somebody is asked for").expect("a query");
            // The question stands behind the header, which has a new ID each time.
            let (question, query) = (query[12..len].to_vec(), query[..len].to_vec());
            if asked.contains(&question) {
                continue;
            }
            asked.push(question);
            open.push_back((query, from));
            assert!(open.len() <= MAX_LOOK_UPS);
            if open.len() < MAX_LOOK_UPS.min(SENDERS - answered) {
                continue;
            }
            let waiting = MAX_WAITING - names.wanted.capacity();
            // One address has left the queue and waits for a free look-up.
            assert_eq!(waiting, (SENDERS - answered).saturating_sub(MAX_LOOK_UPS + 1), "behind {answered}");
            while let Some((mut answer, from)) = open.pop_front() {
                // RFC 1035 4.1.1: a response, with NXDOMAIN.
                answer[2] |= 0x80;
                answer[3] = answer[3] & 0xf0 | 3;
                server.send_to(&answer, from).await.expect("sent");
                answered += 1;
                if answered + MAX_LOOK_UPS <= SENDERS {
                    break;
                }
            }
        }
    }

    #[test]
    fn strangers_make_it_remember_and_ask_so_much_and_no_more() {
        let (names, mut comes) = names();
        let ask = |number: u32| name(&names, IpAddr::V4(number.into()));
        (0..10_000).for_each(|number| assert_eq!(ask(number), None));
        assert_eq!((names.known.lock().len(), comes.len()), (MAX_WAITING, MAX_WAITING));
        for number in 0..10_000 {
            while comes.try_recv().is_ok() {}
            assert_eq!(ask(number), None);
        }
        assert_eq!(names.known.lock().len(), MAX_KNOWN);
        // Outdated names make room.
        names.known.lock().values_mut().for_each(|of| of.until = Instant::now());
        ask(20_000);
        assert_eq!(names.known.lock().len(), 1);
    }
}
