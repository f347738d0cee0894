//! Model checks of the waiter code with loom, which tries every order of the threads' operations.
//!
//! `src/hub/signal.rs` and `in_place.rs` are compiled into this test with loom's lock and thread-local storage instead of the real ones.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, unreachable_pub, reason = "the tests use their part of it")]
#[path = "../../src/hub/signal.rs"]
mod signal;

#[allow(dead_code, unreachable_pub, reason = "the tests use their part of it")]
#[path = "../../src/hub/in_place.rs"]
mod in_place;

mod sync {
    //! Loom's mutex with the signature of the one in `src/hub/sync.rs`.

    use loom::sync::MutexGuard;

    /// Loom's own macro takes no constant block.
    macro_rules! per_thread {
        (static $name:ident: $type:ty = const { $value:expr };) => {
            loom::thread_local! { static $name: $type = $value; }
        };
    }

    pub(crate) use per_thread;

    #[derive(Debug)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }

        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }
    }
}

mod deliveries;
mod table;

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use loom::future::block_on;
use loom::sync::Arc;
use loom::thread;
use signal::Signal;

fn beyond(offset: u64) -> impl FnMut(&u64) -> Option<u64> {
    move |tail| (*tail > offset).then_some(*tail)
}

#[test]
fn an_append_that_races_a_poll_is_never_missed() {
    loom::model(|| {
        let tail = Arc::new(Signal::new(0));
        let publisher = thread::spawn({
            let tail = tail.clone();
            move || tail.update(|tail| *tail += 1)
        });
        assert_eq!(block_on(tail.wait_until(beyond(0))), 1);
        publisher.join().unwrap();
        assert_eq!(tail.waiting(), 0);
    });
}

/// With three threads that wait and wake, all orders would take minutes; nearly every race needs two preemptions at most.
#[test]
fn two_waiters_and_two_appends_meet_in_any_order_of_two_preemptions() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let tail = Arc::new(Signal::new(0));
        let other = thread::spawn({
            let tail = tail.clone();
            move || block_on(tail.wait_until(beyond(0)))
        });
        let publisher = thread::spawn({
            let tail = tail.clone();
            move || (tail.update(|tail| *tail += 1), tail.update(|tail| *tail += 1))
        });
        assert_eq!(block_on(tail.wait_until(beyond(1))), 2);
        assert!(other.join().unwrap() >= 1);
        publisher.join().unwrap();
        assert_eq!(tail.waiting(), 0);
    });
}

#[test]
fn a_waiter_that_is_dropped_during_an_append_removes_no_other_waiter() {
    loom::model(|| {
        let tail = Arc::new(Signal::new(0));
        let staying = thread::spawn({
            let tail = tail.clone();
            move || block_on(tail.wait_until(beyond(0)))
        });
        let publisher = thread::spawn({
            let tail = tail.clone();
            move || tail.update(|tail| *tail += 1)
        });
        {
            let mut leaving = pin!(tail.wait_until(beyond(7)));
            let poll = leaving.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert_eq!(poll, Poll::Pending);
        }
        assert_eq!(staying.join().unwrap(), 1);
        publisher.join().unwrap();
        assert_eq!(tail.waiting(), 0);
    });
}

/// A subscriber waits until there are marks, and takes them in a second step.
#[test]
fn marks_that_are_set_while_marks_are_taken_are_taken_later() {
    loom::model(|| {
        let marks = Arc::new(Signal::new(0u8));
        let publisher = thread::spawn({
            let marks = marks.clone();
            move || [1, 2].map(|mark| marks.update(|marks| *marks |= mark))
        });
        let mut taken = 0;
        while taken != 3 {
            block_on(marks.wait_until(|marks| (*marks != 0).then_some(())));
            marks.update(|marks| taken |= std::mem::take(marks));
        }
        publisher.join().unwrap();
        assert_eq!(marks.waiting(), 0);
    });
}
