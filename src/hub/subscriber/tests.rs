//! Tests of subscribers and their marks, in a hub on a paused clock.

use std::pin::{Pin, pin};
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time::advance;

use super::*;
use crate::clock::{Clock, in_time};
use crate::hub::in_place::PUBLISHER_DELIVERIES_MAX;
use crate::hub::{ClientId, Creation, PollSettings, Source, StreamReader};
use crate::limits::Limits;
use crate::metrics::{Counts, Metrics};
use crate::store::Memory;
use crate::stream::{Append, ContentType, Create, Lifetime, Payload, Position};

const TTL: Duration = Duration::from_secs(5);
const FAR_BEYOND: Duration = Duration::from_secs(500);

fn hub() -> Arc<Hub> {
    let (store, metrics) = (Arc::new(Memory::new()), Arc::new(Metrics::new()));
    Arc::new(Hub::new(store, Arc::new(Limits::default()), metrics, Clock::start()))
}

fn name(text: &str) -> StreamName {
    StreamName::parse(text).unwrap()
}

fn filter(text: &str) -> Filter {
    Filter::parse(text).unwrap()
}

async fn create(hub: &Hub, stream: &str) {
    let creation = Creation { lifetime: Some(Lifetime::Idle(TTL)), ..Creation::default() };
    hub.create(&name(stream), creation).await.unwrap();
}

async fn publish(hub: &Hub, stream: &str, body: &'static str) {
    let append = Append {
        close: body.is_empty(),
        ..Append::of(ContentType::octet_stream(), Payload::raw(body.into())).or_create()
    };
    hub.publish(&name(stream), append).await.unwrap();
}

fn is_ready(future: Pin<&mut impl Future>) -> bool {
    future.poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

/// Takes the current marks, in the order in which they were set.
async fn marks(subscriber: &Subscriber) -> Vec<String> {
    tokio::select! {
        biased;
        changed = subscriber.changed(100) => changed.iter().map(ToString::to_string).collect(),
        () = std::future::ready(()) => Vec::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn each_change_of_a_matching_stream_is_marked_once() {
    let hub = hub();
    let subscriber = hub.subscriber("subscriber");
    for text in ["a", "b/+", "b/#", "never//matched"] {
        subscriber.add(filter(text));
        subscriber.add(filter(text));
    }
    let metrics = hub.metrics.text(hub.counts(), &hub.memory());
    assert!(metrics.contains("pollgate_subscribers 1\n") && metrics.contains("pollgate_subscriptions 3\n"));
    for stream in ["a", "b/1", "b/2/3", "other"] {
        create(&hub, stream).await;
    }
    assert_eq!(marks(&subscriber).await, ["a", "b/1", "b/2/3"], "created");
    publish(&hub, "b/1", "x").await;
    publish(&hub, "a", "x").await;
    publish(&hub, "b/1", "y").await;
    publish(&hub, "other", "x").await;
    assert_eq!(marks(&subscriber).await, ["b/1", "a"], "appended to");
    publish(&hub, "a", "").await;
    assert_eq!(marks(&subscriber).await, ["a"], "closed");
    hub.delete(&name("a")).await.unwrap();
    hub.delete(&name("b/1")).await.unwrap();
    assert_eq!(marks(&subscriber).await, ["a", "b/1"], "deleted");
    publish(&hub, "a", "x").await;
    publish(&hub, "b/4", "x").await;
    assert_eq!(marks(&subscriber).await, ["a", "b/4"], "created by an append");
    subscriber.remove(&filter("a"));
    subscriber.remove(&filter("b/+"));
    publish(&hub, "a", "x").await;
    publish(&hub, "b/4", "x").await;
    assert_eq!(marks(&subscriber).await, ["b/4"], "another filter is still there");
    subscriber.remove(&filter("b/#"));
    publish(&hub, "b/4", "x").await;
    subscriber.mark(name("marked"));
    assert_eq!(marks(&subscriber).await, ["marked"]);
    drop(subscriber);
    assert_eq!(hub.counts(), Counts { streams: 4, ..Counts::default() });
}

#[tokio::test(start_paused = true)]
async fn marks_come_in_parts_and_a_dropped_wait_takes_none() {
    let hub = hub();
    let subscriber = hub.subscriber("subscriber");
    subscriber.add(filter("#"));
    let waiting = {
        let mut changed = pin!(subscriber.changed(2));
        assert!(!is_ready(changed.as_mut()));
        for stream in ["3", "1", "2"] {
            create(&hub, stream).await;
        }
        subscriber.member.marks.waiting()
    };
    assert_eq!((waiting, subscriber.member.marks.waiting()), (0, 0));
    assert_eq!(in_time("two marks", subscriber.changed(2)).await, [name("3"), name("1")]);
    publish(&hub, "3", "x").await;
    assert_eq!(in_time("one mark", subscriber.changed(0)).await, [name("2")]);
    assert_eq!(marks(&subscriber).await, ["3"]);
}

#[tokio::test(start_paused = true)]
async fn changes_beyond_the_maximum_of_marks_are_reported_as_an_overflow() {
    const OVER: usize = 3;
    const MAX: usize = registry::MARKS_MAX as usize;
    let hub = hub();
    let subscriber = hub.subscriber("subscriber");
    subscriber.add(filter("s/#"));
    for number in 0..MAX + OVER {
        assert!(number > MAX || !subscriber.take_overflow());
        publish(&hub, &format!("s/{number}"), "x").await;
    }
    publish(&hub, "s/0", "y").await;
    assert!(subscriber.take_overflow());
    assert!(!subscriber.take_overflow(), "the overflow is reported once");
    let marked = in_time("the marks", subscriber.changed(usize::MAX)).await;
    assert_eq!(marked.len(), MAX);
    // A walk over all streams finds those without a mark.
    let (mut walk, mut found) = (StreamWalk::over([&filter("s/#")]), 0);
    while let Some(streams) = hub.next_streams(&mut walk).await {
        found += streams.len();
    }
    assert_eq!(found, MAX + OVER);
}

/// On a runtime with one thread, a task runs only when the test yields.
#[tokio::test]
async fn few_subscribers_of_a_filter_are_marked_by_the_publisher_and_more_by_a_task() {
    for (count, by_publisher) in [(PUBLISHER_DELIVERIES_MAX, true), (PUBLISHER_DELIVERIES_MAX + 1, false)] {
        let hub = hub();
        let subscribers: Vec<_> = (0..count).map(|number| hub.subscriber(number.to_string())).collect();
        subscribers.iter().for_each(|subscriber| subscriber.add(filter("s")));
        let marked = || {
            let is_marked = |it: &&Subscriber| it.member.marks.note(|marks| !marks.is_empty());
            subscribers.iter().filter(is_marked).count()
        };
        hub.waiters.end(&name("s"));
        assert_eq!(marked(), if by_publisher { count } else { 0 });
        let all_are_marked = async {
            while marked() < count {
                tokio::task::yield_now().await;
            }
        };
        in_time("all are marked", all_are_marked).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_with_a_subscriber_by_name_does_not_expire_in_any_epoch() {
    let hub = hub();
    let sweep = async || hub.store.sweep(hub.clock.now()).await.unwrap();
    let subscriber = hub.subscriber("subscriber");
    subscriber.add(filter("s"));
    for _ in 0..3 {
        create(&hub, "s").await;
        advance(FAR_BEYOND).await;
        assert!(sweep().await.is_empty(), "the stream is in use");
        hub.waiters.end(&name("s"));
        advance(FAR_BEYOND).await;
        assert!(sweep().await.is_empty(), "a late report of the end of an earlier epoch changes nothing");
        hub.delete(&name("s")).await.unwrap();
    }
    create(&hub, "s").await;
    let reader = hub.stream_reader(&name("s"), Start::Tail);
    let poll = hub.poll(reader, PollSettings { hold: TTL, client: None, credentials: None, open: None });
    assert!(
        in_time("the hold ends", poll).await.unwrap().held,
        "a poll releases only its own use of the stream"
    );
    advance(FAR_BEYOND).await;
    hub.waiters.end(&name("s"));
    advance(FAR_BEYOND).await;
    assert!(sweep().await.is_empty());
    subscriber.remove(&filter("s"));
    advance(TTL).await;
    assert_eq!(sweep().await, [name("s")]);
    create(&hub, "t").await;
    subscriber.add(filter("+"));
    advance(TTL).await;
    assert_eq!(sweep().await, [name("t")], "a wildcard filter does not count as use of a stream");
}

/// The reports of an end and of the next creation come in any order.
#[tokio::test(start_paused = true)]
async fn a_stream_is_in_use_from_the_report_of_the_end_of_its_predecessor_on() {
    let hub = hub();
    let subscriber = hub.subscriber("subscriber");
    subscriber.add(filter("s"));
    create(&hub, "s").await;
    hub.store.delete(&name("s"), hub.clock.now()).await.unwrap();
    let creation =
        Create { lifetime: Some(Lifetime::Idle(TTL)), ..Create::open(ContentType::octet_stream()) };
    hub.store.create(&name("s"), creation, hub.clock.now()).await.unwrap();
    hub.waiters.end(&name("s"));
    advance(FAR_BEYOND).await;
    assert!(hub.store.sweep(hub.clock.now()).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_expiry_that_a_request_noticed_is_reported_by_the_next_sweep() {
    let hub = hub();
    let subscriber = hub.subscriber("subscriber");
    subscriber.add(filter("#"));
    create(&hub, "s").await;
    assert_eq!(marks(&subscriber).await, ["s"]);
    advance(TTL).await;
    assert!(hub.read(&name("s"), Start::Earliest).await.is_err());
    let sweeping = tokio::time::timeout(Duration::from_secs(2), hub.sweep());
    let (_, changed) = tokio::join!(sweeping, in_time("the end is reported", subscriber.changed(9)));
    assert_eq!(changed, [name("s")]);
}

#[tokio::test(start_paused = true)]
async fn a_report_of_an_earlier_epoch_does_not_wake_a_reader_of_the_present_one() {
    let hub = hub();
    let subscriber = hub.subscriber("subscriber");
    subscriber.add(filter("s"));
    create(&hub, "s").await;
    let earlier_epoch = hub.read(&name("s"), Start::Earliest).await.unwrap().epoch;
    hub.delete(&name("s")).await.unwrap();
    create(&hub, "s").await;
    let mut reader = hub.stream_reader(&name("s"), Start::Earliest);
    reader.read(usize::MAX).await.unwrap();
    hub.waiters.advance(&name("s"), earlier_epoch, Position(100), true);
    assert!(!has_changed(&mut reader));
    publish(&hub, "s", "x").await;
    assert!(has_changed(&mut reader));
    assert_eq!(reader.read(usize::MAX).await.unwrap().messages, 1);
    hub.waiters.advance(&name("s"), earlier_epoch, Position(100), true);
    assert!(!has_changed(&mut reader));
}

fn has_changed(reader: &mut StreamReader) -> bool {
    reader.poll_changed(&mut Context::from_waker(Waker::noop())).is_ready()
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_may_have_missed_changes_is_woken_although_no_stream_is_marked() {
    let hub = hub();
    let subscriber = hub.subscriber("s");
    subscriber.add(filter("s/#"));
    let (mut waiter, mut context) = (Waiter::default(), Context::from_waker(Waker::noop()));
    assert!(subscriber.poll_changed(&mut waiter, &mut context, 10).is_pending());
    hub.subscribers.missed();
    assert_eq!(subscriber.poll_changed(&mut waiter, &mut context, 10), Poll::Ready(Vec::new()));
    assert!(subscriber.take_overflow());
    assert!(subscriber.poll_changed(&mut waiter, &mut context, 10).is_pending());
}

#[tokio::test(start_paused = true)]
async fn operators_see_subscribers_and_polls_of_a_client_together() {
    let hub = hub();
    create(&hub, "s").await;
    let (both, other) = (hub.subscriber("both"), hub.subscriber("ein Gerät / 1"));
    both.add(filter("s/#"));
    both.add(filter("s"));
    both.delivered(2);
    both.delivered(1);
    other.add(filter("+"));
    let client = Some(ClientId::parse("both").unwrap());
    let reader = hub.stream_reader(&name("s"), Start::Tail);
    let polling = hub.poll(reader, PollSettings { hold: TTL, client, credentials: None, open: None });
    let mut polling = pin!(polling);
    assert!(!is_ready(polling.as_mut()));
    let views = hub.clients("", 10);
    let ids: Vec<_> = views.iter().map(|view| view.client.as_str()).collect();
    assert_eq!(ids, ["both", "ein Gerät / 1"]);
    let view = serde_json::to_value(hub.client("both")).unwrap();
    assert_eq!(view["held"][0]["stream"], "s");
    assert_eq!(view["subscribed"]["filters"], serde_json::json!(["s", "s/#"]));
    assert_eq!(view["subscribed"]["delivered"], 3);
    assert!(view["subscribed"]["since"].as_str().unwrap().ends_with('Z'));
    let view = serde_json::to_value(hub.client("ein Gerät / 1")).unwrap();
    assert_eq!((&view["subscribed"]["filters"][0], &view["answered"]), (&"+".into(), &0.into()));
    assert_eq!(hub.clients("", 1).len(), 1);
    let again = hub.subscriber("both");
    assert!(hub.client("both").unwrap().subscribed.unwrap().filters.is_empty(), "the newer one is shown");
    drop((both, other, again));
    assert!(hub.client("ein Gerät / 1").is_none());
    let view = serde_json::to_value(hub.client("both")).unwrap();
    assert!(view.get("subscribed").is_none() && view["held"][0]["stream"] == "s");
}
