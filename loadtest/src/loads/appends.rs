//! Appends in a closed loop.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::by_wrk::{Generator, by_wrk};
use super::closed_loop::until_the_end;
use super::pace::pace;
use super::{Load, Scene, ThreadError};
use crate::figures::Pace;
use crate::wire::{WireError, accepted};
use crate::workload::MessageId;
use crate::wrk::{Wrk, WrkError};

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Appends {
    /// Connections.
    pub connections: u32,
    /// Streams; connection `c` appends to stream `c % streams`.
    pub streams: u32,
    /// Who appends.
    pub generator: Generator,
}

/// What nchan keeps of a stream, as it is configured here, and others as far as they can be asked to: everything that wrk
/// appends is in one stream.
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

    async fn put(&self, scene: Arc<Scene>) -> Result<Option<Pace>, ThreadError> {
        let Self { connections, streams, generator } = *self;
        if let Generator::Wrk(threads) = generator {
            return Ok(scene.tally.troubles.unless(append_by(Wrk { connections, threads }, &scene).await));
        }
        let everyone = scene.clone();
        pace(&scene, async move {
            let appenders =
                (0..connections).map(|number| run(everyone.clone(), number, number % streams.max(1)));
            appenders.collect::<JoinSet<()>>().join_all().await;
        })
        .await
    }
}

/// One connection. Its messages have its number for that of their stream, so that they differ.
async fn run(scene: Arc<Scene>, number: u32, stream: u32) {
    if let Err(error) = append(&scene, number, stream).await {
        scene.tally.troubles.note(error.to_string());
    }
}

async fn append(scene: &Scene, number: u32, stream: u32) -> Result<(), WireError> {
    let stream = scene.stream(stream);
    let mut connection = scene.connect().await?;
    let next = |sequence| scene.publish(&stream, MessageId { stream: number, sequence });
    until_the_end(scene, &mut connection, next, accepted).await
}

/// wrk appends the same message all the time.
async fn append_by(wrk: Wrk, scene: &Scene) -> Result<Pace, WrkError> {
    let message = MessageId { stream: 0, sequence: 0 };
    by_wrk(scene, wrk, &scene.publish(&scene.stream(0), message)?).await
}
