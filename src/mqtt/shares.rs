//! [`Accounts`]: the number and the bytes of the sessions of each principal. When there are too many sessions
//! in total, the principal with the most disconnected sessions loses its oldest one, so a principal with few
//! sessions never makes room for one with more.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroU64;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::budget::{self, Budget};
use crate::limits::Limits;
use crate::stream::{Principal, Tenant};

/// The share of one principal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    pub(super) sessions_max: usize,
    pub(super) bytes_max: usize,
}

/// The accounts of all principals that have sessions.
#[derive(Debug)]
pub(super) struct Accounts {
    share: Share,
    budget: Arc<Budget>,
    table: Mutex<AccountTable>,
}

#[derive(Debug, Default)]
struct AccountTable {
    by_principal: HashMap<Principal, SessionAccount>,
    /// Principals with disconnected sessions, by the number of these sessions.
    by_absent: BTreeSet<(usize, Principal)>,
    next: u64,
}

#[derive(Debug, Default)]
struct SessionAccount {
    sessions: usize,
    bytes: u64,
    /// Clients of disconnected sessions, by a number that grows with the time of disconnect.
    absent: BTreeMap<u64, Arc<str>>,
}

/// The part of an account that one session takes. Dropping it releases that part.
#[derive(Debug)]
pub(super) struct SessionCharge {
    accounts: Arc<Accounts>,
    /// The bytes, charged to the memory budget.
    held: budget::Charge,
    /// Number of the session in [`SessionAccount::absent`] while it is disconnected.
    absent: Option<NonZeroU64>,
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
    pub(super) fn new(share: Share, budget: Arc<Budget>) -> Arc<Self> {
        Arc::new(Self { share, budget, table: Mutex::default() })
    }

    /// Adds one session to the account of a principal of a tenant.
    pub(super) fn open(self: &Arc<Self>, tenant: Tenant, principal: Principal) -> SessionCharge {
        self.table.lock().by_principal.entry(principal).or_default().sessions += 1;
        let held =
            budget::Charge::new(&self.budget.owner_in(tenant, principal), budget::Account::Sessions, 0);
        SessionCharge { accounts: self.clone(), held, absent: None }
    }

    /// Whether a principal is within its share, with room for `another` session if that is set.
    pub(super) fn has_room(&self, principal: Principal, another: bool) -> bool {
        let table = self.table.lock();
        let (sessions, bytes) =
            table.by_principal.get(&principal).map_or((0, 0), |account| (account.sessions, account.bytes));
        let is_within = sessions + usize::from(another) <= self.share.sessions_max
            && bytes <= self.share.bytes_max as u64;
        principal == Principal::GATEWAY || is_within
    }

    /// Returns the client whose session to discard for another one of `principal`: the one disconnected
    /// first.
    pub(super) fn oldest_of(&self, principal: Principal) -> Option<Arc<str>> {
        let table = self.table.lock();
        table.by_principal.get(&principal)?.absent.first_key_value().map(|(_, client)| client.clone())
    }

    /// Returns the client whose session to discard for another one of any principal: the one disconnected
    /// first, of the principal with the most disconnected sessions.
    pub(super) fn oldest_of_most(&self) -> Option<Arc<str>> {
        let table = self.table.lock();
        let (_, principal) = table.by_absent.last()?;
        table.by_principal.get(principal)?.absent.first_key_value().map(|(_, client)| client.clone())
    }
}

impl AccountTable {
    /// Changes an account, and removes it if it has no sessions left.
    fn change<T>(&mut self, principal: Principal, change: impl FnOnce(&mut SessionAccount) -> T) -> T {
        let account = self.by_principal.entry(principal).or_default();
        let before = account.absent.len();
        let changed = change(account);
        let (after, is_over) = (account.absent.len(), account.sessions == 0);
        if before != after {
            self.by_absent.remove(&(before, principal));
            if after > 0 {
                self.by_absent.insert((after, principal));
            }
        }
        if is_over {
            self.by_principal.remove(&principal);
        }
        changed
    }
}

impl SessionCharge {
    /// Sets the size of the session in bytes. Returns whether its principal is within its share.
    pub(super) fn set_bytes(&mut self, bytes: usize) -> bool {
        let (bytes, before) = (bytes as u64, self.held.bytes());
        if bytes == before {
            return true;
        }
        self.held.set(bytes);
        let total = self.accounts.table.lock().change(self.principal(), |account| {
            account.bytes = (account.bytes + bytes).saturating_sub(before);
            account.bytes
        });
        total <= self.accounts.share.bytes_max as u64 || self.principal() == Principal::GATEWAY
    }

    /// Records that the client of the session has disconnected.
    pub(super) fn leave(&mut self, client: &Arc<str>) {
        let mut table = self.accounts.table.lock();
        table.next += 1;
        let number = table.next;
        table.change(self.principal(), |account| account.absent.insert(number, client.clone()));
        self.absent = NonZeroU64::new(number);
    }
}

impl SessionCharge {
    /// Returns the principal that the session is charged to.
    pub(super) fn principal(&self) -> Principal {
        self.held.owner().principal()
    }
}

impl Drop for SessionCharge {
    fn drop(&mut self) {
        let bytes = self.held.bytes();
        self.accounts.table.lock().change(self.principal(), |account| {
            account.sessions = account.sessions.saturating_sub(1);
            account.bytes = account.bytes.saturating_sub(bytes);
            if let Some(number) = self.absent {
                account.absent.remove(&number.get());
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_counts_what_its_sessions_take_and_closes_with_the_last() {
        let accounts = Accounts::new(Share { sessions_max: 2, bytes_max: 100 }, Budget::unlimited());
        let (mut first, mut second) =
            (accounts.open(Tenant::default(), Principal(1)), accounts.open(Tenant::default(), Principal(1)));
        let has_room = |another| accounts.has_room(Principal(1), another);
        assert!(has_room(false) && !has_room(true));
        assert!(first.set_bytes(60) && !second.set_bytes(60));
        assert!(!has_room(false));
        assert!(second.set_bytes(40) && has_room(false));
        drop(first);
        assert!(has_room(true));
        drop(second);
        assert!(accounts.table.lock().by_principal.is_empty() && accounts.table.lock().by_absent.is_empty());
    }

    #[test]
    fn the_oldest_disconnected_session_of_the_principal_with_the_most_is_discarded() {
        let accounts = Accounts::new(Share { sessions_max: 9, bytes_max: 100 }, Budget::unlimited());
        let mut left = Vec::new();
        for (number, client) in [(1, "a"), (2, "b"), (2, "c"), (2, "d")] {
            let mut charge = accounts.open(Tenant::default(), Principal(number));
            charge.leave(&client.into());
            left.push(charge);
        }
        let _here = accounts.open(Tenant::default(), Principal(3));
        assert_eq!(accounts.oldest_of_most().as_deref(), Some("b"));
        assert_eq!(accounts.oldest_of(Principal(1)).as_deref(), Some("a"));
        assert_eq!(
            accounts.oldest_of(Principal(3)),
            None,
            "the session of a connected client is not discarded"
        );
        drop(left.remove(1));
        assert_eq!(accounts.oldest_of_most().as_deref(), Some("c"));
        left.truncate(1);
        assert_eq!(accounts.oldest_of_most().as_deref(), Some("a"));
    }
}
