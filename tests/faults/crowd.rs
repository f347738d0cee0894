//! Readers that change the delivery form at random and are disconnected at random: each one sees every message once and in
//! order.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::measure::{json_stream, until_empty};
use crate::world::{Connection, Gateway, alone, get, post};

const STREAM: &str = "/v1/stream/crowd";
const PUBLISHERS: u32 = 8;
const READERS: u64 = 500;
const MESSAGES: usize = 20_000;
const MESSAGES_EACH: u32 = MESSAGES as u32 / PUBLISHERS;
/// Maximum number of messages in one append.
const APPEND_MAX: u32 = 40;
/// Maximum time until a cut, which often falls into a hold, a response or an event.
const CUT_WITHIN: Duration = Duration::from_millis(400);
/// Requests of readers per append; otherwise the readers would find all messages at once.
const REQUESTS_AN_APPEND: usize = 25;

/// Counts over all readers.
#[derive(Debug, Default)]
struct Counters {
    short_polls: AtomicUsize,
    long_polls: AtomicUsize,
    event_streams: AtomicUsize,
    changes: AtomicUsize,
    cuts: AtomicUsize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    ShortPoll,
    LongPoll,
    EventStream,
}

struct Reader {
    address: SocketAddr,
    random: Rng,
    connection: Option<Connection>,
    offset: String,
    seen: Vec<u32>,
    counters: Arc<Counters>,
    pace: Arc<Semaphore>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reader_of_a_crowd_sees_every_message_in_order_and_once() {
    let _turn = alone().await;
    let gateway = Gateway::start(&["--limit", "connections_per_second_max=100000"]).await;
    json_stream(&gateway, STREAM).await;
    let (counters, pace) = (Arc::new(Counters::default()), Arc::new(Semaphore::new(0)));
    let since = Instant::now();
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        publishers.spawn(publish(gateway.address, publisher, pace.clone()));
    }
    let mut readers = JoinSet::new();
    for seed in 0..READERS {
        let reader = Reader {
            address: gateway.address,
            random: Rng::with_seed(seed),
            connection: None,
            offset: "-1".to_owned(),
            seen: Vec::with_capacity(MESSAGES),
            counters: counters.clone(),
            pace: pace.clone(),
        };
        readers.spawn(reader.read_all());
    }
    let appends: usize = publishers.join_all().await.into_iter().sum();
    let published = since.elapsed();
    let seen = readers.join_all().await;
    let elapsed = since.elapsed();
    let emptied = until_empty(&gateway).await;

    let log: Vec<u32> =
        serde_json::from_slice(&gateway.send(get(STREAM)).await.expect(200).body).expect("numbers");
    assert_eq!(log.len(), MESSAGES);
    assert_eq!(log.iter().collect::<HashSet<_>>().len(), MESSAGES, "a message is in the log twice");
    for publisher in 0..PUBLISHERS {
        let of_one = log.iter().filter(|message| **message % PUBLISHERS == publisher);
        assert!(of_one.is_sorted(), "the appends of publisher {publisher} changed places");
    }
    for (reader, seen) in seen.iter().enumerate() {
        let differs = seen.iter().zip(&log).position(|(seen, logged)| seen != logged);
        assert_eq!((seen.len(), differs), (MESSAGES, None), "reader {reader}: count, first difference");
    }
    println!(
        "{READERS} readers saw 1..{MESSAGES} in order, once, in {elapsed:.1?}; {appends} appends by {PUBLISHERS} \
         publishers in {published:.1?}; {counters:?}; the table empty after {emptied:.0?}"
    );
    let [cuts, changes] = [&counters.cuts, &counters.changes].map(|count| count.load(Ordering::Relaxed));
    let each = READERS as usize;
    assert!(cuts > 5 * each, "only {cuts} cuts");
    assert!(changes > 10 * each, "only {changes} changes of form");
}

/// Appends the numbers that leave `publisher` as remainder, several at a time. Returns the number of appends.
async fn publish(address: SocketAddr, publisher: u32, pace: Arc<Semaphore>) -> usize {
    let mut random = Rng::with_seed(u64::from(publisher));
    let mut connection = Connection::open(address).await;
    let mut numbers = (0..MESSAGES_EACH).map(|number| number * PUBLISHERS + publisher).peekable();
    let mut appends = 0;
    while numbers.peek().is_some() {
        let some: Vec<_> = numbers.by_ref().take(random.u32(1..=APPEND_MAX) as usize).collect();
        connection.send(post(STREAM).json(format!("{some:?}"))).await.expect(204);
        appends += 1;
        pace.acquire_many(REQUESTS_AN_APPEND as u32).await.expect("open").forget();
    }
    appends
}

impl Reader {
    async fn read_all(mut self) -> Vec<u32> {
        let mut last = Form::ShortPoll;
        while self.seen.len() < MESSAGES {
            let form =
                self.random.choice([Form::ShortPoll, Form::LongPoll, Form::EventStream]).expect("three");
            self.counters.changes.fetch_add(usize::from(form != last), Ordering::Relaxed);
            last = form;
            self.pace.add_permits(1);
            // An event stream does not end by itself, so it is always cut.
            let cut_after = match form {
                Form::EventStream => Some(CUT_WITHIN.mul_f64(self.random.f64())),
                _ if self.random.bool() => Some(CUT_WITHIN.mul_f64(self.random.f64().powi(4))),
                _ => None,
            };
            let Some(cut_after) = cut_after else {
                self.read(form).await;
                continue;
            };
            if timeout(cut_after, self.read(form)).await.is_err() {
                // Everything in flight is lost with the socket.
                self.connection = None;
                self.counters.cuts.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.seen
    }

    async fn read(&mut self, form: Form) {
        let offset = &self.offset;
        match form {
            Form::ShortPoll => self.poll(format!("{STREAM}?offset={offset}")).await,
            Form::LongPoll => self.poll(format!("{STREAM}?offset={offset}&live=long-poll&timeout=5")).await,
            Form::EventStream => self.follow(format!("{STREAM}?offset={offset}&live=sse")).await,
        }
    }

    async fn poll(&mut self, target: String) {
        let counter =
            if target.contains("live") { &self.counters.long_polls } else { &self.counters.short_polls };
        counter.fetch_add(1, Ordering::Relaxed);
        // The connection is taken out while it is used, so that a cut drops it.
        let mut connection = self.connect().await;
        let answer = connection.send(get(target)).await;
        self.connection = Some(connection);
        let offset = answer.next_offset();
        match answer.status.as_u16() {
            200 => self.add(&answer.body, offset),
            204 => self.offset = offset,
            _ => panic!("{answer:?}"),
        }
    }

    /// Follows an event stream until the last message or the cut. Messages count only with their offset.
    async fn follow(&mut self, target: String) {
        self.counters.event_streams.fetch_add(1, Ordering::Relaxed);
        let mut events = self.connect().await.events(target).await;
        let mut data: Option<String> = None;
        while self.seen.len() < MESSAGES {
            let event = events.next().await.expect("no end before its time");
            if event.name == "data" {
                assert!(data.replace(event.data).is_none(), "messages without an offset");
                continue;
            }
            let control: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
            let offset = control["streamNextOffset"].as_str().expect("an offset").to_owned();
            match data.take() {
                Some(data) => self.add(data.as_bytes(), offset),
                None => self.offset = offset,
            }
        }
    }

    async fn connect(&mut self) -> Connection {
        match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(self.address).await,
        }
    }

    fn add(&mut self, messages: &[u8], offset: String) {
        self.seen.extend(serde_json::from_slice::<Vec<u32>>(messages).expect("numbers"));
        self.offset = offset;
    }
}
