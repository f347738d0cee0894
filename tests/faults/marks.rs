//! Races between publishers and subscribers that subscribe, unsubscribe and follow a stream through its deletions, in process
//! and on two threads.
//!
//! A lost mark shows as a subscriber that has neither read the message nor is notified of its stream in time. Leftover state
//! shows in the hub's counts, and as a stream whose TTL never elapses. `RACES` sets the number of appends that race a new
//! subscriber; each other kind races a tenth as often.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pollgate::clock::Clock;
use pollgate::hub::{Creation, Hub, StreamWalk, Subscriber};
use pollgate::limits::Limits;
use pollgate::metrics::{Counts, Metrics};
use pollgate::store::Memory;
use pollgate::stream::{
    Append, ContentType, Filter, Lifetime, MessageLimit, Offset, Payload, ReadError, Start, Store, StreamName,
};
use tokio::time::{Instant, timeout};

use crate::arena::{Arena, Tally};

const APPENDS: u64 = 100_000;
const PATIENCE: Duration = Duration::from_secs(60);
/// Number of races on one stream before the next one.
const RACES_A_STREAM: u64 = 500;
/// Longer than the test, so that only the end of the test shows whether the TTL elapses.
const TTL: Duration = Duration::from_secs(3600);
const LIMIT: MessageLimit = MessageLimit { bytes_max: 1 << 20, count_max: 1000 };

/// A hub, and a stream whose tail is known.
struct RacedStream {
    hub: Arc<Hub>,
    store: Arc<Memory>,
    clock: Clock,
    stream: StreamName,
    tail: Offset,
}

#[test]
fn no_race_against_a_subscriber_loses_a_mark_or_leaves_a_place() {
    let _turn = Arena::turn();
    let mut arena = Arena::open();
    let [mut exact, mut wildcard, mut mixed, mut follow, mut create] = [Tally::default(); 5];
    let since = Instant::now();
    let mut raced = arena.wait(RacedStream::open());
    for race in Arena::rounds(APPENDS) {
        let (filter, tally) =
            if race % 2 == 0 { ("room/+/#", &mut wildcard) } else { (raced.stream.as_str(), &mut exact) };
        let filter = Filter::parse(filter).expect("a filter");
        raced.subscribe(&mut arena, tally, filter);
        if race % 10 == 0 {
            raced.unsubscribe_while_another_subscribes(&mut arena, &mut mixed);
            raced.follow(&mut arena, &mut follow, if race % 20 == 0 { "room/+" } else { "room/lives" });
            raced.create(&mut arena, &mut create);
        }
        if race % RACES_A_STREAM == 0 {
            raced = raced.next(&arena, race);
        }
    }
    let counts = raced.end(&arena);
    println!(
        "marks in {:.1?}: appends to a subscriber by name {exact}, by wildcard {wildcard}; leaving while another \
         comes {mixed}; delete, create, append {follow}; creation {create}; 0 marks lost; left: {counts:?}",
        since.elapsed(),
    );
    assert_eq!(counts, Counts::default());
    for tally in [exact, wildcard, mixed, follow, create] {
        tally.was_close();
    }
}

impl RacedStream {
    async fn open() -> Self {
        let (store, clock) = (Arc::new(Memory::new()), Clock::start());
        let (limits, metrics) = (Arc::new(Limits::default()), Arc::new(Metrics::new()));
        let hub = Arc::new(Hub::new(store.clone(), limits, metrics, clock));
        let stream = StreamName::parse("room/0").expect("a name");
        let tail = begin(&hub, &stream).await;
        Self { hub, store, clock, stream, tail }
    }

    /// Continues with another stream on the same hub. The former one expires, since it has no subscriber any more.
    fn next(self, arena: &Arena, number: u64) -> Self {
        assert_eq!(self.end(arena), Counts::default());
        let stream = StreamName::parse(&format!("room/{number}")).expect("a name");
        let tail = arena.wait(begin(&self.hub, &stream));
        Self { stream, tail, ..self }
    }

    /// Lets all TTLs elapse, and returns the counts of what is left.
    fn end(&self, arena: &Arena) -> Counts {
        arena.wait(self.store.sweep(self.clock.now() + 2 * TTL)).expect("a sweep");
        self.hub.counts()
    }

    /// A subscriber is added and reads while a message is appended: it reads the message or is notified.
    fn subscribe(&mut self, arena: &mut Arena, tally: &mut Tally, filter: Filter) {
        let (hub, stream, start) = (self.hub.clone(), self.stream.clone(), Start::At(self.tail));
        let coming = async move {
            let subscriber = hub.subscriber("coming");
            subscriber.add(filter);
            if !hub.messages(&stream, start, LIMIT).await.expect("a stream").messages.is_empty() {
                return false;
            }
            assert_eq!(changed(&subscriber).await, std::slice::from_ref(&stream));
            assert_eq!(hub.messages(&stream, start, LIMIT).await.expect("a stream").messages.len(), 1);
            true
        };
        let (was_there, tail) = arena.race(tally, coming, publish(self.hub.clone(), self.stream.clone()));
        tally.count(was_there);
        self.tail = tail;
    }

    /// The last subscriber of a stream is dropped while another one is added, which must be notified of the next message.
    fn unsubscribe_while_another_subscribes(&mut self, arena: &mut Arena, tally: &mut Tally) {
        let filter = Filter::parse(self.stream.as_str()).expect("a filter");
        let leaving = self.hub.subscriber("leaving");
        leaving.add(filter.clone());
        let has_come = Arc::new(AtomicBool::new(false));
        let (hub, stream, come) = (self.hub.clone(), self.stream.clone(), has_come.clone());
        let coming = async move {
            let subscriber = hub.subscriber("coming");
            subscriber.add(filter);
            come.store(true, Ordering::Relaxed);
            let tail = publish(hub, stream.clone()).await;
            assert_eq!(changed(&subscriber).await, [stream]);
            tail
        };
        let leave = async move {
            drop(leaving);
            !has_come.load(Ordering::Relaxed)
        };
        let (was_first, tail) = arena.race(tally, leave, coming);
        tally.count(was_first);
        self.tail = tail;
    }

    /// A stream is deleted, recreated and appended to while a subscriber is added, which must reach the message.
    fn follow(&self, arena: &mut Arena, tally: &mut Tally, filter: &str) {
        let (hub, stream) = (self.hub.clone(), StreamName::parse("room/lives").expect("a name"));
        arena.wait(begin(&hub, &stream));
        let filter = Filter::parse(filter).expect("a filter");
        let (subscribing, followed) = (hub.clone(), stream.clone());
        let wanted = filter.clone();
        let follow = async move {
            let subscriber = subscribing.subscriber("following");
            subscriber.add(wanted);
            let mut was_there = false;
            loop {
                match subscribing.messages(&followed, Start::Earliest, LIMIT).await {
                    Ok(messages) if !messages.messages.is_empty() => return (was_there, subscriber),
                    Ok(_) | Err(ReadError::Missing(_)) => was_there = true,
                    Err(error) => panic!("{error}"),
                }
                assert!(changed(&subscriber).await.contains(&followed));
            }
        };
        let (living, alive) = (hub.clone(), stream.clone());
        let lives = async move {
            living.delete(&alive).await.expect("it exists");
            begin(&living, &alive).await;
            publish(living, alive).await
        };
        let ((was_there, subscriber), _) = arena.race(tally, follow, lives);
        tally.count(was_there);
        let by_name = Filter::parse(stream.as_str()).expect("a filter");
        let later = self.clock.now() + 2 * TTL;
        let stands_still = || {
            let page = arena.wait(self.store.page(by_name.prefix(), None, later)).expect("a page");
            !page.streams.is_empty()
        };
        assert_eq!(stands_still(), filter == by_name, "a TTL stands still for who names the stream");
        drop(subscriber);
        assert!(!stands_still(), "nobody holds it any more");
        arena.wait(hub.delete(&stream)).expect("it exists");
    }

    /// A stream is created while a subscriber with a wildcard is added: it finds the stream or is notified.
    fn create(&self, arena: &mut Arena, tally: &mut Tally) {
        let (hub, stream) = (self.hub.clone(), StreamName::parse("hall/new").expect("a name"));
        let (creating, created) = (hub.clone(), stream.clone());
        let coming = async move {
            let subscriber = hub.subscriber("coming");
            let filter = Filter::parse("hall/#").expect("a filter");
            subscriber.add(filter.clone());
            if walked(&hub, &filter).await == std::slice::from_ref(&stream) {
                return false;
            }
            assert_eq!(changed(&subscriber).await, std::slice::from_ref(&stream));
            assert_eq!(walked(&hub, &filter).await, [stream]);
            true
        };
        let (was_there, _) = arena.race(tally, coming, async move { begin(&creating, &created).await });
        tally.count(was_there);
        let stream = StreamName::parse("hall/new").expect("a name");
        arena.wait(self.hub.delete(&stream)).expect("it exists");
    }
}

/// Returns the streams that a subscriber finds for its filter.
async fn walked(hub: &Hub, filter: &Filter) -> Vec<StreamName> {
    let (mut walk, mut found) = (StreamWalk::over([filter]), Vec::new());
    while let Some(streams) = hub.next_streams(&mut walk).await {
        found.extend(streams.into_iter().map(|(name, _)| name));
    }
    found
}

async fn changed(subscriber: &Subscriber) -> Vec<StreamName> {
    timeout(PATIENCE, subscriber.changed(9)).await.expect("a lost mark")
}

pub(crate) async fn begin(hub: &Hub, stream: &StreamName) -> Offset {
    let creation =
        Creation { content_type: Some(json()), lifetime: Some(Lifetime::Idle(TTL)), ..Creation::default() };
    hub.create(stream, creation).await.expect("a new stream").tail
}

pub(crate) async fn publish(hub: Arc<Hub>, stream: StreamName) -> Offset {
    let append = Append::of(json(), Payload::json("1".into(), Vec::new()));
    hub.publish(&stream, append).await.expect("an append").tail
}

fn json() -> ContentType {
    ContentType::parse("application/json").expect("a content type")
}
