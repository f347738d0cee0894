//! Apps: the providers of the settings as the hub knows them, with their budgets, and what their answers mean for all devices of an
//! app: pauses, and the gate against mass deletion.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::clock::{Backoff, Breaker, BreakerPolicy};
use crate::hub::ClientId;
use crate::stream::Tenant;

/// Where a device receives wakes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Credential {
    /// A token of a push service, a telephone number, or what else the provider knows the device by.
    Token(Box<str>),
    /// A Web Push subscription.
    WebPush {
        /// The URL of the push service.
        endpoint: Box<str>,
        /// The public key of the subscription, in base64url.
        p256dh: Box<str>,
        /// The secret of the subscription, in base64url.
        auth: Box<str>,
    },
}

/// Which credentials the devices of an app have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialKind {
    /// A text.
    Token,
    /// A Web Push subscription.
    WebPush,
    /// A telephone number: `+` and digits.
    Phone,
}

/// What the answer of a provider means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The provider has accepted the wake, under this id.
    Ok {
        /// The id of the provider, if it gives one.
        id: Option<Box<str>>,
    },
    /// The device does not exist any more; by the provider's account since this time of day.
    Gone {
        /// The time of day.
        since: Option<SystemTime>,
    },
    /// The app has to pause until this time of day.
    Slow {
        /// The time of day.
        until: SystemTime,
    },
    /// The wake may be sent again after this time.
    Retry {
        /// At least this long.
        after: Duration,
    },
    /// The settings of the app are wrong.
    Config(Box<str>),
    /// The provider refuses this wake.
    Bad(Box<str>),
}

/// An app of the settings: one provider with its keys.
#[derive(Debug, Clone)]
pub struct AppPolicy {
    /// The name, which devices use.
    pub name: Arc<str>,
    /// The kind of provider, for metrics.
    pub provider: &'static str,
    /// Which credentials its devices have.
    pub credential: CredentialKind,
    /// The key with which clients subscribe at their push service.
    pub public_key: Option<Arc<str>>,
    /// The mean time between two wakes of one device.
    pub min_interval: Duration,
    /// Wakes of one device at once after a pause.
    pub burst: u32,
    /// Wakes of one device in 24 hours. `None`: only `min_interval` counts.
    pub per_day: Option<u32>,
    /// Wakes of all devices of a tenant in 24 hours.
    pub tenant_per_day: Option<u64>,
    /// The beginnings that telephone numbers must have; none: all are allowed.
    pub prefixes: Vec<String>,
    /// How long the provider keeps a wake.
    pub ttl: Duration,
}

impl AppPolicy {
    /// Whether only a receipt tells that a wake has reached its device: a message centre accepts SMS to any number.
    pub(super) fn has_receipts(&self) -> bool {
        self.credential == CredentialKind::Phone
    }
}

/// Why a device is not woken now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Suppressed {
    Connected,
    NothingNew,
    Grace,
    Quiet,
    Outstanding,
    Interval,
    Quota,
    Paused,
    Full,
    Silent,
    NoChannel,
}

impl Suppressed {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::NothingNew => "nothing_new",
            Self::Grace => "grace",
            Self::Quiet => "quiet_hours",
            Self::Outstanding => "outstanding",
            Self::Interval => "interval",
            Self::Quota => "quota",
            Self::Paused => "provider_paused",
            Self::Full => "provider_full",
            Self::Silent => "silent",
            Self::NoChannel => "no_channel",
        }
    }
}

/// More devices than this, which a provider calls gone one after the other, raise an alarm.
const ALARM_DEVICES: usize = 10;

/// How long an app is not used after its settings have turned out to be wrong.
pub(super) const CONFIG_PAUSE: Duration = Duration::from_secs(5 * 60);

/// When an app is not used because its provider fails. Many wakes are under way at a time, so that one fault fails many.
const BREAKER: BreakerPolicy = BreakerPolicy {
    failures_max: 20,
    pause: Backoff { first: Duration::from_secs(60), max: Duration::from_secs(60) },
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// An app with its state.
#[derive(Debug)]
pub(super) struct App {
    pub(super) policy: AppPolicy,
    /// No wake is sent before this time: the provider wants a pause.
    pub(super) paused_until: Option<SystemTime>,
    /// The settings are wrong; channels of the app are skipped until then.
    pub(super) failing_until: Option<SystemTime>,
    /// Wakes that are handed out and not reported yet.
    pub(super) in_flight: usize,
    /// Open while the provider fails.
    pub(super) breaker: Breaker<SystemTime>,
    /// Devices that the provider has called gone since it last accepted a wake.
    suspects: BTreeSet<ClientId>,
    /// Wakes by tenant since the beginning of a day.
    today: (Option<SystemTime>, HashMap<Tenant, u64>),
}

impl App {
    pub(super) fn new(policy: AppPolicy) -> Self {
        Self {
            policy,
            paused_until: None,
            failing_until: None,
            in_flight: 0,
            breaker: Breaker::default(),
            suspects: BTreeSet::new(),
            today: (None, HashMap::new()),
        }
    }

    /// A wake is handed out.
    pub(super) fn ordered(&mut self, now: SystemTime) {
        self.in_flight += 1;
        let _granted = self.breaker.permit(now);
    }

    /// A wake has been reported. A provider that fails one wake after the other gets a pause.
    pub(super) fn reported(&mut self, has_failed: bool, now: SystemTime) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if !has_failed {
            self.breaker.succeeded();
        } else if self.breaker.failed(&BREAKER, now, None, fastrand::f64()) {
            tracing::warn!(app = &*self.policy.name, "a wake provider fails, and gets a pause");
        }
    }

    /// A wake has reached its device, as far as the provider can tell, which proves that the settings are right. Returns the devices that
    /// the provider has called gone before, and whether to believe that: not if there are so many that it was wrong itself.
    pub(super) fn succeeded(&mut self) -> (BTreeSet<ClientId>, bool) {
        let is_believable = self.suspects.len() <= ALARM_DEVICES;
        (std::mem::take(&mut self.suspects), is_believable)
    }

    /// The provider calls a device gone. That may be the fault of the settings, as a wrong project or environment looks the same,
    /// so that nothing is removed before the provider accepts another wake. Returns whether to raise an alarm: it has called too
    /// many gone meanwhile.
    pub(super) fn gone(&mut self, device: &ClientId) -> bool {
        self.suspects.insert(device.clone()) && self.suspects.len() == ALARM_DEVICES + 1
    }

    /// The device is registered anew, or deleted.
    pub(super) fn forget(&mut self, device: &ClientId) {
        self.suspects.remove(device);
    }

    /// Counts a wake of a tenant, unless its day's quota is used up; then returns when the day ends.
    pub(super) fn count(&mut self, tenant: &Tenant, now: SystemTime) -> Result<(), SystemTime> {
        let Some(max) = self.policy.tenant_per_day else { return Ok(()) };
        let end = match self.today.0 {
            Some(begin) if begin + DAY > now => begin + DAY,
            _ => {
                self.today = (Some(now), HashMap::new());
                now + DAY
            }
        };
        let count = self.today.1.entry(tenant.clone()).or_default();
        if *count >= max {
            return Err(end);
        }
        *count += 1;
        Ok(())
    }

    /// Counts a wake that was sent before a restart.
    pub(super) fn restore_count(&mut self, tenant: &Tenant, begin: SystemTime, count: u32) {
        if self.policy.tenant_per_day.is_some() {
            self.today.0 = Some(self.today.0.map_or(begin, |earlier| earlier.min(begin)));
            *self.today.1.entry(tenant.clone()).or_default() += u64::from(count);
        }
    }
}

impl Verdict {
    /// The settings are wrong.
    pub fn config(reason: impl Into<String>) -> Self {
        Self::Config(reason.into().into())
    }

    /// The wake is refused.
    pub fn bad(reason: impl Into<String>) -> Self {
        Self::Bad(reason.into().into())
    }

    /// A word for metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Ok { .. } => "ok",
            Self::Gone { .. } => "gone",
            Self::Slow { .. } => "slow",
            Self::Retry { .. } => "retry",
            Self::Config(_) => "config",
            Self::Bad(_) => "bad",
        }
    }
}

impl Credential {
    /// Identifies the credential in logs and answers, without giving it away: the first digits of its SHA-256.
    pub fn hint(&self) -> String {
        let text = match self {
            Self::Token(token) => token,
            Self::WebPush { endpoint, .. } => endpoint,
        };
        let digest = digest(&SHA256, text.as_bytes());
        digest.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The token or the telephone number. `None`: it is a Web Push subscription.
    pub(super) fn token(&self) -> Option<&str> {
        match self {
            Self::Token(token) => Some(token),
            Self::WebPush { .. } => None,
        }
    }

    /// Size in bytes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Token(token) => token.len(),
            Self::WebPush { endpoint, p256dh, auth } => endpoint.len() + p256dh.len() + auth.len(),
        }
    }

    /// Whether an app takes it.
    pub(super) fn is_of(&self, kind: CredentialKind) -> bool {
        match (self, kind) {
            (Self::WebPush { .. }, CredentialKind::WebPush) => true,
            (Self::Token(token), CredentialKind::Token) => !token.is_empty(),
            (Self::Token(number), CredentialKind::Phone) => is_phone_number(number),
            _ => false,
        }
    }
}

/// Whether a text is a telephone number: `+` and 7 to 15 digits (ITU-T E.164).
fn is_phone_number(text: &str) -> bool {
    let digits = text.strip_prefix('+').unwrap_or_default();
    (7..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Shows the hint alone: credentials are secrets, and logs are not.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({})", self.hint())
    }
}
