//! [`ComponentTurn`]: in a store that several gateways use, one of them at a time is the component, and has its subscriptions. When it ends or
//! has no link, another one goes on with what is stored.
//!
//! All subscriptions are in one session of the store, so that its owner alone can change them.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::hub::{ClaimNews, Hub};
use crate::stream::SessionNames;
use crate::xmpp::jid::Jid;

/// What the names of these sessions begin with, before that of the component; see [`OWN_SESSIONS`](crate::stream::OWN_SESSIONS).
const COMPONENT_SESSIONS: &str = "\0component/";

/// How often a gateway without a turn asks for it.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

/// The turn of this gateway to be the component.
pub(super) struct ComponentTurn {
    hub: Arc<Hub>,
    session: Arc<str>,
    news: mpsc::Receiver<ClaimNews>,
}

impl ComponentTurn {
    /// The turns of the component `name`. `None`: this gateway alone uses the store, and always has the turn.
    pub(super) fn new(hub: &Arc<Hub>, name: &Jid) -> Option<Self> {
        hub.shares_sessions().then(|| Self {
            hub: hub.clone(),
            session: [COMPONENT_SESSIONS, name.as_str()].concat().into(),
            news: hub.follow_claims(SessionNames::Own(COMPONENT_SESSIONS)),
        })
    }

    /// The session with the subscriptions.
    pub(super) fn session(&self) -> &Arc<str> {
        &self.session
    }

    /// Waits until this gateway has the turn, and returns what is stored.
    pub(super) async fn begin(&mut self) -> Vec<(Bytes, Bytes)> {
        loop {
            while self.news.try_recv().is_ok() {}
            match self.hub.claim_orphan(&self.session).await {
                Ok(Some(stored)) => return stored,
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "cannot ask which gateway is the XMPP component"),
            }
            sleep(ASK_INTERVAL).await;
        }
    }

    /// Waits until another gateway has taken the turn. Cancel safe.
    pub(super) async fn is_lost(&mut self) {
        loop {
            match self.news.recv().await {
                Some(ClaimNews::Wanted(session)) if session == self.session => return,
                Some(_) => {}
                // The hub, which has the sender, has ended.
                None => pending().await,
            }
        }
    }

    /// Leaves the turn to other gateways.
    pub(super) async fn end(&self) {
        self.hub.release(&self.session, None).await;
    }
}
