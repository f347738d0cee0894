//! Reads request bodies within their limits.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, timeout_at};

use super::error::Error;
use crate::budget::{Account, Charge, Owner};
use crate::limits::Limits;
use crate::stream::Shortage;

/// The longest unneeded body that is skipped; after a longer one the connection closes.
const SKIPPED_BYTES_MAX: u64 = 64 * 1024;

/// A body of up to this many times the limit is read and discarded before 413: a client whose connection closes while it is
/// still sending sees a reset instead of the response.
const DISCARD_FACTOR: usize = 16;

/// Bytes of a body that are read even if memory is critical.
const FIRST_BYTES: usize = 16 * 1024;

/// Reads the whole body. The bytes are copied into an allocation of their size: a slice of the connection's read buffer would
/// keep the whole buffer in memory until the log drops the message.
///
/// Received bytes are charged to `owner` until the function returns. A body above [`FIRST_BYTES`] fails if memory becomes
/// critical.
pub(in crate::http) async fn collect(
    body: &mut Incoming,
    limits: &Limits,
    owner: &Arc<Owner>,
) -> Result<Bytes, Error> {
    let max = limits.body_bytes_max;
    let announced = usize::try_from(body.size_hint().exact().unwrap_or(0)).unwrap_or(usize::MAX);
    if announced == 0 && body.is_end_stream() {
        return Ok(Bytes::new());
    }
    if announced > max.saturating_mul(DISCARD_FACTOR) {
        return Err(Error::BodyTooLarge { max });
    }
    let mut held = Charge::new(owner, Account::Buffers, 0);
    let since = Instant::now();
    let mut collected = BytesMut::with_capacity(announced.min(max));
    let mut received = 0;
    loop {
        let deadline = since + deadline(limits, received);
        let too_slow = |_| Error::BodyTooSlow {
            seconds: limits.body_timeout.get().as_secs(),
            per_second: limits.body_bytes_per_second_min,
        };
        let Some(frame) = timeout_at(deadline, body.frame()).await.map_err(too_slow)? else { break };
        let Ok(data) = frame.map_err(|_| Error::BodyBroken)?.into_data() else { continue };
        received += data.len();
        if received > max.saturating_mul(DISCARD_FACTOR) {
            return Err(Error::BodyTooLarge { max });
        }
        if received > FIRST_BYTES && owner.budget().is_critical() {
            return Err(Error::Short(Shortage::Passing));
        }
        if received <= max {
            held.set(received as u64);
            collected.extend_from_slice(&data);
        } else {
            held.set(0);
            collected = BytesMut::new();
        }
    }
    if received > max {
        return Err(Error::BodyTooLarge { max });
    }
    let oversized = collected.capacity() > collected.len() + collected.len() / 8;
    Ok(if oversized { Bytes::copy_from_slice(&collected) } else { collected.freeze() })
}

/// Whether the rest of an unneeded body can be skipped, so that another request may follow on an HTTP/1 connection: its length
/// is known and small.
pub(in crate::http) fn can_skip(body: &Incoming) -> bool {
    body.size_hint().exact().is_some_and(|left| left <= SKIPPED_BYTES_MAX)
}

/// Returns how long a body may take: `body_timeout`, and the time that the received bytes take at the lowest allowed rate.
fn deadline(limits: &Limits, received: usize) -> Duration {
    let earned_ms = (received as u64).saturating_mul(1000) / limits.body_bytes_per_second_min;
    limits.body_timeout.get() + Duration::from_millis(earned_ms)
}
