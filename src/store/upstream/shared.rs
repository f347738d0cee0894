//! [`UpstreamShared`]: the mirrors of an edge, and the reads that they or the parent answer.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dashmap::DashMap;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::answer::ParentPage;
use super::kept::MirrorRoom;
use super::mirror::{FetchedPage, Mirror};
use super::parent::Parent;
use crate::budget::Budget;
use crate::metrics::UpstreamMetrics;
use crate::store::entry::{ClockDifference, Moment};
use crate::stream::{
    Batch, Failure, Lifetime, MessageLimit, Messages, Principal, ReadError, ReadLimit, Shortage, Start,
    StreamName,
};

/// How long a stream is followed after it was last read.
const FOLLOWED_FOR: Duration = Duration::from_secs(10);

/// The state that the tasks of an edge share.
pub(super) struct UpstreamShared {
    pub(super) parent: Parent,
    mirrors: DashMap<StreamName, Arc<Mirror>>,
    streams_max: usize,
    pub(super) room: Arc<MirrorRoom>,
    budget: Arc<Budget>,
    /// Notified when streams have to be followed, or need not be any more.
    pub(super) changed: Notify,
    pub(super) wall_ahead: ClockDifference,
    pub(super) metrics: UpstreamMetrics,
}

impl UpstreamShared {
    pub(super) fn new(
        parent: Parent,
        streams_max: usize,
        room: MirrorRoom,
        budget: Arc<Budget>,
        metrics: UpstreamMetrics,
    ) -> Self {
        let (mirrors, changed, wall_ahead) = Default::default();
        Self { parent, mirrors, streams_max, room: Arc::new(room), budget, changed, wall_ahead, metrics }
    }

    /// The names of all streams that are followed.
    pub(super) fn names(&self) -> HashSet<StreamName> {
        self.mirrors.iter().map(|mirror| mirror.key().clone()).collect()
    }

    /// Number of streams that are followed.
    pub(super) fn len(&self) -> usize {
        self.mirrors.len()
    }

    /// The mirror of a stream that is followed.
    pub(super) fn mirror(&self, name: &StreamName) -> Option<Arc<Mirror>> {
        self.mirrors.get(name).map(|mirror| mirror.value().clone())
    }

    /// The mirror of a stream, which is followed from now on. `None`: there are too many.
    fn follow(&self, name: &StreamName, now: SystemTime) -> Option<Arc<Mirror>> {
        if let Some(mirror) = self.mirror(name) {
            mirror.note_use(now);
            return Some(mirror);
        }
        if self.mirrors.len() >= self.streams_max {
            return None;
        }
        let owner = self.budget.owner_in(name.tenant(), Principal::GATEWAY);
        let new = || Arc::new(Mirror::new(&owner, self.room.clone(), now));
        let mirror = self.mirrors.entry(name.clone()).or_insert_with(new).value().clone();
        self.metrics.followed.set(self.mirrors.len() as u64);
        self.changed.notify_one();
        Some(mirror)
    }

    /// Adds a reader that may wait. Returns whether the stream is followed.
    pub(super) fn attach(&self, name: &StreamName) -> bool {
        let mirror = self.follow(name, SystemTime::UNIX_EPOCH);
        mirror.inspect(|mirror| mirror.attach()).is_some()
    }

    /// Removes a reader.
    pub(super) fn detach(&self, name: &StreamName, now: SystemTime) {
        if let Some(mirror) = self.mirror(name) {
            mirror.detach(now);
        }
    }

    /// Stops to follow streams that nobody reads any more.
    pub(super) fn sweep(&self, now: SystemTime) {
        let before = self.mirrors.len();
        let since = now.checked_sub(FOLLOWED_FOR).unwrap_or(SystemTime::UNIX_EPOCH);
        self.mirrors.retain(|_, mirror| mirror.is_used(since));
        if self.mirrors.len() < before {
            self.metrics.followed.set(self.mirrors.len() as u64);
            self.metrics.kept.set(self.room.bytes());
            self.changed.notify_one();
        }
    }

    pub(super) fn moment(&self, now: SystemTime) -> Moment {
        Moment { now, wall: self.wall_ahead.convert(now) }
    }

    pub(super) async fn read(
        &self,
        name: &StreamName,
        start: Start,
        limit: ReadLimit,
        now: SystemTime,
    ) -> Result<Batch, ReadError> {
        let mirror = self.follow(name, now).ok_or(Failure::OverBudget(Shortage::Passing))?;
        let known = || Some(mirror.read(start, limit, self.moment(now))?.into_batch());
        match self.known_or_fetched(name, &mirror, start, now, known).await? {
            AnsweredBy::Mirror(batch) => Ok(batch),
            AnsweredBy::Parent(page) => {
                Ok(page.batch(mirror.description().and_then(|stream| match stream.lifetime {
                    Lifetime::Idle(idle) => Some(idle),
                    Lifetime::Until(end) => {
                        Some(end.duration_since(self.moment(now).wall).unwrap_or_default())
                    }
                    Lifetime::Unlimited => None,
                })))
            }
        }
    }

    pub(super) async fn messages(
        &self,
        name: &StreamName,
        start: Start,
        limit: MessageLimit,
        now: SystemTime,
    ) -> Result<Messages, ReadError> {
        let mirror = self.follow(name, now).ok_or(Failure::OverBudget(Shortage::Passing))?;
        let known = || Some(mirror.messages(start, limit, now)?.into_messages());
        match self.known_or_fetched(name, &mirror, start, now, known).await? {
            AnsweredBy::Mirror(messages) => Ok(messages),
            AnsweredBy::Parent(page) => Ok(page.messages(now)),
        }
    }

    /// What the mirror knows, or else what the parent answers.
    async fn known_or_fetched<T>(
        &self,
        name: &StreamName,
        mirror: &Mirror,
        start: Start,
        now: SystemTime,
        known: impl Fn() -> Option<T>,
    ) -> Result<AnsweredBy<T>, ReadError> {
        let hit = |answer| {
            self.metrics.reads_from_mirror.inc();
            AnsweredBy::Mirror(answer)
        };
        if let Some(answer) = known() {
            return Ok(hit(answer));
        }
        let asked = Instant::now();
        let _counted = mirror.count_fetcher();
        let mut last = mirror.fetch.lock().await;
        if let Some(answer) = known() {
            return Ok(hit(answer));
        }
        if let Some(FetchedPage { start: other, answer, at }) = &*last
            && *at >= asked
            && (*other == start || matches!(answer, Err(ReadError::Failed(_))))
        {
            return answer.clone().map(AnsweredBy::Parent);
        }
        let own = mirror.epoch();
        let answer = self.parent.read(name, start).await.map(Arc::new);
        if let Ok(page) = &answer {
            if let Some(own) = own.filter(|_| !mirror.knows(page.next))
                // The tail had this epoch before the read, and has it after: the page is of the same log.
                && self.parent.describe(name).await.is_ok_and(|stream| stream.tail.epoch == own)
            {
                mirror.learn(page.next, own);
            }
            mirror.keep_page(start, page, now);
            self.metrics.kept.set(self.room.bytes());
        }
        // The page is held only while others wait for it.
        let is_awaited = mirror.fetchers() > 1;
        *last = is_awaited.then(|| FetchedPage { start, answer: answer.clone(), at: Instant::now() });
        answer.map(AnsweredBy::Parent)
    }
}

/// Who answers a read.
enum AnsweredBy<T> {
    Mirror(T),
    Parent(Arc<ParentPage>),
}

impl fmt::Debug for UpstreamShared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamShared").field("parent", &self.parent).finish_non_exhaustive()
    }
}
