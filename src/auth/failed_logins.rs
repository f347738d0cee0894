//! Limits the invalid tokens of each address, so that nobody can use up the processor with signature checks.
//!
//! An address may send some invalid tokens within a time. After that, unknown tokens from it are checked only after a delay, which
//! doubles with each further invalid one, up to a maximum. What that means for the other clients behind the same address, such as
//! that of a NAT:
//!
//! * A token in the cache of verified ones is not affected. So a client that is at work stays at work until it needs its next token.
//! * The delay is short, and ends whether or not invalid tokens keep coming: then the next unknown token is checked. If it is valid,
//!   nothing is added to the delay.
//! * A token that has just been refused does not take that turn when it comes again: a client that repeats an expired token for ever
//!   costs no check and does not keep the others out. Only somebody who sends ever new invalid tokens competes with them.
//!
//! The table is bounded. The address whose first invalid token is the oldest gives way.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::clock::Backoff;

use crate::limits::Limits;
use crate::stream::Principal;

/// Refused tokens of an address that are remembered.
const REMEMBERED: usize = 4;

/// What is allowed.
#[derive(Debug, Clone, Copy)]
struct Policy {
    /// Invalid tokens within the window that have no consequence. 0: any number.
    failures_max: u32,
    /// How long the failures of an address are counted, from the first.
    window: Duration,
    delay: Duration,
    delay_max: Duration,
    addresses_max: usize,
}

/// The invalid tokens of all addresses.
#[derive(Debug)]
pub(super) struct FailedLogins {
    policy: Policy,
    table: Mutex<FailureTable>,
}

#[derive(Debug, Default)]
struct FailureTable {
    by_address: HashMap<Principal, Failures>,
    /// Each address of the table, in the order of the first failures.
    order: VecDeque<(Instant, Principal)>,
}

/// The invalid tokens of one address.
#[derive(Debug)]
struct Failures {
    count: u32,
    /// No unknown token is checked before.
    until: Instant,
    /// The beginnings of the digests of the latest ones.
    latest: [u64; REMEMBERED],
}

impl FailedLogins {
    pub(super) fn new(limits: &Limits) -> Self {
        let policy = Policy {
            failures_max: limits.failed_logins_max,
            window: limits.failed_logins_window.get(),
            delay: limits.failed_login_delay.get(),
            delay_max: limits.failed_login_delay_max.get(),
            addresses_max: limits.failed_login_addresses_max.max(1),
        };
        Self { policy, table: Mutex::default() }
    }

    /// Tells whether an unknown token may be checked, or for how long it may not. `token` is the beginning of its digest.
    pub(super) fn admit(&self, address: Principal, token: u64, now: Instant) -> Result<(), Duration> {
        let mut table = self.table.lock();
        table.forget(self.policy.window, now);
        let Some(failures) = table.by_address.get(&address) else { return Ok(()) };
        let beyond = match failures.count.checked_sub(self.policy.failures_max) {
            Some(beyond) if self.policy.failures_max > 0 => beyond,
            _ => return Ok(()),
        };
        let left = failures.until.saturating_duration_since(now);
        if !left.is_zero() {
            Err(left)
        } else if failures.latest.contains(&token) {
            Err(self.policy.delay_of(beyond))
        } else {
            Ok(())
        }
    }

    /// Counts an invalid token.
    pub(super) fn failed(&self, address: Principal, token: u64, now: Instant) {
        if self.policy.failures_max == 0 {
            return;
        }
        let mut table = self.table.lock();
        table.forget(self.policy.window, now);
        if !table.by_address.contains_key(&address) {
            while table.by_address.len() >= self.policy.addresses_max {
                table.forget_oldest();
            }
            table.order.push_back((now, address));
        }
        let none = Failures { count: 0, until: now, latest: [0; REMEMBERED] };
        let failures = table.by_address.entry(address).or_insert(none);
        if let Some(place) = failures.latest.get_mut(failures.count as usize % REMEMBERED) {
            *place = token;
        }
        failures.count = failures.count.saturating_add(1);
        if let Some(beyond) = failures.count.checked_sub(self.policy.failures_max) {
            failures.until = now + self.policy.delay_of(beyond);
        }
    }
}

impl Policy {
    /// The delay after the last failure without consequence, and `beyond` further ones.
    fn delay_of(&self, beyond: u32) -> Duration {
        Backoff { first: self.delay, max: self.delay_max }.bound(beyond.saturating_add(1))
    }
}

impl FailureTable {
    /// Drops the addresses whose window is over.
    fn forget(&mut self, window: Duration, now: Instant) {
        while self.order.front().is_some_and(|(first, _)| now.saturating_duration_since(*first) >= window) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, address)) = self.order.pop_front() {
            self.by_address.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Span;

    const ONE: Principal = Principal(1);
    const OTHER: Principal = Principal(2);
    const SECOND: Duration = Duration::from_secs(1);

    fn logins() -> FailedLogins {
        FailedLogins::new(&Limits {
            failed_logins_max: 3,
            failed_logins_window: Span::seconds(60),
            failed_login_delay: Span::seconds(1),
            failed_login_delay_max: Span::seconds(5),
            failed_login_addresses_max: 2,
            ..Limits::default()
        })
    }

    #[test]
    fn further_invalid_tokens_of_an_address_wait_ever_longer_up_to_a_maximum() {
        let (logins, start) = (logins(), Instant::now());
        for token in 1..=3 {
            assert_eq!(logins.admit(ONE, token, start), Ok(()));
            logins.failed(ONE, token, start);
        }
        let mut at = start;
        for (token, delay) in (4..).zip([1, 2, 4, 5, 5]) {
            assert_eq!(logins.admit(ONE, token, at), Err(delay * SECOND), "{token}");
            at += delay * SECOND;
            assert_eq!(logins.admit(ONE, token, at), Ok(()), "the delay is over: {token}");
            logins.failed(ONE, token, at);
        }
        assert_eq!(logins.admit(OTHER, 9, at), Ok(()), "another address");
        assert_eq!(logins.admit(ONE, 9, start + 60 * SECOND), Ok(()), "the window is over");
    }

    #[test]
    fn a_token_that_is_repeated_does_not_take_the_turn_of_a_neighbour() {
        let (logins, start) = (logins(), Instant::now());
        for _ in 0..3 {
            logins.failed(ONE, 7, start);
        }
        let later = start + SECOND;
        for _ in 0..100 {
            assert_eq!(logins.admit(ONE, 7, later), Err(SECOND));
        }
        assert_eq!(logins.admit(ONE, 8, later), Ok(()));
    }

    #[test]
    fn the_table_is_bounded() {
        let (logins, start) = (logins(), Instant::now());
        for address in 0..1000 {
            logins.failed(Principal(address), 7, start);
        }
        let table = logins.table.lock();
        assert_eq!((table.by_address.len(), table.order.len()), (2, 2));
        assert!(table.by_address.contains_key(&Principal(999)));
    }

    #[test]
    fn the_limit_can_be_turned_off() {
        let logins = FailedLogins::new(&Limits { failed_logins_max: 0, ..Limits::default() });
        for token in 0..100 {
            logins.failed(ONE, token, Instant::now());
            assert_eq!(logins.admit(ONE, token, Instant::now()), Ok(()));
        }
    }
}
