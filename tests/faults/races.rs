//! Races against a poll that is about to wait, in process and on two threads: an append, the client's disconnect, a newer poll
//! of the same client, the close of the stream, its deletion.
//!
//! A lost wake-up shows as a poll that returns without a message at the end of its hold. `RACES` sets the number of racing
//! appends; each other kind races a tenth as often.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use pollgate::clock::{Clock, ReusableSleep};
use pollgate::hub::{ClientId, Creation, Hub, PollError, PollSettings, PollStart, StreamReader};
use pollgate::limits::Limits;
use pollgate::metrics::{Counts, Metrics};
use pollgate::store::Memory;
use pollgate::stream::{Append, ContentType, Missing, Offset, Payload, ReadError, Start, StreamName};
use tokio::time::Instant;

use crate::arena::{Arena, Tally};

const APPENDS: u64 = 100_000;
const HOLD: Duration = Duration::from_secs(60);
/// Number of races on one stream before the next one.
const RACES_A_STREAM: u64 = 500;
const DRAINS: u64 = 1000;

type Polled = pollgate::hub::Polled<StreamReader>;

/// A stream with the offset that a poll waits at.
struct RacedStream {
    hub: Arc<Hub>,
    stream: StreamName,
    tail: Offset,
}

#[test]
fn no_race_against_a_poll_that_begins_to_wait_loses_a_wake_up_or_leaves_a_waiter() {
    let _turn = Arena::turn();
    let mut arena = Arena::open();
    let hub = arena.wait(async { hub(Limits::default()) });
    let [mut append, mut leave, mut newer, mut close, mut delete] = [Tally::default(); 5];
    let since = Instant::now();
    let mut raced = RacedStream::open(&mut arena, &hub, "0");
    for race in Arena::rounds(APPENDS) {
        raced.append(&mut arena, &mut append);
        if race % 10 == 0 {
            raced.leave(&mut arena, &mut leave);
            raced.newer(&mut arena, &mut newer);
            RacedStream::open(&mut arena, &hub, "closed").close(&mut arena, &mut close);
            RacedStream::open(&mut arena, &hub, "deleted").delete(&mut arena, &mut delete);
        }
        if race % RACES_A_STREAM == 0 {
            arena.wait(hub.delete(&raced.stream)).expect("it exists");
            raced = RacedStream::open(&mut arena, &hub, &race.to_string());
        }
    }
    arena.wait(hub.delete(&raced.stream)).expect("it exists");
    println!(
        "races in {:.1?}: appends {append}; leaving {leave}; newer polls {newer}; closing {close}; deletion \
         {delete}; 0 wake-ups lost; left: {:?}",
        since.elapsed(),
        hub.counts(),
    );
    assert_eq!(hub.counts(), Counts::default());
    for tally in [append, leave, newer, close, delete] {
        tally.was_close();
    }
}

/// Without a spread, all polls end at one moment, at which one could be overlooked.
#[test]
fn no_drain_overlooks_a_poll_that_begins_to_wait() {
    let _turn = Arena::turn();
    let mut arena = Arena::open();
    let mut tally = Tally::default();
    let since = Instant::now();
    for _ in Arena::rounds(DRAINS) {
        let hub =
            arena.wait(async { hub(Limits { drain_spread: "0s".parse().unwrap(), ..Limits::default() }) });
        let raced = RacedStream::open(&mut arena, &hub, "drained");
        let drained = hub.clone();
        let began = Instant::now();
        let (polled, ()) = arena.race(&mut tally, raced.poll(None), async move { drained.drain().await });
        let held = match polled {
            Ok(polled) => polled.batch.is_empty() && polled.held,
            Err(PollError::Draining) => false,
            Err(error) => panic!("{error}"),
        };
        tally.count(held);
        assert!(began.elapsed() < HOLD, "a poll waited to the end of its hold");
        assert_eq!(hub.counts(), Counts { streams: 1, ..Counts::default() });
    }
    println!("drains in {:.1?}: {tally}; 0 polls overlooked", since.elapsed());
    tally.was_close();
}

impl RacedStream {
    fn open(arena: &mut Arena, hub: &Arc<Hub>, name: &str) -> Self {
        let stream = StreamName::parse(name).expect("a name");
        let creation = Creation { content_type: Some(json()), ..Creation::default() };
        let tail = arena.wait(hub.create(&stream, creation)).expect("a new stream").tail;
        Self { hub: hub.clone(), stream, tail }
    }

    fn append(&mut self, arena: &mut Arena, tally: &mut Tally) {
        let (polled, tail) = arena.race(tally, self.poll(None), self.publish(false));
        let polled = polled.expect("an answer");
        has_the_message(&polled, tail);
        tally.count(polled.held);
        self.tail = tail;
    }

    /// The client disconnects as soon as it has to wait, while the message is appended.
    fn leave(&mut self, arena: &mut Arena, tally: &mut Tally) {
        let poll = self.poll(None);
        let poll = async move {
            tokio::select! {
                biased;
                polled = poll => Some(polled),
                () = Arena::moment() => None,
            }
        };
        let (polled, tail) = arena.race(tally, poll, self.publish(false));
        tally.count(polled.is_none());
        if let Some(polled) = polled {
            has_the_message(&polled.expect("an answer"), tail);
        }
        self.tail = tail;
    }

    /// Two polls of one client, and a message after the second one: each poll has the message or is superseded, and at most one
    /// is superseded.
    fn newer(&mut self, arena: &mut Arena, tally: &mut Tally) {
        let client = ClientId::parse("one").expect("an id");
        let (newer, publish) = (self.poll(Some(client.clone())), self.publish(false));
        let second = async move { tokio::join!(biased; newer, publish) };
        let (one, (other, tail)) = arena.race(tally, self.poll(Some(client)), second);
        let polls = [one.expect("an answer"), other.expect("an answer")];
        let superseded = polls.iter().filter(|polled| polled.superseded).count();
        assert!(superseded < 2, "both polls were superseded");
        for polled in polls.iter().filter(|polled| !polled.superseded) {
            has_the_message(polled, tail);
        }
        tally.count(polls[0].held);
        self.tail = tail;
    }

    fn close(self, arena: &mut Arena, tally: &mut Tally) {
        let (polled, tail) = arena.race(tally, self.poll(None), self.publish(true));
        let polled = polled.expect("an answer");
        has_the_message(&polled, tail);
        assert!(polled.batch.closed, "{polled:?}");
        tally.count(polled.held);
        arena.wait(self.hub.delete(&self.stream)).expect("it exists");
    }

    fn delete(self, arena: &mut Arena, tally: &mut Tally) {
        let since = Instant::now();
        let (poll, Self { hub, stream, .. }) = (self.poll(None), self);
        let deletion = async move {
            let held = hub.counts().held_polls;
            hub.delete(&stream).await.map(|()| held > 0)
        };
        let (polled, was_held) = arena.race(tally, poll, deletion);
        let missing = matches!(polled, Err(PollError::Read(ReadError::Missing(Missing::NotFound))));
        assert!(missing, "a poll of a deleted stream: {polled:?}");
        assert!(since.elapsed() < HOLD, "it waited to the end of its hold");
        tally.count(was_held.expect("it existed"));
    }

    fn poll(&self, client: Option<ClientId>) -> impl Future<Output = Result<Polled, PollError>> + use<> {
        let (hub, stream, start) = (self.hub.clone(), self.stream.clone(), Start::At(self.tail));
        async move {
            let settings = PollSettings { hold: HOLD, client, ..PollSettings::default() };
            let mut held = match hub.begin_poll(hub.stream_reader(&stream, start), settings).await? {
                PollStart::Answered(polled) => return Ok(polled),
                PollStart::Held(held) => held,
            };
            let mut timer = ReusableSleep::default();
            poll_fn(|context| held.poll_answer(&mut timer, context)).await
        }
    }

    fn publish(&self, close: bool) -> impl Future<Output = Offset> + Send + use<> {
        let (hub, stream) = (self.hub.clone(), self.stream.clone());
        let append = Append { close, ..Append::of(json(), Payload::json("1".into(), Vec::new())) };
        async move { hub.publish(&stream, append).await.expect("an append").tail }
    }
}

fn hub(limits: Limits) -> Arc<Hub> {
    let (store, limits, metrics) = (Arc::new(Memory::new()), Arc::new(limits), Arc::new(Metrics::new()));
    Arc::new(Hub::new(store, limits, metrics, Clock::start()))
}

fn json() -> ContentType {
    ContentType::parse("application/json").expect("a content type")
}

#[track_caller]
fn has_the_message(polled: &Polled, tail: Offset) {
    assert_eq!((polled.batch.messages, polled.batch.next), (1, tail), "a lost wake-up: {polled:?}");
}
