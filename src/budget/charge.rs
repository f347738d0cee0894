//! What is held of the budget, and given back when it is dropped.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Account, Owner};
use crate::stream::{Principal, Shortage};

/// A log charges a quarter more bytes than it holds, so that most appends do not change the accounts.
const AHEAD: u64 = 4;

/// What the allocator gives out for `bytes`: size classes of jemalloc, four for each doubling.
pub const fn allocated_bytes(bytes: usize) -> u64 {
    let bytes = bytes as u64;
    match bytes {
        0 => 0,
        1..=8 => 8,
        9..=128 => bytes.next_multiple_of(16),
        _ => bytes.next_multiple_of(bytes.next_power_of_two() / 8),
    }
}

/// Memory that one owner holds.
#[derive(Debug)]
pub struct Charge {
    owner: Arc<Owner>,
    account: Account,
    bytes: u64,
}

impl Charge {
    /// Counts `bytes` of `owner` until it is dropped.
    pub fn new(owner: &Arc<Owner>, account: Account, bytes: u64) -> Self {
        owner.add(account, bytes);
        Self { owner: owner.clone(), account, bytes }
    }

    /// How much it holds from now on.
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

/// What an open connection takes, with the waiter of a held poll. What is received or written at the moment comes on top.
const CONNECTION_BYTES: u64 = 2048;

/// An open connection. As small as can be, since there may be very many of them.
#[derive(Debug)]
pub struct ConnectionCharge(Arc<Owner>);

impl ConnectionCharge {
    /// Counts a connection of `owner` until it is dropped.
    pub fn new(owner: &Arc<Owner>) -> Self {
        owner.add(Account::Connections, CONNECTION_BYTES);
        Self(owner.clone())
    }

    /// Who is connected.
    pub fn owner(&self) -> &Arc<Owner> {
        &self.0
    }
}

impl Drop for ConnectionCharge {
    fn drop(&mut self) {
        self.0.take(Account::Connections, CONNECTION_BYTES);
    }
}

/// A stream, and what it holds without its messages.
#[derive(Debug)]
pub struct StreamCharge(Charge);

impl StreamCharge {
    /// Counts a stream of `owner`, and `bytes` of it, until it is dropped.
    pub fn new(owner: &Arc<Owner>, bytes: u64) -> Self {
        owner.streams.fetch_add(1, Ordering::Relaxed);
        owner.budget.streams.fetch_add(1, Ordering::Relaxed);
        Self(Charge::new(owner, Account::Streams, bytes))
    }

    /// Who created the stream.
    pub fn owner(&self) -> &Arc<Owner> {
        &self.0.owner
    }

    /// How much it holds from now on.
    pub fn set(&mut self, bytes: u64) {
        self.0.set(bytes);
    }
}

impl Drop for StreamCharge {
    fn drop(&mut self) {
        self.0.owner.streams.fetch_sub(1, Ordering::Relaxed);
        self.0.owner.budget.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Messages that several owners have put at one place, such as a segment of a log. A place has few owners, so they are looked
/// for one after the other.
#[derive(Debug, Default)]
pub struct Charges {
    held: Vec<Held>,
}

#[derive(Debug)]
struct Held {
    owner: Arc<Owner>,
    bytes: u64,
    /// What the accounts were told, at least `bytes`.
    charged: u64,
}

impl Charges {
    /// Whether `principal` may put `bytes` more here. `creator` is an owner that is at hand.
    pub fn admit(&self, principal: Principal, creator: &Arc<Owner>, bytes: u64) -> Result<(), Shortage> {
        let known = self.held.iter().map(|held| &held.owner).chain([creator]);
        match known.into_iter().find(|owner| owner.principal == principal) {
            Some(owner) => owner.admit(bytes),
            None => creator.budget.owner(principal).admit(bytes),
        }
    }

    /// Counts `bytes` that `principal` has put here. `creator` is an owner that is at hand.
    pub fn add(&mut self, principal: Principal, creator: &Arc<Owner>, bytes: u64) {
        if let Some(held) = self.held.iter_mut().find(|held| held.owner.principal == principal) {
            held.bytes += bytes;
            if held.bytes > held.charged {
                let more = bytes.max(held.bytes / AHEAD);
                held.owner.add(Account::Messages, more);
                held.charged += more;
            }
            return;
        }
        let owner =
            if creator.principal == principal { creator.clone() } else { creator.budget.owner(principal) };
        owner.add(Account::Messages, bytes);
        self.held.reserve_exact(1);
        self.held.push(Held { owner, bytes, charged: bytes });
    }

    /// Counts `bytes` in all from now on, and not a byte ahead. There were `before`; each owner keeps its part.
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
