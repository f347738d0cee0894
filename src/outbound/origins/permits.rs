//! [`RequestPermits`]: bounds the requests to origins that are under way, in all, for each tenant and for each host. So neither slow
//! hosts nor one tenant's origins keep those of others from being polled.

use std::sync::Arc;

use dashmap::DashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::stream::Tenant;

/// The part of all permits that one tenant may have, and one host.
const TENANT_PART: usize = 4;
const HOST_PART: usize = 8;

/// The requests to origins that may be under way.
pub(super) struct RequestPermits {
    max: usize,
    all: Arc<Semaphore>,
    tenants: Shares,
    hosts: Shares,
}

/// Permits by the name of their owner.
type Shares = DashMap<Box<str>, Arc<Semaphore>>;

/// The permits of one request: of its tenant, of its host, and of the gateway as a whole. The last one is acquired last, so a request that
/// waits for its tenant or its host takes nothing from others.
pub(super) struct RequestPermit {
    _all: Option<OwnedSemaphorePermit>,
    _shares: [Option<OwnedSemaphorePermit>; 2],
}

impl RequestPermits {
    /// Permits for `max` requests at once.
    pub(super) fn new(max: usize) -> Self {
        let (tenants, hosts) = Default::default();
        Self { max, all: Arc::new(Semaphore::new(max)), tenants, hosts }
    }

    /// Waits until a request to `host` may be sent for `tenant`, in turn.
    pub(super) async fn acquire(&self, tenant: &Tenant, host: &str) -> RequestPermit {
        let tenant = share(&self.tenants, tenant.as_str(), self.max.div_ceil(TENANT_PART)).await;
        let host = share(&self.hosts, host, self.max.div_ceil(HOST_PART)).await;
        // The semaphores are never closed.
        let all = self.all.clone().acquire_owned().await.ok();
        RequestPermit { _all: all, _shares: [tenant, host] }
    }
}

async fn share(shares: &Shares, owner: &str, max: usize) -> Option<OwnedSemaphorePermit> {
    let semaphore = {
        // Those that nobody holds or waits for are not needed.
        if !shares.contains_key(owner) {
            shares.retain(|_, semaphore| Arc::strong_count(semaphore) > 1);
        }
        shares.entry(owner.into()).or_insert_with(|| Arc::new(Semaphore::new(max))).clone()
    };
    semaphore.acquire_owned().await.ok()
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_host_and_a_tenant_have_a_part_of_the_permits() {
        let permits = RequestPermits::new(16);
        let [acme, beta] = ["acme", "beta"].map(|name| Tenant::parse(name).unwrap());
        let now = |tenant: &Tenant, host: &str| permits.acquire(tenant, host).now_or_never();
        let mut held: Vec<_> = (0..2).map(|_| now(&acme, "slow").unwrap()).collect();
        assert!(now(&acme, "slow").is_none() && now(&beta, "slow").is_none());
        held.extend((0..2).map(|n| now(&acme, &n.to_string()).unwrap()));
        assert!(now(&acme, "other").is_none());
        held.push(now(&beta, "other").unwrap());
        held.clear();
        let _slow = now(&beta, "slow").unwrap();
        assert_eq!((permits.tenants.len(), permits.hosts.len()), (2, 2 + 2));
        let _new = now(&beta, "new").unwrap();
        assert_eq!(permits.hosts.len(), 2);
    }
}
