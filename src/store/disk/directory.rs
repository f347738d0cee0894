//! The directory of a store: locks it against other processes, and restricts it to its owner.

use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Permissions of every file in the directory: messages may be confidential.
pub(super) const FILE_MODE: u32 = 0o600;

const DIRECTORY_MODE: u32 = 0o700;

/// Permission bits for group and others.
const OTHERS: u32 = 0o077;

/// The directory of a store. It stays locked until this is dropped or the process ends.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Creates the directory if it does not exist, and locks it.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)?;
        let mut options = File::options();
        options.write(true).create(true).truncate(false).mode(FILE_MODE);
        let lock = options.open(path.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the permissions of group and others from the directory and its files. Earlier versions granted them.
    pub(super) fn restrict_to_owner(&self) -> io::Result<()> {
        let mut tightened = usize::from(restrict(&self.path, DIRECTORY_MODE)?);
        for file in fs::read_dir(&self.path)? {
            let file = file?;
            if file.file_type()?.is_file() {
                tightened += usize::from(restrict(&file.path(), FILE_MODE)?);
            }
        }
        if tightened > 0 {
            let directory = self.path.display();
            tracing::warn!(%directory, tightened, "other users could read the store; now only its owner can");
        }
        Ok(())
    }
}

/// Restricts the permissions of a file; returns whether they were wider. If the store belongs to another user, this process
/// cannot restrict it, and serves it nevertheless.
fn restrict(path: &Path, mode: u32) -> io::Result<bool> {
    if fs::metadata(path)?.permissions().mode() & OTHERS == 0 {
        return Ok(false);
    }
    match fs::set_permissions(path, Permissions::from_mode(mode)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            tracing::warn!(path = %path.display(), %error, "other users can read the store; restrict it as its owner");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Why the store in a directory cannot be opened. The texts are for the operator, who is told the directory, too.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the store open.
    #[error("it is in use by another process; stop that process, or choose another directory")]
    InUse,
    /// The directory has no store.
    #[error("it is no store: {0}")]
    NoStore(&'static str),
    /// A later version of pollgate has written the store.
    #[error(
        "it has format {format}, which this version of pollgate cannot read; install the version that wrote it"
    )]
    Newer {
        /// The format of the store.
        format: u32,
    },
    /// Records are lost, and no operator has accepted that.
    #[error(
        "it is damaged: {damage}; {}; all other records are intact; start with --accept-damage to go on without the lost ones",
        if .lost.is_empty() { "no stored message is lost".into() } else { format!("lost: {}", .lost) }
    )]
    Damaged {
        /// The damaged places in its files.
        damage: String,
        /// Which streams have lost messages, and how many; empty if none.
        lost: String,
    },
    /// The index of the store does not fit into the memory budget.
    #[error(
        "its index needs more than {} MiB of memory, and --memory-max allows {} MiB; raise it, or delete streams",
        .used >> 20,
        .max >> 20
    )]
    Memory {
        /// Memory used so far, in bytes.
        used: u64,
        /// The memory budget, in bytes.
        max: u64,
    },
    /// The store cannot be read or written.
    #[error("{}{}", .0, remedy(.0))]
    Io(#[from] io::Error),
}

/// What the operator can do about an error of the system.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; the user of this process must own the directory and its files",
        io::ErrorKind::ReadOnlyFilesystem => "; the store has to be on a file system that can be written",
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => "; a store is a directory",
        io::ErrorKind::StorageFull => "; free some space, or choose another directory",
        _ => "",
    }
}
