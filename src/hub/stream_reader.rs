//! [`StreamReader`]: reads one stream from its own offset, and wakes when the tail of the stream moves.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::clients::Subject;
use super::signal::Waiter;
use super::source::Source;
use super::update::Change;
use super::waiters::{LiveForm, StreamWaiters, TailMove, TailState};
use super::{Hub, OriginStatus, SharedBatch, Update};
use crate::stream::{Batch, Epoch, Gap, Offset, Position, ReadError, ReadLimit, Start, StreamName};

/// A reader of one stream. Kept small, since there may be very many.
pub struct StreamReader {
    hub: Arc<Hub>,
    waiters: Arc<StreamWaiters>,
    /// `None`: a long poll.
    form: Option<LiveForm>,
    waiter: Waiter,
    /// Start of the next read; an offset after the first read.
    start: Start,
    /// Epoch and tail of the stream at the last read.
    epoch: Epoch,
    tail: Position,
    /// The last read ended before the tail.
    has_more: bool,
    /// The tail has moved since the last read, so other readers may want the result of the next one.
    woken: bool,
}

impl Hub {
    /// Creates a reader of one stream from `start`, for a long poll. The TTL of the stream stops as long as it has a reader.
    pub fn stream_reader(self: &Arc<Self>, stream: &StreamName, start: Start) -> StreamReader {
        self.reader_in(None, stream, start)
    }

    /// Creates a reader for a live form, like [`stream_reader`](Self::stream_reader).
    pub fn live_reader(self: &Arc<Self>, form: LiveForm, stream: &StreamName, start: Start) -> StreamReader {
        self.reader_in(Some(form), stream, start)
    }

    fn reader_in(
        self: &Arc<Self>,
        form: Option<LiveForm>,
        stream: &StreamName,
        start: Start,
    ) -> StreamReader {
        StreamReader {
            waiters: self.waiters.join(stream, form),
            form,
            hub: self.clone(),
            waiter: Waiter::default(),
            start,
            epoch: Epoch(0),
            tail: Position(0),
            has_more: false,
            woken: false,
        }
    }
}

impl StreamReader {
    /// Returns the state of the origin from which the stream is filled. `None`: it has none.
    pub fn origin_status(&self) -> Option<Arc<OriginStatus>> {
        self.hub.origin_status(&self.waiters.name)
    }

    /// Moves the reader behind a batch, and counts its messages as delivered.
    fn advance(&mut self, batch: &SharedBatch) {
        self.start = Start::At(batch.next);
        (self.epoch, self.tail) = (batch.epoch, batch.tail);
        self.has_more = !batch.up_to_date && !batch.is_empty();
        if batch.messages > 0 {
            self.hub.metrics.messages_out(self.waiters.name.tenant_prefix(), batch.messages, batch.len());
            let form = self.form.map_or("long-poll", LiveForm::as_str);
            self.hub.trace_delivery(form, &self.waiters.name, batch.start.position, batch.next.position);
        }
    }

    /// Takes what was read: shares it with other readers that wait, and moves behind it.
    fn take(&mut self, batch: Batch) -> SharedBatch {
        let batch = SharedBatch::from(batch);
        if let Start::At(from) = self.start
            && std::mem::take(&mut self.woken)
            && Self::is_news(&batch)
            && batch.up_to_date
            && batch.lives_for.is_none()
            && batch.len() <= self.hub.limits.tail_bytes_max
        {
            self.waiters.share(from, &batch);
        }
        self.advance(&batch);
        batch
    }

    /// Joins the waiters of the stream that has the name now.
    fn rejoin(&mut self) {
        let successor = self.hub.waiters.join(&self.waiters.name, self.form);
        self.leave();
        self.waiters = successor;
    }

    fn leave(&mut self) {
        self.waiters.signal.forget(&mut self.waiter);
        self.hub.waiters.leave(&self.waiters, self.form);
    }
}

impl Source for StreamReader {
    type Batch = SharedBatch;
    type Update = Update;

    fn hub(&self) -> &Hub {
        &self.hub
    }

    fn subject(&self) -> Subject {
        Subject::Stream(self.waiters.name.clone())
    }

    fn offset(&self) -> Option<Offset> {
        match self.start {
            Start::At(offset) => Some(offset),
            Start::Earliest | Start::Tail => None,
        }
    }

    fn may_wait(&self) -> bool {
        true
    }

    fn read_known(&mut self, bytes_max: usize) -> Option<SharedBatch> {
        let (hub, limit) = (&self.hub, ReadLimit { bytes_max });
        let known = hub.store.known(&self.waiters.name, self.start, limit, hub.clock.now())?;
        // What has woken the reader may be newer than what the store knows without asking.
        let is_newest = !self.woken || !known.is_empty() || known.closed;
        is_newest.then(|| self.take(known))
    }

    async fn read(&mut self, bytes_max: usize) -> Result<SharedBatch, ReadError> {
        let (hub, limit) = (&self.hub, ReadLimit { bytes_max });
        let batch = hub.store.read(&self.waiters.name, self.start, limit, hub.clock.now()).await?;
        Ok(self.take(batch))
    }

    fn poll_changed(&mut self, context: &mut Context<'_>) -> Poll<Change<SharedBatch>> {
        let Start::At(next) = self.start else { return Poll::Ready(Change::default()) };
        if std::mem::take(&mut self.has_more) {
            return Poll::Ready(Change::default());
        }
        let (epoch, tail) = (self.epoch, self.tail);
        let test = |state: &mut TailState| state.moved(next, epoch, tail);
        self.waiters.signal.poll_until(&mut self.waiter, context, test).map(|moved| {
            self.woken = true;
            match moved {
                TailMove::Gone => {
                    self.rejoin();
                    Change::default()
                }
                TailMove::On(change) => {
                    change.batch.iter().for_each(|batch| self.advance(batch));
                    change
                }
            }
        })
    }

    fn is_news(batch: &SharedBatch) -> bool {
        !batch.is_empty() || batch.closed
    }

    fn is_last(update: &Update) -> bool {
        match update {
            Update::Batch(batch) => batch.closed,
            Update::Gap(_) => true,
        }
    }

    fn gap(gap: Gap) -> Option<Update> {
        Some(Update::Gap(gap))
    }
}

impl Drop for StreamReader {
    fn drop(&mut self) {
        self.leave();
    }
}
