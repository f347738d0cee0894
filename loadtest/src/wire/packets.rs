//! Estimates the packets of a connection from its bytes, without a capture: each read or write of the client counts as one
//! burst of full segments and a rest.

use std::time::Duration;

use tokio::time::Instant;

/// Payload of a full segment: an Ethernet frame of 1500 bytes minus the headers below.
const SEGMENT_BYTES: u64 = 1448;

/// Headers of IPv4 (20) and TCP with timestamps (32), cost model section 4.
pub(super) const HEADER_BYTES: u64 = 52;

/// SYN and SYN-ACK carry more TCP options (RFC 9293, 7323): 20 and 40 bytes.
const SYN_BYTES: u64 = 60;

/// How long an acknowledgement waits for data in the same direction; Linux waits at least this long (RFC 9293: at most 500 ms).
const DELAYED_ACK: Duration = Duration::from_millis(40);

/// Bytes of headers per direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Headers {
    pub(crate) up: u64,
    pub(crate) down: u64,
}

impl Headers {
    /// SYN, SYN-ACK and the acknowledgement.
    pub(crate) const OPENING: Self = Self { up: SYN_BYTES + HEADER_BYTES, down: SYN_BYTES };

    /// One FIN in each direction with its acknowledgement.
    pub(crate) const CLOSING: Self = Self { up: 2 * HEADER_BYTES, down: 2 * HEADER_BYTES };

    fn of(up: bool, packets: u64) -> Self {
        let bytes = packets * HEADER_BYTES;
        if up { Self { up: bytes, down: 0 } } else { Self { up: 0, down: bytes } }
    }

    fn and(self, other: Self) -> Self {
        Self { up: self.up + other.up, down: self.down + other.down }
    }
}

/// The last burst of a connection, which is not acknowledged yet.
#[derive(Debug, Default)]
pub(crate) struct Unacknowledged {
    last: Option<Burst>,
}

#[derive(Debug, Clone, Copy)]
struct Burst {
    up: bool,
    segments: u64,
    at: Instant,
}

impl Unacknowledged {
    /// Returns the headers of a burst, and of the acknowledgements of the previous burst: one per two segments, unless this
    /// burst carries them in time.
    pub(crate) fn burst(&mut self, up: bool, bytes: u64, at: Instant) -> Headers {
        let segments = bytes.div_ceil(SEGMENT_BYTES);
        let before = match self.last {
            Some(last) if last.up != up && at - last.at < DELAYED_ACK => Headers::default(),
            Some(last) => last.acknowledgements(),
            None => Headers::default(),
        };
        self.last = Some(Burst { up, segments, at });
        before.and(Headers::of(up, segments))
    }
}

impl Burst {
    fn acknowledgements(self) -> Headers {
        Headers::of(!self.up, self.segments.div_ceil(2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_travel_with_data_or_alone() {
        let mut connection = Unacknowledged::default();
        let start = Instant::now();
        let millis = |millis| start + Duration::from_millis(millis);
        // A request of one segment; its answer of three segments carries the acknowledgement.
        assert_eq!(connection.burst(true, 200, millis(0)), Headers { up: 52, down: 0 });
        assert_eq!(connection.burst(false, 3000, millis(1)), Headers { up: 0, down: 3 * 52 });
        // The next request comes a second later, so the answer had two separate acknowledgements.
        assert_eq!(connection.burst(true, 200, millis(1000)), Headers { up: 3 * 52, down: 0 });
        // Two pushes in a row: the first had a separate acknowledgement.
        assert_eq!(connection.burst(false, 100, millis(1001)), Headers { up: 0, down: 52 });
        assert_eq!(connection.burst(false, 1448, millis(1002)), Headers { up: 52, down: 52 });
    }
}
