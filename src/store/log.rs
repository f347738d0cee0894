//! The log of one stream: the newest appends one by one, and all earlier ones in sealed runs, which forks share. Where the
//! content is and how a sealed run stores its appends depends on the store, see [`Content`] and [`Sealed`].

mod holes;
mod part;
mod record;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::budget::{Charges, Owner};
use crate::stream::{MessageLimit, Position, Principal, Retention, Shortage};

pub(super) use part::Part;
pub(super) use record::{Content, Extent, LogSlice, Placed, Record, Sealed, messages_of, messages_within};

/// A run is sealed when it has this many appends or bytes. Trimming frees whole runs, so at most one run more than the
/// retention allows stays in memory.
pub(super) const RUN_RECORDS_MAX: usize = 64;
pub(super) const RUN_BYTES_MAX: usize = 65_536;

/// The memory of a run besides its appends: its place in a log, and the shared reference.
const RUN_BYTES: u64 = 160;

/// Trimmed appends that are not sealed yet are freed when there are at least this many and more than half of the open ones.
const TRIMMED_MIN: usize = 8;

fn bytes_of<C: Content>(records: &[Record<C>]) -> u64 {
    records.iter().map(Record::bytes).sum()
}

/// The appends of a stream in order. `trimmed <= earliest <= tail`: everything before `trimmed` is trimmed, and everything
/// between `trimmed` and `earliest` was damaged. If there are missing positions between two appends, or between the last one and
/// the tail, they are a hole: their messages were damaged, too.
#[derive(Debug)]
pub(super) struct Log<C: Content> {
    sealed: VecDeque<Part<C>>,
    open: Vec<Record<C>>,
    /// The principals of the open appends.
    charges: Charges,
    open_bytes: usize,
    earliest: Position,
    tail: Position,
    /// The messages and bytes between `earliest` and `tail`.
    kept: Extent,
    /// Set if the clock was wrong when some of the appends were made.
    youngest: Option<Box<AppendTimeCap>>,
    /// `None` if the log has no holes, as almost all.
    holes: Option<Box<Holes>>,
    /// No append is older than the retention allows before this time. `None`: not known.
    next_too_old: Option<SystemTime>,
}

/// Appends before a position count as made at `at` at the latest.
#[derive(Debug, Clone)]
struct AppendTimeCap {
    before: Position,
    at: SystemTime,
}

/// The holes of a log, besides the missing positions.
#[derive(Debug, Clone, Default)]
struct Holes {
    /// The end of the trimmed messages, if the messages between there and the earliest one were damaged.
    trimmed: Option<Position>,
    /// Start positions of appends that were damaged after the log was read.
    damaged: BTreeSet<Position>,
}

/// The principals that are charged for a record: the one that appended it, and the creator of the stream, whose account is at
/// hand.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChargedTo<'a> {
    pub(super) principal: Principal,
    pub(super) creator: &'a Arc<Owner>,
}

/// Appends that a store has read from its files: sealed runs, each with its end, and the open appends after them.
pub(super) struct Restored<C: Content> {
    pub(super) sealed: Vec<(Arc<C::Sealed>, Position)>,
    pub(super) open: Vec<Record<C>>,
}

impl<C: Content> Default for Log<C> {
    fn default() -> Self {
        Self::empty(Position::default())
    }
}

impl<C: Content> Log<C> {
    /// A log without messages whose next position is `tail`.
    pub(super) fn empty(tail: Position) -> Self {
        Self {
            sealed: VecDeque::new(),
            open: Vec::new(),
            charges: Charges::default(),
            open_bytes: 0,
            earliest: tail,
            tail,
            kept: Extent::default(),
            youngest: None,
            holes: None,
            next_too_old: None,
        }
    }

    pub(super) fn earliest(&self) -> Position {
        self.earliest
    }

    pub(super) fn tail(&self) -> Position {
        self.tail
    }

    /// Number of kept messages.
    pub(super) fn messages_kept(&self) -> u64 {
        self.kept.messages
    }

    /// Checks the quota for an append of `bytes`.
    pub(super) fn admit(&self, by: ChargedTo<'_>, bytes: u64) -> Result<(), Shortage> {
        self.charges.admit(by.principal, by.creator, bytes)
    }

    /// The memory of the references to its runs.
    pub(super) fn places_bytes(&self) -> u64 {
        (self.sealed.len() * size_of::<Part<C>>()) as u64
    }

    /// Appends a record, which must not be empty, at the tail.
    pub(super) fn push(&mut self, record: Record<C>, by: ChargedTo<'_>) {
        if self.open.len() >= RUN_RECORDS_MAX || self.open_bytes >= RUN_BYTES_MAX {
            self.seal();
        }
        let record = Record { start: self.tail, ..record };
        self.kept = self.kept.plus(record.extent_from(self.tail));
        self.charges.add(by.principal, by.creator, record.bytes());
        self.open_bytes += record.shape.len();
        self.tail = record.end();
        self.open.push(record);
    }

    /// Seals the open appends into a run.
    fn seal(&mut self) {
        if !self.open.is_empty() {
            let mut charges = std::mem::take(&mut self.charges);
            let before = bytes_of(&self.open);
            let run = C::Sealed::seal(std::mem::take(&mut self.open));
            charges.scale(run.bytes() + RUN_BYTES, before);
            self.open_bytes = 0;
            self.sealed.push_back(Part::whole(Arc::new(run), charges));
        }
    }

    /// Reads whole appends from `from` on until a hole or until `bytes_max` is reached, where each append counts at least one
    /// byte. Returns at least one append and at least as many as the bytes of one character, so that a reader of whole
    /// characters makes progress.
    pub(super) fn read(&self, from: Position, bytes_max: usize) -> LogSlice<C::Piece> {
        // Most reads are polls without news.
        if from >= self.tail {
            return LogSlice { pieces: Vec::new(), messages: 0, next: from };
        }
        let first = self.open.partition_point(|record| record.end() <= from);
        match self.open.get(first..) {
            // Readers that wait are among the newest appends.
            Some(newest @ [begun, ..]) if self.holes.is_none() && begun.start <= from => {
                LogSlice::of(newest.iter(), from, bytes_max)
            }
            _ => LogSlice::of(self.records_to_hole(from), from, bytes_max),
        }
    }

    /// The appends from `from` on, up to a hole.
    fn records_to_hole(&self, from: Position) -> impl Iterator<Item = Cow<'_, Record<C>>> {
        let mut end = from;
        self.records_from(from).take_while(move |record| {
            let follows = !self.is_after_hole(record, end);
            end = record.end();
            follows
        })
    }

    /// The messages from `from` on, one by one, up to a hole.
    pub(super) fn messages(&self, from: Position) -> impl Iterator<Item = Placed<C::Piece>> {
        messages_of(self.records_to_hole(from), from)
    }

    /// The messages from `from` on that fit into `limit`, but at least one, and the position after the last of them.
    pub(super) fn messages_within(
        &self,
        from: Position,
        limit: MessageLimit,
    ) -> (Vec<Placed<C::Piece>>, Position) {
        messages_within(self.messages(from), from, limit)
    }

    /// The newest append; `None` if there is none since the last run was sealed.
    pub(super) fn last(&self) -> Option<&Record<C>> {
        self.open.last()
    }

    /// Trims messages that exceed `retention`. The newest append is kept unless it is too old; in JSON mode `messages_max`
    /// trims it value by value.
    pub(super) fn trim(&mut self, retention: &Retention, now: SystemTime) {
        if !self.may_exceed(retention, now) {
            return;
        }
        while let Some((step, gone)) = self.excess(retention, now) {
            self.earliest = self.earliest.after(step);
            self.kept.messages -= gone.messages;
            self.kept.bytes -= gone.bytes;
            // Retention removes older messages first, so it would have removed the damaged ones before these.
            self.holes.iter_mut().for_each(|holes| holes.trimmed = None);
            self.skip_hole();
        }
        let too_old = |(at, max): (SystemTime, Duration)| at.checked_add(max);
        self.next_too_old = self.oldest().zip(retention.age_max).and_then(too_old);
        self.free_trimmed();
    }

    /// Whether the log may exceed `retention`. Most appends and reads only compare these numbers.
    fn may_exceed(&self, retention: &Retention, now: SystemTime) -> bool {
        let exceeds = |kept: u64, max: Option<u64>| max.is_some_and(|max| kept > max);
        let has_old = || self.earliest < self.tail && self.next_too_old.is_none_or(|at| now >= at);
        exceeds(self.kept.messages, retention.messages_max)
            || exceeds(self.kept.bytes, retention.bytes_max)
            || (retention.age_max.is_some() && has_old())
    }

    /// Frees the memory of trimmed appends.
    fn free_trimmed(&mut self) {
        while self.sealed.front().is_some_and(|part| part.end <= self.earliest) {
            self.sealed.pop_front();
        }
        let trimmed = self.open.partition_point(|record| record.end() <= self.earliest);
        if trimmed == self.open.len() || (trimmed >= TRIMMED_MIN && trimmed > self.open.len() / 2) {
            let before = bytes_of(&self.open);
            self.open.drain(..trimmed);
            self.charges.scale(bytes_of(&self.open), before);
            self.open_bytes = self.open.iter().map(|record| record.shape.len()).sum();
        }
    }

    /// Restores a log from `appends`. Everything before `trimmed` was trimmed, and `tail` is where the next append goes. The state of
    /// the stream was written at the tail `written`; appends after that were each followed by a trim with `retention`, which is
    /// repeated here, since the result depends on the steps.
    pub(super) fn restore(
        trimmed: Position,
        written: Position,
        tail: Position,
        appends: Restored<C>,
        retention: &Retention,
        by: ChargedTo<'_>,
    ) -> Self {
        let Restored { sealed, open } = appends;
        let mut log = Self {
            open_bytes: open.iter().map(|record| record.shape.len()).sum(),
            open,
            ..Self::empty(tail)
        };
        log.charges.add(by.principal, by.creator, bytes_of(&log.open));
        let charged = |run: &C::Sealed| {
            let mut charges = Charges::default();
            charges.add(by.principal, by.creator, run.bytes() + RUN_BYTES);
            charges
        };
        let parts = sealed.into_iter().map(|(run, end)| (charged(&run), run, end));
        log.sealed = parts.map(|(charges, run, end)| Part::whole(run, charges).until(end)).collect();
        log.holes = log.has_gaps().then(Box::default);
        let Some(first) = log.records_from(Position(0)).next().map(|record| record.start) else {
            log.lose_beginning(trimmed);
            return log;
        };
        let end = log.open.last().map(Record::end).or_else(|| Some(log.sealed.back()?.end)).unwrap_or(first);
        log.earliest = trimmed.max(first).min(end);
        log.lose_beginning(trimmed);
        if *retention == Retention::default() {
            log.tail = end;
            log.kept = log.count();
            log.skip_to(tail);
            log.skip_hole();
            return log;
        }
        log.tail = written.max(first).min(end);
        let counted = log.records_from(log.earliest).take_while(|record| record.start < log.tail);
        log.kept =
            counted.fold(Extent::default(), |kept, record| kept.plus(record.extent_from(log.earliest)));
        loop {
            let next = log.records_from(log.tail).next();
            let next = next.map(|record| (record.extent_from(log.tail), record.end(), record.at));
            let Some((extent, end, at)) = next else {
                log.skip_to(tail);
                log.skip_hole();
                log.free_trimmed();
                return log;
            };
            log.kept = log.kept.plus(extent);
            log.tail = end;
            log.trim(retention, at);
        }
    }

    /// The next part of the oldest append that exceeds the retention: the positions to trim, and the messages and bytes in
    /// them.
    fn excess(&self, retention: &Retention, now: SystemTime) -> Option<(u64, Extent)> {
        let messages_over = self.kept.messages.saturating_sub(retention.messages_max.unwrap_or(u64::MAX));
        let bytes_over = self.kept.bytes > retention.bytes_max.unwrap_or(u64::MAX);
        if messages_over == 0 && !bytes_over && retention.age_max.is_none() {
            return None;
        }
        let record = self.records_from(self.earliest).next().filter(|record| record.start < self.tail)?;
        let skipped = self.earliest.since(record.start);
        let rest = record.shape.positions() - skipped;
        let one_by_one = record.counts_messages();
        let is_last = record.end() == self.tail;
        let too_old = retention
            .age_max
            .is_some_and(|max| now.duration_since(self.appended_at(&record)).is_ok_and(|age| age > max));
        let step = if too_old || (bytes_over && !is_last) {
            rest
        } else if messages_over > 0 && one_by_one {
            rest.min(messages_over)
        } else if messages_over > 0 && !is_last {
            rest
        } else {
            return None;
        };
        let bytes = record.shape.start_of(skipped + step) - record.shape.start_of(skipped);
        Some((step, Extent { messages: if one_by_one { step } else { 1 }, bytes: bytes as u64 }))
    }

    /// The append time of the oldest message.
    pub(super) fn oldest(&self) -> Option<SystemTime> {
        self.records_from(self.earliest).next().map(|record| self.appended_at(&record))
    }

    /// The append time of the newest message.
    pub(super) fn newest(&self) -> Option<SystemTime> {
        let sealed = || self.sealed.back().and_then(Part::last);
        let last = self.open.last().map(Cow::Borrowed).or_else(sealed);
        last.filter(|record| record.end() > self.earliest).map(|record| self.appended_at(&record))
    }

    /// Treats appends with a time after `now` as if they had been made at `now`.
    pub(super) fn cap_append_times(&mut self, now: SystemTime) {
        self.youngest = Some(Box::new(AppendTimeCap { before: self.tail, at: now }));
        self.next_too_old = None;
    }

    fn appended_at(&self, record: &Record<C>) -> SystemTime {
        match &self.youngest {
            Some(youngest) if record.start < youngest.before => record.at.min(youngest.at),
            _ => record.at,
        }
    }

    /// The log up to `end`, as a fork shares it. Seals the open appends if `end` is after the first of them.
    pub(super) fn fork(&mut self, end: Position) -> Self {
        if self.open.first().is_some_and(|first| first.start < end) {
            self.seal();
        }
        let mut fork = Self::empty(self.earliest);
        let parts = self.sealed.iter().take_while(|part| part.run.start() < end);
        fork.sealed = parts.map(|part| part.until(end)).collect();
        fork.tail = end.max(self.earliest);
        fork.youngest = self.youngest.clone();
        fork.holes = self.holes.clone();
        fork.kept = fork.count();
        fork
    }

    /// Counts the kept messages and bytes.
    fn count(&self) -> Extent {
        let mut kept = Extent::default();
        let mut parts = self.sealed.iter();
        if let Some(first) = parts.next() {
            let records = first.records_from(self.earliest);
            kept = records.fold(kept, |kept, record| kept.plus(record.extent_from(self.earliest)));
        }
        kept = parts.fold(kept, |kept, part| kept.plus(part.extent()));
        let open = self.open.iter().filter(|record| record.end() > self.earliest);
        open.fold(kept, |kept, record| kept.plus(record.extent_from(self.earliest)))
    }

    /// The record that contains `from`, and all records after it.
    pub(super) fn records_from(&self, from: Position) -> impl Iterator<Item = Cow<'_, Record<C>>> {
        let sealed = self.parts_from(from).flat_map(move |part| part.records_from(from));
        let open = self.open.partition_point(|record| record.end() <= from);
        sealed.chain(self.open.iter().skip(open).map(Cow::Borrowed))
    }

    /// The newest appends, which are not sealed yet.
    pub(super) fn open(&self) -> &[Record<C>] {
        &self.open
    }

    /// The run that contains `from`, and all runs after it.
    pub(super) fn parts_from(&self, from: Position) -> impl Iterator<Item = &Part<C>> {
        let first = self.sealed.partition_point(|part| part.end <= from);
        self.sealed.range(first..)
    }
}
