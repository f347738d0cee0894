//! Live handles: the streams that somebody waits for or subscribes to by name, and all who subscribe by wildcards.
//!
//! A handle exists exactly as long as somebody has it, so it can not be evicted under a waiter and idle streams
//! cost nothing here. The order that loses no wake-up: a reader first takes the handle and then reads the store;
//! a publisher first appends to the store and then looks for the handle.
//!
//! Streams end and begin again, and the news of it come in any order. So all that is known of a tail goes with the
//! epoch in which it is true, and whether the store is attached to is asked of the store anew each time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;

use dashmap::DashMap;

use super::fan_out::{AT_ONCE, fan_out};
use super::subscriber::{Member, Members, Wildcards};
use super::watched::{Spot, Watched};
use crate::clock::Clock;
use crate::stream::{Epoch, Filter, Position, Store, StreamName};

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

impl Live {
    pub(super) fn new(store: Arc<dyn Store>, clock: Clock) -> Self {
        Self { handles: DashMap::new(), wildcards: Wildcards::default(), store, clock }
    }

    /// Takes the handle of a stream. Read the store only afterwards.
    pub(super) fn watch(&self, name: &StreamName) -> Watched<'_> {
        self.take(name, |handle| Watched::count_in(self, &handle.spot))
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
        let _nobody_goes_first = self.advance(name, epoch, tail, closed, None);
    }

    /// Moves a tail, after the append is in the store. Appends may overtake each other on the way here. Whether
    /// `publisher` will be woken: as soon as one of those who were woken has looked, if they are few.
    pub(super) fn advance(
        &self,
        name: &StreamName,
        epoch: Epoch,
        tail: Position,
        closed: bool,
        publisher: Option<&Waker>,
    ) -> bool {
        let followed = self.handles.get(name).map(|handle| (handle.spot.clone(), handle.subscribers.clone()));
        let mut lets_go_first = false;
        if let Some((spot, subscribers)) = followed {
            let mut earlier = None;
            let publisher = publisher.filter(|_| spot.watchers.load(Ordering::Relaxed) <= AT_ONCE);
            fan_out(spot.signal.change(|state| {
                state.advance(epoch, tail, closed);
                (lets_go_first, earlier) = state.let_go_first(publisher);
            }));
            earlier.into_iter().for_each(Waker::wake);
            subscribers.mark(name);
        }
        self.wildcards.mark(name);
        lets_go_first
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

    /// The last one who watched a stream has left; it has counted itself out.
    pub(super) fn left(&self, name: &StreamName) {
        self.give_back(name, |_| {});
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
