//! Push notifications (XEP-0357 0.4.1) are the wakes of a device: a client that enables them becomes the device that `node` names, with the
//! streams that it has subscribed to. It is woken while it is gone, or inactive, for messages that it has not got.
//!
//! The push service is the gateway itself, so a notification is no stanza, and nothing is published to other services.

use std::collections::BTreeMap;
use std::sync::Arc;

use minidom::Element;

use super::session::{ClientSession, PushDevice};
use crate::auth::Action;
use crate::hub::{ClientId, Credential, DeviceError, DeviceSpec};
use crate::stream::{Offset, Start, StreamName};
use crate::xmpp::jid::Jid;
use crate::xmpp::service::{DATA_FORM, PUBSUB, stream_of};
use crate::xmpp::stanza::{Request, StanzaError, failed};

/// The form with what the push service wants to know (section 5).
const PUBLISH_OPTIONS: &str = "http://jabber.org/protocol/pubsub#publish-options";

/// The channel in the form of a client that registers its device.
#[derive(Debug, PartialEq, Eq)]
struct PushChannel {
    app: Arc<str>,
    credential: Credential,
}

impl PushChannel {
    /// Reads a form. A field that means nothing is an error, so that no client believes that it does.
    fn read(form: &Element) -> Result<Self, StanzaError> {
        let mut values = BTreeMap::new();
        for field in form.children().filter(|child| child.is("field", DATA_FORM)) {
            let name = field.attr("var").unwrap_or_default();
            let value = field.get_child("value", DATA_FORM).map(Element::text).unwrap_or_default();
            if !matches!(name, "FORM_TYPE" | "app" | "credential" | "endpoint" | "p256dh" | "auth") {
                return Err(StanzaError::not_acceptable().with_text("push has no such option"));
            }
            values.insert(name, value);
        }
        let mut take = |name: &str| values.remove(name).map(String::into_boxed_str);
        let is_form = take("FORM_TYPE").as_deref() == Some(PUBLISH_OPTIONS);
        let (app, token) = (take("app"), take("credential"));
        let credential = match (token, take("endpoint"), take("p256dh"), take("auth")) {
            (Some(token), None, None, None) => Some(Credential::Token(token)),
            (None, Some(endpoint), Some(p256dh), Some(auth)) => {
                Some(Credential::WebPush { endpoint, p256dh, auth })
            }
            _ => None,
        };
        match (app, credential) {
            (Some(app), Some(credential)) if is_form => Ok(Self { app: app.into(), credential }),
            _ => Err(StanzaError::not_acceptable()
                .with_text("the options need app, and credential or endpoint, p256dh and auth")),
        }
    }
}

impl ClientSession {
    /// Whether the client may be woken: the gateway has providers, and knows whose device it would be.
    pub(super) fn may_enable_push(&self) -> bool {
        !self.front.hub.devices().apps().is_empty() && self.has_subject()
    }

    fn has_subject(&self) -> bool {
        self.who.grants.subject().is_some() || !self.front.auth.is_enabled()
    }

    /// Performs a request to enable or disable push.
    pub(super) async fn change_push(&self, request: &Element) -> Result<(), StanzaError> {
        let jid = request.attr("jid").and_then(|text| Jid::parse(text).ok());
        if jid.ok_or_else(StanzaError::bad_request)? != self.service.name {
            return Err(
                StanzaError::item_not_found().with_text("the only push service is the gateway itself")
            );
        }
        if !self.has_subject() {
            return Err(StanzaError::forbidden());
        }
        let id = match request.attr("node") {
            Some(node) => Some(self.own_device(node)?),
            None => None,
        };
        match (request.name(), id) {
            ("enable", Some(id)) => self.enable_push(id, request).await,
            ("enable", None) => Err(StanzaError::not_acceptable().with_text("node has to name the device")),
            ("disable", id) => self.disable_push(id).await,
            _ => Err(StanzaError::bad_request()),
        }
    }

    /// The device of the client's subject with this name.
    fn own_device(&self, name: &str) -> Result<ClientId, StanzaError> {
        let id = ClientId::parse(name).map_err(|_| {
            StanzaError::not_acceptable().with_text("node must be 1 to 128 visible ASCII characters")
        })?;
        Ok(self.who.grants.subject().map_or_else(|| id.clone(), |subject| id.of_subject(subject)))
    }

    async fn enable_push(&self, id: ClientId, enable: &Element) -> Result<(), StanzaError> {
        let streams: Vec<_> =
            self.read_offsets().into_iter().map(|(name, at)| (name, Start::At(at))).collect();
        for (stream, _) in &streams {
            self.service.permit(&self.who, Action::Read, stream).map_err(|_| StanzaError::forbidden())?;
        }
        match enable.get_child("x", DATA_FORM) {
            Some(form) => self.register_device(id.clone(), PushChannel::read(form)?, streams).await?,
            None => {
                let changed = self.front.hub.change_device_streams(&id, streams, None).await;
                if !changed.map_err(device_error)? {
                    return Err(device_error(DeviceError::Missing));
                }
            }
        }
        self.become_device(id);
        Ok(())
    }

    /// Registers the device of the client with one channel. Without subscriptions, it reads what it has read before.
    async fn register_device(
        &self,
        id: ClientId,
        PushChannel { app, credential }: PushChannel,
        streams: Vec<(StreamName, Start)>,
    ) -> Result<(), StanzaError> {
        let hub = &self.front.hub;
        let mut streams: Vec<_> = streams.into_iter().map(|(name, start)| (name, Some(start))).collect();
        let mut filters = Vec::new();
        if streams.is_empty() {
            hub.fetch_device(&id).await.map_err(failed)?;
            let known = hub.device(&id).ok_or_else(|| {
                StanzaError::not_acceptable()
                    .with_text("subscribe to a node first, or register the device over HTTP")
            })?;
            streams = known.streams.into_iter().map(|(name, _)| (name, None)).collect();
            filters = known.filters;
        }
        let credentials = self.who.grants.record().and_then(|record| record.to_bytes());
        let spec = DeviceSpec {
            id: id.clone(),
            principal: self.who.principal,
            streams,
            filters,
            channels: vec![(app, credential)],
            quiet: None,
            escalate_after: DeviceSpec::ESCALATE_AFTER,
            life: DeviceSpec::LIFE,
            credentials: credentials.clone(),
        };
        hub.put_device(spec).await.map_err(device_error)?;
        // What was revoked meanwhile may have missed the device.
        if credentials.is_some_and(|credentials| self.front.auth.has_revoked(&credentials)) {
            let _removed = hub.delete_device(&id).await;
            return Err(StanzaError::forbidden());
        }
        Ok(())
    }

    /// Deletes a device; `None`: the one that the client has become, if it has.
    async fn disable_push(&self, id: Option<ClientId>) -> Result<(), StanzaError> {
        let Some(id) = id.or_else(|| self.device_id()) else { return Ok(()) };
        self.front.hub.delete_device(&id).await.map_err(failed)?;
        self.device.lock().take_if(|device| device.id == id);
        Ok(())
    }

    fn device_id(&self) -> Option<ClientId> {
        self.device.lock().as_ref().map(|device| device.id.clone())
    }

    /// The name of the device that the client has become, for [`restore_device`](Self::restore_device).
    pub(in crate::xmpp) fn device_name(&self) -> Option<String> {
        self.device.lock().as_ref().map(|device| device.id.chosen().to_owned())
    }

    /// The client has become this device in an earlier session, which goes on.
    pub(in crate::xmpp) fn restore_device(&self, name: Option<&str>) {
        if let Some(Ok(id)) = name.map(|name| self.own_device(name)) {
            self.become_device(id);
        }
    }

    fn become_device(&self, id: ClientId) {
        let connection = self.front.hub.session_connected(id.as_str());
        *self.device.lock() = Some(Box::new(PushDevice { id, connection }));
    }

    /// Somebody looks at the client again, which is not woken while this is so.
    pub(super) fn join_device(&self) {
        if let Some(device) = self.device.lock().as_mut().filter(|device| device.connection.is_none()) {
            device.connection = self.front.hub.session_connected(device.id.as_str());
        }
    }

    /// The client leaves, or nobody looks at it: it is woken for what it has not got.
    pub(in crate::xmpp) fn leave_device(&self) {
        let mut device = self.device.lock();
        let Some(device) = device.as_mut().filter(|device| device.connection.is_some()) else { return };
        let offsets = self.read_offsets();
        let read_up_to = |stream: &StreamName| offsets.get(stream).map(|offset| Start::At(*offset));
        self.front.hub.session_ended(device.id.as_str(), read_up_to);
        device.connection = None;
    }

    /// The client has acknowledged messages while nobody looks at it, which confirms a wake as a poll does.
    pub(super) fn device_has_read(&self) {
        let device = self.device.lock();
        if let Some(device) = device.as_ref().filter(|device| device.connection.is_none()) {
            let offsets = self.read_offsets();
            let reads = offsets.iter().map(|(stream, offset)| (stream, Start::At(*offset)));
            self.front.hub.device_polled(&device.id, reads);
        }
    }

    /// The offsets up to which the client has got the streams that it has subscribed to.
    fn read_offsets(&self) -> BTreeMap<StreamName, Offset> {
        let mut offsets = BTreeMap::new();
        for (key, offset, _) in self.service.subscriptions.with(|table| table.confirmed()) {
            let known = offsets.entry(key.stream).or_insert(offset);
            *known = offset.min(*known);
        }
        offsets
    }

    /// The stream whose subscription a request of a device changes.
    pub(super) fn changed_subscription(&self, request: &Request) -> Option<StreamName> {
        self.device.lock().as_ref()?;
        let is_change =
            |child: &&Element| child.has_ns(PUBSUB) && matches!(child.name(), "subscribe" | "unsubscribe");
        stream_of(&self.who, request.payload.children().find(is_change)?).ok()
    }

    /// The device reads what its client has subscribed to. It is deleted with the last stream.
    pub(super) async fn follow_subscription(&self, stream: StreamName) -> Result<(), StanzaError> {
        let Some(id) = self.device_id() else { return Ok(()) };
        let (added, removed) = match self.read_offsets().get(&stream) {
            Some(offset) => (vec![(stream, Start::At(*offset))], None),
            None => (Vec::new(), Some(stream)),
        };
        let changed = self.front.hub.change_device_streams(&id, added, removed.as_ref()).await;
        if !changed.map_err(device_error)? {
            self.device.lock().take_if(|device| device.id == id);
        }
        Ok(())
    }
}

fn device_error(error: DeviceError) -> StanzaError {
    match error {
        DeviceError::Missing => StanzaError::item_not_found()
            .with_text("there is no such device; register it with options, or over HTTP"),
        DeviceError::UnknownApp(_) => StanzaError::item_not_found()
            .with_text("there is no such app for wakes; GET /v1/devices lists them"),
        DeviceError::Credential(_) => StanzaError::not_acceptable().with_text(
            "the credential is malformed, too long, not allowed, or of another kind than the app needs",
        ),
        DeviceError::Invalid(_) => {
            StanzaError::resource_constraint().with_text("the device would have too many streams")
        }
        DeviceError::TooMany(text) => StanzaError::resource_constraint().with_text(text),
        DeviceError::Store(failure) => failed(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xmpp::xml::parse_document;

    fn read(fields: &[(&str, &str)]) -> Result<PushChannel, StanzaError> {
        let fields =
            fields.iter().map(|(name, value)| format!("<field var='{name}'><value>{value}</value></field>"));
        let text = format!("<x xmlns='{DATA_FORM}'>{}</x>", fields.collect::<String>());
        PushChannel::read(&parse_document(text.as_bytes(), 4096).unwrap())
    }

    #[test]
    fn options_are_those_of_one_channel_or_refused() {
        let form = ("FORM_TYPE", PUBLISH_OPTIONS);
        let token = Credential::Token("t".into());
        assert_eq!(
            read(&[form, ("app", "a"), ("credential", "t")]),
            Ok(PushChannel { app: "a".into(), credential: token })
        );
        let web = [form, ("app", "a"), ("endpoint", "e"), ("p256dh", "p"), ("auth", "s")];
        let expected = Credential::WebPush { endpoint: "e".into(), p256dh: "p".into(), auth: "s".into() };
        assert_eq!(read(&web), Ok(PushChannel { app: "a".into(), credential: expected }));
        for refused in [
            &[][..],
            &[form],
            &[("app", "a"), ("credential", "t")],
            &[("FORM_TYPE", "x"), ("app", "a"), ("credential", "t")],
            &[form, ("credential", "t")],
            &[form, ("app", "a"), ("endpoint", "e")],
            &[form, ("app", "a"), ("credential", "t"), ("endpoint", "e")],
            &[form, ("app", "a"), ("credential", "t"), ("secret", "s")],
        ] {
            assert!(read(refused).is_err(), "{refused:?}");
        }
    }
}
