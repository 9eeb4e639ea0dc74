//! The fault suite: whatever dies, hangs, moves or is cut, under a steady load, and what arrives in the end.
//!
//! Each fault × transport × collector is a test of its own, small enough for every day: `cargo test --test faults`, or
//! some of them, `cargo test --test faults tls::rsyslog`. At full size, with the peers in the relay's place, all rows make
//! a table: see `table`, and docs/design/faults.md for what is counted and how.
//!
//! Where to look, and where the next fault goes:
//! - `fault`: what happens, and the only place that knows;
//! - `row`: which stories there are, and how large they are; `story`: how one is told and counted;
//! - `load`: the senders, `wire`: how they are connected; `under_test`: the relay, `peers`: others in its place;
//!   `collector`: where the lines go;
//! - `stage`: what stands around the relay; `proxy`: a way to the collector that is ours; `wall`: packets that vanish;
//! - `tally`: counting; `table`: the table.

mod collector;
mod fault;
mod load;
mod peers;
mod proxy;
mod row;
mod stage;
mod story;
#[path = "../support/mod.rs"]
mod support;
mod table;
mod tally;
mod under_test;
mod wall;
mod wire;

use fault::Fault;
use row::{Make, Row, Size, Transport};
use story::Story;

/// At the size of every day, with our own relay.
#[track_caller]
fn told(transport: Transport, collector: Make, fault: Fault) {
    let row = Row { relay: Make::Logferry, transport, collector, fault };
    assert!(row.is_one(), "the table has no {row}");
    if let Some(story) = Story::begins(&row, Size::SMALL) {
        let outcome = story.tell(&row);
        println!("{row}: {outcome:?}");
        let broken = outcome.broken_promise(&row, &Size::SMALL);
        assert!(broken.is_none(), "{}", broken.unwrap_or_default());
    }
}

macro_rules! stories {
    ($transport:ident to $collector:ident: $($test:ident $fault:ident),+) => {
        use crate::{Fault, Make, Transport, told};
        $(#[test]
        fn $test() {
            assert_eq!(stringify!($test), Fault::$fault.name());
            told(Transport::$transport, Make::$collector, Fault::$fault);
        })+
    };
}

/// All that can happen to a connection.
macro_rules! by_connection {
    ($transport:ident to $collector:ident $(and $test:ident $fault:ident)*) => {
        stories! { $transport to $collector:
            collector_killed CollectorKilled,
            collector_away CollectorAway,
            collector_hangs_and_dies CollectorHangsAndDies,
            collector_restarted CollectorRestarted,
            collector_stops_reading CollectorStopsReading,
            relay_killed RelayKilled,
            relay_killed_with_backlog RelayKilledWithBacklog,
            relay_restarted RelayRestarted,
            name_moves_old_dies NameMovesOldDies,
            name_moves_old_vanishes NameMovesOldVanishes,
            name_moves_old_lives NameMovesOldLives,
            link_cut LinkCut
            $(, $test $fault)*
        }
    };
}

macro_rules! by_datagram {
    ($collector:ident) => {
        stories! { Udp to $collector:
            collector_killed CollectorKilled,
            collector_away CollectorAway,
            collector_restarted CollectorRestarted,
            relay_killed RelayKilled,
            relay_killed_with_backlog RelayKilledWithBacklog,
            relay_restarted RelayRestarted,
            name_moves_old_dies NameMovesOldDies,
            name_moves_old_vanishes NameMovesOldVanishes,
            name_moves_old_lives NameMovesOldLives
        }
    };
}

mod tcp {
    mod rsyslog {
        by_connection!(Tcp to Rsyslog
            and disk_frozen DiskFrozen
            and disk_frozen_relp_senders DiskFrozenRelp
            and collector_slow CollectorSlow
            and link_slow LinkSlow
            and name_rotates NameRotates
            and descriptors_gone DescriptorsGone
            and socket_name_gone SocketNameGone
        );
    }
    mod logferry {
        by_connection!(Tcp to Logferry);
    }
}

mod tls {
    mod rsyslog {
        by_connection!(Tls to Rsyslog and collector_slow CollectorSlow);
    }
    mod logferry {
        by_connection!(Tls to Logferry);
    }
}

mod relp {
    mod rsyslog {
        by_connection!(Relp to Rsyslog
            and collector_slow CollectorSlow
            and link_slow LinkSlow
            and name_rotates NameRotates
        );
    }
    mod logferry {
        by_connection!(Relp to Logferry
            and both_killed BothKilled
            and disk_frozen DiskFrozen
            and disk_frozen_relp_senders DiskFrozenRelp
            and collector_slow CollectorSlow
            and link_slow LinkSlow
            and name_rotates NameRotates
            and descriptors_gone DescriptorsGone
            and socket_name_gone SocketNameGone
        );
    }
}

mod file {
    stories! { File to Files: one_path_refuses OnePathRefuses }
}

mod udp {
    mod rsyslog {
        by_datagram!(Rsyslog);
    }
    mod logferry {
        by_datagram!(Logferry);
    }
}

/// Asked for with `LOGFERRY_FAULTS=full`; otherwise there is nothing to do.
#[test]
fn table() {
    match std::env::var("LOGFERRY_FAULTS").as_deref() {
        Ok("full") => table::print(Size::FULL),
        Ok(other) => panic!("LOGFERRY_FAULTS is \"full\" or not set, not {other:?}"),
        Err(_) => {}
    }
}
