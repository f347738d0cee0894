//! Opening a store: replays its log, reports damage, and finds whether the end of the log may be missing.
//!
//! Each opening begins a new epoch for appends. If the directory is an older copy of the store, offsets from beyond its end are
//! recognized, because they have another epoch than the appends to come.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime};
use std::{fs, io, thread};

use tokio::time::Instant;

use super::Disk;
use super::committer::{Committer, OpenedLog};
use super::damage;
use super::directory::{Directory, OpenError};
use super::replay::{Replay, ReplayedLog};
use super::room::{NoRoom, Room};
use super::scan::{LogEnd, TrailingSegment, expect_store, scan};
use super::segment::{HEADER_BYTES, Segment, Segments, path};
use super::shared::DiskState;
use crate::budget::{Account, Budget, Charge};
use crate::store::streams::Epochs;
use crate::stream::{Epoch, Observer, Principal, SyncPolicy};

/// How a store on disk is opened and written.
#[derive(Debug, Clone, Copy)]
pub struct DiskOptions {
    /// When appends are synced.
    pub sync: SyncPolicy,
    /// Size of new files, at least 16 KiB; existing files keep their size. There are at most two files more than the kept
    /// records need, so a smaller size suits a small device.
    pub segment_bytes: u32,
    /// Memory for the cache of the newest messages, including its overhead.
    pub cache_bytes: u64,
    /// Open the store even if records are damaged, and go on without them.
    pub accept_damage: bool,
    /// Fail with [`OpenError::NoStore`] if the directory has no store, instead of creating one.
    pub must_exist: bool,
}

impl DiskOptions {
    /// Options with files of 8 MiB and a cache of 64 MiB.
    pub fn new(sync: SyncPolicy) -> Self {
        Self {
            sync,
            segment_bytes: 8 * 1024 * 1024,
            cache_bytes: 64 * 1024 * 1024,
            accept_damage: false,
            must_exist: false,
        }
    }
}

/// What an opening has found.
#[derive(Debug, Clone, Copy)]
pub struct Opened {
    /// Number of streams.
    pub streams: usize,
    /// Number of records that were read.
    pub records: u64,
    /// How long the opening took.
    pub took: Duration,
    /// Whether the end of the log may be missing: its last write is incomplete, or the last run was not closed and did not sync
    /// every append.
    pub may_lack_end: bool,
}

impl Disk {
    /// Opens the store in `directory`, which is created if it does not exist. `observer` receives its measurements. `now` is
    /// the current time of the store's clock, from which idle lifetimes count.
    pub fn open(
        directory: &Path,
        options: DiskOptions,
        observer: Arc<dyn Observer>,
        now: SystemTime,
    ) -> Result<(Self, Opened), OpenError> {
        Self::open_within(directory, options, observer, &Budget::unlimited(), now)
    }

    /// Opens the store like [`open`](Self::open), with its memory charged to `budget`. Fails with [`OpenError::Memory`] if its
    /// index does not fit.
    pub fn open_within(
        directory: &Path,
        options: DiskOptions,
        observer: Arc<dyn Observer>,
        budget: &Arc<Budget>,
        now: SystemTime,
    ) -> Result<(Self, Opened), OpenError> {
        let since = Instant::now();
        if options.must_exist {
            expect_store(directory)?;
        }
        let directory = Directory::open(directory)?;
        directory.restrict_to_owner()?;
        let segments = Arc::new(Segments::new(directory.path())?);
        let owner = budget.owner(Principal::GATEWAY);
        let cache = Charge::new(&owner, Account::Buffers, options.cache_bytes);
        let mut replay = Replay::new(segments.clone(), now);
        replay.owner = owner;
        let mut fitting = Ok(());
        let end = scan(directory.path(), |step| {
            // Replay stops when the budget is exceeded; otherwise the kernel may kill the process before it can report that.
            if fitting.is_ok() {
                replay.apply(step);
                if replay.records.is_multiple_of(RECORDS_BETWEEN_CHECKS) {
                    fitting = fits(budget);
                }
            }
        })?;
        fitting.and_then(|()| fits(budget))?;
        let may_lack_end = end.torn || !(replay.closed || replay.synced);
        let (records, closed) = (replay.records, replay.closed);
        let restored = replay.into_streams();
        let must_accept = !is_accepted(directory.path(), &restored, options.accept_damage)?;
        if !closed {
            // The run before may have ended before it synced records that were read here.
            let all = segments.all();
            let mut unsynced = all.iter().filter(|segment| segment.number >= end.unsynced_from);
            unsynced.try_for_each(|segment| segment.sync())?;
        }
        let epochs = match restored.next_epoch {
            Epoch(0) => Epochs::random(),
            next => Epochs::after(next),
        };
        let run = epochs.next();
        let shared = Arc::new(DiskState::new(
            segments,
            epochs,
            observer,
            restored.sessions,
            options.cache_bytes,
            budget,
        ));
        let known = OpenedLog {
            next_stream: restored.next_stream,
            run,
            tombstones: restored.tombstones,
            sessions: restored.session_log,
        };
        let mut structure = shared.streams.structure();
        let entries = restored.streams.into_iter().map(|mut entry| {
            entry.epoch_history = entry.epoch_history.run(entry.log.tail(), run);
            shared.streams.insert(&mut structure, *entry, now)
        });
        let entries: Vec<_> = entries.collect();
        drop(structure);
        fits(budget)?;
        let (room, after) = room(&shared, directory.path(), end, options.segment_bytes)?;
        let mut committer = Committer::new(shared.clone(), room, known, options.sync);
        entries.iter().for_each(|entry| committer.register(entry));
        committer.begin(after, &restored.skipped).map_err(|no_room| match no_room {
            NoRoom::Full => io::Error::from(io::ErrorKind::StorageFull),
            NoRoom::Short => io::Error::from(io::ErrorKind::OutOfMemory),
            NoRoom::Broken(error) => error,
        })?;
        if must_accept {
            damage::accept(directory.path(), &restored.losses.damage)?;
        }
        restored.losses.damage.into_iter().for_each(|span| shared.note_damage(span));
        let (jobs, inbox) = mpsc::channel();
        let committer = thread::Builder::new().name("store".into()).spawn(move || committer.run(&inbox))?;
        let opened = Opened { streams: shared.streams.len(), records, took: since.elapsed(), may_lack_end };
        shared.observer.opened(opened.took);
        Ok((
            Self {
                shared,
                jobs: Some(jobs),
                committer: Some(committer),
                _directory: directory,
                _cache: cache,
            },
            opened,
        ))
    }
}

/// Number of records that are read between two checks of the memory budget.
const RECORDS_BETWEEN_CHECKS: u64 = 4096;

/// Whether everything read so far fits into the budget.
fn fits(budget: &Budget) -> Result<(), OpenError> {
    let used = budget.refresh();
    if used <= budget.max() { Ok(()) } else { Err(OpenError::Memory { used, max: budget.max() }) }
}

/// Whether the operator has accepted all damage earlier. Fails with [`OpenError::Damaged`] if some is new and `accept_damage`
/// is not set.
fn is_accepted(directory: &Path, restored: &ReplayedLog, accept_damage: bool) -> Result<bool, OpenError> {
    let damage = &restored.losses.damage;
    if damage.is_empty() {
        return Ok(true);
    }
    let accepted = damage::accepted(directory)?;
    let all = damage.iter().map(damage::in_words);
    let new: Vec<_> = all.filter(|place| !accepted.contains(place)).collect();
    if new.is_empty() {
        return Ok(true);
    }
    let lost = damage::lost(restored.streams.iter().map(Box::as_ref));
    let (damage, lost) = (damage::listed(&new), damage::listed(&lost));
    if !accept_damage {
        return Err(OpenError::Damaged { damage, lost });
    }
    tracing::error!(damage, lost, "opening the store without its damaged records");
    Ok(false)
}

/// Where the log continues: after its last record, or in a new segment. The second value is the segment and offset before a new
/// segment. First removes what was written after the end of the log and not synced.
fn room(
    shared: &DiskState,
    directory: &Path,
    end: LogEnd,
    segment_bytes: u32,
) -> io::Result<(Room, Option<(u32, u32)>)> {
    let mut last_number = end.last.as_ref().map_or(0, |(segment, _)| segment.number);
    for (number, rest) in end.beyond_end {
        last_number = last_number.max(number);
        let file = path(directory, number);
        match rest {
            TrailingSegment::Unused => fs::remove_file(file)?,
            TrailingSegment::Used => {
                tracing::error!(file = %file.display(), "renaming to .damaged: the log ends in an earlier file");
                fs::rename(&file, file.with_extension("damaged"))?;
            }
        }
    }
    if let Some((last, offset)) = end.last.as_ref().filter(|_| end.torn) {
        tracing::warn!(
            segment = last.number,
            offset,
            "the log ends in an incomplete write, which is removed"
        );
        last.erase(*offset)?;
    }
    let after = end.last.as_ref().filter(|_| end.is_sealed).map(|(last, offset)| (last.number, *offset));
    let (active, offset) = match end.last.filter(|_| !end.is_sealed) {
        Some(last) => last,
        None => {
            last_number += 1;
            (Arc::new(Segment::make(shared.segments.folder(), last_number, segment_bytes)?), HEADER_BYTES)
        }
    };
    shared.segments.insert(active.clone());
    Ok((Room::new(shared.segments.clone(), active, offset, last_number, segment_bytes), after))
}
