//! The long poll of many streams: what is there at once, else one wait for all of them.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::clients::{Ending, Place, Subject};
use super::{ClientId, Follow, Following, Hub, PollError, Turn};
use crate::stream::{Progress, ReadError};

/// A long poll of many streams as a front understood it.
#[derive(Debug, Clone)]
pub struct PollMany {
    /// The streams, each of them once.
    pub follows: Vec<Follow>,
    /// How long to wait for news of any of them.
    pub hold: Duration,
    /// Whose wait queue it goes to.
    pub client: Option<ClientId>,
}

/// The answer to it.
pub struct PolledMany {
    /// What is new; nothing if nothing came.
    pub turn: Turn,
    /// How far each stream has been read.
    pub following: Following,
    /// Whether a newer poll of the same client ended it.
    pub superseded: bool,
}

impl Hub {
    /// Reads what is there of many streams and does not wait: their short poll.
    pub async fn read_many(self: &Arc<Self>, follows: Vec<Follow>) -> Result<PolledMany, PollError> {
        let mut following = self.following(follows);
        let turn = following.take(self.limits.read_bytes_max).await.map_err(ReadError::Failed)?;
        Ok(PolledMany { turn, following, superseded: false })
    }

    /// Answers a long poll of many streams. It is held only if its reader has looked at each of the streams before:
    /// where a reader begins has to be told to it, or what comes while it is cut off would be lost.
    ///
    /// Cancel safe: dropping the future leaves the wait queue and the streams.
    pub async fn poll_many(self: &Arc<Self>, poll: PollMany) -> Result<PolledMany, PollError> {
        let subject = Subject::Streams(poll.follows.len());
        if let Some(client) = &poll.client {
            self.clients.supersede(client, &subject);
        }
        let is_known = |follow: &Follow| follow.progress.is_some_and(Progress::is_known);
        let may_wait = poll.follows.iter().all(is_known) && !poll.hold.is_zero();
        let polled = self.read_many(poll.follows).await?;
        if !polled.turn.is_empty() || !may_wait {
            return Ok(polled);
        }
        let deadline = Instant::now() + poll.hold;
        let place =
            self.clients.hold(poll.client, subject, None, deadline).map_err(PollError::TooManyPolls)?;
        // Asked only now that the poll is on its queue: either it is seen here, or the drain sees the poll.
        if self.is_draining() {
            return Err(PollError::Draining);
        }
        self.hold_many(polled, &place).await
    }

    async fn hold_many(&self, mut polled: PolledMany, place: &Place<'_>) -> Result<PolledMany, PollError> {
        while polled.turn.is_empty() {
            tokio::select! {
                biased;
                () = polled.following.changed() => {
                    polled.turn = polled.following.take(self.limits.read_bytes_max).await.map_err(ReadError::Failed)?;
                }
                ending = poll_fn(|context| place.poll_ended(context)) => {
                    polled.superseded = ending == Ending::Superseded;
                    break;
                }
                () = sleep_until(place.deadline()) => break,
            }
        }
        self.metrics.held_poll_answered(place.since(), None);
        Ok(polled)
    }
}
