//! Reports about a stream beside its frames.

/// Why only the start of a frame was passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The frame is longer than the limit.
    Limit,
    /// The end of the frame did not come in time.
    Timeout,
    /// There was no memory left for the frame.
    Memory,
}

/// Reports about a stream beside its frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Notes {
    /// Skipped bytes of frames that were passed on cut.
    pub skipped: Skipped,
    /// The number of counted frames that neither a count nor `<` followed.
    pub miscounts: usize,
}

/// Skipped bytes, by the reason for which their frame was cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Skipped {
    pub limit: u64,
    pub timeout: u64,
    pub memory: u64,
}

impl std::ops::Add for Skipped {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self { limit: self.limit + more.limit, timeout: self.timeout + more.timeout, memory: self.memory + more.memory }
    }
}

impl Skipped {
    /// Adds bytes that were skipped.
    pub(super) fn count(&mut self, bytes: usize, why: Cut) {
        let of = match why {
            Cut::Limit => &mut self.limit,
            Cut::Timeout => &mut self.timeout,
            Cut::Memory => &mut self.memory,
        };
        *of += bytes as u64;
    }
}
