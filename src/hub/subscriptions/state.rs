//! [`SubscriptionState`]: what a subscription is and does, without IO and with the time from outside.
//!
//! A subscription is idle, woken or held. A wake begins when it is idle and a linked stream has messages behind the acknowledged
//! offset; it has a new generation and a new id. A worker holds the wake until its lease ends, or until it says that it is done.
//! Each delivery to a webhook is a wake of its own, so that a worker that has got an earlier one is fenced, and there are never two
//! valid holders. What is pending follows from the offsets, so that no wake can be lost.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::glob::Glob;
use crate::clock::Backoff;
use crate::stream::{Offset, StreamName, Tenant};

/// Delays after failed deliveries.
const RETRY_DELAY: Backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_secs(60) };

/// The part of a delay by which it is jittered.
const RETRY_JITTER: f64 = 0.2;

/// Memory of a subscription besides its texts and links, with its task.
const BASE_BYTES: usize = 6 * 1024;

/// Memory of a link besides its name.
pub(super) const LINK_BYTES: usize = 200;

/// How a subscription wakes its workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WakeBy {
    /// A request to a URL.
    Webhook(String),
    /// A message on a stream, by its name as clients know it. Workers then claim the wake.
    PullWake(String),
}

/// The configuration of a subscription, which does not change. Names and patterns are those of the clients of its tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionConfig {
    /// How workers are woken.
    pub wake_by: WakeBy,
    /// Links streams by their names.
    pub pattern: Option<Glob>,
    /// The streams that the creator has linked, sorted.
    pub streams: Vec<String>,
    /// How long a worker holds a wake without saying anything, in milliseconds.
    pub lease_ttl_ms: u64,
    /// A text for people.
    pub description: Option<String>,
}

/// A stream that a subscription watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    /// A client has linked the stream by its name; otherwise the pattern has.
    pub(super) is_explicit: bool,
    /// Workers have processed all messages before this offset. `None`: none yet.
    pub(super) acked: Option<Offset>,
    /// The tail as last seen; `None` if the stream does not exist. It is not stored.
    pub(super) tail: Option<Offset>,
}

/// What a subscription waits for. Times are those of [`Clock::now`](crate::clock::Clock::now).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum WakePhase {
    /// A message, and `retry_at` after a failed delivery.
    Idle { retry_at: Option<SystemTime> },
    /// A worker that claims the wake.
    Woken { wake_id: String },
    /// The worker, until the end of its lease.
    Held { wake_id: String, worker: Option<String>, begun: SystemTime, until: SystemTime },
}

/// A subscription.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SubscriptionState {
    pub(super) config: SubscriptionConfig,
    pub(super) tenant: Tenant,
    /// Tells the subscription from earlier ones of the same name.
    pub(super) incarnation: u64,
    /// The time of day (RFC 3339).
    pub(super) created_at: String,
    /// By the name in the hub.
    pub(super) links: BTreeMap<StreamName, Link>,
    pub(super) generation: u64,
    /// Deliveries that failed in a row.
    pub(super) failures: u32,
    pub(super) phase: WakePhase,
}

/// What a worker says about its wake.
#[derive(Debug, Clone, Default)]
pub struct Settlement {
    /// The id of the wake.
    pub wake_id: String,
    /// Its generation.
    pub generation: u64,
    /// Streams by the names in the hub, with the texts of offsets up to which they are processed.
    pub acks: Vec<(StreamName, String)>,
    /// The worker ends its lease.
    pub is_done: bool,
}

/// The outcome of a delivery to a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// The worker has processed everything that the request showed.
    Done,
    /// The worker has the wake, and calls back.
    Accepted,
    /// There was no response in time; the worker may be at work.
    Unanswered,
    /// The worker does not have the wake.
    Failed {
        /// The other server wants no request earlier.
        retry_after: Option<Duration>,
    },
}

/// Why a worker or a client is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubscriptionError {
    /// There is no such subscription.
    #[error("there is no subscription of this name")]
    NotFound,
    /// The subscription exists with another configuration.
    #[error("the subscription exists with another configuration")]
    Exists,
    /// The request does not fit the subscription.
    #[error("{0}")]
    Invalid(String),
    /// Another worker holds the wake.
    #[error("the worker {holder} holds the wake")]
    AlreadyClaimed {
        /// The worker.
        holder: String,
        /// The generation of the wake.
        generation: u64,
    },
    /// No linked stream has messages behind its acknowledged offset.
    #[error("no linked stream has messages behind its acknowledged offset")]
    NoPendingWork,
    /// The wake is over, or another one has begun.
    #[error("this wake is over")]
    Fenced,
    /// An offset cannot be acknowledged.
    #[error("{stream}: {why}")]
    InvalidOffset {
        /// The stream, as clients know it.
        stream: String,
        /// Why the offset is refused.
        why: &'static str,
    },
    /// The token is not one of this subscription.
    #[error("the token is not one of this subscription")]
    TokenInvalid,
    /// The token is too old.
    #[error("the token has expired")]
    TokenExpired,
    /// A limit is reached.
    #[error("{0}")]
    TooMany(&'static str),
    /// The store cannot keep the change.
    #[error("the store cannot keep the change: {0}")]
    Store(#[from] crate::stream::Failure),
}

impl Link {
    pub(super) fn new(is_explicit: bool, acked: Option<Offset>, tail: Option<Offset>) -> Self {
        Self { is_explicit, acked, tail }
    }

    /// Whether the stream has messages that are not acknowledged. Another epoch is another stream, of which nothing is.
    pub(super) fn is_pending(&self) -> bool {
        match (self.tail, self.acked) {
            (Some(tail), Some(acked)) if tail.epoch == acked.epoch => tail.position > acked.position,
            (Some(tail), _) => tail.position.0 > 0,
            (None, _) => false,
        }
    }
}

impl SubscriptionState {
    pub(super) fn new(
        config: SubscriptionConfig,
        tenant: Tenant,
        incarnation: u64,
        created_at: String,
    ) -> Self {
        let (links, generation, failures, phase) =
            (BTreeMap::new(), 0, 0, WakePhase::Idle { retry_at: None });
        Self { config, tenant, incarnation, created_at, links, generation, failures, phase }
    }

    pub(super) fn lease(&self) -> Duration {
        Duration::from_millis(self.config.lease_ttl_ms)
    }

    /// Whether the pattern matches a stream. The stream of wakes does not count: each wake would cause another one.
    pub(super) fn matches(&self, name: &StreamName) -> bool {
        name.tenant() == self.tenant
            && !matches!(&self.config.wake_by, WakeBy::PullWake(stream) if stream == name.local())
            && self.config.pattern.as_ref().is_some_and(|pattern| pattern.matches(name.local()))
    }

    /// Memory of the subscription.
    pub(super) fn bytes(&self) -> usize {
        let config = &self.config;
        let texts = config.streams.iter().map(String::len).sum::<usize>()
            + config.description.as_ref().map_or(0, String::len);
        BASE_BYTES + texts + self.links.keys().map(|name| 2 * name.as_str().len() + LINK_BYTES).sum::<usize>()
    }

    /// Notes the tail of a stream; `None` if it does not exist. Returns whether a link must be stored.
    pub(super) fn observe(&mut self, name: &StreamName, tail: Option<Offset>) -> bool {
        let is_matched = self.matches(name);
        match (self.links.get_mut(name), tail) {
            (Some(link), Some(tail)) => {
                let is_new = link.acked.is_some_and(|acked| acked.epoch != tail.epoch);
                link.tail = Some(tail);
                if is_new {
                    link.acked = None;
                }
                is_new
            }
            // A stream that is linked by its name may not have been created yet.
            (Some(link), None) if link.acked.is_none() && link.tail.is_none() => false,
            (Some(_), None) => self.links.remove(name).is_some(),
            (None, Some(_)) if is_matched => {
                self.links.insert(name.clone(), Link::new(false, None, tail));
                true
            }
            (None, _) => false,
        }
    }

    /// The first stream with messages that are not acknowledged.
    pub(super) fn first_pending(&self) -> Option<&StreamName> {
        self.links.iter().find_map(|(name, link)| link.is_pending().then_some(name))
    }

    /// Ends a lease that is over. Returns whether one was.
    pub(super) fn lapse(&mut self, now: SystemTime) -> bool {
        let is_over = self.has_lapsed(now);
        if is_over {
            self.phase = WakePhase::Idle { retry_at: None };
        }
        is_over
    }

    /// Whether a lease is over that has not been ended.
    pub(super) fn has_lapsed(&self, now: SystemTime) -> bool {
        matches!(&self.phase, WakePhase::Held { until, .. } if *until <= now)
    }

    /// Whether a wake is due.
    pub(super) fn is_due(&self, now: SystemTime) -> bool {
        let is_idle = match self.phase {
            WakePhase::Idle { retry_at } => retry_at.is_none_or(|at| at <= now),
            WakePhase::Woken { .. } | WakePhase::Held { .. } => false,
        };
        is_idle && self.first_pending().is_some()
    }

    /// Begins a wake. A webhook holds it from now on.
    pub(super) fn wake(&mut self, wake_id: String, now: SystemTime) {
        self.generation += 1;
        self.phase = match &self.config.wake_by {
            WakeBy::Webhook(_) => {
                WakePhase::Held { wake_id, worker: None, begun: now, until: now + self.lease() }
            }
            WakeBy::PullWake(_) => WakePhase::Woken { wake_id },
        };
    }

    /// When something is due without a message: the end of the lease, or the next delivery.
    pub(super) fn next_due(&self) -> Option<SystemTime> {
        match &self.phase {
            WakePhase::Idle { retry_at } => retry_at.filter(|_| self.first_pending().is_some()),
            WakePhase::Woken { .. } => None,
            WakePhase::Held { until, .. } => Some(*until),
        }
    }

    /// Gives the wake to a worker; begins one with the id `wake_id`, if none has.
    pub(super) fn claim(
        &mut self,
        worker: &str,
        wake_id: String,
        now: SystemTime,
    ) -> Result<(), SubscriptionError> {
        if matches!(self.config.wake_by, WakeBy::Webhook(_)) {
            return Err(SubscriptionError::Invalid("a webhook subscription cannot be claimed".to_owned()));
        }
        self.lapse(now);
        if let WakePhase::Held { worker, .. } = &self.phase {
            let holder = worker.clone().unwrap_or_default();
            return Err(SubscriptionError::AlreadyClaimed { holder, generation: self.generation });
        }
        if self.first_pending().is_none() {
            return Err(SubscriptionError::NoPendingWork);
        }
        if matches!(self.phase, WakePhase::Idle { .. }) {
            self.wake(wake_id, now);
        }
        if let WakePhase::Woken { wake_id } = &self.phase {
            let (wake_id, worker) = (wake_id.clone(), Some(worker.to_owned()));
            self.phase = WakePhase::Held { wake_id, worker, begun: now, until: now + self.lease() };
            self.failures = 0;
        }
        Ok(())
    }

    /// Checks that the holder of the wake speaks.
    fn check_holder(&self, settlement: &Settlement, now: SystemTime) -> Result<(), SubscriptionError> {
        match &self.phase {
            WakePhase::Held { wake_id, until, .. }
                if *until > now
                    && *wake_id == settlement.wake_id
                    && self.generation == settlement.generation =>
            {
                Ok(())
            }
            _ => Err(SubscriptionError::Fenced),
        }
    }

    /// Begins the lease of the holder again.
    pub(super) fn restart_lease(&mut self, now: SystemTime) {
        let lease = self.lease();
        if let WakePhase::Held { until, .. } = &mut self.phase {
            *until = now + lease;
        }
    }

    /// Takes what the holder says: acknowledges offsets, all or none, and extends or ends the lease. Returns the streams whose links
    /// have changed.
    pub(super) fn settle(
        &mut self,
        settlement: &Settlement,
        now: SystemTime,
    ) -> Result<Vec<StreamName>, SubscriptionError> {
        self.check_holder(settlement, now)?;
        let mut acked = Vec::with_capacity(settlement.acks.len());
        for (name, text) in &settlement.acks {
            let refused = |why| SubscriptionError::InvalidOffset { stream: name.local().to_owned(), why };
            let link = self.links.get(name).ok_or_else(|| refused("the stream is not linked"))?;
            let offset: Offset = text.parse().map_err(|_| refused("this is no offset of a message"))?;
            let tail = link.tail.ok_or_else(|| refused("the stream does not exist"))?;
            if offset.epoch != tail.epoch {
                return Err(refused("the offset is from another epoch of the stream"));
            }
            if offset.position > tail.position {
                return Err(refused("the offset is beyond the tail of the stream"));
            }
            if link.acked.is_some_and(|acked| acked.epoch == offset.epoch && offset < acked) {
                return Err(refused("the offset is before the acknowledged one"));
            }
            acked.push((name, offset));
        }
        let mut changed = Vec::with_capacity(acked.len());
        for (name, offset) in acked {
            // The last one counts, if a stream is named twice, unless it goes back.
            if let Some(link) = self.links.get_mut(name)
                && link.acked.is_none_or(|acked| acked.epoch != offset.epoch || acked < offset)
            {
                link.acked = Some(offset);
                changed.push(name.clone());
            }
        }
        if settlement.is_done {
            self.phase = WakePhase::Idle { retry_at: None };
        } else {
            self.restart_lease(now);
        }
        self.failures = 0;
        Ok(changed)
    }

    /// Takes the outcome of a delivery of the wake `generation`, whose request showed the tails `shown`. `random` is below 1. Returns
    /// the streams whose links have changed, or `None` if the wake is over.
    pub(super) fn delivered(
        &mut self,
        generation: u64,
        outcome: DeliveryOutcome,
        shown: &[(StreamName, Offset)],
        now: SystemTime,
        random: f64,
    ) -> Option<Vec<StreamName>> {
        if self.generation != generation || !matches!(self.phase, WakePhase::Held { .. }) {
            return None;
        }
        match outcome {
            DeliveryOutcome::Accepted => self.failures = 0,
            DeliveryOutcome::Unanswered => self.failures = self.failures.saturating_add(1),
            DeliveryOutcome::Done => {
                let mut changed = Vec::new();
                for (name, tail) in shown {
                    if let Some(link) = self.links.get_mut(name)
                        && link.acked.is_none_or(|acked| acked.epoch != tail.epoch || acked < *tail)
                    {
                        link.acked = Some(*tail);
                        changed.push(name.clone());
                    }
                }
                (self.failures, self.phase) = (0, WakePhase::Idle { retry_at: None });
                return Some(changed);
            }
            DeliveryOutcome::Failed { retry_after } => self.postpone(retry_after, now, random),
        }
        Some(Vec::new())
    }

    /// Makes the subscription idle after a failure, until the next attempt is due.
    pub(super) fn postpone(&mut self, retry_after: Option<Duration>, now: SystemTime, random: f64) {
        self.failures = self.failures.saturating_add(1);
        let delay = RETRY_DELAY.bound(self.failures).mul_f64(1.0 + RETRY_JITTER * (2.0 * random - 1.0));
        self.phase = WakePhase::Idle { retry_at: Some(now + delay.max(retry_after.unwrap_or_default())) };
    }
}
