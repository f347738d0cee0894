//! [`Signal`]: a value that tasks wait on. It signals a state, not an event, so a waiter cannot miss a
//! change.
//!
//! A waiter passes a test of the state. The test and the registration of the waker happen under one lock, so
//! no change can fall between the two. Dropping a waiting future removes its waker.
//!
//! `tests/signal` compiles this file under loom, which explores every interleaving of threads.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use smallvec::SmallVec;

use super::sync::Mutex;

/// A value of type `S` and the tasks that wait for it to change.
#[derive(Debug)]
pub struct Signal<S> {
    inner: Mutex<Inner<S>>,
}

#[derive(Debug)]
struct Inner<S> {
    state: S,
    wakers: Wakers,
}

/// Wakers of the waiting tasks. Each change takes all of them and starts a new round; a [`WaiterKey`] is
/// valid in its round only. Rounds are counted modulo 2^32: a waiter is woken at the end of its own.
#[derive(Debug, Default)]
struct Wakers {
    round: u32,
    /// Number of slots with a waker.
    waiting: u32,
    /// The slot that was left last, if there are slots without a waker.
    free: u32,
    slots: Slots,
}

/// Most signals have one waiter, and there are very many signals: the first waker takes no allocation.
type Slots = SmallVec<[Slot; 1]>;

#[derive(Debug)]
enum Slot {
    Waiting(Waker),
    /// The value is the slot that was left before this one, if there are further slots without a waker.
    Free(u32),
}

/// The registration of one waiting task in a [`Signal`]; empty while the task does not wait.
#[derive(Debug, Default)]
pub struct Waiter(Option<WaiterKey>);

#[derive(Debug, Clone, Copy)]
struct WaiterKey {
    round: u32,
    slot: u32,
}

impl Waiter {
    /// Whether it has been registered and not been forgotten since. A change may have taken its waker meanwhile.
    pub fn is_registered(&self) -> bool {
        self.0.is_some()
    }
}

impl<S: Default> Default for Signal<S> {
    fn default() -> Self {
        Self::new(S::default())
    }
}

impl<S> Signal<S> {
    /// Creates a signal without waiters.
    pub fn new(state: S) -> Self {
        Self { inner: Mutex::new(Inner { state, wakers: Wakers::default() }) }
    }

    /// Changes the state, then wakes all waiters, which test it again.
    pub fn update(&self, change: impl FnOnce(&mut S)) {
        drop(self.change(change));
    }

    /// Changes the state and returns the waiters, so that the caller decides when and where to wake them.
    pub fn change(&self, change: impl FnOnce(&mut S)) -> Woken {
        let mut inner = self.inner.lock();
        change(&mut inner.state);
        Woken(inner.wakers.take())
    }

    /// Changes a part of the state that no test reads, without waking waiters. Returns the result of
    /// `change`.
    pub fn note<T>(&self, change: impl FnOnce(&mut S) -> T) -> T {
        change(&mut self.inner.lock().state)
    }

    /// Waits until `test` returns `Some` for the state, and returns that value.
    ///
    /// Cancel safe: dropping the future removes the waiter.
    pub fn wait_until<T, F: FnMut(&S) -> Option<T>>(&self, test: F) -> WaitUntil<'_, S, F> {
        WaitUntil { signal: self, test, waiter: Waiter::default() }
    }

    /// Poll form of [`wait_until`](Self::wait_until), for state machines that are not futures. `test` must
    /// not change anything that other tests read. A caller that stops polling must [`forget`](Self::forget)
    /// `waiter`.
    pub fn poll_until<T>(
        &self,
        waiter: &mut Waiter,
        context: &mut Context<'_>,
        test: impl FnOnce(&mut S) -> Option<T>,
    ) -> Poll<T> {
        let mut inner = self.inner.lock();
        if let Some(found) = test(&mut inner.state) {
            if let Some(key) = waiter.0.take() {
                inner.wakers.remove(key);
            }
            return Poll::Ready(found);
        }
        waiter.0 = Some(inner.wakers.put(waiter.0, context.waker()));
        Poll::Pending
    }

    /// Removes the registration of a waiter.
    pub fn forget(&self, waiter: &mut Waiter) {
        if let Some(key) = waiter.0.take() {
            self.inner.lock().wakers.remove(key);
        }
    }

    /// Returns the number of waiting tasks.
    pub fn waiting(&self) -> usize {
        self.inner.lock().wakers.waiting as usize
    }
}

/// Wakers that a change has taken. Each is woken once, at the latest when this is dropped.
#[derive(Debug)]
#[must_use = "dropping it wakes all waiters"]
pub struct Woken(Slots);

impl Woken {
    /// Returns the number of slots, an upper bound of the number of wakers: some slots may be empty.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no slots are left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Wakes the wakers of up to `count` slots.
    pub fn wake(&mut self, count: usize) {
        let rest = self.0.len().saturating_sub(count);
        self.0.drain(rest..).filter_map(Slot::into_waker).for_each(Waker::wake);
    }

    /// Splits off up to `count` slots.
    pub fn split_off(&mut self, count: usize) -> Self {
        Self(self.0.drain(self.0.len().saturating_sub(count)..).collect())
    }
}

impl Drop for Woken {
    fn drop(&mut self) {
        self.wake(usize::MAX);
    }
}

/// The future of [`Signal::wait_until`].
#[derive(Debug)]
pub struct WaitUntil<'a, S, F> {
    signal: &'a Signal<S>,
    test: F,
    waiter: Waiter,
}

impl<S, F: Unpin> Unpin for WaitUntil<'_, S, F> {}

impl<S, T, F: FnMut(&S) -> Option<T> + Unpin> Future for WaitUntil<'_, S, F> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Self { signal, test, waiter } = self.get_mut();
        signal.poll_until(waiter, context, |state| test(state))
    }
}

impl<S, F> Drop for WaitUntil<'_, S, F> {
    fn drop(&mut self) {
        self.signal.forget(&mut self.waiter);
    }
}

impl Slot {
    fn into_waker(self) -> Option<Waker> {
        match self {
            Self::Waiting(waker) => Some(waker),
            Self::Free(_) => None,
        }
    }
}

impl Wakers {
    fn take(&mut self) -> Slots {
        (self.round, self.waiting) = (self.round.wrapping_add(1), 0);
        std::mem::take(&mut self.slots)
    }

    fn put(&mut self, key: Option<WaiterKey>, waker: &Waker) -> WaiterKey {
        let round = self.round;
        if let Some(key) = key.filter(|key| key.round == round)
            && let Some(Slot::Waiting(old)) = self.slots.get_mut(key.slot as usize)
        {
            old.clone_from(waker);
            return key;
        }
        let has_free = (self.waiting as usize) < self.slots.len();
        self.waiting += 1;
        if let Some(slot) = self.slots.get_mut(self.free as usize).filter(|_| has_free)
            && let Slot::Free(before) = std::mem::replace(slot, Slot::Waiting(waker.clone()))
        {
            return WaiterKey { round, slot: std::mem::replace(&mut self.free, before) };
        }
        self.slots.push(Slot::Waiting(waker.clone()));
        // The slots of one signal take less memory than 2^32 wakers.
        WaiterKey { round, slot: self.slots.len() as u32 - 1 }
    }

    fn remove(&mut self, WaiterKey { round, slot }: WaiterKey) {
        if round != self.round {
            return;
        }
        if let Some(left @ Slot::Waiting(_)) = self.slots.get_mut(slot as usize) {
            *left = Slot::Free(std::mem::replace(&mut self.free, slot));
            self.waiting -= 1;
        }
        if self.waiting == 0 {
            self.slots = Slots::new();
        }
    }
}
