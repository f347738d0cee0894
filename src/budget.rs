//! The memory budget: one bound for the memory of the whole gateway, and a share of it for each principal.
//!
//! Everything that can grow is counted in an [`Account`]: stored data by its size, connections by a fixed
//! estimate. A [`Charge`] releases its bytes when it is dropped. Estimates can be wrong, so [`Budget::watch`]
//! also reads the resident set: memory that no account explains counts as used. [`Budget::admit`] refuses new
//! streams and appends from [`REFUSE_PERCENT`] on; above [`CUT_PERCENT`] the budget is critical
//! ([`Budget::is_critical`]), and connections cut clients that do not read.
//!
//! An [`Owner`] is one principal and what it holds, or one tenant, which owns what its principals hold. It exists
//! as long as a charge or a connection of it does, so the table of owners is bounded by what they hold. Design:
//! docs/design/budget.md.

mod charge;
mod quotas;
mod watch;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::stream::{Principal, Shortage, StreamName, Tenant};

pub use charge::{Charge, Charges, ConnectionCharge, OpenCharge, StreamCharge, allocated_bytes};
pub use quotas::{AppendRate, Quota, TenantQuotas};
pub use watch::half_of_machine;

use quotas::PaidAppends;

/// Percentage of the budget from which new streams and appends are refused.
pub const REFUSE_PERCENT: u64 = 85;

/// Percentage of the budget from which clients that do not read are cut, and held polls are answered early.
pub const CUT_PERCENT: u64 = 95;

/// Percentage of the budget from which memory is short, and the resident set is read more often ([`Budget::watch`]).
const WATCH_PERCENT: u64 = 70;

/// The kinds of memory that are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Account {
    /// Messages, with their index.
    Messages,
    /// Streams without their messages: names, settings, producers.
    Streams,
    /// Sessions of MQTT and XMPP clients, and registered devices.
    Sessions,
    /// Subscriptions, and streams that are filled from an origin.
    Subscriptions,
    /// Open connections, each with the waiter of a held poll.
    Connections,
    /// Request bodies that are being received or stored, and caches.
    Buffers,
}

impl Account {
    /// Every account.
    pub const ALL: [Self; 6] = [
        Self::Messages,
        Self::Streams,
        Self::Sessions,
        Self::Subscriptions,
        Self::Connections,
        Self::Buffers,
    ];

    /// The accounts of what clients have besides streams.
    const OF_CLIENTS: [Self; 3] = [Self::Sessions, Self::Subscriptions, Self::Connections];

    /// Returns the name of the account in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Streams => "streams",
            Self::Sessions => "sessions",
            Self::Subscriptions => "subscriptions",
            Self::Connections => "connections",
            Self::Buffers => "buffers",
        }
    }
}

/// Bounds of the gateway and of each principal.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Memory of the process, in bytes.
    pub memory_max: u64,
    /// Number of streams.
    pub streams_max: u64,
    /// Share of both that one principal may have, in percent; 100 or more: no limit per principal.
    pub share_percent: u64,
}

impl Bounds {
    /// No bounds.
    pub const NONE: Self = Self { memory_max: u64::MAX, streams_max: u64::MAX, share_percent: 100 };

    fn percent(bound: u64, percent: u64) -> u64 {
        if bound == u64::MAX { bound } else { bound / 100 * percent + bound % 100 * percent / 100 }
    }

    fn share(&self, bound: u64) -> u64 {
        if self.share_percent >= 100 { u64::MAX } else { Self::percent(bound, self.share_percent) }
    }
}

/// The memory budget of one gateway. See the [module](self) documentation.
#[derive(Debug)]
pub struct Budget {
    hot: Hot,
    bounds: Bounds,
    refuse_at: u64,
    cut_at: u64,
    watch_at: u64,
    share_max: u64,
    own_streams_max: u64,
    /// The rate of each principal.
    rate: AppendRate,
    paid: PaidAppends<Principal>,
    quotas: TenantQuotas,
    paid_by_tenants: PaidAppends<Tenant>,
    /// No principal and no tenant has a rate.
    has_no_rates: bool,
    accounts: [AtomicU64; Account::ALL.len()],
    streams: AtomicU64,
    /// The resident set when it was last read, in bytes.
    resident: AtomicU64,
    owners: DashMap<(Principal, Tenant), Weak<Owner>>,
    refused: [AtomicU64; Shortage::ALL.len()],
    /// Memory is short, as far as is known.
    is_close: AtomicBool,
    closer: Notify,
    /// Notified when there is the first connection, session or subscription.
    connected: Notify,
    /// Notified while memory is short.
    short: Notify,
}

/// Counters that every append reads, on cache lines that other threads do not write for other reasons.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Hot {
    /// Sum of all accounts, in bytes.
    charged: AtomicU64,
    /// Part of the resident set that no account explained when it was last read, in bytes.
    unexplained: AtomicU64,
}

/// Snapshot of a [`Budget`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes held by each account, in the order of [`Account::ALL`].
    pub accounts: [u64; Account::ALL.len()],
    /// The memory budget, in bytes.
    pub max: u64,
    /// The resident set when it was last read, in bytes.
    pub resident: u64,
    /// Number of principals that are connected or hold something.
    pub principals: u64,
    /// Number of refusals, in the order of [`Shortage::ALL`].
    pub refused: [u64; Shortage::ALL.len()],
}

/// One principal and what it holds. The gateway in a tenant is the tenant itself, with what all of its principals hold, and what was
/// stored before the gateway started.
#[derive(Debug)]
pub struct Owner {
    budget: Arc<Budget>,
    principal: Principal,
    tenant: Tenant,
    /// The tenant of a principal. `None`: the default tenant, or this is a tenant.
    of_tenant: Option<Arc<Owner>>,
    bytes_max: u64,
    streams_max: u64,
    bytes: AtomicU64,
    streams: AtomicU64,
    /// See [`OpenCharge`].
    open: AtomicU64,
}

impl Budget {
    /// Creates a budget of which nothing is used, without rates.
    pub fn new(bounds: Bounds) -> Arc<Self> {
        Self::with_quotas(bounds, AppendRate::default(), TenantQuotas::default())
    }

    /// Creates a budget of which nothing is used, and limits the appends of each principal to `rate`.
    pub fn with_quotas(bounds: Bounds, rate: AppendRate, quotas: TenantQuotas) -> Arc<Self> {
        let part = |percent| Bounds::percent(bounds.memory_max, percent);
        Arc::new(Self {
            hot: Hot::default(),
            refuse_at: part(REFUSE_PERCENT),
            cut_at: part(CUT_PERCENT),
            watch_at: part(WATCH_PERCENT),
            share_max: bounds.share(bounds.memory_max),
            own_streams_max: bounds.share(bounds.streams_max),
            has_no_rates: rate == AppendRate::default() && quotas.have_no_rates(),
            rate,
            paid: PaidAppends::default(),
            quotas,
            paid_by_tenants: PaidAppends::default(),
            bounds,
            accounts: Default::default(),
            streams: AtomicU64::new(0),
            resident: AtomicU64::new(0),
            owners: DashMap::new(),
            refused: Default::default(),
            is_close: AtomicBool::new(false),
            closer: Notify::new(),
            connected: Notify::new(),
            short: Notify::new(),
        })
    }

    /// Creates a budget without bounds, which still counts.
    pub fn unlimited() -> Arc<Self> {
        Self::new(Bounds::NONE)
    }

    /// Returns the memory budget in bytes.
    pub fn max(&self) -> u64 {
        self.bounds.memory_max
    }

    /// Returns the maximum number of streams.
    pub fn streams_max(&self) -> u64 {
        self.bounds.streams_max
    }

    /// Returns the share of one principal in a resource with this bound; `u64::MAX` if shares are not limited.
    pub fn share(&self, bound: u64) -> u64 {
        self.bounds.share(bound)
    }

    /// Returns the share of one principal like [`share`](Self::share).
    pub fn share_of(&self, bound: usize) -> usize {
        usize::try_from(self.bounds.share(bound as u64)).unwrap_or(usize::MAX)
    }

    /// Returns the quota of a tenant; of `None` the least limits of bytes and of streams that some tenant has.
    pub fn quota(&self, tenant: Option<&Tenant>) -> Quota {
        tenant.map_or_else(|| self.quotas.least(), |tenant| self.quotas.of(tenant))
    }

    /// Returns the owner of a principal in the default tenant, created if it does not exist.
    pub fn owner(self: &Arc<Self>, principal: Principal) -> Arc<Owner> {
        self.owner_in(Tenant::default(), principal)
    }

    /// Returns the owner of a principal in a tenant, created if it does not exist; for [`Principal::GATEWAY`] the tenant itself.
    pub fn owner_in(self: &Arc<Self>, tenant: Tenant, principal: Principal) -> Arc<Owner> {
        let is_gateway = principal == Principal::GATEWAY;
        let of_tenant =
            (!tenant.is_default() && !is_gateway).then(|| self.owner_in(tenant.clone(), Principal::GATEWAY));
        let mut place = self.owners.entry((principal, tenant.clone())).or_default();
        if let Some(owner) = place.upgrade() {
            return owner;
        }
        let (bytes_max, streams_max) = if is_gateway {
            let quota = self.quotas.of(&tenant);
            (quota.bytes_max.unwrap_or(u64::MAX), quota.streams_max.unwrap_or(u64::MAX))
        } else {
            (self.share_max, self.own_streams_max)
        };
        let owner = Arc::new(Owner {
            budget: self.clone(),
            principal,
            tenant,
            of_tenant,
            bytes_max,
            streams_max,
            bytes: AtomicU64::new(0),
            streams: AtomicU64::new(0),
            open: AtomicU64::new(0),
        });
        *place = Arc::downgrade(&owner);
        owner
    }

    /// Checks whether the whole gateway has room for `bytes` more. Does not check the share of a principal.
    ///
    /// Returns [`Shortage::Memory`] if stored data fills the budget, [`Shortage::Passing`] if buffers or
    /// unexplained memory are part of the reason.
    pub fn admit(&self, bytes: u64) -> Result<(), Shortage> {
        let charged = self.hot.charged.load(Ordering::Relaxed);
        let used = charged.saturating_add(self.hot.unexplained.load(Ordering::Relaxed)).saturating_add(bytes);
        if used >= self.watch_at && !self.is_close.swap(true, Ordering::Relaxed) {
            self.closer.notify_one();
        }
        if used < self.refuse_at {
            return Ok(());
        }
        let stored = charged.saturating_sub(self.held(Account::Buffers)).saturating_add(bytes);
        Err(self.refuse(if stored >= self.refuse_at { Shortage::Memory } else { Shortage::Passing }))
    }

    /// Counts an append of `bytes` to a stream against the rates of a principal and of the stream's tenant, or returns how long it has
    /// to wait.
    pub fn take_append(
        &self,
        stream: &StreamName,
        principal: Principal,
        bytes: usize,
    ) -> Result<(), Duration> {
        // The clock is read only if a rate needs it: every append comes by here.
        if self.has_no_rates {
            return Ok(());
        }
        let (bytes, now) = (bytes as u64, Instant::now());
        if principal != Principal::GATEWAY {
            self.paid.take(principal, self.rate, bytes, now)?;
        }
        let tenant = stream.tenant();
        let rate = self.quotas.of(&tenant).rate;
        self.paid_by_tenants.take(tenant, rate, bytes, now)
    }

    /// Whether memory is critical, so that clients that do not read must be cut.
    pub fn is_critical(&self) -> bool {
        self.used() >= self.cut_at
    }

    /// Returns the used bytes: those of all accounts and those that no account explains.
    pub fn used(&self) -> u64 {
        let unexplained = self.hot.unexplained.load(Ordering::Relaxed);
        self.hot.charged.load(Ordering::Relaxed).saturating_add(unexplained)
    }

    /// Takes a snapshot of the budget.
    pub fn usage(&self) -> Usage {
        Usage {
            accounts: Account::ALL.map(|account| self.held(account)),
            max: self.bounds.memory_max,
            resident: self.resident.load(Ordering::Relaxed),
            principals: self.owners.len() as u64,
            refused: Shortage::ALL
                .map(|why| self.refused.get(why as usize).map_or(0, |count| count.load(Ordering::Relaxed))),
        }
    }

    /// What each tenant has that has anything, without the default tenant: its streams, and what it has open.
    pub fn tenants(&self) -> Vec<(Tenant, [u64; 2])> {
        let of_tenant = |owner: Arc<Owner>| {
            let counts = [&owner.streams, &owner.open].map(|count| count.load(Ordering::Relaxed));
            (owner.tenant.clone(), counts)
        };
        let is_tenant = |(principal, tenant): &(Principal, Tenant)| {
            *principal == Principal::GATEWAY && !tenant.is_default()
        };
        let owners = self.owners.iter().filter(|place| is_tenant(place.key()));
        // Collected first: the last reference to an owner removes it from the table.
        let owners: Vec<_> = owners.filter_map(|place| place.value().upgrade()).collect();
        owners.into_iter().map(of_tenant).collect()
    }

    fn refuse(&self, why: Shortage) -> Shortage {
        if let Some(count) = self.refused.get(why as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        why
    }

    fn held(&self, account: Account) -> u64 {
        self.accounts.get(account as usize).map_or(0, |held| held.load(Ordering::Relaxed))
    }

    fn charge(&self, account: Account, bytes: u64) {
        self.hot.charged.fetch_add(bytes, Ordering::Relaxed);
        if let Some(held) = self.accounts.get(account as usize) {
            let before = held.fetch_add(bytes, Ordering::Relaxed);
            if before == 0 && Account::OF_CLIENTS.contains(&account) {
                self.connected.notify_one();
            }
        }
    }

    fn release(&self, account: Account, bytes: u64) {
        self.hot.charged.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(held) = self.accounts.get(account as usize) {
            held.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

impl Owner {
    /// Returns the principal.
    pub fn principal(&self) -> Principal {
        self.principal
    }

    /// Returns the budget that the owner has a share of.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Returns the owner of the same principal in another tenant.
    pub fn in_tenant(&self, tenant: Tenant) -> Arc<Self> {
        self.budget.owner_in(tenant, self.principal)
    }

    /// Returns the owner of another principal in the same tenant.
    fn sibling(&self, principal: Principal) -> Arc<Self> {
        self.budget.owner_in(self.tenant.clone(), principal)
    }

    /// Checks whether the owner may store `bytes` more: the budget, its own share, and the quota of its tenant.
    pub fn admit(&self, bytes: u64) -> Result<(), Shortage> {
        self.budget.admit(bytes)?;
        self.has_room(bytes)?;
        self.of_tenant.as_ref().map_or(Ok(()), |tenant| tenant.has_room(bytes))
    }

    fn has_room(&self, bytes: u64) -> Result<(), Shortage> {
        if self.bytes.load(Ordering::Relaxed).saturating_add(bytes) <= self.bytes_max {
            return Ok(());
        }
        let is_tenant = self.principal == Principal::GATEWAY;
        Err(self.budget.refuse(if is_tenant { Shortage::Tenant } else { Shortage::Share }))
    }

    fn has_room_for_stream(&self) -> Result<(), Shortage> {
        if self.streams.load(Ordering::Relaxed) < self.streams_max {
            return Ok(());
        }
        let is_tenant = self.principal == Principal::GATEWAY;
        Err(self.budget.refuse(if is_tenant { Shortage::TenantStreams } else { Shortage::OwnStreams }))
    }

    /// Checks whether the owner may create a stream and store `bytes` in it.
    pub fn admit_stream(&self, bytes: u64) -> Result<(), Shortage> {
        self.admit(bytes)?;
        if self.budget.streams.load(Ordering::Relaxed) >= self.budget.bounds.streams_max {
            return Err(self.budget.refuse(Shortage::Streams));
        }
        self.has_room_for_stream()?;
        self.of_tenant.as_ref().map_or(Ok(()), |tenant| tenant.has_room_for_stream())
    }

    /// The owner, and the tenant that owns what it holds.
    fn with_tenant(&self) -> impl Iterator<Item = &Self> {
        [Some(self), self.of_tenant.as_deref()].into_iter().flatten()
    }

    fn add(&self, account: Account, bytes: u64) {
        for owner in self.with_tenant() {
            owner.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        self.budget.charge(account, bytes);
    }

    fn take(&self, account: Account, bytes: u64) {
        for owner in self.with_tenant() {
            owner.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        self.budget.release(account, bytes);
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // A new owner of the same principal may be in the table by now.
        let key = (self.principal, self.tenant.clone());
        self.budget.owners.remove_if(&key, |_, owner| owner.strong_count() == 0);
    }
}

/// The principal of a client at `address`. An IPv6 /64 network is one principal, since one host may use all
/// of its addresses.
pub fn principal_of(address: IpAddr) -> Principal {
    match address.to_canonical() {
        // Mapped into a reserved part of the IPv6 space (RFC 4291, section 2.4).
        IpAddr::V4(address) => Principal(1 << 32 | u64::from(address.to_bits())),
        IpAddr::V6(address) => Principal((address.to_bits() >> 64) as u64),
    }
}

#[cfg(test)]
mod tests;
