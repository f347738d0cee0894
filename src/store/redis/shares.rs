//! [`EngineShares`]: what principals and tenants may store in the engine in sum, over all partitions and gateways.
//!
//! Each partition counts the streams of each principal and tenant, and their bytes, in the steps that change them. The gateway that sweeps adds
//! them up and tells each partition with its next sweep who has used up what; the engine refuses more from these until a later sweep says
//! otherwise. So a limit may be exceeded by what is stored between two sweeps.
//!
//! Only those are added up that have at least a part of their limit in some partition, as all others have less than it in sum.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::argument::PARTITIONS;
use super::functions::EngineCall;
use crate::budget::Budget;
use crate::stream::{Shortage, Tenant};

/// Says in the list of who has used up what that the number of all streams is used up.
const ALL_STREAMS: &str = "streams *";

/// What a partition counts of a principal or a tenant, in the order of `ACCOUNTS` in `library.lua`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum EngineAccount {
    Streams,
    Bytes,
    TenantStreams,
    TenantBytes,
}

/// An account, and the principal or the tenant that has it.
pub(super) type AccountHolder = (EngineAccount, String);

/// The limits, and what the last sweep has found.
#[derive(Debug)]
pub(super) struct EngineShares {
    /// Has the number of streams, how much one principal may have of them and of the memory of the engine, and the quotas of tenants.
    budget: Arc<Budget>,
    /// Memory of the engine, in bytes; 0: it has no bound.
    memory_max: AtomicU64,
    /// Who has used up what, and the lease in which this was found.
    over: Mutex<Option<(String, Vec<String>)>>,
}

/// Why the engine refuses more, by its verdict.
pub(super) fn shortage_of(verdict: &str) -> Option<Shortage> {
    match verdict {
        "share_used_up" => Some(Shortage::Share),
        "tenant_full" => Some(Shortage::Tenant),
        "too_many_streams" => Some(Shortage::Streams),
        "too_many_own_streams" => Some(Shortage::OwnStreams),
        "too_many_streams_of_tenant" => Some(Shortage::TenantStreams),
        _ => None,
    }
}

/// The least amount in one partition with which a limit may be reached in sum.
fn part_of(max: u64) -> String {
    if max == u64::MAX { "+inf".to_owned() } else { max.div_ceil(PARTITIONS).max(1).to_string() }
}

impl EngineAccount {
    pub(super) const ALL: [Self; 4] = [Self::Streams, Self::Bytes, Self::TenantStreams, Self::TenantBytes];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Streams => "streams",
            Self::Bytes => "bytes",
            Self::TenantStreams => "tenant_streams",
            Self::TenantBytes => "tenant_bytes",
        }
    }
}

impl EngineShares {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self { budget, memory_max: AtomicU64::new(0), over: Mutex::default() }
    }

    pub(super) fn set_memory(&self, bytes: u64) {
        self.memory_max.store(bytes, Ordering::Relaxed);
    }

    /// The limit of an account of `holder`. `None`: the least one of all holders.
    fn max(&self, account: EngineAccount, holder: Option<&str>) -> u64 {
        // In an engine, a name that is no tenant's has none.
        let tenant = holder.map(|holder| Tenant::parse(holder).unwrap_or_default());
        let quota = || self.budget.quota(tenant.as_ref());
        match account {
            EngineAccount::Streams => self.budget.share(self.budget.streams_max()),
            EngineAccount::Bytes => match self.memory_max.load(Ordering::Relaxed) {
                0 => u64::MAX,
                memory_max => self.budget.share(memory_max),
            },
            EngineAccount::TenantStreams => quota().streams_max.unwrap_or(u64::MAX),
            EngineAccount::TenantBytes => quota().bytes_max.unwrap_or(u64::MAX),
        }
    }

    /// Adds to a sweep which holders of accounts it has to return, and who has used up what. In the first sweep of a lease, the partitions
    /// keep what the gateway before has told.
    pub(super) fn add_to(&self, call: EngineCall, lease: &str) -> EngineCall {
        let call = EngineAccount::ALL
            .into_iter()
            .fold(call, |call, account| call.with(part_of(self.max(account, None))));
        match &*self.over.lock() {
            Some((found_in, over)) if found_in == lease => {
                over.iter().fold(call.with("set"), EngineCall::with)
            }
            _ => call.with("keep"),
        }
    }

    /// Notes who has used up what, of the streams that there are and of the sums in all partitions.
    pub(super) fn note(&self, lease: &str, streams: usize, sums: BTreeMap<AccountHolder, u64>) {
        let mut over = Vec::new();
        if streams as u64 >= self.budget.streams_max() {
            over.push(ALL_STREAMS.to_owned());
        }
        let used_up =
            sums.into_iter().filter(|((account, holder), used)| *used >= self.max(*account, Some(holder)));
        over.extend(used_up.map(|((account, holder), _)| format!("{} {holder}", account.as_str())));
        *self.over.lock() = Some((lease.to_owned(), over));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_that_is_used_up_in_sum_is_used_by_a_part_in_some_partition() {
        for share in [1, 2, 127, 128, 129, 500_000] {
            let part: u64 = part_of(share).parse().unwrap();
            // The most that is in no partition a part.
            assert!((part - 1) * PARTITIONS < share, "{share}");
        }
        assert_eq!(part_of(u64::MAX), "+inf");
    }
}
