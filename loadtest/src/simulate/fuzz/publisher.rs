//! A publisher: the client's producer, ended and started again.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use pollgate_client::{Client, Producer, ProducerSettings, PublishError, Settings};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::link::Link;
use super::scenario::StreamPlan;
use super::truth::Text;
use super::world::World;
use crate::simulate::SimulationError;

/// Producers add to their epoch themselves when the gateway has forgotten them.
const EPOCHS_PER_LIFE: u64 = 1000;

/// Most messages that are published without waiting for the one before.
const BURST_MAX: u64 = 4;

pub(super) struct Publisher {
    world: Arc<World>,
    plan: StreamPlan,
    number: u32,
    client: Client,
    producer: Producer,
    lives: u64,
    next: u64,
    /// Publishes that are not acknowledged yet.
    waiting: JoinSet<(Text, Result<(), PublishError>)>,
    random: Rng,
    /// What the gateway should not have refused.
    pub(super) wrong: Vec<String>,
}

impl Publisher {
    pub(super) fn new(world: Arc<World>, plan: StreamPlan, number: u32) -> Result<Self, SimulationError> {
        let random = world.random();
        let link = Arc::new(Link::new(world.clone(), number, world.random()));
        let settings = Settings { backoff_max: Duration::from_secs(4), ..Settings::default() };
        let client = Client::builder("http://localhost")
            .settings(settings)
            .connector(move |_, _| link.clone().connect())
            .build()?;
        let producer = producer(&client, &plan, number, 0);
        let waiting = JoinSet::new();
        let wrong = Vec::new();
        Ok(Self { world, plan, number, client, producer, lives: 1, next: 0, waiting, random, wrong })
    }

    /// Publishes while things fail.
    pub(super) async fn publish(mut self) -> Self {
        while self.next < self.plan.messages {
            let pause = self.plan.pause.mul_f64(self.random.f64());
            sleep(pause).await;
            for _ in 0..self.random.u64(1..=BURST_MAX) {
                self.enqueue();
            }
            if self.plan.publishers_restart && self.random.f64() < 0.2 {
                self.restart();
            }
            if self.random.bool() {
                self.settle().await;
            }
        }
        self
    }

    /// Publishes one message more. Returns it.
    pub(super) fn enqueue(&mut self) -> Text {
        let text = Text { publisher: self.number, number: self.next };
        self.next += 1;
        let padding = "x".repeat(self.random.usize(0..=self.plan.padding));
        let message =
            format!(r#"{{"publisher":{},"number":{},"padding":"{padding}"}}"#, text.publisher, text.number);
        let published = self.producer.publish(message);
        self.waiting.spawn(async move { (text, published.await) });
        text
    }

    /// Waits for the acknowledgement of everything.
    pub(super) async fn settle(&mut self) {
        while let Some(Ok((text, outcome))) = self.waiting.join_next().await {
            match outcome {
                Ok(()) => {
                    self.world.note(self.number, &format!("{} is acknowledged", text.number));
                    self.world.truth.lock().acknowledge(&self.plan.name, text);
                }
                // Of the producer before.
                Err(PublishError::Ended) => {}
                Err(error) => self.wrong.push(format!("publisher {}: {text:?}: {error}", self.number)),
            }
        }
    }

    /// Ends as a program that crashes, and starts with the same id: what is not acknowledged may be stored or not.
    fn restart(&mut self) {
        self.world.note(self.number, "restarts");
        self.producer = producer(&self.client, &self.plan, self.number, self.lives * EPOCHS_PER_LIFE);
        self.lives += 1;
    }
}

fn producer(client: &Client, plan: &StreamPlan, number: u32, epoch: u64) -> Producer {
    let id = Some(format!("publisher-{number}"));
    let settings = ProducerSettings { content_type: plan.content_type.into(), create: true, id, epoch };
    client.producer_with(&plan.name, settings)
}
