//! A story: a steady load, a relay, one collector or two, and something that happens. In the end everything is counted.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::collector::Collector;
use super::fault::Fault;
use super::load::{Load, STREAMS, Sent};
use super::row::{Row, Senders, Size, Transport};
use super::stage::Stage;
use super::support::descriptors::strangers;
use super::support::within;
use super::tally::Tally;
use super::under_test::UnderTest;
use super::wall::Wall;
use super::wire::Way;

/// `max-wait` of `[spool]` by default: a disk that hangs for less costs nothing.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// Bytes of a message as a relay sends it on.
const LINE: usize = 260;

/// Between two looks at what has arrived.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

pub struct Story {
    pub size: Size,
    pub relay: UnderTest,
    pub stage: Stage,
    pub wall: Option<Wall>,
    /// Who has connected and says nothing.
    strangers: Vec<TcpStream>,
    load: Option<Load>,
    /// One for each end of a fault; `None`: not within our patience.
    recoveries: Vec<Option<Duration>>,
    /// The same of another forward, while the fault lasts.
    delays: Vec<Option<Duration>>,
    /// Messages that arrived over what was slow, while it was.
    crawled: Option<usize>,
    /// Messages that no relay ever had, see [`Outcome::unread`].
    unread: Vec<(usize, usize)>,
    /// How long the relay's disk has hung.
    pub hung: Duration,
    /// Every collector gets all of it, and not each a part.
    each_gets_all: bool,
    /// All streams are waited for, and not any of them.
    all_recover: bool,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Messages handed to the relay.
    pub sent: usize,
    pub arrived: usize,
    /// Sent and never arrived, those apart that are unread, or said to be dropped.
    pub lost: usize,
    /// What the relay says it has taken and not spooled, because its disk took longer than `max-wait`.
    pub stalled: usize,
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
    /// The same at another forward, while the fault lasts; `None`: there is no other.
    pub beside: Option<Option<Duration>>,
    /// Messages that arrived over what was slow, while it was; `None`: nothing was.
    pub crawled: Option<usize>,
    /// Connections that the relay says it has made.
    pub connects: usize,
    /// How long the relay's disk has hung.
    pub hung: Duration,
    /// The longest that a sender could not hand over a message to a relay that was there.
    pub held: Duration,
}

impl Story {
    /// `None`: something that it needs is not installed here.
    pub fn begins(row: &Row, size: Size) -> Option<Self> {
        let stage = Stage::set(row)?;
        let relay = UnderTest::start(row, &size, &stage.way_to_it(), stage.way_beside(row))?;
        let load = Some(Load::start(relay.way(), size.rate));
        let each_gets_all = row.fault.has_another_forward();
        let all_recover = row.fault == Fault::OnePathRefuses;
        let (recoveries, delays, unread) = (Vec::new(), Vec::new(), Vec::new());
        Some(Self {
            size,
            relay,
            stage,
            wall: None,
            strangers: Vec::new(),
            load,
            recoveries,
            delays,
            crawled: None,
            unread,
            hung: Duration::ZERO,
            each_gets_all,
            all_recover,
        })
    }

    /// From the first message to the last.
    pub fn tell(mut self, row: &Row) -> Outcome {
        self.goes_on(self.size.calm);
        let begun = self.comes_true(|story| story.stage.collectors[0].watch.seen.unique > 0);
        assert!(begun, "nothing arrives before the fault");
        row.fault.happens(&mut self);
        self.load().has_sent(self.size.messages);
        let Sent { sent, held } = self.settles();
        self.relay.balances();
        let (stalled, connects) = (self.relay.has_dropped(), self.relay.has_connected());
        let longest = |times: &[Option<Duration>]| times.iter().copied().max_by_key(|one| one.unwrap_or(Duration::MAX));
        let (recovery, beside) = (longest(&self.recoveries).flatten(), longest(&self.delays));
        let all = |one: &Tally| one.missing(sent);
        let tallies = self.stage.counts();
        let (tally, missing) = if self.each_gets_all {
            // What is not at both is lost; the rest is counted at the one that the fault was about.
            (tallies[0].clone(), tallies.iter().map(all).max_by_key(Vec::len).unwrap_or_default())
        } else {
            let tally = tallies.into_iter().reduce(|all, more| all.and(&more)).expect("a collector");
            let missing = all(&tally);
            (tally, missing)
        };
        let unread = missing.iter().filter(|one| self.unread.contains(one)).count();
        let stalled = stalled.min(missing.len() - unread);
        Outcome {
            sent: sent.iter().sum(),
            arrived: tally.unique,
            lost: missing.len() - unread - stalled,
            stalled,
            unread,
            repeated: tally.repeated,
            late: tally.late,
            recovery,
            beside,
            crawled: self.crawled,
            connects,
            hung: self.hung,
            held,
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
        &mut self.stage.collectors[0]
    }

    /// Starts it again, and measures from there.
    pub fn collector_comes(&mut self) {
        self.stage.collectors[0].starts();
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

    /// They connect, say nothing, and stay.
    pub fn strangers_come(&mut self, count: usize) {
        let Way::Tcp(to) = *self.relay.way() else { unreachable!("strangers come by TCP") };
        self.strangers = strangers(to, count);
        self.goes_on(self.size.calm);
    }

    pub fn senders_connect_anew(&self) {
        self.load().connects_anew();
    }

    /// While something is slow, the other forward is not: measured at the beginning and at the end.
    pub fn is_no_matter_beside(&mut self) {
        let begins = self.arrives_from_here(1);
        let before = self.arrived_at(0);
        self.goes_on(self.size.slow);
        self.crawled = Some(self.arrived_at(0) - before);
        let ends = self.arrives_from_here(1);
        self.delays.extend([begins, ends]);
    }

    /// The fault is over.
    pub fn recovers_from_here(&mut self, collector: usize) {
        let recovery = self.arrives_from_here(collector);
        self.recoveries.push(recovery);
    }

    /// How long until this collector gets something that is sent from now on.
    fn arrives_from_here(&mut self, collector: usize) -> Option<Duration> {
        let (since, sent) = (Instant::now(), self.load().sent());
        let arrived = self.comes_true(|story| {
            let reached = story.stage.collectors[collector].watch.seen.reached();
            let mut is_beyond = reached.iter().zip(sent).map(|(reached, sent)| *reached > sent);
            if story.all_recover { is_beyond.all(|is| is) } else { is_beyond.any(|is| is) }
        });
        arrived.then(|| since.elapsed())
    }

    /// Ends the load, and waits until all has arrived that can, or nothing has for long enough. Returns what was sent.
    fn settles(&mut self) -> Sent {
        let ended = self.load.take().expect("a load").ends();
        let due = ended.sent.iter().sum::<usize>() - self.unread.len();
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
        ended
    }

    /// What has arrived until now.
    fn look(&mut self) -> Tally {
        self.stage.collectors.iter_mut().for_each(|collector| collector.watch.look());
        let tallies = self.stage.collectors.iter().map(|collector| collector.watch.seen.clone());
        if self.each_gets_all {
            return tallies.min_by_key(|tally| tally.unique).expect("a collector");
        }
        tallies.reduce(|all, more| all.and(&more)).expect("a collector")
    }

    fn arrived_at(&mut self, collector: usize) -> usize {
        let watch = &mut self.stage.collectors[collector].watch;
        watch.look();
        watch.seen.unique
    }

    /// Whether it does, while the load runs on.
    fn comes_true(&mut self, mut condition: impl FnMut(&Self) -> bool) -> bool {
        let patience = self.size.patience;
        let came = within(patience, || {
            self.stage.collectors.iter_mut().for_each(|collector| collector.watch.look());
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
        let (most, most_connects) = (row.most_repeated(size), row.most_connects().unwrap_or(usize::MAX));
        let by_datagram = row.transport == Transport::Udp;
        let is_soon = |time: Duration| time <= size.delay;
        // A sender of RELP can wait for the disk, and does; for what others send then there may be no room.
        let waits = row.senders() == Senders::Relp;
        let may_drop = self.hung >= MAX_WAIT && !waits;
        // A part of what 4 kB/s carry, for what lies in buffers when it begins does not count.
        let crawls = size.slow * 4000 / size.rate / LINE / 4;
        let promises = [
            (may_drop || self.stalled == 0, format!("nothing dropped before {MAX_WAIT:?}, and nothing of RELP")),
            (waits || is_soon(self.held), format!("senders held for at most {:?}", size.delay)),
            (
                !row.fault.has_others() || self.beside.unwrap_or(self.recovery).is_some_and(is_soon),
                format!("others delayed by at most {:?}", size.delay),
            ),
            (self.connects <= most_connects, format!("at most {most_connects} connections")),
            (self.crawled.is_none_or(|lines| lines >= crawls), format!("at least {crawls} messages while it is slow")),
            (self.recovery.is_some(), format!("recovered within {:?}", size.patience)),
            (by_datagram || self.lost <= row.most_lost(), "nothing lost".to_owned()),
            (by_datagram || self.late == 0, "in order".to_owned()),
            (by_datagram || self.repeated <= most, format!("at most {most} twice")),
            (self.arrived + self.lost + self.stalled + self.unread == self.sent, "all accounted for".to_owned()),
        ];
        let broken: Vec<_> = promises.into_iter().filter(|(kept, _)| !kept).map(|(_, promise)| promise).collect();
        (!broken.is_empty()).then(|| format!("{row}: not kept: {}: {self:?}", broken.join(", ")))
    }
}
