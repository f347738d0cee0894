//! Live handles: the tails of streams that somebody waits for.
//!
//! A handle exists exactly as long as it is watched, so it can not be evicted under a waiter and idle streams
//! cost nothing here. The order that loses no wake-up: a reader first takes the handle and then reads the store;
//! a publisher first appends to the store and then looks for the handle.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use tokio::time::Instant;

use super::signal::Signal;
use crate::clock::Clock;
use crate::store::Store;
use crate::stream::{Epoch, Position, StreamName};

/// What a waiter needs to know of a stream. The tail is that of the last append seen here, or 0.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TailState {
    pub(super) tail: Position,
    pub(super) closed: bool,
    pub(super) gone: bool,
    /// When the append that moved the tail was answered by the store.
    pub(super) moved_at: Option<Instant>,
}

/// The watched streams.
#[derive(Clone)]
pub(super) struct Live {
    handles: Arc<DashMap<StreamName, Arc<Handle>>>,
    store: Arc<dyn Store>,
    clock: Clock,
}

struct Handle {
    signal: Signal<TailState>,
    epoch: Option<Epoch>,
    /// Changed only under the table's lock on this name.
    watchers: AtomicUsize,
}

/// A stream being watched; dropping the last one of a stream removes its handle.
pub(super) struct Watched {
    live: Live,
    name: StreamName,
    handle: Arc<Handle>,
}

impl Live {
    pub(super) fn new(store: Arc<dyn Store>, clock: Clock) -> Self {
        Self { handles: Arc::default(), store, clock }
    }

    /// Takes the handle of a stream. Read the store only afterwards.
    pub(super) fn watch(&self, name: &StreamName) -> Watched {
        let locked = self.handles.entry(name.clone()).or_insert_with(|| {
            let epoch = self.store.attach(name);
            Arc::new(Handle {
                signal: Signal::new(TailState::default()),
                epoch,
                watchers: AtomicUsize::new(0),
            })
        });
        // Counted before the lock is given back, or the last one to leave could take the handle out under us.
        locked.watchers.fetch_add(1, Ordering::Relaxed);
        Watched { live: self.clone(), name: name.clone(), handle: locked.value().clone() }
    }

    /// Moves a tail, after the append is in the store. Appends may overtake each other on the way here.
    pub(super) fn advance(&self, name: &StreamName, tail: Position, closed: bool) {
        let Some(handle) = self.handles.get(name).map(|handle| handle.value().clone()) else { return };
        handle.signal.update(|state| {
            state.tail = state.tail.max(tail);
            state.closed |= closed;
            state.moved_at = Some(Instant::now());
        });
    }

    /// Tells all who wait that the stream is no more. Whoever comes later gets a new handle.
    pub(super) fn end(&self, name: &StreamName) {
        if let Some((_, handle)) = self.handles.remove(name) {
            handle.signal.update(|state| state.gone = true);
        }
    }

    /// How many streams are watched, and how many tasks sleep on them.
    pub(super) fn count(&self) -> (usize, usize) {
        let waiting = self.handles.iter().map(|handle| handle.signal.waiting()).sum();
        (self.handles.len(), waiting)
    }
}

impl Watched {
    /// Waits until there may be something behind `tail`, or the stream is closed or gone: then it is time to read
    /// again. Returns when the last append came, if one has.
    pub(super) async fn moved(&self, tail: Position) -> Option<Instant> {
        let changed = |state: &TailState| state.tail > tail || state.closed || state.gone;
        self.handle.signal.wait_until(|state| changed(state).then_some(state.moved_at)).await
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut last = false;
        self.live.handles.remove_if(&self.name, |_, handle| {
            if !Arc::ptr_eq(handle, &self.handle) {
                return false;
            }
            last = handle.watchers.fetch_sub(1, Ordering::Relaxed) == 1;
            last
        });
        if let (true, Some(epoch)) = (last, self.handle.epoch) {
            self.live.store.detach(&self.name, epoch, self.live.clock.now());
        }
    }
}
