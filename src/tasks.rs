//! Spawns tasks as boxed futures and boxed closures. tokio's code is more than a kilobyte for each type of future, and for each
//! type of blocking work.

use std::any::Any;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::task::{JoinError, JoinHandle};

/// The result of work on another thread, as a future. The work continues if this is dropped.
pub struct Blocking<T> {
    work: JoinHandle<Box<dyn Any + Send>>,
    returns: PhantomData<fn() -> T>,
}

/// Spawns a future on the runtime.
pub fn spawn(future: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    let future: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(future);
    tokio::spawn(future)
}

/// Runs work that may block, on a thread for such work.
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
