//! How much a frame looks like Docker's. The framing needs this before a frame is parsed: where does a message end, and is a CR at its end
//! the container's? No template is used, so that the tags of all templates are recognized.

use memchr::memmem;

use super::docker::{MAX_TAG_WITH_BLANKS, read_twice, tag_ends, token};
use crate::record::priority;
use crate::record::time::{BSD_LEN, is_rfc3339};

use super::stamp::SaidTime;

/// The start of the element with which our own lines describe a container, whatever the `sd-id`.
const CONTAINER: &[u8] = b"[docker@";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Likeness {
    /// Docker's driver does not write such a frame.
    No,
    /// Docker's driver may have written the frame, and so may many others: `<14>Nov 20 22:28:47 host app[7]: text`.
    Possible,
    /// Docker's driver has probably written the frame: the facility is Docker's default, the tag is an ID or has a `/`, or an RFC 5424 tag
    /// occurs twice. Or another relay has sent the line of a container.
    Likely,
}

/// How much `frame` looks like Docker's. The start of a frame is enough, if the text begins in it.
pub fn likeness(frame: &[u8]) -> Likeness {
    /// Facility daemon: the default of Docker's `syslog-facility`.
    const DAEMON: u8 = 3;
    let Some((pri, rest)) = priority(frame) else { return Likeness::No };
    if let Some(header) = rest.strip_prefix(b"1 ") {
        let start = &header[..header.len().min(MAX_TAG_WITH_BLANKS)];
        let is_containers = read_twice(header).is_some() || memmem::find(start, CONTAINER).is_some();
        return if is_containers { Likeness::Likely } else { Likeness::No };
    }
    // Docker's driver uses two severities: info for standard output, and err for standard error.
    if !matches!(pri & 7, 3 | 6) {
        return Likeness::No;
    }
    let Some(tag) = behind_stamp(rest).and_then(|rest| Some(&rest[..tag_ends(rest).next()?.0])) else {
        return Likeness::No;
    };
    let tag = tag.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    let is_id = matches!(tag.len(), 12 | 64) && tag.iter().all(u8::is_ascii_hexdigit);
    if pri >> 3 == DAEMON || is_id || tag.contains(&b'/') { Likeness::Likely } else { Likeness::Possible }
}

fn behind_stamp(rest: &[u8]) -> Option<&[u8]> {
    if let Some((stamp, rest)) = rest.split_first_chunk::<BSD_LEN>()
        && SaidTime::bsd(stamp).is_some()
    {
        return rest.strip_prefix(b" ");
    }
    token(rest).filter(|(stamp, _)| is_rfc3339(stamp, 6)).map(|(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_can_have_written() {
        for (frame, expected) in [
            ("<30>Nov 20 17:28:47 nginx:1.25/web/2a9052a5c36e[23223]: x", Likeness::Likely),
            ("<14>Nov 20 17:28:47 nginx:1.25/web/2a9052a5c36e[23223]: x", Likeness::Likely),
            ("<14>Nov 20 17:28:47 2a9052a5c36e[23223]: x", Likeness::Likely),
            ("<27>Nov 20 17:28:47 host my app[23223]: x", Likeness::Likely),
            ("<30>2026-11-20T17:28:47Z host web[23223]: x", Likeness::Likely),
            ("<134>1 2026-11-20T22:27:31.5Z host my app 12 my app - x", Likeness::Likely),
            ("<134>1 2026-11-20T22:27:31Z host web 2a90 - [docker@32473 name=\"web\"] x", Likeness::Likely),
            ("<14>Nov 20 17:28:47 web[23223]: x", Likeness::Possible),
            ("<14>Nov 20 17:28:47 host sshd[7]: x", Likeness::Possible),
            ("<13>Nov 20 17:28:47 host sshd[7]: x", Likeness::No),
            ("<14>Nov 20 17:28:47 host sshd: x", Likeness::No),
            ("<14>jobs[7]: one", Likeness::No),
            ("<30>Nov 20 17:28:47 web[23", Likeness::No),
            ("<134>1 2026-11-20T22:27:31Z host app 12 ID47 - x", Likeness::No),
            ("web[23223]: x", Likeness::No),
        ] {
            assert_eq!(likeness(frame.as_bytes()), expected, "{frame}");
        }
    }
}
