//! Taking in the body of a request within its limits.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, timeout_at};

use super::error::Error;
use crate::limits::Limits;

/// How many bodies' worth of bytes is read and thrown away before the answer that says "too large". A client that
/// is cut off while it still sends would see a reset instead of the answer.
const DISCARD_FACTOR: usize = 16;

/// The body of an append.
pub(super) enum Upload {
    /// It has yet to be read.
    Coming(Incoming),
    /// It came with the head.
    Here(Bytes),
}

impl Upload {
    /// All of it.
    pub(super) async fn collect(self, limits: &Limits) -> Result<Bytes, Error> {
        match self {
            Self::Coming(body) => collect(body, limits).await,
            Self::Here(bytes) if bytes.len() > limits.body_bytes_max => {
                Err(Error::BodyTooLarge { max: limits.body_bytes_max })
            }
            Self::Here(bytes) => Ok(bytes),
        }
    }
}

/// Reads the whole body. The bytes are an allocation of their own and of their own size: a slice of the
/// connection's read buffer would keep all of that alive for as long as the log keeps the message.
pub(super) async fn collect(mut body: Incoming, limits: &Limits) -> Result<Bytes, Error> {
    let max = limits.body_bytes_max;
    let announced = usize::try_from(body.size_hint().exact().unwrap_or(0)).unwrap_or(usize::MAX);
    if announced == 0 && body.is_end_stream() {
        return Ok(Bytes::new());
    }
    if announced > max.saturating_mul(DISCARD_FACTOR) {
        return Err(Error::BodyTooLarge { max });
    }
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
        if received <= max {
            collected.extend_from_slice(&data);
        } else {
            collected = BytesMut::new();
        }
    }
    if received > max {
        return Err(Error::BodyTooLarge { max });
    }
    let oversized = collected.capacity() > collected.len() + collected.len() / 8;
    Ok(if oversized { Bytes::copy_from_slice(&collected) } else { collected.freeze() })
}

/// The time limit, and the time in which the bytes that came would have come at the least rate.
fn deadline(limits: &Limits, received: usize) -> Duration {
    let earned_ms = (received as u64).saturating_mul(1000) / limits.body_bytes_per_second_min;
    limits.body_timeout.get() + Duration::from_millis(earned_ms)
}
