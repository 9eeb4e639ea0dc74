//! What happens to a relay in its life, in this order, again and again.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// `kill -9`, and after a while it comes back.
    CollectorKilled,
    /// Files replaced; the relay finds out by itself.
    CertificatesRenewed,
    /// SIGHUP: a listener comes, or goes.
    Reloaded,
    /// The spool's file system takes no write for some seconds, as for a snapshot of it.
    DiskFrozen,
    /// To the other collector.
    NameMoved,
    /// Of a name with many addresses; which is no move.
    AnswersRotate,
    /// For a while, a few bytes at a time.
    CollectorSlow,
    /// SIGTERM, and after a while it comes back.
    CollectorRestarted,
}

impl Event {
    pub const ALL: [Self; 8] = [
        Self::CollectorKilled,
        Self::CertificatesRenewed,
        Self::DiskFrozen,
        Self::Reloaded,
        Self::AnswersRotate,
        Self::CollectorSlow,
        Self::NameMoved,
        Self::CollectorRestarted,
    ];

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.to_string() == name)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CollectorKilled => "collector killed",
            Self::CertificatesRenewed => "certificates renewed",
            Self::Reloaded => "config reloaded",
            Self::DiskFrozen => "disk frozen",
            Self::NameMoved => "name moved",
            Self::AnswersRotate => "answers rotate",
            Self::CollectorSlow => "collector slow",
            Self::CollectorRestarted => "collector restarted",
        })
    }
}
