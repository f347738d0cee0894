//! Load: short polls at the tail in a closed loop, the most frequent request of clients: there is nothing new.

use std::sync::Arc;

use bytes::Bytes;
use hyper::Response;
use tokio::task::JoinSet;

use super::by_wrk::{Generator, by_wrk};
use super::closed_loop::until_the_end;
use super::pace::pace;
use super::poller::{Poller, at_the_tails};
use super::{Load, Scene, ThreadError};
use crate::client::brings_messages;
use crate::figures::Pace;
use crate::wire::WireError;
use crate::wrk::{Wrk, WrkError};

/// A load of short polls without new messages.
#[derive(Debug, Clone, Copy)]
pub struct ShortPolls {
    /// Number of connections.
    pub connections: u32,
    /// Number of streams; connection `c` polls stream `c % streams`.
    pub streams: u32,
    /// The request generator.
    pub generator: Generator,
}

impl Load for ShortPolls {
    type Figures = Pace;

    const COUNTS: &'static str = "polls";

    fn streams(&self) -> u32 {
        self.streams
    }

    fn allows(&self, seconds: f64) -> Result<(), WrkError> {
        self.generator.allows(self.streams, seconds)
    }

    async fn put(&self, scene: Arc<Scene>) -> Result<Option<Pace>, ThreadError> {
        let Self { connections, streams, generator } = *self;
        if let Generator::Wrk(threads) = generator {
            return Ok(scene.tally.troubles.unless(poll_by(Wrk { connections, threads }, &scene).await));
        }
        let everyone = scene.clone();
        pace(&scene, async move {
            let Some(tails) = everyone.tally.troubles.unless(at_the_tails(&everyone, streams).await) else {
                return;
            };
            let pollers = tails.into_iter().cycle().take(connections as usize);
            let pollers = (0..).zip(pollers).map(|(number, poller)| run(number, poller));
            pollers.collect::<JoinSet<()>>().join_all().await;
        })
        .await
    }
}

/// wrk ignores the content of responses. One poll before and one after check that there was nothing new to read.
async fn poll_by(wrk: Wrk, scene: &Arc<Scene>) -> Result<Pace, WrkError> {
    let tails = at_the_tails(scene, 1).await?;
    let poller = tails.first().ok_or(WireError::NoOffset)?;
    nothing_new(poller).await?;
    let pace = by_wrk(scene, wrk, &poller.poll(None)?).await?;
    nothing_new(poller).await?;
    Ok(pace)
}

async fn nothing_new(poller: &Poller) -> Result<(), WireError> {
    let answer = poller.scene.connect().await?.exchange(poller.poll(None)?).await?;
    check(poller, &answer)
}

async fn run(number: u32, poller: Poller) {
    if let Err(error) = poll(number, &poller).await {
        poller.scene.tally.troubles.note(format!("polling: {error}"));
    }
}

async fn poll(number: u32, poller: &Poller) -> Result<(), WireError> {
    let mut connection = poller.scene.connect_to(number).await?;
    let scene = &poller.scene;
    until_the_end(scene, &mut connection, |_| poller.poll(None), |answer| check(poller, answer)).await
}

/// Returns an error if the answer has a message.
fn check(poller: &Poller, answer: &Response<Bytes>) -> Result<(), WireError> {
    let any = brings_messages(answer.status())?;
    let is_old = any && poller.scene.workload.find_in(answer.body()).next().is_some();
    if is_old { Err(WireError::ReadBefore) } else { Ok(()) }
}
