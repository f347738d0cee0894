//! [`Image`]: a small separate disk, an ext4 image on a loop device, whose power can be cut.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use tempfile::{Builder, TempDir};

use crate::world::command::{run, try_run};
use crate::world::until;

/// Prefix of an image's folder; the id of the owning process follows.
const PREFIX: &str = "durability-";

/// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH` (linux/ext4.h): after it, nothing is written to the device, not even
/// the contents of the journal.
const SHUTDOWN: &str = "
import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))
";

/// A file system that is mounted until this is dropped.
pub(crate) struct Image {
    folder: TempDir,
    mounted: PathBuf,
}

impl Image {
    /// Creates and mounts a file system of `mebibytes` MiB.
    pub(crate) fn create(mebibytes: u64) -> Self {
        assert!(rustix::process::geteuid().is_root(), "this scenario mounts a file system and needs root");
        remove_leftovers();
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let folder = Builder::new().prefix(&prefix).tempdir_in(env!("CARGO_TARGET_TMPDIR"));
        let folder = folder.expect("a new folder");
        let mounted = folder.path().join("mounted");
        fs::create_dir(&mounted).expect("a new folder");
        let image = Self { folder, mounted };
        let file = File::create_new(image.file()).expect("a new file");
        file.set_len(mebibytes * 1024 * 1024).expect("a sparse file");
        // No blocks are reserved for root, since the gateway runs as root here.
        run("mkfs.ext4", &["-q", "-m", "0", text(&image.file())]);
        image.mount();
        image
    }

    /// Returns the mount point.
    pub(crate) fn path(&self) -> &Path {
        &self.mounted
    }

    /// Writes everything to the device, as the kernel does from time to time.
    pub(crate) fn sync(&self) {
        run("sync", &["--file-system", text(&self.mounted)]);
    }

    /// Cuts the power: unsynced data is lost, and all further writes and syncs fail.
    pub(crate) fn lose_power(&self) {
        run("python3", &["-c", SHUTDOWN, text(&self.mounted)]);
    }

    /// Unmounts the file system and mounts the content of the device again. No process may have a file of it open.
    pub(crate) async fn mount_again(&self) {
        run("umount", &[text(&self.mounted)]);
        until("the loop device is free", async || run("losetup", &["-j", text(&self.file())]).is_empty())
            .await;
        self.mount();
    }

    /// The kernel frees the loop device with the last user of the file system.
    fn mount(&self) {
        run("mount", &["-t", "ext4", "-o", "loop", text(&self.file()), text(&self.mounted)]);
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("image")
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        release(&self.mounted);
    }
}

/// Unmounts now, or when the last process that uses it ends.
fn release(mounted: &Path) {
    if let Err(why) = try_run("umount", &["--lazy", text(mounted)]) {
        eprintln!("{why}");
    }
}

/// Removes images of earlier runs that were killed.
fn remove_leftovers() {
    let entries = fs::read_dir(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    for folder in entries.map(|entry| entry.expect("readable").path()) {
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|owner| !Path::new("/proc").join(owner).exists()) {
            release(&folder.join("mounted"));
            fs::remove_dir_all(&folder).expect("our folder");
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}
