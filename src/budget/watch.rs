//! Watches the resident set of the process, and tells when memory is short.
//!
//! The accounts are known at any moment, and the resident set only when it is read. What no account explains grows with clients, so it is
//! read often while there are any, and rarely in a gateway that nobody uses: each read wakes the process.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::{Account, Budget};
use crate::platform::{memory_max, resident_bytes};

/// Interval between two reads of the resident set.
const WATCH: Duration = Duration::from_secs(1);
/// Interval between two reads of the resident set while no client has anything but streams.
const WATCH_IDLE: Duration = Duration::from_secs(10);
/// Interval between two reads of the resident set while memory is short.
const WATCH_CLOSELY: Duration = Duration::from_millis(100);

/// The default budget: half of the memory that the process can have.
pub fn half_of_machine() -> u64 {
    memory_max().unwrap_or(u64::MAX) / 2
}

impl Budget {
    /// Reads the resident set and returns the used bytes.
    pub fn refresh(&self) -> u64 {
        if let Some(resident) = resident_bytes() {
            self.resident.store(resident, Ordering::Relaxed);
            let unexplained = resident.saturating_sub(self.hot.charged.load(Ordering::Relaxed));
            self.hot.unexplained.store(unexplained, Ordering::Relaxed);
        }
        self.used()
    }

    /// Waits until memory is short: less than 30 % of the budget is left.
    pub async fn until_short(&self) {
        while !self.is_close.load(Ordering::Relaxed) {
            self.short.notified().await;
        }
    }

    /// Reads the resident set once a second, every 10 s while no client has anything but streams, or every 100 ms while memory is short. Never
    /// returns; runs as long as it is polled.
    pub async fn watch(&self) {
        loop {
            let now = Instant::now();
            self.paid.sweep(now);
            self.paid_by_tenants.sweep(now);
            let close = self.refresh() >= self.watch_at;
            self.is_close.store(close, Ordering::Relaxed);
            if close {
                self.short.notify_one();
                sleep(WATCH_CLOSELY).await;
            } else if timeout(WATCH, self.closer.notified()).await.is_err()
                && Account::OF_CLIENTS.iter().all(|account| self.held(*account) == 0)
            {
                tokio::select! {
                    () = self.closer.notified() => {}
                    () = self.connected.notified() => {}
                    () = sleep(WATCH_IDLE - WATCH) => {}
                }
            }
        }
    }
}
