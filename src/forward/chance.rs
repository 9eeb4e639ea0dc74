//! Chance, enough of it to spread relays, without a dependency. Nothing secret may rest on it.

use std::hash::{BuildHasher, Hasher, RandomState};

/// From 0 to 1.
pub fn share() -> f64 {
    draw() as f64 / u64::MAX as f64
}

/// From 0 to `most`, both included.
pub fn up_to(most: u32) -> u32 {
    u32::try_from(draw() % (u64::from(most) + 1)).expect("it is at most `most`")
}

fn draw() -> u64 {
    // A fresh RandomState is seeded anew.
    RandomState::new().build_hasher().finish()
}
