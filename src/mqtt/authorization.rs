//! Authorization of MQTT clients: a token as the password of CONNECT, and the rights of a connection.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::consume_budget;

use super::codec::{Connect, Reason};
use super::connection::Connection;
use super::{Broker, groups, publish};
use crate::auth::{Action, EndOfRights, Grants, Unauthorized, authorize, authorize_filter};
use crate::stream::{Filter, FilterMap, StreamName};

/// Separates the subject of a token from the client id that the client has chosen. A client id contains no control characters, so
/// the last separator of a key ends its subject.
const SEPARATOR: char = '\u{1f}';

impl Broker {
    /// Returns the rights that a CONNECT gives. The password is a token; the user name is ignored.
    pub(super) fn authenticate(&self, connect: &Connect) -> Result<Arc<Grants>, Reason> {
        let grants = match &connect.password {
            Some(password) => {
                let verified = self.auth.token(password.bytes(), self.clock.wall());
                verified.map_err(|error| match error {
                    Unauthorized::KeysPending => Reason::ServerUnavailable,
                    _ => Reason::BadUserNameOrPassword,
                })?
            }
            None if self.auth.anonymous().is_empty() => return Err(Reason::NotAuthorized),
            None => self.auth.anonymous(),
        };
        let will = connect.will.as_ref().map(|will| publish::stream(&will.topic));
        match will {
            Some(Ok(stream)) => check(&grants, Action::Append, &stream).map(|()| grants),
            // A will with another topic is refused when it is due.
            Some(Err(_)) | None => Ok(grants),
        }
    }
}

/// The key of a client's session: a client id belongs to the subject of the token, so that no other client can take the session over
/// by its id.
pub(super) fn session_key(grants: &Grants, client_id: &str) -> Arc<str> {
    match grants.subject() {
        Some(subject) => format!("{subject}{SEPARATOR}{client_id}").into(),
        None => client_id.into(),
    }
}

pub(super) fn check(grants: &Grants, action: Action, stream: &StreamName) -> Result<(), Reason> {
    authorize(grants, action, stream).map_err(|_| Reason::NotAuthorized)
}

/// Whether the client may subscribe to `filter`, which may be that of a shared subscription.
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

    /// Ends the subscriptions of a resumed session that an earlier token allowed and this one does not.
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
