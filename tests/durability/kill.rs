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

/// Control: the same test detects the losses of a store that keeps messages in memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_losses_of_a_killed_store_in_memory_are_detected() {
    let _turn = alone().await;
    let loss = lose(&["--store", "memory"], || {}, Gateway::kill).await;
    println!("SIGKILL of a store in memory, readers told: {loss:?}");
    assert!(matches!(loss, Loss { lost: 200.., left: 0 }), "{loss:?}");
}
