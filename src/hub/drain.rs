//! Waiting for the drain, in which held polls, live forms and connections end before the gateway does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use tokio::sync::watch;

use super::signal::{Signal, Waiter};

/// Whether the gateway drains, for all who wait for it.
#[derive(Debug, Default)]
pub(super) struct Drain {
    /// Copy of the others that every response reads without a lock.
    has_begun: AtomicBool,
    begins: watch::Sender<bool>,
    /// For connections, which are many and wait with little memory.
    signal: Signal<bool>,
}

/// Waits for a drain on behalf of one connection. Dropping it removes its waker.
#[derive(Debug)]
pub struct DrainWaiter {
    drain: Arc<Drain>,
    waiter: Waiter,
    /// The waker that is registered. Without it, each connection would take the lock of all of them whenever it is polled.
    registered: Option<Waker>,
}

impl Drain {
    /// Whether it has begun.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::SeqCst)
    }

    /// Returns a receiver whose value becomes true when the drain begins.
    pub(super) fn subscribe(&self) -> watch::Receiver<bool> {
        self.begins.subscribe()
    }

    /// Returns a waiter that does not wait yet.
    pub(super) fn waiter(self: &Arc<Self>) -> DrainWaiter {
        DrainWaiter { drain: self.clone(), waiter: Waiter::default(), registered: None }
    }

    /// Says that a drain begins. `prepare` runs once no response can be held any more, and before anyone is told.
    pub(super) fn begin(&self, prepare: impl FnOnce()) {
        self.has_begun.store(true, Ordering::SeqCst);
        prepare();
        self.begins.send_replace(true);
        self.signal.update(|begun| *begun = true);
    }
}

impl DrainWaiter {
    /// Completes when the gateway drains.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.registered.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            return if self.drain.has_begun() { Poll::Ready(()) } else { Poll::Pending };
        }
        self.registered = Some(context.waker().clone());
        self.drain.signal.poll_until(&mut self.waiter, context, |begun| begun.then_some(()))
    }
}

impl Drop for DrainWaiter {
    fn drop(&mut self) {
        self.drain.signal.forget(&mut self.waiter);
    }
}
