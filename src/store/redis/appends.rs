//! Appends of one stream share calls: while a call is under way, further appends of the stream wait, and the next call takes all of
//! them. So a stream is never appended to out of order, and a busy stream costs fewer calls than appends.
//!
//! Each call has a number. A call without an answer is sent again with the same number, and the engine does nothing if it had done it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use redis::Value;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::append_queue::QueuedAppend;
use super::argument::{millis, namespace_of, partition_number, partition_of, session_partition};
use super::continued::Continued;
use super::functions::EngineCall;
use super::hot::StreamMove;
use super::news::NEWS_BYTES_MAX;
use super::reply::{EngineReply, items};
use super::shared::SharedStore;
use super::shares::shortage_of;
use crate::budget::Charge;
use crate::store::log::Record;
use crate::stream::{
    Append, AppendError, AppendRefusal, AppendType, Appended, ChangeError, ContentType, Failure, Missing,
    Position, ProducerRefusal, SessionChange, StreamName,
};

/// An append whose stream changes its content type this often meanwhile is refused.
const SPLITS_MAX: usize = 3;

/// A call without an answer is sent again this often, each time after a delay.
const ATTEMPTS: u32 = 3;
const AGAIN: Duration = Duration::from_millis(100);

/// How the appends of a call, made at `at`, have moved the tail, with their messages unless news would not have them. `None`: they have not
/// moved it.
fn moved_by(batch: &[QueuedAppend], replies: &[Option<EngineReply>], at: SystemTime) -> Option<StreamMove> {
    let new = batch.iter().zip(replies).filter_map(|(queued, reply)| {
        let (epoch, tail, closed) = reply.as_ref()?.moved_to()?;
        Some((queued, epoch, tail, closed))
    });
    let mut all: Option<StreamMove> = None;
    let mut bytes = 0;
    for (QueuedAppend { append, .. }, epoch, tail, closed) in new {
        let before = Position(tail.0.saturating_sub(append.payload.positions()));
        let moved = all.get_or_insert(StreamMove {
            epoch,
            before,
            tail,
            closed,
            earliest: None,
            records: Vec::new(),
        });
        (moved.tail, moved.closed) = (tail, closed);
        bytes += append.payload.len();
        if tail > before {
            moved.records.push(Record {
                start: before,
                shape: append.payload.shape().clone(),
                content: append.payload.bytes().clone(),
                at,
                annotation: append.annotation.clone(),
            });
        }
    }
    let moved = all?;
    Some(if bytes > NEWS_BYTES_MAX { StreamMove { records: Vec::new(), ..moved } } else { moved })
}

impl SharedStore {
    /// Appends, together with other appends of the same stream.
    async fn append(
        self: &Arc<Self>,
        name: &StreamName,
        append: Box<Append>,
        now: SystemTime,
    ) -> Result<(Box<Append>, EngineReply), Failure> {
        let (verdict, answer) = oneshot::channel();
        if self.appends.push(name, QueuedAppend { append, now, verdict })
            && let Some(batch) = self.appends.next(name)
        {
            let call = self.clone().append_batch(name.clone(), batch);
            Continued::new(self.engine.runtime().clone(), call).await;
        }
        let (append, reply) = answer.await.map_err(|_| Failure::Unreachable)?;
        Ok((append, reply?))
    }

    /// Makes one call, and lets a task make those for the appends that wait by then.
    async fn append_batch(self: Arc<Self>, name: StreamName, batch: Vec<QueuedAppend>) {
        self.append_and_answer(&name, batch).await;
        let mut next = self.appends.next(&name);
        if next.is_some() {
            self.engine.runtime().clone().spawn(async move {
                while let Some(batch) = next {
                    self.append_and_answer(&name, batch).await;
                    next = self.appends.next(&name);
                }
            });
        }
    }

    /// Makes one call, and tells each append its verdict.
    async fn append_and_answer(&self, name: &StreamName, batch: Vec<QueuedAppend>) {
        let now = batch.iter().map(|waiting| waiting.now).max().unwrap_or(SystemTime::UNIX_EPOCH);
        let (now, wall) = self.moment(now);
        let answers = self.append_all(name, &batch, now, wall).await;
        let answers = answers.map(|answers| EngineReply::of_appends(answers).collect::<Vec<_>>());
        if let Ok(replies) = &answers
            && self.attached.has(name.as_str())
            && let Some(moved) = moved_by(&batch, replies, now)
        {
            // The waiters of this gateway are told before the news come.
            self.attached.note_news(name, Some(moved));
        }
        let mut answers = answers.map(Vec::into_iter);
        for QueuedAppend { append, verdict, .. } in batch {
            let reply = match &mut answers {
                Ok(answers) => answers.next().flatten().ok_or(Failure::Unreadable),
                Err(failure) => Err(*failure),
            };
            // A publisher that has disconnected does not wait for its verdict.
            let _gone = verdict.send((append, reply));
        }
    }

    /// Adds a change of a session that an append makes: the number of its arguments, its namespace, and the change.
    fn with_session(&self, call: EngineCall, change: &SessionChange) -> EngineCall {
        let call = call.number(4 + 3 * change.entries.len() as u64).with(namespace_of(&change.client));
        call.session(change, &self.claims.owner(&change.client))
    }

    /// Makes one call. `now` is the time that measures ages, and `wall` the time of day, by the clock that all gateways share.
    async fn append_all(
        &self,
        name: &StreamName,
        batch: &[QueuedAppend],
        now: SystemTime,
        wall: SystemTime,
    ) -> Result<Vec<Value>, Failure> {
        let sessions = batch.iter().filter_map(|waiting| waiting.append.session.as_ref());
        let sessions = sessions.map(|change| namespace_of(&change.client));
        let partitions: BTreeSet<String> = sessions.collect();
        let further = partitions.iter().map(String::as_str);
        let call = EngineCall::over("append", &partition_of(name), further).with(name.as_str());
        let call = call.number(millis(now)).number(millis(wall)).with(&self.gateway).number(self.next_call());
        let call = batch.iter().fold(call, |call, waiting| {
            let call = call.append(&waiting.append);
            match &waiting.append.session {
                Some(change) => self.with_session(call, change),
                None => call.number(0_u64),
            }
        });
        self.engine.metrics.appended(batch.len());
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.engine.call(&call).await {
                Ok(answer) => return items(answer).ok_or(Failure::Unreadable),
                Err(Failure::Unreachable) if attempt < ATTEMPTS => sleep(AGAIN).await,
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Appends messages that are split by the content type of the stream.
    pub(super) async fn append_split(
        self: &Arc<Self>,
        name: &StreamName,
        mut append: Box<Append>,
        now: SystemTime,
    ) -> Result<Appended, AppendError> {
        // A cluster makes two steps, except for the origin of the stream.
        let may_be_elsewhere = !self.engine.spans_partitions();
        let is_elsewhere = |change: &mut SessionChange| {
            may_be_elsewhere && session_partition(&change.client) != partition_number(name)
        };
        let later = append.session.take_if(is_elsewhere);
        for _ in 0..SPLITS_MAX {
            if matches!(append.content_type, AppendType::OfStream { .. }) {
                let content_type = self.content_type_for(name, &append, now).await?;
                append.split_for(&content_type)?;
            }
            let waiting =
                Charge::waiting(&self.budget, name.tenant(), append.principal, append.payload.len());
            let (returned, mut reply) = self.append(name, append, now).await?;
            drop(waiting);
            append = returned;
            match &*reply.verdict {
                "split" => self.content_types.invalidate(name),
                _ => {
                    let appended = self.appended(name, &append, &mut reply).await?;
                    if let Some(change) = later.filter(|_| !appended.duplicate) {
                        self.change_session(change).await?;
                    }
                    return Ok(appended);
                }
            }
        }
        Err(Failure::Unreachable.into())
    }

    /// The content type by which an append to a stream of any type is split.
    async fn content_type_for(
        &self,
        name: &StreamName,
        append: &Append,
        now: SystemTime,
    ) -> Result<ContentType, AppendError> {
        if let Some(known) = self.content_types.get(name) {
            return Ok(known);
        }
        match (self.describe(name, now).await, append.creation()) {
            (Ok(description), _) => {
                self.content_types.insert(name.clone(), description.content_type.clone());
                Ok(description.content_type)
            }
            (Err(ChangeError::Missing(Missing::NotFound)), Some(create)) => Ok(create.content_type),
            (Err(ChangeError::Missing(missing)), _) => Err(missing.into()),
            (Err(ChangeError::Failed(failure)), _) => Err(failure.into()),
        }
    }

    /// The result of an append by the verdict of the engine.
    async fn appended(
        &self,
        name: &StreamName,
        append: &Append,
        reply: &mut EngineReply,
    ) -> Result<Appended, AppendError> {
        match &*reply.verdict {
            "missing" => {
                self.has_gone(name, reply).await;
                return Err(Missing::NotFound.into());
            }
            "deleted" => return Err(Missing::Deleted.into()),
            "superseded" => return Err(Failure::Superseded.into()),
            _ => {}
        }
        let (source, ended) = (reply.text(3), reply.text(4));
        self.has_ended(name, source, &ended).await;
        if let Some(shortage) = shortage_of(&reply.verdict) {
            return Err(Failure::OverBudget(shortage).into());
        }
        let head = reply.head().ok_or(Failure::Unreadable)?;
        let (first, second) = (reply.text(1), reply.text(2));
        let number = |text: &str| text.parse().ok();
        let tail = head.tail_offset();
        let refused = |refusal| Err(AppendError::Refused { refusal, tail });
        let by_producer = |refusal| refused(AppendRefusal::Producer(refusal));
        let created = match &*reply.verdict {
            "new" => false,
            "created" => true,
            "duplicate" => {
                return Ok(Appended {
                    tail,
                    closed: head.closed,
                    duplicate: true,
                    created: false,
                    messages: 0,
                    bytes: 0,
                    highest: number(&first),
                    epoch: head.history.own(),
                });
            }
            "closed" => return refused(AppendRefusal::Closed),
            "has_origin" => return refused(AppendRefusal::HasOrigin),
            "content_type" => return refused(AppendRefusal::ContentType),
            "sequence" => return refused(AppendRefusal::SequenceRegression),
            "stale" => {
                let current = number(&first).ok_or(Failure::Unreadable)?;
                return by_producer(ProducerRefusal::StaleEpoch { current });
            }
            "not_from_zero" => return by_producer(ProducerRefusal::EpochNotFromZero),
            "gap" => {
                let (expected, received) = number(&first).zip(number(&second)).ok_or(Failure::Unreadable)?;
                return by_producer(ProducerRefusal::SequenceGap { expected, received });
            }
            "too_many_producers" => return by_producer(ProducerRefusal::TooMany),
            _ => return Err(Failure::Unreadable.into()),
        };
        Ok(Appended {
            tail,
            closed: head.closed,
            duplicate: false,
            created,
            messages: append.payload.messages(),
            bytes: append.payload.len(),
            highest: append.producer.as_ref().map(|producer| producer.sequence),
            epoch: head.history.own(),
        })
    }
}
