//! What it costs to wake those who wait: one append to a stream that nobody, one, 1 000 or 10 000 polls wait for.
//! In process: no sockets, no HTTP.
//!
//! `cargo bench --bench hub`; about a minute. `publish` is what the publisher waits, `last answer` is how long it
//! takes until every poll has its messages.

#![allow(clippy::unwrap_used, reason = "a bench may panic")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use pollgate::clock::Clock;
use pollgate::hub::{Creation, Hub, Poll, Polled, Publication};
use pollgate::limits::Limits;
use pollgate::metrics::Metrics;
use pollgate::store::Memory;
use pollgate::stream::{ContentType, Retention, Start, StreamName};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::Instant;

const WAITERS: [usize; 3] = [1, 1_000, 10_000];

/// Enough to read from, and a bound on what a long run keeps.
const MESSAGES_KEPT: u64 = 1_000;

/// A hub with one JSON stream.
#[derive(Clone)]
struct Bench {
    hub: Arc<Hub>,
    stream: StreamName,
}

impl Bench {
    async fn new() -> Self {
        let (store, limits, metrics) = (Arc::new(Memory::new()), Arc::new(Limits::default()), Arc::default());
        let hub = Arc::new(Hub::new(store, limits, Arc::<Metrics>::clone(&metrics), Clock::start()));
        let stream = StreamName::parse("room/1").unwrap();
        let creation = Creation {
            content_type: Some(json()),
            lifetime: None,
            retention: Some(Retention { messages_max: Some(MESSAGES_KEPT), ..Retention::default() }),
            closed: false,
            body: Bytes::new(),
            fork: None,
        };
        hub.create(&stream, creation).await.unwrap();
        Self { hub, stream }
    }

    async fn publish(&self) {
        let publication = Publication {
            body: Bytes::from_static(br#"{"from":"ada","text":"a message of about one hundred bytes, as many are that people send"}"#),
            content_type: Some(json()),
            close: false,
            producer: None,
            sequence: None,
            create: false,
        };
        self.hub.publish(&self.stream, publication).await.unwrap();
    }

    /// Starts polls at the tail and returns when all of them sleep.
    async fn hold(&self, polls: usize) -> Vec<JoinHandle<Polled>> {
        let poll = |bench: Self| async move {
            let hold = Duration::from_secs(60);
            let poll = Poll { stream: bench.stream, start: Start::Tail, hold, client: None };
            bench.hub.poll(poll).await.unwrap()
        };
        let held = (0..polls).map(|_| tokio::spawn(poll(self.clone()))).collect();
        let [.., mut sleeping, _] = self.hub.counts();
        while sleeping < polls {
            tokio::time::sleep(Duration::from_millis(1)).await;
            [.., sleeping, _] = self.hub.counts();
        }
        held
    }

    /// One append: the time until it returns, and the time until the last poll is answered.
    async fn wake(&self, polls: usize) -> (Duration, Duration) {
        let held = self.hold(polls).await;
        let since = Instant::now();
        self.publish().await;
        let published = since.elapsed();
        for poll in held {
            assert_eq!(poll.await.unwrap().batch.messages, 1);
        }
        (published, since.elapsed())
    }
}

fn json() -> ContentType {
    ContentType::parse("application/json").unwrap()
}

fn append(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let bench = runtime.block_on(Bench::new());
    criterion.bench_function("append/no waiter", |bencher| {
        bencher.to_async(&runtime).iter(|| bench.publish());
    });
}

fn wake(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let mut group = criterion.benchmark_group("append");
    for polls in WAITERS {
        let bench = runtime.block_on(Bench::new());
        let bench = &bench;
        let total = |times: u64, part: fn((Duration, Duration)) -> Duration| async move {
            let mut total = Duration::ZERO;
            for _ in 0..times {
                total += part(bench.wake(polls).await);
            }
            total
        };
        group.bench_function(BenchmarkId::new("publish", polls), |bencher| {
            bencher.to_async(&runtime).iter_custom(|times| total(times, |(published, _)| published));
        });
        group.bench_function(BenchmarkId::new("last answer", polls), |bencher| {
            bencher.to_async(&runtime).iter_custom(|times| total(times, |(_, last)| last));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = append, wake
}
criterion_main!(benches);
