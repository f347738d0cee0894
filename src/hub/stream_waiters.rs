//! Shared state of one stream that has waiters: its last known tail, and the waiters to notify when the tail moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;

use tokio::runtime::Handle;
use tokio::task::yield_now;
use tokio::time::Instant;

use super::SharedBatch;
use super::signal::{Signal, Woken};
use super::update::Change;
use crate::stream::{Epoch, Offset, Position, StreamName};

/// Waiters woken inline by the publisher; beyond this, spawning a task is cheaper than delaying the publisher's response.
pub(super) const INLINE_WAKES_MAX: usize = 16;

/// Wakes between two yields, so that the woken tasks get their turn. They fit into the local queue of one runtime thread.
const WAKES_PER_TURN: usize = 64;

/// The readers of one stream, from its creation, or from the end of an earlier stream of this name, to its end.
pub(super) struct StreamWaiters {
    pub(super) name: StreamName,
    pub(super) signal: Signal<TailState>,
    /// Readers that may wait here. Counted up under the registry's lock only, so that nobody joins while the last reader's
    /// entry is removed.
    pub(super) readers: AtomicUsize,
}

/// What a waiter needs to know of a stream. The tail is that of the last append seen here.
#[derive(Debug, Default)]
pub(super) struct TailState {
    /// The epoch of the tail; `None` before the first append.
    epoch: Option<Epoch>,
    tail: Position,
    closed: bool,
    /// The stream was deleted or has expired.
    gone: bool,
    /// When the store answered the append that moved the tail.
    moved_at: Option<Instant>,
    /// All that can be read from an offset now, as the first reader that woke has read it for the others.
    read: Option<(Offset, SharedBatch)>,
    /// Prompt readers that wait, or that were woken and have not polled yet.
    prompt: usize,
    /// The publisher that lets a prompt reader go first.
    publisher: Option<Waker>,
}

/// What has become of a stream since its reader began to wait.
pub(super) enum Moved {
    /// There may be something to read.
    On(Change<SharedBatch>),
    /// The stream has ended. Whoever waits on has to join the waiters of its successor.
    Gone,
}

impl StreamWaiters {
    pub(super) fn new(name: &StreamName) -> Arc<Self> {
        Arc::new(Self { name: name.clone(), signal: Signal::default(), readers: AtomicUsize::new(0) })
    }

    /// Moves the tail and wakes the waiters. Returns whether `publisher` will be woken as soon as one of them has polled;
    /// it is ignored if they are many.
    pub(super) fn advance(
        &self,
        epoch: Epoch,
        tail: Position,
        closed: bool,
        publisher: Option<&Waker>,
    ) -> bool {
        let (mut lets_go_first, mut earlier) = (false, None);
        let publisher = publisher.filter(|_| self.readers.load(Ordering::Relaxed) <= INLINE_WAKES_MAX);
        wake_all(self.signal.change(|state| {
            state.advance(epoch, tail, closed);
            (lets_go_first, earlier) = state.let_go_first(publisher);
        }));
        earlier.into_iter().for_each(Waker::wake);
        lets_go_first
    }

    /// Wakes the waiters because the stream has ended.
    pub(super) fn end(&self) {
        wake_all(self.signal.change(|state| state.gone = true));
    }

    /// Gives the other readers what one of them has read from `from`, unless the tail has moved since.
    pub(super) fn share(&self, from: Offset, batch: &SharedBatch) {
        if self.readers.load(Ordering::Relaxed) > 1 {
            self.signal.note(|state| {
                let is_all = state.epoch == Some(batch.epoch)
                    && state.tail == batch.tail
                    && state.closed == batch.closed;
                if is_all {
                    state.read = Some((from, batch.clone()));
                }
            });
        }
    }
}

impl TailState {
    /// Ignores an append to an earlier epoch than the one known: it is reported too late to matter.
    fn advance(&mut self, epoch: Epoch, tail: Position, closed: bool) {
        if self.epoch > Some(epoch) {
            return;
        }
        if self.epoch < Some(epoch) {
            self.epoch = Some(epoch);
            (self.tail, self.closed) = Default::default();
        }
        self.tail = self.tail.max(tail);
        self.closed |= closed;
        self.read = None;
        self.moved_at = Some(Instant::now());
    }

    /// Remembers `publisher` if a prompt reader is about to poll. Returns whether it does, and the publisher remembered
    /// before.
    fn let_go_first(&mut self, publisher: Option<&Waker>) -> (bool, Option<Waker>) {
        match publisher.filter(|_| self.prompt > 0) {
            Some(publisher) => (true, self.publisher.replace(publisher.clone())),
            None => (false, None),
        }
    }

    /// Notes that a reader has polled, or leaves. Returns the publisher that may go on now.
    pub(super) fn polled(&mut self, was_counted: bool, counts: bool) -> Option<Waker> {
        self.prompt = (self.prompt + usize::from(counts)).saturating_sub(usize::from(was_counted));
        if was_counted { self.publisher.take() } else { None }
    }

    /// What a reader at `next` that has read the epoch `epoch` up to `tail` should do; `None`: wait.
    pub(super) fn moved(&self, next: Offset, epoch: Epoch, tail: Position) -> Option<Moved> {
        if self.gone {
            return Some(Moved::Gone);
        }
        let is_later_here = self.epoch == Some(epoch) && (self.tail > tail || self.closed);
        if !is_later_here && self.epoch <= Some(epoch) {
            return None;
        }
        let read = self.read.as_ref().filter(|(from, _)| *from == next);
        Some(Moved::On(Change { published: self.moved_at, batch: read.map(|(_, batch)| batch.clone()) }))
    }
}

/// Wakes a few waiters inline. More are split into one task per runtime thread; without a runtime they are woken here.
fn wake_all(mut woken: Woken) {
    if woken.len() <= INLINE_WAKES_MAX {
        return;
    }
    let Ok(runtime) = Handle::try_current() else { return };
    let part = woken.len().div_ceil(runtime.metrics().num_workers().max(1));
    while !woken.is_empty() {
        let mut part = woken.split_off(part);
        runtime.spawn(async move {
            while !part.is_empty() {
                part.wake(WAKES_PER_TURN);
                yield_now().await;
            }
        });
    }
}
