//! Creation of streams, and forks. A fork has a copy of the messages that it shares, because its source may be on another node of a
//! cluster. The source counts it, so that the name of the source stays taken.

use std::time::SystemTime;

use super::argument::millis;
use super::argument::partition_of;
use super::functions::EngineCall;
use super::reply::EngineReply;
use super::shared::SharedStore;
use super::shares::shortage_of;
use crate::store::log::Record;
use crate::stream::{
    ChangeError, Create, CreateError, Created, EpochHistory, FORK_DEPTH_MAX, Failure, Fork, GapReason,
    Lifetime, MessageLimit, Missing, Payload, Position, ReadError, Retention, Start, StreamName,
    WriterStates,
};
use bytes::Bytes;

/// Bounds of what a fork copies, which is one call: bytes of messages, and appends.
const FORK_BYTES_MAX: usize = 16 * 1024 * 1024;
const FORK_RECORDS_MAX: usize = 65_536;

/// The part of a creation that a fork takes from its source.
struct Branching {
    inherited: (Lifetime, Retention),
    depth: u8,
    source: StreamName,
    at: Position,
    history: EpochHistory,
    records: Vec<Record<Bytes>>,
    start: Position,
}

impl SharedStore {
    pub(super) async fn create(
        &self,
        name: &StreamName,
        create: Create,
        now: SystemTime,
    ) -> Result<Created, CreateError> {
        let Some(fork) = create.fork.clone() else { return self.create_with(name, &create, None, now).await };
        match self.describe(name, now).await {
            // It exists: the engine compares the settings.
            Ok(_) => return self.create_with(name, &create, None, now).await,
            Err(ChangeError::Missing(Missing::NotFound)) => {}
            Err(ChangeError::Missing(Missing::Deleted)) => return Err(CreateError::NameTaken),
            Err(ChangeError::Failed(failure)) => return Err(failure.into()),
        }
        let branching = self.branch(name, &create, &fork, now).await?;
        let created = self.create_with(name, &create, Some(&branching), now).await;
        if !created.as_ref().is_ok_and(|created| created.fresh) {
            self.release(name.clone(), fork.source.to_string()).await;
        }
        created
    }

    /// Makes the source count the fork, and reads what they share.
    async fn branch(
        &self,
        name: &StreamName,
        create: &Create,
        fork: &Fork,
        now: SystemTime,
    ) -> Result<Branching, CreateError> {
        let (at, wall) = self.moment(now);
        let call = EngineCall::of("fork", &partition_of(&fork.source))
            .with(fork.source.as_str())
            .with(name.as_str());
        let call = call.with("add").number(millis(at)).number(millis(wall));
        let reply = self.ask(&fork.source, &call).await;
        let mut reply = reply.map_err(|error| match error {
            ChangeError::Missing(Missing::NotFound) => CreateError::SourceNotFound,
            ChangeError::Missing(Missing::Deleted) => CreateError::SourceDeleted,
            ChangeError::Failed(failure) => failure.into(),
        })?;
        let depth = reply.text(1).parse().map_err(|_| Failure::Unreadable)?;
        let branched = self.shared_part(create, fork, depth, now).await;
        if branched.is_err() {
            self.release(name.clone(), fork.source.to_string()).await;
        }
        branched
    }

    async fn shared_part(
        &self,
        create: &Create,
        fork: &Fork,
        depth: u8,
        now: SystemTime,
    ) -> Result<Branching, CreateError> {
        if depth >= FORK_DEPTH_MAX {
            return Err(CreateError::ForkTooDeep);
        }
        let failed = |error| match error {
            ReadError::Failed(failure) => failure.into(),
            ReadError::Missing(_) => CreateError::SourceNotFound,
            ReadError::Gap(gap) if gap.reason != GapReason::Epoch => CreateError::ForkTrimmed(gap),
            ReadError::Gap(_) | ReadError::BehindTail => CreateError::ForkOffset,
        };
        let start = fork.offset.unwrap_or(Start::Tail);
        let one = MessageLimit { bytes_max: 0, count_max: 1 };
        let (head, anchor, _) = self.records(&fork.source, start, one, now, true).await.map_err(failed)?;
        if head.content_type != create.content_type {
            return Err(CreateError::SourceContentType);
        }
        let end = anchor.0.checked_add(fork.sub_offset).map(Position).filter(|end| *end <= head.tail);
        let end = end.ok_or(CreateError::ForkOffset)?;
        let shared = MessageLimit { bytes_max: FORK_BYTES_MAX, count_max: FORK_RECORDS_MAX };
        let (mut records, mut from, mut bytes) = (Vec::new(), head.earliest, 0);
        while from < end {
            let start = Start::At(head.history.offset_at(from));
            let (_, _, log) = self.records(&fork.source, start, shared, now, true).await.map_err(failed)?;
            for record in log.records_from(from).take_while(|record| record.start < end) {
                bytes += record.content.len();
                from = record.end();
                records.push(record.into_owned());
            }
            if bytes > FORK_BYTES_MAX || records.len() > FORK_RECORDS_MAX {
                return Err(Failure::Full.into());
            }
        }
        if let Some(last) = records.last_mut().filter(|last| last.end() > end) {
            last.shape = last.shape.until(end.since(last.start));
            last.content.truncate(last.shape.len());
        }
        Ok(Branching {
            inherited: (head.lifetime, head.retention),
            depth: depth + 1,
            source: fork.source.clone(),
            at: end,
            history: head.history.fork(end, head.history.own()),
            start: records.first().map_or(end.max(head.earliest), |record| record.start),
            records,
        })
    }

    async fn create_with(
        &self,
        name: &StreamName,
        create: &Create,
        branching: Option<&Branching>,
        now: SystemTime,
    ) -> Result<Created, CreateError> {
        let empty = WriterStates::default();
        let WriterStates { producers, sequence, .. } = create.writers.as_deref().unwrap_or(&empty);
        let call = self
            .call("create", name, now)
            .creation(create, branching.map(|branching| branching.inherited))
            .with(if create.closed { "1" } else { "0" });
        let call = call.with(sequence.as_deref().unwrap_or_default());
        let has_messages = !create.payload.is_empty();
        let count = branching.map_or(0, |branching| branching.records.len()) + usize::from(has_messages);
        let mut call = match branching {
            Some(Branching { depth, source, at, history, start, .. }) => {
                let ancestors: Vec<_> = history
                    .ancestors()
                    .iter()
                    .map(|(epoch, end)| format!("{:016x}:{}", epoch.0, end.0))
                    .collect();
                call.number(*depth)
                    .with(source.as_str())
                    .number(at.0)
                    .with(ancestors.join(","))
                    .number(start.0)
            }
            None => call.with("0").with("").with("0").with("").with("0"),
        };
        call = call.number(count as u64);
        for record in branching.iter().flat_map(|branching| &branching.records) {
            let payload = if record.shape.is_json() {
                Payload::json(record.content.clone(), record.shape.ends().to_vec())
            } else {
                Payload::message(record.content.clone())
            };
            // A fork begins without a retained message.
            call = call.messages(&payload, record.annotation.as_deref(), false).number(millis(record.at));
        }
        if has_messages {
            call = call.messages(&create.payload, None, false).number(millis(self.moment(now).0));
        }
        for (producer, seen) in producers {
            let state = format!("{}:{}:{}", producer.epoch, producer.sequence, millis(*seen));
            call = call.with(producer.id.as_bytes()).with(state);
        }
        let mut reply = EngineReply::of(self.engine.call(&call).await?).ok_or(Failure::Unreadable)?;
        let fresh = match &*reply.verdict {
            "fresh" => true,
            "exists" => false,
            "differs" => return Err(CreateError::ExistsDifferently),
            "taken" => return Err(CreateError::NameTaken),
            refused => {
                let shortage = shortage_of(refused).ok_or(Failure::Unreadable)?;
                let (source, ended) = (reply.text(1), reply.text(2));
                self.has_ended(name, source, &ended).await;
                return Err(shortage.into());
            }
        };
        let head = reply.head().ok_or(Failure::Unreadable)?;
        if fresh {
            self.attached.note_news(name, None);
            self.content_types.insert(name.clone(), head.content_type.clone());
            let (source, ended) = (reply.text(1), reply.text(2));
            self.has_ended(name, source, &ended).await;
        }
        Ok(Created {
            fresh,
            tail: head.tail_offset(),
            closed: head.closed,
            epoch: head.history.own(),
            content_type: head.content_type,
        })
    }

    /// Makes the source of a fork that has ended forget it, and that of the source if it was kept only for this fork.
    pub(super) async fn release(&self, mut fork: StreamName, mut source: String) {
        while let Ok(name) = StreamName::stored(&source) {
            let call = EngineCall::of("fork", &partition_of(&name)).with(name.as_str()).with(fork.as_str());
            let Ok(answer) = self.engine.call(&call.with("remove")).await else {
                tracing::warn!(stream = %name, "cannot release the name of the source of a fork");
                return;
            };
            let Some(mut reply) = EngineReply::of(answer).filter(|reply| reply.verdict == "removed") else {
                return;
            };
            (fork, source) = (name, reply.text(0));
        }
    }
}
