//! The events in the life of a relay.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// `kill -9`, and a restart after a while.
    CollectorKilled,
    /// Certificate files are replaced. The relay notices by itself.
    CertificatesRenewed,
    /// SIGHUP, with a config that adds a listener or removes it.
    Reloaded,
    /// The spool's file system is frozen for some seconds, as for a snapshot.
    DiskFrozen,
    /// The name moves to the other collector.
    NameMoved,
    /// Answers for a name with many addresses rotate. The relay must not treat that as a move.
    AnswersRotate,
    /// The collector reads a few bytes at a time, for a while.
    CollectorSlow,
    /// SIGTERM, and a restart after a while.
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
