//! The fault suite: programs die, hang, move or lose their connections under a steady load, and all messages are
//! counted at the end.
//!
//! Each combination of fault, transport and collector is a test of its own, small enough for every day:
//! `cargo test --test faults`, or some of them, `cargo test --test faults tls::rsyslog`. At full size, all rows form a
//! table, with the peers in the relay's place as well. See `table`, and docs/design/faults.md for the counted figures
//! and the method.
//!
//! Where to find a part, and where to add a fault:
//! - `fault`: the faults, the only place that knows them;
//! - `row`: the stories and their sizes; `story`: how a story runs and is counted;
//! - `load`: the senders; `wire`: their connections; `under_test`: the relay; `peers`: other relays in its place;
//!   `collector`: the collectors;
//! - `stage`: the relay's surroundings; `proxy`: a proxy before the collector; `wall`: dropped packets;
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

/// Runs a row at the small size, with logferry as the relay.
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

/// All faults of a transport with connections.
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

/// Runs only with `LOGFERRY_FAULTS=full`. Otherwise it does nothing.
#[test]
fn table() {
    match std::env::var("LOGFERRY_FAULTS").as_deref() {
        Ok("full") => table::print(Size::FULL),
        Ok(other) => panic!("LOGFERRY_FAULTS is \"full\" or not set, not {other:?}"),
        Err(_) => {}
    }
}
