//! A small disk of its own: an ext4 image on a loop device, whose power can be cut.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use tempfile::{Builder, TempDir};

use crate::world::command::{run, try_run};
use crate::world::until;

/// The folders of images: this, and the id of the process that they belong to.
const PREFIX: &str = "durability-";

/// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH` (linux/ext4.h): from here on nothing reaches the device, not
/// even what the journal holds.
const SHUTDOWN: &str = "
import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))
";

/// A file system that is mounted as long as this lives.
pub(crate) struct Image {
    folder: TempDir,
    mounted: PathBuf,
}

impl Image {
    /// Makes one of so many MiB and mounts it.
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
        // Without blocks that only root may use: the gateway runs as root here.
        run("mkfs.ext4", &["-q", "-m", "0", text(&image.file())]);
        image.mount();
        image
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.mounted
    }

    /// Brings everything to the device, as the system does by itself now and then.
    pub(crate) fn sync(&self) {
        run("sync", &["--file-system", text(&self.mounted)]);
    }

    /// Cuts it off as it is: what was not synced is lost, and all further writes and syncs fail.
    pub(crate) fn lose_power(&self) {
        run("python3", &["-c", SHUTDOWN, text(&self.mounted)]);
    }

    /// Takes it away and mounts what is on the device. Nobody may have a file of it open.
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

/// Unmounts now or, if a gateway is still dying, with its end.
fn release(mounted: &Path) {
    if let Err(why) = try_run("umount", &["--lazy", text(mounted)]) {
        eprintln!("{why}");
    }
}

/// Removes the images of runs that were killed before they could.
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
