//! Opening a store: what its log says, and whether something may be missing behind that.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime};
use std::{fs, io, thread};

use tokio::time::Instant;

use super::Disk;
use super::committer::{Committer, Known};
use super::directory::{Directory, OpenError};
use super::replay::Replay;
use super::room::{NoRoom, Room};
use super::scan::{End, Rest, scan};
use super::segment::{HEADER_BYTES, Segment, Segments, path};
use super::shared::Shared;
use crate::store::streams::Epochs;
use crate::stream::SyncPolicy;
use crate::stream::{Epoch, Observer};

/// How a store writes.
#[derive(Debug, Clone, Copy)]
pub struct DiskOptions {
    /// When what was appended is synced.
    pub sync: SyncPolicy,
    /// The size of its files, at least 16 KiB; those that are there keep theirs. Two more than what is kept are the
    /// most that there are, so that less of it suits a small device.
    pub segment_bytes: u32,
    /// Bytes of the newest messages, and of what is needed to find them, that are kept in memory.
    pub cache_bytes: u64,
}

impl DiskOptions {
    /// In files of 8 MiB, with 64 MiB of the newest messages in memory.
    pub fn new(sync: SyncPolicy) -> Self {
        Self { sync, segment_bytes: 8 * 1024 * 1024, cache_bytes: 64 * 1024 * 1024 }
    }
}

/// What was found.
#[derive(Debug, Clone, Copy)]
pub struct Opened {
    /// How many streams there are.
    pub streams: usize,
    /// How many records were read.
    pub records: u64,
    /// How long it took.
    pub took: Duration,
    /// Whether the end of the log may be missing. If so, cursors from behind it are told apart from those to come.
    pub renewed: bool,
}

impl Disk {
    /// Opens the store in `directory`, which is made if it is not there, and tells `observer` of its work. `now` is the
    /// time of day; idle streams are as if they had been used now.
    pub fn open(
        directory: &Path,
        options: DiskOptions,
        observer: Arc<dyn Observer>,
        now: SystemTime,
    ) -> Result<(Self, Opened), OpenError> {
        let since = Instant::now();
        let directory = Directory::open(directory)?;
        let segments = Arc::new(Segments::new(directory.path().to_owned()));
        let mut replay = Replay::new(segments.clone(), now);
        let begin = |segment: &Arc<Segment>| segments.insert(segment.clone());
        let end = scan(directory.path(), begin, |scanned| replay.take(scanned))?;
        let renewed = end.damaged || !(replay.closed || replay.synced);
        let records = replay.records;
        let restored = replay.into_streams();
        let epochs = match restored.next_epoch {
            Epoch(0) => Epochs::random(),
            next => Epochs::from(next),
        };
        let shared =
            Arc::new(Shared::new(segments, epochs, observer, restored.sessions, options.cache_bytes));
        let known = Known {
            next_stream: restored.next_stream,
            graves: restored.graves,
            sessions: restored.session_log,
        };
        let mut structure = shared.streams.structure();
        let entries =
            restored.streams.into_iter().map(|entry| shared.streams.insert(&mut structure, entry, now));
        let entries: Vec<_> = entries.collect();
        drop(structure);
        let room = room(&shared, directory.path(), end, options.segment_bytes)?;
        let mut committer = Committer::new(shared.clone(), room, known, options.sync);
        entries.iter().for_each(|entry| committer.know(entry));
        committer.begin(if renewed { &entries } else { &[] }).map_err(|no_room| match no_room {
            NoRoom::Full => io::Error::from(io::ErrorKind::StorageFull),
            NoRoom::Broken(error) => error,
        })?;
        let (jobs, inbox) = mpsc::channel();
        let committer = thread::Builder::new().name("store".into()).spawn(move || committer.run(&inbox))?;
        let opened = Opened { streams: shared.streams.len(), records, took: since.elapsed(), renewed };
        shared.observer.opened(opened.took);
        Ok((Self { shared, jobs: Some(jobs), committer: Some(committer), _directory: directory }, opened))
    }
}

/// Where the log goes on: behind its last record. What is there and is none is taken away first.
fn room(shared: &Shared, directory: &Path, end: End, segment_bytes: u32) -> io::Result<Room> {
    let mut last_number = end.last.as_ref().map_or(0, |(segment, _)| segment.number);
    for (number, rest) in end.behind {
        last_number = last_number.max(number);
        let file = path(directory, number);
        match rest {
            Rest::Unused => fs::remove_file(file)?,
            Rest::Used => {
                tracing::error!(file = %file.display(), "set aside: it follows on something damaged");
                fs::rename(&file, file.with_extension("damaged"))?;
            }
        }
    }
    let (active, offset) = match end.last {
        Some((active, offset)) => {
            if end.damaged {
                tracing::warn!(
                    segment = active.number,
                    offset,
                    "the log ends in a write that was cut off, or in damage"
                );
                active.erase(offset)?;
            }
            (active, offset)
        }
        None => {
            last_number += 1;
            (Arc::new(Segment::make(directory, last_number, segment_bytes)?), HEADER_BYTES)
        }
    };
    shared.segments.insert(active.clone());
    Ok(Room::new(shared.segments.clone(), active, offset, last_number, segment_bytes))
}
