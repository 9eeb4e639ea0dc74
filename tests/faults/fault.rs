//! The faults. Each fault is a sequence of calls to the story. Its recovery is measured from its end: the killed
//! process listens again, the stopped process continues, the link is whole, or the name has moved.

use std::time::Instant;

use super::support::program::{SIGCONT, SIGSTOP};

use super::row::{Make, Transport};
use super::story::Story;
use super::wall::{Stops, Wall};

/// The limit of open files for a relay that is to run out of descriptors, and the number of strangers that connect.
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

    /// The name of its test.
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

    /// Its description in the table.
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

    /// Whether the relay's spool is on a disk that can be frozen.
    pub fn needs_a_disk(self) -> bool {
        matches!(self, Self::DiskFrozen | Self::DiskFrozenRelp)
    }

    pub fn needs_a_proxy(self) -> bool {
        matches!(self, Self::CollectorSlow | Self::NameRotates)
    }

    /// Whether the relay has a second forward, which the fault does not affect.
    pub fn has_another_forward(self) -> bool {
        matches!(self, Self::CollectorSlow | Self::LinkSlow)
    }

    /// The relay's limit of open files, if there is one.
    pub fn files(self) -> Option<usize> {
        (self == Self::DescriptorsGone).then_some(FILES)
    }

    /// Whether the fault affects only some lines or senders. Then the delay of the others is measured and limited.
    pub fn has_others(self) -> bool {
        self.has_another_forward()
            || self.needs_a_disk()
            || matches!(self, Self::OnePathRefuses | Self::NameRotates | Self::DescriptorsGone | Self::SocketNameGone)
    }

    /// How many connections to the collector the fault breaks. Connections that end in good order do not count, because
    /// no lines are sent again: when the relay stops, or when it leaves the old address of a collector that has moved.
    pub fn breaks(self) -> usize {
        match self {
            Self::CollectorStopsReading | Self::RelayRestarted | Self::NameMovesOldLives => 0,
            Self::DiskFrozen | Self::DiskFrozenRelp | Self::OnePathRefuses | Self::SocketNameGone => 0,
            Self::CollectorSlow | Self::NameRotates => 0,
            Self::CollectorAway | Self::CollectorHangsAndDies | Self::RelayKilledWithBacklog | Self::LinkCut => 1,
            Self::NameMovesOldDies | Self::NameMovesOldVanishes | Self::DescriptorsGone => 1,
            // Packets lost in the link's queue can cause a silence longer than `dead-after`, with any collector.
            Self::LinkSlow => 2,
            Self::CollectorKilled | Self::CollectorRestarted | Self::RelayKilled => 3,
            Self::BothKilled => 6,
        }
    }

    /// Whether the table has a row with this transport and this collector.
    pub fn applies(self, transport: Transport, collector: Make) -> bool {
        let between_two = (transport, collector) == (Transport::Relp, Make::Logferry);
        let by_tcp = (transport, collector) == (Transport::Tcp, Make::Rsyslog);
        match (self, transport) {
            (Self::OnePathRefuses, _) | (_, Transport::File) => {
                self == Self::OnePathRefuses && transport == Transport::File
            }
            // These faults are in front of the spool, so the transport behind it matters little. Two combinations
            // suffice.
            (Self::DiskFrozen | Self::DiskFrozenRelp | Self::DescriptorsGone | Self::SocketNameGone, _) => {
                by_tcp || between_two
            }
            (Self::CollectorSlow, Transport::Tls) => collector == Make::Rsyslog,
            (Self::CollectorSlow | Self::LinkSlow | Self::NameRotates, _) => by_tcp || transport == Transport::Relp,
            // UDP has no connection to break.
            (Self::CollectorHangsAndDies | Self::CollectorStopsReading | Self::LinkCut, Transport::Udp) => false,
            // Exactly-once delivery is promised only between two logferry relays with acknowledgements.
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
                // Less than `dead-after`. A longer pause breaks the connection, and other rows test that.
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
                // The wall stands until the end of the story.
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
                // One file refuses writes from the beginning.
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
                // The strangers stay until the end of the story.
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
