//! What happens. Each fault is told by a story's verbs, and says what its recovery is measured from: its end, which is
//! the moment the killed one listens again, the stopped one goes on, the link is whole, or the name has moved.

use super::support::program::{SIGCONT, SIGSTOP};

use super::row::{Make, Transport};
use super::story::Story;
use super::wall::{Stops, Wall};

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
}

impl Fault {
    pub const ALL: [Self; 13] = [
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
        }
    }

    pub fn moves_a_name(self) -> bool {
        matches!(self, Self::NameMovesOldDies | Self::NameMovesOldVanishes | Self::NameMovesOldLives)
    }

    pub fn needs_a_wall(self) -> bool {
        matches!(self, Self::NameMovesOldVanishes | Self::LinkCut)
    }

    /// How many connections to the collector it breaks. One that is ended in good order, by a relay that stops or whose
    /// collector has moved, has nothing to send again.
    pub fn breaks(self) -> usize {
        match self {
            Self::CollectorStopsReading | Self::RelayRestarted | Self::NameMovesOldLives => 0,
            Self::CollectorAway | Self::CollectorHangsAndDies | Self::RelayKilledWithBacklog | Self::LinkCut => 1,
            Self::NameMovesOldDies | Self::NameMovesOldVanishes => 1,
            Self::CollectorKilled | Self::CollectorRestarted | Self::RelayKilled => 3,
            Self::BothKilled => 6,
        }
    }

    /// Whether there is such a row.
    pub fn applies(self, transport: Transport, collector: Make) -> bool {
        match (self, transport) {
            // What nobody keeps a connection for, nobody can break.
            (Self::CollectorHangsAndDies | Self::CollectorStopsReading | Self::LinkCut, Transport::Udp) => false,
            // Exactly once is promised where both ends are ours and acknowledge.
            (Self::BothKilled, _) => transport == Transport::Relp && collector == Make::Logferry,
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
                story.name_moves();
                story.collector().dies();
                story.recovers_from_here(1);
            }
            Self::NameMovesOldVanishes => {
                // To the end of the story.
                story.wall = Some(Wall::build(Stops::To(story.collector().at()), &["tcp", "udp"]));
                story.name_moves();
                story.recovers_from_here(1);
            }
            Self::NameMovesOldLives => {
                story.name_moves();
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
        }
    }
}
