//! Short poll: a request at fixed times, answered at once.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::client::Client;
use crate::wire::WireError;

/// Polls every `interval`, counted from request to request, until an error. The phases of the clients are spread evenly over
/// the interval, each with a random part, so that clients do not poll together.
pub(super) async fn read(client: &mut Client, interval: Duration) -> Result<Infallible, WireError> {
    let mut connection = client.connect().await?;
    let one_at_a_time = client.dialect()?.one_at_a_time();
    let start = client.started().await;
    let clients = f64::from(client.recorder.workload.plan.clients.max(1));
    let phase = interval.mul_f64((f64::from(client.number) + client.phase) / clients);
    let mut next = first_at_or_after(Instant::now(), start + phase, interval);
    loop {
        sleep_until(next).await;
        if connection.is_closed() {
            connection = client.connect().await?;
        }
        while client.poll(&mut connection, None).await? && one_at_a_time {}
        next = first_at_or_after(Instant::now(), next + interval, interval);
    }
}

/// Returns the first of the times `from`, `from + interval`, … that is not before `now`.
fn first_at_or_after(now: Instant, from: Instant, interval: Duration) -> Instant {
    let behind = now.saturating_duration_since(from).as_secs_f64() / interval.as_secs_f64();
    from + interval.mul_f64(behind.ceil())
}
