//! Where one listener's frames go: translated, gathered into one batch for each read, handed to the spool.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use crate::metrics::ShapeMetrics;
use crate::spool::{Batch, Inlet, Origin, Receipt};
use crate::syslog::{Frame, Shape, Translator, UnixMicros};

/// One for each connection or thread: cloning is cheap, an idle one holds no buffer.
#[derive(Clone)]
pub struct Intake {
    way: Way,
}

#[derive(Clone)]
enum Way {
    /// Boxed: it would make the future of every connection larger by several times its size.
    Spool(Box<ToSpool>),
    /// Frames as they are, for tests of the framing and the sockets.
    #[cfg(test)]
    Test(ToTest),
}

#[derive(Clone)]
struct ToSpool {
    translator: Translator,
    /// The translator to use from the next read on, once there is another one.
    translators: watch::Receiver<Translator>,
    spool: Inlet,
    shapes: ShapeMetrics,
    /// When the current read came in: one look at the clock for a whole batch.
    received: UnixMicros,
    batch: Batch,
}

impl Intake {
    pub fn new(mut translators: watch::Receiver<Translator>, spool: Inlet, shapes: ShapeMetrics) -> Self {
        let translator = translators.borrow_and_update().clone();
        let received = UnixMicros(0);
        let to_spool = ToSpool { translator, translators, spool, shapes, received, batch: Batch::new() };
        Self { way: Way::Spool(Box::new(to_spool)) }
    }

    /// Call once for each read, before its frames.
    pub fn begin(&mut self) {
        match &mut self.way {
            Way::Spool(to) => {
                to.received = now();
                // An error: nobody is left who could change it.
                if to.translators.has_changed().unwrap_or(false) {
                    to.translator = to.translators.borrow_and_update().clone();
                }
            }
            #[cfg(test)]
            Way::Test(_) => {}
        }
    }

    /// One complete frame, its framing removed (a trailing LF may be there), and whether it was cut.
    pub fn frame(&mut self, bytes: &[u8], cut: bool) {
        match &mut self.way {
            Way::Spool(to) => to.translate(bytes, cut),
            #[cfg(test)]
            Way::Test(to) => to.pending.push((bytes.to_vec(), cut)),
        }
    }

    /// Hands the batch over; waits for room in the spool's queue, but never for long. An empty batch is nothing.
    pub async fn flush(&mut self) {
        match &mut self.way {
            Way::Spool(to) => to.spool.send(std::mem::take(&mut to.batch)).await,
            #[cfg(test)]
            Way::Test(to) => to.flush(),
        }
    }

    /// The batch so far, to be delivered.
    pub fn take(&mut self) -> Batch {
        match &mut self.way {
            Way::Spool(to) => std::mem::take(&mut to.batch),
            #[cfg(test)]
            Way::Test(_) => unreachable!("RELP is tested with a spool"),
        }
    }

    /// Hands over a batch whose sender waits until the spool has it; see [`Inlet::deliver`].
    pub async fn deliver(&self, batch: Batch, origin: Option<Origin>) -> Receipt {
        match &self.way {
            Way::Spool(to) => to.spool.deliver(batch, origin).await,
            #[cfg(test)]
            Way::Test(_) => unreachable!("RELP is tested with a spool"),
        }
    }

    /// The same for a thread of its own.
    pub fn flush_blocking(&mut self) {
        match &mut self.way {
            Way::Spool(to) => to.spool.send_blocking(std::mem::take(&mut to.batch)),
            #[cfg(test)]
            Way::Test(to) => to.flush(),
        }
    }
}

impl ToSpool {
    fn translate(&mut self, bytes: &[u8], cut: bool) {
        let Self { translator, batch, shapes, received, .. } = self;
        let shape = batch.push(|out| translator.translate(&Frame { bytes, cut, received: *received }, out));
        let counter = match shape {
            Shape::Docker => &shapes.docker,
            Shape::Rfc5424 => &shapes.rfc5424,
            Shape::Rfc3164 => &shapes.rfc3164,
            Shape::Unknown => &shapes.unknown,
        };
        counter.inc();
    }
}

/// The clock: messages are stamped with when they were read.
pub fn now() -> UnixMicros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMicros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
pub use test::{TakenFrames, ToTest};

#[cfg(test)]
mod test {
    use std::sync::{Arc, Mutex, PoisonError};

    use super::{Intake, Way};

    /// What was flushed, each frame with whether it was cut.
    pub type TakenFrames = Arc<Mutex<Vec<(Vec<u8>, bool)>>>;

    #[derive(Clone)]
    pub struct ToTest {
        pub(super) pending: Vec<(Vec<u8>, bool)>,
        taken: TakenFrames,
    }

    impl ToTest {
        pub(super) fn flush(&mut self) {
            self.taken.lock().unwrap_or_else(PoisonError::into_inner).append(&mut self.pending);
        }
    }

    impl Intake {
        /// An intake that keeps what it was handed, and where to look for it.
        pub fn for_tests() -> (Self, TakenFrames) {
            let taken = TakenFrames::default();
            let to_test = ToTest { pending: Vec::new(), taken: taken.clone() };
            (Self { way: Way::Test(to_test) }, taken)
        }
    }
}
