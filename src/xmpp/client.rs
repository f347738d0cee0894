//! [`ClientFront`]: the gateway as the XMPP server of its own clients, which log in with a token and talk to the publish-subscribe
//! service of the domain. There are no other services: nobody is reached by address, and rosters are empty.
//!
//! `login` negotiates a stream up to the address of the client and `sasl` reads its credentials, both without IO; `negotiation` verifies
//! the credentials. `session` is a client that has logged in; its subscriptions end with it, unless `managed` and `management` keep them for a
//! stream that is resumed. `push` makes it a device that is woken. `websocket` drives all of it over a WebSocket (RFC 7395).

mod acks;
mod claims;
#[cfg(test)]
#[path = "../../fuzz/xmpp_stream.rs"]
mod fuzz;
mod login;
mod managed;
mod management;
mod negotiation;
mod push;
mod resumption;
mod sasl;
mod session;
#[cfg(test)]
pub(super) mod tests;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::interval;

use super::jid::{InvalidJid, Jid};
use crate::access_log::audit::AuditLog;
use crate::auth::{Authenticator, Grants, Unauthorized};
use crate::budget::OpenCharge;
use crate::clock::Clock;
use crate::hub::{Hub, Moves};
use crate::limits::Limits;
use crate::metrics::{Metrics, XmppMetrics};
use crate::stream::{Failure, Principal, SessionChange};
pub(super) use login::StreamError;
pub(super) use negotiation::{Negotiation, NegotiationStep};
use resumption::{ResumableStreams, record_name};
use sasl::{Credentials, Proof, SaslError};
pub(super) use session::ClientSession;

/// Interval at which streams end that were not resumed in time.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// How long a client may take to log in.
pub(super) const LOGIN_TIMEOUT: Duration = Duration::from_secs(15);

/// Maximum size of what a client sends at once before it has logged in, in bytes: a token in base64, and what is around it.
pub(super) const LOGIN_BYTES_MAX: usize = 16 * 1024;

/// Serves clients that connect to the gateway itself.
pub struct ClientFront {
    pub(super) hub: Arc<Hub>,
    pub(super) limits: Arc<Limits>,
    pub(super) metrics: XmppMetrics,
    pub(super) clock: Clock,
    pub(super) auth: Arc<Authenticator>,
    pub(super) domain: Jid,
    streams: Arc<ResumableStreams>,
    /// Streams that move between gateways.
    moves: Moves,
    /// `None`: there is no audit log.
    audit_log: Option<AuditLog>,
}

/// What a client may do, and its place among the connections of its tenant.
struct AdmittedClient {
    grants: Arc<Grants>,
    open: Option<OpenCharge>,
}

impl ClientFront {
    /// Creates the front of `hub` for clients of `domain`.
    pub fn new(
        hub: Arc<Hub>,
        limits: Arc<Limits>,
        metrics: &Metrics,
        clock: Clock,
        auth: Arc<Authenticator>,
        domain: &str,
    ) -> Result<Self, InvalidJid> {
        let domain = Jid::parse_domain(domain)?;
        let (metrics, streams) = (metrics.xmpp().clone(), Arc::new(ResumableStreams::new(&limits)));
        let moves = Moves::default();
        Ok(Self { hub, limits, metrics, clock, auth, domain, streams, moves, audit_log: None })
    }

    /// Loads the streams that the store has kept, before clients are served.
    pub async fn load(&self) -> Result<(), Failure> {
        self.streams.load(&self.hub, self.clock).await
    }

    /// Ends streams that were not resumed in time, and moves streams between gateways. Never returns.
    pub async fn sweep(&self) {
        tokio::join!(self.end_streams(), self.follow_claims());
    }

    async fn end_streams(&self) {
        let mut interval = interval(SWEEP_INTERVAL);
        loop {
            interval.tick().await;
            for id in self.streams.take_ended(self.clock.instant()) {
                self.forget_stream(&id).await;
            }
            self.metrics.suspended.set(i64::try_from(self.streams.suspended()).unwrap_or(i64::MAX));
        }
    }

    /// Removes the record of a stream that has ended.
    async fn forget_stream(&self, id: &str) {
        if !self.hub.keeps_sessions() {
            return;
        }
        let session = record_name(id);
        if let Err(error) = self.hub.change_session(SessionChange::end(session.clone())).await {
            tracing::error!(%error, "cannot remove the record of an XMPP stream; it ends after the next start");
        }
        self.hub.release(&session, Some(self.clock.now())).await;
    }

    /// Writes what clients create and delete, and what is refused, to an audit log. `None`: to none.
    pub fn auditing(self, audit_log: Option<AuditLog>) -> Self {
        Self { audit_log, ..self }
    }

    /// Verifies the credentials of a client, whose address has the principal `address`. Its name gives it no rights: those are of the
    /// token.
    fn admit(&self, credentials: &Credentials, address: Principal) -> Result<AdmittedClient, SaslError> {
        let verified = match &credentials.proof {
            Proof::Token(token) => self.auth.token(token.as_bytes(), address, self.clock.wall()),
            Proof::Password(outcome) => self.auth.user(outcome, address),
            Proof::Nothing if self.auth.anonymous().is_empty() => Err(Unauthorized::Missing),
            Proof::Nothing => Ok(self.auth.anonymous()),
        };
        let grants = verified.map_err(|error| match error {
            Unauthorized::KeysPending | Unauthorized::TooManyFailures { .. } => SaslError::Temporary,
            _ => SaslError::NotAuthorized,
        })?;
        let open = self.hub.open(grants.tenant(), false).map_err(|_full| {
            self.hub.count_refusal(grants.tenant());
            SaslError::Temporary
        })?;
        Ok(AdmittedClient { grants, open })
    }
}
