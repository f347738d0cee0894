//! Slow and silent clients: each is disconnected at its time limit, and other clients are not affected.

mod bodies;
mod heads;
mod readers;

use std::ops::Range;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::world::{Gateway, get, put};

const FIRST_BYTE: Duration = Duration::from_millis(300);
const HEAD: Duration = Duration::from_millis(350);
const IDLE: Duration = Duration::from_millis(400);
const BODY: Duration = Duration::from_millis(450);
const WRITE: Duration = Duration::from_millis(500);

/// Pause between two bytes of a client that sends one byte at a time.
const PAUSE: Duration = Duration::from_millis(20);

const TEXT: &str = "/v1/stream/text";

async fn short_of_patience() -> Gateway {
    let limits = [
        ("first_byte_timeout", FIRST_BYTE),
        ("head_timeout", HEAD),
        ("idle_timeout", IDLE),
        ("body_timeout", BODY),
        ("write_timeout", WRITE),
    ]
    .map(|(name, limit)| format!("{name}={}ms", limit.as_millis()));
    let arguments: Vec<&str> = limits.iter().flat_map(|limit| ["--limit", limit]).collect();
    let gateway = Gateway::start(&arguments).await;
    gateway.send(put(TEXT).text("first")).await.expect(201);
    gateway
}

/// Range of times after which a client that exceeds `limit` is disconnected: at most a second after it.
fn around(limit: Duration) -> Range<Duration> {
    // Timers with a resolution of a millisecond may fire a little early.
    limit - Duration::from_millis(5)..limit + Duration::from_secs(1)
}

/// A well-behaved client beside the slow ones: it sends one request after the other on one connection.
struct Healthy(JoinHandle<()>);

impl Healthy {
    async fn start(gateway: &Gateway) -> Self {
        let mut connection = gateway.connect().await;
        Self(tokio::spawn(async move {
            let mut ticks = interval(Duration::from_millis(10));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                connection.send(get(TEXT)).await.expect(200);
            }
        }))
    }

    /// Asserts that each of its requests so far was answered.
    async fn was_served(self) {
        assert!(!self.0.is_finished(), "a healthy client was refused");
        self.0.abort();
    }
}
