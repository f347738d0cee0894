//! The task of a subscription: waits for changes of its streams and for its deadlines.
//!
//! A subscription that was loaded, or has come from another gateway, has to visit all streams that its pattern may match, as some may have
//! been created meanwhile. It waits for its turn without holding up its requests, and after each visit there is a pause of a multiple of its
//! time. So however often subscriptions move, visits take a part of what the store can do.

use std::pin::Pin;

use tokio::sync::{AcquireError, OwnedSemaphorePermit};
use tokio::time::{Instant, sleep};

use super::*;

/// Changed streams that are looked at together.
const MARKS_AT_ONCE: usize = 256;

/// Links that have changed and are not stored. They need not be: a restart finds them again.
const UNSTORED_MAX: usize = 1000;

/// Pause after the store could not keep a change.
const STORE_RETRY: Duration = Duration::from_secs(5);

/// The longest wait for a deadline. Timers stand still while the machine is suspended.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// How long a visit of all streams keeps others waiting after its end, as a multiple of its duration.
const PAUSE_PART: u32 = 4;

/// The turn to visit all streams, which is waited for.
type Turn = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>;

/// Why the streams of a subscription are not watched any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::hub::subscriptions) enum WatchEnd {
    /// It is deleted, or the gateway drains.
    Ended,
    /// Another gateway has it.
    Superseded,
}

/// The outcome of a step.
struct StepOutcome {
    /// When something is due without a change.
    due: Option<SystemTime>,
    /// All streams that the pattern may match have to be visited.
    finds_later: bool,
}

impl LiveSubscription {
    /// Wakes the workers when there is something to read. Ends when the subscription is deleted, another gateway has it, or the gateway
    /// drains.
    pub(in crate::hub::subscriptions) async fn watch(self: Arc<Self>) -> WatchEnd {
        let mut draining = self.shared.hub.draining();
        let (mut names, mut looks_at_all) = (Vec::new(), true);
        let (mut turn, mut permit): (Option<Turn>, _) = (None, None);
        loop {
            let step = self.clone().step(std::mem::take(&mut names), looks_at_all, permit.take());
            let wait = match run_to_completion(step).await {
                Ok(StepOutcome { due, finds_later }) => {
                    looks_at_all = false;
                    if finds_later && turn.is_none() {
                        turn = Some(Box::pin(self.shared.later_walks.clone().acquire_owned()));
                    }
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
            let its_turn = async {
                match &mut turn {
                    Some(turn) => turn.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = draining.wait_for(|draining| *draining) => return WatchEnd::Ended,
                () = self.changed.notified() => {}
                changed = self.subscriber.changed(MARKS_AT_ONCE), if wait != Some(STORE_RETRY) => names = changed,
                () = deadline => {}
                // Fails if the semaphore is closed, which it never is.
                granted = its_turn => (turn, permit) = (None, granted.ok()),
            }
            looks_at_all |= self.subscriber.take_overflow();
        }
    }

    /// Looks at streams that have changed, and begins a wake if one is due. With a permit, it visits all streams that the pattern may
    /// match.
    async fn step(
        self: Arc<Self>,
        names: Vec<StreamName>,
        looks_at_all: bool,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<StepOutcome, SubscriptionError> {
        let mut kept = self.state.lock().await;
        let KeptState { state, unstored } = kept.as_mut().ok_or_else(|| self.missing())?;
        for name in names {
            if self.observe(state, &name).await {
                unstored.insert(name);
            }
        }
        let mut finds_later = looks_at_all;
        if looks_at_all || self.has_overflown.load(Ordering::Relaxed) && self.check_room(state).is_ok() {
            self.has_overflown.store(false, Ordering::Relaxed);
            unstored.extend(self.observe_links(state).await);
            finds_later = true;
        }
        if let Some(permit) = permit {
            self.find_links(state, unstored, permit).await;
        }
        finds_later &= state.config.pattern.is_some();
        let now = self.now();
        if state.is_due(now) || state.has_lapsed(now) || unstored.len() > UNSTORED_MAX {
            // Ends the lease.
            self.advance(state, state.clone(), unstored).await?;
        }
        Ok(StepOutcome { due: state.next_due(), finds_later })
    }

    /// Links the streams that the pattern matches and that were created while nobody watched.
    async fn find_links(
        &self,
        state: &mut SubscriptionState,
        unstored: &mut BTreeSet<StreamName>,
        permit: OwnedSemaphorePermit,
    ) {
        let Some(pattern) = &state.config.pattern else { return };
        let started = Instant::now();
        let mut walk = StreamWalk::over([&pattern.filter().of_tenant(&self.tenant)]);
        while let Some(page) = self.shared.hub.next_streams(&mut walk).await {
            for (name, _) in page {
                if !state.links.contains_key(&name) && self.observe(state, &name).await {
                    unstored.insert(name);
                }
            }
        }
        let pause = PAUSE_PART * started.elapsed();
        tokio::spawn(async move {
            sleep(pause).await;
            drop(permit);
        });
    }
}
