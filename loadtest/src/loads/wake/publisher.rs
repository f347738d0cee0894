//! Publishes each message when it is due.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::thread::set_current_timer_slack;
use tokio::time::Instant;

use super::Stage;
use crate::wire::{WireError, accepted};

/// Publishes all messages, at another instance of the server than that of the polls if there are several. It blocks its thread in
/// between, so the thread must run nothing else.
pub(super) async fn publish(stage: Arc<Stage>) -> Result<(), WireError> {
    wake_up_in_time();
    let scene = &stage.scene;
    let mut connection = scene.connect_to(1).await?;
    for (due, number) in stage.due.iter().zip(0..) {
        let message = stage.message(number);
        let request = scene.publish(&scene.stream(message.stream), message)?;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // Published even if no poll is held: to skip it would hide the slow cases.
        if !stage.release(message.stream) && scene.tally.window.contains(due) {
            stage.unheld.fetch_add(1, Ordering::Relaxed);
        }
        accepted(&connection.exchange(request).await?)?;
    }
    Ok(())
}

/// Sets this thread's timer slack to the minimum: by default Linux may wake a thread up to 50 us late, which would be part of
/// every latency.
fn wake_up_in_time() {
    // If it is refused, latencies are longer by the slack, on every server alike.
    let _refused = set_current_timer_slack(NonZeroU64::new(1));
}
