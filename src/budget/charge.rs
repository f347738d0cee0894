//! Charges: each holds a part of the [`Budget`](super::Budget) and releases it when it is dropped.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Account, Budget, Owner};
use crate::stream::{Principal, Shortage, Tenant};

/// A log charges its bytes in steps of one quarter of its size, so that most appends do not touch the
/// accounts.
const AHEAD_PART: u64 = 4;

/// Returns the memory that the allocator takes for `bytes`: the size classes of jemalloc, four per doubling.
pub const fn allocated_bytes(bytes: usize) -> u64 {
    let bytes = bytes as u64;
    match bytes {
        0 => 0,
        1..=8 => 8,
        9..=128 => bytes.next_multiple_of(16),
        _ => bytes.next_multiple_of(bytes.next_power_of_two() / 8),
    }
}

/// Memory that one owner holds in one account.
#[derive(Debug)]
pub struct Charge {
    owner: Arc<Owner>,
    account: Account,
    bytes: u64,
}

impl Charge {
    /// Charges `bytes` to `owner` until the charge is dropped.
    pub fn new(owner: &Arc<Owner>, account: Account, bytes: u64) -> Self {
        owner.add(account, bytes);
        Self { owner: owner.clone(), account, bytes }
    }

    /// Charges a message of `bytes` that waits to be stored.
    pub fn waiting(budget: &Arc<Budget>, tenant: Tenant, principal: Principal, bytes: usize) -> Self {
        Self::new(&budget.owner_in(tenant, principal), Account::Buffers, bytes as u64)
    }

    /// Returns the charged bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the owner.
    pub fn owner(&self) -> &Arc<Owner> {
        &self.owner
    }

    /// Sets the charged bytes.
    pub fn set(&mut self, bytes: u64) {
        if bytes > self.bytes {
            self.owner.add(self.account, bytes - self.bytes);
        } else if bytes < self.bytes {
            self.owner.take(self.account, self.bytes - bytes);
        }
        self.bytes = bytes;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Estimated memory of an open connection with the waiter of a held poll, in bytes. Bodies and responses in
/// progress are charged separately.
const CONNECTION_BYTES: u64 = 2048;

/// The charge of an open connection. Kept small, since there may be very many.
#[derive(Debug)]
pub struct ConnectionCharge(Arc<Owner>);

impl ConnectionCharge {
    /// Charges a connection to `owner` until the charge is dropped.
    pub fn new(owner: &Arc<Owner>) -> Self {
        owner.add(Account::Connections, CONNECTION_BYTES);
        Self(owner.clone())
    }

    /// Returns the owner that the connection is charged to.
    pub fn owner(&self) -> &Arc<Owner> {
        &self.0
    }
}

impl Drop for ConnectionCharge {
    fn drop(&mut self) {
        self.0.take(Account::Connections, CONNECTION_BYTES);
    }
}

/// One thing that a tenant has open: a held poll, a live response or a connection. It is counted until it is dropped.
#[derive(Debug)]
pub struct OpenCharge(Arc<Owner>);

impl OpenCharge {
    /// Counts one thing more that `tenant` has open; `None`: it is the default tenant, whose number is not limited. Fails if that would be too many, unless it
    /// `replaces` an older one, which ends.
    pub fn new(budget: &Arc<Budget>, tenant: &Tenant, replaces: bool) -> Result<Option<Self>, Shortage> {
        if tenant.is_default() {
            return Ok(None);
        }
        let max = budget.quotas.of(tenant).open_max.unwrap_or(u64::MAX);
        // Counted first, so that two at once do not both take the last place.
        let charge = Self(budget.owner_in(tenant.clone(), Principal::GATEWAY));
        if charge.0.open.fetch_add(1, Ordering::Relaxed) < max || replaces {
            Ok(Some(charge))
        } else {
            Err(budget.refuse(Shortage::TenantOpen))
        }
    }
}

impl Drop for OpenCharge {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The charge of a stream: one stream of its creator, and its memory without messages.
#[derive(Debug)]
pub struct StreamCharge(Charge);

impl StreamCharge {
    /// Charges a stream of `bytes` to `owner` until the charge is dropped.
    pub fn new(owner: &Arc<Owner>, bytes: u64) -> Self {
        for owner in owner.with_tenant() {
            owner.streams.fetch_add(1, Ordering::Relaxed);
        }
        owner.budget.streams.fetch_add(1, Ordering::Relaxed);
        Self(Charge::new(owner, Account::Streams, bytes))
    }

    /// Returns the owner that created the stream.
    pub fn owner(&self) -> &Arc<Owner> {
        &self.0.owner
    }

    /// Sets the charged bytes.
    pub fn set(&mut self, bytes: u64) {
        self.0.set(bytes);
    }
}

impl Drop for StreamCharge {
    fn drop(&mut self) {
        for owner in self.0.owner.with_tenant() {
            owner.streams.fetch_sub(1, Ordering::Relaxed);
        }
        self.0.owner.budget.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The charges of several owners for messages in one place, such as a segment of a log. A place has few
/// owners, so they are found by linear search.
#[derive(Debug, Default)]
pub struct Charges {
    held: Vec<Held>,
}

#[derive(Debug)]
struct Held {
    owner: Arc<Owner>,
    bytes: u64,
    /// Bytes charged to the accounts, at least `bytes`.
    charged: u64,
}

impl Charges {
    /// Checks whether `principal` may store `bytes` more here. If the creator of the
    /// stream is the same principal, its account `creator` is used without a lookup.
    pub fn admit(&self, principal: Principal, creator: &Arc<Owner>, bytes: u64) -> Result<(), Shortage> {
        let known = self.held.iter().map(|held| &held.owner).chain([creator]);
        match known.into_iter().find(|owner| owner.principal == principal) {
            Some(owner) => owner.admit(bytes),
            None => creator.sibling(principal).admit(bytes),
        }
    }

    /// Charges `bytes` that `principal` has stored here. For `creator` see [`admit`](Self::admit).
    pub fn add(&mut self, principal: Principal, creator: &Arc<Owner>, bytes: u64) {
        if let Some(held) = self.held.iter_mut().find(|held| held.owner.principal == principal) {
            held.bytes += bytes;
            if held.bytes > held.charged {
                let more = bytes.max(held.bytes / AHEAD_PART);
                held.owner.add(Account::Messages, more);
                held.charged += more;
            }
            return;
        }
        let owner = if creator.principal == principal { creator.clone() } else { creator.sibling(principal) };
        owner.add(Account::Messages, bytes);
        self.held.reserve_exact(1);
        self.held.push(Held { owner, bytes, charged: bytes });
    }

    /// Rescales the charges from `before` to `bytes` in total, without the step of a quarter. Each owner
    /// keeps its proportion.
    pub fn scale(&mut self, bytes: u64, before: u64) {
        for held in &mut self.held {
            let part = u128::from(held.bytes) * u128::from(bytes) / u128::from(before.max(1));
            let part = u64::try_from(part).unwrap_or(u64::MAX);
            if part > held.charged {
                held.owner.add(Account::Messages, part - held.charged);
            } else {
                held.owner.take(Account::Messages, held.charged - part);
            }
            (held.bytes, held.charged) = (part, part);
        }
        self.held.retain(|held| held.bytes > 0);
    }
}

impl Drop for Charges {
    fn drop(&mut self) {
        for held in &self.held {
            held.owner.take(Account::Messages, held.charged);
        }
    }
}
