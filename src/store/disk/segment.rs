//! The files of the log: each of the same size, with its room taken and zeroed before it is written to, so that a full
//! disk is met there and nowhere else, and a sync has no change of the file itself to write.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::frame::{self, FRAME_HEADER_BYTES, Found, Place};
use super::record::{Record, StreamId};
use crate::stream::Failure;

/// Bytes before the first record: what the file is, and which.
pub(super) const HEADER_BYTES: u32 = 64;

/// What the record takes that every segment begins with.
pub(super) const OPENED_BYTES_MAX: u32 = 64;

/// The format that is written, and the newest that is read.
pub(super) const FORMAT: u32 = 1;

const MAGIC: &[u8; 8] = b"pollgate";

/// What is written at once to take room.
static ZEROS: [u8; 256 * 1024] = [0; 256 * 1024];

/// One file.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u32,
    pub(super) capacity: u32,
    file: File,
    /// Bytes of records that somebody still has.
    live: AtomicU64,
    /// The streams that something was written of.
    pub(super) streams: Mutex<HashSet<StreamId>>,
}

/// All files that are in use, by number.
#[derive(Debug)]
pub(super) struct Segments {
    directory: PathBuf,
    table: RwLock<BTreeMap<u32, Arc<Segment>>>,
}

/// Why a file is no segment that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    /// Its first bytes were damaged or never written.
    Damaged,
    /// It was written by a later version.
    Newer(u32),
}

impl Segment {
    /// Takes the room for a segment on disk. All of it is zero and synced when this returns.
    pub(super) fn make(directory: &Path, number: u32, capacity: u32) -> io::Result<Self> {
        let path = path(directory, number);
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        let made = (|| {
            let mut offset = 0;
            while offset < u64::from(capacity) {
                let rest = usize::try_from(u64::from(capacity) - offset).unwrap_or(usize::MAX);
                let zeros = ZEROS.get(..rest).unwrap_or(&ZEROS);
                file.write_all_at(zeros, offset)?;
                offset += zeros.len() as u64;
            }
            file.write_all_at(&header(number), 0)?;
            file.sync_all()?;
            File::open(directory)?.sync_all()
        })();
        match made {
            Ok(()) => Ok(Self::of(file, number, capacity)),
            Err(error) => {
                std::fs::remove_file(&path)?;
                Err(error)
            }
        }
    }

    /// A file that is there, with all of its bytes.
    pub(super) fn load(directory: &Path, number: u32) -> io::Result<(Self, Vec<u8>)> {
        let path = path(directory, number);
        let bytes = std::fs::read(&path)?;
        let file = File::options().read(true).write(true).open(&path)?;
        let capacity = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        Ok((Self::of(file, number, capacity), bytes))
    }

    fn of(file: File, number: u32, capacity: u32) -> Self {
        Self { number, capacity, file, live: AtomicU64::new(0), streams: Mutex::default() }
    }

    pub(super) fn write(&self, bytes: &[u8], offset: u32) -> io::Result<()> {
        self.file.write_all_at(bytes, offset.into())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Zeroes everything from `offset` on, so that no record of before is ever found there.
    pub(super) fn erase(&self, offset: u32) -> io::Result<()> {
        let rest = self.capacity.saturating_sub(offset);
        self.file.write_all_at(&vec![0; rest as usize], offset.into())?;
        self.file.sync_data()
    }

    /// Reads `length` bytes at `offset`.
    pub(super) fn read(&self, offset: u32, length: usize) -> Result<Vec<u8>, Failure> {
        let mut bytes = vec![0; length];
        match self.file.read_exact_at(&mut bytes, offset.into()) {
            Ok(()) => Ok(bytes),
            Err(error) => {
                tracing::error!(segment = self.number, offset, %error, "can not read");
                Err(Failure::Unreadable)
            }
        }
    }

    /// How many bytes a record may have that is the first of its own.
    pub(super) fn room(&self) -> usize {
        self.capacity.saturating_sub(HEADER_BYTES + OPENED_BYTES_MAX) as usize
    }

    /// Bytes of records that somebody still has.
    pub(super) fn live(&self) -> u64 {
        self.live.load(Ordering::Relaxed)
    }
}

/// The first bytes of a file: what it is, its format, its number, and their checksum.
fn header(number: u32) -> [u8; HEADER_BYTES as usize] {
    let mut header = [0; HEADER_BYTES as usize];
    let fields = [&MAGIC[..], &FORMAT.to_le_bytes(), &number.to_le_bytes()].concat();
    let sum = crc32c::crc32c(&fields).to_le_bytes();
    for (to, from) in header.iter_mut().zip(fields.iter().chain(&sum)) {
        *to = *from;
    }
    header
}

/// Whether `bytes` begin as the segment `number` does.
pub(super) fn check_header(bytes: &[u8], number: u32) -> Result<(), Header> {
    let Some(head) = bytes.first_chunk::<{ HEADER_BYTES as usize }>() else { return Err(Header::Damaged) };
    if *head == header(number) {
        return Ok(());
    }
    // The checksum has the same place in every format, or a damaged number would look like a later version.
    let (fields, rest) = head.split_at(16);
    let format =
        fields.get(8..12).and_then(|format| format.first_chunk()).map(|bytes| u32::from_le_bytes(*bytes));
    match (format, rest.first_chunk()) {
        (Some(format), Some(sum))
            if fields.starts_with(MAGIC)
                && format > FORMAT
                && crc32c::crc32c(fields).to_le_bytes() == *sum =>
        {
            Err(Header::Newer(format))
        }
        _ => Err(Header::Damaged),
    }
}

/// Where a segment lies.
pub(super) fn path(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("{number:010}.log"))
}

impl Segments {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, table: RwLock::default() }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn get(&self, number: u32) -> Option<Arc<Segment>> {
        self.table.read().get(&number).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Segment>> {
        self.table.read().values().cloned().collect()
    }

    pub(super) fn insert(&self, segment: Arc<Segment>) {
        self.table.write().insert(segment.number, segment);
    }

    /// Gives a segment up: nobody has anything in it any more. Readers that have it open can go on.
    pub(super) fn remove(&self, number: u32) -> io::Result<()> {
        self.table.write().remove(&number);
        std::fs::remove_file(path(&self.directory, number))?;
        File::open(&self.directory)?.sync_all()
    }

    /// Counts `bytes` of records in a segment in.
    pub(super) fn count_in(&self, number: u32, bytes: u64) {
        if let Some(segment) = self.table.read().get(&number) {
            segment.live.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Counts them out.
    pub(super) fn count_out(&self, number: u32, bytes: u64) {
        if let Some(segment) = self.table.read().get(&number) {
            segment.live.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// The record at a place, and its content, checked.
    pub(super) fn record(&self, place: Place, bytes: u32) -> Result<(Record, bytes::Bytes), Failure> {
        let segment = self.get(place.segment).ok_or(Failure::Unreadable)?;
        let bytes = bytes::Bytes::from(segment.read(place.offset, bytes as usize)?);
        decode(&bytes, place)
    }
}

/// The record that `bytes` begin with, and its content, which shares them.
pub(super) fn decode(bytes: &bytes::Bytes, place: Place) -> Result<(Record, bytes::Bytes), Failure> {
    let Found::Body(body) = frame::read(bytes, place) else { return Err(Failure::Unreadable) };
    let (record, content) = frame::split(body).ok_or(Failure::Unreadable)?;
    let start = FRAME_HEADER_BYTES + body.len() - content.len();
    Ok((record, bytes.slice(start..FRAME_HEADER_BYTES + body.len())))
}
