//! What a subscriber is told, in a hub on a paused clock.

use std::pin::{Pin, pin};
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time::advance;

use super::*;
use crate::clock::{Clock, in_time};
use crate::hub::{ClientId, Creation, PollSettings, Source, StreamReader};
use crate::limits::Limits;
use crate::metrics::{Counts, Metrics};
use crate::store::Memory;
use crate::stream::{Append, ContentType, Lifetime, Payload, Position};

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

/// The marks that there are now, in the order in which they came.
async fn marks(subscriber: &Subscriber) -> Vec<String> {
    tokio::select! {
        biased;
        changed = subscriber.changed(100) => changed.iter().map(ToString::to_string).collect(),
        () = std::future::ready(()) => Vec::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn each_change_of_a_stream_that_a_filter_matches_is_told_once() {
    let hub = hub();
    let follower = hub.subscriber("follower");
    for text in ["a", "b/+", "b/#", "never//matched"] {
        follower.add(filter(text));
        follower.add(filter(text));
    }
    let metrics = hub.metrics.text(hub.counts(), &hub.memory());
    assert!(metrics.contains("pollgate_subscribers 1\n") && metrics.contains("pollgate_subscriptions 3\n"));
    for stream in ["a", "b/1", "b/2/3", "other"] {
        create(&hub, stream).await;
    }
    assert_eq!(marks(&follower).await, ["a", "b/1", "b/2/3"], "created");
    publish(&hub, "b/1", "x").await;
    publish(&hub, "a", "x").await;
    publish(&hub, "b/1", "y").await;
    publish(&hub, "other", "x").await;
    assert_eq!(marks(&follower).await, ["b/1", "a"], "appended to");
    publish(&hub, "a", "").await;
    assert_eq!(marks(&follower).await, ["a"], "closed");
    hub.delete(&name("a")).await.unwrap();
    hub.delete(&name("b/1")).await.unwrap();
    assert_eq!(marks(&follower).await, ["a", "b/1"], "deleted");
    publish(&hub, "a", "x").await;
    publish(&hub, "b/4", "x").await;
    assert_eq!(marks(&follower).await, ["a", "b/4"], "created by an append");
    follower.remove(&filter("a"));
    follower.remove(&filter("b/+"));
    publish(&hub, "a", "x").await;
    publish(&hub, "b/4", "x").await;
    assert_eq!(marks(&follower).await, ["b/4"], "another filter is still there");
    follower.remove(&filter("b/#"));
    publish(&hub, "b/4", "x").await;
    follower.mark(name("marked"));
    assert_eq!(marks(&follower).await, ["marked"]);
    drop(follower);
    assert_eq!(hub.counts(), Counts { streams: 4, ..Counts::default() });
}

#[tokio::test(start_paused = true)]
async fn marks_come_in_parts_and_a_dropped_wait_takes_none() {
    let hub = hub();
    let follower = hub.subscriber("follower");
    follower.add(filter("#"));
    let waiting = {
        let mut changed = pin!(follower.changed(2));
        assert!(!is_ready(changed.as_mut()));
        for stream in ["3", "1", "2"] {
            create(&hub, stream).await;
        }
        follower.member.marks.waiting()
    };
    assert_eq!((waiting, follower.member.marks.waiting()), (0, 0));
    assert_eq!(in_time("two marks", follower.changed(2)).await, [name("3"), name("1")]);
    publish(&hub, "3", "x").await;
    assert_eq!(in_time("one mark", follower.changed(0)).await, [name("2")]);
    assert_eq!(marks(&follower).await, ["3"]);
}

#[tokio::test(start_paused = true)]
async fn streams_beyond_those_that_can_be_marked_are_told_as_an_overflow() {
    const OVER: usize = 3;
    let hub = hub();
    let follower = hub.subscriber("follower");
    follower.add(filter("s/#"));
    for number in 0..registry::MARKS_MAX + OVER {
        assert!(number > registry::MARKS_MAX || !follower.take_overflow());
        publish(&hub, &format!("s/{number}"), "x").await;
    }
    publish(&hub, "s/0", "y").await;
    assert!(follower.take_overflow());
    assert!(!follower.take_overflow(), "it was told");
    let marked = in_time("the marks", follower.changed(usize::MAX)).await;
    assert_eq!(marked.len(), registry::MARKS_MAX);
    // What is not marked is found by a walk over all streams.
    let (mut walk, mut found) = (StreamWalk::over([&filter("s/#")]), 0);
    while let Some(streams) = hub.next_streams(&mut walk).await {
        found += streams.len();
    }
    assert_eq!(found, registry::MARKS_MAX + OVER);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_somebody_names_does_not_end_whatever_life_it_is_in() {
    let hub = hub();
    let sweep = || hub.store.sweep(hub.clock.now());
    let follower = hub.subscriber("follower");
    follower.add(filter("s"));
    for _ in 0..3 {
        create(&hub, "s").await;
        advance(FAR_BEYOND).await;
        assert!(sweep().is_empty(), "it is in use");
        hub.waiters.end(&name("s"));
        advance(FAR_BEYOND).await;
        assert!(sweep().is_empty(), "the late end of a former life changes nothing");
        hub.delete(&name("s")).await.unwrap();
    }
    create(&hub, "s").await;
    let reader = hub.stream_reader(&name("s"), Start::Tail);
    let poll = hub.poll(reader, PollSettings { hold: TTL, client: None });
    assert!(
        in_time("the hold ends", poll).await.unwrap().held,
        "a poll beside it gives back its own part only"
    );
    advance(FAR_BEYOND).await;
    hub.waiters.end(&name("s"));
    advance(FAR_BEYOND).await;
    assert!(sweep().is_empty());
    follower.remove(&filter("s"));
    advance(TTL).await;
    assert_eq!(sweep(), [name("s")]);
    create(&hub, "t").await;
    follower.add(filter("+"));
    advance(TTL).await;
    assert_eq!(sweep(), [name("t")], "a wildcard is no use of a stream");
}

#[tokio::test(start_paused = true)]
async fn an_end_that_only_a_request_noticed_is_told_by_the_next_sweep() {
    let hub = hub();
    let follower = hub.subscriber("follower");
    follower.add(filter("#"));
    create(&hub, "s").await;
    assert_eq!(marks(&follower).await, ["s"]);
    advance(TTL).await;
    assert!(hub.read(&name("s"), Start::Earliest).await.is_err());
    let sweeping = tokio::time::timeout(Duration::from_secs(2), hub.sweep());
    let (_, changed) = tokio::join!(sweeping, in_time("the end is told", follower.changed(9)));
    assert_eq!(changed, [name("s")]);
}

#[tokio::test(start_paused = true)]
async fn news_of_a_former_life_do_not_wake_who_waits_in_the_present_one() {
    let hub = hub();
    let follower = hub.subscriber("follower");
    follower.add(filter("s"));
    create(&hub, "s").await;
    let former = hub.read(&name("s"), Start::Earliest).await.unwrap().epoch;
    hub.delete(&name("s")).await.unwrap();
    create(&hub, "s").await;
    let mut reader = hub.stream_reader(&name("s"), Start::Earliest);
    reader.read(usize::MAX).await.unwrap();
    hub.waiters.advance(&name("s"), former, Position(100), true, None);
    assert!(!has_changed(&mut reader));
    publish(&hub, "s", "x").await;
    assert!(has_changed(&mut reader));
    assert_eq!(reader.read(usize::MAX).await.unwrap().messages, 1);
    hub.waiters.advance(&name("s"), former, Position(100), true, None);
    assert!(!has_changed(&mut reader));
}

fn has_changed(reader: &mut StreamReader) -> bool {
    reader.poll_changed(&mut Context::from_waker(Waker::noop())).is_ready()
}

#[tokio::test(start_paused = true)]
async fn operators_see_who_subscribes_beside_who_polls() {
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
    let polling = hub.poll(reader, PollSettings { hold: TTL, client });
    let mut polling = pin!(polling);
    assert!(!is_ready(polling.as_mut()));
    let views = hub.clients(10);
    let ids: Vec<_> = views.iter().map(|view| view.client.as_str()).collect();
    assert_eq!(ids, ["both", "ein Gerät / 1"]);
    let view = serde_json::to_value(hub.client("both")).unwrap();
    assert_eq!(view["held"][0]["stream"], "s");
    assert_eq!(view["subscribed"]["filters"], serde_json::json!(["s", "s/#"]));
    assert_eq!(view["subscribed"]["delivered"], 3);
    assert!(view["subscribed"]["since"].as_str().unwrap().ends_with('Z'));
    let view = serde_json::to_value(hub.client("ein Gerät / 1")).unwrap();
    assert_eq!((&view["subscribed"]["filters"][0], &view["answered"]), (&"+".into(), &0.into()));
    assert_eq!(hub.clients(1).len(), 1);
    let again = hub.subscriber("both");
    assert!(hub.client("both").unwrap().subscribed.unwrap().filters.is_empty(), "the newer one is shown");
    drop((both, other, again));
    assert!(hub.client("ein Gerät / 1").is_none());
    let view = serde_json::to_value(hub.client("both")).unwrap();
    assert!(view.get("subscribed").is_none() && view["held"][0]["stream"] == "s");
}
