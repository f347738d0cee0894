//! The process is killed.

use tempfile::TempDir;

use crate::loss::{Loss, lose};
use crate::outage::survive;
use crate::stored;
use crate::world::{Gateway, alone};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_loses_nothing_that_was_acknowledged() {
    let _turn = alone().await;
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a new folder");
    survive("SIGKILL", &stored(folder.path(), "always"), Gateway::kill).await;
}

/// The control: a store that promises less is caught at it, by the same means.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_of_a_store_in_memory_is_seen_to_lose() {
    let _turn = alone().await;
    let loss = lose(&["--store", "memory"], || {}, Gateway::kill).await;
    println!("SIGKILL of a store in memory, readers told: {loss:?}");
    assert!(matches!(loss, Loss { lost: 200.., left: 0 }), "{loss:?}");
}
