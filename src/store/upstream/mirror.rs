//! [`Mirror`]: what an edge knows of one stream of its parent: its tail, its settings, and the messages that were read or that
//! arrived, with the parent's offsets.
//!
//! A mirror is a cache. It answers a read only if it has every message from the offset on and the offset is certainly one of the
//! parent's present log; anything else is for the parent to decide. So a gap, a lost tail or a new epoch is told by the parent
//! itself, and forgetting everything is always correct.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use super::answer::ParentPage;
use super::kept::{FRESH, KeptMessages, KeptRecord, MirrorRoom};
use crate::budget::Owner;
use crate::store::entry::Moment;
use crate::store::log::{LogSlice, Record, messages_of, messages_within};
use crate::store::view::{MessagesView, View};
use crate::stream::{
    Description, Encoding, Epoch, EpochHistory, MessageLimit, Offset, Payload, Position, ReadError,
    ReadLimit, Start,
};

/// The mirror of one stream.
#[derive(Debug)]
pub(super) struct Mirror {
    state: Mutex<MirrorState>,
    /// Held while the parent is asked for messages that the mirror lacks, so that readers at one offset ask once.
    pub(super) fetch: AsyncMutex<Option<FetchedPage>>,
    /// Readers that hold `fetch` or wait for it.
    fetchers: AtomicUsize,
}

/// The last answer of the parent to a read that the mirror could not answer.
#[derive(Debug, Clone)]
pub(super) struct FetchedPage {
    pub(super) start: Start,
    pub(super) answer: Result<Arc<ParentPage>, ReadError>,
    /// Readers that have asked by then may be given the answer.
    pub(super) for_asked: Instant,
}

/// Counts a reader until it is dropped.
pub(super) struct FetcherGuard<'a>(&'a AtomicUsize);

impl Drop for FetcherGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether a mirror follows its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Following {
    /// Not yet: the parent has not been asked for the tail since the subscription began.
    Pending,
    /// Every message arrives.
    Live,
    /// The stream does not exist, or the parent does not let this gateway read it.
    Not,
}

#[derive(Debug)]
struct MirrorState {
    following: Following,
    /// Counts how often everything was forgotten. What was asked of the parent before that does not count.
    generation: u64,
    /// The generation for which the tail was or is asked for.
    asked: Option<u64>,
    /// Readers that wait or may wait.
    readers: usize,
    /// When the stream was last read here.
    used: SystemTime,
    tail: Option<KnownTail>,
    /// The earliest position of the parent's log, and when it was told.
    earliest: Option<(Position, Instant)>,
    description: Option<Description>,
    kept: KeptMessages,
}

/// The tail of the parent's log as far as it is known here.
#[derive(Debug)]
struct KnownTail {
    /// Epochs of the offsets that are certainly those of the parent's log.
    epochs: EpochHistory,
    position: Position,
    closed: bool,
}

/// A move of the tail, for the readers of the stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct TailNews {
    pub(super) epoch: Epoch,
    pub(super) tail: Position,
    pub(super) closed: bool,
}

impl Mirror {
    /// A mirror that knows nothing. Its messages are charged to `owner`.
    pub(super) fn new(owner: &Arc<Owner>, room: Arc<MirrorRoom>) -> Self {
        let state = MirrorState {
            following: Following::Pending,
            generation: 0,
            asked: None,
            readers: 0,
            used: SystemTime::UNIX_EPOCH,
            tail: None,
            earliest: None,
            description: None,
            kept: KeptMessages::new(owner, room),
        };
        Self { state: Mutex::new(state), fetch: AsyncMutex::default(), fetchers: AtomicUsize::new(0) }
    }

    pub(super) fn attach(&self) {
        self.state.lock().readers += 1;
    }

    pub(super) fn detach(&self, now: SystemTime) {
        let mut state = self.state.lock();
        (state.readers, state.used) = (state.readers.saturating_sub(1), now);
    }

    pub(super) fn note_use(&self, now: SystemTime) {
        let mut state = self.state.lock();
        state.used = state.used.max(now);
    }

    /// Notes that the parent does not have the stream, unless it is followed: then the subscription tells it in time.
    pub(super) fn note_missing(&self) {
        let mut state = self.state.lock();
        if state.following == Following::Pending {
            state.following = Following::Not;
        }
    }

    /// Whether anybody has read the stream since `since`, or waits. A stream that does not exist is followed only for waiters.
    pub(super) fn is_used(&self, since: SystemTime) -> bool {
        let state = self.state.lock();
        state.readers > 0 || (state.used > since && state.following != Following::Not)
    }

    /// Counts a reader that locks `fetch`, until the guard is dropped.
    pub(super) fn count_fetcher(&self) -> FetcherGuard<'_> {
        self.fetchers.fetch_add(1, Ordering::Relaxed);
        FetcherGuard(&self.fetchers)
    }

    /// Number of readers that hold `fetch` or wait for it.
    pub(super) fn fetchers(&self) -> usize {
        self.fetchers.load(Ordering::Relaxed)
    }

    /// Whether the tail has to be asked for.
    pub(super) fn is_pending(&self) -> bool {
        self.state.lock().following != Following::Live
    }

    /// Whether the caller has to ask for the tail and to call [`begin`](Self::begin) with the returned generation. `None`: the tail is
    /// known, or another task asks for it.
    pub(super) fn ask_tail(&self) -> Option<u64> {
        let mut state = self.state.lock();
        let generation = state.generation;
        let asks = state.following != Following::Live && state.asked != Some(generation);
        asks.then(|| *state.asked.insert(generation))
    }

    /// Whether nothing was forgotten since.
    pub(super) fn is_of(&self, generation: u64) -> bool {
        self.state.lock().generation == generation
    }

    /// Follows the stream from now on: the subscription has a position in it, and `description` was read after that. `None`: it was
    /// read too early.
    pub(super) fn begin(&self, description: Description, generation: u64) -> Option<TailNews> {
        let mut state = self.state.lock();
        if state.generation != generation {
            return None;
        }
        state.move_tail(description.tail, description.closed);
        state.description = Some(description);
        state.following = Following::Live;
        state.news()
    }

    /// Forgets everything, since messages may have been missed, until [`begin`](Self::begin).
    pub(super) fn forget(&self) {
        let mut state = self.state.lock();
        state.forget();
        state.following = Following::Pending;
    }

    /// Forgets everything: there is nothing to follow.
    pub(super) fn end(&self) {
        let mut state = self.state.lock();
        state.forget();
        state.following = Following::Not;
    }

    /// Adds a message that has arrived. Nothing lies between it and the message before it that has arrived, if there was one.
    pub(super) fn push(&self, payload: Payload, next: Offset, at: SystemTime) -> Option<TailNews> {
        let mut state = self.state.lock();
        let start = Position(next.position.0.saturating_sub(payload.positions()));
        if let Some(tail) = &mut state.tail
            && next.epoch > tail.epochs.own()
            && start == tail.position
        {
            // The parent goes on in a new epoch behind the last message, after a restart for example.
            tail.epochs = tail.epochs.run(start, next.epoch);
        }
        let before = state.tail.as_ref().map(|tail| tail.position);
        state.move_tail(next, false);
        // A message without bytes takes a position of which the message behind it does not know.
        if state.following == Following::Live && (before == Some(start) || state.kept.ends_at(start)) {
            let is_merged = state.encoding() == Some(Encoding::Text);
            state.insert(Record { start, ..Record::of(payload, None, at) }, is_merged);
        }
        state.news()
    }

    /// Adds messages that this gateway has appended, and that end at `next`.
    pub(super) fn push_own(&self, payload: &Payload, next: Offset, closed: bool, at: SystemTime) {
        let mut state = self.state.lock();
        if state.tail.is_none() || state.following != Following::Live {
            return;
        }
        let start = Position(next.position.0.saturating_sub(payload.positions()));
        let is_same_epoch = state.tail.as_ref().is_some_and(|tail| tail.epochs.own() == next.epoch);
        // A text that ends inside a character is cut by the parent when it is read.
        let is_whole =
            state.encoding() != Some(Encoding::Text) || std::str::from_utf8(payload.bytes()).is_ok();
        state.move_tail(next, closed);
        if is_same_epoch && is_whole {
            state.insert(Record { start, ..Record::of(payload.clone(), None, at) }, false);
        }
    }

    /// Closes the stream.
    pub(super) fn close(&self) -> Option<TailNews> {
        let mut state = self.state.lock();
        state.tail.as_mut()?.closed = true;
        state.news()
    }

    /// The epoch of the tail, if the stream is followed.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        let state = self.state.lock();
        let tail = state.tail.as_ref().filter(|_| state.following == Following::Live)?;
        Some(tail.epochs.own())
    }

    /// Whether the offset is certainly one of the parent's log.
    pub(super) fn knows(&self, offset: Offset) -> bool {
        self.state.lock().tail.as_ref().is_some_and(|tail| tail.epochs.position_of(offset).is_ok())
    }

    /// Learns an offset of an earlier epoch of the log whose tail has the epoch `own`.
    pub(super) fn learn(&self, offset: Offset, own: Epoch) {
        if let Some(tail) = &mut self.state.lock().tail
            && tail.epochs.own() == own
            && offset.epoch < own
        {
            let known = tail.epochs.ancestors().iter().copied().filter(|(epoch, _)| *epoch != offset.epoch);
            let mut ancestors: Vec<_> = known.chain([(offset.epoch, offset.position)]).collect();
            ancestors.sort_unstable();
            if ancestors.is_sorted_by_key(|(_, end)| *end) {
                tail.epochs = EpochHistory::of(ancestors, own);
            }
        }
    }

    /// Keeps messages that the parent was asked for by a read from `start`.
    pub(super) fn keep_page(&self, start: Start, page: &ParentPage) {
        let mut state = self.state.lock();
        let knows = |tail: &KnownTail| {
            tail.epochs.position_of(page.next).is_ok() && page.next.position <= tail.position
        };
        if !page.is_exact() || state.following != Following::Live || !state.tail.as_ref().is_some_and(knows) {
            return;
        }
        if start == Start::Earliest {
            state.earliest = Some((page.from, Instant::now()));
        }
        for record in &page.records {
            state.insert(record.clone(), false);
        }
    }

    /// The description as it was when the mirror began, with the present tail.
    pub(super) fn description(&self) -> Option<Description> {
        let state = self.state.lock();
        let (tail, description) = (state.tail.as_ref()?, state.description.clone()?);
        let offset = tail.epochs.offset_at(tail.position);
        Some(Description { tail: offset, closed: tail.closed, ..description })
    }

    /// Reads from `start` on. `None`: the parent has to be asked.
    pub(super) fn read(&self, start: Start, limit: ReadLimit, at: Moment) -> Option<View<Bytes>> {
        let state = self.state.lock();
        let from = state.locate(start, at)?;
        let tail = state.tail.as_ref()?;
        let description = state.description.as_ref()?;
        Some(View {
            content_type: description.content_type.clone(),
            epoch_history: tail.epochs.clone(),
            from,
            slice: LogSlice::of(state.kept.from(from).map(|kept| &kept.record), from, limit.bytes_max),
            tail: tail.position,
            closed: tail.closed,
            lives_for: description.lifetime.left(at.wall),
        })
    }

    /// Reads single messages from `start` on. `None`: the parent has to be asked.
    pub(super) fn messages(
        &self,
        start: Start,
        limit: MessageLimit,
        at: Moment,
    ) -> Option<MessagesView<Bytes>> {
        let state = self.state.lock();
        let from = state.locate(start, at)?;
        let tail = state.tail.as_ref()?;
        // The parent knows where each append of a merged record ends.
        if state.kept.from(from).next().is_some_and(|kept| kept.is_merged) {
            return None;
        }
        let single = state.kept.from(from).take_while(|kept| !kept.is_merged).map(|kept| &kept.record);
        let (messages, next) = messages_within(messages_of(single, from), from, limit);
        Some(MessagesView {
            content_type: state.description.as_ref()?.content_type.clone(),
            epoch_history: tail.epochs.clone(),
            messages,
            next,
            tail: tail.position,
            closed: tail.closed,
        })
    }
}

impl MirrorState {
    fn encoding(&self) -> Option<Encoding> {
        self.description.as_ref().map(|description| description.content_type.encoding())
    }

    fn news(&self) -> Option<TailNews> {
        let tail = self.tail.as_ref()?;
        Some(TailNews { epoch: tail.epochs.own(), tail: tail.position, closed: tail.closed })
    }

    /// Moves the tail to an offset that the parent has returned. An offset of a later epoch forgets all others: whether they still
    /// are offsets of the log is not known.
    fn move_tail(&mut self, to: Offset, closed: bool) {
        match &mut self.tail {
            Some(tail) if to.epoch < tail.epochs.own() => {}
            Some(tail) if to.epoch == tail.epochs.own() => {
                tail.position = tail.position.max(to.position);
                tail.closed |= closed;
            }
            _ => {
                self.kept.clear();
                self.earliest = None;
                let epochs = EpochHistory::new(to.epoch);
                self.tail = Some(KnownTail { epochs, position: to.position, closed });
            }
        }
    }

    fn forget(&mut self) {
        self.generation += 1;
        self.kept.clear();
        (self.tail, self.earliest, self.description) = (None, None, None);
    }

    /// The position of `start`, if the mirror has the next message, or it is the tail.
    fn locate(&self, start: Start, at: Moment) -> Option<Position> {
        let tail = self.tail.as_ref().filter(|_| self.following == Following::Live)?;
        let position = match start {
            Start::Tail => tail.position,
            Start::At(offset) => tail.epochs.position_of(offset).ok()?,
            Start::Earliest => self.earliest.filter(|(_, told)| told.elapsed() < FRESH)?.0,
        };
        let description = self.description.as_ref()?;
        let is_expired = description.lifetime.left(at.wall).is_some_and(|left| left.is_zero());
        let has_next = || {
            let next = self.kept.from(position).next();
            next.is_some_and(|next| !may_be_trimmed(next, position, tail.position, description, at.now))
        };
        let is_known = position == tail.position || position < tail.position && has_next();
        (is_known && !is_expired).then_some(position)
    }

    /// Keeps messages, and forgets those that the parent's retention by number has trimmed.
    fn insert(&mut self, record: Record<Bytes>, is_merged: bool) {
        self.kept.insert(record, is_merged);
        let (Some(description), Some(tail)) = (&self.description, &self.tail) else { return };
        if let Some(max) = description.retention.messages_max
            && description.content_type.is_json()
        {
            self.kept.trim(Position(tail.position.0.saturating_sub(max)));
        }
    }
}

/// Whether the parent's retention may have trimmed the messages at `position`, which are in `kept`. What cannot be computed, since
/// messages in between are not kept or their boundaries or times are not known, has to be fresh.
fn may_be_trimmed(
    kept: &KeptRecord,
    position: Position,
    tail: Position,
    stream: &Description,
    now: SystemTime,
) -> bool {
    let exceeds = |count: u64, max: Option<u64>| max.is_some_and(|max| count > max);
    let retention = &stream.retention;
    let is_too_old = |max| now.duration_since(kept.record.at).is_ok_and(|age| age > max);
    let (is_over, is_computed) = if stream.content_type.is_json() {
        // Positions are values.
        (exceeds(tail.since(position), retention.messages_max), retention.bytes_max.is_none())
    } else {
        // Positions are bytes. An append is trimmed as a whole.
        (exceeds(tail.since(kept.record.start), retention.bytes_max), retention.messages_max.is_none())
    };
    let has_to_be_fresh = !is_computed || retention.age_max.is_some();
    is_over || retention.age_max.is_some_and(is_too_old) || has_to_be_fresh && !kept.is_fresh()
}
