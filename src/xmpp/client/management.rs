//! Stream management of a session (XEP-0198 1.6.3): acknowledgements, and streams that are suspended, resumed and ended.

use std::collections::HashMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use minidom::Element;
use tokio::time::Instant;

use super::acks::{HandledCountTooHigh, ResumeRequest, STREAM_MANAGEMENT, StreamAcks, handled_of, refusal};
use super::managed::{ManagedSession, Resumable};
use super::resumption::{
    ResumableRecord, StreamPlace, SuspendedRecord, SuspendedStream, owner_of, record_name,
};
use super::session::ClientSession;
use super::{AdmittedClient, ClientFront};
use crate::budget::{Account, Charge};
use crate::stream::{Failure, Principal};
use crate::xmpp::stanza::{StanzaError, failed};
use crate::xmpp::xml::{WithAttribute, element, to_bytes};

/// Minimum time between two changes of the stored record because of acknowledgements.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

impl ManagedSession {
    /// Handles an element of stream management.
    pub(super) async fn manage(&mut self, received: &Element) -> Result<Vec<Vec<u8>>, HandledCountTooHigh> {
        let answer = match (received.name(), &mut self.acks) {
            ("enable", None) => self.enable(received).await,
            ("r", Some(_)) => self.acknowledge().await,
            ("a", Some(acks)) => {
                let Some(handled) = handled_of(received) else {
                    return Ok(vec![to_bytes(&refusal(&StanzaError::bad_request()))]);
                };
                let confirmed = acks.acknowledged(handled)?;
                let request = acks.ask();
                self.session.service.subscriptions.with(|table| table.confirm(confirmed));
                if self.is_inactive() {
                    self.session.device_has_read();
                }
                self.charge_unacknowledged();
                self.save_some_time().await;
                return Ok(request.as_ref().map(to_bytes).into_iter().collect());
            }
            _ => refusal(&StanzaError::unexpected_request()),
        };
        Ok(vec![to_bytes(&answer)])
    }

    /// Enables stream management, and resumption if the client wants it and there is room.
    async fn enable(&mut self, received: &Element) -> Element {
        self.acks = Some(Box::default());
        let enabled = element("enabled", STREAM_MANAGEMENT);
        let wanted = matches!(received.attr("resume"), Some("true" | "1"));
        let time_max = self.session.front.limits.xmpp_resume_time.get();
        let time = received.attr("max").and_then(|text| text.parse().ok()).map(Duration::from_secs);
        let resume_time = time.unwrap_or(time_max).min(time_max);
        if !wanted || resume_time.is_zero() {
            return enabled.build();
        }
        let owner = owner_of(&self.session.who.grants);
        let Some(place) = self.session.front.streams.begin(owner, self.session.who.principal) else {
            return enabled.build();
        };
        let id = place.id().clone();
        let claimed = self.session.front.claim_stream(&id).await;
        self.take_place(place, resume_time);
        self.session.service.subscriptions.with(|table| table.all_are_unsaved());
        let stored = match claimed {
            Ok(()) => self.save(None).await,
            Err(error) => Err(error),
        };
        if let Err(error) = stored {
            tracing::error!(%error, "cannot store the stream of an XMPP client, which cannot be resumed");
            self.resumable = None;
            self.session.front.forget_stream(&id).await;
            return enabled.build();
        }
        enabled.with("id", &*id).with("resume", "true").with("max", resume_time.as_secs().to_string()).build()
    }

    fn take_place(&mut self, place: StreamPlace, resume_time: Duration) {
        let owner = self
            .session
            .front
            .hub
            .budget()
            .owner_in(self.session.who.grants.tenant().clone(), self.session.who.principal);
        self.session.service.subscriptions.store_in(record_name(place.id()));
        let (charge, saved_at) = (Charge::new(&owner, Account::Sessions, 0), Instant::now());
        self.resumable = Some(Box::new(Resumable { place, resume_time, charge, saved: 0, saved_at }));
    }

    /// The answer to a request for an acknowledgement. What it acknowledges is stored, so that the client need not repeat it to a gateway
    /// that is started again.
    async fn acknowledge(&mut self) -> Element {
        let handled = self.acks.as_ref().map_or(0, |acks| acks.counts.handled);
        let is_saved = self.resumable.as_ref().is_none_or(|resumable| resumable.saved == handled);
        if !is_saved && let Err(error) = self.save(None).await {
            tracing::error!(%error, "cannot store the stream of an XMPP client; its stanzas stay unacknowledged");
        }
        let handled = self.resumable.as_ref().map_or(handled, |resumable| resumable.saved);
        element("a", STREAM_MANAGEMENT).with("h", handled.to_string()).build()
    }

    async fn save_some_time(&mut self) {
        let is_due = |resumable: &Resumable| resumable.saved_at.elapsed() >= SAVE_INTERVAL;
        if self.resumable.as_deref().is_some_and(is_due)
            && let Err(error) = self.save(None).await
        {
            tracing::error!(%error, "cannot store the offsets of an XMPP client; messages may be sent again");
        }
    }

    /// The client has enabled or disabled push, which counts for the stream when it is resumed, too.
    pub(super) async fn push_changed(&mut self) {
        if self.is_inactive() {
            self.session.leave_device();
        }
        if let Err(error) = self.save(None).await {
            tracing::error!(%error, "cannot store the device of an XMPP client; after a kill it is woken while it is connected");
        }
    }

    /// Stores the state of a stream that can be resumed.
    async fn save(&mut self, suspended: Option<SuspendedRecord>) -> Result<(), Failure> {
        let (Some(acks), Some(resumable)) = (&self.acks, &self.resumable) else { return Ok(()) };
        let counts = acks.counts;
        if self.session.front.hub.keeps_sessions() {
            let entry = self.record(acks, resumable, suspended).to_entry().ok_or(Failure::Broken)?;
            self.session.service.subscriptions.save_with(vec![entry]).await?;
        }
        if let Some(resumable) = &mut self.resumable {
            (resumable.saved, resumable.saved_at) = (counts.handled, Instant::now());
        }
        Ok(())
    }

    fn record(
        &self,
        acks: &StreamAcks,
        resumable: &Resumable,
        suspended: Option<SuspendedRecord>,
    ) -> ResumableRecord {
        let grants = &self.session.who.grants;
        ResumableRecord {
            jid: self.session.who.jid.to_string(),
            subject: grants.subject().map(str::to_owned),
            tenant: grants.tenant().as_str().to_owned(),
            principal: self.session.who.principal.0,
            credentials: grants.record().and_then(|record| record.to_bytes()),
            counts: acks.counts,
            resume_time: resumable.resume_time,
            device: self.session.device_name(),
            suspended,
        }
    }

    pub(super) fn charge_unacknowledged(&mut self) {
        if let (Some(acks), Some(resumable)) = (&self.acks, &mut self.resumable) {
            resumable.charge.set(acks.bytes());
        }
    }

    /// Waits until the stream is resumed over another connection. Cancel safe.
    pub(super) async fn taken_over(&self) {
        match &self.resumable {
            Some(resumable) => resumable.place.is_wanted().await,
            None => pending().await,
        }
    }

    /// Leaves a stream whose connection is lost, so that the client may resume it. If it cannot be resumed, it ends.
    pub(super) async fn suspend(mut self) {
        if self.is_busy {
            return self.end().await;
        }
        let (Some(acks), Some(resumable)) = (&self.acks, &self.resumable) else { return };
        let clock = self.session.front.clock;
        let until = clock.instant() + resumable.resume_time;
        let record = SuspendedRecord::new(clock.at(until), &acks.notified);
        if let Err(error) = self.save(Some(record)).await {
            tracing::error!(%error, "cannot store the stream of an XMPP client, which can be resumed until the gateway ends");
        }
        let Some((acks, resumable)) = self.acks.take().zip(self.resumable.take()) else { return };
        let stream = SuspendedStream {
            jid: self.session.who.jid.clone(),
            counts: acks.counts,
            notified: Some(acks.notified),
            subscriptions: self.session.service.subscriptions.with(|table| table.confirmed()),
            credentials: self.session.who.grants.record().and_then(|record| record.to_bytes()),
            resume_time: resumable.resume_time,
            device: self.session.device_name(),
            until,
        };
        resumable.place.suspend(stream, resumable.charge.owner());
    }

    /// Ends a stream that must not be resumed.
    pub(super) async fn end(self) {
        let Some(resumable) = &self.resumable else { return };
        self.session.front.forget_stream(resumable.place.id()).await;
    }

    /// Resumes a stream of a client that has logged in. `address` is the principal of its network address. Returns the session, and the
    /// answer for the client. The admission is left if it fails.
    pub(super) async fn resume(
        front: &Arc<ClientFront>,
        request: &ResumeRequest,
        admission: &mut Option<AdmittedClient>,
        address: Principal,
    ) -> Result<(Box<Self>, Element), StanzaError> {
        let owner = admission.as_ref().map(|admission| owner_of(&admission.grants));
        let taken = front.take_stream(&request.id, &owner.ok_or_else(StanzaError::internal)?).await;
        let (place, stream) = taken.map_err(failed)?.ok_or_else(StanzaError::item_not_found)?;
        let SuspendedStream {
            jid,
            mut counts,
            notified,
            subscriptions,
            credentials,
            resume_time,
            device,
            ..
        } = stream;
        if credentials.is_some_and(|credentials| front.auth.has_revoked(&credentials)) {
            front.forget_stream(place.id()).await;
            return Err(StanzaError::item_not_found());
        }
        if notified.is_none() {
            // Nobody knows how many there were, so the client is believed.
            (counts.sent, counts.acknowledged) = (request.handled, request.handled);
        }
        let mut acks = StreamAcks::resumed(counts, notified.unwrap_or_default());
        let Ok(acknowledged) = acks.resume(request.handled) else {
            front.forget_stream(place.id()).await;
            return Err(StanzaError::item_not_found());
        };
        let admitted = admission.take().ok_or_else(StanzaError::internal)?;
        let mut session = Self::new(ClientSession::new(front.clone(), jid, admitted, address));
        session.acks = Some(Box::new(acks));
        session.take_place(place, resume_time);
        let acknowledged: HashMap<_, _> = acknowledged.into_iter().collect();
        let confirmed = subscriptions.into_iter().map(|(key, offset, suspended)| {
            let offset = acknowledged.get(&key).copied().unwrap_or(offset);
            (key, offset, suspended)
        });
        session.session.service.subscriptions.adopt(confirmed, &session.session.who.grants);
        session.session.service.subscriptions.with(|table| table.all_are_unsaved());
        session.session.restore_device(device.as_deref());
        if let Err(error) = session.save(None).await {
            // The record is still the one from before, which would say the wrong thing about stanzas that are sent from now on.
            *admission = Some(session.session.leave_admission());
            session.suspend().await;
            return Err(failed(error));
        }
        front.metrics.resumed.inc();
        let answer = element("resumed", STREAM_MANAGEMENT)
            .with("previd", &*request.id)
            .with("h", counts.handled.to_string());
        Ok((Box::new(session), answer.build()))
    }
}
