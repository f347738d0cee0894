//! Reads: the engine returns whole records, of which the gateway takes the part that was asked for.

use std::time::SystemTime;

use bytes::Bytes;

use super::argument::{PARTITIONS, partition, session_partition};
use super::functions::EngineCall;
use super::reply::{self, EngineReply, StreamHead, items};
use super::shared::SharedStore;
use crate::store::log::{ChargedTo, Log, Record};
use crate::store::note::time;
use crate::store::view::{MessagesView, View};
use crate::stream::PAGE_SESSIONS_MAX;
use crate::stream::{
    Batch, Branch, ChangeError, Failure, Message, MessageLimit, Messages, Position, Principal, Producer,
    ReadError, ReadLimit, SessionNames, SessionPage, Snapshot, Start, StoredSession, StreamName,
    WriterStates,
};

/// A character of UTF-8 has at most four bytes, and a read of text must reach its end.
const CHARACTER_BYTES_MAX: usize = 4;

impl From<ChangeError> for ReadError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Missing(missing) => Self::Missing(missing),
            ChangeError::Failed(failure) => Self::Failed(failure),
        }
    }
}

impl SharedStore {
    /// Reads, together with other readers that ask for the same at the same time.
    pub(super) async fn read(
        &self,
        name: &StreamName,
        start: Start,
        limit: ReadLimit,
        now: SystemTime,
    ) -> Result<Batch, ReadError> {
        self.attached.wait_until_heard(name).await;
        match self.attached.join_read(name, start, limit.bytes_max) {
            Some(read) => read.get_or_init(|| self.read_alone(name, start, limit, now)).await.clone(),
            None => self.read_alone(name, start, limit, now).await,
        }
    }

    async fn read_alone(
        &self,
        name: &StreamName,
        start: Start,
        limit: ReadLimit,
        now: SystemTime,
    ) -> Result<Batch, ReadError> {
        let bytes_max = limit.bytes_max.max(CHARACTER_BYTES_MAX);
        let all = MessageLimit { bytes_max, count_max: usize::MAX };
        let (head, from, log) = self.records(name, start, all, now, true).await?;
        let view = View {
            slice: log.read(from, limit.bytes_max),
            from,
            tail: head.tail,
            closed: head.closed,
            lives_for: head.lives_for(self.moment(now).1),
            epoch_history: head.history,
            content_type: head.content_type,
        };
        Ok(view.into_batch())
    }

    /// What a read from `start` finds as far as the news say.
    pub(super) fn known(
        &self,
        name: &StreamName,
        start: Start,
        limit: ReadLimit,
        now: SystemTime,
    ) -> Option<Batch> {
        let (now, wall) = self.moment(now);
        let batch = self.attached.known(name, |tail| tail.read(start, limit, now, wall))?;
        self.engine.metrics.answered_hot();
        Some(batch)
    }

    pub(super) async fn messages(
        &self,
        name: &StreamName,
        start: Start,
        limit: MessageLimit,
        now: SystemTime,
        is_use: bool,
    ) -> Result<Messages, ReadError> {
        // An empty page may be out of date.
        if let (Start::At(_), true) = (start, is_use) {
            let (now, wall) = self.moment(now);
            if let Some(known) = self.attached.known(name, |tail| tail.messages(start, limit, now, wall)) {
                self.engine.metrics.answered_hot();
                return Ok(known);
            }
        }
        self.attached.wait_until_heard(name).await;
        let (head, from, log) = self.records(name, start, limit, now, is_use).await?;
        let (messages, next) = log.messages_within(from, limit);
        let view = MessagesView {
            messages,
            next,
            tail: head.tail,
            closed: head.closed,
            epoch_history: head.history,
            content_type: head.content_type,
        };
        Ok(view.into_messages())
    }

    /// The records from `start` on, as a log that begins with the one that contains it: as many as fit into `limit`, and at least one.
    pub(super) async fn records(
        &self,
        name: &StreamName,
        start: Start,
        limit: MessageLimit,
        now: SystemTime,
        is_use: bool,
    ) -> Result<(StreamHead, Position, Log<Bytes>), ReadError> {
        let seen = self.attached.news_seen(name);
        let call = self.call("read", name, now);
        let call = match start {
            Start::Earliest => call.with("earliest"),
            Start::Tail => call.with("tail"),
            Start::At(offset) => call.number(offset.position.0),
        };
        let call = call.number(limit.bytes_max as u64).number(limit.count_max.max(1) as u64);
        let call = call.with(if is_use { "1" } else { "0" });
        let mut reply = self.ask(name, &call).await?;
        let head = reply.head().ok_or(Failure::Unreadable)?;
        if let Some(seen) = seen {
            self.attached.store_head(name, seen, &head);
        }
        let from = head.locate(start)?;
        let records = reply.take(1).and_then(items).ok_or(Failure::Unreadable)?;
        let records: Option<Vec<Record<Bytes>>> = records.into_iter().map(reply::record).collect();
        let records = records.ok_or(Failure::Unreadable)?;
        let mut log = Log::empty(records.first().map_or(from, |record| record.start));
        let by = ChargedTo { principal: Principal::GATEWAY, creator: &self.owner };
        for record in records {
            log.push(record, by);
        }
        Ok((head, from, log))
    }

    pub(super) async fn retained(
        &self,
        name: &StreamName,
        now: SystemTime,
    ) -> Result<Option<Message>, ReadError> {
        let mut reply = self.ask(name, &self.call("retained", name, now).with("0")).await?;
        let head = reply.head().ok_or(Failure::Unreadable)?;
        let retained = reply.take(1).and_then(reply::retained).ok_or(Failure::Unreadable)?;
        let has_expired = |record: &Record<Bytes>| {
            record.annotation.as_ref().is_some_and(|annotation| annotation.has_expired(now))
        };
        let message = retained.filter(|record| !has_expired(record)).and_then(|record| record.last_message());
        Ok(message.map(|placed| placed.into_message(&head.history)))
    }

    pub(super) async fn snapshot(&self, name: &StreamName, now: SystemTime) -> Result<Snapshot, ReadError> {
        let mut reply = self.ask(name, &self.call("describe", name, now).with("1")).await?;
        let head = reply.head().ok_or(Failure::Unreadable)?;
        let (source, branch, depth, forks) = (reply.text(1), reply.text(2), reply.text(3), reply.text(4));
        let branch = match (StreamName::stored(&source), branch.parse()) {
            (Ok(source), Ok(at)) if !source.as_str().is_empty() => {
                Some(Branch { source, at: head.history.offset_at(Position(at)) })
            }
            _ => None,
        };
        Ok(Snapshot {
            branch,
            depth: depth.parse().map_err(|_| Failure::Unreadable)?,
            has_forks: forks != "0",
            writers: writers(&mut reply).ok_or(Failure::Unreadable)?,
            description: head.description(),
        })
    }

    /// Sessions partition by partition, and in each by name.
    pub(super) async fn session_page(
        &self,
        names: SessionNames<'_>,
        after: Option<&str>,
    ) -> Result<SessionPage, Failure> {
        let mut after = after;
        for number in after.map_or(0, session_partition)..PARTITIONS {
            let mut page = self.sessions_in(&partition(number), names, after.take()).await?;
            if let Some(last) = page.sessions.last().filter(|_| number + 1 < PARTITIONS) {
                page.next = Some(last.client.clone());
                return Ok(page);
            }
            if !page.sessions.is_empty() {
                return Ok(page);
            }
        }
        Ok(SessionPage::default())
    }

    async fn sessions_in(
        &self,
        namespace: &str,
        names: SessionNames<'_>,
        after: Option<&str>,
    ) -> Result<SessionPage, Failure> {
        let from = after.map_or_else(|| format!("[{}", names.first()), |after| format!("({after}"));
        let call = EngineCall::of("sessions", namespace).with(from);
        let answer = self.engine.call(&call.number(PAGE_SESSIONS_MAX as u64)).await?;
        let found = items(answer).ok_or(Failure::Unreadable)?;
        let is_full = found.len() == PAGE_SESSIONS_MAX;
        let sessions: Option<Vec<StoredSession>> = found.into_iter().map(session).collect();
        let mut sessions = sessions.ok_or(Failure::Unreadable)?;
        let selected = sessions.iter().take_while(|session| names.select(&session.client)).count();
        let is_last = !is_full || selected < sessions.len();
        sessions.truncate(selected);
        let next = sessions.last().filter(|_| !is_last).map(|session| session.client.clone());
        Ok(SessionPage { sessions, next })
    }
}

fn session(value: redis::Value) -> Option<StoredSession> {
    let [client, entries]: [redis::Value; 2] = items(value)?.try_into().ok()?;
    Some(StoredSession { entries: reply::entries(entries)?, client: reply::text(client)?.into() })
}

/// What a stream remembers of its writers.
fn writers(reply: &mut EngineReply) -> Option<WriterStates> {
    let (sequence, closed_by) = (reply.text(5), reply.text(6));
    let mut texts = items(reply.take(7)?)?.into_iter().map(reply::text);
    let mut producers = Vec::new();
    while let Some((id, state)) = texts.next().zip(texts.next()) {
        let (id, state) = (id?, state?);
        let mut numbers = state.split(':').map(|number| number.parse::<u64>().ok());
        let (epoch, sequence, seen) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let seen = time(i64::try_from(seen).ok()?);
        producers.push((Producer { id: id.into(), epoch, sequence }, seen));
    }
    let author = |text: &str| {
        let (rest, sequence) = text.rsplit_once(':')?;
        let (id, epoch) = rest.rsplit_once(':')?;
        Some(Producer { id: id.into(), epoch: epoch.parse().ok()?, sequence: sequence.parse().ok()? })
    };
    Some(WriterStates {
        producers,
        sequence: (!sequence.is_empty()).then(|| sequence.into()),
        closed_by: author(&closed_by),
    })
}
