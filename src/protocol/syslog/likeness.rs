//! How far a frame looks like Docker's, for those who must know before it is read: where a message ends, and whether a CR at its
//! end is the container's. No template is asked, so that a tag of any template is seen.

use memchr::memmem;

use super::docker::{MAX_TAG_WITH_BLANKS, read_twice, tag_ends, token};
use crate::record::priority;
use crate::record::time::{BSD_LEN, is_rfc3339};

use super::stamp::SaidTime;

/// What our own lines say of a container, whatever its `sd-id`.
const CONTAINER: &[u8] = b"[docker@";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Likeness {
    /// Docker's driver does not write this.
    No,
    /// Docker's driver can have written this, and so can many others: `<14>Nov 20 22:28:47 host app[7]: text`.
    Possible,
    /// The facility is Docker's own default, or the tag names a container; or the line is a container's, from another relay.
    Likely,
}

/// How far `frame` looks like Docker's. Its beginning is enough, if the text begins in it.
pub fn likeness(frame: &[u8]) -> Likeness {
    /// Facility daemon: what Docker's `syslog-facility` is by default.
    const DAEMON: u8 = 3;
    let Some((pri, rest)) = priority(frame) else { return Likeness::No };
    if let Some(header) = rest.strip_prefix(b"1 ") {
        let start = &header[..header.len().min(MAX_TAG_WITH_BLANKS)];
        let is_containers = read_twice(header).is_some() || memmem::find(start, CONTAINER).is_some();
        return if is_containers { Likeness::Likely } else { Likeness::No };
    }
    // Standard output is info, standard error is err; there are no others.
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
