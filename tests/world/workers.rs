//! [`Workers`] of two subscriptions, one of each kind, at gateways that may end at any moment. They check that no wake is lost, and that no
//! subscription has two valid holders.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

use super::{Answer, Connection, Gateway, PATIENCE, Request, WebhookServer, get, post, put};

const PULL: &str = "/v1/stream/__ds/subscriptions/pull";
const PUSH: &str = "/v1/stream/__ds/subscriptions/push";

/// A wake that a worker has got.
#[derive(Clone, Debug)]
struct Wake {
    id: Value,
    generation: u64,
    token: String,
    streams: Value,
}

/// What workers have seen of one subscription.
#[derive(Default)]
struct Seen {
    /// The ids of the wakes by generation.
    wakes: BTreeMap<u64, Value>,
    last: Option<Wake>,
}

impl Seen {
    /// Notes a wake. Checks that no other one has had its generation, and that generations never go back.
    fn note(&mut self, wake: &Wake) {
        let newest = self.wakes.last_key_value().map_or(0, |(generation, _)| *generation);
        assert!(wake.generation > newest, "generation {} after {newest}", wake.generation);
        self.wakes.insert(wake.generation, wake.id.clone());
    }

    /// Notes a wake whose holder settles it at `path`. Checks that the holder before it is fenced.
    async fn take_over(&mut self, gateways: &[&Gateway], path: &str, wake: &Wake) {
        self.note(wake);
        if let Some(before) = self.last.replace(wake.clone()) {
            let status = settle(gateways, path, &before, true).await;
            assert!(is_fenced(status), "two valid holders: {status:?}");
        }
    }
}

fn settlement(wake: &Wake, is_done: bool) -> String {
    let links = wake.streams.as_array().unwrap().iter();
    let acks: Vec<_> = links
        .filter(|link| link["has_pending"] == true)
        .map(|link| json!({"stream": link["path"], "offset": link["tail_offset"]}))
        .collect();
    json!({"wake_id": wake.id, "generation": wake.generation, "acks": acks, "done": is_done}).to_string()
}

/// Sends a request to one of the gateways, which may be killed meanwhile.
async fn attempt(gateways: &[&Gateway], request: Request) -> Option<Answer> {
    let gateway = gateways[fastrand::usize(..gateways.len())];
    Connection::try_open(gateway.address).await.ok()?.try_send(request).await.ok()
}

/// Whether a worker has been told that it does not hold its wake, or has been told nothing.
fn is_fenced(status: Option<u16>) -> bool {
    matches!(status, None | Some(409 | 503))
}

async fn settle(gateways: &[&Gateway], path: &str, wake: &Wake, is_done: bool) -> Option<u16> {
    let request = post(path).header("authorization", format!("Bearer {}", wake.token));
    Some(attempt(gateways, request.json(settlement(wake, is_done))).await?.status.as_u16())
}

/// A worker of the pull-wake subscription claims once, and acknowledges what it got. The holder before must be fenced.
async fn work(gateways: &[&Gateway], seen: &mut Seen) -> Option<()> {
    let claimed = attempt(gateways, post(format!("{PULL}/claim")).json(r#"{"worker":"w"}"#)).await?;
    if claimed.status != 200 {
        return None;
    }
    let claim = claimed.json();
    let wake = Wake {
        id: claim["wake_id"].clone(),
        generation: claim["generation"].as_u64().unwrap(),
        token: claim["token"].as_str().unwrap().to_owned(),
        streams: claim["streams"].clone(),
    };
    seen.take_over(gateways, &format!("{PULL}/ack"), &wake).await;
    settle(gateways, &format!("{PULL}/ack"), &wake, false).await?;
    settle(gateways, &format!("{PULL}/ack"), &wake, true).await?;
    Some(())
}

/// Handles the requests to the webhook: each second one is acknowledged by a callback. The worker before must be fenced.
async fn call_back(gateways: &[&Gateway], server: &mut WebhookServer, seen: &mut Seen) {
    while let Some(request) = server.try_next() {
        let body = request.json();
        let wake = Wake {
            id: body["wake_id"].clone(),
            generation: body["generation"].as_u64().unwrap(),
            token: body["callback_token"].as_str().unwrap().to_owned(),
            streams: body["streams"].clone(),
        };
        seen.take_over(gateways, &format!("{PUSH}/callback"), &wake).await;
        if wake.generation.is_multiple_of(2) {
            settle(gateways, &format!("{PUSH}/callback"), &wake, true).await;
        }
    }
}

async fn is_all_acknowledged(gateway: &Gateway, tails: &BTreeMap<String, String>) -> bool {
    for path in [PULL, PUSH] {
        let view = gateway.send(get(path)).await.expect(200).json();
        let acked = view["streams"].as_array().unwrap();
        let is_acked = |(path, tail): (&String, &String)| {
            // An append whose response was lost may be behind the last one that was acknowledged.
            acked.iter().any(|link| link["path"] == **path && link["acked_offset"].as_str() >= Some(tail))
        };
        if !tails.iter().all(is_acked) {
            return false;
        }
    }
    true
}

/// Two subscriptions, one of each kind, with their workers and what these have seen.
pub struct Workers {
    server: WebhookServer,
    pull: Seen,
    push: Seen,
    /// The tails of the streams of jobs, as publishers were told.
    tails: BTreeMap<String, String>,
    /// The number of the last job, and how many the gateway has acknowledged.
    job: usize,
    appended: usize,
}

impl Workers {
    /// Creates the subscriptions.
    pub async fn start(gateway: &Gateway) -> Self {
        let server = WebhookServer::start().await;
        server.answer(&[("200 OK", "{}")]);
        gateway.send(put("/v1/stream/wakes").json("[]")).await.expect(201);
        let subscription =
            json!({"type": "pull-wake", "pattern": "jobs/*", "wake_stream": "wakes", "lease_ttl_ms": 1000});
        gateway.send(put(PULL).json(subscription.to_string())).await.expect(201);
        let subscription = json!({"type": "webhook", "pattern": "jobs/*", "webhook": {"url": server.url()}, "lease_ttl_ms": 1000});
        gateway.send(put(PUSH).json(subscription.to_string())).await.expect(201);
        let (pull, push, tails, job, appended) = Default::default();
        Self { server, pull, push, tails, job, appended }
    }

    /// A publisher appends a job, and the workers do what is due, each at any of the gateways, which may end meanwhile.
    pub async fn step(&mut self, gateways: &[&Gateway]) {
        self.job += 1;
        let stream = format!("jobs/{}", self.job % 4);
        let append = post(format!("/v1/stream/{stream}?create=1")).json(format!("[{}]", self.job));
        if let Some(answer) = attempt(gateways, append).await.filter(|answer| answer.status.is_success()) {
            self.tails.insert(stream, answer.next_offset());
            self.appended += 1;
        }
        work(gateways, &mut self.pull).await;
        call_back(gateways, &mut self.server, &mut self.push).await;
    }

    /// Takes steps until an instant.
    pub async fn steps_until(&mut self, gateway: &Gateway, end: Instant) {
        let gateways = [gateway];
        while Instant::now() < end {
            tokio::select! {
                () = self.step(&gateways) => {}
                () = sleep_until(end) => {}
            }
        }
    }

    /// Waits until all jobs are acknowledged, so that no wake is lost. Says what `outages` there were.
    pub async fn finish(mut self, gateways: &[&Gateway], outages: &str) {
        self.server.answer(&[("200 OK", r#"{"done":true}"#)]);
        let deadline = Instant::now() + PATIENCE;
        while !is_all_acknowledged(gateways[0], &self.tails).await {
            assert!(Instant::now() < deadline, "a wake is lost: {:?}", self.tails);
            work(gateways, &mut self.pull).await;
            call_back(gateways, &mut self.server, &mut self.push).await;
            sleep(Duration::from_millis(20)).await;
        }
        println!(
            "{outages}: {} jobs, {} claims and {} webhooks, each with a generation of its own; all of {} streams acknowledged",
            self.appended,
            self.pull.wakes.len(),
            self.push.wakes.len(),
            self.tails.len()
        );
        assert!(!self.pull.wakes.is_empty() && !self.push.wakes.is_empty());
    }
}
