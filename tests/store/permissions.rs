//! Messages may be confidential: only the owner can access the files of a store.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::directory::{directory, open, world};

fn modes(directory: &Path) -> Vec<(String, u32)> {
    let files = fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
    let all = files.chain([directory.to_owned()]);
    all.map(|path| (path.display().to_string(), fs::metadata(&path).unwrap().permissions().mode() & 0o777))
        .collect()
}

fn are_private(directory: &Path) {
    for (path, mode) in modes(directory) {
        assert_eq!(mode & 0o077, 0, "{path} has {mode:o}");
    }
}

#[tokio::test]
async fn a_new_store_is_private_and_an_older_one_is_made_private() {
    let directory = directory();
    let inner = directory.path().join("store");
    let (before, _) = world(&inner);
    before.open("s").await;
    for n in 0..3000 {
        before.push("s", [n]).await;
    }
    are_private(&inner);
    drop(before);
    fs::set_permissions(&inner, Permissions::from_mode(0o755)).unwrap();
    for file in fs::read_dir(&inner).unwrap() {
        fs::set_permissions(file.unwrap().path(), Permissions::from_mode(0o644)).unwrap();
    }
    drop(open(&inner));
    are_private(&inner);
    assert!(modes(&inner).len() >= 4);
}
