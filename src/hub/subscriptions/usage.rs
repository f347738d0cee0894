//! [`SubscriptionUsage`]: how many subscriptions there are and how much memory they take, in all and for each tenant.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::state::SubscriptionError;
use crate::limits::Limits;
use crate::stream::Tenant;

/// Counts subscriptions and their memory against the limits.
pub(super) struct SubscriptionUsage {
    subscriptions_max: usize,
    per_tenant_max: usize,
    bytes_max: usize,
    bytes_per_tenant_max: usize,
    used: Mutex<Used>,
}

#[derive(Default)]
struct Used {
    all: Tally,
    tenants: HashMap<Tenant, Tally>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    subscriptions: usize,
    bytes: usize,
}

impl SubscriptionUsage {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            subscriptions_max: limits.subscriptions_max,
            per_tenant_max: limits.subscriptions_per_tenant_max,
            bytes_max: limits.subscription_bytes_max,
            bytes_per_tenant_max: limits.subscription_bytes_per_tenant_max,
            used: Mutex::default(),
        }
    }

    /// Counts another subscription, if there may be one.
    pub(super) fn enter(&self, tenant: &Tenant) -> Result<(), SubscriptionError> {
        let mut used = self.used.lock();
        if used.all.subscriptions >= self.subscriptions_max {
            return Err(SubscriptionError::TooMany(
                "there are too many subscriptions (limit subscriptions_max)",
            ));
        }
        if used.of(tenant).subscriptions >= self.per_tenant_max {
            let text = "the tenant has too many subscriptions (limit subscriptions_per_tenant_max)";
            return Err(SubscriptionError::TooMany(text));
        }
        used.change(tenant, |tally| tally.subscriptions += 1);
        Ok(())
    }

    /// Counts a subscription that exists, whatever the limits.
    pub(super) fn count(&self, tenant: &Tenant) {
        self.used.lock().change(tenant, |tally| tally.subscriptions += 1);
    }

    /// Counts one subscription less.
    pub(super) fn leave(&self, tenant: &Tenant) {
        self.used.lock().change(tenant, |tally| tally.subscriptions = tally.subscriptions.saturating_sub(1));
    }

    /// Checks that subscriptions of the tenant may take more memory. A link takes some hundred bytes, so the limits are exceeded by at
    /// most that.
    pub(super) fn check_bytes(&self, tenant: &Tenant) -> Result<(), SubscriptionError> {
        let used = self.used.lock();
        if used.all.bytes >= self.bytes_max {
            let text = "the subscriptions take too much memory (limit subscription_bytes_max)";
            return Err(SubscriptionError::TooMany(text));
        }
        if used.of(tenant).bytes >= self.bytes_per_tenant_max {
            let text = "the subscriptions of the tenant take too much memory (limit subscription_bytes_per_tenant_max)";
            return Err(SubscriptionError::TooMany(text));
        }
        Ok(())
    }

    /// Notes that a subscription takes `after` bytes instead of `before`.
    pub(super) fn set_bytes(&self, tenant: &Tenant, before: usize, after: usize) {
        self.used.lock().change(tenant, |tally| tally.bytes = (tally.bytes + after).saturating_sub(before));
    }
}

impl Used {
    fn of(&self, tenant: &Tenant) -> Tally {
        self.tenants.get(tenant).copied().unwrap_or_default()
    }

    fn change(&mut self, tenant: &Tenant, change: impl Fn(&mut Tally)) {
        change(&mut self.all);
        let tally = self.tenants.entry(tenant.clone()).or_default();
        change(tally);
        if *tally == Tally::default() {
            self.tenants.remove(tenant);
        }
    }
}
