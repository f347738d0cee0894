//! Appends messages and wills of clients to the streams of their topics.

use std::sync::Arc;

use bytes::Bytes;

use super::Broker;
use super::codec::{MessageProperties, Reason, Will};
use super::sessions::tenant_of;
use crate::auth::{Action, Grants, authorize};
use crate::stream::{
    Append, AppendError, ChangeError, ContentType, Failure, Principal, QoS, SessionChange, StreamName, Tenant,
};

/// A message to append.
#[derive(Debug)]
pub(super) struct Publication {
    pub(super) payload: Bytes,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) properties: MessageProperties,
    /// The principal that the message is charged to.
    pub(super) principal: Principal,
    /// The client may create the stream if it does not exist.
    pub(super) may_create: bool,
    /// A change of the session that is stored in one step with the message.
    pub(super) stored_with_it: Option<SessionChange>,
}

/// Why a message was not appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) reason: Reason,
    /// The same message will be refused again. Otherwise the gateway lacks room or its store has failed, and
    /// the client may publish it again later.
    pub(super) is_final: bool,
}

impl Refusal {
    /// A refusal that repeating the message does not change.
    pub(super) fn lasting(reason: Reason) -> Self {
        Self { reason, is_final: true }
    }
}

/// Returns the stream of a topic that a client of `tenant` publishes to. Topics that begin with `$SYS/` are for what a
/// server tells about itself (MQTT 5, section 4.7.2).
pub(super) fn stream(topic: &str, tenant: &Tenant) -> Result<StreamName, Reason> {
    if topic == "$SYS" || topic.starts_with("$SYS/") {
        return Err(Reason::NotAuthorized);
    }
    let name = StreamName::of_topic(topic).map_err(|_| Reason::TopicNameInvalid)?;
    Ok(name.of_tenant(tenant))
}

impl Broker {
    /// Appends a message to a stream, which is created if it does not exist. An empty message with retain
    /// also clears the retained message. Returns whether the stream was created.
    pub(super) async fn append(
        &self,
        publisher: &str,
        name: &StreamName,
        publication: Publication,
    ) -> Result<bool, Refusal> {
        if publication.payload.len() > self.limits.body_bytes_max {
            return Err(Refusal::lasting(Reason::QuotaExceeded));
        }
        let offered =
            publication.properties.content_type.as_deref().and_then(|text| ContentType::parse(text).ok());
        let offered = offered.unwrap_or_else(ContentType::octet_stream);
        let Publication { payload, qos, retain, properties, principal, may_create, stored_with_it } =
            publication;
        let trace = self.hub.traces().and_then(|_| properties.trace());
        let annotation = properties.annotation(publisher, qos, retain, self.clock.now());
        let clears = retain && payload.is_empty();
        let append = Append::of_any_type(payload, offered, self.limits.json_depth_max);
        let append = Append {
            annotation: Some(Arc::new(annotation)),
            session: stored_with_it.clone(),
            principal,
            trace,
            ..if may_create { append.or_create() } else { append }
        };
        match self.hub.publish(name, append).await {
            Ok(appended) => Ok(appended.created),
            // The same as without the right to append, so that it does not tell which streams exist.
            Err(AppendError::Missing(_)) if !may_create => Err(Refusal::lasting(Reason::NotAuthorized)),
            Err(AppendError::Empty) if clears => self.clear(name, stored_with_it).await.map(|()| false),
            Err(error) => Err(refusal(&error)),
        }
    }

    /// Clears the retained message of a JSON stream. Its log cannot hold the empty message, so subscribers do
    /// not receive it, and the session change is stored afterwards: after a kill in between, clearing once
    /// more changes nothing.
    async fn clear(&self, name: &StreamName, stored_with_it: Option<SessionChange>) -> Result<(), Refusal> {
        let cleared = match self.hub.clear_retained(name).await {
            // A stream that does not exist has nothing to clear.
            Ok(()) | Err(ChangeError::Missing(_)) => self.store(stored_with_it).await,
            Err(ChangeError::Failed(failure)) => Err(failed(failure)),
        };
        cleared.map_err(|reason| Refusal { reason, is_final: false })
    }

    /// Publishes the will of a disconnected client, whose session has the key `client`, and stores a change of
    /// its session in the same step.
    pub(super) async fn publish_will(
        &self,
        client: &str,
        principal: Principal,
        will: &Will,
        rights: Option<&Grants>,
        stored_with_it: Option<SessionChange>,
    ) -> Result<(), Reason> {
        let name = stream(&will.topic, &tenant_of(client))?;
        let Will { payload, qos, retain, properties, .. } = will.clone();
        // The client had the right to append when it connected. Whether it may create a stream is not stored.
        let may_create = match rights {
            Some(rights) => authorize(rights, Action::Create, &name).is_ok(),
            None => !self.auth.is_enabled(),
        };
        let publication =
            Publication { payload, qos, retain, properties, principal, may_create, stored_with_it };
        let appended = self.append(client, &name, publication).await;
        appended.map(drop).map_err(|refusal| refusal.reason)
    }

    /// Stores a change of a session, if there is one.
    pub(super) async fn store(&self, change: Option<SessionChange>) -> Result<(), Reason> {
        let Some(change) = change else { return Ok(()) };
        self.hub.change_session(change).await.map_err(failed)?;
        self.metrics.sessions_stored.inc();
        Ok(())
    }
}

/// The only mapping from errors of the hub to reason codes.
fn refusal(error: &AppendError) -> Refusal {
    match error {
        AppendError::Empty | AppendError::NoContentType | AppendError::Messages(_) => {
            Refusal::lasting(Reason::PayloadFormatInvalid)
        }
        AppendError::Missing(_) => Refusal::lasting(Reason::TopicNameInvalid),
        AppendError::Refused { .. } => Refusal::lasting(Reason::ImplementationSpecificError),
        AppendError::Failed(failure) => Refusal { reason: failed(*failure), is_final: false },
    }
}

pub(super) fn failed(failure: Failure) -> Reason {
    match failure {
        Failure::Full
        | Failure::Short
        | Failure::Unreachable
        | Failure::OverBudget(_)
        | Failure::TooFast(_) => Reason::QuotaExceeded,
        Failure::Superseded => Reason::SessionTakenOver,
        Failure::Broken | Failure::Unreadable | Failure::UpstreamRefused(_) => Reason::UnspecifiedError,
    }
}

#[cfg(test)]
mod tests;
