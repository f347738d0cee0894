//! Opens stores on disk in directories of the test.

use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use pollgate::store::{Disk, DiskOptions, OpenError, Opened};
use pollgate::stream::SyncPolicy;
use tempfile::TempDir;

use crate::suite::{Made, World, noon};

/// Small files, so that a test reaches the end of one.
pub const SEGMENT_BYTES: u32 = 64 * 1024;

/// Creates a directory that is removed with the test.
pub fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Creates an empty store in a new directory, which is removed with it.
pub fn make() -> Made {
    let directory = directory();
    Made { store: Box::new(open(directory.path()).0), needs: Some(Box::new(directory)) }
}

/// Opens the store in a directory.
pub fn open(directory: &Path) -> (Disk, Opened) {
    opened(directory, SEGMENT_BYTES)
}

/// Opens a store that nobody has open. A process that another test starts has a copy of each lock until it runs its program, so that a store
/// that was closed can be in use for that moment.
fn opened(directory: &Path, segment_bytes: u32) -> (Disk, Opened) {
    // A minute, which no process needs to begin.
    for _ in 0..60_000 {
        match open_with(directory, segment_bytes) {
            Err(OpenError::InUse) => sleep(Duration::from_millis(1)),
            opened => return opened.unwrap(),
        }
    }
    panic!("the store in {} stays in use", directory.display());
}

pub fn try_open(directory: &Path) -> Result<(Disk, Opened), OpenError> {
    open_with(directory, SEGMENT_BYTES)
}

pub fn open_with(directory: &Path, segment_bytes: u32) -> Result<(Disk, Opened), OpenError> {
    open_at(directory, segment_bytes, noon())
}

fn open_at(directory: &Path, segment_bytes: u32, now: SystemTime) -> Result<(Disk, Opened), OpenError> {
    let options = DiskOptions { segment_bytes, ..DiskOptions::new(SyncPolicy::Always) };
    Disk::open(directory, options, Arc::new(()), now)
}

/// Opens a world on the store in a directory, and returns what the opening found.
pub fn world(directory: &Path) -> (World, Opened) {
    world_of(directory, SEGMENT_BYTES)
}

/// Like [`world`], with another size of files.
pub fn world_of(directory: &Path, segment_bytes: u32) -> (World, Opened) {
    let (store, opened) = opened(directory, segment_bytes);
    (World::with(Box::new(store)), opened)
}

/// Like [`world_of`], at another time than noon.
pub fn world_at(directory: &Path, segment_bytes: u32, now: SystemTime) -> World {
    let (store, _) = open_at(directory, segment_bytes, now).unwrap();
    let mut world = World::with(Box::new(store));
    world.now = now;
    world
}

/// Like [`world_at`], with a store that reads everything from its files.
pub fn world_without_cache(directory: &Path, segment_bytes: u32, now: SystemTime) -> World {
    let options = DiskOptions { segment_bytes, cache_bytes: 0, ..DiskOptions::new(SyncPolicy::Always) };
    let (store, _) = Disk::open(directory, options, Arc::new(()), now).unwrap();
    let mut world = World::with(Box::new(store));
    world.now = now;
    world
}

/// Like [`world_of`], with a store whose damage is accepted.
pub fn world_despite_damage(directory: &Path, segment_bytes: u32) -> World {
    let options = DiskOptions { segment_bytes, accept_damage: true, ..DiskOptions::new(SyncPolicy::Always) };
    World::with(Box::new(Disk::open(directory, options, Arc::new(()), noon()).unwrap().0))
}

/// Copies the files of a store that is not open.
pub fn copy(from: &Path, to: &Path) {
    for file in std::fs::read_dir(from).unwrap().map(|file| file.unwrap()) {
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// Returns the size of a store's files in bytes.
pub fn size(directory: &Path) -> u64 {
    // A file that was removed meanwhile counts as empty.
    let files = std::fs::read_dir(directory).unwrap().filter_map(|file| file.unwrap().metadata().ok());
    files.map(|file| file.len()).sum()
}
