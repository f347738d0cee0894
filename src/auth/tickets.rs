//! Tickets: short-lived credentials for URLs.
//!
//! A browser's `EventSource` and `WebSocket` cannot send header fields, and a token must not be in a URL. A client exchanges its
//! token for a ticket, which is good for one purpose on the streams that it named. Only digests of tickets are kept.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN, digest};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::time::Instant;

use super::grants::Grants;
use crate::stream::StreamName;

/// The length of a ticket before its encoding, in bytes.
const TICKET_BYTES: usize = 32;

/// How long a ticket can wait for its first use.
pub const TICKET_LIFE: Duration = Duration::from_secs(30);

/// For how long after its first use a ticket can be used again: an `EventSource` repeats its URL when its connection breaks.
const REUSE_TIME: Duration = Duration::from_secs(60);

/// Memory of the grants that the tickets stand for. Those of one token may have 16 KiB.
const GRANTS_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How often a ticket can be used.
const USES_MAX: u32 = 16;

type Digest = [u8; SHA256_OUTPUT_LEN];

/// What a ticket is good for: a purpose, such as a delivery form, on exactly these streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TicketScope(Digest);

/// The tickets that have been issued and can still be used.
#[derive(Debug)]
pub struct Tickets {
    max: usize,
    max_of_subject: usize,
    random: SystemRandom,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    by_digest: HashMap<Digest, Ticket>,
    /// When each ticket ends.
    ends: BTreeSet<(Instant, Digest)>,
    /// Tickets of each subject.
    subjects: HashMap<Arc<str>, usize>,
    /// Memory of the grants, each counted once a ticket.
    grants_bytes: usize,
}

#[derive(Debug)]
struct Ticket {
    scope: TicketScope,
    grants: Arc<Grants>,
    subject: Arc<str>,
    ends: Instant,
    uses: u32,
}

/// Why no ticket is issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketRefused {
    /// The client has no token.
    #[error("a ticket is issued for a token only")]
    Anonymous,
    /// There are too many tickets.
    #[error(
        "too many tickets that can still be used; a ticket ends 30 s after its issue, or 60 s after its first use"
    )]
    TooMany,
}

impl TicketScope {
    /// The scope of `purpose` on `streams`, in any order.
    pub fn new<'a>(purpose: &str, streams: impl IntoIterator<Item = &'a StreamName>) -> Self {
        let mut names: Vec<&str> = streams.into_iter().map(StreamName::as_str).collect();
        names.sort_unstable();
        let mut context = Context::new(&SHA256);
        // No name contains NUL, so that different lists are different bytes.
        for part in std::iter::once(purpose).chain(names) {
            context.update(part.as_bytes());
            context.update(b"\0");
        }
        Self(bytes_of(context.finish()))
    }
}

impl Tickets {
    /// Keeps at most `max` tickets, and at most `max_of_subject` of one subject; each takes about 300 bytes.
    pub fn new(max: usize, max_of_subject: usize) -> Self {
        Self { max, max_of_subject, random: SystemRandom::new(), state: Mutex::default() }
    }

    /// Issues a ticket that stands for `grants`.
    pub fn issue(
        &self,
        grants: &Arc<Grants>,
        scope: TicketScope,
        now: Instant,
    ) -> Result<String, TicketRefused> {
        let subject: Arc<str> = grants.subject().ok_or(TicketRefused::Anonymous)?.into();
        let mut bytes = [0; TICKET_BYTES];
        self.random.fill(&mut bytes).map_err(|_| TicketRefused::TooMany)?;
        let text = URL_SAFE_NO_PAD.encode(bytes);
        let mut state = self.state.lock();
        state.drop_ended(now);
        let of_subject = state.subjects.get(&subject).copied().unwrap_or_default();
        let is_full = state.by_digest.len() >= self.max || state.grants_bytes >= GRANTS_BYTES_MAX;
        if is_full || of_subject >= self.max_of_subject {
            return Err(TicketRefused::TooMany);
        }
        let (id, ends) = (digest_of(&text), now + TICKET_LIFE);
        state.subjects.insert(subject.clone(), of_subject + 1);
        state.ends.insert((ends, id));
        state.grants_bytes += grants.bytes();
        state.by_digest.insert(id, Ticket { scope, grants: grants.clone(), subject, ends, uses: 0 });
        Ok(text)
    }

    /// Uses a ticket. `None`: it is unknown, has ended, is for another scope, or was used too often. The caller checks that the grants
    /// still count.
    pub fn redeem(&self, ticket: &str, scope: TicketScope, now: Instant) -> Option<Arc<Grants>> {
        let id = digest_of(ticket);
        let mut state = self.state.lock();
        state.drop_ended(now);
        let found = state.by_digest.get_mut(&id)?;
        if found.scope != scope || found.uses >= USES_MAX {
            return None;
        }
        found.uses += 1;
        let grants = found.grants.clone();
        if found.uses == 1 {
            let waited_until = std::mem::replace(&mut found.ends, now + REUSE_TIME);
            state.ends.remove(&(waited_until, id));
            state.ends.insert((now + REUSE_TIME, id));
        }
        Some(grants)
    }
}

impl State {
    fn drop_ended(&mut self, now: Instant) {
        while let Some((_, id)) = self.ends.first().copied().filter(|(ends, _)| *ends <= now) {
            self.ends.pop_first();
            let Some(Ticket { subject, grants, .. }) = self.by_digest.remove(&id) else { continue };
            self.grants_bytes -= grants.bytes();
            if let Some(count) = self.subjects.get_mut(&subject) {
                *count -= 1;
                if *count == 0 {
                    self.subjects.remove(&subject);
                }
            }
        }
    }
}

fn digest_of(text: &str) -> Digest {
    bytes_of(digest(&SHA256, text.as_bytes()))
}

fn bytes_of(digest: ring::digest::Digest) -> Digest {
    let mut bytes = Digest::default();
    bytes.copy_from_slice(digest.as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::auth::grants::GrantList;
    use crate::stream::Tenant;

    fn grants(subject: &str) -> Arc<Grants> {
        Arc::new(Grants::of(Tenant::default(), subject, GrantList::default(), SystemTime::UNIX_EPOCH, None))
    }

    fn scope(purpose: &str, streams: &[&str]) -> TicketScope {
        let names: Vec<_> = streams.iter().map(|name| StreamName::parse(name).unwrap()).collect();
        TicketScope::new(purpose, &names)
    }

    #[test]
    fn a_ticket_is_good_for_its_purpose_on_its_streams_only() {
        let (tickets, now) = (Tickets::new(10, 10), Instant::now());
        let ticket = tickets.issue(&grants("a"), scope("sse", &["x", "y"]), now).unwrap();
        assert_eq!(ticket.len(), 43);
        for other in [
            scope("websocket", &["x", "y"]),
            scope("sse", &["x"]),
            scope("sse", &["x", "y", "z"]),
            scope("sse", &["xy"]),
        ] {
            assert!(tickets.redeem(&ticket, other, now).is_none());
        }
        assert!(tickets.redeem(&ticket[1..], scope("sse", &["x", "y"]), now).is_none());
        let redeemed = tickets.redeem(&ticket, scope("sse", &["y", "x"]), now).unwrap();
        assert_eq!(redeemed.subject(), Some("a"));
    }

    #[test]
    fn a_ticket_waits_for_half_a_minute_and_is_good_for_a_minute_after_its_first_use() {
        let (tickets, begin, scope) = (Tickets::new(10, 10), Instant::now(), scope("sse", &["x"]));
        let at = |seconds| begin + Duration::from_secs(seconds);
        let unused = tickets.issue(&grants("a"), scope, begin).unwrap();
        let used = tickets.issue(&grants("a"), scope, begin).unwrap();
        assert!(tickets.redeem(&used, scope, at(29)).is_some());
        assert!(tickets.redeem(&unused, scope, at(30)).is_none());
        for use_ in 2..=USES_MAX {
            assert!(tickets.redeem(&used, scope, at(88)).is_some(), "{use_}");
        }
        assert!(tickets.redeem(&used, scope, at(88)).is_none());
        let used = tickets.issue(&grants("a"), scope, begin).unwrap();
        assert!(tickets.redeem(&used, scope, begin).is_some());
        assert!(tickets.redeem(&used, scope, at(60)).is_none());
    }

    #[test]
    fn tickets_are_bounded_for_each_subject_and_in_all_and_nothing_of_one_outlives_it() {
        let (tickets, begin, scope) = (Tickets::new(3, 2), Instant::now(), scope("sse", &["x"]));
        let issue = |subject: &str, now| tickets.issue(&grants(subject), scope, now);
        assert!(issue("a", begin).is_ok() && issue("a", begin).is_ok());
        assert_eq!(issue("a", begin), Err(TicketRefused::TooMany));
        assert!(issue("b", begin).is_ok());
        assert_eq!(issue("c", begin), Err(TicketRefused::TooMany));
        assert!(issue("a", begin + TICKET_LIFE).is_ok());
        let state = tickets.state.lock();
        assert_eq!((state.by_digest.len(), state.ends.len(), state.subjects.len()), (1, 1, 1));
        assert_eq!(state.grants_bytes, grants("a").bytes());
        drop(state);
        let anonymous = Arc::new(Grants::anonymous(GrantList::default()));
        assert_eq!(tickets.issue(&anonymous, scope, begin), Err(TicketRefused::Anonymous));
    }

    #[test]
    fn tickets_of_large_grants_are_bounded_by_their_memory() {
        let (tickets, now) = (Tickets::new(usize::MAX, usize::MAX), Instant::now());
        let subject = "x".repeat(100_000);
        let issued =
            (0..1000).take_while(|_| tickets.issue(&grants(&subject), scope("sse", &["x"]), now).is_ok());
        let issued = issued.count();
        assert_eq!(issued, GRANTS_BYTES_MAX.div_ceil(grants(&subject).bytes()));
    }

    #[test]
    fn debug_output_does_not_show_a_ticket() {
        let (tickets, now) = (Tickets::new(10, 10), Instant::now());
        let ticket = tickets.issue(&grants("a"), scope("sse", &["x"]), now).unwrap();
        assert!(!format!("{tickets:?}").contains(&ticket));
    }
}
