//! A story: a steady load, a relay, one or two collectors, and a fault. At the end, all messages are counted.

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

/// The default of `max-wait` in `[spool]`. A disk that hangs for a shorter time causes no loss.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// Bytes of a message as a relay forwards it.
const LINE: usize = 260;

/// Time between two checks for arrived messages.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

pub struct Story {
    pub size: Size,
    pub relay: UnderTest,
    pub stage: Stage,
    pub wall: Option<Wall>,
    /// Connections that send nothing.
    strangers: Vec<TcpStream>,
    load: Option<Load>,
    /// One for each end of a fault. `None`: the limit was exceeded.
    recoveries: Vec<Option<Duration>>,
    /// Recovery times of the other forward during the fault.
    delays: Vec<Option<Duration>>,
    /// Messages that arrived over the slow path while it was slow.
    crawled: Option<usize>,
    /// Messages that no relay has taken, see [`Outcome::unread`].
    unread: Vec<(usize, usize)>,
    /// How long the relay's disk has hung.
    pub hung: Duration,
    /// Whether every collector gets all messages. Otherwise each may get a part.
    each_gets_all: bool,
    /// Whether recovery requires a message of every stream. Otherwise one of any stream suffices.
    all_recover: bool,
}

/// The result of a story.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Messages handed to the relay.
    pub sent: usize,
    pub arrived: usize,
    /// Sent and never arrived, without the unread and the stalled ones.
    pub lost: usize,
    /// Messages that the relay reports as dropped, because its disk took longer than `max-wait`.
    pub stalled: usize,
    /// Written to a connection of a relay that ended before they were in its spool: they were in the kernel's buffer or
    /// in the relay's memory. Plain TCP cannot report that to the sender. (Datagrams have no connection, so they count
    /// as lost.)
    pub unread: usize,
    /// Messages that arrived again.
    pub repeated: usize,
    /// Messages that first arrived after a later one of their stream.
    pub late: usize,
    /// The time from the end of the fault until a message sent after it has arrived. All held-back messages are then
    /// through. The longest time of several; `None`: the limit was exceeded.
    pub recovery: Option<Duration>,
    /// The same time at the other forward, during the fault. `None`: there is no other forward.
    pub beside: Option<Option<Duration>>,
    /// Messages that arrived over the slow path while it was slow. `None`: no path was slow.
    pub crawled: Option<usize>,
    /// Connections that the relay reports as made.
    pub connects: usize,
    /// How long the relay's disk has hung.
    pub hung: Duration,
    /// The longest time that a sender could not hand over a message to a running relay.
    pub held: Duration,
}

impl Story {
    /// `None`: a requirement is not installed here.
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

    /// Runs the story from the first message to the last.
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
            // A message that is missing at either collector is lost. The other figures come from the collector that the
            // fault affects.
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

    /// After each time, the load goes on for a while.
    pub fn three_times(&mut self, mut happens: impl FnMut(&mut Self)) {
        for _ in 0..3 {
            happens(self);
            self.goes_on(self.size.calm);
        }
    }

    /// The only collector, or the one at the old address.
    pub fn collector(&mut self) -> &mut Collector {
        &mut self.stage.collectors[0]
    }

    /// Starts the collector again, and measures the recovery from there.
    pub fn collector_comes(&mut self) {
        self.stage.collectors[0].starts();
        self.recovers_from_here(0);
    }

    /// Starts the relay again after a pause.
    pub fn relay_comes(&mut self) {
        let taken = self.relay.had_taken();
        self.goes_on(self.size.pause);
        if let (Some(taken), Way::Tcp(_)) = (taken, self.relay.way()) {
            // No relay listens now, so all messages sent so far went to the ended relay.
            let sent = self.load().sent();
            let arrived = self.look();
            for stream in 0..STREAMS {
                let from = taken[stream].max(arrived.reached()[stream]);
                self.unread.extend((from..sent[stream]).map(|number| (stream, number)));
            }
        }
        self.relay.starts();
    }

    /// Strangers connect, send nothing, and stay.
    pub fn strangers_come(&mut self, count: usize) {
        let Way::Tcp(to) = *self.relay.way() else { unreachable!("strangers come by TCP") };
        self.strangers = strangers(to, count);
        self.goes_on(self.size.calm);
    }

    pub fn senders_connect_anew(&self) {
        self.load().connects_anew();
    }

    /// While one path is slow, the other forward must not be. Its delay is measured at the beginning and at the end.
    pub fn is_no_matter_beside(&mut self) {
        let begins = self.arrives_from_here(1);
        let before = self.arrived_at(0);
        self.goes_on(self.size.slow);
        self.crawled = Some(self.arrived_at(0) - before);
        let ends = self.arrives_from_here(1);
        self.delays.extend([begins, ends]);
    }

    /// Call this at the end of the fault. It measures the recovery.
    pub fn recovers_from_here(&mut self, collector: usize) {
        let recovery = self.arrives_from_here(collector);
        self.recoveries.push(recovery);
    }

    /// The time until this collector gets a message that is sent from now on.
    fn arrives_from_here(&mut self, collector: usize) -> Option<Duration> {
        let (since, sent) = (Instant::now(), self.load().sent());
        let arrived = self.comes_true(|story| {
            let reached = story.stage.collectors[collector].watch.seen.reached();
            let mut is_beyond = reached.iter().zip(sent).map(|(reached, sent)| *reached > sent);
            if story.all_recover { is_beyond.all(|is| is) } else { is_beyond.any(|is| is) }
        });
        arrived.then(|| since.elapsed())
    }

    /// Ends the load. Waits until all expected messages have arrived, or none has for long enough. Returns the sent
    /// messages.
    fn settles(&mut self) -> Sent {
        let ended = self.load.take().expect("a load").ends();
        let due = ended.sent.iter().sum::<usize>() - self.unread.len();
        let (mut seen, mut last) = (0, Instant::now());
        while last.elapsed() < self.size.quiet {
            let now = self.look();
            // Our relay reports when it has nothing left to send. Its last messages need another moment.
            let is_quiet = last.elapsed() > self.size.quiet / 8 && self.relay.has_nothing_waiting();
            if now.unique >= due || is_quiet {
                break;
            }
            if seen != now.unique + now.repeated {
                (seen, last) = (now.unique + now.repeated, Instant::now());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        // The relay may keep acknowledged lines for a moment.
        within(self.size.quiet, || self.relay.has_nothing_waiting().then_some(()));
        ended
    }

    /// The messages that have arrived so far.
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

    /// Whether the condition becomes true in time. The load goes on meanwhile.
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
    /// The promises of our own relay that this outcome breaks.
    pub fn broken_promise(&self, row: &Row, size: &Size) -> Option<String> {
        let (most, most_connects) = (row.most_repeated(size), row.most_connects().unwrap_or(usize::MAX));
        let by_datagram = row.transport == Transport::Udp;
        let is_soon = |time: Duration| time <= size.delay;
        // A RELP sender can wait for the disk, and does. The relay may have to drop messages of other senders.
        let waits = row.senders() == Senders::Relp;
        let may_drop = self.hung >= MAX_WAIT && !waits;
        // A quarter of what 4 kB/s carry, because data already in buffers does not count.
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
