//! Appends in a closed loop.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::closed_loop::until_the_end;
use super::pace::pace;
use super::{Load, Scene, ThreadError};
use crate::figures::Pace;
use crate::wire::{WireError, accepted};
use crate::workload::MessageId;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Appends {
    /// Connections.
    pub connections: u32,
    /// Streams; connection `c` appends to stream `c % streams`.
    pub streams: u32,
}

impl Load for Appends {
    type Figures = Pace;

    const COUNTS: &'static str = "appends";

    fn streams(&self) -> u32 {
        self.streams
    }

    async fn put(&self, scene: Arc<Scene>) -> Result<Option<Pace>, ThreadError> {
        let Self { connections, streams } = *self;
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
