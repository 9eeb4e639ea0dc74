//! Lines that were in flight whenever sessions ended: one of them may be the cause. Before lines are sent for the third time, they
//! are cut into smaller frames, one at a time, down to a line. Suspects outlive the connections of a forward. Decides only.

use std::ops::Range;

/// How often the same lines may be the first without an answer at the end of a session.
const MAX_ENDINGS: u32 = 2;
/// The number of frames into which a frame is cut.
const PIECES: usize = 8;

#[derive(Debug, Default)]
pub struct Suspects(Option<Suspect>);

#[derive(Debug)]
struct Suspect {
    /// The session (one opening of the spool) that numbered the lines.
    session: u32,
    /// The lines of the frame that was the first without an answer.
    lines: Range<u64>,
    /// Sessions that ended since then.
    endings: u32,
    care: Care,
}

/// How carefully lines are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    None,
    /// At most this many lines in a frame, and one frame at a time.
    InFrames(usize),
    /// Each line in a frame without a number, one at a time.
    Alone,
}

impl Suspects {
    /// A session has ended, with these lines in the first frame without an answer.
    pub fn ended(&mut self, session: u32, lines: Range<u64>) {
        let count = (lines.end - lines.start) as usize;
        match &mut self.0 {
            Some(suspect) if suspect.session == session && suspect.lines.contains(&lines.start) => {
                suspect.endings += 1;
                if suspect.endings >= MAX_ENDINGS {
                    suspect.care = if count > 1 { Care::InFrames((count / PIECES).max(1)) } else { Care::Alone };
                }
            }
            _ => self.0 = Some(Suspect { session, lines, endings: 1, care: Care::None }),
        }
    }

    /// How the lines from this one on are to be sent.
    pub fn care(&self, session: u32, line: u64) -> Care {
        let suspect = self.0.as_ref().filter(|suspect| suspect.session == session && line < suspect.lines.end);
        suspect.map_or(Care::None, |suspect| suspect.care)
    }

    /// Everything before this line has its verdict.
    pub fn passed(&mut self, session: u32, line: u64) {
        if self.0.as_ref().is_some_and(|suspect| suspect.session != session || suspect.lines.end <= line) {
            self.0 = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_sent_a_third_time_as_it_was() {
        let mut suspects = Suspects::default();
        suspects.ended(1, 100..1500);
        assert_eq!(suspects.care(1, 100), Care::None);
        suspects.ended(1, 100..1500);
        assert_eq!((suspects.care(1, 100), suspects.care(1, 1499)), (Care::InFrames(175), Care::InFrames(175)));
        assert_eq!((suspects.care(1, 1500), suspects.care(2, 100)), (Care::None, Care::None));
        // Some of them arrive.
        suspects.ended(1, 275..450);
        assert_eq!(suspects.care(1, 275), Care::InFrames(21));
        for (lines, care) in [(275..296, Care::InFrames(2)), (275..277, Care::InFrames(1)), (276..277, Care::Alone)] {
            suspects.ended(1, lines);
            assert_eq!(suspects.care(1, 276), care);
        }
        suspects.passed(1, 277);
        assert_eq!(suspects.care(1, 277), Care::Alone, "there may be another one");
        suspects.passed(1, 1500);
        assert_eq!(suspects.care(1, 1400), Care::None);
    }

    #[test]
    fn sessions_that_end_elsewhere_are_no_reason() {
        let mut suspects = Suspects::default();
        for first in (0..10_000).step_by(1000) {
            suspects.ended(1, first..first + 1000);
            assert_eq!(suspects.care(1, first), Care::None);
        }
        suspects.ended(2, 9000..9100);
        assert_eq!(suspects.care(2, 9000), Care::None);
    }
}
