//! Wakes on their way to workers: messages on the stream of wakes, and requests to webhooks with their outcomes.

use super::*;

/// Nesting of the JSON of a wake.
const JSON_DEPTH_MAX: usize = 4;

impl WebhookDelivery {
    /// The tenant and the name of the subscription, for logs.
    pub fn subscription(&self) -> String {
        format!("{}/{}", self.tenant, self.id)
    }

    /// The tenant of the subscription.
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }
}

impl LiveSubscription {
    /// Begins the lease of a delivery again. Returns whether it is still the current one. A short wait is not worth a write to the store.
    pub(in crate::hub::subscriptions) async fn restart_lease(
        self: &Arc<Self>,
        wake: WakeNumber,
    ) -> Result<bool, SubscriptionError> {
        let mut kept = self.state.lock().await;
        let KeptState { state, unstored } = kept.as_mut().ok_or_else(|| self.missing())?;
        let now = self.now();
        let WakePhase::Held { until, .. } = &state.phase else { return Ok(false) };
        if WakeNumber::of(state) != wake || *until <= now {
            return Ok(false);
        }
        if *until < now + state.lease() * 3 / 4 {
            let mut next = state.clone();
            next.restart_lease(now);
            self.advance(state, next, unstored).await?;
        }
        Ok(true)
    }

    /// Takes the outcome of a delivery.
    pub(in crate::hub::subscriptions) async fn delivered(
        self: &Arc<Self>,
        wake: WakeNumber,
        outcome: DeliveryOutcome,
        shown: &[(StreamName, Offset)],
    ) -> Result<(), SubscriptionError> {
        let mut kept = self.state.lock().await;
        let KeptState { state, unstored } = kept.as_mut().ok_or_else(|| self.missing())?;
        if WakeNumber::of(state) != wake {
            return Ok(());
        }
        unstored.extend(self.observe_links(state).await);
        let mut next = state.clone();
        let Some(acked) = next.delivered(wake.generation, outcome, shown, self.now(), fastrand::f64()) else {
            return Ok(());
        };
        unstored.extend(acked);
        self.advance(state, next, unstored).await
    }

    pub(super) async fn store(&self, part: SessionChange) -> Result<(), Failure> {
        let hub = &self.shared.hub;
        if hub.keeps_sessions() { hub.change_session(part).await } else { Ok(()) }
    }

    /// Appends a wake to the stream of wakes, and stores that it has begun, in one step.
    pub(super) async fn append_wake(
        &self,
        stream: &str,
        state: &SubscriptionState,
        pending: &StreamName,
        part: SessionChange,
    ) -> Result<(), String> {
        let hub = &self.shared.hub;
        let name = StreamName::stored(stream).map_err(|invalid| invalid.to_string())?;
        let since = hub.clock.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let event = WakeEvent {
            kind: "wake",
            subscription_id: &self.id,
            stream: pending.local(),
            generation: state.generation,
            ts: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        };
        let body = Bytes::from(serde_json::to_vec(&event).unwrap_or_default());
        let mut append = Append::of_any_type(body, ContentType::octet_stream(), JSON_DEPTH_MAX);
        append.session = hub.keeps_sessions().then_some(part);
        let appended = hub.publish(&name.of_tenant(&self.tenant), append).await;
        appended.map(drop).map_err(|error| error.to_string())
    }

    /// Hands a request to the sender.
    pub(super) fn begin_delivery(&self, state: &SubscriptionState) {
        let (WakeBy::Webhook(url), Some(wake_id)) = (&state.config.wake_by, held_wake(state)) else { return };
        let body = WebhookBody {
            subscription_id: &self.id,
            wake_id,
            generation: state.generation,
            streams: pending_views(state),
            callback_url: self.shared.callback_url(&self.id),
            callback_token: self.token(state),
        };
        let shown = state.links.iter().filter_map(|(name, link)| Some((name.clone(), link.tail?)));
        let delivery = WebhookDelivery {
            tenant: self.tenant.clone(),
            id: self.id.clone(),
            wake: WakeNumber::of(state),
            shown: shown.collect(),
            url: url.clone(),
            body: serde_json::to_vec(&body).unwrap_or_default().into(),
            lease: state.lease(),
        };
        // Without a sender, the gateway is ending; the wake is stored.
        let _ending = self.shared.deliveries.send(delivery);
    }
}
