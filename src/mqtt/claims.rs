//! Sessions of a store that several gateways use: a session that has no connection is in the store alone, and the gateway that a client
//! connects to claims it. When it is due, because it expires or has a will, one of the gateways claims it.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::Broker;
use super::codec::Reason;
use super::groups::stored::GROUP_SESSIONS;
use super::publish::failed;
use super::sessions::{Attached, Away, SessionFound};
use crate::hub::ClaimNews;
use crate::stream::{SessionNames, StoredSession};

/// Sessions that are looked at concurrently, because they are due or their gateway has ended.
const ORPHANS_AT_ONCE: usize = 64;

impl Broker {
    /// Takes the session of a client that has connected from the gateway that has it. Returns whether another one had a connection
    /// of the client.
    pub(super) async fn claim(&self, found: SessionFound) -> Result<(SessionFound, bool), Reason> {
        if !self.hub.shares_sessions() {
            return Ok((found, false));
        }
        let client = found.attached.client().clone();
        let (entries, was_elsewhere) = self.hub.claim(&client).await.map_err(failed)?;
        let mut away = (!entries.is_empty()).then(|| self.restore(StoredSession { client, entries }, &[]));
        if let Some(Away { session, .. }) = &mut away {
            let mut groups = Vec::new();
            for key in session.shared_keys() {
                let group = self.groups.group(&key);
                self.claim_group(&group).await;
                groups.push(group);
            }
            session.restore_groups(&groups);
        }
        Ok((SessionFound { away, ..found }, was_elsewhere))
    }

    /// Gives a session back: keeps it for the next connection of its client, or forgets it if it is over (`None`).
    pub(super) async fn give_back(&self, attached: Attached, away: Option<Away>) {
        if self.hub.shares_sessions() {
            let due = away.map(|away| self.clock.at(away.due()));
            self.hub.release(attached.client(), due).await;
        } else if let Some(away) = away {
            attached.detach(away);
        }
    }

    /// Ends connections whose clients have come to another gateway, and looks at sessions without a gateway. Never returns; runs as
    /// long as it is polled.
    pub(super) async fn follow_claims(&self) {
        tokio::join!(self.follow_client_claims(), self.follow_group_claims());
    }

    async fn follow_client_claims(&self) {
        let mut news = self.hub.follow_claims(SessionNames::OfClients);
        let mut orphans = FuturesUnordered::new();
        loop {
            tokio::select! {
                heard = news.recv(), if orphans.len() < ORPHANS_AT_ONCE => match heard {
                    Some(ClaimNews::Wanted(client)) => self.yield_session(&client).await,
                    Some(ClaimNews::Orphaned(client)) => orphans.push(self.look_at_orphan(client)),
                    Some(
                        ClaimNews::Known(_) | ClaimNews::Gone(_) | ClaimNews::Told(..) | ClaimNews::Missed,
                    ) => {}
                    None => std::future::pending().await,
                },
                Some(()) = orphans.next() => {}
            }
        }
    }

    async fn follow_group_claims(&self) {
        let mut news = self.hub.follow_claims(SessionNames::Own(GROUP_SESSIONS));
        while let Some(heard) = news.recv().await {
            match heard {
                ClaimNews::Wanted(group) => self.lose_group(&group),
                ClaimNews::Orphaned(group) => self.look_at_group(&group).await,
                ClaimNews::Known(_) | ClaimNews::Gone(_) | ClaimNews::Told(..) | ClaimNews::Missed => {}
            }
        }
    }

    /// Leaves a session to the gateway that wants it. A connection, or who looks at the session at the moment, releases it at its end.
    async fn yield_session(&self, client: &Arc<str>) {
        if !self.sessions.supersede(client)
            && let Some(_nobody_else_claims_it) = self.sessions.attach_vacant(client)
        {
            self.hub.release(client, Some(self.clock.now())).await;
        }
    }

    async fn look_at_orphan(&self, client: Arc<str>) {
        let Some(attached) = self.sessions.attach_vacant(&client) else { return };
        // If another gateway has it, or the store does not answer, there is nothing to do for now.
        let Ok(Some(entries)) = self.hub.claim_orphan(&client).await else { return };
        if entries.is_empty() {
            return self.give_back(attached, None).await;
        }
        let away = self.restore(StoredSession { client, entries }, &[]);
        self.look_at(attached, away, self.clock.instant()).await;
    }
}
