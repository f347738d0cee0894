//! What the sessions of each address take: how many they are, and how many bytes. When there are too many, the address that
//! left the most behind loses the one that it left first, so that nobody's sessions make room for those of another who has
//! more.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::limits::Limits;

/// Whose a session is: the address of its client, or the network of 64 bits that it is in. `None`: it is not known until its
/// client comes back, since it was stored by an earlier process; such sessions have no share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Owner(Option<IpAddr>);

/// What one address may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    pub(super) sessions_max: usize,
    pub(super) bytes_max: usize,
}

/// The accounts of all addresses that have sessions.
#[derive(Debug)]
pub(super) struct Accounts {
    share: Share,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    by_owner: HashMap<Owner, Account>,
    /// Those who left sessions behind, by how many.
    by_absent: BTreeSet<(usize, Owner)>,
    next: u64,
}

#[derive(Debug, Default)]
struct Account {
    sessions: usize,
    bytes: usize,
    /// The clients whose sessions were left behind, in that order.
    absent: BTreeMap<u64, Arc<str>>,
}

/// The part of an account that one session takes; dropping it gives that back.
#[derive(Debug)]
pub(super) struct Charge {
    accounts: Arc<Accounts>,
    owner: Owner,
    bytes: usize,
    absent: Option<u64>,
}

impl Owner {
    /// The owner of the sessions of a peer.
    pub(super) fn of(peer: Option<IpAddr>) -> Self {
        Self(peer.map(|peer| match peer.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            v4 @ IpAddr::V4(_) => v4,
        }))
    }
}

impl Share {
    pub(super) fn of(limits: &Limits) -> Self {
        Self {
            sessions_max: limits.mqtt_sessions_per_address_max,
            bytes_max: limits.mqtt_session_bytes_per_address_max,
        }
    }
}

impl Accounts {
    pub(super) fn new(share: Share) -> Arc<Self> {
        Arc::new(Self { share, table: Mutex::default() })
    }

    /// Opens the account of one more session.
    pub(super) fn open(self: &Arc<Self>, owner: Owner) -> Charge {
        self.table.lock().by_owner.entry(owner).or_default().sessions += 1;
        Charge { accounts: self.clone(), owner, bytes: 0, absent: None }
    }

    /// Whether an address has no more than its share, and room for `another` session if it wants one.
    pub(super) fn has_room(&self, owner: Owner, another: bool) -> bool {
        let table = self.table.lock();
        let (sessions, bytes) =
            table.by_owner.get(&owner).map_or((0, 0), |account| (account.sessions, account.bytes));
        let is_within =
            sessions + usize::from(another) <= self.share.sessions_max && bytes <= self.share.bytes_max;
        owner.0.is_none() || is_within
    }

    /// The client whose session gives way to another one of `owner`: the one that was left behind first.
    pub(super) fn oldest_of(&self, owner: Owner) -> Option<Arc<str>> {
        let table = self.table.lock();
        table.by_owner.get(&owner)?.absent.first_key_value().map(|(_, client)| client.clone())
    }

    /// The client whose session gives way to another one of anybody: the first of the address that left the most behind.
    pub(super) fn oldest_of_most(&self) -> Option<Arc<str>> {
        let table = self.table.lock();
        let (_, owner) = table.by_absent.last()?;
        table.by_owner.get(owner)?.absent.first_key_value().map(|(_, client)| client.clone())
    }
}

impl Table {
    /// Changes an account, which is closed once it is empty.
    fn change<T>(&mut self, owner: Owner, change: impl FnOnce(&mut Account) -> T) -> T {
        let account = self.by_owner.entry(owner).or_default();
        let before = account.absent.len();
        let changed = change(account);
        let (after, is_over) = (account.absent.len(), account.sessions == 0);
        if before != after {
            self.by_absent.remove(&(before, owner));
            if after > 0 {
                self.by_absent.insert((after, owner));
            }
        }
        if is_over {
            self.by_owner.remove(&owner);
        }
        changed
    }
}

impl Charge {
    /// The session takes so many bytes now. Whether its address has no more than its share.
    pub(super) fn set_bytes(&mut self, bytes: usize) -> bool {
        if bytes == self.bytes {
            return true;
        }
        let before = std::mem::replace(&mut self.bytes, bytes);
        let total = self.accounts.table.lock().change(self.owner, |account| {
            account.bytes = (account.bytes + bytes).saturating_sub(before);
            account.bytes
        });
        total <= self.accounts.share.bytes_max || self.owner.0.is_none()
    }

    /// The client of the session has left it behind.
    pub(super) fn leave(&mut self, client: &Arc<str>) {
        let mut table = self.accounts.table.lock();
        table.next += 1;
        let number = table.next;
        table.change(self.owner, |account| account.absent.insert(number, client.clone()));
        self.absent = Some(number);
    }
}

impl Charge {
    /// The address that the session is charged to.
    pub(super) fn owner(&self) -> Owner {
        self.owner
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.accounts.table.lock().change(self.owner, |account| {
            account.sessions = account.sessions.saturating_sub(1);
            account.bytes = account.bytes.saturating_sub(self.bytes);
            if let Some(number) = self.absent {
                account.absent.remove(&number);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(text: &str) -> Owner {
        Owner::of(Some(text.parse().unwrap()))
    }

    #[test]
    fn an_address_is_that_of_its_network() {
        assert_eq!(owner("::ffff:10.0.0.1"), owner("10.0.0.1"));
        assert_eq!(owner("2001:db8::1"), owner("2001:db8:0:0:ffff::2"));
        assert_ne!(owner("2001:db8::1"), owner("2001:db8:0:1::1"));
        assert_ne!(owner("10.0.0.1"), owner("10.0.0.2"));
    }

    #[test]
    fn an_account_counts_what_its_sessions_take_and_closes_with_the_last() {
        let accounts = Accounts::new(Share { sessions_max: 2, bytes_max: 100 });
        let (mut first, mut second) = (accounts.open(owner("10.0.0.1")), accounts.open(owner("10.0.0.1")));
        let has_room = |another| accounts.has_room(owner("10.0.0.1"), another);
        assert!(has_room(false) && !has_room(true));
        assert!(first.set_bytes(60) && !second.set_bytes(60));
        assert!(!has_room(false));
        assert!(second.set_bytes(40) && has_room(false));
        drop(first);
        assert!(has_room(true));
        drop(second);
        assert!(accounts.table.lock().by_owner.is_empty() && accounts.table.lock().by_absent.is_empty());
    }

    #[test]
    fn the_first_that_was_left_behind_gives_way_by_whoever_left_the_most() {
        let accounts = Accounts::new(Share { sessions_max: 9, bytes_max: 100 });
        let mut left = Vec::new();
        for (address, client) in [("10.0.0.1", "a"), ("10.0.0.2", "b"), ("10.0.0.2", "c"), ("10.0.0.2", "d")]
        {
            let mut charge = accounts.open(owner(address));
            charge.leave(&client.into());
            left.push(charge);
        }
        let _here = accounts.open(owner("10.0.0.3"));
        assert_eq!(accounts.oldest_of_most().as_deref(), Some("b"));
        assert_eq!(accounts.oldest_of(owner("10.0.0.1")).as_deref(), Some("a"));
        assert_eq!(accounts.oldest_of(owner("10.0.0.3")), None, "one that is here does not give way");
        drop(left.remove(1));
        assert_eq!(accounts.oldest_of_most().as_deref(), Some("c"));
        left.truncate(1);
        assert_eq!(accounts.oldest_of_most().as_deref(), Some("a"));
    }
}
