//! Connections that were left in good order and that the collector has not closed yet: what its kernel has acknowledged there,
//! its program may not have read. Our half is closed, and the other half is kept until it is known how they end, so that
//! lines are sent again only if a collector loses them, and not at each move and reload.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::spool::Position;

/// Connections of a forward that are kept; `descriptors` reserves as many. With one more, the lines of that one are sent again on
/// the next connection.
const MAX_HALF_CLOSED: usize = 16;

/// The half-closed connections of one forward, in the order of the spool. At a reload the forward hands them on to its successor.
#[derive(Clone)]
pub struct HalfClosed(Arc<Shared>);

struct Shared {
    connections: Mutex<VecDeque<Left>>,
    /// Told each time something is learnt of one of them.
    news: Arc<watch::Sender<()>>,
}

struct Left {
    /// Where in the spool what was sent on the connection ends.
    reaches: Position,
    /// Nobody follows the connection any more when this is dropped.
    fate: watch::Receiver<Fate>,
}

/// What is known of a connection that was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The collector has everything before this for good; `None`: nothing is known yet.
    Open(Option<Position>),
    /// The collector has read to the end.
    Read,
    /// The connection broke before that was known.
    Lost,
}

/// Lines that the collector has for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The stretch's beginning; `None`: the first line that is not retired.
    pub from: Option<Position>,
    pub to: Position,
}

/// The end at which the fate of one connection is told.
pub struct Teller {
    fate: watch::Sender<Fate>,
    news: Arc<watch::Sender<()>>,
}

impl Default for HalfClosed {
    fn default() -> Self {
        let (connections, news) = (Mutex::default(), Arc::new(watch::Sender::new(())));
        Self(Arc::new(Shared { connections, news }))
    }
}

impl HalfClosed {
    /// Takes in a connection on which was sent what lies before `reaches`. `None`: there are too many.
    pub fn keep(&self, reaches: Position) -> Option<Teller> {
        let mut connections = self.0.connections.lock();
        if connections.len() >= MAX_HALF_CLOSED {
            return None;
        }
        let (told, fate) = watch::channel(Fate::Open(None));
        connections.push_back(Left { reaches, fate });
        Some(Teller { fate: told, news: self.0.news.clone() })
    }

    /// What the collector has by now of what was sent on them. Those that have ended well are forgotten.
    pub fn settle(&self) -> Vec<Stretch> {
        let (mut stretches, mut from) = (Vec::new(), None);
        self.0.connections.lock().retain(|left| {
            let fate = *left.fate.borrow();
            let to = match fate {
                Fate::Open(to) => to,
                Fate::Read => Some(left.reaches),
                Fate::Lost => None,
            };
            stretches.extend(to.map(|to| Stretch { from, to }));
            let stays = fate != Fate::Read;
            if stays {
                from = Some(left.reaches);
            }
            stays
        });
        stretches
    }

    /// Where the lines end that were sent on them; `None`: there are none.
    pub fn reaches(&self) -> Option<Position> {
        self.0.connections.lock().back().map(|left| left.reaches)
    }

    pub fn count(&self) -> usize {
        self.0.connections.lock().len()
    }

    /// Whether what was sent on one of them has to be sent again.
    pub fn is_lost(&self) -> bool {
        self.0.connections.lock().iter().any(|left| *left.fate.borrow() == Fate::Lost)
    }

    /// Forgets all of them: what the collector is not known to have is sent again.
    pub fn forget(&self) {
        self.0.connections.lock().clear();
    }

    /// Wakes up each time something is learnt from now on.
    pub fn news(&self) -> watch::Receiver<()> {
        self.0.news.subscribe()
    }

    /// Ends when what was sent on one of them has to be sent again.
    pub async fn lost(self) {
        let mut news = self.news();
        while !self.is_lost() {
            if news.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Teller {
    pub fn tell(&self, fate: Fate) {
        self.fate.send_replace(fate);
        self.news.send_replace(());
    }

    /// Ends when nobody wants to know any more.
    pub async fn is_over(&self) {
        self.fate.closed().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: u64) -> Position {
        Position { segment: 1, offset: 0, line }
    }

    fn stretch(from: Option<u64>, to: u64) -> Stretch {
        Stretch { from: from.map(at), to: at(to) }
    }

    #[test]
    fn what_is_read_is_told_whichever_connection_ends_first() {
        let left = HalfClosed::default();
        let (first, second) = (left.keep(at(10)).unwrap(), left.keep(at(20)).unwrap());
        assert_eq!((left.settle(), left.reaches()), (vec![], Some(at(20))));
        first.tell(Fate::Open(Some(at(5))));
        second.tell(Fate::Open(Some(at(15))));
        assert_eq!(left.settle(), [stretch(None, 5), stretch(Some(10), 15)]);
        second.tell(Fate::Read);
        assert_eq!(left.settle(), [stretch(None, 5), stretch(Some(10), 20)]);
        assert_eq!(left.reaches(), Some(at(10)), "the next lines come behind a stretch that is read");
        first.tell(Fate::Read);
        assert_eq!((left.settle(), left.reaches()), (vec![stretch(None, 10)], None));
    }

    #[tokio::test]
    async fn a_connection_that_breaks_is_told() {
        let left = HalfClosed::default();
        let (first, second) = (left.keep(at(10)).unwrap(), left.keep(at(20)).unwrap());
        let lost = tokio::spawn(left.clone().lost());
        first.tell(Fate::Read);
        left.settle();
        assert!(!left.is_lost());
        second.tell(Fate::Lost);
        lost.await.unwrap();
        left.forget();
        second.is_over().await;
        assert_eq!((left.count(), left.is_lost()), (0, false));
    }

    #[test]
    fn there_are_not_many() {
        let left = HalfClosed::default();
        let tellers: Vec<_> = (0..MAX_HALF_CLOSED as u64).filter_map(|line| left.keep(at(line))).collect();
        assert!(tellers.len() == MAX_HALF_CLOSED && left.keep(at(99)).is_none());
    }
}
