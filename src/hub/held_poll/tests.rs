//! Tests of held polls: what they ask of the store, and polls that supersede each other.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;

use super::*;
use crate::budget::{Account, Bounds, Budget, Charge};
use crate::clock::Clock;
use crate::hub::{Creation, StreamReader};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::store::{CountedMemory, Memory};
use crate::stream::{Append, ContentType, Payload, Principal, Start, StreamName};

type Held<'a> = HeldPoll<'a, StreamReader>;

fn stream() -> StreamName {
    StreamName::parse("s").unwrap()
}

async fn hub() -> Arc<Hub> {
    let (store, metrics) = (Arc::new(Memory::new()), Arc::new(Metrics::new()));
    let hub = Arc::new(Hub::new(store, Arc::new(Limits::default()), metrics, Clock::start()));
    let creation = Creation::default();
    hub.create(&stream(), creation).await.unwrap();
    hub
}

#[tokio::test]
async fn a_poll_is_answered_early_while_memory_is_critical() {
    let budget = Budget::new(Bounds { memory_max: 64 << 20, streams_max: 9, share_percent: 100 });
    let (store, metrics) = (Arc::new(Memory::within(budget.clone())), Arc::new(Metrics::new()));
    let hub = Hub::new(store, Arc::new(Limits::default()), metrics, Clock::start()).within(budget.clone());
    let hub = Arc::new(hub);
    hub.create(&stream(), Creation::default()).await.unwrap();
    let mut held = held(&hub).await;
    hub.answer_idle_polls_if_memory_is_critical();
    assert!(!is_answered(&mut held) && !hub.is_shedding());
    let _charge = Charge::new(&budget.owner(Principal(1)), Account::Messages, 62 << 20);
    hub.answer_idle_polls_if_memory_is_critical();
    assert!(is_answered(&mut held) && hub.is_shedding());
}

#[tokio::test]
async fn each_read_of_a_poll_asks_the_store_once_for_what_it_knows_and_once_for_the_rest() {
    let store = Arc::new(CountedMemory::default());
    let metrics = Arc::new(Metrics::new());
    let hub = Arc::new(Hub::new(store.clone(), Arc::new(Limits::default()), metrics, Clock::start()));
    hub.create(&stream(), Creation::default()).await.unwrap();
    let asked = || (store.looks.swap(0, Ordering::Relaxed), store.calls.swap(0, Ordering::Relaxed));
    asked();
    let mut held = held(&hub).await;
    // Besides the read, it attaches the reader to the stream.
    assert_eq!(asked(), (1, 2));
    publish(&hub).await;
    assert_eq!(asked(), (0, 1));
    assert!(is_answered(&mut held));
    // Besides the read, the reader is detached.
    assert_eq!(asked(), (1, 2));
}

/// Begins a poll and checks that it is held.
async fn held(hub: &Arc<Hub>) -> Held<'_> {
    let poll = PollSettings { hold: Duration::from_secs(20), client: None, credentials: None, open: None };
    let reader = hub.stream_reader(&stream(), Start::Earliest);
    let PollStart::Held(mut held) = hub.begin_poll(reader, poll).await.unwrap() else {
        panic!("the poll is answered at once")
    };
    assert!(!is_answered(&mut held));
    held
}

fn is_answered(held: &mut Held<'_>) -> bool {
    held.poll_answer(&mut ReusableSleep::default(), &mut Context::from_waker(Waker::noop())).is_ready()
}

async fn publish(hub: &Hub) {
    let append = Append::of(ContentType::octet_stream(), Payload::raw("x".into()));
    hub.publish(&stream(), append).await.unwrap();
}

fn named() -> PollSettings {
    PollSettings {
        hold: Duration::from_secs(20),
        client: ClientId::parse("twice").ok(),
        credentials: None,
        open: None,
    }
}

/// Polls repeatedly until `end`; returns how often the poll was superseded.
async fn superseded_until(hub: &Arc<Hub>, end: Instant) -> u32 {
    let mut superseded = 0;
    while Instant::now() < end {
        let poll = hub.poll(hub.stream_reader(&stream(), Start::Earliest), named());
        superseded += u32::from(poll.await.unwrap().superseded);
    }
    superseded
}

#[tokio::test(start_paused = true)]
async fn two_programs_with_one_client_id_supersede_each_other_ever_more_seldom() {
    let hub = hub().await;
    let since = Instant::now();
    let end = since + Duration::from_secs(60);
    let (one, other) = tokio::join!(superseded_until(&hub, end), superseded_until(&hub, end));
    // Twice at once, then after 1, 2, 4 and 8 s, and from then on every 10 s.
    assert!((8..=14).contains(&(one + other)), "{one} and {other}");
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_delayed_comes_with_the_next_message_or_at_its_deadline() {
    let hub = hub().await;
    let mut polls = Vec::new();
    for _ in 0..8 {
        let reader = hub.stream_reader(&stream(), Start::Earliest);
        let PollStart::Held(held) = hub.begin_poll(reader, named()).await.unwrap() else {
            panic!("the poll is answered at once")
        };
        polls.push(held);
    }
    // The first two are answered at once, the last one is not superseded, and the others are delayed.
    let answered: Vec<_> = polls.iter_mut().map(is_answered).collect();
    assert_eq!(answered, [true, true, false, false, false, false, false, false]);
    assert_eq!(hub.clients("", 10)[0].held.len(), 1);
    tokio::time::advance(Duration::from_millis(1001)).await;
    let delayed = poll_fn(|context| polls[2].poll_answer(&mut ReusableSleep::default(), context)).await;
    assert!(delayed.unwrap().superseded);
    let short = PollSettings { hold: Duration::from_secs(1), ..named() };
    let reader = hub.stream_reader(&stream(), Start::Earliest);
    let PollStart::Held(mut short) = hub.begin_poll(reader, short).await.unwrap() else {
        panic!("the poll is answered at once")
    };
    hub.clients.supersede(&named().client.unwrap(), &crate::hub::Subject::Stream(stream()));
    tokio::time::advance(Duration::from_millis(1001)).await;
    assert!(is_answered(&mut short));
    publish(&hub).await;
    for (number, mut poll) in polls.into_iter().enumerate().skip(3) {
        let polled =
            poll_fn(|context| poll.poll_answer(&mut ReusableSleep::default(), context)).await.unwrap();
        assert!(!polled.superseded && !polled.batch.is_empty(), "poll {number}");
    }
}
