//! Learns the largest request that a server takes from requests that it has refused as too large. Pure.

use std::time::{Duration, Instant};

/// How long the limit is known after a refusal. A server's configuration may change, and learning the limit again costs few
/// requests.
const KNOWN_FOR: Duration = Duration::from_secs(3600);

/// Sizes are bytes of lines as they are in the spool, like the `batch` setting.
#[derive(Default)]
pub struct SizeLimit(Option<Known>);

struct Known {
    /// The smallest size that was refused.
    refused: usize,
    /// The server's own words.
    why: String,
    since: Instant,
    is_told: bool,
}

impl SizeLimit {
    /// A request of this size with several lines was refused.
    pub fn refused(&mut self, size: usize, why: &str, now: Instant) {
        let refused = self.known(now).map_or(size, |known| known.refused.min(size));
        self.0 = Some(Known { refused, why: why.to_owned(), since: now, is_told: false });
    }

    /// Forgets the limit. A line that is refused alone is too large by itself, so the requests were refused because of that line.
    pub fn forget(&mut self) {
        self.0 = None;
    }

    /// The size that requests should have; `None`: the server has not refused a request as too large.
    pub fn wanted(&self, now: Instant) -> Option<usize> {
        self.known(now).map(Known::wanted)
    }

    /// How many requests are needed for lines of this size. A size below all refused ones needs one request.
    pub fn parts(&self, size: usize, now: Instant) -> usize {
        match self.known(now) {
            Some(known) if size >= known.refused => size.div_ceil(known.wanted()),
            _ => 1,
        }
    }

    /// The log line about the limit, once.
    pub fn news(&mut self) -> Option<String> {
        let known = self.0.as_mut().filter(|known| !known.is_told)?;
        known.is_told = true;
        let (refused, wanted, why) = (known.refused, known.wanted(), &known.why);
        let news = format!("{refused} bytes of lines are too large a request ({why}); from now on it has {wanted}");
        Some(match wanted / 1024 {
            // The config takes no smaller `batch`.
            0..4 => news,
            kib => format!("{news}, as with batch = \"{kib}KiB\""),
        })
    }

    fn known(&self, now: Instant) -> Option<&Known> {
        self.0.as_ref().filter(|known| now.saturating_duration_since(known.since) < KNOWN_FOR)
    }
}

impl Known {
    fn wanted(&self) -> usize {
        (self.refused / 2).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_request_is_as_large_as_one_that_was_refused() {
        let (mut limit, now) = (SizeLimit::default(), Instant::now());
        assert_eq!((limit.wanted(now), limit.parts(usize::MAX, now)), (None, 1));
        limit.refused(1000, "HTTP 413", now);
        limit.refused(700, "HTTP 413", now);
        limit.refused(800, "HTTP 413", now);
        assert_eq!(limit.wanted(now), Some(350));
        for (size, parts) in [(0, 1), (351, 1), (699, 1), (700, 2), (701, 3), (7000, 20)] {
            assert_eq!(limit.parts(size, now), parts, "{size}");
        }
        limit.refused(1, "HTTP 413", now);
        assert_eq!(limit.parts(5, now), 5);
    }

    #[test]
    fn it_is_known_for_an_hour_and_until_a_line_is_to_blame() {
        let (mut limit, now) = (SizeLimit::default(), Instant::now());
        limit.refused(1000, "HTTP 413", now);
        assert_eq!(limit.wanted(now + KNOWN_FOR), None);
        assert_eq!(limit.parts(1000, now + KNOWN_FOR), 1);
        limit.refused(5000, "HTTP 413", now + KNOWN_FOR);
        assert_eq!(limit.wanted(now + KNOWN_FOR), Some(2500));
        limit.forget();
        assert_eq!(limit.wanted(now), None);
    }

    #[test]
    fn it_is_said_once_with_the_setting_that_would_fit() {
        let (mut limit, now) = (SizeLimit::default(), Instant::now());
        assert_eq!(limit.news(), None);
        limit.refused(262_200, "HTTP 413: no", now);
        assert_eq!(
            limit.news().as_deref(),
            Some(
                "262200 bytes of lines are too large a request (HTTP 413: no); from now on it has 131100, as with \
                 batch = \"128KiB\""
            )
        );
        assert_eq!(limit.news(), None);
        limit.refused(8191, "HTTP 413", now);
        let news = limit.news().expect("another size");
        assert!(news.ends_with("from now on it has 4095"), "{news}");
    }
}
