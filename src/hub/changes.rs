//! Changes of streams: first the store, then those who wait.
//!
//! A client may leave between the two. Its change is in the log by then, or will be, so that those who wait have to be
//! told of it all the same.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::SystemTime;

use tokio::runtime::Handle;

use super::waiter_registry::WaiterRegistry;
use crate::metrics::Metrics;
use crate::stream::{
    Append, AppendError, Appended, ChangeError, Create, CreateError, Created, Failure, SessionChange, Store,
    StreamName,
};

/// What a change needs, so that it can go on without whoever asked for it.
pub(super) struct Changes {
    pub(super) store: Arc<dyn Store>,
    pub(super) waiters: Arc<WaiterRegistry>,
    pub(super) metrics: Arc<Metrics>,
}

/// Runs a change to its end, even if the future that this returns is dropped after it was polled once: then what is left
/// of it goes on in a task of its own.
pub(super) async fn to_its_end<T: Send + 'static>(change: impl Future<Output = T> + Send + 'static) -> T {
    let mut unfinished = Unfinished(Some(Box::pin(change)));
    let outcome = match &mut unfinished.0 {
        Some(change) => change.await,
        None => std::future::pending().await,
    };
    unfinished.0 = None;
    outcome
}

/// A change that somebody waits for.
struct Unfinished<F: Future<Output: Send + 'static> + Send + 'static>(Option<Pin<Box<F>>>);

impl<F: Future<Output: Send + 'static> + Send + 'static> Drop for Unfinished<F> {
    fn drop(&mut self) {
        // Without a runtime everything ends, and with it those who wait.
        if let (Some(change), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(change);
        }
    }
}

impl Changes {
    pub(super) async fn create(
        self,
        name: StreamName,
        create: Create,
        now: SystemTime,
    ) -> Result<Created, CreateError> {
        let (messages, bytes) = (create.payload.messages(), create.payload.len());
        let created = self.store.create(&name, create, now).await?;
        if created.fresh {
            self.metrics.messages_in(messages, bytes);
            self.waiters.begin(&name, created.epoch, created.tail.position, created.closed);
        }
        Ok(created)
    }

    pub(super) async fn append(
        self,
        name: StreamName,
        append: Append,
        now: SystemTime,
    ) -> Result<Appended, AppendError> {
        let appended = self.store.append(&name, append, now).await?;
        self.metrics.messages_in(appended.messages, appended.bytes);
        if appended.created {
            self.waiters.begin(&name, appended.epoch, appended.tail.position, appended.closed);
        } else if !appended.duplicate {
            self.tell(&name, &appended).await;
        }
        Ok(appended)
    }

    /// Tells those who wait. If they are few, one of them has its turn first: it gains by it, while the publisher knows
    /// already what it said.
    async fn tell(&self, name: &StreamName, appended: &Appended) {
        let (epoch, tail, closed) = (appended.epoch, appended.tail.position, appended.closed);
        let mut told = false;
        poll_fn(|context| {
            if told || !self.waiters.advance(name, epoch, tail, closed, Some(context.waker())) {
                return Poll::Ready(());
            }
            told = true;
            Poll::Pending
        })
        .await;
    }

    pub(super) async fn session(self, change: SessionChange) -> Result<(), Failure> {
        self.store.change_session(change).await
    }

    pub(super) async fn delete(self, name: StreamName, now: SystemTime) -> Result<(), ChangeError> {
        self.store.delete(&name, now).await?;
        self.waiters.end(&name);
        Ok(())
    }
}
