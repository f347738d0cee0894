//! The tail of many streams: what every live form over many is an encoding of.
//!
//! Like that of one it reads when it is asked and never ahead.

use std::sync::Arc;

use tokio::time::Instant;

use super::life::Life;
use super::{Follow, Following, Hub, PollError, TailSettings, Turn};
use crate::stream::ReadError;

/// A live form's view of many streams, with the first turn already taken.
pub struct TailMany {
    hub: Arc<Hub>,
    following: Following,
    settings: TailSettings,
    life: Life,
    first: Option<Turn>,
    ended: bool,
}

impl Hub {
    /// Opens a tail of many streams, each of them named once. Errors come here, as long as the front can still answer
    /// with a status. Texts are cut between characters, whatever the settings say.
    pub async fn tail_many(
        self: &Arc<Self>,
        follows: Vec<Follow>,
        settings: TailSettings,
    ) -> Result<TailMany, PollError> {
        if self.is_draining() {
            return Err(PollError::Draining);
        }
        let mut following = self.following(follows);
        let first = following.take(self.limits.tail_bytes_max).await.map_err(ReadError::Failed)?;
        let life = Life::begin(self, settings.life);
        Ok(TailMany { hub: self.clone(), following, settings, life, first: Some(first), ended: false })
    }
}

impl TailMany {
    /// What is new: the first turn at once, further ones when something has come, or empty when it is time for a
    /// heartbeat. `None` when its life is over, when the gateway has drained and when the store fails.
    pub async fn next(&mut self) -> Option<Turn> {
        if self.ended {
            return None;
        }
        let turn = match self.first.take() {
            Some(first) => first,
            None => self.read_on().await?,
        };
        self.ended = self.life.is_over();
        Some(turn)
    }

    /// How far each stream has been read.
    pub fn following(&mut self) -> &mut Following {
        &mut self.following
    }

    async fn read_on(&mut self) -> Option<Turn> {
        let heartbeat_at = Instant::now() + self.settings.heartbeat;
        loop {
            let turn = self.following.take(self.hub.limits.tail_bytes_max).await.ok()?;
            if !turn.is_empty() {
                return Some(turn);
            }
            tokio::select! {
                biased;
                () = self.following.changed() => {}
                () = self.life.sleep_until(heartbeat_at) => return Some(turn),
            }
        }
    }
}
