//! The set of streams changes with every poll while messages are appended: each sequence is complete while its stream is in the
//! set. `POLLS` sets the number of polls.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::ask::{Ask, Envelope};
use crate::world::{Connection, Gateway, alone, post};

const POLLS: u64 = 1_000;
const POOL: usize = 300;
const FOLLOWED: usize = 200;
const EXCHANGED: usize = 10;
const PUBLISHERS: usize = 2;

/// A stream whose messages are the numbers from 0 on.
struct Source {
    name: String,
    path: String,
    /// Upper and lower bound of the number of messages in the log.
    sent: AtomicU64,
    acknowledged: AtomicU64,
}

/// Progress of the reader in a stream of its set.
#[derive(Debug)]
enum Read {
    /// Nothing read; the first message is within this range.
    Begins { least: u64, most: u64 },
    /// All messages before this number were read.
    Next(u64),
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sequence_is_complete_while_its_stream_is_in_the_set() {
    let _turn = alone().await;
    let polls = std::env::var("POLLS").map_or(POLLS, |polls| polls.parse().expect("a number"));
    let gateway = Gateway::start(&[]).await;
    let sources: Arc<[Source]> = (0..POOL).map(Source::new).collect();
    let mut connection = gateway.connect().await;
    for source in &*sources {
        connection.send(post(format!("{}?create=1", source.path)).json("[0]")).await.expect(204);
    }
    let over = Arc::new(AtomicBool::new(false));
    let mut publishers = Vec::new();
    for part in 0..PUBLISHERS {
        publishers.push(publish(gateway.connect().await, sources.clone(), part, over.clone()));
    }

    let since = Instant::now();
    let mut set: BTreeMap<usize, Read> = BTreeMap::new();
    let (mut resume, mut next, mut messages, mut added_again) = (None, 0, 0, 0);
    for poll in 0..polls {
        // 1. The ten streams that have been in the set longest are removed, and ten are added, most of which were in it before.
        let from_earliest = poll % 2 == 0 && poll > 0;
        for leaves in next..next + EXCHANGED {
            set.remove(&(leaves % POOL));
        }
        next += EXCHANGED;
        for comes in next..next + FOLLOWED {
            let source = &sources[comes % POOL];
            added_again += u64::from(comes >= POOL && !set.contains_key(&(comes % POOL)));
            let least = source.acknowledged.load(Ordering::SeqCst);
            let begins = if from_earliest { Read::Next(0) } else { Read::Begins { least, most: u64::MAX } };
            set.entry(comes % POOL).or_insert(begins);
        }
        // 2. The reader polls, with a short or a long poll.
        let mut ask = Ask::of(set.keys().map(|index| &*sources[*index].name));
        ask.resume = resume;
        ask.from = from_earliest.then(|| "earliest".to_owned());
        let ask = if poll % 3 == 0 { ask } else { ask.long_poll() };
        let envelope = ask.poll(&mut connection).await;
        messages += take(&mut set, &sources, &envelope);
        // 3. The poll has given new streams a position, even if they had no messages yet.
        for (index, read) in &mut set {
            if let Read::Begins { most, .. } = read {
                *most = (*most).min(sources[*index].sent.load(Ordering::SeqCst));
            }
        }
        resume = envelope.resume;
    }
    let took = since.elapsed();
    over.store(true, Ordering::SeqCst);
    for publisher in publishers {
        publisher.await.unwrap();
    }
    // 4. The remaining messages arrive; then each stream in the set has been read to its tail.
    let mut up_to_date = false;
    while !up_to_date {
        let mut ask = Ask::of(set.keys().map(|index| &*sources[*index].name));
        ask.resume = resume;
        let envelope = ask.poll(&mut connection).await;
        messages += take(&mut set, &sources, &envelope);
        (resume, up_to_date) = (envelope.resume, envelope.up_to_date);
    }
    for (index, read) in &set {
        let end = sources[*index].acknowledged.load(Ordering::SeqCst);
        let complete = match read {
            Read::Begins { most, .. } => end <= *most,
            Read::Next(next) => *next == end,
        };
        assert!(complete, "{}: {read:?} of {end}", sources[*index].name);
    }
    println!("{polls} polls in {took:.1?}: {messages} messages, {added_again} streams added again");
    assert!(messages > polls && added_again > 0);
}

/// Checks an envelope and returns its number of messages.
fn take(set: &mut BTreeMap<usize, Read>, sources: &[Source], envelope: &Envelope) -> u64 {
    let mut count = 0;
    for news in &envelope.batches {
        assert!(news.gap.is_none() && !news.missing, "{news:?}");
        let index = sources.iter().position(|source| source.name == news.stream).expect("one of ours");
        let read = set.get_mut(&index).expect("a stream that was asked for");
        for message in &news.data {
            let number = message.as_u64().unwrap();
            match read {
                Read::Begins { least, most } => {
                    assert!(
                        (*least..=*most).contains(&number),
                        "{}: {number} is not in {read:?}",
                        news.stream
                    );
                }
                Read::Next(next) => assert_eq!(number, *next, "{}", news.stream),
            }
            *read = Read::Next(number + 1);
            count += 1;
        }
    }
    count
}

/// Appends to its part of the streams until `over` is set.
fn publish(
    mut connection: Connection,
    sources: Arc<[Source]>,
    part: usize,
    over: Arc<AtomicBool>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut random = fastrand::Rng::with_seed(part as u64);
        while !over.load(Ordering::SeqCst) {
            let source = &sources[random.usize(..POOL / PUBLISHERS) * PUBLISHERS + part];
            let first = source.acknowledged.load(Ordering::SeqCst);
            let end = first + random.u64(1..=3);
            source.sent.store(end, Ordering::SeqCst);
            let numbers: Vec<_> = (first..end).collect();
            let append = post(&source.path).json(serde_json::to_string(&numbers).unwrap());
            connection.send(append).await.expect(204);
            source.acknowledged.store(end, Ordering::SeqCst);
        }
    })
}

impl Source {
    /// Each stream has one message. Some names look like filters.
    fn new(index: usize) -> Self {
        let (name, path) = match index % 3 {
            0 => (format!("room/{index}"), format!("room/{index}")),
            1 => (format!("+/{index}/#"), format!("%2B/{index}/%23")),
            _ => (format!("straße {index}"), format!("stra%C3%9Fe%20{index}")),
        };
        let path = format!("/v1/stream/{path}");
        Self { name, path, sent: AtomicU64::new(1), acknowledged: AtomicU64::new(1) }
    }
}
