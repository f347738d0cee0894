//! Deliveries in place: the thread that moves the tail of a stream polls the readers that wait there itself, so that a message
//! needs no task of the runtime on its way to them.
//!
//! A connection is an [`InPlace`] future. It gives its readers a waker of its own. If [`deliver`] calls that waker, the
//! connection is polled there and then; in all other cases, or if another thread polls the connection at this moment, its task is woken as
//! usual. No wake-up is lost: who finds the connection locked wakes the task, which polls it afterwards.
//!
//! `tests/signal` compiles this file under loom, which explores every interleaving of threads.

use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use super::sync::{Mutex, per_thread};

/// Readers of one kind that a publisher delivers to before it is answered; of more, tasks take care.
pub(super) const PUBLISHER_DELIVERIES_MAX: usize = 16;

/// What the wakers that this thread calls are called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// To wake tasks.
    Wake,
    /// To deliver in place.
    Deliver,
    /// A delivery in place is under way. What it wakes in turn are tasks, or else one delivery could lead to any number of others.
    InPlace,
}

per_thread! {
    static MODE: Cell<Mode> = const { Cell::new(Mode::Wake) };
}

/// Sets the mode of this thread; dropping it restores the earlier one.
struct Entered(Mode);

impl Entered {
    fn new(mode: Mode) -> Self {
        Self(MODE.with(|now| now.replace(mode)))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        MODE.with(|now| now.set(self.0));
    }
}

/// Calls wakers in `wake` so that each [`InPlace`] future among them is polled before this returns, within the budget of the calling task. The
/// caller must hold no lock that a connection takes.
pub(super) fn deliver(wake: impl FnOnce()) {
    if MODE.with(Cell::get) == Mode::InPlace {
        return wake();
    }
    let _entered = Entered::new(Mode::Deliver);
    wake();
}

/// Whether the caller is polled in place, on the time of a publisher. It should do no more than deliver then.
pub fn is_in_place() -> bool {
    MODE.with(Cell::get) == Mode::InPlace
}

type BoxedFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A future that is polled by its task, and by publishers that deliver to it. Dropping it drops the future inside.
pub struct InPlace<T: Send + 'static>(Arc<DeliveryTarget<T>>);

struct DeliveryTarget<T> {
    stage: Mutex<FutureStage<T>>,
    task: Mutex<Waker>,
}

enum FutureStage<T> {
    Running(BoxedFuture<T>),
    /// What its task is to return, or to panic with, if it has ended in place.
    Ended(Option<Box<thread::Result<T>>>),
}

impl<T: Send + 'static> InPlace<T> {
    /// The memory that a connection shares with publishers.
    #[cfg(test)]
    pub(super) const SHARED_BYTES: usize = size_of::<DeliveryTarget<T>>() + 2 * size_of::<usize>();

    /// Wraps a future.
    pub fn new(future: BoxedFuture<T>) -> Self {
        Self(Arc::new(DeliveryTarget {
            stage: Mutex::new(FutureStage::Running(future)),
            task: Mutex::new(Waker::noop().clone()),
        }))
    }
}

impl<T: Send + 'static> Future for InPlace<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Self(shared) = self.get_mut();
        // Left before the future is polled, so that nothing that happens afterwards goes unnoticed.
        shared.task.lock().clone_from(context.waker());
        let mut stage = shared.stage.lock();
        if let FutureStage::Running(future) = &mut *stage {
            let waker = Waker::from(shared.clone());
            let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
            if polled.is_ready() {
                *stage = FutureStage::Ended(None);
            }
            return polled;
        }
        match std::mem::replace(&mut *stage, FutureStage::Ended(None)) {
            FutureStage::Ended(Some(ended)) => {
                Poll::Ready(ended.unwrap_or_else(|panic| resume_unwind(panic)))
            }
            FutureStage::Running(_) | FutureStage::Ended(None) => Poll::Pending,
        }
    }
}

impl<T: Send + 'static> Drop for InPlace<T> {
    fn drop(&mut self) {
        // Wakers of the future keep what is shared alive, and the future keeps them.
        let stage = std::mem::replace(&mut *self.0.stage.lock(), FutureStage::Ended(None));
        drop(stage);
    }
}

impl<T: Send + 'static> Wake for DeliveryTarget<T> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if MODE.with(Cell::get) != Mode::Deliver || !self.poll_in_place() {
            self.task.lock().wake_by_ref();
        }
    }
}

impl<T: Send + 'static> DeliveryTarget<T> {
    /// Polls the future. Returns whether its task need not be woken.
    fn poll_in_place(self: &Arc<Self>) -> bool {
        let Some(mut stage) = self.stage.try_lock() else { return false };
        let FutureStage::Running(future) = &mut *stage else { return true };
        let _entered = Entered::new(Mode::InPlace);
        let waker = Waker::from(self.clone());
        // A panic is one of the connection, and not of the publisher.
        let poll = || future.as_mut().poll(&mut Context::from_waker(&waker));
        let ended = match catch_unwind(AssertUnwindSafe(poll)) {
            Ok(Poll::Pending) => return true,
            Ok(Poll::Ready(output)) => Ok(output),
            Err(panic) => Err(panic),
        };
        *stage = FutureStage::Ended(Some(Box::new(ended)));
        false
    }
}
