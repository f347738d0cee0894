//! Sessions of a store that outlives the gateway: a session goes on at the gateway that its client sends its next request to. In a store that
//! several gateways use, that gateway takes it from the one that has it (see [`SessionClaims`](crate::stream::SessionClaims)).

use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::ReceiverStream;

use super::BoshFront;
use super::awaited::AwaitedSession;
use super::body::{Condition, RequestBody, Sid};
use super::parked::ParkedRequest;
use super::record::{BOSH_SESSIONS, BoshRecord, session_name, sid_of};
use super::session::BoshSession;
use super::state::SESSION_BYTES;
use crate::budget::{Account, Charge};
use crate::clock::ReusableSleep;
use crate::hub::{ClaimNews, SessionWalk, UNCLAIMED_MAX};
use crate::stream::{Failure, Principal, SessionChange};
use crate::xmpp::client::ClientSession;

/// Sessions whose records change at the same time, because they move or have ended.
const MOVED_AT_ONCE: usize = 64;

/// How long a request waits for its session while that moves, or the store does not answer, or the key of its client is not known yet. Keys are
/// fetched again after half a minute.
const SESSION_TIMEOUT: Duration = Duration::from_secs(60);
const ATTEMPT_DELAY: Duration = Duration::from_secs(1);

/// Delay before a request follows its session to the gateway that wanted that, which is not to lose it again at once.
const FOLLOW_DELAY: Duration = Duration::from_millis(100);

/// Where the session of a request is.
enum FoundSession {
    Here(Arc<BoshSession>),
    /// There is none.
    Nowhere,
    /// It cannot be had now.
    Later,
}

impl BoshFront {
    /// Loads the stored sessions, unless several gateways share the store. Each client has `bosh_inactivity` from now on to come back.
    pub async fn load(&self) -> Result<(), Failure> {
        if self.clients.hub.shares_sessions() {
            return Ok(());
        }
        let mut walk = SessionWalk::over(BOSH_SESSIONS);
        while let Some(sessions) = self.clients.hub.next_sessions(&mut walk).await? {
            for session in sessions {
                if let Some(sid) = sid_of(&session.client) {
                    self.await_client(sid, session.entries);
                }
            }
        }
        Ok(())
    }

    /// Waits for the client of a session that this gateway has.
    fn await_client(&self, sid: Sid, entries: Vec<(Bytes, Bytes)>) {
        let until = Instant::now() + self.clients.limits.bosh_inactivity.get();
        let owner = self.clients.hub.budget().owner(Principal::GATEWAY);
        let bytes: usize = entries.iter().map(|(key, value)| key.len() + value.len()).sum();
        let charge = Charge::new(&owner, Account::Sessions, SESSION_BYTES + bytes as u64);
        self.awaited.put(sid, AwaitedSession { entries, until, _charge: charge });
    }

    /// Begins to answer a request whose session may be elsewhere.
    pub(super) fn fetch(self: &Arc<Self>, sid: Sid, body: RequestBody, address: Principal) -> ParkedRequest {
        let owner = self.clients.hub.budget().owner(address);
        // Elements take more memory than their text.
        let bytes = 4 * body.bytes as u64;
        if owner.admit(bytes).is_err() {
            return ParkedRequest::refused(Condition::InternalServerError);
        }
        let charge = Charge::new(&owner, Account::Sessions, bytes);
        let (sender, receiver) = oneshot::channel();
        let front = self.clone();
        tokio::spawn(async move {
            let request = front.fetched(sid, body).await;
            drop(charge);
            // If the connection is lost, the request is dropped, and its session told.
            let _lost = sender.send(request);
        });
        ParkedRequest::fetching(receiver)
    }

    async fn fetched(&self, sid: Sid, body: RequestBody) -> ParkedRequest {
        let mut body = Box::new(body);
        let until = Instant::now() + SESSION_TIMEOUT;
        while Instant::now() < until {
            match self.find(sid).await {
                FoundSession::Here(session) => {
                    let taken = session.take(*body);
                    match ParkedRequest::taken(session, taken) {
                        Ok(request) => return request,
                        Err(moved) => body = moved,
                    }
                }
                FoundSession::Nowhere => return ParkedRequest::refused(Condition::ItemNotFound),
                FoundSession::Later => sleep(ATTEMPT_DELAY).await,
            }
        }
        ParkedRequest::refused(Condition::ItemNotFound)
    }

    /// Finds a session, and takes it from the gateway that has it.
    async fn find(&self, sid: Sid) -> FoundSession {
        let _alone = self.moves.of(&sid).await;
        if let Some(session) = self.session(sid) {
            if !session.has_moved() {
                return FoundSession::Here(session);
            }
            self.forget(&session);
        }
        if let Some(AwaitedSession { entries, .. }) = self.awaited.take(sid) {
            return self.restore(sid, entries).await;
        }
        if !self.clients.hub.shares_sessions() {
            return FoundSession::Nowhere;
        }
        let name = session_name(sid);
        // What does not exist is not claimed.
        match self.clients.hub.stored_session(&name).await {
            Ok(entries) if entries.is_empty() => return FoundSession::Nowhere,
            Ok(_) => {}
            Err(_) => return FoundSession::Later,
        }
        match self.clients.hub.claim(&name).await {
            Ok((entries, _)) => self.restore(sid, entries).await,
            Err(_) => FoundSession::Later,
        }
    }

    /// Goes on with a session that this gateway has.
    async fn restore(&self, sid: Sid, entries: Vec<(Bytes, Bytes)>) -> FoundSession {
        let Some((record, jid)) = BoshRecord::read(&entries).and_then(|record| {
            let jid = record.login.jid()?;
            Some((record, jid))
        }) else {
            if !entries.is_empty() {
                tracing::error!("a stored BOSH session is damaged and ends");
            }
            self.end_record(sid).await;
            return FoundSession::Nowhere;
        };
        let address = Principal(record.login.address);
        match ClientSession::restore(&self.clients, jid, record.login.grants.as_deref(), address) {
            Ok(Some(client)) => {
                let grants = client.grants();
                let principal = grants.principal().unwrap_or(address);
                let owner = self.clients.hub.budget().owner_in(grants.tenant().clone(), principal);
                let charge = Charge::new(&owner, Account::Sessions, 0);
                let session = BoshSession::restore(self.clients.clone(), sid, client, record, charge);
                let session = Arc::new(session);
                *self.counts.lock().entry(address).or_default() += 1;
                self.sessions.insert(sid, session.clone());
                FoundSession::Here(session)
            }
            Ok(None) => {
                self.await_client(sid, entries);
                FoundSession::Later
            }
            // Its rights have ended.
            Err(_) => {
                self.end_record(sid).await;
                FoundSession::Nowhere
            }
        }
    }

    /// Removes what is stored of a session that has ended.
    async fn end_record(&self, sid: Sid) {
        let name = session_name(sid);
        if let Err(error) = self.clients.hub.change_session(SessionChange::end(name.clone())).await {
            tracing::error!(%error, "cannot remove the record of a BOSH session; it ends later");
        }
        self.clients.hub.release(&name, Some(self.clients.clock.now())).await;
    }

    /// Removes what is stored of sessions that have ended.
    pub(super) async fn end_records(&self, sids: Vec<Sid>) {
        stream::iter(sids).for_each_concurrent(MOVED_AT_ONCE, |sid| self.end_record(sid)).await;
    }

    /// Ends sessions because the gateway drains.
    pub(super) async fn leave_all(self: &Arc<Self>, sessions: &[Arc<BoshSession>]) {
        stream::iter(sessions).for_each_concurrent(MOVED_AT_ONCE, |session| self.leave(session)).await;
    }

    /// Ends a session because the gateway drains. One that is stored goes on at another gateway, or once this one is started again.
    async fn leave(self: &Arc<Self>, session: &Arc<BoshSession>) {
        if !session.is_stored() {
            session.shut_down();
        } else if self.clients.hub.shares_sessions() {
            self.give(session_name(session.sid)).await;
        } else {
            session.answer_early();
        }
    }

    /// Gives a session to the gateway that wants it, or has it already.
    async fn give(self: &Arc<Self>, name: Arc<str>) {
        let Some(sid) = sid_of(&name) else { return };
        let alone = self.moves.of(&sid).await;
        self.awaited.take(sid);
        let session = self.session(sid);
        if let Some(session) = &session {
            if session.has_ended() {
                return self.end_record(sid).await;
            }
            session.leave().await;
            self.forget(session);
        }
        self.clients.hub.release(&name, Some(self.clients.clock.now() + UNCLAIMED_MAX)).await;
        drop(alone);
        if let Some((body, response)) = session.and_then(|session| session.give_early()) {
            let front = self.clone();
            tokio::spawn(async move {
                sleep(FOLLOW_DELAY).await;
                let mut request = front.fetched(sid, body).await;
                let mut timer = ReusableSleep::default();
                let mut response = response;
                tokio::select! {
                    body = poll_fn(|cx| request.poll_response(&mut timer, cx)) => {
                        let _lost = response.send(body);
                    }
                    () = response.closed() => {}
                }
            });
        }
    }

    /// Waits for the client of a session whose gateway has ended.
    async fn take_orphan(&self, name: Arc<str>) {
        let Some(sid) = sid_of(&name) else { return };
        let _alone = self.moves.of(&sid).await;
        if self.awaited.has(sid) || self.session(sid).is_some_and(|session| !session.has_moved()) {
            return;
        }
        // If another gateway has it, or the store does not answer, there is nothing to do for now.
        match self.clients.hub.claim_orphan(&name).await {
            Ok(Some(entries)) if entries.is_empty() => self.clients.hub.release(&name, None).await,
            Ok(Some(entries)) => self.await_client(sid, entries),
            Ok(None) | Err(_) => {}
        }
    }

    async fn take_news(self: &Arc<Self>, news: ClaimNews) {
        match news {
            ClaimNews::Wanted(name) => self.give(name).await,
            ClaimNews::Orphaned(name) => self.take_orphan(name).await,
            ClaimNews::Known(_) | ClaimNews::Gone(_) | ClaimNews::Told(..) | ClaimNews::Missed => {}
        }
    }

    /// Follows what other gateways want. Never returns; runs as long as it is polled.
    pub(super) async fn follow_claims(self: &Arc<Self>) {
        let news = ReceiverStream::new(self.clients.hub.follow_claims(BOSH_SESSIONS));
        news.for_each_concurrent(MOVED_AT_ONCE, |heard| self.take_news(heard)).await;
        // The hub, which tells the news, has ended.
        pending().await
    }
}
