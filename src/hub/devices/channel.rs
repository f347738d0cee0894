//! A way to wake a device, with its budget, and the hours in which a device is left alone.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::app::{Credential, Suppressed};
use crate::hub::ClientId;
use crate::stream::Tenant;

const DAY: Duration = Duration::from_secs(24 * 3600);
const MINUTES_PER_DAY: u64 = 24 * 60;

/// A part of the day, in minutes since midnight in the time zone of the device. It may span midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuietHours {
    /// The first minute.
    pub from: u16,
    /// The first minute behind it.
    pub to: u16,
    /// How far the time zone is ahead of UTC, in minutes.
    pub utc_offset: i16,
}

/// A way to wake a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Channel {
    #[serde(with = "shared_text")]
    pub(super) app: Arc<str>,
    pub(super) credential: Credential,
    /// The time of day of the registration.
    pub(super) added_at: SystemTime,
    /// The time of day at which the provider last accepted a wake.
    pub(super) last_ok: Option<SystemTime>,
    /// Why the provider did not accept the last one.
    pub(super) last_error: Option<Box<str>>,
    /// The provider calls the device gone. The channel is not used until another registration, or a restart.
    #[serde(skip)]
    pub(super) is_gone: bool,
    /// Receipts one after the other that say that the device cannot be reached.
    #[serde(skip)]
    pub(super) undelivered: u32,
    /// A receipt for the SMS that is being sent.
    #[serde(skip)]
    pub(super) early_receipt: Option<ReceiptState>,
    /// When the wakes so far would have been sent if they had kept their mean distance.
    pub(super) paid_until: Option<SystemTime>,
    /// When the current day of `per_day` began, and its wakes.
    pub(super) day: (Option<SystemTime>, u32),
}

/// What has become of an SMS (SMPP 3.4, section 5.2.28).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiptState {
    /// The phone has it.
    Delivered,
    /// The phone was not reached before the end of its validity.
    Expired,
    /// The number cannot be reached.
    Undeliverable,
    /// The message centre has refused or deleted it.
    Rejected,
    /// It is under way, or its state is not known.
    Other,
}

impl ReceiptState {
    /// A word for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Expired => "expired",
            Self::Undeliverable => "undeliverable",
            Self::Rejected => "rejected",
            Self::Other => "other",
        }
    }
}

/// A channel that was removed.
#[derive(Debug, Clone)]
pub struct Removed {
    /// The device.
    pub device: ClientId,
    /// Its tenant.
    pub tenant: Tenant,
    /// The name of the app.
    pub app: Arc<str>,
    /// Identifies the credential without giving it away.
    pub credential: String,
    /// Why it was removed.
    pub reason: RemovalReason,
}

/// Why a channel was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemovalReason {
    /// The provider calls the device gone.
    Gone,
    /// The credentials with which the device was registered were revoked.
    Revoked,
}

impl RemovalReason {
    /// The word for applications.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Revoked => "revoked",
        }
    }
}

/// How many wakes a channel may get.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChannelBudget {
    /// The mean time between two wakes.
    pub(super) interval: Duration,
    /// Wakes at once after a pause.
    pub(super) burst: u32,
    /// Wakes in 24 hours.
    pub(super) per_day: Option<u32>,
}

/// Whether a channel may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChannelUse {
    Now,
    Later(Suppressed, SystemTime),
    /// Not at all.
    Never,
}

/// What the device itself does not know: its apps.
pub(super) trait Surroundings {
    /// Whether a channel may be used now.
    fn admit(&self, channel: &Channel, now: SystemTime) -> ChannelUse;

    /// Counts a wake of a tenant over a channel. The error is when the tenant's quota is renewed.
    fn count(&mut self, tenant: &Tenant, channel: &Channel, now: SystemTime) -> Result<(), SystemTime>;

    /// The budget of a channel, see [`Channel::pay`].
    fn budget(&self, channel: &Channel) -> ChannelBudget;

    /// How long the provider of a channel keeps a wake.
    fn ttl(&self, channel: &Channel) -> Duration;
}

impl Channel {
    pub(super) fn new(app: Arc<str>, credential: Credential, added_at: SystemTime) -> Self {
        let (last_ok, last_error, is_gone, undelivered, early_receipt, paid_until, day) = Default::default();
        Self {
            app,
            credential,
            added_at,
            last_ok,
            last_error,
            is_gone,
            undelivered,
            early_receipt,
            paid_until,
            day,
        }
    }

    /// Takes one wake out of the budget. The error is when there is one again.
    pub(super) fn pay(
        &mut self,
        budget: ChannelBudget,
        now: SystemTime,
    ) -> Result<(), (Suppressed, SystemTime)> {
        let ChannelBudget { interval, burst, per_day } = budget;
        // A clock that was reset must not lock the channel for longer than its whole budget.
        let whole = interval * burst.max(1);
        let paid_until = self.paid_until.unwrap_or(now).max(now).min(now + whole);
        let spare = interval * burst.saturating_sub(1);
        if let Some(wait) = paid_until.duration_since(now + spare).ok().filter(|wait| !wait.is_zero()) {
            return Err((Suppressed::Interval, now + wait));
        }
        if let Some(max) = per_day {
            let begin = self.day.0.filter(|begin| now >= *begin && now < *begin + DAY);
            let count = if begin.is_some() { self.day.1 } else { 0 };
            let begin = begin.unwrap_or(now);
            if count >= max {
                return Err((Suppressed::Quota, begin + DAY));
            }
            self.day = (Some(begin), count + 1);
        }
        self.paid_until = Some(paid_until + interval);
        Ok(())
    }
}

/// Shared text as serde knows it, without its feature for all shared values.
mod shared_text {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
        String::deserialize(deserializer).map(Arc::from)
    }
}

impl QuietHours {
    /// How long they still last. `None`: they do not.
    pub(super) fn left(self, wall: SystemTime) -> Option<Duration> {
        let seconds = wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let local = seconds.saturating_add_signed(i64::from(self.utc_offset) * 60);
        let minute = local / 60 % MINUTES_PER_DAY;
        let (from, to) = (u64::from(self.from), u64::from(self.to));
        let behind = |start: u64| (minute + MINUTES_PER_DAY - start) % MINUTES_PER_DAY;
        let length = (to + MINUTES_PER_DAY - from) % MINUTES_PER_DAY;
        let left = length.checked_sub(behind(from)).filter(|left| *left > 0)?;
        Some(Duration::from_secs(left * 60 - local % 60))
    }
}
