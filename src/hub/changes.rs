//! Operations of the [`Hub`] that change streams and sessions. The store makes the change first; then the
//! waiters of the stream are notified.
//!
//! A client may disconnect between the two steps. Its change is in the log by then, or will be, so the
//! waiters must still be notified: [`run_to_completion`] moves the rest of such a change to a task of its
//! own.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use tokio::runtime::Handle;

use super::Hub;
use super::polled_origins::PolledOrigins;
use super::waiters::WaiterRegistry;
use crate::metrics::Metrics;
use crate::stream::{
    Append, AppendError, AppendType, Appended, ChangeError, ContentType, Create, CreateError, Created,
    Failure, Fork, InvalidMessages, Lifetime, Missing, Principal, Retention, SessionChange, Start, Store,
    StreamName, split,
};
use crate::traces::PublishSpan;

/// A request to create a stream, as parsed by a front.
#[derive(Debug, Clone, Default)]
pub struct Creation {
    /// The principal that creates the stream and is charged for it.
    pub principal: Principal,
    /// `None`: the content type of the source for a fork, otherwise `application/octet-stream`.
    pub content_type: Option<ContentType>,
    /// `None`: the lifetime of the source for a fork, otherwise unlimited.
    pub lifetime: Option<Lifetime>,
    /// `None`: the retention of the source for a fork, otherwise the default of the hub.
    pub retention: Option<Retention>,
    /// Closes the stream after the body.
    pub closed: bool,
    /// The initial messages.
    pub body: Bytes,
    /// Source, offset and sub-offset of a fork. `None`: the stream is not a fork.
    pub fork: Option<(StreamName, Option<Start>, u64)>,
}

/// Why a stream was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreationError {
    /// The initial messages are invalid.
    #[error(transparent)]
    Messages(#[from] InvalidMessages),
    /// The store rejected the stream.
    #[error(transparent)]
    Store(#[from] CreateError),
    /// The stream would have an origin, and there are too many with one.
    #[error("there are already {max} streams that are filled from an origin (limit {limit})")]
    TooManyOrigins {
        /// The limit.
        max: usize,
        /// Its name.
        limit: &'static str,
    },
}

/// An append whose rate is admitted, and which the store has not seen.
pub struct PendingAppend(Box<Append>);

impl Hub {
    /// Creates a stream, or succeeds if it exists with the same configuration.
    pub async fn create(&self, name: &StreamName, creation: Creation) -> Result<Created, CreationError> {
        self.admit_rate(name, creation.principal, creation.body.len()).map_err(CreateError::Failed)?;
        if let Some(origin) = self.origins.of(name)
            && Box::pin(self.refuse_if_polled(origin)).await.is_err()
        {
            return Err(CreateError::ExistsDifferently.into());
        }
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
            writers: None,
        };
        Ok(run_to_completion(self.change_context().create(name.clone(), create, now)).await?)
    }

    /// Content type of the source, or of the fork itself if the fork exists and its source no longer does.
    async fn inherited_content_type(
        &self,
        fork: &StreamName,
        source: &StreamName,
    ) -> Result<ContentType, CreateError> {
        let now = self.clock.now();
        let missing = match self.store.describe(source, now).await {
            Ok(source) => return Ok(source.content_type),
            Err(ChangeError::Missing(Missing::NotFound)) => CreateError::SourceNotFound,
            Err(ChangeError::Missing(Missing::Deleted)) => CreateError::SourceDeleted,
            Err(ChangeError::Failed(failure)) => return Err(failure.into()),
        };
        self.store.describe(fork, now).await.map(|fork| fork.content_type).map_err(|_| missing)
    }

    /// Appends messages and notifies the waiters of the stream. On return, the messages are as durable as the
    /// store promises.
    pub async fn publish(
        &self,
        name: &StreamName,
        append: impl Into<Box<Append>>,
    ) -> Result<Appended, AppendError> {
        // Boxed, as it moves through several futures.
        match self.publish_at_once(name, append.into()) {
            Ok(appended) => appended,
            Err(pending) => self.publish_pending(name, pending).await,
        }
    }

    /// Appends messages and notifies the waiters of the stream like [`publish`](Self::publish), if the store has nothing to wait for.
    /// Otherwise returns the append for [`publish_pending`](Self::publish_pending).
    pub fn publish_at_once(
        &self,
        name: &StreamName,
        mut append: Box<Append>,
    ) -> Result<Result<Appended, AppendError>, PendingAppend> {
        let bytes = match &append.content_type {
            AppendType::OfStream { body, .. } => body.len(),
            AppendType::Undeclared | AppendType::Declared(_) => append.payload.len(),
        };
        if let Err(failure) = self.admit_rate(name, append.principal, bytes) {
            return Ok(Err(failure.into()));
        }
        if let Some(create) = &mut append.create {
            create.retention = self.default_retention;
        }
        if self.traces.is_some() || self.origins.of(name).is_some() {
            return Err(PendingAppend(append));
        }
        let appended = self.store.append_at_once(name, append, self.clock.now()).map_err(PendingAppend)?;
        Ok(appended.inspect(|appended| note_appended(&self.metrics, &self.waiters, name, appended)))
    }

    /// Appends messages and notifies the waiters of the stream, although the store may have to wait for something.
    pub async fn publish_pending(
        &self,
        name: &StreamName,
        PendingAppend(mut append): PendingAppend,
    ) -> Result<Appended, AppendError> {
        if let Some(origin) = self.origins.of(name) {
            Box::pin(self.refuse_if_polled(origin)).await?;
        }
        let traced = self.begin_trace(name, &mut append);
        let now = self.clock.now();
        run_to_completion(self.change_context().append(name.clone(), append, now, traced)).await
    }

    /// Begins the span of a publish. `None`: it is not traced.
    pub(super) fn begin_trace(&self, name: &StreamName, append: &mut Append) -> Option<Box<PublishSpan>> {
        let traces = self.traces.as_ref()?;
        let context = append.trace.take();
        let context = context.as_ref().map(|context| (&*context.parent, &*context.state));
        traces.publish(name.as_str(), context).map(Box::new)
    }

    pub(super) fn admit_rate(
        &self,
        name: &StreamName,
        principal: Principal,
        bytes: usize,
    ) -> Result<(), Failure> {
        self.budget.take_append(name, principal, bytes).map_err(Failure::TooFast)
    }

    pub(super) fn change_context(&self) -> ChangeContext {
        let (store, waiters, metrics) = (self.store.clone(), self.waiters.clone(), self.metrics.clone());
        ChangeContext { store, waiters, metrics, origins: self.origins.clone() }
    }

    /// Deletes a stream and wakes its waiters, whose reads then end.
    pub async fn delete(&self, name: &StreamName) -> Result<(), ChangeError> {
        run_to_completion(self.change_context().delete(name.clone(), self.clock.now())).await
    }

    /// Stores a change of a session. On return, it is as durable as the store promises.
    pub async fn change_session(&self, change: SessionChange) -> Result<(), Failure> {
        run_to_completion(self.change_context().session(change)).await
    }
}

/// How often a change follows a session that other gateways keep taking.
const ATTEMPTS: usize = 5;

/// Makes an attempt again if another gateway has taken the session meanwhile. An attempt that fails for this reason has changed nothing.
pub(super) async fn repeat_superseded<T, E, F>(attempt: impl Fn() -> F) -> Result<T, E>
where
    E: From<Failure> + PartialEq,
    F: Future<Output = Result<T, E>>,
{
    for _ in 1..ATTEMPTS {
        match attempt().await {
            Err(error) if error == Failure::Superseded.into() => {}
            outcome => return outcome,
        }
    }
    attempt().await
}

/// The parts of the hub that a change uses, owned so that the change can outlive the request.
pub(super) struct ChangeContext {
    pub(super) store: Arc<dyn Store>,
    pub(super) waiters: Arc<WaiterRegistry>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) origins: Arc<PolledOrigins>,
}

/// Runs `change` to completion, even if the returned future is dropped after its first poll: the rest then
/// runs in a task of its own.
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

/// Counts an append that is in the log, and notifies the waiters of its stream. If they are few, they have it when this returns.
fn note_appended(metrics: &Metrics, waiters: &WaiterRegistry, name: &StreamName, appended: &Appended) {
    let (epoch, tail, closed) = (appended.epoch, appended.tail.position, appended.closed);
    metrics.messages_in(name.tenant_prefix(), appended.messages, appended.bytes);
    if appended.created {
        waiters.begin(name, epoch, tail, closed);
    }
    if !appended.created && !appended.duplicate {
        waiters.advance(name, epoch, tail, closed);
    }
}

/// Ends the span of a publish, before readers can get the messages.
#[cold]
fn end_trace(traced: PublishSpan, name: &StreamName, appended: &Result<Appended, AppendError>) {
    match appended {
        Ok(appended) if appended.duplicate => traced.repeated(),
        Ok(appended) => traced.stored(name.as_str(), appended.epoch.0, appended.tail.position.0),
        Err(error) => traced.failed(error.to_string()),
    }
}

/// A change whose caller still waits. Dropping it spawns the change as a task.
struct Unfinished<F: Future<Output: Send + 'static> + Send + 'static>(Option<Pin<Box<F>>>);

impl<F: Future<Output: Send + 'static> + Send + 'static> Drop for Unfinished<F> {
    fn drop(&mut self) {
        // Without a runtime the process is ending, and the waiters end with it.
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
            self.metrics.messages_in(name.tenant_prefix(), messages, bytes);
            self.waiters.begin(&name, created.epoch, created.tail.position, created.closed);
        }
        Ok(created)
    }

    pub(super) async fn append(
        self,
        name: StreamName,
        append: Box<Append>,
        now: SystemTime,
        traced: Option<Box<PublishSpan>>,
    ) -> Result<Appended, AppendError> {
        let appended = self.store.append(&name, append, now).await;
        if let Some(traced) = traced {
            end_trace(*traced, &name, &appended);
        }
        let appended = appended?;
        note_appended(&self.metrics, &self.waiters, &name, &appended);
        Ok(appended)
    }

    pub(super) async fn session(self, change: SessionChange) -> Result<(), Failure> {
        self.store.change_session(change).await
    }

    pub(super) async fn delete(self, name: StreamName, now: SystemTime) -> Result<(), ChangeError> {
        let origin = self.origins.of(&name);
        self.store.delete(&name, now).await?;
        self.waiters.end(&name);
        if let Some(origin) = origin {
            self.end_origin(&origin).await;
        }
        Ok(())
    }
}
