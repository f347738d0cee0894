//! Tests of deliveries in place by one thread; `tests/signal` has those of several.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::clock::Clock;
use crate::hub::in_place::{InPlace, deliver, is_in_place};
use crate::hub::signal::Signal;
use crate::hub::{Creation, Hub, PollSettings, RequestedStream, Source};
use crate::metrics::Metrics;
use crate::store::Memory;
use crate::stream::{Append, ContentType, Description, Payload, Progress, Start, StreamName};

type TailSignal = Arc<Signal<u64>>;

/// Each connection has it, and the allocator a size class of 64 bytes.
#[test]
fn what_a_connection_shares_with_publishers_takes_64_bytes() {
    assert_eq!(InPlace::<std::io::Result<()>>::SHARED_BYTES, 64);
}

/// A reader that waits for the first message, and then does something.
fn reader<T: Send + 'static>(tail: &TailSignal, then: impl FnOnce() -> T + Send + 'static) -> InPlace<T> {
    let tail = tail.clone();
    InPlace::new(Box::pin(async move {
        tail.wait_until(|tail| (*tail > 0).then_some(())).await;
        then()
    }))
}

fn poll<T: Send + 'static>(reader: Pin<&mut InPlace<T>>) -> Poll<T> {
    reader.poll(&mut Context::from_waker(Waker::noop()))
}

fn publish(tail: &TailSignal) {
    deliver(|| tail.update(|tail| *tail += 1));
}

#[test]
fn a_reader_has_a_message_when_its_delivery_returns() {
    let tail = TailSignal::default();
    let mut reader = pin!(reader(&tail, is_in_place));
    assert!(poll(reader.as_mut()).is_pending());
    publish(&tail);
    assert_eq!(tail.waiting(), 0);
    assert!(!is_in_place());
    assert_eq!(poll(reader), Poll::Ready(true));
}

/// Checks that a held poll with a reader of the stream "s" is answered when the append that it waits for returns.
async fn is_answered_before_the_publisher<S: Source>(reader: impl FnOnce(&Arc<Hub>, &Description) -> S) {
    let (store, metrics, limits) = (Arc::new(Memory::new()), Arc::new(Metrics::new()), Arc::default());
    let hub = Arc::new(Hub::new(store, limits, metrics, Clock::start()));
    let name = StreamName::parse("s").unwrap();
    hub.create(&name, Creation::default()).await.unwrap();
    let stream = hub.describe(&name).await.unwrap();
    let (answers, polling, reader) = (Arc::new(AtomicU64::new(0)), hub.clone(), reader(&hub, &stream));
    let answered = answers.clone();
    let mut polls = pin!(InPlace::new(Box::pin(async move {
        let settings = PollSettings { hold: Duration::from_secs(20), ..PollSettings::default() };
        let polled = polling.poll(reader, settings).await.unwrap();
        assert!(S::is_news(&polled.batch));
        answered.fetch_add(1, Ordering::Relaxed);
    })));
    assert!(poll(polls.as_mut()).is_pending());
    let append = Append::of(ContentType::octet_stream(), Payload::raw("x".into()));
    hub.publish(&name, append).await.unwrap();
    assert_eq!(answers.load(Ordering::Relaxed), 1);
    assert_eq!(hub.counts().held_polls, 0);
    assert!(poll(polls).is_ready());
}

#[tokio::test]
async fn a_held_poll_of_one_stream_is_answered_when_the_append_that_it_waited_for_returns() {
    let name = StreamName::parse("s").unwrap();
    is_answered_before_the_publisher(|hub, _| hub.stream_reader(&name, Start::Earliest)).await;
}

#[tokio::test]
async fn a_held_poll_of_many_streams_is_answered_when_the_append_that_it_waited_for_returns() {
    is_answered_before_the_publisher(|hub, stream| {
        let of = |name: &str, progress| RequestedStream {
            stream: StreamName::parse(name).unwrap(),
            progress: Some(progress),
            history: 0,
            times: false,
            withheld: false,
        };
        hub.multi_reader(vec![of("none", Progress::Missing), of("s", Progress::At(stream.tail))])
    })
    .await;
}

#[test]
fn a_panic_of_a_reader_is_one_of_its_task_and_not_of_the_publisher() {
    let tail = TailSignal::default();
    let mut reader = pin!(reader(&tail, || resume_unwind(Box::new("a reader's"))));
    assert!(poll::<()>(reader.as_mut()).is_pending());
    publish(&tail);
    assert!(!is_in_place());
    let panic = catch_unwind(AssertUnwindSafe(|| poll(reader)));
    assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"a reader's"));
}
