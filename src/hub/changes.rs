//! ChangeContext of streams and sessions: first the store makes them, then waiters are notified.
//!
//! A client may leave between the two. Its change is in the log by then, or will be, so the waiters are notified all the same:
//! what is left of a change goes on in a task of its own.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::SystemTime;

use bytes::Bytes;
use tokio::runtime::Handle;

use super::Hub;
use super::waiters::WaiterRegistry;
use crate::metrics::Metrics;
use crate::stream::{
    Append, AppendError, Appended, ChangeError, ContentType, Create, CreateError, Created, Failure, Fork,
    InvalidMessages, Lifetime, Missing, Principal, Retention, SessionChange, Start, Store, StreamName, split,
};

/// A stream to be created, as a front understood it.
#[derive(Debug, Clone, Default)]
pub struct Creation {
    /// Who creates it.
    pub principal: Principal,
    /// `None`: as the source of a fork, else `application/octet-stream`.
    pub content_type: Option<ContentType>,
    /// `None`: unlimited, or as the source of a fork.
    pub lifetime: Option<Lifetime>,
    /// `None`: all is kept, or as the source of a fork.
    pub retention: Option<Retention>,
    /// Whether nothing may follow the body.
    pub closed: bool,
    /// The first messages.
    pub body: Bytes,
    /// Source, offset and sub-offset of a fork.
    pub fork: Option<(StreamName, Option<Start>, u64)>,
}

/// Why a stream was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreationError {
    /// The first messages are wrong.
    #[error(transparent)]
    Messages(#[from] InvalidMessages),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] CreateError),
}

impl Hub {
    /// Creates a stream, or finds it as it would have been created.
    pub async fn create(&self, name: &StreamName, creation: Creation) -> Result<Created, CreationError> {
        let now = self.clock.now();
        let content_type = match (&creation.content_type, &creation.fork) {
            (Some(content_type), _) => content_type.clone(),
            (None, None) => ContentType::octet_stream(),
            (None, Some((source, ..))) => self.inherited_content_type(name, source).await?,
        };
        let payload = split(creation.body, &content_type, self.limits.json_depth_max)?;
        let create = Create {
            principal: creation.principal,
            content_type,
            lifetime: creation.lifetime,
            retention: creation.retention,
            default_retention: self.default_retention,
            closed: creation.closed,
            payload,
            fork: creation.fork.map(|(source, offset, sub_offset)| Fork { source, offset, sub_offset }),
        };
        Ok(run_to_completion(self.change_context().create(name.clone(), create, now)).await?)
    }

    /// The type of the source, or of the fork itself if that exists already and its source does not any more.
    async fn inherited_content_type(
        &self,
        fork: &StreamName,
        source: &StreamName,
    ) -> Result<ContentType, CreateError> {
        let now = self.clock.now();
        let missing = match self.store.describe(source, now).await {
            Ok(source) => return Ok(source.content_type),
            Err(Missing::NotFound) => CreateError::SourceNotFound,
            Err(Missing::Deleted) => CreateError::SourceDeleted,
        };
        self.store.describe(fork, now).await.map(|fork| fork.content_type).map_err(|_| missing)
    }

    /// Appends and wakes. When it returns, the messages are as durable as the store promises.
    pub async fn publish(&self, name: &StreamName, mut append: Append) -> Result<Appended, AppendError> {
        if let Some(create) = &mut append.create {
            create.retention = self.default_retention;
        }
        run_to_completion(self.change_context().append(name.clone(), append, self.clock.now())).await
    }

    fn change_context(&self) -> ChangeContext {
        let (store, waiters, metrics) = (self.store.clone(), self.waiters.clone(), self.metrics.clone());
        ChangeContext { store, waiters, metrics }
    }

    /// Deletes a stream and wakes its waiters, which then end.
    pub async fn delete(&self, name: &StreamName) -> Result<(), ChangeError> {
        run_to_completion(self.change_context().delete(name.clone(), self.clock.now())).await
    }

    /// Stores a change of a session. When it returns, it is as durable as the store promises.
    pub async fn change_session(&self, change: SessionChange) -> Result<(), Failure> {
        run_to_completion(self.change_context().session(change)).await
    }
}

/// What a change needs, so that it can go on without whoever asked for it.
pub(super) struct ChangeContext {
    pub(super) store: Arc<dyn Store>,
    pub(super) waiters: Arc<WaiterRegistry>,
    pub(super) metrics: Arc<Metrics>,
}

/// Runs a change to its end, even if the future that this returns is dropped after it was polled once: then what is left
/// of it goes on in a task of its own.
pub(super) async fn run_to_completion<T: Send + 'static>(
    change: impl Future<Output = T> + Send + 'static,
) -> T {
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

impl ChangeContext {
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
