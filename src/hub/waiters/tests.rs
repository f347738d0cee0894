//! Tests of the registry, and of the state that waiters test.

use std::task::{Context, Wake, Waker};

use bytes::Bytes;

use super::*;
use crate::hub::signal::Waiter;
use crate::hub::subscriber::Subscribers;
use crate::store::Memory;
use crate::stream::{Batch, ContentType};

const EPOCH: Epoch = Epoch(7);

/// A task, which counts how often it is woken.
#[derive(Default)]
struct Task(AtomicUsize);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Task {
    fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(self.clone())
    }

    fn woken(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

fn name(text: &str) -> StreamName {
    StreamName::parse(text).unwrap()
}

fn filter(text: &str) -> Filter {
    Filter::parse(text).unwrap()
}

fn registry() -> WaiterRegistry {
    WaiterRegistry::new(Arc::new(Memory::new()), Clock::start(), Arc::default())
}

/// Two subscribers.
fn members() -> [Arc<Member>; 2] {
    let subscribers = Subscribers::default();
    [subscribers.unlisted(), subscribers.unlisted()]
}

fn offset(position: u64) -> Offset {
    Offset { epoch: EPOCH, position: Position(position) }
}

/// A batch of one byte that ends at `tail`.
fn batch(epoch: Epoch, tail: u64, closed: bool) -> SharedBatch {
    SharedBatch::from(Batch {
        content_type: ContentType::octet_stream(),
        pieces: vec![Bytes::from_static(b"x")],
        messages: 1,
        start: offset(tail - 1),
        next: offset(tail),
        tail: Position(tail),
        up_to_date: true,
        closed,
        epoch,
        lives_for: None,
    })
}

/// Lets a task wait for a tail beyond that of a stream that has begun.
fn wait(waiters: &StreamWaiters, waiter: &mut Waiter, task: &Arc<Task>) {
    let tail = waiters.signal.note(|state| state.tail);
    let waker = task.waker();
    let waiting = waiters.signal.poll_until(waiter, &mut Context::from_waker(&waker), |state| {
        state.moved(Offset { epoch: EPOCH, position: tail }, EPOCH, tail)
    });
    assert!(waiting.is_pending());
}

/// Waiters of a stream with a tail, counted as `readers`; all wait.
fn crowd(readers: usize) -> (Arc<StreamWaiters>, Vec<Waiter>, Arc<Task>) {
    let (waiters, task) = (StreamWaiters::new(&name("s")), Arc::<Task>::default());
    waiters.readers.store(readers, Ordering::Relaxed);
    waiters.advance(EPOCH, Position(1), false);
    let mut crowd: Vec<_> = (0..readers).map(|_| Waiter::default()).collect();
    crowd.iter_mut().for_each(|waiter| wait(&waiters, waiter, &task));
    (waiters, crowd, task)
}

#[test]
fn an_entry_is_there_as_long_as_a_reader_or_a_subscriber_is() {
    let (registry, [one, other]) = (registry(), members());
    let readers = [registry.join(&name("s"), None), registry.join(&name("s"), None)];
    registry.subscribe(&filter("s"), &one);
    registry.subscribe_to(&name("t"), &other);
    assert_eq!(registry.count(), (2, 0));
    registry.unsubscribe(&filter("s"), &one);
    for waiters in &readers {
        assert_eq!(registry.count().0, 2);
        registry.leave(waiters, None);
    }
    assert_eq!(registry.count().0, 1, "the entry of the last reader is gone");
    let reader = registry.join(&name("t"), None);
    registry.unsubscribe_from(&name("t"), &other);
    assert_eq!(registry.count().0, 1, "a reader is left");
    registry.leave(&reader, None);
    assert_eq!(registry.count(), (0, 0));
}

#[test]
fn readers_subscribers_filters_and_waiting_tasks_are_counted() {
    let (registry, [one, other]) = (registry(), members());
    assert!(!registry.has_readers(&name("s")));
    let reader = registry.join(&name("s"), None);
    assert_eq!((registry.readers(&name("s")), registry.readers(&name("t"))), (1, 0));
    registry.subscribe(&filter("s"), &one);
    registry.subscribe(&filter("s"), &other);
    assert_eq!(registry.readers(&name("s")), 3);
    registry.subscribe(&filter("t"), &one);
    registry.subscribe(&filter("w/+"), &one);
    registry.subscribe(&filter("w/#"), &other);
    assert_eq!((registry.readers(&name("t")), registry.subscriptions()), (1, 5));
    let have_readers = ["s", "t", "w/1", "other"].map(|text| registry.has_readers(&name(text)));
    assert_eq!(have_readers, [true, true, true, false]);
    let (mut waiters, task) = ([Waiter::default(), Waiter::default()], Arc::<Task>::default());
    registry.advance(&name("s"), EPOCH, Position(1), false);
    waiters.iter_mut().for_each(|waiter| wait(&reader, waiter, &task));
    assert_eq!(registry.count(), (2, 2));
}

#[test]
fn a_subscriber_by_name_or_wildcard_is_marked_for_each_kind_of_change() {
    let (registry, [exact, wildcard]) = (registry(), members());
    registry.subscribe(&filter("s"), &exact);
    registry.subscribe(&filter("+"), &wildcard);
    let changes: [&dyn Fn(); 3] = [
        &|| registry.begin(&name("s"), EPOCH, Position(0), false),
        &|| registry.advance(&name("s"), EPOCH, Position(1), false),
        &|| registry.end(&name("s")),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        change();
        for member in [&exact, &wildcard] {
            assert_eq!(member.marks.note(|marks| marks.take(9)), [name("s")], "change {number}");
        }
    }
    registry.unsubscribe(&filter("+"), &wildcard);
    registry.advance(&name("s"), EPOCH, Position(2), false);
    assert!(wildcard.marks.note(|marks| marks.is_empty()) && exact.marks.note(|marks| !marks.is_empty()));
}

#[test]
fn a_report_that_was_overtaken_moves_nothing_back() {
    let mut state = TailState::default();
    for (epoch, tail, closed, after) in [
        (2, 5, false, (2, 5, false)),
        (2, 3, false, (2, 5, false)),
        (2, 6, true, (2, 6, true)),
        (2, 4, false, (2, 6, true)),
        (1, 9, true, (2, 6, true)),
        (3, 1, false, (3, 1, false)),
        (2, 7, true, (3, 1, false)),
    ] {
        state.advance(Epoch(epoch), Position(tail), closed);
        let (epoch, tail, closed) = after;
        assert_eq!((state.epoch, state.tail, state.closed), (Some(Epoch(epoch)), Position(tail), closed));
        assert!(state.moved_at.is_some());
    }
}

#[test]
fn a_reader_reads_again_if_the_tail_has_moved_or_the_stream_has_closed_or_ended() {
    let moves = |known: Option<(u64, u64, bool)>, epoch: u64, tail: u64| {
        let mut state = TailState::default();
        if let Some((epoch, tail, closed)) = known {
            state.advance(Epoch(epoch), Position(tail), closed);
        }
        state.moved(offset(tail), Epoch(epoch), Position(tail)).is_some()
    };
    assert!(!moves(None, 2, 5), "nothing was reported");
    for (known, moved) in [
        ((2, 4, false), false),
        ((2, 5, false), false),
        ((2, 6, false), true),
        ((2, 5, true), true),
        ((1, 9, true), false),
        ((3, 0, false), true),
    ] {
        assert_eq!(moves(Some(known), 2, 5), moved, "{known:?}");
    }
    let state = TailState { gone: true, ..TailState::default() };
    assert!(matches!(state.moved(offset(5), EPOCH, Position(5)), Some(TailMove::Gone)));
}

#[test]
fn a_batch_is_shared_with_other_readers_at_its_offset_as_long_as_it_is_the_newest() {
    let is_shared = |readers: usize, shared: &SharedBatch, from: u64| {
        let waiters = StreamWaiters::new(&name("s"));
        waiters.readers.store(readers, Ordering::Relaxed);
        waiters.advance(EPOCH, Position(5), false);
        waiters.share(offset(4), shared);
        match waiters.signal.note(|state| state.moved(offset(from), EPOCH, Position(4))) {
            Some(TailMove::On(change)) => change.batch.is_some(),
            _ => panic!("the tail has moved"),
        }
    };
    let newest = batch(EPOCH, 5, false);
    assert!(is_shared(2, &newest, 4) && is_shared(3, &newest, 4));
    assert!(!is_shared(1, &newest, 4), "there is no other reader");
    assert!(!is_shared(2, &newest, 3), "at another offset");
    for other in [batch(Epoch(6), 5, false), batch(EPOCH, 6, false), batch(EPOCH, 5, true)] {
        assert!(!is_shared(2, &other, 4), "{other:?}");
    }
    let waiters = StreamWaiters::new(&name("s"));
    waiters.readers.store(2, Ordering::Relaxed);
    waiters.advance(EPOCH, Position(5), false);
    waiters.share(offset(4), &newest);
    waiters.advance(EPOCH, Position(6), false);
    assert!(waiters.signal.note(|state| state.read.is_none()), "it is no longer all that can be read");
}

/// On a runtime with one thread, a task runs only when the test yields.
#[tokio::test]
async fn few_waiters_are_woken_by_the_publisher_and_the_others_by_a_task_that_yields() {
    let (waiters, _crowd, task) = crowd(PUBLISHER_DELIVERIES_MAX);
    waiters.advance(EPOCH, Position(2), false);
    assert_eq!(task.woken(), PUBLISHER_DELIVERIES_MAX);

    for end in [false, true] {
        let turns = [0, 1, 2].map(|turns| PUBLISHER_DELIVERIES_MAX + turns * DELIVERIES_PER_TURN);
        let many = turns[2] + 3;
        let (waiters, _crowd, task) = crowd(many);
        if end {
            waiters.end();
        } else {
            waiters.advance(EPOCH, Position(2), false);
        }
        for woken in turns.into_iter().chain([many]) {
            assert_eq!(task.woken(), woken);
            yield_now().await;
        }
    }
}

#[test]
fn without_a_runtime_all_waiters_are_woken_by_the_publisher() {
    let (waiters, _crowd, task) = crowd(PUBLISHER_DELIVERIES_MAX + 1);
    waiters.advance(EPOCH, Position(2), false);
    assert_eq!(task.woken(), PUBLISHER_DELIVERIES_MAX + 1);
}
