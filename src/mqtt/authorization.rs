//! Authorization of MQTT clients: a token as the password of CONNECT, and the rights of a connection.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::consume_budget;

use super::codec::{Authentication, Connect, OutgoingPacket, Reason};
use super::connection::{Connection, Ending};
use super::{Broker, Peer, groups, publish};
use crate::auth::{Action, EndOfRights, Grants, Unauthorized, authorize, authorize_filter};
use crate::stream::{Filter, FilterMap, StreamName, Tenant};

/// The method of enhanced authentication whose data is a token.
pub(super) const METHOD: &str = "jwt";

impl Broker {
    /// Returns the rights that a CONNECT gives. The authentication data of the method [`METHOD`] is a token, else the password;
    /// the user name is ignored. Without a token, the certificate of the client counts, or the handshake of its WebSocket.
    pub(super) fn authenticate(&self, connect: &Connect, peer: &Peer) -> Result<Arc<Grants>, Reason> {
        let token = match &connect.authentication {
            Some(Authentication { method, .. }) if method != METHOD || !self.auth.is_enabled() => {
                return Err(Reason::BadAuthenticationMethod);
            }
            Some(Authentication { data, .. }) => Some(data.as_ref().ok_or(Reason::NotAuthorized)?),
            None => connect.password.as_ref(),
        };
        let grants = match (token, &peer.grants) {
            (Some(token), _) => {
                let verified = self.auth.token(token.bytes(), peer.principal, self.clock.wall());
                verified.map_err(|error| match error {
                    Unauthorized::KeysPending => Reason::ServerUnavailable,
                    Unauthorized::TooManyFailures { .. } => Reason::ConnectionRateExceeded,
                    _ => Reason::BadUserNameOrPassword,
                })?
            }
            (None, Some(grants)) => {
                let checked = self.auth.check(grants, self.clock.wall());
                checked.map_err(|_| Reason::NotAuthorized).map(|()| grants.clone())?
            }
            (None, None) if self.auth.anonymous().is_empty() => return Err(Reason::NotAuthorized),
            (None, None) => self.auth.anonymous(),
        };
        let will = connect.will.as_ref().map(|will| publish::stream(&will.topic, grants.tenant()));
        match will {
            Some(Ok(stream)) => check(&grants, Action::Append, &stream).map(|()| grants),
            // A will with another topic is refused when it is due.
            Some(Err(_)) | None => Ok(grants),
        }
    }
}

pub(super) fn check(grants: &Grants, action: Action, stream: &StreamName) -> Result<(), Reason> {
    authorize(grants, action, stream).map_err(|_| Reason::NotAuthorized)
}

/// The filter in the hub for a filter that a client of `tenant` sends, which may be that of a shared subscription. Groups of two
/// tenants are two groups, since the tenant is part of their filters.
pub(super) fn in_hub(filter: &Filter, tenant: &Tenant) -> Filter {
    if tenant.is_default() {
        return filter.clone();
    }
    groups::shared_of_tenant(filter, tenant).unwrap_or_else(|| filter.of_tenant(tenant))
}

/// Whether the client may subscribe to `filter` of the hub, which may be that of a shared subscription.
pub(super) fn check_filter(grants: &Grants, filter: &Filter) -> Result<(), Reason> {
    let shared = groups::stream_filter(filter);
    let streams = shared.as_ref().unwrap_or(filter);
    authorize_filter(grants, Action::Read, streams).map_err(|_| Reason::NotAuthorized)
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Connection<S> {
    /// Completes when the rights of the connection end.
    pub(super) fn rights_end(grants: &Arc<Grants>, broker: &Broker) -> Option<EndOfRights> {
        grants.expires_at()?;
        Some(Box::pin(broker.auth.clone().rights_end(grants.clone(), broker.clock)))
    }

    /// Handles AUTH: takes the rights of another token of the same subject. Subscriptions that it does not grant end, and so does the
    /// will.
    pub(super) async fn renew(&mut self, authentication: &Authentication) -> Result<(), Ending> {
        // MQTT 5, sections 4.12 and 4.12.1.
        if !self.may_renew || authentication.method != METHOD {
            return Err(Ending::ByGateway(Reason::ProtocolError));
        }
        let refused = Ending::ByGateway(Reason::NotAuthorized);
        let Some(token) = &authentication.data else { return Err(refused) };
        // Invalid tokens count for the subject of the connection, which the first one ends.
        let (principal, now) = (self.attached.principal(), self.broker.clock.wall());
        let Ok(grants) = self.broker.auth.token(token.bytes(), principal, now) else {
            return Err(refused);
        };
        if grants.subject() != self.grants.subject() {
            return Err(refused);
        }
        self.extras.get_or_insert_default().rights_end = Self::rights_end(&grants, &self.broker);
        self.grants = grants;
        let keeps_will = |topic: &str| match publish::stream(topic, self.grants.tenant()) {
            Ok(stream) => check(&self.grants, Action::Append, &stream).is_ok(),
            // It is refused when it is due.
            Err(_) => true,
        };
        self.negotiated.will = self.negotiated.will.take().filter(|will| keeps_will(&will.topic));
        self.restart_retained();
        if let Some(credentials) = self.grants.record().filter(|_| self.negotiated.will.is_some()) {
            // Without it, the will is published after a restart only while the earlier token is valid.
            let _stored = self.broker.store(self.session.renewing(&credentials)).await;
        }
        self.end_forbidden().await;
        self.respond(&OutgoingPacket::Auth(METHOD))
    }

    /// Ends the subscriptions that an earlier token allowed and this one does not.
    pub(super) async fn end_forbidden(&mut self) {
        if self.grants.is_unrestricted() {
            return;
        }
        let mut ended = FilterMap::default();
        for filter in self.session.subscriptions().filters() {
            consume_budget().await;
            if check_filter(&self.grants, filter).is_err() {
                ended.insert(filter.clone(), ());
            }
        }
        for key in self.session.shared_keys() {
            consume_budget().await;
            if check_filter(&self.grants, &key).is_err() {
                self.leave_group(&key);
            }
        }
        if !ended.is_empty() {
            self.end_subscriptions(&ended).await;
        }
    }
}
