//! The tail of a stream as a `Stream` of updates: what every live form is an encoding of.
//!
//! It reads when it is polled and never ahead, so a reader that does not read costs a cursor.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::unfold;
use tokio::time::Instant;
use tokio_stream::Stream;

use super::life::Life;
use super::{Hub, PollError, Shared};
use crate::stream::{Batch, Gap, ReadError, ReadLimit, Start, StreamName};

/// How a live form wants its tail.
#[derive(Debug, Clone, Copy)]
pub struct TailSettings {
    /// The longest silence.
    pub heartbeat: Duration,
    /// After this it ends and the client comes again; `None`: never by itself.
    pub life: Option<Duration>,
}

/// What a live form tells its client next.
#[derive(Debug, Clone)]
pub enum Update {
    /// Messages with the cursor behind them; without messages at the beginning, as a heartbeat and at the end.
    Batch(Shared),
    /// Messages behind the client's cursor are not kept any more. The last update.
    Gap(Gap),
}

/// A live form's view of a stream, with the first update already read.
pub struct Tail {
    hub: Arc<Hub>,
    stream: StreamName,
    settings: TailSettings,
    life: Life,
    state: State,
}

enum State {
    /// This update is to be told first.
    First(Shared),
    /// The last update told.
    After(Shared),
    /// Nothing follows.
    Ended,
}

impl Hub {
    /// Opens a tail at `start`. Errors come here, as long as the front can still answer with a status.
    pub async fn tail(
        self: &Arc<Self>,
        stream: StreamName,
        start: Start,
        settings: TailSettings,
    ) -> Result<Tail, PollError> {
        if self.is_draining() {
            return Err(PollError::Draining);
        }
        let first = self.read_for_tail(&stream, start).await?;
        let life = Life::begin(self, settings.life);
        Ok(Tail { hub: self.clone(), stream, settings, life, state: State::First(first.into()) })
    }

    async fn read_for_tail(&self, name: &StreamName, start: Start) -> Result<Batch, ReadError> {
        let limit = ReadLimit { bytes_max: self.limits.tail_bytes_max };
        self.store.read(name, start, limit, self.clock.now()).await
    }
}

impl Tail {
    /// The first update, from which a front knows the stream's content type.
    pub fn first(&self) -> Option<&Batch> {
        match &self.state {
            State::First(batch) => Some(batch),
            State::After(_) | State::Ended => None,
        }
    }

    /// The updates, from the first on. Ends after one that is closed, after a gap, when the stream is deleted,
    /// when its life is over, and when the gateway drains.
    pub fn updates(self) -> impl Stream<Item = Update> + Send {
        unfold(self, |mut tail| async move {
            let update = tail.next().await?;
            Some((update, tail))
        })
    }

    async fn next(&mut self) -> Option<Update> {
        let batch = match std::mem::replace(&mut self.state, State::Ended) {
            State::First(batch) => batch,
            State::After(last) => match self.read_on(&last).await {
                Ok(batch) => batch,
                Err(ReadError::Gap(gap)) => return Some(Update::Gap(gap)),
                Err(_) => return None,
            }?,
            State::Ended => return None,
        };
        self.hub.metrics.messages_out(batch.messages, batch.len());
        if matches!(self.state, State::Ended) && !batch.closed && !self.life.is_over() {
            self.state = State::After(batch.clone());
        }
        Some(Update::Batch(batch))
    }

    /// What follows `last`: messages, or nothing but a cursor when it is time for a heartbeat or for the end.
    async fn read_on(&mut self, last: &Batch) -> Result<Option<Shared>, ReadError> {
        let heartbeat_at = Instant::now() + self.settings.heartbeat;
        let mut published = None;
        loop {
            let mut watched = self.hub.live.watch(&self.stream);
            let batch = self.hub.read_for_tail(&self.stream, Start::At(last.next)).await?;
            if !batch.is_empty() || batch.closed {
                self.hub.metrics.published_to_answer(published);
                return Ok(Some(watched.share(last.next, batch, self.hub.limits.tail_bytes_max)));
            }
            tokio::select! {
                biased;
                moved = poll_fn(|context| watched.poll_moved(context, batch.next, batch.epoch, batch.tail)) => {
                    if let Some(read) = moved.read {
                        self.hub.metrics.published_to_answer(moved.at);
                        return Ok(Some(read));
                    }
                    published = moved.at;
                }
                () = self.life.sleep_until(heartbeat_at) => return Ok(Some(batch.into())),
            }
        }
    }
}
