//! When a full table of containers is swept. A sweep visits all entries, so a sender that invents containers must not cause one for
//! each container.

use std::time::Duration;

use crate::record::UnixMicros;

/// The least time between two sweeps.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// The sweeps of one table.
#[derive(Default)]
pub struct Sweeps {
    last: Option<UnixMicros>,
}

impl Sweeps {
    /// Whether a sweep may begin now. The caller then sweeps.
    pub fn begin(&mut self, now: UnixMicros) -> bool {
        let may_begin = self.last.is_none_or(|last| last.has_passed(SWEEP_EVERY, now));
        if may_begin {
            self.last = Some(now);
        }
        may_begin
    }
}
