//! What happens. Each fault is told by a story's verbs, and says what its recovery is measured from: its end, which is
//! the moment the killed one listens again, the stopped one goes on, the link is whole, or the name has moved.

use std::time::Instant;

use super::support::program::{SIGCONT, SIGSTOP};

use super::row::{Make, Transport};
use super::story::Story;
use super::wall::{Stops, Wall};

/// What a process may open that can be left without descriptors, and how many strangers want them.
const FILES: usize = 256;
const STRANGERS: usize = 400;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    CollectorKilled,
    CollectorAway,
    CollectorHangsAndDies,
    CollectorRestarted,
    CollectorStopsReading,
    RelayKilled,
    RelayKilledWithBacklog,
    RelayRestarted,
    NameMovesOldDies,
    NameMovesOldVanishes,
    NameMovesOldLives,
    LinkCut,
    BothKilled,
    DiskFrozen,
    DiskFrozenRelp,
    OnePathRefuses,
    CollectorSlow,
    LinkSlow,
    NameRotates,
    DescriptorsGone,
    SocketNameGone,
}

impl Fault {
    pub const ALL: [Self; 21] = [
        Self::CollectorKilled,
        Self::CollectorAway,
        Self::CollectorHangsAndDies,
        Self::CollectorRestarted,
        Self::CollectorStopsReading,
        Self::RelayKilled,
        Self::RelayKilledWithBacklog,
        Self::RelayRestarted,
        Self::NameMovesOldDies,
        Self::NameMovesOldVanishes,
        Self::NameMovesOldLives,
        Self::LinkCut,
        Self::BothKilled,
        Self::DiskFrozen,
        Self::DiskFrozenRelp,
        Self::OnePathRefuses,
        Self::CollectorSlow,
        Self::LinkSlow,
        Self::NameRotates,
        Self::DescriptorsGone,
        Self::SocketNameGone,
    ];

    /// The test's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::CollectorKilled => "collector_killed",
            Self::CollectorAway => "collector_away",
            Self::CollectorHangsAndDies => "collector_hangs_and_dies",
            Self::CollectorRestarted => "collector_restarted",
            Self::CollectorStopsReading => "collector_stops_reading",
            Self::RelayKilled => "relay_killed",
            Self::RelayKilledWithBacklog => "relay_killed_with_backlog",
            Self::RelayRestarted => "relay_restarted",
            Self::NameMovesOldDies => "name_moves_old_dies",
            Self::NameMovesOldVanishes => "name_moves_old_vanishes",
            Self::NameMovesOldLives => "name_moves_old_lives",
            Self::LinkCut => "link_cut",
            Self::BothKilled => "both_killed",
            Self::DiskFrozen => "disk_frozen",
            Self::DiskFrozenRelp => "disk_frozen_relp_senders",
            Self::OnePathRefuses => "one_path_refuses",
            Self::CollectorSlow => "collector_slow",
            Self::LinkSlow => "link_slow",
            Self::NameRotates => "name_rotates",
            Self::DescriptorsGone => "descriptors_gone",
            Self::SocketNameGone => "socket_name_gone",
        }
    }

    /// The table's words.
    pub fn title(self) -> &'static str {
        match self {
            Self::CollectorKilled => "collector killed 3 × and restarted",
            Self::CollectorAway => "collector away 10 s",
            Self::CollectorHangsAndDies => "collector hangs 10 s, is killed, comes back",
            Self::CollectorRestarted => "collector restarted 3 × (SIGTERM)",
            Self::CollectorStopsReading => "collector does not read for 6 s",
            Self::RelayKilled => "relay killed 3 × and restarted",
            Self::RelayKilledWithBacklog => "relay killed with a backlog",
            Self::RelayRestarted => "relay restarted 3 × (SIGTERM)",
            Self::NameMovesOldDies => "name moves, old address dead at once",
            Self::NameMovesOldVanishes => "name moves, old address a black hole",
            Self::NameMovesOldLives => "name moves, old address still answering",
            Self::LinkCut => "link cut 15 s",
            Self::BothKilled => "relay and collector killed in turn, 6 ×",
            Self::DiskFrozen => "disk frozen 9 s",
            Self::DiskFrozenRelp => "disk frozen 9 s, senders by RELP",
            Self::OnePathRefuses => "one path refuses",
            Self::CollectorSlow => "slow: the collector reads 4 kB/s for 30 s",
            Self::LinkSlow => "link 32 kbit/s for 30 s",
            Self::NameRotates => "name rotates, 3 of 40 addresses, TTL 0",
            Self::DescriptorsGone => "descriptors gone: 400 strangers, 256 files",
            Self::SocketNameGone => "socket name gone, senders by unix",
        }
    }

    pub fn moves_a_name(self) -> bool {
        matches!(self, Self::NameMovesOldDies | Self::NameMovesOldVanishes | Self::NameMovesOldLives)
    }

    pub fn needs_a_wall(self) -> bool {
        matches!(self, Self::NameMovesOldVanishes | Self::LinkCut)
    }

    /// The relay's spool is on a disk that can be frozen.
    pub fn needs_a_disk(self) -> bool {
        matches!(self, Self::DiskFrozen | Self::DiskFrozenRelp)
    }

    pub fn needs_a_proxy(self) -> bool {
        matches!(self, Self::CollectorSlow | Self::NameRotates)
    }

    /// The relay has a second forward, which all is well with.
    pub fn has_another_forward(self) -> bool {
        matches!(self, Self::CollectorSlow | Self::LinkSlow)
    }

    /// How many files the relay may open, if not as many as it likes.
    pub fn files(self) -> Option<usize> {
        (self == Self::DescriptorsGone).then_some(FILES)
    }

    /// Whether it is about some lines or senders only. Then the delay of the others is what is measured and promised.
    pub fn has_others(self) -> bool {
        self.has_another_forward()
            || self.needs_a_disk()
            || matches!(self, Self::OnePathRefuses | Self::NameRotates | Self::DescriptorsGone | Self::SocketNameGone)
    }

    /// How many connections to the collector it breaks. One that is ended in good order, by a relay that stops or whose
    /// collector has moved, has nothing to send again.
    pub fn breaks(self) -> usize {
        match self {
            Self::CollectorStopsReading | Self::RelayRestarted | Self::NameMovesOldLives => 0,
            Self::DiskFrozen | Self::DiskFrozenRelp | Self::OnePathRefuses | Self::SocketNameGone => 0,
            Self::CollectorSlow | Self::NameRotates => 0,
            Self::CollectorAway | Self::CollectorHangsAndDies | Self::RelayKilledWithBacklog | Self::LinkCut => 1,
            Self::NameMovesOldDies | Self::NameMovesOldVanishes | Self::DescriptorsGone => 1,
            // What is lost in its queue may be silent for longer than `dead-after`, whoever is at the other end.
            Self::LinkSlow => 2,
            Self::CollectorKilled | Self::CollectorRestarted | Self::RelayKilled => 3,
            Self::BothKilled => 6,
        }
    }

    /// Whether there is such a row.
    pub fn applies(self, transport: Transport, collector: Make) -> bool {
        let between_two = (transport, collector) == (Transport::Relp, Make::Logferry);
        let by_tcp = (transport, collector) == (Transport::Tcp, Make::Rsyslog);
        match (self, transport) {
            (Self::OnePathRefuses, _) | (_, Transport::File) => {
                self == Self::OnePathRefuses && transport == Transport::File
            }
            // What happens in front of the spool has little to do with what is behind it.
            (Self::DiskFrozen | Self::DiskFrozenRelp | Self::DescriptorsGone | Self::SocketNameGone, _) => {
                by_tcp || between_two
            }
            (Self::CollectorSlow, Transport::Tls) => collector == Make::Rsyslog,
            (Self::CollectorSlow | Self::LinkSlow | Self::NameRotates, _) => by_tcp || transport == Transport::Relp,
            // What nobody keeps a connection for, nobody can break.
            (Self::CollectorHangsAndDies | Self::CollectorStopsReading | Self::LinkCut, Transport::Udp) => false,
            // Exactly once is promised where both ends are ours and acknowledge.
            (Self::BothKilled, _) => between_two,
            _ => true,
        }
    }

    pub fn happens(self, story: &mut Story) {
        match self {
            Self::CollectorKilled => story.three_times(|story| {
                story.collector().dies();
                story.goes_on(story.size.pause);
                story.collector_comes();
            }),
            Self::CollectorAway => {
                story.collector().stops();
                story.goes_on(story.size.away);
                story.collector_comes();
            }
            Self::CollectorHangsAndDies => {
                story.collector().signal(SIGSTOP);
                story.goes_on(story.size.hang);
                story.collector().dies();
                story.goes_on(story.size.pause);
                story.collector_comes();
            }
            Self::CollectorRestarted => story.three_times(|story| {
                story.collector().stops();
                story.collector_comes();
            }),
            Self::CollectorStopsReading => {
                story.collector().signal(SIGSTOP);
                // Less than `dead-after`: a longer one is a connection that breaks, which other rows have.
                story.goes_on(story.size.away * 3 / 5);
                story.collector().signal(SIGCONT);
                story.recovers_from_here(0);
            }
            Self::RelayKilled => story.three_times(|story| {
                story.relay.dies();
                story.relay_comes();
                story.recovers_from_here(0);
            }),
            Self::RelayKilledWithBacklog => {
                story.collector().stops();
                story.goes_on(story.size.away / 2);
                story.relay.dies();
                story.relay_comes();
                story.goes_on(story.size.pause);
                story.collector_comes();
            }
            Self::RelayRestarted => story.three_times(|story| {
                story.relay.stops();
                story.relay_comes();
                story.recovers_from_here(0);
            }),
            Self::NameMovesOldDies => {
                story.stage.name_moves();
                story.collector().dies();
                story.recovers_from_here(1);
            }
            Self::NameMovesOldVanishes => {
                // To the end of the story.
                story.wall = Some(Wall::build(Stops::To(story.collector().at()), &["tcp", "udp"]));
                story.stage.name_moves();
                story.recovers_from_here(1);
            }
            Self::NameMovesOldLives => {
                story.stage.name_moves();
                story.recovers_from_here(1);
            }
            Self::LinkCut => {
                let wall = Wall::build(Stops::Both(story.collector().at()), &["tcp", "udp"]);
                story.goes_on(story.size.cut);
                drop(wall);
                story.recovers_from_here(0);
            }
            Self::BothKilled => story.three_times(|story| {
                story.collector().dies();
                story.goes_on(story.size.pause);
                story.collector_comes();
                story.goes_on(story.size.pause);
                story.relay.dies();
                story.relay_comes();
                story.recovers_from_here(0);
            }),
            Self::DiskFrozen | Self::DiskFrozenRelp => {
                let (frozen, since) = (story.relay.disk_freezes(), Instant::now());
                story.goes_on(story.size.frozen);
                drop(frozen);
                story.hung = since.elapsed();
                story.recovers_from_here(0);
            }
            Self::OnePathRefuses => {
                // One does from the beginning.
                story.recovers_from_here(0);
                story.goes_on(story.size.away);
                story.collector().refuses_no_file();
                story.recovers_from_here(0);
            }
            Self::CollectorSlow => {
                story.stage.reads_slowly(true);
                story.is_no_matter_beside();
                story.stage.reads_slowly(false);
                story.recovers_from_here(0);
            }
            Self::LinkSlow => {
                story.stage.link_is_slow();
                story.is_no_matter_beside();
                story.stage.link_is_fast();
                story.recovers_from_here(0);
            }
            Self::NameRotates => {
                story.stage.name_rotates();
                story.goes_on(story.size.slow);
                story.recovers_from_here(0);
            }
            Self::DescriptorsGone => {
                story.strangers_come(STRANGERS);
                story.collector().dies();
                story.goes_on(story.size.pause);
                // They stay to the end of the story.
                story.collector_comes();
            }
            Self::SocketNameGone => {
                story.relay.loses_its_socket();
                story.senders_connect_anew();
                story.recovers_from_here(0);
            }
        }
    }
}
