//! One read of many streams: collects the updates, and moves the positions of the reader.

use tokio::task::consume_budget;

use super::{MultiBatch, MultiReader, StreamUpdate};
use crate::hub::Update;
use crate::stream::{
    Batch, ChangeError, Failure, Gap, GapReason, Progress, ReadError, ReadLimit, Start, StreamName,
};

/// Estimated size of an update in a response, without the name of the stream and its messages, in bytes.
const UPDATE_BYTES: usize = 128;

impl MultiReader {
    /// See [`Source::read`](crate::hub::Source::read).
    pub(super) async fn read_streams(&mut self, bytes_max: usize) -> Result<MultiBatch, Failure> {
        let mut batch = MultiBatch::default();
        let mut left = bytes_max;
        while let Some(index) = self.next_ready(left > 0) {
            consume_budget().await;
            if let Some(update) = self.read_stream(index, left).await? {
                left = left.saturating_sub(update.bytes());
                batch.updates.push(update);
            }
        }
        batch.up_to_date = self.ready.is_empty();
        Ok(batch)
    }

    /// Takes the next stream to be read. Without room for messages, only a stream without a position.
    fn next_ready(&mut self, has_room: bool) -> Option<usize> {
        let index = *self.ready.front()?;
        let stream = self.streams.get_mut(index)?;
        if !has_room && stream.progress.is_some() {
            return None;
        }
        stream.ready = false;
        self.ready.pop_front()
    }

    /// Reads the next part of one stream. `None`: there is no update. A stream that may have more is queued
    /// behind the others.
    async fn read_stream(&mut self, index: usize, bytes_max: usize) -> Result<Option<StreamUpdate>, Failure> {
        let Some(stream) = self.streams.get(index) else { return Ok(None) };
        let before = stream.progress;
        let start = match before {
            Some(progress) => Ok(progress.start()),
            None if stream.history > 0 => {
                let search_bytes = self.hub.limits.history_bytes_max / self.streams.len().max(1);
                self.hub.start_of_last(&stream.name, stream.history, search_bytes, None).await
            }
            None => Ok(Start::Tail),
        };
        let bytes_max = self.hub.limits.tail_bytes_max.min(bytes_max);
        let limit = ReadLimit { bytes_max };
        let read = match start {
            Ok(start) => {
                let now = self.hub.clock.now();
                match self.hub.store.known(&stream.name, start, limit, now) {
                    Some(batch) => Ok(batch),
                    None => self.hub.store.read(&stream.name, start, limit, now).await,
                }
            }
            Err(error) => Err(error),
        };
        let mut times = Vec::new();
        let (progress, update) = match read {
            Ok(batch) => {
                self.hub.metrics.messages_out(stream.name.tenant_prefix(), batch.messages, batch.len());
                self.hub.trace_delivery("many", &stream.name, batch.start.position, batch.next.position);
                let progress = progress_behind(&batch);
                if stream.times && !batch.is_empty() {
                    times = self.hub.times_of(&stream.name, &batch).await;
                }
                let is_news = !batch.is_empty() || (batch.closed && !knows_end(before));
                (progress, is_news.then_some(Some(Update::Batch(batch.into()))))
            }
            Err(ReadError::Missing(_)) => {
                (Progress::Missing, (before != Some(Progress::Missing)).then_some(None))
            }
            Err(ReadError::Gap(gap)) => (Progress::At(gap.earliest), Some(Some(Update::Gap(gap)))),
            // The stream has never given out this offset in its current epoch, so the offset is from another
            // one.
            Err(ReadError::BehindTail) => match self.hub.describe(&stream.name).await {
                Ok(stream) => {
                    let gap = Gap { reason: GapReason::Epoch, earliest: stream.earliest };
                    (Progress::At(gap.earliest), Some(Some(Update::Gap(gap))))
                }
                Err(ChangeError::Missing(_)) => (Progress::Missing, Some(None)),
                Err(ChangeError::Failed(failure)) => return Err(failure),
            },
            Err(ReadError::Failed(failure)) => return Err(failure),
        };
        let may_have_more = match &update {
            Some(Some(Update::Batch(batch))) => !batch.up_to_date,
            Some(Some(Update::Gap(_))) => true,
            Some(None) | None => false,
        };
        let update = self.note(index, progress, update.is_some()).zip(update);
        if may_have_more {
            self.mark(index);
        }
        Ok(update.map(|(stream, update)| StreamUpdate { stream, update, times }))
    }

    fn note(&mut self, index: usize, progress: Progress, served: bool) -> Option<StreamName> {
        let stream = self.streams.get_mut(index)?;
        stream.moved |= stream.progress != Some(progress);
        stream.progress = Some(progress);
        if served {
            self.served += 1;
            stream.served = self.served;
        }
        Some(stream.name.clone())
    }
}

impl StreamUpdate {
    /// Estimated size of the update in a response, in bytes.
    fn bytes(&self) -> usize {
        let messages = match &self.update {
            Some(Update::Batch(batch)) => batch.len(),
            Some(Update::Gap(_)) | None => 0,
        };
        UPDATE_BYTES + self.stream.as_str().len() + messages
    }
}

fn progress_behind(batch: &Batch) -> Progress {
    if batch.closed { Progress::Closed(batch.next) } else { Progress::At(batch.next) }
}

fn knows_end(progress: Option<Progress>) -> bool {
    matches!(progress, Some(Progress::Closed(_)))
}
