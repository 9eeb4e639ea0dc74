//! Tasks of one kind each: the runtime has more than a kilobyte of code for each kind of future that it is given, and for each kind of
//! work that may block.

use std::any::Any;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::task::{JoinError, JoinHandle};

/// Work on a thread of its own: what it returns. It goes on when this is dropped.
pub struct Blocking<T> {
    work: JoinHandle<Box<dyn Any + Send>>,
    returns: PhantomData<fn() -> T>,
}

/// Runs a future beside the others.
pub fn spawn(future: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    let future: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(future);
    tokio::spawn(future)
}

/// Runs what may block the thread that it is on.
pub fn spawn_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Blocking<T> {
    let work: Box<dyn FnOnce() -> Box<dyn Any + Send> + Send> = Box::new(move || Box::new(work()));
    Blocking { work: tokio::task::spawn_blocking(work), returns: PhantomData }
}

impl<T: 'static> Future for Blocking<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let returned = ready!(Pin::new(&mut self.work).poll(cx));
        Poll::Ready(returned.map(|returned| *returned.downcast().expect("the work returns what it says")))
    }
}
