//! A hostile network: thousands of strangers attack a relay with default settings, all in the same way. Meanwhile an
//! honest sender's lines arrive, the relay reports that it is ready, and its memory stays within the limit of the
//! attack. After the strangers have left, it has as many open descriptors as before.
//!
//! At the small size, for every day: `cargo test --test hostile -- --nocapture`, which prints the cost of each attack.
//! With as many connections as a listener accepts:
//!
//! ```text
//! LOGFERRY_HOSTILE=full cargo test --release --test hostile -- --nocapture
//! ```
//!
//! The modules: `attack`: the attacks and their allowed cost; `crowd`: the strangers; `stand`: the relay, the honest
//! sender and the collector; `stop`: stopping a relay with hundreds of busy connections.

mod attack;
mod crowd;
mod stand;
mod stop;
#[path = "../support/mod.rs"]
mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};

use attack::Attack;
use stand::Stand;

/// Strangers at the small size.
const FEW: usize = 2000;
/// Strangers at full size: the default of `max-connections`, less one for the honest sender.
const ALL: usize = 9_999;

/// Lines of the honest sender, by each transport.
const LINES: usize = 100;

/// A crowd needs nearly all descriptors that a process may have, so the tests run one after the other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

#[track_caller]
fn withstood(attack: Attack) {
    let _alone = alone();
    let strangers = attack.strangers(match std::env::var("LOGFERRY_HOSTILE").as_deref() {
        Ok("full") => ALL,
        Ok(other) => panic!("LOGFERRY_HOSTILE is \"full\" or not set, not {other:?}"),
        Err(_) => FEW,
    });
    if !stand::has_descriptors_for(strangers) {
        return;
    }
    let mut stand = Stand::new(attack.way());
    let calm = stand.quiet_descriptors();
    let start = stand.peak_kib();
    let crowd = attack.begins(stand.doors(), strangers);
    match crowd.stands() {
        true => stand.settles(),
        // Most of the datagrams do not fit into the socket buffer.
        false => stand.hears(strangers / 4),
    }
    stand.honest_lines_arrive(LINES, crowd.stands());
    stand.says_that_it_is_well();
    let (stand_open, peak) = (stand.connections(), stand.peak_kib());
    println!(
        "hostile: {}: {strangers} strangers, {stand_open} connections open, peak {:.1} MB, {:.1} MB more than before",
        attack.title(),
        peak as f64 / 1024.0,
        (peak - start) as f64 / 1024.0,
    );
    let most = attack.most_kib(strangers);
    drop(crowd);
    stand.is_left_alone();
    calm.are_all_of(&stand.quiet_descriptors());
    assert!(peak - start <= most, "{}: {} kB more than before, and {most} are allowed", attack.title(), peak - start);
    stand.balances();
}

macro_rules! attacks {
    ($($test:ident $attack:ident),+ $(,)?) => {
        $(#[test]
        fn $test() {
            withstood(Attack::$attack);
        })+
    };
}

attacks! {
    silence Silence,
    garbage Garbage,
    half_frames HalfFrames,
    a_byte_now_and_then Dribble,
    new_headers NewHeaders,
    long_headers LongHeaders,
    half_hellos HalfHello,
    handshakes_and_nothing_more Handshakes,
    half_frames_of_relp RelpHalfFrame,
    half_batches_of_relp RelpHalfBatch,
    commands_of_relp RelpCommands,
    forged_tags_by_udp ForgedTags,
    half_objects_of_gelf GelfHalfObjects,
    first_chunks_of_gelf GelfFirstChunks,
    half_arrays_of_forward ForwardHalfArrays,
    a_byte_of_forward_now_and_then ForwardDribble,
    arrays_of_forward_that_are_none ForwardBadArrays,
    gzip_bombs_by_forward ForwardBombs,
    silence_by_http HttpSilence,
    half_heads_by_http HttpHalfHeads,
    half_events_of_hec HttpHalfEvents,
    gzip_bombs_by_hec HttpBombs,
    large_bodies_by_hec HttpLargeBodies,
    half_entries_of_a_journal JournalHalfEntries,
}
