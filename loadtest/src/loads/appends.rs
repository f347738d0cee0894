//! Load: appends in a closed loop.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::by_wrk::{Generator, by_wrk};
use super::closed_loop::until_the_end;
use super::pace::pace;
use super::{Load, Scene, ThreadError, engine_calls};
use crate::figures::Pace;
use crate::wire::{WireError, accepted};
use crate::workload::MessageId;
use crate::wrk::{Wrk, WrkError};

/// A load of appends, one in flight per connection.
#[derive(Debug, Clone, Copy)]
pub struct Appends {
    /// Number of connections.
    pub connections: u32,
    /// Number of streams; connection `c` appends to stream `c % streams`.
    pub streams: u32,
    /// The request generator.
    pub generator: Generator,
}

/// Messages that a stream keeps with wrk, which appends everything to one stream. nchan is configured to keep as many; other
/// servers are asked to.
const MESSAGES_MAX: u32 = 1000;

impl Load for Appends {
    type Figures = Pace;

    const COUNTS: &'static str = "appends";

    fn streams(&self) -> u32 {
        self.streams
    }

    fn messages_max(&self) -> Option<u32> {
        (self.generator != Generator::Own).then_some(MESSAGES_MAX)
    }

    fn allows(&self, seconds: f64) -> Result<(), WrkError> {
        self.generator.allows(self.streams, seconds)
    }

    fn calls_engine(&self) -> bool {
        self.generator == Generator::Own
    }

    async fn put(&self, scene: Arc<Scene>) -> Result<Option<Pace>, ThreadError> {
        let Self { connections, streams, generator } = *self;
        if let Generator::Wrk(threads) = generator {
            return Ok(scene.tally.troubles.unless(append_by(Wrk { connections, threads }, &scene).await));
        }
        let everyone = scene.clone();
        pace(&scene, async move {
            let mut appenders = JoinSet::new();
            for number in 0..connections {
                let (scene, stream) = (everyone.clone(), number % streams.max(1));
                match everyone.engine.clone() {
                    Some(calls) => appenders.spawn(engine_calls::run(calls, scene, number, stream)),
                    None => appenders.spawn(run(scene, number, stream)),
                };
            }
            appenders.join_all().await;
        })
        .await
    }
}

/// Appends on one connection. The messages carry the connection's number as their stream, so that they are distinct.
async fn run(scene: Arc<Scene>, number: u32, stream: u32) {
    if let Err(error) = append(&scene, number, stream).await {
        scene.tally.troubles.note(error.to_string());
    }
}

async fn append(scene: &Scene, number: u32, stream: u32) -> Result<(), WireError> {
    let stream = scene.stream(stream);
    let mut connection = scene.connect_to(number).await?;
    let next = |sequence| scene.publish(&stream, MessageId { stream: number, sequence });
    until_the_end(scene, &mut connection, next, accepted).await
}

/// wrk repeats one message.
async fn append_by(wrk: Wrk, scene: &Scene) -> Result<Pace, WrkError> {
    let message = MessageId { stream: 0, sequence: 0 };
    by_wrk(scene, wrk, &scene.publish(&scene.stream(0), message)?).await
}
