//! Segments, the files of the log. A segment is written with zeros to its full size before it is used, so that only its
//! creation can fail on a full disk, and a sync has no metadata of the file to write.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::directory::FILE_MODE;
use super::frame::{self, FRAME_HEADER_BYTES, FrameLocation, FrameRead};
use super::record::{LogRecord, StreamId};
use crate::stream::Failure;

/// Bytes before the first record: magic, format, number, checksum.
pub(super) const HEADER_BYTES: u32 = 64;

/// The maximum size of the records that every segment begins with.
pub(super) const OPENED_BYTES_MAX: u32 = 128;

/// The format that is written, and the newest one that can be read.
pub(super) const FORMAT: u32 = 3;

const MAGIC: &[u8; 8] = b"pollgate";

/// Zeros that are written at once.
static ZEROS: [u8; 256 * 1024] = [0; 256 * 1024];

/// One file of the log.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u32,
    pub(super) capacity: u32,
    file: File,
    /// Bytes of records in use.
    live: AtomicU64,
    /// The streams and sessions that have records in the segment.
    pub(super) streams: Mutex<HashSet<StreamId>>,
}

/// All segments of the log, by number.
#[derive(Debug)]
pub(super) struct Segments {
    folder: Arc<Folder>,
    table: RwLock<BTreeMap<u32, Arc<Segment>>>,
}

/// The directory of the files.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Kept open, so that it can be synced when the process has no descriptor left.
    file: File,
}

/// Why a segment was not created.
#[derive(Debug)]
pub(super) enum CreateSegmentError {
    /// There is no room on the disk, no descriptor or no memory.
    NoRoom(io::Error),
    /// A sync has failed.
    Unsynced(io::Error),
}

/// Why the header of a segment is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderError {
    /// The header is damaged or was never written.
    Damaged,
    /// A later version of pollgate has written the segment, with this format.
    Newer(u32),
}

impl Segment {
    /// Creates a segment in a directory. Its header and zeros up to its capacity are synced when this returns.
    pub(super) fn make(folder: &Folder, number: u32, capacity: u32) -> Result<Self, CreateSegmentError> {
        let path = path(&folder.path, number);
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(true).mode(FILE_MODE);
        let file = options.open(&path).map_err(CreateSegmentError::NoRoom)?;
        let made = (|| {
            let mut offset = 0;
            while offset < u64::from(capacity) {
                let rest = usize::try_from(u64::from(capacity) - offset).unwrap_or(usize::MAX);
                let zeros = ZEROS.get(..rest).unwrap_or(&ZEROS);
                file.write_all_at(zeros, offset).map_err(CreateSegmentError::NoRoom)?;
                offset += zeros.len() as u64;
            }
            file.write_all_at(&header(FORMAT, number), 0).map_err(CreateSegmentError::NoRoom)?;
            file.sync_all().map_err(CreateSegmentError::Unsynced)?;
            folder.file.sync_all().map_err(CreateSegmentError::Unsynced)
        })();
        match made {
            Ok(()) => Ok(Self::of(file, number, capacity)),
            Err(error) => {
                // The next opening removes a file that stays.
                if let Err(error) = std::fs::remove_file(&path) {
                    tracing::warn!(path = %path.display(), %error, "cannot remove an incomplete file of the store");
                }
                Err(error)
            }
        }
    }

    /// Opens an existing segment, and reads all of its bytes.
    pub(super) fn load(directory: &Path, number: u32) -> io::Result<(Self, Vec<u8>)> {
        let path = path(directory, number);
        let loaded = std::fs::read(&path)
            .and_then(|bytes| File::options().read(true).write(true).open(&path).map(|file| (file, bytes)));
        let (file, bytes) =
            loaded.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
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

    /// Zeroes everything from `offset` on, so that no earlier record is ever found there.
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
                tracing::error!(segment = self.number, offset, %error, "cannot read a file of the store");
                // The file is too short, or the disk cannot read this part of it. Other errors come from the system or from a disk that
                // reads nothing, not from the record.
                let is_damaged = match error.kind() {
                    io::ErrorKind::UnexpectedEof => true,
                    _ => error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) && self.reads(),
                };
                Err(if is_damaged { Failure::Unreadable } else { Failure::Short })
            }
        }
    }

    /// Whether the disk reads the beginning of the file.
    fn reads(&self) -> bool {
        self.file.read_exact_at(&mut [0], 0).is_ok()
    }

    /// The maximum size of the first record after those that every segment begins with.
    pub(super) fn room(&self) -> usize {
        self.capacity.saturating_sub(HEADER_BYTES + OPENED_BYTES_MAX) as usize
    }

    /// Bytes of records in use.
    pub(super) fn live(&self) -> u64 {
        self.live.load(Ordering::Relaxed)
    }
}

/// The header of a file: magic, format, number, and their checksum.
fn header(format: u32, number: u32) -> [u8; HEADER_BYTES as usize] {
    let mut header = [0; HEADER_BYTES as usize];
    let fields = [&MAGIC[..], &format.to_le_bytes(), &number.to_le_bytes()].concat();
    let sum = crc32c::crc32c(&fields).to_le_bytes();
    for (to, from) in header.iter_mut().zip(fields.iter().chain(&sum)) {
        *to = *from;
    }
    header
}

/// The format of the segment `number`, from the header that `bytes` begin with.
pub(super) fn check_header(bytes: &[u8], number: u32) -> Result<u32, HeaderError> {
    let Some(head) = bytes.first_chunk::<{ HEADER_BYTES as usize }>() else {
        return Err(HeaderError::Damaged);
    };
    if let Some(known) = (1..=FORMAT).find(|format| *head == header(*format, number)) {
        return Ok(known);
    }
    // Every format has the checksum in this place, so that a damaged format number does not look like a later version.
    let (fields, rest) = head.split_at(16);
    let format =
        fields.get(8..12).and_then(|format| format.first_chunk()).map(|bytes| u32::from_le_bytes(*bytes));
    match (format, rest.first_chunk()) {
        (Some(format), Some(sum))
            if fields.starts_with(MAGIC)
                && format > FORMAT
                && crc32c::crc32c(fields).to_le_bytes() == *sum =>
        {
            Err(HeaderError::Newer(format))
        }
        _ => Err(HeaderError::Damaged),
    }
}

impl From<CreateSegmentError> for io::Error {
    fn from(unmade: CreateSegmentError) -> Self {
        match unmade {
            CreateSegmentError::NoRoom(error) | CreateSegmentError::Unsynced(error) => error,
        }
    }
}

/// The path of a segment.
pub(super) fn path(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("{number:010}.log"))
}

impl Segments {
    pub(super) fn new(directory: &Path) -> io::Result<Self> {
        let folder = Arc::new(Folder { path: directory.to_owned(), file: File::open(directory)? });
        Ok(Self { folder, table: RwLock::default() })
    }

    pub(super) fn folder(&self) -> &Arc<Folder> {
        &self.folder
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

    /// Removes a segment without records in use. Readers that have its file open can finish.
    pub(super) fn remove(&self, number: u32) -> io::Result<()> {
        match std::fs::remove_file(path(&self.folder.path, number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        self.table.write().remove(&number);
        Ok(())
    }

    /// Syncs the directory, which makes created and removed files durable.
    pub(super) fn sync_folder(&self) -> io::Result<()> {
        self.folder.file.sync_all()
    }

    /// Adds `bytes` to the bytes in use of a segment.
    pub(super) fn count_in(&self, number: u32, bytes: u64) {
        if let Some(segment) = self.table.read().get(&number) {
            segment.live.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Subtracts `bytes` from the bytes in use of a segment.
    pub(super) fn count_out(&self, number: u32, bytes: u64) {
        if let Some(segment) = self.table.read().get(&number) {
            segment.live.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Reads and checks the record at `place`. Returns the record and its content.
    pub(super) fn record(
        &self,
        place: FrameLocation,
        bytes: u32,
    ) -> Result<(LogRecord, bytes::Bytes), Failure> {
        let segment = self.get(place.segment).ok_or(Failure::Unreadable)?;
        let bytes = bytes::Bytes::from(segment.read(place.offset, bytes as usize)?);
        decode(&bytes, place)
    }
}

/// Decodes the record that `bytes` begin with. Returns the record and its content, which shares `bytes`.
pub(super) fn decode(
    bytes: &bytes::Bytes,
    place: FrameLocation,
) -> Result<(LogRecord, bytes::Bytes), Failure> {
    let FrameRead::Body(body) = frame::read(bytes, place) else { return Err(Failure::Unreadable) };
    let (record, content) = frame::split(body).ok_or(Failure::Unreadable)?;
    let start = FRAME_HEADER_BYTES + body.len() - content.len();
    Ok((record, bytes.slice(start..FRAME_HEADER_BYTES + body.len())))
}
