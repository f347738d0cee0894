//! The registry of waiters: the streams that have readers or subscribers by name, and all subscribers by wildcard.
//!
//! An entry exists exactly as long as somebody has joined it, so it cannot be evicted under a waiter, and idle streams
//! cost nothing here. The order that loses no wake-up: a reader first joins and then reads the store; a publisher first
//! appends to the store and then looks for the entry.
//!
//! Streams end and begin again, and reports of it arrive in any order. So a tail is kept with its epoch, and the store
//! is asked anew each time whether a stream is attached.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;

use dashmap::DashMap;

use super::stream_waiters::StreamWaiters;
use super::subscriber::{Member, Members, Wildcards};
use crate::clock::Clock;
use crate::stream::{Epoch, Filter, Position, Store, StreamName};

/// The waiters of all streams.
pub(super) struct WaiterRegistry {
    entries: DashMap<StreamName, Entry>,
    wildcards: Wildcards,
    store: Arc<dyn Store>,
    clock: Clock,
}

/// One stream. Changed only under the table's lock on its name, but for what is inside of `waiters`.
struct Entry {
    waiters: Arc<StreamWaiters>,
    subscribers: Members,
    /// The epoch of the stream that is attached: its TTL stands still.
    attached: Option<Epoch>,
}

impl WaiterRegistry {
    pub(super) fn new(store: Arc<dyn Store>, clock: Clock) -> Self {
        Self { entries: DashMap::new(), wildcards: Wildcards::default(), store, clock }
    }

    /// Adds a reader of a stream, which has to [leave](Self::leave). Read the store only afterwards.
    pub(super) fn join(&self, name: &StreamName) -> Arc<StreamWaiters> {
        self.enter(name, |entry| {
            entry.waiters.readers.fetch_add(1, Ordering::Relaxed);
            entry.waiters.clone()
        })
    }

    /// Removes a reader of a stream. The last one removes the entry.
    pub(super) fn leave(&self, waiters: &StreamWaiters) {
        if waiters.readers.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.release(&waiters.name, |_| {});
        }
    }

    /// From now on `member` is told of the streams that `filter` matches. Read the store only afterwards.
    pub(super) fn subscribe(&self, filter: &Filter, member: &Arc<Member>) {
        if let Some(name) = filter.exact() {
            self.enter(name, |entry| entry.subscribers.insert(member));
        } else if filter.has_wildcard() {
            self.wildcards.insert(filter, member);
        }
    }

    /// Takes one `subscribe` back.
    pub(super) fn unsubscribe(&self, filter: &Filter, member: &Member) {
        if let Some(name) = filter.exact() {
            self.release(name, |entry| entry.subscribers.remove(member));
        } else if filter.has_wildcard() {
            self.wildcards.remove(filter, member);
        }
    }

    /// Reports that a stream has begun, after it is in the store.
    pub(super) fn begin(&self, name: &StreamName, epoch: Epoch, tail: Position, closed: bool) {
        if let Some(mut entry) = self.entries.get_mut(name)
            && entry.attached != Some(epoch)
        {
            self.attach(name, &mut entry);
        }
        let _nobody_goes_first = self.advance(name, epoch, tail, closed, None);
    }

    /// Moves a tail, after the append is in the store. Appends may overtake each other on the way here. Returns whether
    /// `publisher` will be woken, which happens as soon as one of the waiters has polled.
    pub(super) fn advance(
        &self,
        name: &StreamName,
        epoch: Epoch,
        tail: Position,
        closed: bool,
        publisher: Option<&Waker>,
    ) -> bool {
        let joined = self.entries.get(name).map(|entry| (entry.waiters.clone(), entry.subscribers.clone()));
        let mut lets_go_first = false;
        if let Some((waiters, subscribers)) = joined {
            lets_go_first = waiters.advance(epoch, tail, closed, publisher);
            subscribers.mark(name);
        }
        self.wildcards.mark(name);
        lets_go_first
    }

    /// Reports that a stream has ended. Readers that join from now on wait for another stream of that name; subscribers
    /// do so already.
    pub(super) fn end(&self, name: &StreamName) {
        let mut joined = None;
        let released = self.entries.remove_if_mut(name, |_, entry| {
            let waiters = std::mem::replace(&mut entry.waiters, StreamWaiters::new(name));
            joined = Some((waiters, entry.subscribers.clone()));
            if !entry.is_idle() {
                self.attach(name, entry);
            }
            entry.is_idle()
        });
        self.detach(name, released.and_then(|(_, entry)| entry.attached));
        if let Some((waiters, subscribers)) = joined {
            waiters.end();
            subscribers.mark(name);
        }
        self.wildcards.mark(name);
    }

    /// The number of streams that have readers or subscribers by name, and of waiting tasks.
    pub(super) fn count(&self) -> (usize, usize) {
        let waiting = self.entries.iter().map(|entry| entry.waiters.signal.waiting()).sum();
        (self.entries.len(), waiting)
    }

    /// The number of filters, each counted for each of its subscribers.
    pub(super) fn subscriptions(&self) -> usize {
        let exact: usize = self.entries.iter().map(|entry| entry.subscribers.len()).sum();
        exact + self.wildcards.len()
    }

    /// Counts somebody in under the lock, or the last one to leave could remove the entry meanwhile.
    fn enter<T>(&self, name: &StreamName, count_in: impl FnOnce(&mut Entry) -> T) -> T {
        let mut entry = self.entries.entry(name.clone()).or_insert_with(|| Entry::new(name));
        if entry.attached.is_none() {
            self.attach(name, &mut entry);
        }
        count_in(&mut entry)
    }

    /// Counts somebody out. The last one removes the entry.
    fn release(&self, name: &StreamName, count_out: impl FnOnce(&mut Entry)) {
        let released = self.entries.remove_if_mut(name, |_, entry| {
            count_out(entry);
            entry.is_idle()
        });
        self.detach(name, released.and_then(|(_, entry)| entry.attached));
    }

    /// Stops the TTL of the stream that has this name now. Detaching its predecessor comes last, or the stream could end
    /// in between.
    fn attach(&self, name: &StreamName, entry: &mut Entry) {
        let before = std::mem::replace(&mut entry.attached, self.store.attach(name));
        self.detach(name, before);
    }

    fn detach(&self, name: &StreamName, epoch: Option<Epoch>) {
        if let Some(epoch) = epoch {
            self.store.detach(name, epoch, self.clock.now());
        }
    }
}

impl Entry {
    fn new(name: &StreamName) -> Self {
        Self { waiters: StreamWaiters::new(name), subscribers: Members::default(), attached: None }
    }

    fn is_idle(&self) -> bool {
        self.waiters.readers.load(Ordering::Relaxed) == 0 && self.subscribers.is_empty()
    }
}
