//! What was acknowledged on connections that were ended in good order, and of which nothing said that it was read: the collector
//! did not close its side. It grows old as on a connection that stands, so that what was learnt survives a move and a reload.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::spool::Position;

/// Places that are remembered. Beyond it, lines are old when later ones are.
const MAX_MARKS: usize = 4096;

/// One forward's, handed on to the forward that takes its place at a reload.
#[derive(Clone, Debug, Default)]
pub struct Acknowledged(Arc<Mutex<VecDeque<Mark>>>);

/// Everything before `position` is old from `old_at` on. Ascending in both.
#[derive(Clone, Copy, Debug)]
struct Mark {
    position: Position,
    old_at: Instant,
}

impl Acknowledged {
    /// Lines of a connection that was left: up to where, and when they are old. What was known before stays.
    pub fn add(&self, marks: impl IntoIterator<Item = (Position, Instant)>) {
        let mut known = self.0.lock();
        for (position, old_at) in marks {
            if known.back().is_some_and(|last| last.position.line >= position.line || last.old_at > old_at) {
                continue;
            }
            if known.len() >= MAX_MARKS {
                known.pop_back();
            }
            known.push_back(Mark { position, old_at });
        }
    }

    /// Everything before it is old by now, and is forgotten.
    pub fn old(&self, now: Instant) -> Option<Position> {
        let mut known = self.0.lock();
        let count = known.iter().take_while(|mark| mark.old_at <= now).count();
        known.drain(..count).next_back().map(|mark| mark.position)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(line: u64) -> Position {
        Position { segment: 1, offset: 0, line }
    }

    #[test]
    fn lines_grow_old_from_when_they_were_first_acknowledged() {
        let (now, known) = (Instant::now(), Acknowledged::default());
        assert_eq!(known.old(now), None);
        known.add([(at(10), now + SECOND), (at(20), now + SECOND * 2)]);
        // The next connection was sent them again, and more.
        known.clone().add([(at(15), now + SECOND * 3), (at(20), now + SECOND * 4), (at(30), now + SECOND * 5)]);
        let old: Vec<_> = (0..=5).map(|seconds| known.old(now + SECOND * seconds).map(|old| old.line)).collect();
        assert_eq!(old, [None, Some(10), Some(20), None, None, Some(30)]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (now, known) = (Instant::now(), Acknowledged::default());
        let count = 3 * MAX_MARKS as u64;
        known.add((0..count).map(|line| (at(line), now + Duration::from_millis(line))));
        assert_eq!(known.0.lock().len(), MAX_MARKS);
        assert_eq!(known.old(now + SECOND * 3600), Some(at(count - 1)));
    }
}
