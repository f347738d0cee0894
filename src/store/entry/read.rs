//! Reads of a stream: from an offset, message by message, and of the retained message.

use std::time::SystemTime;

use super::{Entry, Moment};
use crate::store::log::{Content, Placed, Record};
use crate::store::view::{MessagesView, View};
use crate::stream::{EpochHistory, Gap, GapReason, MessageLimit, Position, ReadError, ReadLimit, Start};

impl<C: Content> Entry<C> {
    /// The position of `start`. Fails if a reader cannot continue from there: the messages are trimmed or damaged, the epoch is
    /// another one, or the offset is beyond the tail.
    pub(in crate::store) fn locate(&self, start: Start) -> Result<Position, ReadError> {
        let gap = |reason| {
            ReadError::Gap(Gap { reason, earliest: self.epoch_history.offset_at(self.log.earliest()) })
        };
        let position = match start {
            Start::Earliest => return Ok(self.log.earliest()),
            Start::Tail => return Ok(self.log.tail()),
            Start::At(offset) => self.epoch_history.position_of(offset).map_err(|_| gap(GapReason::Epoch))?,
        };
        if position > self.log.tail() {
            return Err(ReadError::BehindTail);
        }
        let missed = self.log.earliest().since(position);
        if missed > 0 {
            let is_whole = self.log.trimmed() == self.log.earliest();
            return Err(gap(if is_whole {
                GapReason::Trimmed { missed }
            } else {
                GapReason::Damaged { missed }
            }));
        }
        match self.log.hole_at(position) {
            None => Ok(position),
            Some(end) => Err(ReadError::Gap(Gap {
                reason: GapReason::Damaged { missed: end.since(position) },
                earliest: self.epoch_history.offset_at(end),
            })),
        }
    }

    pub(in crate::store) fn read(
        &mut self,
        start: Start,
        limit: ReadLimit,
        at: Moment,
    ) -> Result<View<C::Piece>, ReadError> {
        self.trim(at.now);
        let from = self.locate(start)?;
        self.used = at.now;
        Ok(View {
            content_type: self.content_type.clone(),
            epoch_history: self.epoch_history.clone(),
            from,
            slice: self.log.read(from, limit.bytes_max),
            tail: self.log.tail(),
            closed: self.closed,
            lives_for: self.lifetime.left(at.wall),
        })
    }

    pub(in crate::store) fn messages(
        &mut self,
        start: Start,
        limit: MessageLimit,
        now: SystemTime,
    ) -> Result<MessagesView<C::Piece>, ReadError> {
        let view = self.peek(start, limit, now)?;
        self.used = now;
        Ok(view)
    }

    /// Reads messages without using the stream.
    pub(in crate::store) fn peek(
        &mut self,
        start: Start,
        limit: MessageLimit,
        now: SystemTime,
    ) -> Result<MessagesView<C::Piece>, ReadError> {
        self.trim(now);
        let from = self.locate(start)?;
        let (messages, next) = self.log.messages_within(from, limit);
        Ok(MessagesView {
            content_type: self.content_type.clone(),
            epoch_history: self.epoch_history.clone(),
            messages,
            next,
            tail: self.log.tail(),
            closed: self.closed,
        })
    }

    /// The retained message. One that has expired is forgotten.
    pub(in crate::store) fn retained(&mut self, now: SystemTime) -> Option<(Placed<C::Piece>, EpochHistory)> {
        self.used = now;
        let expired = |record: &mut Record<C>| {
            record.annotation.as_ref().is_some_and(|annotation| annotation.has_expired(now))
        };
        if self.retained.take_if(expired).is_some() {
            self.recount();
        }
        Some((self.retained.as_ref()?.last_message()?, self.epoch_history.clone()))
    }

    pub(in crate::store) fn clear_retained(&mut self, now: SystemTime) {
        self.used = now;
        self.retained = None;
        self.recount();
    }
}
