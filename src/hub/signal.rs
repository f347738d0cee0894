//! A state that tasks wait for: not an event that they could miss.
//!
//! A waiter says what it waits for as a test of the state. Testing and going to sleep happen under one lock, so
//! no change can fall between the two. A waiter that is dropped leaves nothing behind.
//!
//! `tests/signal` runs this very file under loom, which tries every order of threads.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::sync::Mutex;

/// A state and the tasks that wait for it to change.
#[derive(Debug)]
pub struct Signal<S> {
    inner: Mutex<Inner<S>>,
}

#[derive(Debug)]
struct Inner<S> {
    state: S,
    wakers: Wakers,
}

/// The sleeping tasks. Each change empties the table, so a key counts for one round only.
#[derive(Debug, Default)]
struct Wakers {
    round: u64,
    slots: Vec<Option<Waker>>,
    free: Vec<usize>,
}

/// The place of one who waits, for as long as it does.
#[derive(Debug, Default)]
pub struct Waiter(Option<WaiterKey>);

#[derive(Debug, Clone, Copy)]
struct WaiterKey {
    round: u64,
    slot: usize,
}

impl<S: Default> Default for Signal<S> {
    fn default() -> Self {
        Self::new(S::default())
    }
}

impl<S> Signal<S> {
    /// A state that nobody waits for yet.
    pub fn new(state: S) -> Self {
        Self { inner: Mutex::new(Inner { state, wakers: Wakers::default() }) }
    }

    /// ChangeContext the state, then wakes all who wait; they test it anew.
    pub fn update(&self, change: impl FnOnce(&mut S)) {
        drop(self.change(change));
    }

    /// ChangeContext the state, and leaves it to the caller when those who wait are woken.
    pub fn change(&self, change: impl FnOnce(&mut S)) -> Woken {
        let mut inner = self.inner.lock();
        change(&mut inner.state);
        Woken(inner.wakers.take())
    }

    /// ChangeContext a part of the state that nobody waits for, and returns what `change` does.
    pub fn note<T>(&self, change: impl FnOnce(&mut S) -> T) -> T {
        change(&mut self.inner.lock().state)
    }

    /// Waits until `test` finds what it wants in the state, and returns that.
    ///
    /// Cancel safe: dropping the future takes the waiter out of the table.
    pub fn wait_until<T, F: FnMut(&S) -> Option<T>>(&self, test: F) -> WaitUntil<'_, S, F> {
        WaitUntil { signal: self, test, waiter: Waiter::default() }
    }

    /// The same for a state machine that is no future. What `test` changes is nothing that others wait for. Whoever does
    /// not ask again has to [forget](Self::forget) `waiter`.
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

    /// Takes a waiter out of the table.
    pub fn forget(&self, waiter: &mut Waiter) {
        if let Some(key) = waiter.0.take() {
            self.inner.lock().wakers.remove(key);
        }
    }

    /// How many tasks sleep here.
    pub fn waiting(&self) -> usize {
        self.inner.lock().wakers.sleeping()
    }
}

/// Those who are to be woken, each once: when this is dropped at the latest.
#[derive(Debug)]
#[must_use = "dropping it wakes them all"]
pub struct Woken(Vec<Option<Waker>>);

impl Woken {
    /// How many places there are to look for somebody to wake, which is at least how many they are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Wakes the next ones, at most `count`.
    pub fn wake(&mut self, count: usize) {
        let rest = self.0.len().saturating_sub(count);
        self.0.drain(rest..).flatten().for_each(Waker::wake);
    }

    /// Takes a part of them away, at most `count`.
    pub fn split_off(&mut self, count: usize) -> Self {
        Self(self.0.split_off(self.0.len().saturating_sub(count)))
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

impl Wakers {
    fn take(&mut self) -> Vec<Option<Waker>> {
        self.round += 1;
        self.free.clear();
        std::mem::take(&mut self.slots)
    }

    fn put(&mut self, key: Option<WaiterKey>, waker: &Waker) -> WaiterKey {
        if let Some(key) = key.filter(|key| key.round == self.round)
            && let Some(Some(old)) = self.slots.get_mut(key.slot)
        {
            old.clone_from(waker);
            return key;
        }
        let slot = self.free.pop().unwrap_or(self.slots.len());
        match self.slots.get_mut(slot) {
            Some(empty) => *empty = Some(waker.clone()),
            None => {
                // Most states have one waiter, and there are very many states.
                if self.slots.is_empty() {
                    self.slots.reserve_exact(1);
                }
                self.slots.push(Some(waker.clone()));
            }
        }
        WaiterKey { round: self.round, slot }
    }

    fn remove(&mut self, key: WaiterKey) {
        if key.round != self.round {
            return;
        }
        if self.slots.get_mut(key.slot).and_then(Option::take).is_some() {
            self.free.push(key.slot);
        }
        if self.sleeping() == 0 {
            *self = Self { round: self.round, ..Self::default() };
        }
    }

    fn sleeping(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}
