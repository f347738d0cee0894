//! [`WakeSender`]: takes wakes that are due from the hub, sends each over its app, and reports the verdict.
//!
//! Nothing waits here in a queue: the hub hands out a wake only if its app has room, and derives what is pending from offsets, so
//! that neither a full provider nor a kill loses a wake.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::join_all;
use hyper::{Request, Response, Uri};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::answers::{RETRY, token_of};
use super::sms::Smsc;
use super::{AccessToken, Adapter, ProviderAnswer, Wake};
use crate::clock::{Clock, rfc3339};
use crate::http_client::{Destination, ExchangeLimits, HttpClient, OutboundError, Trust};
use crate::hub::{Creation, Hub, Removed, Verdict, WakeOrder};
use crate::stream::{Append, ContentType, Payload, Retention, StreamName};
use crate::traces::RequestSpan;

/// Wakes are handed out this often, each time a part of those of a second.
const TICKS_PER_SECOND: u32 = 10;

/// How late the offsets of devices may be stored.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// How long a provider gets after it has refused an access token.
const TOKEN_PAUSE: Duration = Duration::from_secs(5);

/// The stream of each tenant that tells which channels were removed, and how many entries it keeps.
const REMOVED: &str = "devices/removed";
const REMOVED_MAX: u64 = 10_000;

const JSON_DEPTH_MAX: usize = 4;

/// Sends wakes. See the documentation of the module.
pub struct WakeSender {
    hub: Arc<Hub>,
    clock: Clock,
    wakes_per_second: u32,
    apps: Arc<HashMap<Arc<str>, SendingApp>>,
    client: HttpClient,
}

/// An app with its connection to the provider.
pub struct SendingApp {
    wire: ProviderWire,
    /// How long the provider keeps a wake.
    ttl: Duration,
}

enum ProviderWire {
    Http(Box<HttpApp>),
    Sms(Smsc),
}

/// An app of a provider with an interface over HTTP.
struct HttpApp {
    adapter: Box<dyn Adapter>,
    /// The certificates that the provider may have.
    trust: Trust,
    access: Mutex<Access>,
}

/// The access token of an app, or why there is none.
enum Access {
    Unknown,
    Granted(AccessToken),
    Refused(Verdict, SystemTime),
}

impl SendingApp {
    /// An app with an adapter. It has no access token yet.
    pub fn new(adapter: Box<dyn Adapter>, trust: Trust, ttl: Duration) -> Self {
        let access = Mutex::new(Access::Unknown);
        Self { wire: ProviderWire::Http(Box::new(HttpApp { adapter, trust, access })), ttl }
    }

    /// An app that sends SMS.
    pub fn of_sms(smsc: Smsc, ttl: Duration) -> Self {
        Self { wire: ProviderWire::Sms(smsc), ttl }
    }

    async fn send(
        &self,
        order: &WakeOrder,
        client: &HttpClient,
        clock: Clock,
        traced: Option<&RequestSpan>,
    ) -> Verdict {
        let id = format!("{:016x}", order.wake);
        let (device, credential) = (order.device.chosen(), &order.credential);
        match &self.wire {
            ProviderWire::Http(app) => {
                let wake = Wake { id: &id, device, credential, ttl: self.ttl };
                app.send(wake, client, clock, traced).await
            }
            ProviderWire::Sms(smsc) => match token_of(credential) {
                Ok(number) => smsc.submit(number, &id, self.ttl, clock).await,
                Err(verdict) => verdict,
            },
        }
    }
}

impl WakeSender {
    /// A sender for the apps, by name, at most `wakes_per_second` over all of them.
    pub fn new(
        hub: Arc<Hub>,
        clock: Clock,
        wakes_per_second: u32,
        apps: HashMap<Arc<str>, SendingApp>,
        client: HttpClient,
    ) -> Self {
        Self { hub, clock, wakes_per_second, apps: Arc::new(apps), client }
    }

    /// Sends wakes until the task is aborted.
    pub async fn run(self) {
        tokio::join!(
            self.hub.follow_device_claims(),
            self.hub.follow_device_streams(),
            self.send_due(),
            self.save(),
            self.take_receipts()
        );
    }

    /// Hands the receipts of message centres to the hub.
    async fn take_receipts(&self) {
        let of_app = async |(name, app): (&Arc<str>, &SendingApp)| {
            let ProviderWire::Sms(smsc) = &app.wire else { return };
            while let Some(receipt) = smsc.receipt().await {
                let (now, wall) = (self.clock.now(), self.clock.wall());
                self.hub.devices().note_receipt(name, &receipt.number, receipt.state, now, wall);
            }
        };
        join_all(self.apps.iter().map(of_app)).await;
    }

    async fn send_due(&self) {
        let at_once = usize::try_from(self.wakes_per_second.div_ceil(TICKS_PER_SECOND)).unwrap_or(1);
        loop {
            self.hub.wake_due().await;
            for order in self.hub.take_wakes(at_once).await {
                let (hub, clock, client) = (self.hub.clone(), self.clock, self.client.clone());
                let apps = self.apps.clone();
                tokio::spawn(async move {
                    let verdict = match apps.get(&order.app) {
                        Some(app) => {
                            let tail = order.news.iter().map(|(stream, tail)| (stream.as_str(), tail.0));
                            let traced = hub.traces().and_then(|traces| traces.hand_on("wake", tail));
                            let verdict = app.send(&order, &client, clock, traced.as_ref()).await;
                            if let Some(traced) = traced {
                                traced.end(
                                    (!matches!(verdict, Verdict::Ok { .. }))
                                        .then(|| verdict.as_str().to_owned()),
                                );
                            }
                            verdict
                        }
                        None => Verdict::config("the app is not in the settings"),
                    };
                    note(&order, &verdict);
                    hub.devices().report(&order, &verdict, clock.now(), clock.wall());
                });
            }
            sleep(Duration::from_secs(1) / TICKS_PER_SECOND).await;
        }
    }

    /// Stores what has changed, and tells which channels were removed.
    async fn save(&self) {
        loop {
            self.hub.until_devices().await;
            self.hub.save_devices().await;
            for removed in self.hub.devices().take_removed() {
                if let Err(error) = self.tell(&removed).await {
                    tracing::warn!(error, app = &*removed.app, "cannot append to devices/removed");
                }
            }
            sleep(SAVE_INTERVAL).await;
        }
    }

    async fn tell(&self, removed: &Removed) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let name = StreamName::parse(REMOVED).map_err(|error| text(&error))?.of_tenant(&removed.tenant);
        let json_type = ContentType::stored("application/json").map_err(|error| text(&error))?;
        let retention = Some(Retention { messages_max: Some(REMOVED_MAX), ..Retention::default() });
        let creation = Creation { content_type: Some(json_type.clone()), retention, ..Creation::default() };
        self.hub.create(&name, creation).await.map_err(|error| text(&error))?;
        let entry = json!({
            "device": removed.device.chosen(),
            "subject": removed.device.subject(),
            "app": &*removed.app,
            "credential": removed.credential,
            "reason": removed.reason.as_str(),
            "at": rfc3339(self.clock.wall()),
        });
        let append = Append::of(json_type, Payload::default());
        let append =
            append.with_body(Bytes::from(entry.to_string()), JSON_DEPTH_MAX).map_err(|error| text(&error))?;
        self.hub.publish(&name, append).await.map(drop).map_err(|error| text(&error))
    }
}

impl HttpApp {
    /// Sends a wake, twice if the provider does not accept the access token the first time.
    async fn send(
        &self,
        wake: Wake<'_>,
        client: &HttpClient,
        clock: Clock,
        traced: Option<&RequestSpan>,
    ) -> Verdict {
        match self.send_once(wake, client, clock, traced).await {
            Ok(verdict) => verdict,
            Err(None) => match self.send_once(wake, client, clock, traced).await {
                Ok(verdict) => verdict,
                Err(verdict) => {
                    verdict.unwrap_or_else(|| Verdict::config("the provider refuses each access token"))
                }
            },
            Err(Some(verdict)) => verdict,
        }
    }

    /// The error is the verdict if the wake could not be sent, and `None` if the provider did not accept the access token.
    async fn send_once(
        &self,
        wake: Wake<'_>,
        client: &HttpClient,
        clock: Clock,
        traced: Option<&RequestSpan>,
    ) -> Result<Verdict, Option<Verdict>> {
        let access = self.access(client, clock).await.map_err(Some)?;
        let mut request = self.adapter.request(wake, access.as_ref(), clock.wall()).map_err(Some)?;
        if let Some(traced) = traced.filter(|_| self.adapter.continues_traces()) {
            traced.put(request.headers_mut());
        }
        let response = self.exchange(client, request).await.map_err(Some)?;
        let answer = answer(&response);
        if access.is_some() && self.adapter.rejects_token(answer) {
            let mut held = self.access.lock().await;
            // Another wake may have replaced it already.
            if matches!(&*held, Access::Granted(token) if Some(token) == access.as_ref()) {
                *held = Access::Unknown;
            }
            return Err(None);
        }
        Ok(self.adapter.verdict(answer, clock.wall()))
    }

    /// The access token, which one wake gets and others wait for. `None`: the provider issues none.
    async fn access(&self, client: &HttpClient, clock: Clock) -> Result<Option<AccessToken>, Verdict> {
        let mut access = self.access.lock().await;
        let wall = clock.wall();
        match &*access {
            Access::Granted(token) if token.until > wall => return Ok(Some(token.clone())),
            // Measured by a clock that cannot be set.
            Access::Refused(verdict, until) if *until > clock.now() => return Err(verdict.clone()),
            _ => {}
        }
        let Some(request) = self.adapter.token_request(wall) else { return Ok(None) };
        let token = match request {
            Ok(request) => match self.exchange(client, request).await {
                Ok(response) => self.adapter.token(answer(&response), wall),
                Err(verdict) => Err(verdict),
            },
            Err(verdict) => Err(verdict),
        };
        match token {
            Ok(token) => {
                *access = Access::Granted(token.clone());
                Ok(Some(token))
            }
            Err(verdict) => {
                *access = Access::Refused(verdict.clone(), clock.now() + TOKEN_PAUSE);
                Err(verdict)
            }
        }
    }

    async fn exchange(
        &self,
        client: &HttpClient,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, Verdict> {
        let is_of_device = self.adapter.is_sent_to_url_of_device();
        let origin = origin(request.uri()).ok_or_else(|| Verdict::bad("the URL has no host"))?;
        let destination = if is_of_device {
            Destination::of_client(&origin, &self.trust).map_err(|error| Verdict::bad(error.to_string()))?
        } else {
            Destination::of_operator(&origin, &self.trust)
                .map_err(|error| Verdict::config(error.to_string()))?
        };
        let response = client.send(&destination, request, ExchangeLimits::default()).await;
        response.map_err(|error| match &error {
            OutboundError::Refused { .. } if is_of_device => Verdict::bad(error.to_string()),
            _ => {
                tracing::debug!(%error, "no answer from a wake provider");
                Verdict::Retry { after: RETRY }
            }
        })
    }
}

fn origin(uri: &Uri) -> Option<String> {
    Some(format!("{}://{}", uri.scheme_str()?, uri.authority()?))
}

fn answer(response: &Response<Bytes>) -> ProviderAnswer<'_> {
    ProviderAnswer { status: response.status(), headers: response.headers(), body: response.body() }
}

/// Logs a verdict, without the credential.
fn note(order: &WakeOrder, verdict: &Verdict) {
    let (app, credential) = (&*order.app, order.credential.hint());
    match verdict {
        Verdict::Bad(reason) => {
            tracing::warn!(app, credential, reason = &**reason, "a provider refuses a wake")
        }
        verdict => tracing::debug!(app, credential, verdict = verdict.as_str(), "sent a wake"),
    }
}
