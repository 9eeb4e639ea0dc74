//! Chance, and time: all that happens in a history follows from its seed.

use std::cell::Cell;
use std::time::{Duration, Instant};

thread_local! {
    static SPOOLS: Cell<u64> = const { Cell::new(0) };
}

/// From now on the ids and sessions of this thread's spools follow from the seed.
pub fn seed_spools(seed: u64) {
    SPOOLS.set(seed);
}

/// Where spools have their ids and sessions from.
pub fn for_spools() -> u128 {
    let mut chance = Chance::new(SPOOLS.get());
    let random = u128::from(chance.next()) << 64 | u128::from(chance.next());
    SPOOLS.set(random as u64);
    random
}

/// SplitMix64: the same numbers for the same seed, whatever crate or machine.
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

    /// From 0 to `below`, which is not reached.
    pub fn below(&mut self, below: u64) -> u64 {
        self.next() % below.max(1)
    }

    /// From `least` to `most`, which is reached.
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

/// The clock of a history, in milliseconds since it began. It moves when nothing else does.
#[derive(Clone, Copy)]
pub struct Clock {
    start: Instant,
    pub ms: u64,
}

impl Clock {
    pub fn new() -> Self {
        Self { start: Instant::now(), ms: 0 }
    }

    /// For what asks for the time as our code does.
    pub fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.ms)
    }
}
