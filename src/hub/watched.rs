//! A stream that somebody waits for: what is known of its tail, and who sleeps until it moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use tokio::time::Instant;

use super::Shared;
use super::live::Live;
use super::signal::{Signal, Waiter};
use crate::stream::{Batch, Epoch, Offset, Position, StreamName};

/// What a waiter needs to know of a stream. The tail is that of the last append seen here.
#[derive(Debug, Default)]
pub(super) struct TailState {
    /// The life that the tail is of; `None` before the first append.
    epoch: Option<Epoch>,
    tail: Position,
    closed: bool,
    pub(super) gone: bool,
    /// When the append that moved the tail was answered by the store.
    moved_at: Option<Instant>,
    /// What the first of those who waited has read, from where, for the others: all that there is now.
    read: Option<(Offset, Shared)>,
    /// How many wait, or have been woken and not looked yet, who will look as soon as their task has its turn.
    prompt: usize,
    /// The publisher that lets one of them go first.
    publisher: Option<Waker>,
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

/// Where those wait who watch a stream until it ends.
pub(super) struct Spot {
    name: StreamName,
    pub(super) signal: Signal<TailState>,
    /// Counted up under the table's lock only, so that no one can come while the last one's handle is taken out.
    pub(super) watchers: AtomicUsize,
}

/// A stream being watched; dropping it gives the handle back.
pub(super) struct Watched<'a> {
    live: &'a Live,
    spot: Arc<Spot>,
    waiter: Waiter,
    /// Whether this is one of the prompt, and is counted among them at present.
    prompt: bool,
    counted: bool,
}

impl Spot {
    pub(super) fn of(name: &StreamName) -> Arc<Self> {
        Arc::new(Self { name: name.clone(), signal: Signal::default(), watchers: AtomicUsize::new(0) })
    }
}

impl TailState {
    /// News of an earlier life than the one known are too late to matter.
    pub(super) fn advance(&mut self, epoch: Epoch, tail: Position, closed: bool) {
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

    /// Remembers `publisher` if a prompt one is about to look. Whether it does, and the publisher that it remembered.
    pub(super) fn let_go_first(&mut self, publisher: Option<&Waker>) -> (bool, Option<Waker>) {
        match publisher.filter(|_| self.prompt > 0) {
            Some(publisher) => (true, self.publisher.replace(publisher.clone())),
            None => (false, None),
        }
    }

    /// A prompt one has looked, whatever it found, or leaves. Returns the publisher that may go on now.
    fn looked(&mut self, was_counted: bool, counts: bool) -> Option<Waker> {
        self.prompt = (self.prompt + usize::from(counts)).saturating_sub(usize::from(was_counted));
        if was_counted { self.publisher.take() } else { None }
    }

    /// Whether a read of the life `epoch` up to `tail` would bring something else now.
    fn is_beyond(&self, epoch: Epoch, tail: Position) -> bool {
        let later_here = self.epoch == Some(epoch) && (self.tail > tail || self.closed);
        later_here || self.epoch > Some(epoch) || self.gone
    }
}

impl<'a> Watched<'a> {
    /// One more at `spot`. Only under the table's lock.
    pub(super) fn count_in(live: &'a Live, spot: &Arc<Spot>) -> Self {
        spot.watchers.fetch_add(1, Ordering::Relaxed);
        Self { live, spot: spot.clone(), waiter: Waiter::default(), prompt: false, counted: false }
    }

    /// Takes the handle of what the stream is now.
    pub(super) fn watch_anew(&mut self) {
        let prompt = self.prompt;
        *self = self.live.watch(&self.spot.name);
        self.prompt = prompt;
    }

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
        let (prompt, counted, mut publisher) = (self.prompt, &mut self.counted, None);
        let moved = self.spot.signal.poll_until(&mut self.waiter, context, |state| {
            let is_beyond = state.is_beyond(epoch, tail);
            let counts = prompt && !is_beyond;
            publisher = state.looked(std::mem::replace(counted, counts), counts);
            let read = state.read.as_ref().filter(|(from, _)| *from == next && !state.gone);
            is_beyond.then(|| Moved {
                at: state.moved_at,
                read: read.map(|(_, read)| read.clone()),
                gone: state.gone,
            })
        });
        publisher.into_iter().for_each(Waker::wake);
        moved
    }

    /// From now on whoever polls this promises to do so in a task that does nothing else meanwhile: a publisher may let
    /// it go first.
    pub(super) fn be_prompt(&mut self) {
        self.prompt = true;
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
        if self.counted {
            let publisher = self.spot.signal.note(|state| state.looked(true, false));
            publisher.into_iter().for_each(Waker::wake);
        }
        if self.spot.watchers.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.live.left(&self.spot.name);
        }
    }
}
