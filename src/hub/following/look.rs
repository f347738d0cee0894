//! One look at one of many streams: what its reader is told, and how far it has come then.

use super::{Following, News};
use crate::hub::Update;
use crate::stream::{Batch, Failure, Gap, GapReason, Progress, ReadError, ReadLimit, Start, StreamName};

impl Following {
    /// Reads a stream on. `None`: there is nothing to tell. If there may be more, it is looked at again after the
    /// others.
    pub(super) async fn look(&mut self, index: usize, bytes_max: usize) -> Result<Option<News>, Failure> {
        let Some(followed) = self.streams.get(index) else { return Ok(None) };
        let before = followed.progress;
        let start = before.map_or(Start::Tail, Progress::start);
        let bytes_max = self.hub.limits.tail_bytes_max.min(bytes_max);
        let limit = ReadLimit { bytes_max };
        let read = self.hub.store.read(&followed.name, start, limit, self.hub.clock.now()).await;
        let (progress, update) = match read {
            Ok(batch) => {
                self.hub.metrics.messages_out(batch.messages, batch.len());
                let progress = behind(&batch);
                let is_news = !batch.is_empty() || (batch.closed && !knows_end(before));
                (progress, is_news.then_some(Some(Update::Batch(batch.into()))))
            }
            Err(ReadError::Missing(_)) => {
                (Progress::Missing, (before != Some(Progress::Missing)).then_some(None))
            }
            Err(ReadError::Gap(gap)) => (Progress::At(gap.earliest), Some(Some(Update::Gap(gap)))),
            // No log that lives had this offset, so it was another one.
            Err(ReadError::BehindTail) => match self.hub.describe(&followed.name).await {
                Ok(stream) => {
                    let gap = Gap { reason: GapReason::Epoch, earliest: stream.earliest };
                    (Progress::At(gap.earliest), Some(Some(Update::Gap(gap))))
                }
                Err(_) => (Progress::Missing, Some(None)),
            },
            Err(ReadError::Failed(failure)) => return Err(failure),
        };
        let may_have_more = match &update {
            Some(Some(Update::Batch(batch))) => !batch.up_to_date,
            Some(Some(Update::Gap(_))) => true,
            Some(None) | None => false,
        };
        let news = self.note(index, progress, update.is_some()).zip(update);
        if may_have_more {
            self.look_at(index);
        }
        Ok(news.map(|(stream, update)| News { stream, update }))
    }

    fn note(&mut self, index: usize, progress: Progress, served: bool) -> Option<StreamName> {
        let followed = self.streams.get_mut(index)?;
        followed.moved |= followed.progress != Some(progress);
        followed.progress = Some(progress);
        if served {
            self.looks += 1;
            followed.served = self.looks;
        }
        Some(followed.name.clone())
    }
}

fn behind(batch: &Batch) -> Progress {
    if batch.closed { Progress::Closed(batch.next) } else { Progress::At(batch.next) }
}

fn knows_end(progress: Option<Progress>) -> bool {
    matches!(progress, Some(Progress::Closed(_)))
}
