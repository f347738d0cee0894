//! The task of a subscription: waits for changes of its streams and for its deadlines.

use tokio::time::sleep;

use super::*;

/// Changed streams that are looked at together.
const MARKS_AT_ONCE: usize = 256;

/// Links that have changed and are not stored. They need not be: a restart finds them again.
const UNSTORED_MAX: usize = 1000;

/// Pause after the store could not keep a change.
const STORE_RETRY: Duration = Duration::from_secs(5);

/// The longest wait for a deadline. Timers stand still while the machine is suspended.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Why the streams of a subscription are not watched any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::hub::subscriptions) enum WatchEnd {
    /// It is deleted, or the gateway drains.
    Ended,
    /// Another gateway has it.
    Superseded,
}

impl LiveSubscription {
    /// Wakes the workers when there is something to read. Ends when the subscription is deleted, another gateway has it, or the gateway
    /// drains.
    pub(in crate::hub::subscriptions) async fn watch(self: Arc<Self>) -> WatchEnd {
        let mut draining = self.shared.hub.draining();
        let (mut names, mut looks_at_all) = (Vec::new(), true);
        loop {
            let step = self.clone().step(std::mem::take(&mut names), looks_at_all);
            let wait = match run_to_completion(step).await {
                Ok(due) => {
                    looks_at_all = false;
                    due.map(|due| due.duration_since(self.now()).unwrap_or_default())
                }
                Err(SubscriptionError::NotFound) => return WatchEnd::Ended,
                Err(SubscriptionError::Store(Failure::Superseded)) => return WatchEnd::Superseded,
                Err(error) => {
                    tracing::warn!(subscription = self.id, %error, "cannot store a wake; trying again");
                    looks_at_all = true;
                    Some(STORE_RETRY)
                }
            };
            let deadline = async {
                match wait {
                    Some(wait) => sleep(wait.min(WAIT_MAX)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = draining.wait_for(|draining| *draining) => return WatchEnd::Ended,
                () = self.changed.notified() => {}
                changed = self.subscriber.changed(MARKS_AT_ONCE), if wait != Some(STORE_RETRY) => names = changed,
                () = deadline => {}
            }
            looks_at_all |= self.subscriber.take_overflow();
        }
    }

    /// Looks at streams that have changed, and begins a wake if one is due. Returns when something is due without a change.
    async fn step(
        self: Arc<Self>,
        names: Vec<StreamName>,
        looks_at_all: bool,
    ) -> Result<Option<SystemTime>, SubscriptionError> {
        let mut kept = self.state.lock().await;
        let KeptState { state, unstored } = kept.as_mut().ok_or_else(|| self.missing())?;
        for name in names {
            if self.observe(state, &name).await {
                unstored.insert(name);
            }
        }
        if looks_at_all || self.has_overflown.load(Ordering::Relaxed) && self.check_room(state).is_ok() {
            self.has_overflown.store(false, Ordering::Relaxed);
            unstored.extend(self.observe_links(state).await);
            self.find_links(state, unstored).await;
        }
        let now = self.now();
        if state.is_due(now) || state.has_lapsed(now) || unstored.len() > UNSTORED_MAX {
            // Ends the lease.
            self.advance(state, state.clone(), unstored).await?;
        }
        Ok(state.next_due())
    }

    /// Links the streams that the pattern matches and that were created while nobody watched.
    async fn find_links(&self, state: &mut SubscriptionState, unstored: &mut BTreeSet<StreamName>) {
        let Some(pattern) = &state.config.pattern else { return };
        let _permit = self.shared.walks.acquire().await;
        let mut walk = StreamWalk::over([&pattern.filter().of_tenant(&self.tenant)]);
        while let Some(page) = self.shared.hub.next_streams(&mut walk).await {
            for (name, _) in page {
                if !state.links.contains_key(&name) && self.observe(state, &name).await {
                    unstored.insert(name);
                }
            }
        }
    }
}
