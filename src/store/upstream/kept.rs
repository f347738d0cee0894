//! [`KeptMessages`]: the messages that a mirror keeps, by their positions in the parent's log, within the room of all mirrors.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::budget::{Account, Charge, Owner};
use crate::store::log::Record;
use crate::stream::Position;

/// How long it counts that the parent has told a message, or which one is its earliest. Meanwhile it may trim more.
pub(super) const FRESH: Duration = Duration::from_secs(2);

/// What all mirrors together may keep.
#[derive(Debug)]
pub(super) struct MirrorRoom {
    bytes: AtomicU64,
    /// Memory of the messages of all mirrors.
    bytes_max: u64,
    /// Memory of the messages of one mirror.
    stream_bytes_max: u64,
}

impl MirrorRoom {
    pub(super) fn new(bytes_max: u64, stream_bytes_max: u64) -> Self {
        Self { bytes: AtomicU64::new(0), bytes_max, stream_bytes_max }
    }

    /// The memory that the messages of all mirrors take.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Messages of one stream. There may be holes between two records.
#[derive(Debug)]
pub(super) struct KeptMessages {
    records: BTreeMap<Position, KeptRecord>,
    bytes: u64,
    charge: Charge,
    room: Arc<MirrorRoom>,
}

/// An append, several JSON values, or with `is_merged` several appends to a text stream whose boundaries are not known.
#[derive(Debug)]
pub(super) struct KeptRecord {
    pub(super) record: Record<Bytes>,
    pub(super) is_merged: bool,
    /// When the parent told it.
    told: Instant,
}

impl KeptRecord {
    /// Whether the parent has told it lately, so that it counts although the parent may have trimmed it since.
    pub(super) fn is_fresh(&self) -> bool {
        self.told.elapsed() < FRESH
    }
}

impl KeptMessages {
    /// No messages. What is kept is charged to `owner`.
    pub(super) fn new(owner: &Arc<Owner>, room: Arc<MirrorRoom>) -> Self {
        Self { records: BTreeMap::new(), bytes: 0, charge: Charge::new(owner, Account::Messages, 0), room }
    }

    /// Keeps a record of messages. It replaces kept records that lie within it, and merged or older ones that it overlaps. If it
    /// overlaps any other, it is not kept. The oldest records are dropped to make room.
    pub(super) fn insert(&mut self, record: Record<Bytes>, is_merged: bool) {
        let (start, end, bytes) = (record.start, record.end(), record.bytes());
        let before = self.records.range(..start).next_back();
        let overlapped = before.into_iter().chain(self.records.range(start..end));
        let overlapped = overlapped.filter(|(_, kept)| kept.record.end() > start);
        let (mut replaced, mut is_kept) = (Vec::new(), false);
        for (other, kept) in overlapped {
            let is_contained = *other >= start && kept.record.end() <= end;
            is_kept |= !is_contained && !kept.is_merged && kept.is_fresh();
            replaced.push(*other);
        }
        if is_kept || record.shape.is_empty() {
            return;
        }
        replaced.into_iter().for_each(|other| self.remove(other));
        while self.bytes + bytes > self.room.stream_bytes_max
            || self.room.bytes() + bytes > self.room.bytes_max
        {
            let Some((oldest, _)) = self.records.first_key_value() else { return };
            self.remove(*oldest);
        }
        self.count(bytes.cast_signed());
        self.records.insert(start, KeptRecord { record, is_merged, told: Instant::now() });
    }

    /// The record that contains `position`, and those that follow it without a hole.
    pub(super) fn from(&self, position: Position) -> impl Iterator<Item = &KeptRecord> {
        let first = self.records.range(..=position).next_back();
        let first = first.filter(|(_, kept)| kept.record.end() > position).map(|(start, _)| *start);
        let mut end = None;
        let records = first.map(|first| self.records.range(first..)).into_iter().flatten();
        records.map(|(_, kept)| kept).take_while(move |kept| {
            let follows = end.is_none_or(|end| end == kept.record.start);
            end = Some(kept.record.end());
            follows
        })
    }

    /// Whether a record ends at the position.
    pub(super) fn ends_at(&self, position: Position) -> bool {
        self.records.range(..position).next_back().is_some_and(|(_, kept)| kept.record.end() == position)
    }

    /// Forgets the records that end at `earliest` or before.
    pub(super) fn trim(&mut self, earliest: Position) {
        while let Some((start, _)) =
            self.records.first_key_value().filter(|(_, kept)| kept.record.end() <= earliest)
        {
            self.remove(*start);
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.records.clear();
        self.count(-(self.bytes.cast_signed()));
    }

    fn remove(&mut self, start: Position) {
        if let Some(kept) = self.records.remove(&start) {
            self.count(-(kept.record.bytes().cast_signed()));
        }
    }

    fn count(&mut self, change: i64) {
        self.bytes = self.bytes.saturating_add_signed(change);
        // Wraps around for a negative change, as the sum does.
        self.room.bytes.fetch_add(change.cast_unsigned(), Ordering::Relaxed);
        self.charge.set(self.bytes);
    }
}

impl Drop for KeptMessages {
    fn drop(&mut self) {
        self.clear();
    }
}
