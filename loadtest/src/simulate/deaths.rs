//! Deaths of connections: whether the network still carries one, and what its phone believes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Bytes that follow each other within this time belong together. A phone that closes a connection so soon after some does not believe that
/// it is dead: it leaves it for another one.
const SILENCE: Duration = Duration::from_secs(1);

/// What the phones of a simulation believed of their connections.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Deaths {
    /// Connections that were given up although the network would have carried the next packet.
    pub falsely_given_up: u64,
    /// Connections that were given up because they were dead.
    pub noticed: u64,
    /// How long these were believed to be alive, in sum.
    pub unnoticed: Duration,
}

/// The life of one connection.
#[derive(Debug)]
pub(super) struct Life {
    /// When the last bytes arrived at the phone.
    arrived: Mutex<Instant>,
    /// When the network forgot the connection.
    died: Mutex<Option<Instant>>,
    /// Whether one end has closed it.
    is_over: AtomicBool,
}

impl Deaths {
    pub(super) fn add(&mut self, other: Self) {
        self.falsely_given_up += other.falsely_given_up;
        self.noticed += other.noticed;
        self.unnoticed += other.unnoticed;
    }
}

impl Life {
    pub(super) fn new() -> Self {
        Self { arrived: Mutex::new(Instant::now()), died: Mutex::default(), is_over: AtomicBool::new(false) }
    }

    /// Bytes have arrived at the phone. Returns whether the connection was silent before.
    pub(super) fn arrived(&self) -> bool {
        let now = Instant::now();
        let before = std::mem::replace(&mut *self.arrived.lock(), now);
        now - before >= SILENCE
    }

    /// The network had forgotten the connection at `at`.
    pub(super) fn died(&self, at: Instant) {
        self.died.lock().get_or_insert(at);
    }

    /// The gateway closes the connection, and the phone is told, so it does not give it up.
    pub(super) fn closed_by_gateway(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// The phone closes the connection. `forgotten_at`: when the network forgets it if no packet passes before.
    pub(super) fn closed_by_phone(&self, forgotten_at: Option<Instant>) -> Deaths {
        let (mut deaths, now) = (Deaths::default(), Instant::now());
        if self.is_over.swap(true, Ordering::Relaxed) {
            return deaths;
        }
        match self.died.lock().or(forgotten_at.filter(|at| *at < now)) {
            Some(died) => (deaths.noticed, deaths.unnoticed) = (1, now - died),
            None => deaths.falsely_given_up = u64::from(now - *self.arrived.lock() >= SILENCE),
        }
        deaths
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_that_is_given_up_was_dead_or_was_not() {
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        let [left, given_up, dead, forgotten, ended] = [(); 5].map(|()| Life::new());
        let begun = Instant::now();
        assert_eq!(left.closed_by_phone(None), Deaths::default());
        dead.died(begun + second);
        ended.closed_by_gateway();
        advance(minute).await;
        assert_eq!(given_up.closed_by_phone(Some(begun + 2 * minute)).falsely_given_up, 1);
        let noticed = |unnoticed| Deaths { noticed: 1, unnoticed, ..Deaths::default() };
        assert_eq!(dead.closed_by_phone(None), noticed(59 * second));
        assert_eq!(dead.closed_by_phone(None), Deaths::default(), "counted once");
        assert_eq!(forgotten.closed_by_phone(Some(begun + 50 * second)), noticed(10 * second));
        assert_eq!(ended.closed_by_phone(None), Deaths::default());
    }
}
