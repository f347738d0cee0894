//! The directory of a store: locked against other processes, and readable by its owner alone.

use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Permissions of every file in the directory: messages may be confidential.
pub(super) const FILE_MODE: u32 = 0o600;

const DIRECTORY_MODE: u32 = 0o700;

/// Bits that let others than the owner in.
const OTHERS: u32 = 0o077;

/// A directory that is locked until this is dropped, or the process ends.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Makes it if it is not there.
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
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse { directory: path.to_owned() }),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the permissions of others away from the directory and its files, which earlier versions gave them.
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
            tracing::warn!(%directory, tightened, "other users could read the store; now its owner alone can");
        }
        Ok(())
    }
}

/// Returns whether others had permissions. A store that belongs to another user can not be restricted by this one,
/// which is no reason not to serve it.
fn restrict(path: &Path, mode: u32) -> io::Result<bool> {
    if fs::metadata(path)?.permissions().mode() & OTHERS == 0 {
        return Ok(false);
    }
    match fs::set_permissions(path, Permissions::from_mode(mode)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            tracing::warn!(path = %path.display(), %error, "other users can read the store");
            Ok(false)
        }
        Err(error) => Err(error),
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
    /// Records are lost, and nobody has accepted that.
    #[error(
        "{} is damaged: {damage}; {}; all other records are whole; --accept-damage goes on without what is lost",
        .directory.display(),
        if .lost.is_empty() { "no message that is kept is lost".into() } else { format!("lost: {}", .lost) }
    )]
    Damaged {
        /// Its directory.
        directory: PathBuf,
        /// The places in its files.
        damage: String,
        /// Which streams have lost what.
        lost: String,
    },
    /// What has to be in memory of it does not fit into the budget.
    #[error(
        "opening it takes {} MiB of memory and more, and --memory-max allows {} MiB; raise that, or export and delete streams",
        .used >> 20,
        .max >> 20
    )]
    Memory {
        /// What is used so far, in bytes.
        used: u64,
        /// The budget.
        max: u64,
    },
    /// It can not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}
