//! Waking many: not by the publisher, who has an answer to wait for, and not all at once.

use tokio::runtime::Handle;
use tokio::task::yield_now;

use super::signal::Woken;

/// So many are woken by whoever publishes: that takes it less than a task of its own would.
pub(super) const AT_ONCE: usize = 16;

/// So many are woken before those that were woken have their turn. They fit into the queue of a thread of the runtime,
/// so that no other thread's queue is needed.
const BURST: usize = 64;

/// Wakes all. Many are left to as many tasks as the runtime has threads; without a runtime they are woken here.
pub(super) fn fan_out(mut woken: Woken) {
    if woken.len() <= AT_ONCE {
        return;
    }
    let Ok(runtime) = Handle::try_current() else { return };
    let part = woken.len().div_ceil(runtime.metrics().num_workers().max(1));
    while !woken.is_empty() {
        let mut part = woken.split_off(part);
        runtime.spawn(async move {
            while !part.is_empty() {
                part.wake(BURST);
                yield_now().await;
            }
        });
    }
}
