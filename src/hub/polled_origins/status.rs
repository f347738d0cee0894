//! [`OriginStatus`]: what readers of a polled stream are told of its origin.

use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// What readers are told of an origin. Times are times of day.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OriginStatus {
    /// Changes with each other status of the same origin, at each gateway for itself.
    #[serde(skip)]
    pub version: u64,
    /// Whether it answers.
    pub state: OriginState,
    /// The last time that the stream was as new as its origin. `None`: not since the gateway has started.
    pub checked: Option<SystemTime>,
    /// When it is polled next. `None`: when somebody reads.
    pub next: Option<SystemTime>,
}

/// Whether an origin answers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum OriginState {
    /// It has not been polled yet.
    #[default]
    Pending,
    /// The last poll succeeded.
    Ok,
    /// The last poll failed.
    Failing {
        /// When the first of these polls failed.
        since: SystemTime,
        /// Why the last one failed, in one word.
        reason: Box<str>,
    },
}

impl OriginState {
    /// The name of the state.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Ok => "ok",
            Self::Failing { .. } => "failing",
        }
    }
}

/// The current status, which many readers share.
#[derive(Debug, Default)]
pub(super) struct SharedStatus(Mutex<Arc<OriginStatus>>);

impl SharedStatus {
    pub(super) fn get(&self) -> Arc<OriginStatus> {
        self.0.lock().clone()
    }

    /// Applies a change and gives the status a new version.
    pub(super) fn update(&self, change: impl FnOnce(&mut OriginStatus)) {
        let mut shared = self.0.lock();
        let mut status = OriginStatus::clone(&shared);
        change(&mut status);
        status.version += 1;
        *shared = Arc::new(status);
    }
}

impl OriginStatus {
    /// Notes a poll that succeeded.
    pub(super) fn succeeded(&mut self, now: SystemTime) {
        (self.state, self.checked) = (OriginState::Ok, Some(now));
    }

    /// Notes a poll that failed. A failure that goes on keeps its beginning.
    pub(super) fn failed(&mut self, reason: &str, now: SystemTime) {
        let since = match self.state {
            OriginState::Failing { since, .. } => since,
            OriginState::Pending | OriginState::Ok => now,
        };
        self.state = OriginState::Failing { since, reason: reason.into() };
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_failure_that_goes_on_keeps_its_beginning_and_tells_its_last_reason() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let status = SharedStatus::default();
        status.update(|status| status.succeeded(at(1)));
        status.update(|status| status.failed("timeout", at(2)));
        status.update(|status| status.failed("status-503", at(3)));
        let failing = OriginState::Failing { since: at(2), reason: "status-503".into() };
        assert_eq!((status.get().state.clone(), status.get().checked), (failing, Some(at(1))));
        status.update(|status| status.succeeded(at(4)));
        status.update(|status| status.failed("moved", at(5)));
        let failing = OriginState::Failing { since: at(5), reason: "moved".into() };
        assert_eq!((status.get().state.clone(), status.get().version), (failing, 5));
    }
}
