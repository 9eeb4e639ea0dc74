//! The expiry of certificates, and the warnings before it. Pure: the caller passes the time.

use std::path::{Path, PathBuf};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

use crate::certificate::Facts;

/// The end of one certificate that we show or trust.
pub struct Expiry {
    /// The use of the certificate, which is a metric's label.
    pub what: String,
    pub not_after: DateTime<Utc>,
    file: PathBuf,
    subject: String,
    reported: Urgency,
}

/// How near the expiry is. Each step is reported once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Urgency {
    Far,
    Month,
    Week,
    Day,
    Over,
}

impl Urgency {
    fn of(left: TimeDelta) -> Self {
        match left {
            left if left <= TimeDelta::zero() => Self::Over,
            left if left <= TimeDelta::days(1) => Self::Day,
            left if left <= TimeDelta::days(7) => Self::Week,
            left if left <= TimeDelta::days(30) => Self::Month,
            _ => Self::Far,
        }
    }
}

impl Expiry {
    pub fn new(what: String, file: &Path, facts: &Facts) -> Self {
        let (not_after, subject) = (facts.not_after, facts.subject.clone());
        Self { what, not_after, file: file.to_owned(), subject, reported: Urgency::Far }
    }

    /// Returns a warning when the certificate's end has come nearer.
    pub fn report(&mut self, now: DateTime<Utc>) -> Option<String> {
        let left = self.not_after - now;
        let urgency = Urgency::of(left);
        if urgency <= self.reported {
            return None;
        }
        self.reported = urgency;
        let Self { what, file, subject, not_after, .. } = self;
        let (file, end) = (file.display(), not_after.to_rfc3339_opts(SecondsFormat::Secs, true));
        let then = match urgency {
            Urgency::Over => format!("has expired at {end}, and peers that check it refuse it"),
            _ if left < TimeDelta::days(2) => format!("expires in {} hours, at {end}", left.num_hours()),
            _ => format!("expires in {} days, at {end}", left.num_days()),
        };
        Some(format!("{what}: {file} ({subject}) {then}; put a new one in its place, it is read by itself"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_urgency_is_reported_once() {
        let not_after: DateTime<Utc> = "2026-12-31T12:00:00Z".parse().expect("a stamp");
        let mut expiry = Expiry {
            what: "forward central".to_owned(),
            not_after,
            file: "/certs/client.pem".into(),
            subject: "node-7".to_owned(),
            reported: Urgency::Far,
        };
        let mut says = |minutes: i64| expiry.report(not_after - TimeDelta::minutes(minutes));
        let day = 24 * 60;
        assert_eq!(says(31 * day), None);
        assert_eq!(
            says(30 * day).as_deref(),
            Some(
                "forward central: /certs/client.pem (node-7) expires in 30 days, at 2026-12-31T12:00:00Z; put a new \
                 one in its place, it is read by itself"
            )
        );
        assert_eq!(says(8 * day), None);
        assert!(says(7 * day).is_some_and(|said| said.contains("expires in 7 days")));
        assert_eq!(says(2 * day), None);
        assert!(says(day).is_some_and(|said| said.contains("expires in 24 hours")));
        assert_eq!(says(1), None);
        assert!(says(0).is_some_and(|said| said.contains("has expired at 2026-12-31T12:00:00Z")));
        assert_eq!(says(-day), None);
        // A clock that is set back repeats no warning.
        assert_eq!(says(3 * day), None);
    }
}
