//! Publishes each message at the time that was fixed for it.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::thread::set_current_timer_slack;
use tokio::time::Instant;

use super::Stage;
use crate::wire::{WireError, accepted};

/// Publishes all messages. The thread sleeps in between, and nothing else may be on it.
pub(super) async fn publish(stage: Arc<Stage>) -> Result<(), WireError> {
    wake_up_in_time();
    let scene = &stage.scene;
    let mut connection = scene.connect().await?;
    for (due, number) in stage.due.iter().zip(0..) {
        let message = stage.message(number);
        let request = scene.publish(&scene.stream(message.stream), message)?;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // Published all the same, since what is left out is missing where it took long.
        if !stage.release(message.stream) && scene.tally.window.contains(due) {
            stage.unheld.fetch_add(1, Ordering::Relaxed);
        }
        accepted(&connection.exchange(request).await?)?;
    }
    Ok(())
}

/// Linux may wake a thread up to 50 us late unless it asks for less; that would be part of each latency.
fn wake_up_in_time() {
    // Without it latencies are that much longer, on every server alike.
    let _refused = set_current_timer_slack(NonZeroU64::new(1));
}
