//! Publishes in a closed loop: each message once the one before has arrived and its publisher has its answer. One thread does all of it, so
//! what is measured is the server and the kernel, not how two threads of the client wake each other.

use std::time::Duration;

use tokio::time::Instant;

use super::Stage;
use crate::loads::HOLD;
use crate::loads::poller::{Poller, at_the_tails};
use crate::wire::{LeanConnection, WireError, accepted, open};
use crate::workload::MessageId;

/// Pause between two messages, in which the server holds the next poll.
const PAUSE: Duration = Duration::from_micros(300);

/// A poll that is held on a connection of its own.
struct HeldPoll {
    connection: LeanConnection,
    poller: Poller,
}

impl HeldPoll {
    async fn poll(&mut self) -> Result<(), WireError> {
        self.connection.send(&self.poller.poll(Some(HOLD))?).await
    }
}

/// Publishes to held polls in turn until the measured time is over. It blocks its thread in between, so the thread must run nothing else.
pub(super) async fn play(stage: &Stage) -> Result<(), WireError> {
    let scene = &stage.scene;
    let mut held = hold_all(stage).await?;
    let mut publisher = LeanConnection::over(open(scene.instance(1)).await?);
    // As clients do that create their stream and then append: the connection has had a request that is no append.
    if let Some(create) = scene.dialect()?.create(&scene.stream(0), None) {
        publisher.send(&scene.addressed(create)?).await?;
        accepted(&publisher.answer().await?.1.response()?)?;
    }
    for sequence in 1.. {
        if Instant::now() >= scene.tally.window.end {
            break;
        }
        let stream = sequence % stage.streams();
        let Some(poll) = held.get_mut(stream as usize) else { break };
        let message = MessageId { stream, sequence };
        let publish = scene.publish(&poll.poller.stream, message)?;
        let body = scene.workload.body(message);
        let begun = Instant::now();
        publisher.send_with(&publish, body.as_ref()).await?;
        let (answer, arrived) = tokio::join!(publisher.answer(), poll.connection.answer());
        let (mut at, mut arrived) = arrived?;
        accepted(&answer?.1.response()?)?;
        // nchan answers a poll without a message now and then.
        while poll.poller.read(&arrived.response()?)? != [message] {
            poll.poll().await?;
            (at, arrived) = poll.connection.answer().await?;
        }
        scene.tally.note(begun, at - begun);
        poll.poll().await?;
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Holds a poll at the tail of each stream.
async fn hold_all(stage: &Stage) -> Result<Vec<HeldPoll>, WireError> {
    let scene = &stage.scene;
    let mut held = Vec::with_capacity(stage.streams() as usize);
    for poller in at_the_tails(scene, stage.streams()).await? {
        let connection = LeanConnection::over(open(scene.target.address).await?);
        let mut poll = HeldPoll { connection, poller };
        poll.poll().await?;
        held.push(poll);
    }
    Ok(held)
}
