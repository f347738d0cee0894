//! Deliveries in place: publishers poll the futures of readers, beside the tasks of these.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use loom::future::block_on;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;

use super::beyond;
use super::in_place::{InPlace, deliver, is_in_place};
use super::signal::Signal;

type TailSignal = Arc<Signal<u64>>;

/// A connection that waits until the tail is `last`, and returns how often it was polled in place.
fn reader(tail: &TailSignal, last: u64) -> InPlace<u64> {
    let tail = tail.clone();
    InPlace::new(Box::pin(async move {
        let mut in_place = 0;
        for offset in 0..last {
            tail.wait_until(beyond(offset)).await;
            in_place += u64::from(is_in_place());
        }
        in_place
    }))
}

fn publisher(tail: &TailSignal, messages: u64) -> thread::JoinHandle<()> {
    let tail = tail.clone();
    thread::spawn(move || (0..messages).for_each(|_| deliver(|| tail.update(|tail| *tail += 1))))
}

/// As in [`super::two_waiters_and_two_appends_meet_in_any_order_of_two_preemptions`].
fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(check);
}

#[test]
fn each_message_is_delivered_in_place_or_by_the_task_that_polls() {
    model(|| {
        let tail = TailSignal::default();
        let publisher = publisher(&tail, 2);
        block_on(reader(&tail, 2));
        publisher.join().unwrap();
        assert_eq!(tail.waiting(), 0);
    });
}

#[test]
fn two_publishers_that_deliver_to_one_reader_at_the_same_moment_lose_nothing() {
    model(|| {
        let tail = TailSignal::default();
        let publishers = [publisher(&tail, 1), publisher(&tail, 1)];
        block_on(reader(&tail, 2));
        publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
        assert_eq!(tail.waiting(), 0);
    });
}

/// Counts the futures that exist.
struct Counted(Arc<AtomicU64>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[test]
fn a_connection_that_ends_during_a_delivery_is_dropped_whole() {
    model(|| {
        let (tail, open) = (TailSignal::default(), Arc::new(AtomicU64::new(1)));
        let mut connection = InPlace::new(Box::pin({
            let (tail, counted) = (tail.clone(), Counted(open.clone()));
            async move {
                let _counted = counted;
                tail.wait_until(beyond(7)).await;
            }
        }));
        let mut context = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut connection).poll(&mut context).is_pending());
        let publisher = publisher(&tail, 1);
        drop(connection);
        publisher.join().unwrap();
        assert_eq!((tail.waiting(), open.load(Ordering::Relaxed)), (0, 0));
    });
}

#[test]
fn a_delivery_that_publishes_in_turn_wakes_tasks() {
    loom::model(|| {
        let (first, second) = (TailSignal::default(), TailSignal::default());
        let mut follower = pin!(reader(&second, 1));
        let mut leader = pin!(InPlace::new(Box::pin({
            let (first, second) = (first.clone(), second.clone());
            async move {
                first.wait_until(beyond(0)).await;
                deliver(|| second.update(|tail| *tail += 1));
                is_in_place()
            }
        })));
        let mut context = Context::from_waker(Waker::noop());
        assert!(follower.as_mut().poll(&mut context).is_pending());
        assert!(leader.as_mut().poll(&mut context).is_pending());
        deliver(|| first.update(|tail| *tail += 1));
        assert_eq!(leader.poll(&mut context), Poll::Ready(true));
        assert_eq!(follower.poll(&mut context), Poll::Ready(0), "its own task has polled it");
    });
}
