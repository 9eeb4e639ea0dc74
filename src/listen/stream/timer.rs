//! The time of a session's next call. A connection whose session waits for nothing has no timer.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::time::{Sleep, sleep_until};

#[derive(Default)]
pub struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Sets the time; `None`: no timer.
    pub fn set(&mut self, at: Option<Instant>) {
        let Some(at) = at.map(Into::into) else {
            self.0 = None;
            return;
        };
        match &mut self.0 {
            Some(sleep) if sleep.deadline() == at => {}
            Some(sleep) => sleep.as_mut().reset(at),
            none => *none = Some(Box::pin(sleep_until(at))),
        }
    }

    /// Ready once at the set time.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(sleep) = &mut self.0 else { return Poll::Pending };
        let polled = sleep.as_mut().poll(cx);
        if polled.is_ready() {
            self.0 = None;
        }
        polled
    }
}
