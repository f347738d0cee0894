//! Races between publishers and a reader that waits for many streams, in process and on two threads.
//!
//! A lost wake-up shows as a wait that does not end although the message exists. Leftover state shows in the hub's counts.
//! `RACES` sets the number of races.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use pollgate::clock::Clock;
use pollgate::hub::{Hub, RequestedStream, Source, Update};
use pollgate::limits::Limits;
use pollgate::metrics::{Counts, Metrics};
use pollgate::store::Memory;
use pollgate::stream::{Offset, Progress, StreamName};
use tokio::time::{Instant, timeout};

use crate::arena::{Arena, Tally};
use crate::marks::{begin, publish};

const RACES: u64 = 20_000;
const STREAMS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn no_race_against_a_reader_of_many_streams_loses_a_wake_up_or_leaves_a_waiter() {
    let _turn = Arena::turn();
    let mut arena = Arena::open();
    let (limits, metrics) = (Arc::new(Limits::default()), Arc::new(Metrics::new()));
    let hub = Arc::new(Hub::new(Arc::new(Memory::new()), limits, metrics, Clock::start()));
    let names = (0..STREAMS).map(|n| StreamName::parse(&format!("+/{n}")).expect("a name"));
    let mut places: Vec<(StreamName, Offset)> = Vec::new();
    for name in names {
        let tail = arena.wait(begin(&hub, &name));
        places.push((name, tail));
    }
    let (mut tally, since) = (Tally::default(), Instant::now());
    for race in Arena::rounds(RACES) {
        let index = race as usize % STREAMS;
        let (name, tail) = places[index].clone();
        let following = follow(hub.clone(), places.clone(), name.clone());
        let (waited, next) = arena.race(&mut tally, following, publish(hub.clone(), name));
        assert!(next > tail);
        tally.count(waited);
        places[index].1 = next;
    }
    let counts = hub.counts();
    println!("{tally} in {:.1?}; 0 wake-ups lost; left: {counts:?}", since.elapsed());
    assert_eq!(counts, Counts { streams: STREAMS, ..Counts::default() });
    tally.was_close();
}

/// Reads all streams until there is a message, which must be in `expected`. Returns whether it had to wait.
async fn follow(hub: Arc<Hub>, places: Vec<(StreamName, Offset)>, expected: StreamName) -> bool {
    let streams = places.into_iter().map(|(stream, tail)| RequestedStream {
        stream,
        progress: Some(Progress::At(tail)),
        history: 0,
        times: false,
        withheld: false,
    });
    let mut reader = hub.multi_reader(streams.collect());
    // The first wait returns at once, since the reader subscribes then; only the second one really waits.
    for waits in 0.. {
        let batch = reader.read(1 << 20).await.expect("a store that works");
        if let [update] = &batch.updates[..] {
            assert!(matches!(&update.update, Some(Update::Batch(batch)) if batch.messages == 1));
            assert_eq!(update.stream, expected);
            return waits > 1;
        }
        assert!(batch.updates.is_empty());
        let changed = poll_fn(|context| reader.poll_changed(context));
        timeout(PATIENCE, changed).await.expect("a lost wake-up");
    }
    unreachable!("it waits for ever or finds something")
}
