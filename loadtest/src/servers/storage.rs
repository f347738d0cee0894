//! Where servers keep messages: in memory, in folders on the same disk, or in the same Redis, so that they pay the same cost.

use std::convert::Infallible;
use std::fs::{canonicalize, create_dir_all, read_to_string};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::ServerError;

/// File systems that lose everything in a power cut.
const VOLATILE: [&str; 2] = ["tmpfs", "ramfs"];

/// Where a server keeps messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Storage {
    /// In memory, until the process ends.
    Memory,
    /// In a new subfolder of this folder; appends are synced before they are answered.
    Disk(PathBuf),
    /// In a Redis or Valkey that runs already, by its URL, which this many instances of a server share.
    Engine(String, usize),
}

impl FromStr for Storage {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "memory" => Self::Memory,
            url if url.contains("://") => Self::Engine(url.to_owned(), 1),
            folder => Self::Disk(folder.into()),
        })
    }
}

impl Storage {
    /// Number of instances of a server that use it.
    pub fn instances(&self) -> usize {
        if let Self::Engine(_, instances) = self { *instances } else { 1 }
    }

    /// Creates the folder, checks that it is on a disk, and returns a description such as `ext4 on /dev/sda1`.
    pub fn ready(&self) -> Result<String, ServerError> {
        let folder = match self {
            Self::Memory => return Ok("memory".to_owned()),
            Self::Engine(_, instances) => {
                return Ok(format!("an engine that {instances} of each server share"));
            }
            Self::Disk(folder) => folder,
        };
        let files = |error| ServerError::Files(folder.display().to_string(), error);
        create_dir_all(folder).map_err(files)?;
        let folder = canonicalize(folder).map_err(files)?;
        let mounts = read_to_string("/proc/self/mounts").map_err(files)?;
        let Some((device, kind)) = mount(&folder, &mounts) else { return Ok("a disk".to_owned()) };
        if VOLATILE.contains(&kind) {
            return Err(ServerError::NoDisk(folder.display().to_string(), kind.to_owned()));
        }
        Ok(format!("{kind} on {device}"))
    }
}

/// Returns the device and type of the file system of a folder, from a table in the format of fstab(5).
fn mount<'a>(folder: &Path, mounts: &'a str) -> Option<(&'a str, &'a str)> {
    let around = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (device, point, kind) = (fields.next()?, Path::new(fields.next()?), fields.next()?);
        folder.starts_with(point).then(|| (point.components().count(), (device, kind)))
    });
    // Of several mounts at the same place the last one hides the others.
    around.max_by_key(|(depth, _)| *depth).map(|(_, mount)| mount)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_on_the_closest_mount_and_of_several_on_the_last() {
        let mounts = "/dev/sda1 / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/sdb /data xfs rw 0 0\n\
                      /dev/sdc /data btrfs rw 0 0\ntmpfs /data/cache tmpfs rw 0 0\n";
        for (folder, expected) in [
            ("/var/lib", ("/dev/sda1", "ext4")),
            ("/tmp/a/b", ("tmpfs", "tmpfs")),
            ("/tmporary", ("/dev/sda1", "ext4")),
            ("/data/messages", ("/dev/sdc", "btrfs")),
            ("/data/cache", ("tmpfs", "tmpfs")),
        ] {
            assert_eq!(mount(Path::new(folder), mounts), Some(expected), "{folder}");
        }
    }
}
