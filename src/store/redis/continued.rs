//! [`Continued`]: a future that is always completed.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

/// A future that goes on as a task if it is dropped before it completes. So the task that began it can wait for a part of it without the
/// cost of another task.
pub(super) struct Continued {
    /// `None`: it has completed.
    work: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    runtime: Handle,
}

impl Continued {
    /// `work` goes on as a task of `runtime` if need be.
    pub(super) fn new(runtime: Handle, work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { work: Some(Box::pin(work)), runtime }
    }
}

impl Future for Continued {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(work) = &mut self.work else { return Poll::Ready(()) };
        let polled = work.as_mut().poll(context);
        if polled.is_ready() {
            self.work = None;
        }
        polled
    }
}

impl Drop for Continued {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            self.runtime.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Notify;
    use tokio::time::{Duration, timeout};

    use super::*;

    /// Work that waits for the first to be notified, and then notifies the second.
    fn work(begun: &Arc<Notify>, done: &Arc<Notify>) -> Continued {
        let (begun, done) = (begun.clone(), done.clone());
        Continued::new(Handle::current(), async move {
            begun.notified().await;
            done.notify_one();
        })
    }

    #[tokio::test]
    async fn work_that_is_dropped_goes_on() {
        let (begin, done) = <(Arc<Notify>, Arc<Notify>)>::default();
        let mut dropped = work(&begin, &done);
        assert!(timeout(Duration::ZERO, &mut dropped).await.is_err());
        drop(dropped);
        begin.notify_one();
        done.notified().await;

        let mut completed = work(&begin, &done);
        begin.notify_one();
        (&mut completed).await;
        done.notified().await;
        assert!(completed.work.is_none(), "nothing is left to go on with");
    }
}
