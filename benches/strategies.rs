//! Measures every delivery form on loopback against a gateway process: the time from a publish to the delivery, and the
//! requests for 1 000 deliveries.
//!
//! `cargo bench --bench strategies`; about a minute. One stream and one reader at a time, messages of about 100 bytes. Short
//! polls have an interval of 5 ms: with a longer one the interval alone would be measured. For the table, messages are
//! published every 2 ms, independently of the reader. Many clients, costs and other servers: `loadtest`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a bench may panic"
)]

#[path = "../tests/world/mod.rs"]
mod world;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use tokio::runtime::Runtime;
use tokio::time::{Instant, interval};
use world::mqtt::{Hello, Mqtt};
use world::{Form, Gateway, Kind, Publisher, Reader};

const MESSAGE: &str =
    r#"{"from":"ada","text":"a message of about one hundred bytes, as many are that people send"}"#;
const DELIVERIES: u64 = 1_000;
const PACE: Duration = Duration::from_millis(2);

/// CONNECT and SUBSCRIBE.
const MQTT_REQUESTS: f64 = 2.0;

/// A reader of one delivery form.
enum Subscription {
    Http(Box<Reader>),
    Mqtt(Mqtt),
}

impl Subscription {
    /// Opens a reader at the tail of the stream; a `form` of `None` is MQTT.
    async fn open(gateway: &Gateway, publisher: &Publisher, form: Option<Form>) -> Self {
        let Some(form) = form else {
            let mut client = Mqtt::connect(gateway.mqtt, &Hello::new("bench")).await;
            let topic = publisher.place.path.strip_prefix("/v1/stream/").unwrap();
            assert_eq!(client.subscribe(topic, 1).await, 1);
            return Self::Mqtt(client);
        };
        let mut reader = Reader::open(&publisher.place, form, "now").await.unwrap();
        reader.next().await.unwrap();
        Self::Http(Box::new(reader))
    }

    /// Waits for messages and returns their number.
    async fn next(&mut self) -> u64 {
        match self {
            Self::Http(reader) => {
                let batch = reader.next().await.unwrap().expect("the stream goes on");
                batch.data.iter().filter(|byte| **byte == b'\n').count() as u64
            }
            Self::Mqtt(client) => {
                assert_eq!(client.take().await.payload, MESSAGE.as_bytes());
                1
            }
        }
    }

    async fn receive(&mut self, messages: u64) {
        let mut received = 0;
        while received < messages {
            received += self.next().await;
        }
        assert_eq!(received, messages);
    }
}

fn strategies(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let gateway = runtime.block_on(Gateway::start(&[]));
    let mut group = criterion.benchmark_group("publish to delivery");
    for form in Form::ALL.map(Some).into_iter().chain([None]) {
        let mut publisher =
            runtime.block_on(Publisher::create(&gateway, &stream("latency", form), Kind::Json));
        let mut reader = runtime.block_on(Subscription::open(&gateway, &publisher, form));
        group.bench_function(name(form), |bencher| {
            bencher.iter_custom(|rounds| {
                runtime.block_on(async {
                    let mut all = Duration::ZERO;
                    for _ in 0..rounds {
                        let begin = Instant::now();
                        let delivery = async {
                            reader.receive(1).await;
                            begin.elapsed()
                        };
                        all += tokio::join!(delivery, publisher.append(MESSAGE)).0;
                    }
                    all
                })
            });
        });
    }
    group.finish();
    println!("requests for {DELIVERIES} deliveries, one message every {PACE:?}:");
    for form in Form::ALL.map(Some).into_iter().chain([None]) {
        let requests = runtime.block_on(requests(&gateway, form));
        println!(
            "  {:11} {requests:6}  {:8.1} deliveries a request",
            name(form),
            DELIVERIES as f64 / requests
        );
    }
}

/// Returns the requests of one reader for [`DELIVERIES`] messages, as the gateway counts them.
async fn requests(gateway: &Gateway, form: Option<Form>) -> f64 {
    let mut publisher = Publisher::create(gateway, &stream("requests", form), Kind::Json).await;
    let before = counted(gateway, form).await;
    let mut reader = Subscription::open(gateway, &publisher, form).await;
    let publishing = async {
        let mut pace = interval(PACE);
        for _ in 0..DELIVERIES {
            pace.tick().await;
            publisher.append(MESSAGE).await;
        }
    };
    tokio::join!(publishing, reader.receive(DELIVERIES));
    counted(gateway, form).await - before
}

/// Returns the requests of a form that the gateway has answered; for MQTT the fixed number per session.
async fn counted(gateway: &Gateway, form: Option<Form>) -> f64 {
    let Some(form) = form else { return gateway.metric("pollgate_mqtt_connections").await * MQTT_REQUESTS };
    let text = gateway.ask_admin("/metrics").await.text();
    let label = format!("pollgate_requests_total{{form=\"{form:?}\"");
    let counters = text.lines().filter(|line| line.starts_with(&label));
    counters.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

fn name(form: Option<Form>) -> String {
    form.map_or("Mqtt".to_owned(), |form| format!("{form:?}"))
}

fn stream(purpose: &str, form: Option<Form>) -> String {
    format!("{purpose}/{}", name(form))
}

criterion_group!(benches, strategies);
criterion_main!(benches);
