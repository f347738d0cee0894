//! One stream in memory: what it is, what it holds and what may be done with it at a given time.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::store::log::{Log, Placed};
use crate::store::{
    Append, AppendError, Appended, Batch, Create, Created, Fork, Gap, GapReason, Message, MessageLimit,
    Messages, ReadError, ReadLimit,
};
use crate::stream::{
    Admission, ContentType, Encoding, Lifetime, Lineage, Offset, Position, Retention, Start, Writers,
};

/// How soon a stream that somebody waits for is looked at again at the earliest.
pub(super) const SWEEP_AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) state: State,
    pub(super) content_type: ContentType,
    pub(super) lifetime: Lifetime,
    pub(super) retention: Retention,
    pub(super) asked: Asked,
    pub(super) lineage: Lineage,
    pub(super) writers: Writers,
    pub(super) log: Log,
    pub(super) retained: Option<Message>,
    pub(super) used: SystemTime,
    pub(super) waited_for: usize,
    pub(super) forks: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Live,
    /// Deleted, kept for its name as long as there are forks.
    Deleted,
    /// Not in the table any more; somebody may still hold it.
    Removed,
}

/// What the creator said, to tell a repeated creation from a different one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) lifetime: Option<Lifetime>,
    pub(super) retention: Option<Retention>,
    pub(super) fork: Option<Fork>,
}

impl Entry {
    pub(super) fn new(create: &Create, lineage: Lineage, log: Log, now: SystemTime) -> Self {
        let asked =
            Asked { lifetime: create.lifetime, retention: create.retention, fork: create.fork.clone() };
        Self {
            state: State::Live,
            content_type: create.content_type.clone(),
            lifetime: create.lifetime.unwrap_or_default(),
            retention: create.retention.unwrap_or_default(),
            asked,
            lineage,
            writers: Writers::default(),
            log,
            retained: None,
            used: now,
            waited_for: 0,
            forks: 0,
        }
    }

    pub(super) fn was_created_by(&self, create: &Create) -> bool {
        self.content_type == create.content_type
            && self.asked.lifetime == create.lifetime
            && self.asked.retention == create.retention
            && self.asked.fork == create.fork
            && self.writers.is_closed() == create.closed
    }

    pub(super) fn created(&self, fresh: bool) -> Created {
        Created {
            fresh,
            tail: self.tail(),
            closed: self.writers.is_closed(),
            content_type: self.content_type.clone(),
            epoch: self.lineage.own(),
        }
    }

    pub(super) fn tail(&self) -> Offset {
        self.lineage.offset_at(self.log.tail())
    }

    pub(super) fn ends_at(&self) -> Option<SystemTime> {
        let standing_still = self.waited_for > 0 && matches!(self.lifetime, Lifetime::Idle(_));
        self.lifetime.ends_at(self.used).filter(|_| !standing_still)
    }

    pub(super) fn has_ended(&self, now: SystemTime) -> bool {
        self.ends_at().is_some_and(|end| end <= now)
    }

    /// When there will be something to remove; `None` if time alone never removes anything.
    pub(super) fn due(&self, now: SystemTime) -> Option<SystemTime> {
        let aged = self.retention.age_max.and_then(|max| self.log.oldest().unwrap_or(now).checked_add(max));
        let ended =
            self.lifetime.ends_at(self.used).map(|end| end.max(self.ends_at().unwrap_or(now + SWEEP_AGAIN)));
        [aged, ended].into_iter().flatten().min()
    }

    /// The position of `start`, if a reader can go on from there.
    pub(super) fn locate(&self, start: Start) -> Result<Position, ReadError> {
        let gap =
            |reason| ReadError::Gap(Gap { reason, earliest: self.lineage.offset_at(self.log.earliest()) });
        let position = match start {
            Start::Earliest => return Ok(self.log.earliest()),
            Start::Tail => return Ok(self.log.tail()),
            Start::At(offset) => self.lineage.position_of(offset).map_err(|_| gap(GapReason::Epoch))?,
        };
        if position > self.log.tail() {
            return Err(ReadError::BehindTail);
        }
        let missed = self.log.earliest().since(position);
        if missed > 0 { Err(gap(GapReason::Trimmed { missed })) } else { Ok(position) }
    }

    pub(super) fn trim(&mut self, now: SystemTime) {
        if self.retention != Retention::default() {
            self.log.trim(&self.retention, now);
        }
    }

    pub(super) fn append(&mut self, append: &Append, now: SystemTime) -> Result<Appended, AppendError> {
        let admission = self
            .writers
            .admit(append, &self.content_type, now)
            .map_err(|refusal| AppendError::Refused { refusal, tail: self.tail() })?;
        self.used = now;
        let highest = match admission {
            Admission::Duplicate { highest } => highest,
            Admission::New => {
                if !append.payload.is_empty() {
                    self.log.push(append.payload.clone(), append.annotation.clone(), now);
                    if append.annotation.as_ref().is_some_and(|annotation| annotation.retain) {
                        self.retained = self.log.last().map(|placed| self.message(placed));
                    }
                    self.trim(now);
                }
                self.writers.record(append, now);
                append.producer.as_ref().map(|producer| producer.sequence)
            }
        };
        let duplicate = matches!(admission, Admission::Duplicate { .. });
        let (tail, closed, epoch) = (self.tail(), self.writers.is_closed(), self.lineage.own());
        Ok(Appended { tail, closed, duplicate, highest, epoch })
    }

    pub(super) fn read(
        &mut self,
        start: Start,
        limit: ReadLimit,
        now: SystemTime,
    ) -> Result<Batch, ReadError> {
        self.trim(now);
        let from = self.locate(start)?;
        self.used = now;
        let tail = self.log.tail();
        let mut stretch = self.log.read(from, limit.bytes_max);
        let at_tail = stretch.next == tail;
        let closed = self.writers.is_closed() && at_tail;
        if limit.whole_characters && self.content_type.encoding() == Encoding::Text && !closed {
            let begun = cut_begun_character(&mut stretch.pieces);
            stretch.next = Position(stretch.next.0.saturating_sub(begun));
        }
        Ok(Batch {
            content_type: self.content_type.clone(),
            pieces: stretch.pieces,
            messages: stretch.messages,
            start: self.lineage.offset_at(from),
            next: self.lineage.offset_at(stretch.next),
            tail,
            up_to_date: at_tail,
            closed,
            epoch: self.lineage.own(),
            lives_for: self.lifetime.ends_at(now).map(|end| end.duration_since(now).unwrap_or_default()),
        })
    }

    pub(super) fn messages(
        &mut self,
        start: Start,
        limit: MessageLimit,
        now: SystemTime,
    ) -> Result<Messages, ReadError> {
        self.trim(now);
        let from = self.locate(start)?;
        self.used = now;
        let (mut messages, mut next, mut bytes) = (Vec::new(), from, 0);
        for placed in self.log.messages(from) {
            bytes += placed.bytes.len();
            if !messages.is_empty() && (bytes > limit.bytes_max || messages.len() >= limit.count_max) {
                break;
            }
            next = placed.next;
            messages.push(self.message(placed));
        }
        let tail = self.log.tail();
        Ok(Messages {
            content_type: self.content_type.clone(),
            messages,
            next: self.lineage.offset_at(next),
            tail,
            up_to_date: next == tail,
            closed: next == tail && self.writers.is_closed(),
        })
    }

    /// The retained message, unless it has expired; then it is forgotten.
    pub(super) fn retained(&mut self, now: SystemTime) -> Option<Message> {
        self.used = now;
        let expired = |message: &mut Message| {
            message.annotation.as_ref().is_some_and(|annotation| annotation.has_expired(now))
        };
        self.retained.take_if(expired);
        self.retained.clone()
    }

    pub(super) fn clear_retained(&mut self, now: SystemTime) {
        self.used = now;
        self.retained = None;
    }

    fn message(&self, placed: Placed) -> Message {
        Message {
            start: self.lineage.offset_at(placed.start),
            next: self.lineage.offset_at(placed.next),
            bytes: placed.bytes,
            at: placed.at,
            annotation: placed.annotation,
        }
    }
}

/// Cuts the first bytes of a UTF-8 character whose rest is still to come. How many they were.
fn cut_begun_character(pieces: &mut Vec<Bytes>) -> u64 {
    let mut end: Vec<u8> =
        pieces.iter().rev().flat_map(|piece| piece.iter().rev()).take(3).copied().collect();
    end.reverse();
    let begun =
        end.utf8_chunks().last().map(|chunk| chunk.invalid()).filter(|bytes| is_begun_character(bytes));
    let begun = begun.map_or(0, <[u8]>::len);
    let mut rest = begun;
    while rest > 0
        && let Some(mut last) = pieces.pop()
    {
        let cut = rest.min(last.len());
        rest -= cut;
        last.truncate(last.len() - cut);
        if !last.is_empty() {
            pieces.push(last);
        }
    }
    begun as u64
}

/// Whether `bytes`, which are no character, could become one by appending (RFC 3629, section 4).
fn is_begun_character(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}
