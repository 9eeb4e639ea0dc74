//! Randomness and time: the seed determines every event of a history.

use std::cell::Cell;
use std::time::{Duration, Instant};

thread_local! {
    static SPOOLS: Cell<u64> = const { Cell::new(0) };
}

/// From now on, the seed determines the ids and sessions of this thread's spools.
pub fn seed_spools(seed: u64) {
    SPOOLS.set(seed);
}

/// The source of random numbers for the ids and sessions of spools.
pub fn for_spools() -> u128 {
    let mut chance = Chance::new(SPOOLS.get());
    let random = u128::from(chance.next()) << 64 | u128::from(chance.next());
    SPOOLS.set(random as u64);
    random
}

/// SplitMix64: the same numbers for the same seed, with any crate version and machine.
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `below`, exclusive.
    pub fn below(&mut self, below: u64) -> u64 {
        self.next() % below.max(1)
    }

    /// A number from `least` to `most`, inclusive.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    pub fn one_in(&mut self, so_many: u64) -> bool {
        self.below(so_many) == 0
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

/// The clock of a history, in milliseconds since its start. It advances when no part can do anything at the current
/// time.
#[derive(Clone, Copy)]
pub struct Clock {
    start: Instant,
    pub ms: u64,
}

impl Clock {
    pub fn new() -> Self {
        Self { start: Instant::now(), ms: 0 }
    }

    /// The time as an `Instant`, for logferry's own code.
    pub fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.ms)
    }
}
