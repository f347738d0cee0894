//! [`BoshFront`]: XMPP in HTTP requests (BOSH, XEP-0124 version 1.11 and XEP-0206), for the clients of a [`ClientFront`].
//!
//! `body` parses requests and builds responses, and `window` keeps their order; both have no IO. `session` is a session with its `state`:
//! it takes requests, its task in `work` handles them, and `responses` answers. [`ParkedRequest`] is a request that waits for something to
//! send. `record` is what is stored of a session, and `moving` lets it go on at another gateway or after a restart.

mod awaited;
mod body;
mod moving;
mod parked;
mod record;
mod responses;
mod session;
mod state;
#[cfg(test)]
mod tests;
mod window;
mod work;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use parking_lot::Mutex;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::task::consume_budget;
use tokio::time::{Instant, interval, sleep};

use super::client::{ClientFront, LOGIN_BYTES_MAX};
use super::drain_begins;
use crate::budget::{Account, Charge};
use crate::hub::Moves;
use crate::stream::Principal;
use awaited::AwaitedSessions;
use body::{Condition, RequestBody, SessionTarget, Sid, Wishes};
pub use parked::ParkedRequest;
use session::BoshSession;
use state::SESSION_BYTES;

/// Interval at which sessions are checked for the end of their time.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Batches in which a drain ends the sessions.
const DRAIN_BATCHES: usize = 100;

/// While memory is critical, each check answers one in this many waiting requests early.
const ANSWERED_EARLY_PART: usize = 10;

/// Serves clients that talk in HTTP requests.
pub struct BoshFront {
    clients: Arc<ClientFront>,
    sessions: DashMap<Sid, Arc<BoshSession>>,
    /// Number of sessions by the principals of network addresses.
    counts: Mutex<HashMap<Principal, usize>>,
    /// Sessions that have been stored, and wait for their clients.
    awaited: AwaitedSessions,
    /// Sessions that move between gateways.
    moves: Moves,
    random: SystemRandom,
}

impl BoshFront {
    /// Serves clients of `clients`.
    pub fn new(clients: Arc<ClientFront>) -> Self {
        let (sessions, counts, awaited) = (DashMap::new(), Mutex::default(), AwaitedSessions::default());
        Self { clients, sessions, counts, awaited, moves: Moves::default(), random: SystemRandom::new() }
    }

    /// Begins to answer a request with this body, without waiting. `address` is the principal of the client's network address.
    pub fn begin(self: &Arc<Self>, body: &[u8], address: Principal) -> ParkedRequest {
        let begun = RequestBody::parse(body, self.clients.limits.xmpp_stanza_bytes_max);
        let begun = begun.and_then(|(target, body)| match target {
            SessionTarget::New(wishes) => self.open(&body, &wishes, address).map(ParkedRequest::answered),
            SessionTarget::Session(sid) => match self.session(sid) {
                Some(session) => {
                    let taken = session.take(body);
                    let request = ParkedRequest::taken(session, taken);
                    Ok(request.unwrap_or_else(|moved| self.fetch(sid, *moved, address)))
                }
                None if self.clients.hub.keeps_sessions() => Ok(self.fetch(sid, body, address)),
                None => Err(Condition::ItemNotFound),
            },
        });
        begun.unwrap_or_else(ParkedRequest::refused)
    }

    fn session(&self, sid: Sid) -> Option<Arc<BoshSession>> {
        self.sessions.get(&sid).map(|session| session.clone())
    }

    /// Opens a session. Returns the response.
    fn open(&self, body: &RequestBody, wishes: &Wishes, address: Principal) -> Result<Bytes, Condition> {
        match &wishes.to {
            None => return Err(Condition::ImproperAddressing),
            Some(to) if to != self.clients.domain.as_str() => return Err(Condition::HostUnknown),
            Some(_) if self.clients.hub.is_draining() => return Err(Condition::SystemShutdown),
            Some(_) if body.bytes > LOGIN_BYTES_MAX => return Err(Condition::PolicyViolation),
            Some(_) => {}
        }
        let owner = self.clients.hub.budget().owner(address);
        owner.admit(SESSION_BYTES).map_err(|_| Condition::InternalServerError)?;
        let mut sid = [0; size_of::<u128>()];
        self.random.fill(&mut sid).map_err(|_| Condition::InternalServerError)?;
        let sid = Sid(u128::from_be_bytes(sid));
        self.count(address)?;
        let charge = Charge::new(&owner, Account::Sessions, SESSION_BYTES);
        let (session, response) =
            BoshSession::open(self.clients.clone(), sid, address, (body.rid, wishes), charge);
        self.sessions.insert(sid, Arc::new(session));
        Ok(response)
    }

    /// Counts one session more of an address.
    fn count(&self, address: Principal) -> Result<(), Condition> {
        let limits = &self.clients.limits;
        let mut counts = self.counts.lock();
        let count = counts.get(&address).copied().unwrap_or_default();
        if self.sessions.len() >= limits.bosh_sessions_max || count >= limits.bosh_sessions_per_address_max {
            return Err(Condition::PolicyViolation);
        }
        counts.insert(address, count + 1);
        Ok(())
    }

    /// Forgets a session that has ended or moved.
    fn forget(&self, session: &Arc<BoshSession>) {
        if self.sessions.remove_if(&session.sid, |_, other| Arc::ptr_eq(other, session)).is_none() {
            return;
        }
        session.count_moved();
        let mut counts = self.counts.lock();
        match counts.get_mut(&session.address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(counts.remove(&session.address)),
        }
    }

    /// Ends sessions in time, moves them between gateways, and ends or stores all of them when the gateway drains. Never returns.
    pub async fn run(self: Arc<Self>) {
        let mut draining = self.clients.hub.draining();
        let check = async {
            tokio::select! {
                () = self.check() => {}
                () = drain_begins(&mut draining) => self.drain().await,
            }
        };
        tokio::join!(check, self.follow_claims());
    }

    async fn check(&self) {
        let mut interval = interval(CHECK_INTERVAL);
        loop {
            interval.tick().await;
            let (now, wall) = (Instant::now(), self.clients.clock.wall());
            let is_critical = self.clients.hub.budget().is_critical();
            let mut ended = self.awaited.take_ended(now);
            for session in self.all() {
                consume_budget().await;
                if session.has_ended() {
                    self.forget(&session);
                    if session.is_stored() {
                        ended.push(session.sid);
                    }
                    continue;
                }
                session.check(now, wall);
                if is_critical && fastrand::usize(..ANSWERED_EARLY_PART) == 0 {
                    session.answer_early();
                }
            }
            self.end_records(ended).await;
        }
    }

    /// Ends all sessions, evenly over the time of a drain. Those that are stored go on elsewhere.
    async fn drain(self: &Arc<Self>) {
        let sessions = self.all();
        let batches: Vec<_> = sessions.chunks(sessions.len().div_ceil(DRAIN_BATCHES).max(1)).collect();
        for batch in &batches {
            self.leave_all(batch).await;
            sleep(self.clients.limits.drain_spread.get() / u32::try_from(batches.len()).unwrap_or(u32::MAX))
                .await;
        }
        self.leave_all(&self.all()).await;
    }

    /// All sessions.
    fn all(&self) -> Vec<Arc<BoshSession>> {
        self.sessions.iter().map(|entry| entry.value().clone()).collect()
    }
}
