//! Connections that were left in good order and that the collector has not closed yet. The collector's program may not have read all
//! bytes that its kernel has acknowledged. Our half of such a connection is closed, and the other half is kept until the collector's
//! end is known. So lines are sent again only if a collector loses them, and not at each move and reload.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::spool::Position;

/// The limit of connections that a forward keeps; `descriptors` reserves as many. The lines of a further one are sent again on the
/// next connection.
const MAX_HALF_CLOSED: usize = 16;

/// The half-closed connections of one forward, in the order of the spool. At a reload the forward hands them on to its successor.
#[derive(Clone)]
pub struct HalfClosed(Arc<Shared>);

struct Shared {
    connections: Mutex<VecDeque<Left>>,
    /// Notified each time the fate of a connection changes.
    news: Arc<watch::Sender<()>>,
}

struct Left {
    /// The position in the spool behind the last line that was sent on the connection.
    reaches: Position,
    /// Dropping the receiver ends the task that follows the connection.
    fate: watch::Receiver<Fate>,
}

/// The fate of a connection that was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The collector has everything before this for good; `None`: nothing is known yet.
    Open(Option<Position>),
    /// The collector has read to the end.
    Read,
    /// The connection broke before the collector had read to the end.
    Lost,
}

/// Lines that the collector has for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The stretch's beginning; `None`: the first line that is not retired.
    pub from: Option<Position>,
    pub to: Position,
}

/// The sender half for the fate of one connection.
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
    /// Takes in a connection on which the lines before `reaches` were sent. `None`: there are too many.
    pub fn keep(&self, reaches: Position) -> Option<Teller> {
        let mut connections = self.0.connections.lock();
        if connections.len() >= MAX_HALF_CLOSED {
            return None;
        }
        let (told, fate) = watch::channel(Fate::Open(None));
        connections.push_back(Left { reaches, fate });
        Some(Teller { fate: told, news: self.0.news.clone() })
    }

    /// The lines that the collector has by now. Connections that were read to the end are forgotten.
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

    /// The position behind the last line that was sent on these connections; `None`: there are none.
    pub fn reaches(&self) -> Option<Position> {
        self.0.connections.lock().back().map(|left| left.reaches)
    }

    pub fn count(&self) -> usize {
        self.0.connections.lock().len()
    }

    /// Whether the lines of one connection have to be sent again.
    pub fn is_lost(&self) -> bool {
        self.0.connections.lock().iter().any(|left| *left.fate.borrow() == Fate::Lost)
    }

    /// Forgets all connections. Lines that the collector is not known to have are sent again.
    pub fn forget(&self) {
        self.0.connections.lock().clear();
    }

    /// Notified of each change of a fate from now on.
    pub fn news(&self) -> watch::Receiver<()> {
        self.0.news.subscribe()
    }

    /// Waits until the lines of one connection have to be sent again.
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

    /// Waits until the receiver is gone.
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
