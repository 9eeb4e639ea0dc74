//! A story: a steady load, a relay, one collector or two, and something that happens. In the end everything is counted.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::collector::Collector;
use super::load::{Load, STREAMS, Way};
use super::row::{Make, Row, Size, Transport};
use super::support::Held;
use super::support::{NameServer, skip, within};
use super::tally::Tally;
use super::under_test::{To, UnderTest};
use super::wall::Wall;

/// Between two looks at what has arrived.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

pub struct Story {
    pub size: Size,
    pub relay: UnderTest,
    /// Where it forwards to; where a name moves there is a second.
    collectors: Vec<Collector>,
    names: Option<NameServer>,
    pub wall: Option<Wall>,
    load: Option<Load>,
    /// One for each end of a fault; `None`: not within our patience.
    recoveries: Vec<Option<Duration>>,
    /// Messages that no relay ever had, see [`Outcome::unread`].
    unread: Vec<(usize, usize)>,
    _held: Held,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Messages handed to the relay.
    pub sent: usize,
    pub arrived: usize,
    /// Sent and never arrived, those unread apart.
    pub lost: usize,
    /// Written to a connection of a relay that ended before they were in its spool: they stood in its kernel's buffer
    /// or in its hands. Plain TCP has no way to tell their sender. (Datagrams have no connection: they are lost.)
    pub unread: usize,
    /// Came again.
    pub repeated: usize,
    /// Came for the first time behind a later one of their stream.
    pub late: usize,
    /// From the end of the fault until something arrived that was sent after it: all that was held back is through. The
    /// longest, if there were several; `None`: not within our patience.
    pub recovery: Option<Duration>,
}

impl Story {
    /// `None`: something that it needs is not installed here.
    pub fn begins(row: &Row, size: Size) -> Option<Self> {
        if row.fault.needs_a_wall() && !Wall::can_be_built() {
            skip("a wall", "packets can only be dropped by root with iptables (Debian: apt-get install iptables)");
            return None;
        }
        // The certificate is for 127.0.0.1 and for the name.
        let ip = |last| IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
        let ips = if row.fault.moves_a_name() { &[ip(2), ip(3)][..] } else { &[ip(1)] };
        let held = Held::new(row.transport == Transport::Udp, ips);
        let mut collectors = Vec::new();
        for ip in ips {
            let mut collector = Collector::new(row.collector, row.transport, SocketAddr::new(*ip, held.port()))?;
            collector.starts();
            collectors.push(collector);
        }
        let names = match (row.fault.moves_a_name(), row.relay) {
            (false, _) => None,
            (true, Make::Logferry) => Some(NameServer::start(&[&ips[0].to_string()])?),
            (true, _) => Some(NameServer::start_for_libc(&[&ips[0].to_string()])?),
        };
        let to = match &names {
            None => To::At(collectors[0].at()),
            Some(names) => To::Named(names, held.port()),
        };
        let relay = UnderTest::start(row, &size, &to)?;
        let load = Some(Load::start(relay.way(), size.rate));
        let (recoveries, unread) = (Vec::new(), Vec::new());
        Some(Self { size, relay, collectors, names, wall: None, load, recoveries, unread, _held: held })
    }

    /// From the first message to the last.
    pub fn tell(mut self, row: &Row) -> Outcome {
        self.goes_on(self.size.calm);
        let begun = self.comes_true(|story| story.collectors[0].watch.seen.unique > 0);
        assert!(begun, "nothing arrives before the fault");
        row.fault.happens(&mut self);
        self.load().has_sent(self.size.messages);
        let sent = self.settles();
        self.relay.balances();
        let recovery = self.recoveries.iter().copied().max_by_key(|one| one.unwrap_or(Duration::MAX)).flatten();
        let tally = self.collectors.into_iter().map(Collector::counts).reduce(|all, more| all.and(&more));
        let tally = tally.expect("a collector");
        let missing = tally.missing(sent);
        let unread = missing.iter().filter(|one| self.unread.contains(one)).count();
        Outcome {
            sent: sent.iter().sum(),
            arrived: tally.unique,
            lost: missing.len() - unread,
            unread,
            repeated: tally.repeated,
            late: tally.late,
            recovery,
        }
    }

    pub fn goes_on(&mut self, more: usize) {
        self.load().goes_on(more);
    }

    /// The load runs on in between, and a while after the last.
    pub fn three_times(&mut self, mut happens: impl FnMut(&mut Self)) {
        for _ in 0..3 {
            happens(self);
            self.goes_on(self.size.calm);
        }
    }

    /// The only one, or the one at the old address.
    pub fn collector(&mut self) -> &mut Collector {
        &mut self.collectors[0]
    }

    /// Starts it again, and measures from there.
    pub fn collector_comes(&mut self) {
        self.collectors[0].starts();
        self.recovers_from_here(0);
    }

    /// Starts it again, after a pause.
    pub fn relay_comes(&mut self) {
        let taken = self.relay.had_taken();
        self.goes_on(self.size.pause);
        if let (Some(taken), Way::Tcp(_)) = (taken, self.relay.way()) {
            // Nobody listens: what is sent by now is all that was sent to the one that is gone.
            let sent = self.load().sent();
            let arrived = self.look();
            for stream in 0..STREAMS {
                let from = taken[stream].max(arrived.reached()[stream]);
                self.unread.extend((from..sent[stream]).map(|number| (stream, number)));
            }
        }
        self.relay.starts();
    }

    pub fn name_moves(&mut self) {
        let to = self.collectors[1].at().ip().to_string();
        self.names.as_ref().expect("a name server").moves_to(&to);
    }

    /// The fault is over: until this collector gets something that is sent from now on.
    pub fn recovers_from_here(&mut self, collector: usize) {
        let (since, sent) = (Instant::now(), self.load().sent());
        let recovered = self.comes_true(|story| {
            let reached = story.collectors[collector].watch.seen.reached();
            reached.iter().zip(sent).any(|(reached, sent)| *reached > sent)
        });
        self.recoveries.push(recovered.then(|| since.elapsed()));
    }

    /// Ends the load, and waits until all has arrived that can, or nothing has for long enough. Returns what was sent.
    fn settles(&mut self) -> [usize; STREAMS] {
        let sent = self.load.take().expect("a load").ends();
        let due = sent.iter().sum::<usize>() - self.unread.len();
        let (mut seen, mut last) = (0, Instant::now());
        while last.elapsed() < self.size.quiet {
            let now = self.look();
            // Ours says when nothing more will come; what it has sent by then needs a moment.
            let is_quiet = last.elapsed() > self.size.quiet / 8 && self.relay.has_nothing_waiting();
            if now.unique >= due || is_quiet {
                break;
            }
            if seen != now.unique + now.repeated {
                (seen, last) = (now.unique + now.repeated, Instant::now());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        // What has arrived may still be kept for a moment.
        within(self.size.quiet, || self.relay.has_nothing_waiting().then_some(()));
        sent
    }

    /// What has arrived until now.
    fn look(&mut self) -> Tally {
        self.collectors.iter_mut().for_each(|collector| collector.watch.look());
        let tallies = self.collectors.iter().map(|collector| collector.watch.seen.clone());
        tallies.reduce(|all, more| all.and(&more)).expect("a collector")
    }

    /// Whether it does, while the load runs on.
    fn comes_true(&mut self, mut condition: impl FnMut(&Self) -> bool) -> bool {
        let patience = self.size.patience;
        let came = within(patience, || {
            self.collectors.iter_mut().for_each(|collector| collector.watch.look());
            condition(self).then_some(())
        });
        came.is_some()
    }

    fn load(&self) -> &Load {
        self.load.as_ref().expect("it runs until the story settles")
    }
}

impl Outcome {
    /// What is promised of our own relay and was not kept.
    pub fn broken_promise(&self, row: &Row, size: &Size) -> Option<String> {
        let most = row.most_repeated(size);
        let by_datagram = row.transport == Transport::Udp;
        let promises = [
            (self.recovery.is_some(), format!("recovered within {:?}", size.patience)),
            (by_datagram || self.lost <= row.most_lost(), "nothing lost".to_owned()),
            (by_datagram || self.late == 0, "in order".to_owned()),
            (by_datagram || self.repeated <= most, format!("at most {most} twice")),
            (self.arrived + self.lost + self.unread == self.sent, "all accounted for".to_owned()),
        ];
        let broken: Vec<_> = promises.into_iter().filter(|(kept, _)| !kept).map(|(_, promise)| promise).collect();
        (!broken.is_empty()).then(|| format!("{row}: not kept: {}: {self:?}", broken.join(", ")))
    }
}
