//! One stream: what it is, what it holds and what may be done with it at a given time.
//!
//! A change is first decided and then done. A store in memory does both at once; one that has to write in between
//! decides on further changes meanwhile, while readers see what is done.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::log::{By, Content, Log, Placed, Record, Restored};
use super::view::{MessagesView, View};
use crate::budget::{Owner, StreamCharge, allocated_bytes};
use crate::stream::{
    Admission, Annotation, Append, AppendError, Appended, ContentType, Create, CreateError, Created,
    Description, Epoch, EpochHistory, Fork, Gap, GapReason, Lifetime, MessageLimit, Missing, Offset,
    PRODUCERS_MAX, Payload, Position, Principal, Producer, ReadError, ReadLimit, Retention, Start,
    StreamName, Writers,
};

/// How soon a stream that somebody waits for is looked at again at the earliest.
pub(super) const SWEEP_AGAIN: Duration = Duration::from_secs(1);

/// A moment by both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// What ages and idle times count by.
    pub(super) now: SystemTime,
    /// The time of day.
    pub(super) wall: SystemTime,
}

/// A stream whose content is kept as `C`.
#[derive(Debug)]
pub(super) struct Entry<C: Content> {
    pub(super) name: StreamName,
    pub(super) state: State,
    pub(super) content_type: ContentType,
    pub(super) lifetime: Lifetime,
    pub(super) retention: Retention,
    pub(super) asked: CreationRequest,
    pub(super) epoch_history: EpochHistory,
    /// Whose appends its log is made of: like `epoch_history`, but of the epochs in which streams were created.
    pub(super) origin: EpochHistory,
    /// Where its state was written last, in a store that writes it.
    pub(super) head: Option<WrittenState<C>>,
    /// Who writes, as far as decided.
    pub(super) writers: Writers,
    /// Where the log will end when all that is decided is done.
    pub(super) decided: Position,
    /// Changes that are decided and not done.
    pub(super) underway: usize,
    pub(super) log: Log<C>,
    /// Whether it is closed, as far as done.
    pub(super) closed: bool,
    pub(super) retained: Option<Record<C>>,
    pub(super) used: SystemTime,
    pub(super) waited_for: usize,
    pub(super) forks: usize,
    /// How many streams are behind it if it is a fork.
    pub(super) depth: u8,
    /// When the sweep looks at it, as it stands in the agenda.
    pub(super) scheduled: Option<SystemTime>,
    /// What it takes of memory without its messages.
    charge: StreamCharge,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Decided and not done: its name is taken, and nobody sees it yet.
    Begun,
    Live,
    /// Deleted, kept for its name as long as there are forks.
    Deleted,
    /// Its deletion is decided and not done.
    Ending,
    /// Not in the table any more; somebody may still hold it.
    Removed,
}

impl State {
    /// Whether there is a stream to be deleted.
    pub(super) fn is_there(self) -> Result<(), Missing> {
        match self {
            Self::Live | Self::Ending => Ok(()),
            Self::Deleted => Err(Missing::Deleted),
            Self::Begun | Self::Removed => Err(Missing::NotFound),
        }
    }
}

/// What the creator said, to tell a repeated creation from a different one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CreationRequest {
    pub(super) lifetime: Option<Lifetime>,
    pub(super) retention: Option<Retention>,
    pub(super) fork: Option<Fork>,
}

/// The state of a stream as it is written.
#[derive(Debug)]
pub(super) struct WrittenState<C> {
    pub(super) content: C,
    /// It is written twice: without it the messages of the stream would be nobody's.
    pub(super) copy: C,
    /// Nothing before it is needed to read the stream from there.
    pub(super) earliest: Position,
}

/// What is left of an append to be done.
pub(super) struct Done<C> {
    /// The messages and their content; `None`: nothing but a close.
    pub(super) record: Option<Record<C>>,
    /// What the publisher said of them.
    pub(super) annotation: Option<Arc<Annotation>>,
    pub(super) close: bool,
    /// Who has appended it.
    pub(super) principal: Principal,
}

impl<C: Content> Entry<C> {
    /// A stream without content of its own that `owner` creates. `origin` is whose appends are in `log`.
    pub(super) fn new(
        name: &StreamName,
        create: &Create,
        origin: EpochHistory,
        log: Log<C>,
        owner: &Arc<Owner>,
        now: SystemTime,
    ) -> Self {
        let ancestors = 2 * origin.ancestors().len();
        let bytes = own_bytes::<C>(name.as_str(), create.content_type.as_str(), ancestors);
        let charge = StreamCharge::new(owner, bytes);
        let asked = CreationRequest {
            lifetime: create.lifetime,
            retention: create.retention,
            fork: create.fork.clone(),
        };
        Self {
            name: name.clone(),
            state: State::Live,
            content_type: create.content_type.clone(),
            lifetime: create.lifetime.unwrap_or_default(),
            retention: create.retention.unwrap_or(create.default_retention),
            asked,
            epoch_history: origin.clone(),
            origin,
            head: None,
            writers: Writers::default(),
            decided: log.tail(),
            underway: 0,
            log,
            closed: false,
            retained: None,
            used: now,
            waited_for: 0,
            forks: 0,
            depth: 0,
            scheduled: None,
            charge,
        }
    }

    fn was_created_by(&self, create: &Create) -> bool {
        self.content_type == create.content_type
            && self.asked.lifetime == create.lifetime
            && self.asked.retention == create.retention
            && self.asked.fork == create.fork
            && self.closed == create.closed
    }

    /// What a creation finds that comes second.
    pub(super) fn created_again(&mut self, create: &Create, now: SystemTime) -> Result<Created, CreateError> {
        match self.state {
            State::Live if self.was_created_by(create) => {
                self.used = now;
                Ok(self.created(false))
            }
            State::Live | State::Begun | State::Ending | State::Removed => {
                Err(CreateError::ExistsDifferently)
            }
            State::Deleted => Err(CreateError::NameTaken),
        }
    }

    /// Counts what it takes of memory without its messages.
    pub(super) fn recount(&mut self) {
        let ancestors = self.epoch_history.ancestors().len() + self.origin.ancestors().len();
        let own = own_bytes::<C>(self.name.as_str(), self.content_type.as_str(), ancestors);
        // Its source holds the messages, and it has a place for each run of them.
        let shared = if self.asked.fork.is_some() { self.log.places_bytes() } else { 0 };
        // A message that is retained is mostly in the log too.
        let trimmed = self.retained.as_ref().filter(|record| record.start < self.log.earliest());
        self.charge.set(own + shared + self.writers.bytes() as u64 + trimmed.map_or(0, Record::bytes));
    }

    /// Whether there is room for what an append adds.
    fn admit(&self, append: &Append) -> Result<(), AppendError> {
        let payload = &append.payload;
        if payload.is_empty() {
            return Ok(());
        }
        let annotation = append.annotation.as_deref().map_or(0, Annotation::bytes);
        let bytes =
            (size_of::<Record<C>>() + payload.len() + size_of_val(payload.shape().ends()) + annotation)
                as u64;
        Ok(self.log.admit(By { principal: append.principal, creator: self.charge.owner() }, bytes)?)
    }

    /// Decides on what it is created with.
    pub(super) fn begin_with(&mut self, create: &Create) {
        self.decided = self.decided.after(create.payload.positions());
        if create.closed {
            self.writers.close();
        }
    }

    pub(super) fn created(&self, fresh: bool) -> Created {
        Created {
            fresh,
            tail: self.tail(),
            closed: self.closed,
            content_type: self.content_type.clone(),
            epoch: self.epoch_history.own(),
        }
    }

    pub(super) fn description(&self) -> Description {
        Description {
            content_type: self.content_type.clone(),
            earliest: self.epoch_history.offset_at(self.log.earliest()),
            tail: self.tail(),
            closed: self.closed,
            lifetime: self.lifetime,
            retention: self.retention,
        }
    }

    pub(super) fn tail(&self) -> Offset {
        self.epoch_history.offset_at(self.log.tail())
    }

    pub(super) fn has_ended(&self, at: Moment) -> bool {
        match self.lifetime {
            Lifetime::Unlimited => false,
            // While somebody waits for it, it stands still.
            Lifetime::Idle(_) if self.waited_for > 0 => false,
            Lifetime::Idle(idle) => self.used.checked_add(idle).is_some_and(|end| end <= at.now),
            Lifetime::Until(end) => end <= at.wall,
        }
    }

    /// Whether it has ended and nothing is under way that still wants it.
    pub(super) fn may_end(&self, at: Moment) -> bool {
        self.state == State::Live && self.underway == 0 && self.has_ended(at)
    }

    /// The time of day at which it ends, if that is given.
    pub(super) fn ends_on(&self) -> Option<SystemTime> {
        match self.lifetime {
            Lifetime::Until(end) => Some(end),
            Lifetime::Unlimited | Lifetime::Idle(_) => None,
        }
    }

    /// Gives its content up, and its name too unless that is kept for its forks.
    pub(super) fn bury(&mut self, name_kept: bool) {
        self.state = if name_kept { State::Deleted } else { State::Removed };
        self.log = Log::empty(self.log.tail());
        self.retained = None;
        if !name_kept {
            self.head = None;
        }
        self.recount();
    }

    /// When there will be something to remove that is too old or idle; `None` if time alone never makes it so.
    pub(super) fn due(&self, now: SystemTime) -> Option<SystemTime> {
        let aged = self.retention.age_max.and_then(|max| self.log.oldest().unwrap_or(now).checked_add(max));
        let idle = match self.lifetime {
            Lifetime::Idle(idle) => self.used.checked_add(idle),
            Lifetime::Unlimited | Lifetime::Until(_) => None,
        };
        let idle = idle.map(|end| if self.waited_for > 0 { end.max(now + SWEEP_AGAIN) } else { end });
        [aged, idle].into_iter().flatten().min()
    }

    /// The position of `start`, if a reader can go on from there.
    pub(super) fn locate(&self, start: Start) -> Result<Position, ReadError> {
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
            return Err(gap(GapReason::Trimmed { missed }));
        }
        match self.log.hole_at(position) {
            None => Ok(position),
            Some(end) => Err(ReadError::Gap(Gap {
                reason: GapReason::Damaged { missed: end.since(position) },
                earliest: self.epoch_history.offset_at(end),
            })),
        }
    }

    /// Forgets the first messages at `start` or behind whose content `is_lost`: their readers are told so from now on.
    pub(super) fn lose(&mut self, start: Start, is_lost: impl Fn(&C) -> bool) {
        let from = self.locate(start).unwrap_or(self.log.earliest());
        self.log.lose(from, &is_lost);
        self.retained.take_if(|record| is_lost(&record.content));
    }

    pub(super) fn trim(&mut self, now: SystemTime) {
        if self.retention != Retention::default() {
            self.log.trim(&self.retention, now);
            if self.retained.is_some() {
                self.recount();
            }
        }
    }

    /// Decides on an append. A new one has its position from then on, and has to be done or to be the last thing that
    /// this store ever decides.
    pub(super) fn decide(&mut self, append: &mut Append, now: SystemTime) -> Result<Admission, AppendError> {
        append.split_for(&self.content_type)?;
        let share = |_: &Producer| self.charge.owner().budget().share_of(PRODUCERS_MAX);
        let own_producers_max = append.producer.as_ref().map_or(PRODUCERS_MAX, share);
        let admission = self
            .writers
            .admit(append, &self.content_type, own_producers_max, now)
            .map_err(|refusal| AppendError::Refused { refusal, tail: self.tail() })?;
        self.used = now;
        if admission == Admission::New {
            self.admit(append)?;
            self.writers.record(append, now);
            if append.producer.is_some() || append.sequence.is_some() {
                self.recount();
            }
            self.decided = self.decided.after(append.payload.positions());
        }
        Ok(admission)
    }

    /// Does what was decided.
    pub(super) fn finish(&mut self, done: Done<C>, now: SystemTime) {
        if let Some(record) = done.record {
            let annotation = done.annotation.filter(|annotation| annotation.retain);
            // First, so that the log alone has the record when it seals it.
            self.retained.take_if(|_| annotation.is_some());
            self.log.push(record, By { principal: done.principal, creator: self.charge.owner() });
            if let Some(annotation) = annotation {
                let record = self.log.last().cloned();
                self.retained = record.map(|record| Record { annotation: Some(annotation), ..record });
            }
            self.trim(now);
        }
        self.closed |= done.close;
    }

    /// What an append that was admitted is answered once it is done.
    pub(super) fn appended(&self, append: &Append, admission: Admission) -> Appended {
        let (tail, closed, epoch) = (self.tail(), self.closed, self.epoch_history.own());
        let (duplicate, highest) = match admission {
            Admission::Duplicate { highest } => (true, highest),
            Admission::New => (false, append.producer.as_ref().map(|producer| producer.sequence)),
        };
        let (messages, bytes) =
            if duplicate { (0, 0) } else { (append.payload.messages(), append.payload.len()) };
        Appended { tail, closed, duplicate, created: false, messages, bytes, highest, epoch }
    }

    pub(super) fn read(
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
            stretch: self.log.read(from, limit.bytes_max),
            tail: self.log.tail(),
            closed: self.closed,
            lives_for: match self.lifetime {
                Lifetime::Unlimited => None,
                Lifetime::Idle(idle) => Some(idle),
                Lifetime::Until(end) => Some(end.duration_since(at.wall).unwrap_or_default()),
            },
        })
    }

    pub(super) fn messages(
        &mut self,
        start: Start,
        limit: MessageLimit,
        now: SystemTime,
    ) -> Result<MessagesView<C::Piece>, ReadError> {
        self.trim(now);
        let from = self.locate(start)?;
        self.used = now;
        let (mut messages, mut next, mut bytes) = (Vec::new(), from, 0);
        for placed in self.log.messages(from) {
            if placed.start > next {
                break;
            }
            bytes += placed.length;
            if !messages.is_empty() && (bytes > limit.bytes_max || messages.len() >= limit.count_max) {
                break;
            }
            next = placed.next;
            messages.push(placed);
        }
        Ok(MessagesView {
            content_type: self.content_type.clone(),
            epoch_history: self.epoch_history.clone(),
            messages,
            next,
            tail: self.log.tail(),
            closed: self.closed,
        })
    }

    /// The retained message, unless it has expired; then it is forgotten.
    pub(super) fn retained(&mut self, now: SystemTime) -> Option<(Placed<C::Piece>, EpochHistory)> {
        self.used = now;
        let expired = |record: &mut Record<C>| {
            record.annotation.as_ref().is_some_and(|annotation| annotation.has_expired(now))
        };
        self.retained.take_if(expired);
        Some((self.retained.as_ref()?.last_message()?, self.epoch_history.clone()))
    }

    pub(super) fn clear_retained(&mut self, now: SystemTime) {
        self.used = now;
        self.retained = None;
        self.recount();
    }

    /// Takes the messages that were read from a store. Who appended them is not known any more.
    pub(super) fn restore_log(&mut self, earliest: Position, written: Position, messages: Restored<C>) {
        let by = By { principal: Principal::GATEWAY, creator: self.charge.owner() };
        self.log = Log::restore(earliest, written, self.decided, messages, &self.retention, by);
        self.decided = self.log.tail();
        self.recount();
    }
}

/// What a stream takes of memory: itself with the counters of what shares it and its place in the tables, its name and
/// content type, and the places that a fork has of others.
fn own_bytes<C: Content>(name: &str, content_type: &str, ancestors: usize) -> u64 {
    let texts = allocated_bytes(name.len() + 16) + allocated_bytes(content_type.len() + 16);
    let ancestors = allocated_bytes(ancestors * size_of::<(Epoch, Position)>());
    allocated_bytes(size_of::<Entry<C>>() + 32) + C::STREAM_BYTES as u64 + texts + ancestors
}

impl Record<bytes::Bytes> {
    /// The record of an append whose content is kept as it is.
    pub(super) fn of(payload: Payload, annotation: Option<Arc<Annotation>>, at: SystemTime) -> Self {
        let (shape, content) = payload.into_parts();
        Self { start: Position::default(), shape, content, at, annotation }
    }
}
