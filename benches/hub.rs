//! Measures one append to a stream with no poll, or with 1, 1 000 or 10 000 polls waiting on it, with subscribers that match
//! it, and with subscribers that do not. In process: no sockets, no HTTP.
//!
//! `cargo bench --bench hub`; about two minutes. `publish` is the time until the append returns, `last answer` the time until
//! every poll has its messages, `last told` the time until every subscriber is notified.

#![allow(clippy::unwrap_used, reason = "a bench may panic")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use pollgate::clock::Clock;
use pollgate::hub::{Creation, Hub, PollSettings, Polled, StreamReader, Subscriber};
use pollgate::limits::Limits;
use pollgate::metrics::Metrics;
use pollgate::store::Memory;
use pollgate::stream::{Append, ContentType, Filter, Payload, Retention, Start, StreamName};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// The published message.
const MESSAGE: &[u8] =
    br#"{"from":"ada","text":"a message of about one hundred bytes, as many are that people send"}"#;

/// The gateway's default limit on the nesting of JSON.
const JSON_DEPTH_MAX: usize = 64;

const WAITERS: [usize; 3] = [1, 1_000, 10_000];
const SUBSCRIBERS: [usize; 2] = [1, 1_000];

/// Enough messages to read, and a bound on the memory of a long run.
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
            retention: Some(Retention { messages_max: Some(MESSAGES_KEPT), ..Retention::default() }),
            ..Creation::default()
        };
        hub.create(&stream, creation).await.unwrap();
        Self { hub, stream }
    }

    async fn publish(&self) {
        let append = Append::of(json(), Payload::default());
        let append = append.with_body(Bytes::from_static(MESSAGE), JSON_DEPTH_MAX).unwrap();
        self.hub.publish(&self.stream, append).await.unwrap();
    }

    fn subscriber(&self, filter: &str) -> Subscriber {
        let subscriber = self.hub.subscriber("bench");
        subscriber.add(Filter::parse(filter).unwrap());
        subscriber
    }

    /// Starts polls at the tail and returns when all of them wait.
    async fn hold(&self, polls: usize) -> Vec<JoinHandle<Polled<StreamReader>>> {
        let poll = |bench: Self| async move {
            let hold = Duration::from_secs(60);
            let reader = bench.hub.stream_reader(&bench.stream, Start::Tail);
            bench.hub.poll(reader, PollSettings { hold, ..PollSettings::default() }).await.unwrap()
        };
        let held = (0..polls).map(|_| tokio::spawn(poll(self.clone()))).collect();
        while self.hub.counts().waiters < polls {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        held
    }

    /// Appends once. Returns the time until the append returns, and the time until the last poll is answered.
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

/// Subscribers of a bench's stream, each in a task that waits for the next change.
struct Crowd {
    bench: Bench,
    size: usize,
    /// Notifications, over all subscribers.
    told: Arc<AtomicUsize>,
}

impl Crowd {
    async fn new(filter: &str, size: usize) -> Self {
        let (bench, told) = (Bench::new().await, Arc::<AtomicUsize>::default());
        for _ in 0..size {
            let (subscriber, told) = (bench.subscriber(filter), told.clone());
            tokio::spawn(async move {
                loop {
                    subscriber.changed(1).await;
                    told.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let crowd = Self { bench, size, told };
        crowd.tell().await;
        crowd
    }

    /// Appends once. Returns the time until the append returns, and the time until the last subscriber is notified.
    async fn tell(&self) -> (Duration, Duration) {
        let all_told = self.told.load(Ordering::Relaxed) + self.size;
        let since = Instant::now();
        self.bench.publish().await;
        let published = since.elapsed();
        while self.told.load(Ordering::Relaxed) < all_told {
            tokio::task::yield_now().await;
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

fn tell(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let mut group = criterion.benchmark_group("subscribers");
    for (kind, filter) in [("by name", "room/1"), ("by wildcard", "room/+")] {
        for subscribers in SUBSCRIBERS {
            let crowd = runtime.block_on(Crowd::new(filter, subscribers));
            let crowd = &crowd;
            let total = |times: u64, part: fn((Duration, Duration)) -> Duration| async move {
                let mut total = Duration::ZERO;
                for _ in 0..times {
                    total += part(crowd.tell().await);
                }
                total
            };
            group.bench_function(BenchmarkId::new(format!("{kind}/publish"), subscribers), |bencher| {
                bencher.to_async(&runtime).iter_custom(|times| total(times, |(published, _)| published));
            });
            group.bench_function(BenchmarkId::new(format!("{kind}/last told"), subscribers), |bencher| {
                bencher.to_async(&runtime).iter_custom(|times| total(times, |(_, last)| last));
            });
        }
    }
    group.finish();
}

/// Subscribers of other streams should not slow down this stream's publisher.
fn idle(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    for kind in ["name", "wildcard"] {
        let bench = runtime.block_on(Bench::new());
        let filter = |n| if kind == "name" { format!("other/{n}") } else { format!("other/{n}/+") };
        let others: Vec<_> = (0..1_000).map(|n| bench.subscriber(&filter(n))).collect();
        criterion.bench_function(&format!("append/{} others by {kind}", others.len()), |bencher| {
            bencher.to_async(&runtime).iter(|| bench.publish());
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = append, wake, tell, idle
}
criterion_main!(benches);
