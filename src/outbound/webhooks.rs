//! Sends the requests to webhooks of subscriptions, signed, and tells the subscriptions their outcomes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::Instrument;

use super::queue::{NotQueued, Queues, RequestOutcome};
use super::{RETRY_AFTER_MAX, retry_after};
use crate::clock::Clock;
use crate::http_client::{Destination, ExchangeLimits, HttpClient, OutboundError, Trust};
use crate::hub::subscriptions::{DeliveryOutcome, SubscriptionTable, WebhookDelivery};
use crate::metrics::OutboundMetrics;
use crate::stream::Tenant;

/// What the requests are for, in metrics and spans.
const PURPOSE: &str = "webhook";

/// The field with the signature.
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// Requests of one tenant under way to one host.
const CONCURRENCY_MAX: usize = 8;

/// Requests of one tenant under way to all hosts, which may hang: a part of the connections that the client may have.
const TENANT_CONCURRENCY_MAX: usize = 64;

/// Tenants without requests that are remembered.
const TENANTS_REMEMBERED: usize = 1024;

/// The longest time for a response. Until then, a connection is open.
const RESPONSE_TIME_MAX: Duration = Duration::from_secs(30);

/// The longest response that is read.
const RESPONSE_BYTES_MAX: usize = 64 * 1024;

/// Sends webhooks.
pub struct WebhookSender {
    client: HttpClient,
    trust: Trust,
    subscriptions: Arc<SubscriptionTable>,
    clock: Clock,
    metrics: OutboundMetrics,
    tenants: Mutex<HashMap<Tenant, Arc<Semaphore>>>,
}

/// The part of a response that counts.
#[derive(Deserialize)]
struct WebhookResponse {
    #[serde(default)]
    done: bool,
}

impl WebhookSender {
    /// Creates a sender.
    pub fn new(
        client: HttpClient,
        trust: Trust,
        subscriptions: Arc<SubscriptionTable>,
        clock: Clock,
        metrics: OutboundMetrics,
    ) -> Arc<Self> {
        Arc::new(Self { client, trust, subscriptions, clock, metrics, tenants: Mutex::default() })
    }

    /// Sends what is due. Runs as long as it is polled.
    pub async fn run(self: Arc<Self>, mut due: UnboundedReceiver<WebhookDelivery>) {
        // A subscription has at most one delivery that counts, so the number of subscriptions bounds what waits.
        let mut queues = Queues::new(CONCURRENCY_MAX, usize::MAX);
        let mut exchanges = JoinSet::new();
        loop {
            let now = Instant::now();
            while let Some((queue, delivery)) = queues.next(now) {
                let own = self.clone();
                exchanges.spawn(async move { (queue, own.deliver(delivery).await) });
            }
            let pause = queues.next_due(now);
            tokio::select! {
                delivery = due.recv() => match delivery {
                    Some(delivery) => self.enqueue(&mut queues, delivery),
                    None => return,
                },
                Some(ended) = exchanges.join_next() => {
                    if let Ok((queue, outcome)) = ended {
                        queues.finished(&queue, outcome, Instant::now(), fastrand::f64());
                    }
                }
                () = async { sleep_until(pause.unwrap_or(now)).await }, if pause.is_some() => {}
            }
        }
    }

    fn enqueue(&self, queues: &mut Queues<String, WebhookDelivery>, delivery: WebhookDelivery) {
        let key = delivery.subscription();
        let to = Destination::of_client(&delivery.url, &self.trust);
        let host = to.as_ref().map_or("", |to| to.authority());
        // What one tenant's webhooks do on a host does not delay those of another.
        let queue = format!("{} {host}", delivery.tenant());
        if let Err((why, delivery)) = queues.push(&queue, key, delivery, Instant::now()) {
            let retry_after = match why {
                NotQueued::Open(pause) => Some(pause),
                NotQueued::Full => None,
            };
            self.metrics.requested(PURPOSE, host, "not_sent");
            // It waits for what else changes the subscription, and other webhooks must not.
            let subscriptions = self.subscriptions.clone();
            let outcome = DeliveryOutcome::Failed { retry_after };
            tokio::spawn(async move { subscriptions.complete_delivery(&delivery, outcome).await });
        }
    }

    /// The permits for the requests of a tenant.
    fn turns(&self, tenant: &Tenant) -> Arc<Semaphore> {
        let mut tenants = self.tenants.lock();
        if tenants.len() >= TENANTS_REMEMBERED {
            tenants.retain(|_, turns| Arc::strong_count(turns) > 1);
        }
        let turns = || Arc::new(Semaphore::new(TENANT_CONCURRENCY_MAX));
        tenants.entry(tenant.clone()).or_insert_with(turns).clone()
    }

    /// Sends a request and completes the delivery.
    async fn deliver(&self, delivery: WebhookDelivery) -> RequestOutcome {
        let turns = self.turns(delivery.tenant());
        let _turn = turns.acquire().await;
        if !self.subscriptions.begin_delivery(&delivery).await {
            return RequestOutcome::Withdrawn;
        }
        let name = delivery.subscription();
        let since = Instant::now();
        let span = tracing::debug_span!("outbound", purpose = PURPOSE, subscription = name);
        let sent = self.send(&delivery).instrument(span).await;
        let (outcome, of_request, label) = self.judge(sent.as_ref());
        let host = sent.as_ref().map_or("", |(to, _)| to.authority());
        self.metrics.requested(PURPOSE, host, label);
        self.metrics.took(since.elapsed());
        match &sent {
            Some((to, Ok(response))) => {
                tracing::debug!(subscription = name, to = ?to, status = response.status().as_u16(), ?outcome, "webhook");
            }
            Some((to, Err(error))) => {
                tracing::info!(subscription = name, to = ?to, %error, "a webhook failed")
            }
            None => tracing::warn!(subscription = name, "the URL of a webhook is no longer allowed"),
        }
        self.subscriptions.complete_delivery(&delivery, outcome).await;
        of_request
    }

    /// Sends a request. `None`: the URL is not valid.
    async fn send(&self, delivery: &WebhookDelivery) -> Option<(Destination, SentOutcome)> {
        let to = Destination::of_client(&delivery.url, &self.trust).ok()?;
        let mut request = Request::new(delivery.body.clone());
        *request.method_mut() = Method::POST;
        let fields = request.headers_mut();
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let signature = self.subscriptions.keys().signature(&delivery.body, self.clock.wall());
        fields.insert(SIGNATURE, HeaderValue::from_str(&signature).ok()?);
        let traced = self.subscriptions.hand_on(delivery);
        if let Some(traced) = &traced {
            traced.put(request.headers_mut());
        }
        let time = delivery.lease.min(RESPONSE_TIME_MAX);
        let limits = ExchangeLimits { time, body_bytes_max: RESPONSE_BYTES_MAX };
        let sent = self.client.send(&to, request, limits).await;
        if let Some(traced) = traced {
            traced.end(sent.as_ref().err().map(ToString::to_string));
        }
        Some((to, sent))
    }

    /// The outcome of a request for its subscription and for its destination, and its label in the metrics.
    fn judge(
        &self,
        sent: Option<&(Destination, SentOutcome)>,
    ) -> (DeliveryOutcome, RequestOutcome, &'static str) {
        let failed = |retry_after| DeliveryOutcome::Failed { retry_after };
        match sent {
            None => (failed(None), RequestOutcome::Failed(None), "refused"),
            Some((_, Ok(response))) if response.status().is_success() => {
                let answer = serde_json::from_slice::<WebhookResponse>(response.body());
                let is_done = answer.is_ok_and(|answer| answer.done);
                let outcome = if is_done { DeliveryOutcome::Done } else { DeliveryOutcome::Accepted };
                (outcome, RequestOutcome::Answered, "ok")
            }
            Some((_, Ok(response))) => {
                let wait = self.wait(response.headers());
                // The host answers; this webhook of it does not want the request.
                let is_of_host = response.status().is_server_error() || response.status() == 429;
                let of_request =
                    if is_of_host { RequestOutcome::Failed(wait) } else { RequestOutcome::Answered };
                (failed(wait), of_request, "status")
            }
            Some((_, Err(OutboundError::Late(_)))) => {
                (DeliveryOutcome::Unanswered, RequestOutcome::Failed(None), "late")
            }
            Some((_, Err(OutboundError::TooLarge { .. }))) => {
                (DeliveryOutcome::Accepted, RequestOutcome::Answered, "too_large")
            }
            Some((_, Err(OutboundError::Refused { .. }))) => {
                (failed(None), RequestOutcome::Failed(None), "refused")
            }
            // The worker may have got it. A wake of its own fences it.
            Some((_, Err(_))) => (failed(None), RequestOutcome::Failed(None), "failed"),
        }
    }

    fn wait(&self, fields: &HeaderMap) -> Option<Duration> {
        retry_after(fields, self.clock.wall(), RETRY_AFTER_MAX)
    }
}

type SentOutcome = Result<hyper::Response<Bytes>, OutboundError>;
