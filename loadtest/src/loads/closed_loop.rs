//! A closed loop: each connection sends its next request once the one before is answered, so that as many are under way as
//! there are connections, whatever the server can do.

use bytes::Bytes;
use hyper::Response;
use tokio::time::Instant;

use super::Scene;
use crate::wire::{Connection, Request, WireError};

/// Sends requests by their number, from 0, until the end of the measured time. Answers that `check` refuses are troubles,
/// and the loop goes on, as other clients of a server would; not without a connection.
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
