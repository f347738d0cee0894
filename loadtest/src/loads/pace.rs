//! Measures a load that repeats one operation.

use std::sync::Arc;

use tokio::time::sleep_until;

use super::{Scene, ThreadError, on_a_thread};
use crate::cost::processor_time;
use crate::figures::Pace;

/// Runs `work` on a thread of its own and returns the figures of the tally; `None` if the tally is empty.
pub(super) async fn pace(
    scene: &Arc<Scene>,
    work: impl Future<Output = ()> + Send + 'static,
) -> Result<Option<Pace>, ThreadError> {
    let (ended, cost) = tokio::join!(on_a_thread(scene.tally.deadline(), work), watch_cost(scene));
    ended?;
    let window = &scene.tally.window;
    let measured = (window.end - window.start).as_secs_f64();
    Ok(Pace::new(&scene.tally.times(), measured, cost.server, cost.generator))
}

/// Processor time in the measured time, in seconds.
struct Cost {
    /// `None` for a server that this program did not start.
    server: Option<f64>,
    generator: f64,
}

async fn watch_cost(scene: &Scene) -> Cost {
    let now = || (scene.server_processor(), processor_time(std::process::id()).as_secs_f64());
    sleep_until(scene.tally.window.start).await;
    let (server_before, generator_before) = now();
    sleep_until(scene.tally.window.end).await;
    let (server, generator) = now();
    Cost {
        server: server.zip(server_before).map(|(after, before)| after - before),
        generator: generator - generator_before,
    }
}
