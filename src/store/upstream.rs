//! The store of an edge: a gateway that follows the streams of another one, its parent, as far as they are read here.
//!
//! Streams, offsets and epochs are those of the parent. Appends, creations and deletions are forwarded; reads are answered from a
//! mirror of the stream, or else by the parent. The wire is the ordinary one, so the parent may be an edge itself. What belongs to
//! this gateway alone, sessions and its own streams, is in a local store.
//!
//! ```text
//! this file -> shared (reads) -> mirror (state of one stream) -> kept (its messages in memory)
//!                             -> parent (requests) -> access (tokens), answer (parses responses)
//!              follow (subscriptions to the parent) -> mirror
//!              discover (streams of wildcards) -> parent, shared
//! ```

mod access;
mod answer;
mod discover;
mod follow;
mod kept;
mod mirror;
mod options;
mod parent;
mod shared;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::budget::Budget;
use crate::http_client::{Destination, Trust};
use crate::metrics::UpstreamMetrics;
use crate::stream::{
    Append, AppendError, AppendType, Appended, Batch, ChangeError, ContentType, Create, CreateError, Created,
    Description, Epoch, Failure, Filter, Message, MessageLimit, Messages, Missing, NewsListener,
    PAGE_STREAMS_MAX, ReadError, ReadLimit, SessionChange, SessionNames, SessionPage, Snapshot, Start, Store,
    StreamName, StreamPage, Work, WriterStates, split_tenant,
};
use access::UpstreamAccess;
use kept::MirrorRoom;
pub use options::{UpstreamError, UpstreamOptions};
use parent::Parent;
use shared::UpstreamShared;

/// Interval of the requests that tell whether the parent is reachable, and at which the token is read again.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Kept messages take at most the memory budget divided by this.
const KEPT_DIVISOR: u64 = 4;

/// What the names of the gateway's own streams begin with.
const OWN_STREAMS: &str = "$auth/";

/// Epoch of all attachments: mirrors are attached by name.
const ATTACHED: Epoch = Epoch(0);

/// The store of an edge.
pub struct Upstream {
    shared: Arc<UpstreamShared>,
    /// Sessions and the gateway's own streams.
    local: Arc<dyn Store>,
    runtime: Handle,
    /// The tasks that follow the parent, which end with the store.
    tasks: Mutex<JoinSet<()>>,
}

impl Upstream {
    /// An edge that connects to its parent when something is read, or at the first check. Its tasks run on `runtime`.
    pub fn new(
        options: &UpstreamOptions,
        local: Arc<dyn Store>,
        budget: Arc<Budget>,
        metrics: UpstreamMetrics,
        runtime: Handle,
    ) -> Result<Self, UpstreamError> {
        let trust = if options.url.starts_with("https://") {
            Trust::system(options.ca.as_deref())?
        } else {
            Trust::nothing()?
        };
        let destination = Destination::of_operator(&options.url, &trust)?;
        let access = UpstreamAccess::open(options)?;
        let parent = Parent::new(destination, access, options.response_bytes_max, metrics.clone());
        let bytes_max = options.bytes_max.min(budget.max() / KEPT_DIVISOR);
        let room = MirrorRoom::new(bytes_max, options.stream_bytes_max);
        let shared = UpstreamShared::new(parent, options.streams_max, room, budget, metrics);
        Ok(Self { shared: Arc::new(shared), local, runtime, tasks: Mutex::default() })
    }

    fn is_local(name: &StreamName) -> bool {
        name.local().starts_with(OWN_STREAMS)
    }

    async fn forward_append(
        &self,
        name: &StreamName,
        mut append: Box<Append>,
        now: SystemTime,
    ) -> Result<Appended, AppendError> {
        let session = append.session.take();
        let of_stream = self.content_type_for(name, &append).await?;
        if let Some(content_type) = &of_stream {
            append.split_for(content_type)?;
        }
        let appended = self.shared.parent.append(name, &append, of_stream.as_ref()).await?;
        if let Some(mirror) = self.shared.mirror(name) {
            let payload = if appended.duplicate { &Default::default() } else { &append.payload };
            mirror.push_own(payload, appended.tail, appended.closed, now);
        }
        if let Some(change) = session.filter(|_| !appended.duplicate) {
            self.local.change_session(change).await?;
        }
        Ok(appended)
    }

    /// The content type of the stream, for an append that takes any. `None`: the append declares its own.
    async fn content_type_for(
        &self,
        name: &StreamName,
        append: &Append,
    ) -> Result<Option<ContentType>, AppendError> {
        let AppendType::OfStream { .. } = append.content_type else { return Ok(None) };
        if let Some(description) = self.shared.mirror(name).and_then(|mirror| mirror.description()) {
            return Ok(Some(description.content_type));
        }
        match (self.shared.parent.describe(name).await, append.creation()) {
            (Ok(description), _) => Ok(Some(description.content_type)),
            (Err(ChangeError::Missing(Missing::NotFound)), Some(create)) => Ok(Some(create.content_type)),
            (Err(ChangeError::Missing(missing)), _) => Err(missing.into()),
            (Err(ChangeError::Failed(failure)), _) => Err(failure.into()),
        }
    }

    /// What the parent says of a stream, or what is known while it is away.
    async fn describe_stream(&self, name: &StreamName) -> Result<Description, ChangeError> {
        match self.shared.parent.describe(name).await {
            Err(ChangeError::Failed(Failure::Unreachable)) => {
                let known = self.shared.mirror(name).and_then(|mirror| mirror.description());
                known.ok_or(Failure::Unreachable.into())
            }
            described => described,
        }
    }

    /// A page of the streams that are followed, for a parent that does not tell names.
    fn followed_page(&self, prefix: &str, after: Option<&StreamName>) -> StreamPage {
        let selects =
            |name: &StreamName| name.as_str().starts_with(prefix) && after.is_none_or(|after| name > after);
        let mut names: Vec<_> = self.shared.names().into_iter().filter(selects).collect();
        names.sort_unstable();
        names.truncate(PAGE_STREAMS_MAX);
        let next = names.last().filter(|_| names.len() == PAGE_STREAMS_MAX).cloned();
        let tail = |name: StreamName| Some((self.shared.mirror(&name)?.description()?.tail, name));
        let streams = names.into_iter().filter_map(tail).map(|(tail, name)| (name, tail));
        StreamPage { streams: streams.collect(), next }
    }
}

/// Tells whether the parent is reachable, and reads the tokens again. Runs until it is aborted.
async fn check(shared: Arc<UpstreamShared>) {
    loop {
        shared.parent.probe().await;
        sleep(CHECK_INTERVAL).await;
        let refreshed = shared.clone();
        let _panicked = tokio::task::spawn_blocking(move || refreshed.parent.access.refresh()).await;
    }
}

impl Store for Upstream {
    fn create<'a>(
        &'a self,
        name: &'a StreamName,
        create: Create,
        now: SystemTime,
    ) -> Work<'a, Result<Created, CreateError>> {
        if Self::is_local(name) {
            return self.local.create(name, create, now);
        }
        Box::pin(async move { self.shared.parent.create(name, &create).await })
    }

    fn append<'a>(
        &'a self,
        name: &'a StreamName,
        append: Box<Append>,
        now: SystemTime,
    ) -> Work<'a, Result<Appended, AppendError>> {
        if Self::is_local(name) {
            return self.local.append(name, append, now);
        }
        Box::pin(self.forward_append(name, append, now))
    }

    fn read<'a>(
        &'a self,
        name: &'a StreamName,
        start: Start,
        limit: ReadLimit,
        now: SystemTime,
    ) -> Work<'a, Result<Batch, ReadError>> {
        if Self::is_local(name) {
            return self.local.read(name, start, limit, now);
        }
        Box::pin(self.shared.read(name, start, limit, now))
    }

    fn messages<'a>(
        &'a self,
        name: &'a StreamName,
        start: Start,
        limit: MessageLimit,
        now: SystemTime,
    ) -> Work<'a, Result<Messages, ReadError>> {
        if Self::is_local(name) {
            return self.local.messages(name, start, limit, now);
        }
        Box::pin(self.shared.messages(name, start, limit, now))
    }

    fn peek<'a>(
        &'a self,
        name: &'a StreamName,
        start: Start,
        limit: MessageLimit,
        now: SystemTime,
    ) -> Work<'a, Result<Messages, ReadError>> {
        if Self::is_local(name) {
            return self.local.peek(name, start, limit, now);
        }
        Box::pin(self.shared.messages(name, start, limit, now))
    }

    /// `None`: the wire does not tell which message is retained.
    fn retained<'a>(
        &'a self,
        name: &'a StreamName,
        now: SystemTime,
    ) -> Work<'a, Result<Option<Message>, ReadError>> {
        if Self::is_local(name) {
            return self.local.retained(name, now);
        }
        Box::pin(std::future::ready(Ok(None)))
    }

    fn clear_retained<'a>(
        &'a self,
        name: &'a StreamName,
        now: SystemTime,
    ) -> Work<'a, Result<(), ChangeError>> {
        if Self::is_local(name) {
            return self.local.clear_retained(name, now);
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn describe<'a>(
        &'a self,
        name: &'a StreamName,
        now: SystemTime,
    ) -> Work<'a, Result<Description, ChangeError>> {
        if Self::is_local(name) {
            return self.local.describe(name, now);
        }
        Box::pin(self.describe_stream(name))
    }

    /// Without what the parent remembers of writers and forks.
    fn snapshot<'a>(
        &'a self,
        name: &'a StreamName,
        now: SystemTime,
    ) -> Work<'a, Result<Snapshot, ReadError>> {
        if Self::is_local(name) {
            return self.local.snapshot(name, now);
        }
        Box::pin(async move {
            let description = self.describe_stream(name).await.map_err(|error| match error {
                ChangeError::Missing(missing) => ReadError::from(missing),
                ChangeError::Failed(failure) => failure.into(),
            })?;
            Ok(Snapshot {
                description,
                branch: None,
                depth: 0,
                has_forks: false,
                writers: WriterStates::default(),
            })
        })
    }

    fn delete<'a>(&'a self, name: &'a StreamName, now: SystemTime) -> Work<'a, Result<(), ChangeError>> {
        if Self::is_local(name) {
            return self.local.delete(name, now);
        }
        Box::pin(async move {
            self.shared.parent.delete(name).await?;
            if let Some(mirror) = self.shared.mirror(name) {
                mirror.end();
            }
            Ok(())
        })
    }

    fn change_session(&self, change: SessionChange) -> Work<'_, Result<(), Failure>> {
        self.local.change_session(change)
    }

    fn session_page<'a>(
        &'a self,
        names: SessionNames<'a>,
        after: Option<&'a str>,
    ) -> Work<'a, Result<SessionPage, Failure>> {
        self.local.session_page(names, after)
    }

    fn outlives_process(&self) -> bool {
        self.local.outlives_process()
    }

    fn attach(&self, name: &StreamName) -> Option<Epoch> {
        if Self::is_local(name) {
            return self.local.attach(name);
        }
        self.shared.attach(name).then_some(ATTACHED)
    }

    fn detach(&self, name: &StreamName, epoch: Epoch, now: SystemTime) {
        if Self::is_local(name) {
            return self.local.detach(name, epoch, now);
        }
        self.shared.detach(name, now);
    }

    fn attach_all(&self, filter: &Filter) {
        self.shared.attach_all(filter);
    }

    fn detach_all(&self, filter: &Filter) {
        self.shared.detach_all(filter);
    }

    fn follow_wall(&self, now: SystemTime, wall: SystemTime) {
        self.shared.wall_ahead.follow(now, wall);
        self.local.follow_wall(now, wall);
    }

    fn sweep(&self, now: SystemTime) -> Work<'_, Result<Vec<StreamName>, Failure>> {
        self.shared.sweep(now);
        self.local.sweep(now)
    }

    fn page<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a StreamName>,
        now: SystemTime,
    ) -> Work<'a, Result<StreamPage, Failure>> {
        if split_tenant(prefix).1.starts_with(OWN_STREAMS) {
            return self.local.page(prefix, after, now);
        }
        Box::pin(async move {
            let page = self.shared.parent.names(prefix, after).await?;
            Ok(page.unwrap_or_else(|| self.followed_page(prefix, after)))
        })
    }

    fn streams(&self) -> usize {
        self.shared.len()
    }

    fn tell(&self, listener: Arc<dyn NewsListener>) {
        let mut tasks = self.tasks.lock();
        tasks.spawn_on(follow::follow(self.shared.clone(), listener.clone()), &self.runtime);
        tasks.spawn_on(discover::discover(self.shared.clone(), listener.clone()), &self.runtime);
        tasks.spawn_on(check(self.shared.clone()), &self.runtime);
        self.local.tell(listener);
    }

    fn is_reachable(&self) -> bool {
        self.shared.parent.is_reachable()
    }

    fn has_failed(&self) -> bool {
        self.local.has_failed()
    }

    fn is_damaged(&self) -> bool {
        self.local.is_damaged()
    }

    fn close<'a>(&'a self) -> Work<'a, ()> {
        self.local.close()
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Upstream").field(&self.shared).finish()
    }
}
