//! Short polls behind the last message, in a closed loop: what clients ask for most of the time, when there is nothing new.

use std::sync::Arc;

use bytes::Bytes;
use hyper::Response;
use tokio::task::JoinSet;

use super::closed_loop::until_the_end;
use super::pace::pace;
use super::poller::{Poller, at_the_tails};
use super::{Load, Scene, ThreadError};
use crate::client::brings_messages;
use crate::figures::Pace;
use crate::wire::WireError;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct ShortPolls {
    /// Connections.
    pub connections: u32,
    /// Streams; connection `c` polls stream `c % streams`.
    pub streams: u32,
}

impl Load for ShortPolls {
    type Figures = Pace;

    const COUNTS: &'static str = "polls";

    fn streams(&self) -> u32 {
        self.streams
    }

    async fn put(&self, scene: Arc<Scene>) -> Result<Option<Pace>, ThreadError> {
        let Self { connections, streams } = *self;
        let everyone = scene.clone();
        pace(&scene, async move {
            let Some(tails) = everyone.tally.troubles.unless(at_the_tails(&everyone, streams).await) else {
                return;
            };
            let pollers = tails.into_iter().cycle().take(connections as usize);
            pollers.map(run).collect::<JoinSet<()>>().join_all().await;
        })
        .await
    }
}

async fn run(poller: Poller) {
    if let Err(error) = poll(&poller).await {
        poller.scene.tally.troubles.note(format!("polling: {error}"));
    }
}

async fn poll(poller: &Poller) -> Result<(), WireError> {
    let mut connection = poller.scene.connect().await?;
    let scene = &poller.scene;
    let check = |answer: &Response<Bytes>| {
        let is_old =
            brings_messages(answer.status())? && scene.workload.find_in(answer.body()).next().is_some();
        if is_old { Err(WireError::ReadBefore) } else { Ok(()) }
    };
    until_the_end(scene, &mut connection, |_| poller.poll(None), check).await
}
