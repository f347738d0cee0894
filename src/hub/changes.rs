//! Changes of streams: first the store, then those who wait.
//!
//! A client may leave between the two. Its change is in the log by then, or will be, so that those who wait have to be
//! told of it all the same.

use std::sync::Arc;
use std::time::SystemTime;

use futures_util::FutureExt;

use super::live::Live;
use super::{AppendError, Appended, ChangeError, CreateError, Created, Missing, PublishError};
use crate::metrics::Metrics;
use crate::store::{Create, Store};
use crate::stream::{Append, StreamName};

/// What a change needs, so that it can go on without whoever asked for it.
pub(super) struct Changes {
    pub(super) store: Arc<dyn Store>,
    pub(super) live: Arc<Live>,
    pub(super) metrics: Arc<Metrics>,
}

/// Runs a change to its end, even if the future that this returns is dropped after it was polled once.
pub(super) async fn to_its_end<T: Send + 'static>(change: impl Future<Output = T> + Send + 'static) -> T {
    let mut change = Box::pin(change);
    // A store in memory is done at once.
    if let Some(outcome) = change.as_mut().now_or_never() {
        return outcome;
    }
    match tokio::spawn(change).await {
        Ok(outcome) => outcome,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
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
            self.live.begin(&name, created.epoch, created.tail.position, created.closed);
        }
        Ok(created)
    }

    /// Appends to the stream, which may be created for it.
    pub(super) async fn append(
        self,
        name: StreamName,
        append: Append,
        may_create: bool,
        now: SystemTime,
    ) -> Result<Appended, PublishError> {
        let mut appended = self.store.append(&name, &append, now).await;
        if may_create && matches!(appended, Err(AppendError::Missing(Missing::NotFound))) {
            let created = self.store.create(&name, Create::open(append.content_type.clone()), now).await?;
            if created.fresh {
                self.live.begin(&name, created.epoch, created.tail.position, created.closed);
            }
            appended = self.store.append(&name, &append, now).await;
        }
        let appended = appended?;
        if !appended.duplicate {
            self.metrics.messages_in(append.payload.messages(), append.payload.len());
            self.live.advance(&name, appended.epoch, appended.tail.position, appended.closed);
        }
        Ok(appended)
    }

    pub(super) async fn delete(self, name: StreamName, now: SystemTime) -> Result<(), ChangeError> {
        self.store.delete(&name, now).await?;
        self.live.end(&name);
        Ok(())
    }
}
