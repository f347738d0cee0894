//! Live handles: the streams that somebody waits for or subscribes to by name, and all who subscribe by wildcards.
//!
//! A handle exists exactly as long as somebody has it, so it can not be evicted under a waiter and idle streams
//! cost nothing here. The order that loses no wake-up: a reader first takes the handle and then reads the store;
//! a publisher first appends to the store and then looks for the handle.
//!
//! Streams end and begin again, and the news of it come in any order. So all that is known of a tail goes with the
//! epoch in which it is true, and whether the store is attached to is asked of the store anew each time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use dashmap::DashMap;
use tokio::time::Instant;

use super::fan_out::fan_out;
use super::signal::{Signal, Waiter};
use super::subscriber::{Member, Members, Wildcards};
use super::{Batch, Shared};
use crate::clock::Clock;
use crate::store::Store;
use crate::stream::{Epoch, Filter, Offset, Position, StreamName};

/// What a waiter needs to know of a stream. The tail is that of the last append seen here.
#[derive(Debug, Default)]
struct TailState {
    /// The life that the tail is of; `None` before the first append.
    epoch: Option<Epoch>,
    tail: Position,
    closed: bool,
    gone: bool,
    /// When the append that moved the tail was answered by the store.
    moved_at: Option<Instant>,
    /// What the first of those who waited has read, from where, for the others: all that there is now.
    read: Option<(Offset, Shared)>,
}

/// What has become of a stream since somebody began to wait for it.
pub(super) struct Moved {
    /// When the last append came, if one has.
    pub(super) at: Option<Instant>,
    /// What is to be read, if somebody has read it already from the same place.
    pub(super) read: Option<Shared>,
    /// Whether this life of the stream is over: whoever waits on has to watch anew.
    pub(super) gone: bool,
}

/// The streams that somebody follows.
pub(super) struct Live {
    handles: DashMap<StreamName, Handle>,
    wildcards: Wildcards,
    store: Arc<dyn Store>,
    clock: Clock,
}

/// Changed only under the table's lock on its name, but for the spot.
struct Handle {
    spot: Arc<Spot>,
    subscribers: Members,
    /// The life of the stream whose TTL stands still.
    attached: Option<Epoch>,
}

/// Where those wait who watch a stream until it ends.
struct Spot {
    name: StreamName,
    signal: Signal<TailState>,
    /// Counted up under the table's lock only, so that no one can come while the last one's handle is taken out.
    watchers: AtomicUsize,
}

/// A stream being watched; dropping it gives the handle back.
pub(super) struct Watched<'a> {
    live: &'a Live,
    spot: Arc<Spot>,
    waiter: Waiter,
}

impl Live {
    pub(super) fn new(store: Arc<dyn Store>, clock: Clock) -> Self {
        Self { handles: DashMap::new(), wildcards: Wildcards::default(), store, clock }
    }

    /// Takes the handle of a stream. Read the store only afterwards.
    pub(super) fn watch(&self, name: &StreamName) -> Watched<'_> {
        let spot = self.take(name, |handle| {
            handle.spot.watchers.fetch_add(1, Ordering::Relaxed);
            handle.spot.clone()
        });
        Watched { live: self, spot, waiter: Waiter::default() }
    }

    /// From now on `member` is told of the streams that `filter` matches. Read the store only afterwards.
    pub(super) fn subscribe(&self, filter: &Filter, member: &Arc<Member>) {
        if let Some(name) = filter.exact() {
            self.take(name, |handle| handle.subscribers.insert(member));
        } else if filter.has_wildcard() {
            self.wildcards.insert(filter, member);
        }
    }

    /// Takes one `subscribe` back.
    pub(super) fn unsubscribe(&self, filter: &Filter, member: &Member) {
        if let Some(name) = filter.exact() {
            self.give_back(name, |handle| handle.subscribers.remove(member));
        } else if filter.has_wildcard() {
            self.wildcards.remove(filter, member);
        }
    }

    /// Tells that a stream has begun, after the store has it.
    pub(super) fn begin(&self, name: &StreamName, epoch: Epoch, tail: Position, closed: bool) {
        if let Some(mut handle) = self.handles.get_mut(name)
            && handle.attached != Some(epoch)
        {
            self.attach(name, &mut handle);
        }
        self.advance(name, epoch, tail, closed);
    }

    /// Moves a tail, after the append is in the store. Appends may overtake each other on the way here.
    pub(super) fn advance(&self, name: &StreamName, epoch: Epoch, tail: Position, closed: bool) {
        let followed = self.handles.get(name).map(|handle| (handle.spot.clone(), handle.subscribers.clone()));
        if let Some((spot, subscribers)) = followed {
            fan_out(spot.signal.change(|state| state.advance(epoch, tail, closed)));
            subscribers.mark(name);
        }
        self.wildcards.mark(name);
    }

    /// Tells all who wait that the stream is no more. Whoever comes later waits for another one of that name;
    /// those who subscribe do so already.
    pub(super) fn end(&self, name: &StreamName) {
        let mut followed = None;
        let released = self.handles.remove_if_mut(name, |_, handle| {
            let spot = std::mem::replace(&mut handle.spot, Spot::of(name));
            followed = Some((spot, handle.subscribers.clone()));
            if !handle.is_idle() {
                self.attach(name, handle);
            }
            handle.is_idle()
        });
        self.detach(name, released.and_then(|(_, handle)| handle.attached));
        if let Some((spot, subscribers)) = followed {
            fan_out(spot.signal.change(|state| state.gone = true));
            subscribers.mark(name);
        }
        self.wildcards.mark(name);
    }

    /// How many streams are followed by name, and how many tasks sleep on them.
    pub(super) fn count(&self) -> (usize, usize) {
        let waiting = self.handles.iter().map(|handle| handle.spot.signal.waiting()).sum();
        (self.handles.len(), waiting)
    }

    /// How many filters there are, each counted for each of its subscribers.
    pub(super) fn subscriptions(&self) -> usize {
        let exact: usize = self.handles.iter().map(|handle| handle.subscribers.len()).sum();
        exact + self.wildcards.len()
    }

    /// Counts somebody in under the lock, or the last one to leave could take the handle out meanwhile.
    fn take<T>(&self, name: &StreamName, count_in: impl FnOnce(&mut Handle) -> T) -> T {
        let mut handle = self.handles.entry(name.clone()).or_insert_with(|| Handle::of(name));
        if handle.attached.is_none() {
            self.attach(name, &mut handle);
        }
        count_in(&mut handle)
    }

    /// Counts somebody out; the last one takes the handle away.
    fn give_back(&self, name: &StreamName, count_out: impl FnOnce(&mut Handle)) {
        let released = self.handles.remove_if_mut(name, |_, handle| {
            count_out(handle);
            handle.is_idle()
        });
        self.detach(name, released.and_then(|(_, handle)| handle.attached));
    }

    /// Lets the TTL of the stream's present life stand still. Detaching comes last, or it could end in between.
    fn attach(&self, name: &StreamName, handle: &mut Handle) {
        let before = std::mem::replace(&mut handle.attached, self.store.attach(name));
        self.detach(name, before);
    }

    fn detach(&self, name: &StreamName, epoch: Option<Epoch>) {
        if let Some(epoch) = epoch {
            self.store.detach(name, epoch, self.clock.now());
        }
    }
}

impl Handle {
    fn of(name: &StreamName) -> Self {
        Self { spot: Spot::of(name), subscribers: Members::default(), attached: None }
    }

    fn is_idle(&self) -> bool {
        self.spot.watchers.load(Ordering::Relaxed) == 0 && self.subscribers.is_empty()
    }
}

impl Spot {
    fn of(name: &StreamName) -> Arc<Self> {
        Arc::new(Self { name: name.clone(), signal: Signal::default(), watchers: AtomicUsize::new(0) })
    }
}

impl TailState {
    /// News of an earlier life than the one known are too late to matter.
    fn advance(&mut self, epoch: Epoch, tail: Position, closed: bool) {
        if self.epoch > Some(epoch) {
            return;
        }
        if self.epoch < Some(epoch) {
            *self = Self { epoch: Some(epoch), gone: self.gone, ..Self::default() };
        }
        self.tail = self.tail.max(tail);
        self.closed |= closed;
        self.read = None;
        self.moved_at = Some(Instant::now());
    }

    /// Whether a read of the life `epoch` up to `tail` would bring something else now.
    fn is_beyond(&self, epoch: Epoch, tail: Position) -> bool {
        let later_here = self.epoch == Some(epoch) && (self.tail > tail || self.closed);
        later_here || self.epoch > Some(epoch) || self.gone
    }
}

impl Watched<'_> {
    /// Its name.
    pub(super) fn stream(&self) -> &StreamName {
        &self.spot.name
    }

    /// Waits until there may be something behind `tail` in the life `epoch` of the log, or the stream is closed or
    /// gone: then it is time to read again from `next`.
    pub(super) fn poll_moved(
        &mut self,
        context: &mut Context<'_>,
        next: Offset,
        epoch: Epoch,
        tail: Position,
    ) -> Poll<Moved> {
        self.spot.signal.poll_until(&mut self.waiter, context, |state| {
            let read = state.read.as_ref().filter(|(from, _)| *from == next && !state.gone);
            state.is_beyond(epoch, tail).then(|| Moved {
                at: state.moved_at,
                read: read.map(|(_, read)| read.clone()),
                gone: state.gone,
            })
        })
    }

    /// Lets others have what was read from `from`, if others wait for the stream and if it is no more than `bytes_max`.
    pub(super) fn share(&self, from: Offset, batch: Batch, bytes_max: usize) -> Shared {
        let (is_whole, len) = (batch.up_to_date && batch.lives_for.is_none(), batch.len());
        let batch = Shared::from(batch);
        if is_whole && len <= bytes_max && self.spot.watchers.load(Ordering::Relaxed) > 1 {
            self.spot.signal.note(|state| {
                let is_all = state.epoch == Some(batch.epoch)
                    && state.tail == batch.tail
                    && state.closed == batch.closed;
                if is_all {
                    state.read = Some((from, batch.clone()));
                }
            });
        }
        batch
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.spot.signal.forget(&mut self.waiter);
        if self.spot.watchers.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.live.give_back(&self.spot.name, |_| {});
        }
    }
}
