//! What systemd is told of the gateway (`sd_notify(3)`): that it is ready, alive and stopping. Without systemd nothing happens.

use sd_notify::{NotifyState, notify, watchdog_enabled};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

/// The service manager that has started this process, if one has.
pub(crate) struct ServiceManager {
    /// Tells that the gateway is alive.
    watchdog: Option<JoinHandle<()>>,
}

impl ServiceManager {
    /// Tells that the gateway serves. From now on it is told to be alive as often as the manager wants, for as long as the runtime runs tasks.
    pub(crate) fn ready() -> Self {
        tell(&[NotifyState::Ready]);
        // A manager that hears nothing for the whole time ends the process.
        let watchdog = watchdog_enabled().map(|silence| {
            tokio::spawn(async move {
                let mut due = interval(silence / 3);
                due.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    due.tick().await;
                    tell(&[NotifyState::Watchdog]);
                }
            })
        });
        Self { watchdog }
    }

    /// Tells that the gateway drains, which is no failure.
    pub(crate) fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }
}

impl Drop for ServiceManager {
    fn drop(&mut self) {
        if let Some(watchdog) = &self.watchdog {
            watchdog.abort();
        }
    }
}

fn tell(states: &[NotifyState]) {
    if let Err(error) = notify(states) {
        tracing::warn!(%error, "the service manager cannot be told the state of the gateway");
    }
}
