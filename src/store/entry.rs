//! One stream in a store: its configuration, its log, its writers, and the operations on them.
//!
//! A change is first decided ([`Entry::decide`]) and then applied ([`Entry::finish`]). The store in memory does both at once. A
//! store that writes to disk in between decides on further changes meanwhile, while readers see only what is done.

mod read;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::log::{ChargedTo, Content, Log, Record, Restored};
use crate::budget::{Owner, StreamCharge, allocated_bytes};
use crate::stream::{
    Admission, Annotation, Append, AppendError, Appended, Branch, ContentType, Create, CreateError, Created,
    Description, Epoch, EpochHistory, Lifetime, Offset, PRODUCERS_MAX, Payload, Position, Principal,
    Producer, Retention, Snapshot, Start, StreamName, WriterStates, Writers,
};

pub(super) use state::{ClockDifference, CreationRequest, DecidedAppend, Moment, State, WrittenState};

/// The minimum time between two sweeps of the same stream.
pub(super) const SWEEP_AGAIN: Duration = Duration::from_secs(1);

/// A stream of a store that keeps content as `C`.
#[derive(Debug)]
pub(super) struct Entry<C: Content> {
    pub(super) name: StreamName,
    pub(super) state: State,
    pub(super) content_type: ContentType,
    pub(super) lifetime: Lifetime,
    pub(super) retention: Retention,
    pub(super) asked: CreationRequest,
    pub(super) epoch_history: EpochHistory,
    /// The streams whose appends are in the log: like `epoch_history`, but with the epochs of the creation of each stream.
    pub(super) origin: EpochHistory,
    /// Where the state of the stream was last written; `None` in a store that does not write.
    pub(super) head: Option<WrittenState<C>>,
    /// The state of the writers after all decided changes.
    pub(super) writers: Writers,
    /// The position of the tail after all decided changes.
    pub(super) decided: Position,
    /// Number of changes that are decided and not done.
    pub(super) underway: usize,
    pub(super) log: Log<C>,
    /// Whether the stream is closed; not set by a close that is only decided.
    pub(super) closed: bool,
    pub(super) retained: Option<Record<C>>,
    /// The last read, append or other use, from which an idle lifetime counts.
    pub(super) used: SystemTime,
    /// Number of waiters; an idle lifetime does not elapse while there are any.
    pub(super) waiters: usize,
    /// Number of forks of this stream.
    pub(super) forks: usize,
    /// Number of sources in the chain of forks; 0 for a stream that is not a fork.
    pub(super) depth: u8,
    /// When the sweep visits the stream, which is its key in the agenda.
    pub(super) scheduled: Option<SystemTime>,
    /// The memory of the stream without its messages.
    charge: StreamCharge,
}

impl<C: Content> Entry<C> {
    /// A stream that `owner` creates on top of `log`, which is empty unless the stream is a fork. `origin` has the streams
    /// whose appends are in `log`.
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
            waiters: 0,
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

    /// The result of a creation that finds this stream under its name.
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

    /// Updates the memory that is charged for the stream without its messages.
    pub(super) fn recount(&mut self) {
        let ancestors = self.epoch_history.ancestors().len() + self.origin.ancestors().len();
        let own = own_bytes::<C>(self.name.as_str(), self.content_type.as_str(), ancestors);
        // The source is charged for the messages; the fork holds a reference to each run.
        let shared = if self.asked.fork.is_some() { self.log.places_bytes() } else { 0 };
        // A retained message usually is in the log, which is charged for it.
        let trimmed = self.retained.as_ref().filter(|record| record.start < self.log.earliest());
        self.charge.set(own + shared + self.writers.bytes() as u64 + trimmed.map_or(0, Record::bytes));
    }

    /// Checks the quota for the messages of an append.
    fn admit(&self, append: &Append) -> Result<(), AppendError> {
        let payload = &append.payload;
        if payload.is_empty() {
            return Ok(());
        }
        let annotation = append.annotation.as_deref().map_or(0, Annotation::bytes);
        let bytes =
            (size_of::<Record<C>>() + payload.len() + size_of_val(payload.shape().ends()) + annotation)
                as u64;
        Ok(self.log.admit(ChargedTo { principal: append.principal, creator: self.charge.owner() }, bytes)?)
    }

    /// Decides on the initial messages and the initial close, and remembers the writers of an imported stream.
    pub(super) fn begin_with(&mut self, create: &Create) {
        if let Some(WriterStates { producers, sequence, .. }) = create.writers.as_deref() {
            self.writers = Writers::remembered(producers.iter().cloned(), sequence.clone(), None);
            self.recount();
        }
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
            appended_at: self.log.newest(),
            closed: self.closed,
            lifetime: self.lifetime,
            retention: self.retention,
            has_origin: false,
        }
    }

    /// All of the stream except its messages. No change may be underway.
    pub(super) fn snapshot(&mut self, now: SystemTime) -> Snapshot {
        self.trim(now);
        let branch = self.asked.fork.as_ref().zip(self.origin.ancestors().last());
        Snapshot {
            description: self.description(),
            branch: branch.map(|(fork, (_, at))| Branch {
                source: fork.source.clone(),
                at: self.epoch_history.offset_at(*at),
            }),
            depth: self.depth,
            has_forks: self.forks > 0,
            writers: self.writers.states(),
        }
    }

    pub(super) fn tail(&self) -> Offset {
        self.epoch_history.offset_at(self.log.tail())
    }

    /// Whether the lifetime of the stream is over.
    pub(super) fn has_ended(&self, at: Moment) -> bool {
        match self.lifetime {
            Lifetime::Unlimited => false,
            // An idle lifetime does not elapse while there are waiters.
            Lifetime::Idle(_) if self.waiters > 0 => false,
            Lifetime::Idle(idle) => self.used.checked_add(idle).is_some_and(|end| end <= at.now),
            Lifetime::Until(end) => end <= at.wall,
        }
    }

    /// Whether the lifetime is over and no change is underway.
    pub(super) fn may_end(&self, at: Moment) -> bool {
        self.state == State::Live && self.underway == 0 && self.has_ended(at)
    }

    /// The time of day at which the stream ends; `None` unless its lifetime has one.
    pub(super) fn ends_on(&self) -> Option<SystemTime> {
        match self.lifetime {
            Lifetime::Until(end) => Some(end),
            Lifetime::Unlimited | Lifetime::Idle(_) => None,
        }
    }

    /// Drops the content, and with `name_kept` unset also the name, which is kept for forks otherwise.
    pub(super) fn drop_content(&mut self, name_kept: bool) {
        self.state = if name_kept { State::Deleted } else { State::Removed };
        self.log = Log::empty(self.log.tail());
        self.retained = None;
        if !name_kept {
            self.head = None;
        }
        self.recount();
    }

    /// The time at which a message becomes too old or the stream has been idle too long; `None` if time alone never removes
    /// anything. An end at a time of day is not included.
    pub(super) fn due(&self, now: SystemTime) -> Option<SystemTime> {
        let aged = self.retention.age_max.and_then(|max| self.log.oldest().unwrap_or(now).checked_add(max));
        let idle = match self.lifetime {
            Lifetime::Idle(idle) => self.used.checked_add(idle),
            Lifetime::Unlimited | Lifetime::Until(_) => None,
        };
        let idle = idle.map(|end| if self.waiters > 0 { end.max(now + SWEEP_AGAIN) } else { end });
        [aged, idle].into_iter().flatten().min()
    }

    /// Turns the first append at or after `start` whose content `is_lost` into a hole, which readers get as a gap from now on.
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

    /// Decides on an append. A new append has its position from then on. The caller must finish it; if it cannot, the store
    /// must not decide on anything else.
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

    /// Applies a decided append: adds it to the log and trims the log.
    pub(super) fn finish(&mut self, done: DecidedAppend<C>, now: SystemTime) {
        if let Some(record) = done.record {
            let annotation = done.annotation.filter(|annotation| annotation.retain);
            // Released first, so that only the log owns the record when it seals the run.
            let replaced = self.retained.take_if(|_| annotation.is_some());
            let clears = record.shape.is_empty_message();
            self.log.push(record, ChargedTo { principal: done.principal, creator: self.charge.owner() });
            if let Some(annotation) = annotation.filter(|_| !clears) {
                let record = self.log.last().cloned();
                self.retained = record.map(|record| Record { annotation: Some(annotation), ..record });
            }
            self.trim(now);
            if replaced.is_some() {
                self.recount();
            }
        }
        self.closed |= done.close;
    }

    /// The result of an admitted append, once it is done.
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

    /// Sets the messages to those that a store has read from its files. Their principals are unknown, so the gateway is
    /// charged.
    pub(super) fn restore_log(&mut self, trimmed: Position, written: Position, messages: Restored<C>) {
        let by = ChargedTo { principal: Principal::GATEWAY, creator: self.charge.owner() };
        self.log = Log::restore(trimmed, written, self.decided, messages, &self.retention, by);
        self.decided = self.log.tail();
        self.recount();
    }
}

/// The memory of a stream without its messages: the entry with its lock and its places in the tables, the name, the content type,
/// and the ancestors of a fork.
fn own_bytes<C: Content>(name: &str, content_type: &str, ancestors: usize) -> u64 {
    let texts = allocated_bytes(name.len() + 16) + allocated_bytes(content_type.len() + 16);
    let ancestors = allocated_bytes(ancestors * size_of::<(Epoch, Position)>());
    // Behind an `Arc`, which adds two reference counts.
    let entry = allocated_bytes(size_of::<(Mutex<Entry<C>>, [usize; 2])>());
    entry + C::STREAM_BYTES as u64 + texts + ancestors
}

impl Record<bytes::Bytes> {
    /// A record whose content is kept in memory. The log sets its position.
    pub(super) fn of(payload: Payload, annotation: Option<Arc<Annotation>>, at: SystemTime) -> Self {
        let (shape, content) = payload.into_parts();
        Self { start: Position::default(), shape, content, at, annotation }
    }
}
