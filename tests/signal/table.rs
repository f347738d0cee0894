//! Tests of the table of sleeping tasks: several waiters, several rounds, waiters that are dropped and registered again.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use loom::future::block_on;
use loom::thread;

use crate::beyond;
use crate::signal::{Signal, Waiter, Woken};

/// A task that counts its wake-ups.
#[derive(Default)]
struct Task(AtomicUsize);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Task {
    /// Returns `count` tasks, each with a waiter that is not registered yet.
    fn several(count: usize) -> Vec<(Arc<Self>, Waiter)> {
        (0..count).map(|_| Default::default()).collect()
    }

    fn woken(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Polls the state once; it must not meet the waiter's condition.
fn sleep(tail: &Signal<u64>, task: &Arc<Task>, waiter: &mut Waiter, offset: u64) {
    let waker = Waker::from(task.clone());
    let mut test = beyond(offset);
    let poll = tail.poll_until(waiter, &mut Context::from_waker(&waker), |tail| test(tail));
    assert_eq!(poll, Poll::Pending);
}

fn woken(tasks: &[(Arc<Task>, Waiter)]) -> Vec<usize> {
    tasks.iter().map(|(task, _)| task.woken()).collect()
}

/// The signal's lock is loom's, which works only inside a model. With one thread the model runs once.
fn on_one_thread(test: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.max_branches = 10_000;
    model.check(test);
}

/// Both wait for more than the first append brings, so both are woken in vain and register again in any order.
#[test]
fn two_waiters_that_register_again_after_one_wake_up_are_both_woken_by_the_next() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let tail = loom::sync::Arc::new(Signal::new(0));
        let other = thread::spawn({
            let tail = tail.clone();
            move || block_on(tail.wait_until(beyond(1)))
        });
        let publisher = thread::spawn({
            let tail = tail.clone();
            move || (tail.update(|tail| *tail += 1), tail.update(|tail| *tail += 1))
        });
        assert_eq!(block_on(tail.wait_until(beyond(1))), 2);
        assert_eq!(other.join().unwrap(), 2);
        publisher.join().unwrap();
        assert_eq!(tail.waiting(), 0);
    });
}

#[test]
fn waiters_that_register_again_in_another_order_keep_one_place_each() {
    on_one_thread(|| {
        let tail = Signal::new(0);
        let mut tasks = Task::several(5);
        for round in 1..=4 {
            for (task, waiter) in &mut tasks {
                sleep(&tail, task, waiter, 9);
            }
            assert_eq!(tail.waiting(), 5, "round {round}");
            tail.update(|tail| *tail += 1);
            assert_eq!(woken(&tasks), [round; 5]);
            assert_eq!(tail.waiting(), 0);
            tasks.rotate_left(2);
        }
    });
}

#[test]
fn a_waiter_that_polls_twice_in_a_round_has_one_place_and_its_last_waker() {
    on_one_thread(|| {
        let tail = Signal::new(0);
        let mut tasks = Task::several(3);
        let mut waiter = Waiter::default();
        for (task, _) in &tasks {
            sleep(&tail, task, &mut waiter, 0);
        }
        let (other, others) = tasks.split_last_mut().unwrap();
        sleep(&tail, &other.0.clone(), &mut other.1, 0);
        assert_eq!(tail.waiting(), 2);
        tail.update(|tail| *tail = 1);
        assert_eq!(woken(others), [0, 0], "the earlier wakers of one waiter");
        assert_eq!(other.0.woken(), 2, "its last one, and that of another waiter of the same task");
    });
}

#[test]
fn forgotten_waiters_drop_their_wakers_while_another_one_stays() {
    on_one_thread(|| {
        let tail = Signal::new(0);
        let mut tasks = Task::several(100);
        for (task, waiter) in &mut tasks {
            sleep(&tail, task, waiter, 0);
        }
        for (number, (task, waiter)) in tasks.iter_mut().enumerate() {
            if number != 42 {
                tail.forget(waiter);
                assert_eq!(Arc::strong_count(task), 1, "the waker of {number} stays");
            }
        }
        assert_eq!(tail.waiting(), 1);
        // Later waiters reuse the free places.
        for _ in 0..1000 {
            let mut waiter = Waiter::default();
            sleep(&tail, &Arc::default(), &mut waiter, 0);
            tail.forget(&mut waiter);
        }
        assert_eq!(tail.waiting(), 1);
        let all = tail.change(|tail| *tail = 1);
        assert!(all.len() <= 100, "{} places for one who stayed", all.len());
        drop(all);
        let woken = woken(&tasks);
        assert_eq!((woken[42], woken.iter().sum::<usize>()), (1, 1));
    });
}

#[test]
fn forgetting_a_waiter_twice_or_after_a_wake_up_removes_no_other_waiter() {
    on_one_thread(|| {
        let tail = Signal::new(0);
        let mut tasks = Task::several(3);
        for (task, waiter) in &mut tasks {
            sleep(&tail, task, waiter, 1);
        }
        tail.update(|tail| *tail = 1);
        // 1. One waiter registers again and gets the first place. The waiter that had that place before is forgotten.
        let (task, waiter) = &mut tasks[2];
        sleep(&tail, task, waiter, 1);
        tail.forget(&mut tasks[0].1);
        tail.forget(&mut tasks[0].1);
        assert_eq!(tail.waiting(), 1);
        // 2. The waiter is forgotten twice, and its place becomes free only once.
        tail.forget(&mut tasks[2].1);
        tail.forget(&mut tasks[2].1);
        assert_eq!(tail.waiting(), 0);
        for (task, waiter) in &mut tasks {
            sleep(&tail, task, waiter, 1);
        }
        assert_eq!(tail.waiting(), 3);
        tail.update(|tail| *tail = 2);
        assert_eq!(woken(&tasks), [2, 2, 2]);
    });
}

#[test]
fn a_waiter_whose_condition_is_met_is_no_longer_registered() {
    on_one_thread(|| {
        let tail = Signal::new(0);
        let mut tasks = Task::several(2);
        for (task, waiter) in &mut tasks {
            sleep(&tail, task, waiter, 0);
        }
        // The state changes without a wake-up, and one of them polls.
        tail.note(|tail| *tail = 1);
        assert_eq!(woken(&tasks), [0, 0]);
        let context = &mut Context::from_waker(Waker::noop());
        let found = tail.poll_until(&mut tasks[0].1, context, |tail| (*tail > 0).then_some(*tail));
        assert_eq!((found, tail.waiting()), (Poll::Ready(1), 1));
        tail.update(|tail| *tail = 2);
        assert_eq!(woken(&tasks), [0, 1]);
    });
}

#[test]
fn a_dropped_future_is_removed_and_another_one_stays() {
    on_one_thread(|| {
        let tail = Signal::<u64>::default();
        let mut staying = pin!(tail.wait_until(beyond(0)));
        let context = &mut Context::from_waker(Waker::noop());
        assert!(staying.as_mut().poll(context).is_pending());
        {
            let mut leaving = pin!(tail.wait_until(beyond(0)));
            assert!(leaving.as_mut().poll(context).is_pending());
            assert_eq!(tail.waiting(), 2);
        }
        assert_eq!(tail.waiting(), 1);
        tail.update(|tail| *tail = 3);
        assert_eq!(staying.poll(context), Poll::Ready(3));
    });
}

#[test]
fn waiters_are_woken_once_each_in_parts_of_any_size() {
    on_one_thread(|| {
        let tail = Signal::new(0);
        let mut tasks = Task::several(10);
        for (task, waiter) in &mut tasks {
            sleep(&tail, task, waiter, 0);
        }
        let counted = |tasks: &[(Arc<Task>, Waiter)]| woken(tasks).iter().sum::<usize>();
        let mut all: Woken = tail.change(|tail| *tail = 1);
        assert_eq!((all.len(), all.is_empty(), counted(&tasks)), (10, false, 0));
        all.wake(3);
        assert_eq!((all.len(), counted(&tasks)), (7, 3));
        let mut part = all.split_off(5);
        assert_eq!((part.len(), all.len(), counted(&tasks)), (5, 2, 3));
        part.wake(100);
        assert_eq!((part.len(), part.is_empty(), counted(&tasks)), (0, true, 8));
        drop(part);
        drop(all);
        assert_eq!(woken(&tasks), [1; 10]);
    });
}

/// A waiter of the first round was woken and has not polled again, while others register and are forgotten.
#[test]
fn a_waiter_that_is_forgotten_rounds_later_removes_no_other_waiter() {
    on_one_thread(|| {
        let tail = Signal::new(0);
        let mut tasks = Task::several(3);
        let [late, passing, staying] = &mut tasks[..] else { panic!("there are three") };
        sleep(&tail, &late.0, &mut late.1, 9);
        tail.update(|tail| *tail = 1);
        sleep(&tail, &passing.0, &mut passing.1, 9);
        tail.forget(&mut passing.1);
        sleep(&tail, &staying.0, &mut staying.1, 9);
        tail.forget(&mut late.1);
        assert_eq!(tail.waiting(), 1);
        tail.update(|tail| *tail = 2);
        assert_eq!(woken(&tasks), [1, 0, 1]);
    });
}

#[test]
fn a_waiter_knows_whether_it_is_registered_until_it_is_forgotten() {
    on_one_thread(|| {
        let (tail, task, mut waiter) = (Signal::new(0), Arc::<Task>::default(), Waiter::default());
        assert!(!waiter.is_registered());
        sleep(&tail, &task, &mut waiter, 1);
        assert!(waiter.is_registered());
        tail.update(|tail| *tail = 1);
        assert!(waiter.is_registered(), "its wake-up does not change that");
        tail.forget(&mut waiter);
        assert!(!waiter.is_registered());
    });
}
