//! [`Apps`]: the apps of the settings by name, and what a device asks of them before it is woken.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::app::{App, AppPolicy, Suppressed};
use super::channel::{Channel, ChannelBudget, ChannelUse, Surroundings};
use crate::clock::Permission;
use crate::stream::Tenant;

/// When an app has as many wakes under way as it may, its devices are looked at again after this time.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// While one wake probes a provider that has failed, the other devices are looked at again after this time.
const PROBE_PAUSE: Duration = Duration::from_secs(5);

/// How long a wake of an app that is gone from the settings is outstanding.
const TTL_UNKNOWN: Duration = Duration::from_secs(3600);

/// All apps.
#[derive(Debug, Default)]
pub(super) struct Apps {
    by_name: HashMap<Arc<str>, App>,
    /// How many wakes each may have under way.
    at_once_max: usize,
}

impl Apps {
    /// Takes the apps of the settings.
    pub(super) fn set(&mut self, policies: Vec<AppPolicy>, at_once_max: usize) {
        let apps = policies.into_iter().map(|policy| (policy.name.clone(), App::new(policy)));
        (self.by_name, self.at_once_max) = (apps.collect(), at_once_max);
    }

    /// The policies, by name.
    pub(super) fn policies(&self) -> Vec<AppPolicy> {
        let mut policies: Vec<_> = self.by_name.values().map(|app| app.policy.clone()).collect();
        policies.sort_by(|one, other| one.name.cmp(&other.name));
        policies
    }

    pub(super) fn get(&self, name: &str) -> Option<&App> {
        self.by_name.get(name)
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut App> {
        self.by_name.get_mut(name)
    }
}

impl Surroundings for Apps {
    fn admit(&self, channel: &Channel, now: SystemTime) -> ChannelUse {
        match self.by_name.get(&channel.app) {
            None => ChannelUse::Never,
            Some(app) if app.failing_until.is_some_and(|until| until > now) => ChannelUse::Never,
            Some(app) if app.in_flight >= self.at_once_max => {
                ChannelUse::Later(Suppressed::Full, now + FULL_PAUSE)
            }
            Some(app) => match app.paused_until.filter(|until| *until > now) {
                Some(until) => ChannelUse::Later(Suppressed::Paused, until),
                // A copy, because the wake may still be refused; `App::ordered` asks again.
                None => match app.breaker.clone().permit(now) {
                    Permission::Granted => ChannelUse::Now,
                    Permission::NotBefore(until) => ChannelUse::Later(Suppressed::Paused, until),
                    Permission::Probing => ChannelUse::Later(Suppressed::Paused, now + PROBE_PAUSE),
                },
            },
        }
    }

    fn count(&mut self, tenant: &Tenant, channel: &Channel, now: SystemTime) -> Result<(), SystemTime> {
        self.by_name.get_mut(&channel.app).map_or(Ok(()), |app| app.count(tenant, now))
    }

    fn budget(&self, channel: &Channel) -> ChannelBudget {
        let policy = self.by_name.get(&channel.app).map(|app| &app.policy);
        let none = ChannelBudget { interval: Duration::ZERO, burst: 1, per_day: None };
        policy.map_or(none, |AppPolicy { min_interval, burst, per_day, .. }| ChannelBudget {
            interval: *min_interval,
            burst: *burst,
            per_day: *per_day,
        })
    }

    fn ttl(&self, channel: &Channel) -> Duration {
        self.by_name.get(&channel.app).map_or(TTL_UNKNOWN, |app| app.policy.ttl)
    }
}
