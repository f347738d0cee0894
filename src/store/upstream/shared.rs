//! [`UpstreamShared`]: the mirrors of an edge, and the reads that they or the parent answer.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dashmap::DashMap;
use parking_lot::Mutex;
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
    Batch, Failure, Filter, FilterMap, MessageLimit, Messages, Principal, ReadError, ReadLimit, Shortage,
    Start, StreamName,
};

/// How long a stream is followed after it was last read.
const FOLLOWED_FOR: Duration = Duration::from_secs(10);

/// Filters with wildcards, each with the number of its subscribers.
pub(super) type WildcardFilters = FilterMap<usize>;

/// The state that the tasks of an edge share.
pub(super) struct UpstreamShared {
    pub(super) parent: Parent,
    mirrors: DashMap<StreamName, Arc<Mirror>>,
    streams_max: usize,
    pub(super) room: Arc<MirrorRoom>,
    budget: Arc<Budget>,
    /// Filters with wildcards that somebody subscribes to, and a notification of their changes.
    pub(super) wildcards: Mutex<WildcardFilters>,
    pub(super) wildcards_changed: Notify,
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
        let (mirrors, changed, wall_ahead, wildcards, wildcards_changed) = Default::default();
        Self {
            parent,
            mirrors,
            streams_max,
            room: Arc::new(room),
            budget,
            wildcards,
            wildcards_changed,
            changed,
            wall_ahead,
            metrics,
        }
    }

    /// Adds a subscriber of the streams that a filter matches.
    pub(super) fn attach_all(&self, filter: &Filter) {
        let mut wildcards = self.wildcards.lock();
        match wildcards.get_mut(filter) {
            Some(subscribers) => *subscribers += 1,
            None => {
                wildcards.insert(filter.clone(), 1);
                self.wildcards_changed.notify_one();
            }
        }
    }

    /// Removes a subscriber.
    pub(super) fn detach_all(&self, filter: &Filter) {
        let mut wildcards = self.wildcards.lock();
        if let Some(subscribers) = wildcards.get_mut(filter) {
            *subscribers -= 1;
            if *subscribers == 0 {
                wildcards.remove(filter);
                self.wildcards_changed.notify_one();
            }
        }
    }

    /// Number of streams that may be followed.
    pub(super) fn streams_max(&self) -> usize {
        self.streams_max
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

    /// The mirror of a stream, which is followed from now on. `None`: there are too many. `note` says in the mirror who uses it, under
    /// the lock of the table, so that no sweep removes it in between.
    fn follow(&self, name: &StreamName, note: impl Fn(&Mirror)) -> Option<Arc<Mirror>> {
        if let Some(mirror) = self.mirrors.get(name) {
            note(&mirror);
            return Some(mirror.value().clone());
        }
        if self.mirrors.len() >= self.streams_max {
            return None;
        }
        let owner = self.budget.owner_in(name.tenant(), Principal::GATEWAY);
        let new = || Arc::new(Mirror::new(&owner, self.room.clone()));
        let mirror = {
            let entry = self.mirrors.entry(name.clone()).or_insert_with(new);
            note(&entry);
            entry.value().clone()
        };
        self.note_change();
        Some(mirror)
    }

    /// Adds a reader that may wait. Returns whether the stream is followed.
    pub(super) fn attach(&self, name: &StreamName) -> bool {
        self.follow(name, Mirror::attach).is_some()
    }

    /// Removes a reader.
    pub(super) fn detach(&self, name: &StreamName, now: SystemTime) {
        if let Some(mirror) = self.mirrors.get(name) {
            mirror.detach(now);
        }
        self.forget_missing(name);
    }

    /// Makes room at once for other streams than one that the parent does not have and nobody waits for.
    fn forget_missing(&self, name: &StreamName) {
        if self.mirrors.remove_if(name, |_, mirror| !mirror.is_used(SystemTime::UNIX_EPOCH)).is_some() {
            self.note_change();
        }
    }

    /// Called after streams have been added or removed.
    fn note_change(&self) {
        self.metrics.followed.set(self.mirrors.len() as u64);
        self.metrics.kept.set(self.room.bytes());
        self.changed.notify_one();
    }

    /// Stops to follow streams that nobody reads any more.
    pub(super) fn sweep(&self, now: SystemTime) {
        let before = self.mirrors.len();
        let since = now.checked_sub(FOLLOWED_FOR).unwrap_or(SystemTime::UNIX_EPOCH);
        self.mirrors.retain(|_, mirror| mirror.is_used(since));
        if self.mirrors.len() < before {
            self.note_change();
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
        let mirror = self.follow_for_read(name, now)?;
        let known = || Some(mirror.read(start, limit, self.moment(now))?.into_batch());
        match self.known_or_fetched(name, &mirror, start, now, known).await? {
            AnsweredBy::Mirror(batch) => Ok(batch),
            AnsweredBy::Parent(page) => {
                let lifetime = mirror.description().map(|stream| stream.lifetime).unwrap_or_default();
                Ok(page.batch(limit, lifetime.left(self.moment(now).wall)))
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
        let mirror = self.follow_for_read(name, now)?;
        let known = || Some(mirror.messages(start, limit, self.moment(now))?.into_messages());
        match self.known_or_fetched(name, &mirror, start, now, known).await? {
            AnsweredBy::Mirror(messages) => Ok(messages),
            AnsweredBy::Parent(page) => Ok(page.messages(limit)),
        }
    }

    fn follow_for_read(&self, name: &StreamName, now: SystemTime) -> Result<Arc<Mirror>, Failure> {
        let mirror = self.follow(name, |mirror| mirror.note_use(now));
        mirror.ok_or(Failure::OverBudget(Shortage::Passing))
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
        if let Some(FetchedPage { start: other, answer, for_asked }) = &*last
            && *for_asked >= asked
            && (*other == start || matches!(answer, Err(ReadError::Failed(_))))
        {
            return answer.clone().map(AnsweredBy::Parent);
        }
        let (own, sent) = (mirror.epoch(), Instant::now());
        let answer = self.parent.read(name, start, now).await.map(Arc::new);
        if let Err(ReadError::Missing(_)) = &answer {
            mirror.note_missing();
            self.forget_missing(name);
        }
        if let Ok(page) = &answer {
            if let Some(own) = own.filter(|_| !mirror.knows(page.next))
                // The tail had this epoch before the read, and has it after: the page is of the same log.
                && self.parent.describe(name).await.is_ok_and(|stream| stream.tail.epoch == own)
            {
                mirror.learn(page.next, own);
            }
            mirror.keep_page(start, page);
            self.metrics.kept.set(self.room.bytes());
        }
        // Who asks after the request was sent may know of a message that the page lacks; a failure is one for all who wait.
        let is_failure = matches!(answer, Err(ReadError::Failed(_)));
        let for_asked = if is_failure { Instant::now() } else { sent };
        // The page is held only while others wait for it.
        let is_awaited = mirror.fetchers() > 1;
        *last = is_awaited.then(|| FetchedPage { start, answer: answer.clone(), for_asked });
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
