//! Subscriptions are served at any gateway, and go on when the gateway that has them is killed or stopped.

use serde_json::{Value, json};

use crate::server::Engine;
use crate::world::workers::Workers;
use crate::world::{Answer, Gateway, Request, WebhookServer, delete, get, post, put, until};

const JOBS: &str = "/v1/stream/__ds/subscriptions/jobs";

async fn pair(engine: &Engine, arguments: &[&str]) -> [Gateway; 2] {
    [engine.gateway_with("one", arguments).await, engine.gateway_with("other", arguments).await]
}

/// Begins a subscription whose workers claim, with a lease that outlasts the test.
async fn pull_wake(gateway: &Gateway) {
    gateway.send(put("/v1/stream/wakes").json("[]")).await.expect(201);
    let subscription =
        json!({"type": "pull-wake", "pattern": "jobs/*", "wake_stream": "wakes", "lease_ttl_ms": 600_000});
    gateway.send(put(JOBS).json(subscription.to_string())).await.expect(201);
}

async fn claim(gateway: &Gateway, worker: &str) -> Value {
    let claim = post(format!("{JOBS}/claim")).json(json!({"worker": worker}).to_string());
    gateway.send(claim).await.expect(200).json()
}

/// What the worker with a claim says once it has done everything.
fn done(claim: &Value) -> Request {
    let links = claim["streams"].as_array().unwrap().iter();
    let acks: Vec<_> =
        links.map(|link| json!({"stream": link["path"], "offset": link["tail_offset"]})).collect();
    let said =
        json!({"wake_id": claim["wake_id"], "generation": claim["generation"], "acks": acks, "done": true});
    let token = claim["token"].as_str().unwrap();
    post(format!("{JOBS}/ack")).header("authorization", format!("Bearer {token}")).json(said.to_string())
}

async fn append(gateway: &Gateway) {
    let appended = gateway.send(post("/v1/stream/jobs/a?create=1").json("[1]")).await;
    assert!(appended.status.is_success(), "{appended:?}");
}

/// Appends, and waits until the subscription has the stream, which it gets to know after the append is acknowledged.
async fn append_to_linked(gateway: &Gateway) {
    append(gateway).await;
    let is_linked = async || {
        let view = gateway.send(get(JOBS)).await.expect(200).json();
        view["streams"].as_array().is_some_and(|streams| !streams.is_empty())
    };
    until("the subscription has the stream", is_linked).await;
}

fn code(answer: &Answer) -> String {
    answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn each_step_of_a_worker_may_be_at_another_gateway() {
    let engine = Engine::volatile().await;
    let gateways = pair(&engine, &[]).await;
    pull_wake(&gateways[0]).await;
    for round in 0..6 {
        let [here, there] = [&gateways[round % 2], &gateways[(round + 1) % 2]];
        append_to_linked(here).await;
        let claimed = claim(there, "first").await;
        assert_eq!(claimed["generation"], round + 1);
        let refused =
            here.send(post(format!("{JOBS}/claim")).json(r#"{"worker":"second"}"#)).await.expect(409);
        assert_eq!(code(&refused), "ALREADY_CLAIMED");
        here.send(done(&claimed)).await.expect(200);
        assert_eq!(code(&there.send(done(&claimed)).await.expect(409)), "FENCED");
    }
    let views = [gateways[0].send(get(JOBS)).await, gateways[1].send(get(JOBS)).await];
    assert_eq!(views[0].json(), views[1].json());
    gateways[1].send(delete(JOBS)).await.expect(204);
    gateways[0].send(get(JOBS)).await.expect(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_kill_of_a_gateway_loses_a_wake_or_makes_a_second_holder() {
    const KILLS: usize = 6;
    let engine = Engine::volatile().await;
    let [mut stays, mut killed] = pair(&engine, &[]).await;
    let mut workers = Workers::start(&killed).await;
    for kill in 0..KILLS {
        for _ in 0..5 {
            workers.step(&[&stays, &killed]).await;
        }
        killed.kill().await;
        for _ in 0..5 {
            workers.step(&[&stays]).await;
        }
        let name = ["other", "one"][kill % 2];
        (stays, killed) = (engine.gateway(name).await, stays);
    }
    workers.finish(&[&stays, &killed], &format!("{KILLS} x SIGKILL")).await;
}

#[tokio::test]
async fn a_subscription_of_a_gateway_that_was_killed_wakes_although_nobody_asks_for_it() {
    let engine = Engine::volatile().await;
    let [one, other] = pair(&engine, &[]).await;
    let mut server = WebhookServer::start().await;
    server.answer(&[("200 OK", r#"{"done":true}"#)]);
    let subscription = json!({"type": "webhook", "pattern": "jobs/*", "webhook": {"url": server.url()}});
    one.send(put(JOBS).json(subscription.to_string())).await.expect(201);
    append(&other).await;
    assert_eq!(server.next().await.json()["generation"], 1);
    let is_done = async || {
        let view = one.send(get(JOBS)).await.expect(200).json();
        view["streams"][0]["acked_offset"] != "-1"
    };
    until("the outcome is stored", is_done).await;
    one.kill().await;
    append(&other).await;
    assert_eq!(server.next().await.json()["generation"], 2);
}

#[tokio::test]
async fn a_gateway_that_was_stopped_and_goes_on_acknowledges_nothing_for_a_worker_of_an_earlier_wake() {
    let engine = Engine::volatile().await;
    let [stopped, other] = pair(&engine, &[]).await;
    pull_wake(&stopped).await;
    append_to_linked(&stopped).await;
    let first = claim(&stopped, "first").await;
    stopped.signal("STOP");
    other.send(done(&first)).await.expect(200);
    append(&other).await;
    let second = claim(&other, "second").await;
    assert_eq!(second["generation"], 2);
    stopped.signal("CONT");
    assert_eq!(code(&stopped.send(done(&first)).await.expect(409)), "FENCED");
    stopped.send(done(&second)).await.expect(200);
}

#[tokio::test]
async fn subscriptions_of_all_gateways_count_and_one_that_was_deleted_elsewhere_does_not() {
    let engine = Engine::volatile().await;
    let gateways = pair(&engine, &["--limit", "subscriptions_max=1"]).await;
    pull_wake(&gateways[0]).await;
    let further = json!({"type": "pull-wake", "pattern": "a", "wake_stream": "wakes"}).to_string();
    let path = "/v1/stream/__ds/subscriptions/further";
    let create = async || gateways[1].send(put(path).json(&*further)).await.status.as_u16();
    // The news of the first one may be on their way.
    let is_refused = async || {
        let status = create().await;
        gateways[1].send(delete(path)).await.expect(204);
        status == 429
    };
    until("there are too many", is_refused).await;
    gateways[0].send(delete(JOBS)).await.expect(204);
    until("there is room", async || create().await == 201).await;
}
