//! A long poll that waits. There may be very many of them, so it is no future: it has room for nothing but what is needed
//! to wait, and its timer is that of the connection.

#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::Instant;

use super::clients::{Ending, Place};
use super::watched::Watched;
use super::{Hub, PollError, Polled, Shared};
use crate::clock::Alarm;
use crate::stream::{Batch, Epoch, Offset, Position, ReadError, Start, StreamName};

/// See the module. Dropping it leaves the wait queue and the stream.
pub struct Held<'a> {
    hub: &'a Hub,
    place: Place<'a>,
    watched: Watched<'a>,
    /// Where to read from, and up to where the log was known then.
    next: Offset,
    epoch: Epoch,
    tail: Position,
    /// A look at the log.
    look: Option<Pin<Box<Look<'a>>>>,
    /// When what it is to find was published.
    published: Option<Instant>,
    over: Option<Over>,
}

type Look<'a> = dyn Future<Output = Result<Batch, ReadError>> + Send + 'a;

/// Why the next look is the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Deadline,
    Ended(Ending),
}

impl<'a> Held<'a> {
    /// Holds the poll of `place` behind `batch`, which was read when the stream was `watched` already.
    pub(super) fn begin(hub: &'a Hub, place: Place<'a>, watched: Watched<'a>, batch: &Batch) -> Self {
        let (next, epoch, tail) = (batch.next, batch.epoch, batch.tail);
        Self { hub, place, watched, next, epoch, tail, look: None, published: None, over: None }
    }

    /// Says that its task has nothing else to do, and polls it whenever it wakes: then a publisher may let it go first.
    pub fn be_prompt(&mut self) {
        self.watched.be_prompt();
    }

    /// Waits for the answer. `alarm` is the same each time, or one that the same task has used.
    pub fn poll_answer(
        &mut self,
        alarm: &mut Alarm,
        context: &mut Context<'_>,
    ) -> Poll<Result<Polled, PollError>> {
        loop {
            if let Some(look) = &mut self.look {
                let batch = ready!(look.as_mut().poll(context))?;
                self.look = None;
                if !batch.is_empty() || batch.closed || self.over.is_some() {
                    let batch = self.watched.share(self.next, batch, self.hub.limits.tail_bytes_max);
                    return Poll::Ready(Ok(self.answered(batch)));
                }
                (self.next, self.epoch, self.tail) = (batch.next, batch.epoch, batch.tail);
            }
            if let Some(read) = ready!(self.poll_roused(alarm, context)) {
                return Poll::Ready(Ok(self.answered(read)));
            }
            self.look = Some(look(self.hub, self.watched.stream().clone(), self.next));
        }
    }

    /// Waits until it is time to look at the log again, unless somebody else has read what there is to be read.
    fn poll_roused(&mut self, alarm: &mut Alarm, context: &mut Context<'_>) -> Poll<Option<Shared>> {
        if let Poll::Ready(moved) = self.watched.poll_moved(context, self.next, self.epoch, self.tail) {
            self.published = moved.at;
            if moved.gone {
                self.watched.watch_anew();
            }
            return Poll::Ready(moved.read);
        }
        if let Poll::Ready(ending) = self.place.poll_ended(context) {
            self.over = Some(Over::Ended(ending));
        } else {
            ready!(alarm.poll(context, self.place.deadline()));
            self.over = Some(Over::Deadline);
        }
        Poll::Ready(None)
    }

    fn answered(&self, batch: Shared) -> Polled {
        let metrics = &self.hub.metrics;
        metrics.held_poll_answered(self.place.since(), self.published.filter(|_| self.over.is_none()));
        metrics.messages_out(batch.messages, batch.len());
        let superseded = self.over == Some(Over::Ended(Ending::Superseded)) && batch.is_empty();
        Polled { batch, superseded, held: true }
    }
}

fn look(hub: &Hub, stream: StreamName, from: Offset) -> Pin<Box<Look<'_>>> {
    Box::pin(async move { hub.read(&stream, Start::At(from)).await })
}
