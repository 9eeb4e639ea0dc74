//! `logferry explain`: messages on stdin, and what the relay would make of each.

use super::{Failure, load};
use crate::config::Overrides;

pub fn run(overrides: &Overrides) -> Result<(), Failure> {
    let _ = load(overrides)?;
    Ok(())
}
