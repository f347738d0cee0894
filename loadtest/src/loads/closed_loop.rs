//! A closed loop: each connection sends its next request after the previous answer, so that the number of requests in flight
//! equals the number of connections, at any speed of the server.

use bytes::Bytes;
use hyper::Response;
use tokio::time::Instant;

use super::Scene;
use crate::wire::{Connection, Request, WireError};

/// Sends `next(0)`, `next(1)` and so on until the end of the measured time. An answer that `check` refuses is recorded as a
/// trouble and the loop continues, as a client would. A connection error ends the loop.
pub(super) async fn until_the_end(
    scene: &Scene,
    connection: &mut Connection,
    next: impl Fn(u32) -> Result<Request, WireError>,
    check: impl Fn(&Response<Bytes>) -> Result<(), WireError>,
) -> Result<(), WireError> {
    for number in 0.. {
        let request = next(number)?;
        let sent = Instant::now();
        if sent >= scene.tally.window.end {
            break;
        }
        let answer = connection.exchange(request).await?;
        match check(&answer) {
            Ok(()) => scene.tally.note(Instant::now(), sent.elapsed()),
            Err(refused) => scene.tally.troubles.note(refused.to_string()),
        }
    }
    Ok(())
}
