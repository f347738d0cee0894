//! Subscriptions: workers are woken by webhooks and wake streams, with authorization and tenants, and no webhook reaches a
//! forbidden address.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ED25519, UnparsedPublicKey};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::authorization::Protected;
use crate::world::{Answer, Gateway, PATIENCE, Webhook, WebhookServer, delete, get, post, put, until};

const SUBSCRIPTION: &str = "/v1/stream/__ds/subscriptions/jobs";

fn webhook(url: &str) -> String {
    json!({"type": "webhook", "pattern": "events/*", "webhook": {"url": url}}).to_string()
}

fn pull() -> String {
    json!({"type": "pull-wake", "pattern": "events/*", "wake_stream": "wakes"}).to_string()
}

fn code(answer: &Answer) -> String {
    answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
}

fn settlement(wake: &Value, offset: &Value) -> String {
    let acks = json!([{"stream": "events/a", "offset": offset}]);
    json!({"wake_id": wake["wake_id"], "generation": wake["generation"], "acks": acks, "done": true})
        .to_string()
}

/// Whether a key of the gateway has signed the request.
async fn is_signed(gateway: &Gateway, request: &Webhook) -> bool {
    let jwks = gateway.send(get("/v1/stream/__ds/jwks.json")).await.expect(200);
    assert_eq!(jwks.header("content-type"), "application/jwk-set+json");
    assert_eq!(jwks.header("cache-control"), "public, max-age=300");
    let parts: Vec<_> = request.header("webhook-signature").split(',').collect();
    let [time, id, signature] = ["t=", "kid=", "ed25519="].map(|name| {
        let part = parts.iter().find_map(|part| part.strip_prefix(name));
        part.unwrap_or_else(|| panic!("{name} is missing: {parts:?}"))
    });
    let jwks = jwks.json();
    let key = jwks["keys"].as_array().unwrap().iter().find(|key| key["kid"] == id).unwrap();
    let decoded = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
    let public = UnparsedPublicKey::new(&ED25519, decoded(key["x"].as_str().unwrap()));
    let signed = [format!("{time}.").as_bytes(), &request.body].concat();
    public.verify(&signed, &decoded(signature)).is_ok()
}

#[tokio::test]
async fn a_webhook_that_fails_gets_another_wake_and_the_worker_of_the_first_is_fenced() {
    let gateway = Gateway::start(&[]).await;
    let mut server = WebhookServer::start().await;
    server.answer(&[("500 Oh", ""), ("200 OK", "{}")]);
    gateway.send(put(SUBSCRIPTION).json(webhook(&server.url()))).await.expect(201);
    gateway.send(put("/v1/stream/events/a").json("[1]")).await.expect(201);
    let (first, second) = (server.next().await, server.next().await);
    assert!(is_signed(&gateway, &first).await && is_signed(&gateway, &second).await);
    let (first, second) = (first.json(), second.json());
    assert_eq!([&first["generation"], &second["generation"]], [1, 2]);
    assert_eq!(second["streams"][0]["acked_offset"], "-1");
    let call = async |wake: &Value| {
        let url = wake["callback_url"].as_str().unwrap();
        let path = url.strip_prefix(&format!("http://{}", gateway.address)).unwrap();
        let token = format!("Bearer {}", wake["callback_token"].as_str().unwrap());
        let body = settlement(wake, &second["streams"][0]["tail_offset"]);
        gateway.send(post(path).header("authorization", token).json(body)).await
    };
    assert_eq!(code(&call(&first).await.expect(409)), "FENCED");
    let failed = gateway.send(get(SUBSCRIPTION)).await.expect(200);
    assert_eq!(failed.json()["status"], "active", "{}", failed.text());
    assert_eq!(call(&second).await.expect(200).json(), json!({"ok": true, "next_wake": false}));
    gateway.send(post("/v1/stream/events/a").json("[2]")).await.expect(204);
    assert_eq!(server.next().await.json()["generation"], 3);
    let sent = async || gateway.ask_admin("/metrics").await.text();
    let counted = |outcome: &str, count: u32| {
        let (authority, labels) = (server.address, "pollgate_outbound_requests_total{purpose=\"webhook\"");
        format!("{labels},destination=\"{authority}\",outcome=\"{outcome}\"}} {count}\n")
    };
    until("the requests are counted", async || {
        let text = sent().await;
        text.contains(&counted("ok", 2)) && text.contains(&counted("status", 1))
    })
    .await;
}

#[tokio::test]
async fn a_subscription_and_its_lease_survive_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--store", folder.path().to_str().unwrap()];
    let gateway = Gateway::start(&arguments).await;
    gateway.send(put("/v1/stream/wakes").json("[]")).await.expect(201);
    gateway.send(put(SUBSCRIPTION).json(pull())).await.expect(201);
    gateway.send(put("/v1/stream/events/a").json("[1]")).await.expect(201);
    until("the stream is linked", async || {
        gateway.send(get(SUBSCRIPTION)).await.expect(200).text().contains("events/a")
    })
    .await;
    let claim = post(format!("{SUBSCRIPTION}/claim")).json(r#"{"worker":"one"}"#);
    let claimed = gateway.send(claim.clone()).await.expect(200).json();
    let keys = gateway.send(get("/v1/stream/__ds/jwks.json")).await.expect(200).text();
    gateway.kill().await;
    let gateway = Gateway::start(&arguments).await;
    assert_eq!(gateway.send(get("/v1/stream/__ds/jwks.json")).await.expect(200).text(), keys);
    let busy = gateway.send(claim.clone()).await.expect(409);
    assert_eq!(
        (code(&busy).as_str(), &busy.json()["error"]["current_holder"]),
        ("ALREADY_CLAIMED", &json!("one"))
    );
    let token = format!("Bearer {}", claimed["token"].as_str().unwrap());
    let ack = post(format!("{SUBSCRIPTION}/ack")).header("authorization", &token);
    let body = settlement(&claimed, &claimed["streams"][0]["tail_offset"]);
    gateway.send(ack.json(body)).await.expect(200);
    assert_eq!(code(&gateway.send(claim.clone()).await.expect(409)), "NO_PENDING_WORK");
    // A message that is appended while the gateway is down is found at the next start.
    gateway.send(post("/v1/stream/events/a").json("[2]")).await.expect(204);
    gateway.kill().await;
    let gateway = Gateway::start(&arguments).await;
    assert_eq!(gateway.send(claim).await.expect(200).json()["generation"], 2);
    gateway.send(delete(SUBSCRIPTION)).await.expect(204);
    gateway.kill().await;
    let gateway = Gateway::start(&arguments).await;
    assert_eq!(code(&gateway.send(get(SUBSCRIPTION)).await.expect(404)), "SUBSCRIPTION_NOT_FOUND");
}

#[tokio::test]
async fn webhooks_of_a_host_that_hangs_delay_no_other_host() {
    let gateway = Gateway::start(&[]).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut server = WebhookServer::start().await;
    let hanging = format!("http://{}/", silent.local_addr().unwrap());
    for number in 0..20 {
        let path = format!("/v1/stream/__ds/subscriptions/{number}");
        gateway.send(put(path).json(webhook(&hanging))).await.expect(201);
    }
    gateway.send(put(SUBSCRIPTION).json(webhook(&server.url()))).await.expect(201);
    gateway.send(put("/v1/stream/events/a").json("[1]")).await.expect(201);
    assert_eq!(server.next().await.json()["generation"], 1);
    let mut connections = Vec::new();
    for _ in 0..8 {
        connections.push(silent.accept().await.unwrap());
    }
    // None of these requests has a response, so the gateway opens no further connection to the host.
    gateway.send(post("/v1/stream/events/a").json("[2]")).await.expect(204);
    gateway.send(delete(SUBSCRIPTION)).await.expect(204);
    let another = timeout(Duration::from_millis(100), silent.accept()).await;
    assert!(another.is_err(), "a ninth connection");
}

#[tokio::test]
async fn a_drain_does_not_wait_for_webhooks_and_the_next_start_sends_what_is_due() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--store", folder.path().to_str().unwrap()];
    let mut gateway = Gateway::start(&arguments).await;
    let mut server = WebhookServer::start().await;
    server.answer_with("503 Later", "retry-after: 1\r\n");
    gateway.send(put(SUBSCRIPTION).json(webhook(&server.url()))).await.expect(201);
    gateway.send(put("/v1/stream/events/a").json("[1]")).await.expect(201);
    let first = server.next().await.json();
    gateway.signal("TERM");
    assert!(gateway.ended(PATIENCE).await.success());
    assert!(!gateway.log().contains("ERROR"), "{}", gateway.log());
    server.answer(&[("200 OK", r#"{"done":true}"#)]);
    let gateway = Gateway::start(&arguments).await;
    assert!(server.next().await.json()["generation"].as_u64() > first["generation"].as_u64());
    until("it is acknowledged", async || {
        let view = gateway.send(get(SUBSCRIPTION)).await.expect(200).json();
        view["streams"][0]["acked_offset"] != "-1"
    })
    .await;
}

#[tokio::test]
async fn webhooks_reach_no_private_address_unless_the_operator_allows_it() {
    let protected = Protected::start("").await;
    let token = protected.token(&["--manage", "#"]);
    let create = async |url: &str| {
        let refused = protected.send(Some(&token), put(SUBSCRIPTION).json(webhook(url))).await;
        (refused.status.as_u16(), code(&refused))
    };
    let rejected = (400, "WEBHOOK_URL_REJECTED".to_owned());
    for url in [
        "http://a.example/",
        "http://10.0.0.1/",
        "http://127.0.0.1:1/",
        "http://127.1.1.1/",
        "http://localhost/",
        "https://localhost/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[fd00::1]/",
        "https://100.64.0.1/",
        "https://0.0.0.0/",
        "https://[64:ff9b::7f00:1]/",
        "https://[2002:7f00:1::]/",
        "https://me@a.example/",
        "ftp://a.example/",
        "a",
    ] {
        assert_eq!(create(url).await, rejected, "{url}");
    }
    for url in ["https://a.example/hook", "https://1.1.1.1/"] {
        assert_eq!(create(url).await.0, 201, "{url}");
        protected.send(Some(&token), delete(SUBSCRIPTION)).await.expect(204);
    }
    // Names that lead to this machine are refused when a connection is made, and redirects are not followed.
    let gateway = Gateway::start(&["--outbound-allow", "127.0.0.1"]).await;
    let (mut server, mut other) = (WebhookServer::start().await, WebhookServer::start().await);
    server.answer_with("302 Found", &format!("location: {}\r\n", other.url()));
    gateway.send(put(SUBSCRIPTION).json(webhook(&server.url()))).await.expect(201);
    gateway.send(put("/v1/stream/events/a").json("[1]")).await.expect(201);
    let generations =
        [server.next().await, server.next().await].map(|request| request.json()["generation"].clone());
    assert_eq!(generations, [1, 2], "a redirect is a failure");
    assert!(other.try_next().is_none());
    assert_eq!(gateway.send(get(SUBSCRIPTION)).await.expect(200).json()["status"], "failed");
}

/// Each operation with the tokens that allow it.
#[tokio::test]
async fn clients_manage_what_they_may_manage_and_workers_bring_the_token_of_their_wake() {
    let protected = Protected::start("").await;
    let send = async |token: &str, request| protected.send(Some(token), request).await;
    let owner =
        protected.token(&["--create", "#", "--append", "#", "--manage", "events/+", "--append", "wakes"]);
    let reader = protected.token(&["--read", "events/#"]);
    let narrow = protected.token(&["--manage", "events/a", "--append", "#", "--read", "events/a"]);
    let without_wakes = protected.token(&["--manage", "events/+"]);
    send(&owner, put("/v1/stream/wakes").json("[]")).await.expect(201);
    for (token, status) in
        [(&reader, 403), (&narrow, 403), (&without_wakes, 403), (&owner, 201), (&owner, 200)]
    {
        send(token, put(SUBSCRIPTION).json(pull())).await.expect(status);
    }
    protected.send(None, put(SUBSCRIPTION).json(pull())).await.expect(401);
    send(&owner, put("/v1/stream/events/a").json("[1]")).await.expect(201);
    let link = |stream: &str| post(format!("{SUBSCRIPTION}/streams")).json(json!({ "streams": [stream] }));
    let claim = || post(format!("{SUBSCRIPTION}/claim")).json(r#"{"worker":"one"}"#);
    for request in [get(SUBSCRIPTION), delete(SUBSCRIPTION), link("events/a"), claim()] {
        send(&narrow, request.clone()).await.expect(403);
        protected.send(None, request).await.expect(401);
    }
    send(&owner, get(SUBSCRIPTION)).await.expect(200);
    send(&owner, link("events/a")).await.expect(204);
    send(&owner, link("other")).await.expect(403);
    send(&owner, link("$auth/revocations")).await.expect(403);
    send(&owner, claim()).await.expect(403);
    let claimed = send(&reader, claim()).await.expect(200).json();
    let ack = |action: &str| {
        let body = settlement(&claimed, &claimed["streams"][0]["tail_offset"]);
        post(format!("{SUBSCRIPTION}/{action}")).json(body)
    };
    for action in ["ack", "release", "callback"] {
        assert_eq!(code(&protected.send(None, ack(action)).await.expect(401)), "TOKEN_INVALID");
        assert_eq!(code(&send(&owner, ack(action)).await.expect(401)), "TOKEN_INVALID");
    }
    let token = claimed["token"].as_str().unwrap();
    assert_eq!(code(&send(token, ack("callback")).await.expect(400)), "INVALID_REQUEST");
    send(token, get("/v1/stream/events/a")).await.expect(401);
    send(token, ack("ack")).await.expect(200);
    assert_eq!(code(&send(token, ack("ack")).await.expect(409)), "FENCED");
}

#[tokio::test]
async fn tenants_have_subscriptions_of_their_own_and_their_names_never_cross() {
    let protected = Protected::start("").await;
    let all = ["--read", "#", "--append", "#", "--create", "#", "--manage", "#"];
    let tokens = ["acme", "beta"].map(|tenant| protected.token(&[&["--tenant", tenant], &all[..]].concat()));
    let [acme, beta] = &tokens;
    let send = async |token: &str, request| protected.send(Some(token), request).await;
    for token in &tokens {
        send(token, put("/v1/stream/wakes").json("[]")).await.expect(201);
        send(token, put(SUBSCRIPTION).json(pull())).await.expect(201);
    }
    send(acme, put("/v1/stream/events/a").json("[1]")).await.expect(201);
    // A worker reads the wake stream before it claims. A new stream is linked soon after its creation.
    let is_woken = async || send(acme, get("/v1/stream/wakes")).await.expect(200).text() != "[]";
    until("the wake of acme is appended", is_woken).await;
    let claim = || post(format!("{SUBSCRIPTION}/claim")).json(r#"{"worker":"one"}"#);
    assert_eq!(code(&send(beta, claim()).await.expect(409)), "NO_PENDING_WORK");
    let claimed = send(acme, claim()).await.expect(200).json();
    assert_eq!(claimed["streams"][0]["path"], "events/a");
    // The wake was appended to the stream of its tenant.
    assert_eq!(send(beta, get("/v1/stream/wakes")).await.expect(200).text(), "[]");
    assert!(send(acme, get("/v1/stream/wakes")).await.expect(200).text().contains("\"stream\":\"events/a\""));
    // The token of a wake tells its tenant; one that was changed is not valid.
    let token = claimed["token"].as_str().unwrap();
    let of_beta = token.replacen(&URL_SAFE_NO_PAD.encode("acme"), &URL_SAFE_NO_PAD.encode("beta"), 1);
    assert_ne!(token, of_beta);
    let body = settlement(&claimed, &claimed["streams"][0]["tail_offset"]);
    let ack = post(format!("{SUBSCRIPTION}/ack")).json(body);
    assert_eq!(code(&send(&of_beta, ack.clone()).await.expect(401)), "TOKEN_INVALID");
    send(token, ack).await.expect(200);
    send(beta, delete(SUBSCRIPTION)).await.expect(204);
    send(acme, get(SUBSCRIPTION)).await.expect(200);
}

#[tokio::test]
async fn subscriptions_are_limited_in_number_and_streams() {
    let limits = ["subscriptions_per_tenant_max=2", "subscription_streams_max=2"];
    let gateway = Gateway::start(&limits.map(|limit| ["--limit", limit]).concat()).await;
    gateway.send(put("/v1/stream/wakes").json("[]")).await.expect(201);
    let path = |name: &str| format!("/v1/stream/__ds/subscriptions/{name}");
    let subscription = |streams: &[&str]| {
        json!({"type": "pull-wake", "streams": streams, "wake_stream": "wakes"}).to_string()
    };
    let refused = gateway.send(put(path("a")).json(subscription(&["1", "2", "3"]))).await.expect(429);
    assert_eq!(code(&refused), "LIMIT_EXCEEDED");
    for name in ["a", "b"] {
        gateway.send(put(path(name)).json(subscription(&["1", "2"]))).await.expect(201);
    }
    gateway.send(put(path("c")).json(subscription(&["1"]))).await.expect(429);
    let link = post(format!("{}/streams", path("a"))).json(r#"{"streams":["3"]}"#);
    gateway.send(link).await.expect(429);
    gateway.send(delete(path("a"))).await.expect(204);
    gateway.send(put(path("c")).json(subscription(&["1"]))).await.expect(201);
    let missing = json!({"type": "pull-wake", "streams": ["1"], "wake_stream": "none"}).to_string();
    assert_eq!(code(&gateway.send(put(path("d")).json(missing)).await.expect(400)), "INVALID_REQUEST");
}
