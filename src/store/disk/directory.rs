//! The directory of a store: there, and no other process's at the same time.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// A directory that is locked until this is dropped, or the process ends.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Makes it if it is not there.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        fs::create_dir_all(path)?;
        let lock = File::options().write(true).create(true).truncate(false).open(path.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse { directory: path.to_owned() }),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Why a store can not be opened, in words for the operator.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{} is in use by another process", .directory.display())]
    InUse {
        /// Its directory.
        directory: PathBuf,
    },
    /// A later version of pollgate has written it.
    #[error("{} has format {format}, which this version can not read", .directory.display())]
    Newer {
        /// Its directory.
        directory: PathBuf,
        /// Its format.
        format: u32,
    },
    /// It can not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}
