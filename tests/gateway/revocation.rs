//! Open connections and held polls end when their token is revoked, expires, or loses its key.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http_body_util::BodyExt;
use mqtt_protocol_core::mqtt::packet::WillDelayInterval;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::authorization::{Protected, mqtt, pollgate};
use crate::world::mqtt::{Hello, Mqtt, Packet};
use crate::world::{Answer, Close, Connection, Gateway, PATIENCE, WebSocket, get, post, put, until};

const FORMS: [&str; 2] = ["sse", "ndjson"];

impl Protected {
    pub(crate) async fn revoke(&self, revocation: &Value) -> Answer {
        Connection::open(self.gateway.admin).await.send(post("/revocations").json(revocation)).await
    }

    /// Waits until the next second, so that new tokens have a later issue time.
    async fn next_second(&self) {
        let issued_at = || part(&self.token(&[]), 1)["iat"].as_u64().unwrap();
        let begun = issued_at();
        until("tokens of a later second", async || issued_at() > begun).await;
    }
}

/// A part of a token: 0 is its header, 1 its claims.
pub(crate) fn part(token: &str, part: usize) -> Value {
    let part = token.split('.').nth(part).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// One client in each form, all with one token.
struct Open {
    held: tokio::task::JoinHandle<Answer>,
    live: Vec<(&'static str, tokio::task::JoinHandle<String>)>,
    socket: WebSocket,
    mqtt: Mqtt,
    offset: String,
}

impl Open {
    async fn all(world: &Protected, token: &str) -> Self {
        let bearer = format!("Bearer {token}");
        let target = "/v1/stream/news?offset=now&live=";
        let poll = get(format!("{target}long-poll&timeout=50")).header("authorization", &bearer);
        let mut connection = world.gateway.connect().await;
        let held = tokio::spawn(async move { connection.send(poll).await });
        let mut live = Vec::new();
        for form in FORMS {
            let request = get(format!("{target}{form}")).header("authorization", &bearer);
            let mut connection = world.gateway.connect().await;
            let (status, _, body) = connection.begin(request).await.unwrap();
            assert_eq!(status, 200);
            let text = async move {
                let text = body.collect().await.unwrap().to_bytes();
                drop(connection);
                String::from_utf8(text.to_vec()).unwrap()
            };
            live.push((form, tokio::spawn(text)));
        }
        let mut socket =
            WebSocket::open_as(world.gateway.address, &format!("{target}websocket"), token).await.unwrap();
        let first = socket.json().await.unwrap();
        let offset = first["streamNextOffset"].as_str().unwrap().to_owned();
        let mut mqtt = mqtt(world, "a", Some(token)).await;
        assert_eq!(mqtt.subscribe("news", 0).await, 0);
        world.gateway.until_held(1).await;
        Self { held, live, socket, mqtt, offset }
    }

    /// Waits until each connection has ended with the reason `why` and its offset.
    async fn ended(mut self, why: &str, mqtt_reason: u8) {
        let held = timeout(PATIENCE, self.held).await.expect("the poll ends").unwrap();
        assert_eq!((held.status.as_u16(), held.next_offset()), (204, self.offset.clone()));
        for (form, text) in self.live {
            let text = timeout(PATIENCE, text).await.expect(form).unwrap();
            let last = text.trim_end().lines().last().unwrap();
            let control: Value = serde_json::from_str(last.trim_start_matches("data:")).unwrap();
            assert_eq!((&control["end"], &control["streamNextOffset"]), (&json!(why), &json!(self.offset)));
        }
        let last = timeout(PATIENCE, self.socket.json()).await.expect("the socket ends").unwrap();
        assert_eq!(last, json!({"data": [], "streamNextOffset": self.offset, "end": why}));
        assert_eq!(self.socket.json().await, Err(Close(4401, why.to_owned())));
        let disconnected = timeout(PATIENCE, self.mqtt.receive()).await.expect("MQTT ends");
        assert_eq!(disconnected, Some(Packet::Disconnect(mqtt_reason)));
    }

    /// Receives a message in each form except the long poll, which ends with it.
    async fn goes_on(&mut self) {
        let message = self.socket.json().await.unwrap();
        assert_eq!(message["data"], json!([7]));
        assert_eq!(self.mqtt.message().await.payload, b"7");
    }
}

#[tokio::test]
async fn a_revocation_ends_the_connections_of_the_named_tokens_and_no_others() {
    let world = Protected::start("").await;
    let of = |subject: &str| world.token(&["--read", "news", "--subject", subject]);
    let (mine, other) = (of("anna"), of("ben"));
    for revocation in [json!({"jti": part(&mine, 1)["jti"]}), json!({"sub": "anna"})] {
        // Tokens of the first round are revoked; tokens issued in this second belong to the second round.
        let token = if revocation.get("jti").is_some() { mine.clone() } else { of("anna") };
        let mut others = Open::all(&world, &other).await;
        others.held.abort();
        world.gateway.until_held(0).await;
        let open = Open::all(&world, &token).await;
        world.revoke(&revocation).await.expect(200);
        open.ended("revoked", 0x87).await;
        let again = world.send(Some(&token), get("/v1/stream/news")).await.expect(401);
        assert_eq!(again.header("www-authenticate"), "Bearer error=\"invalid_token\"");
        let owner = world.token(&["--append", "news", "--subject", "owner"]);
        world.send(Some(&owner), post("/v1/stream/news").json("7")).await.expect(204);
        others.goes_on().await;
    }
    // The subject gets a new token, issued after the revocation.
    world.next_second().await;
    world.send(Some(&of("anna")), get("/v1/stream/news")).await.expect(200);
    assert_eq!(world.gateway.ask_admin("/revocations").await.expect(200).json().as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_removed_or_revoked_key_ends_the_connections_of_its_tokens() {
    let world = Protected::start("").await;
    let token = world.token(&["--read", "news"]);
    let open = Open::all(&world, &token).await;
    let (key, next) = (world.key(), world.folder.path().join("next"));
    pollgate(&["keygen", next.to_str().unwrap()]);
    std::fs::rename(next, &key).unwrap();
    open.ended("revoked", 0x87).await;
    world.send(Some(&token), get("/v1/stream/news")).await.expect(401);

    let token = world.token(&["--read", "news"]);
    let open = Open::all(&world, &token).await;
    world.revoke(&json!({"kid": part(&token, 0)["kid"]})).await.expect(200);
    open.ended("revoked", 0x87).await;
    world.send(Some(&token), get("/v1/stream/news")).await.expect(401);
    let later = world.token(&["--read", "news"]);
    world.send(Some(&later), get("/v1/stream/news")).await.expect(401);
}

#[tokio::test]
async fn a_delayed_will_is_published_only_if_the_token_of_its_client_was_not_revoked() {
    let world = Protected::start("").await;
    let token = |subject| world.token(&["--append", "gone/#", "--create", "gone/#", "--subject", subject]);
    let hello = |id: &str, token: &str| Hello { password: Some(token.to_owned()), ..Hello::lasting(id) };
    let mut reader = mqtt(&world, "reader", Some(&world.token(&["--read", "gone/#"]))).await;
    assert_eq!(reader.subscribe("gone/#", 0).await, 0);
    for (subject, is_revoked) in [("anna", true), ("ben", false)] {
        let first = token(subject);
        let delay = vec![WillDelayInterval::new(1000).unwrap().into()];
        let will = Some((format!("gone/{subject}"), "gone".to_owned(), delay));
        drop(Mqtt::connect(world.gateway.mqtt, &Hello { will, ..hello(subject, &first) }).await);
        world.gateway.until_mqtt_clients(1).await;
        if is_revoked {
            world.revoke(&json!({"jti": part(&first, 1)["jti"]})).await.expect(200);
        }
        // The will is published at the end of the session.
        Mqtt::connect(world.gateway.mqtt, &Hello { clean: true, ..hello(subject, &token(subject)) }).await;
    }
    assert_eq!(reader.message().await.topic, "gone/ben");
}

/// The gateway stores the principal of a will, and authorizes it again when the will is published.
#[tokio::test]
async fn a_will_that_waits_over_a_restart_is_published_only_by_a_token_that_was_not_revoked() {
    let store = tempfile::tempdir().unwrap();
    let arguments = ["--store", store.path().to_str().unwrap()];
    let Protected { gateway, folder } = Protected::start_with("", &arguments, &[]).await;
    let world = Protected { gateway, folder };
    let token = |subject| world.token(&["--append", "gone/#", "--create", "gone/#", "--subject", subject]);
    let reader = world.token(&["--read", "gone/#"]);
    let delay = vec![WillDelayInterval::new(1000).unwrap().into()];
    for subject in ["anna", "ben"] {
        let (token, path) = (token(subject), format!("/v1/stream/gone/{subject}"));
        world.send(Some(&token), put(path).header("content-type", "text/plain")).await.expect(201);
        let will = Some((format!("gone/{subject}"), "gone".to_owned(), delay.clone()));
        let hello = Hello { will, password: Some(token), ..Hello::lasting("phone") };
        drop(Mqtt::connect(world.gateway.mqtt, &hello).await);
    }
    world.gateway.until_mqtt_clients(0).await;
    world.revoke(&json!({"sub": "anna"})).await.expect(200);
    let Protected { gateway, folder } = world;
    gateway.kill().await;
    let auth = folder.path().join("auth.toml");
    let options = [&["--auth", auth.to_str().unwrap()], &arguments[..]].concat();
    let world = Protected { gateway: Gateway::start(&options).await, folder };
    let mut reader = mqtt(&world, "reader", Some(&reader)).await;
    assert_eq!(reader.subscribe("gone/#", 0).await, 0);
    // The will is published at the end of the session. The revocation does not apply to tokens that are issued later.
    world.next_second().await;
    for subject in ["anna", "ben"] {
        let token = world.token(&["--subject", subject]);
        let hello = Hello { clean: true, password: Some(token), ..Hello::new("phone") };
        Mqtt::connect(world.gateway.mqtt, &hello).await;
    }
    assert_eq!(reader.message().await.topic, "gone/ben");
}

#[tokio::test]
async fn open_connections_are_told_that_their_token_has_expired() {
    let world = Protected::start("").await;
    let token = world.token(&["--read", "news", "--expires", "6s"]);
    Open::all(&world, &token).await.ended("expired", 0xa0).await;
}

#[tokio::test]
async fn an_acknowledged_revocation_survives_a_kill() {
    let store = tempfile::tempdir().unwrap();
    let arguments = ["--store", store.path().to_str().unwrap()];
    let Protected { gateway, folder } = Protected::start_with("", &arguments, &[]).await;
    let world = Protected { gateway, folder };
    let token = world.token(&["--read", "news"]);
    world.send(Some(&token), get("/v1/stream/news")).await.expect(200);
    world.revoke(&json!({"jti": part(&token, 1)["jti"]})).await.expect(200);
    let Protected { gateway, folder } = world;
    gateway.kill().await;
    let auth = folder.path().join("auth.toml");
    let options = [&["--auth", auth.to_str().unwrap()], &arguments[..]].concat();
    let world = Protected { gateway: Gateway::start(&options).await, folder };
    world.send(Some(&token), get("/v1/stream/news")).await.expect(401);
    world.send(Some(&world.token(&["--read", "news"])), get("/v1/stream/news")).await.expect(200);
}

/// No token pattern matches the stream of revocations, and clients of a gateway without tokens cannot use it either.
#[tokio::test]
async fn no_client_reaches_the_revocations() {
    let world = Protected::start("").await;
    let wide = ["$auth/#", "$auth/revocations", "#"]
        .map(|pattern| ["--read", pattern, "--append", pattern, "--create", pattern, "--manage", pattern]);
    let token = world.token(&wide.concat());
    let path = "/v1/stream/$auth/revocations";
    for request in [get(path), post(path).json("{}"), put(path), get("/v1/streams?stream=$auth/revocations")]
    {
        world.send(Some(&token), request).await.expect(403);
    }
    let mut client = mqtt(&world, "a", Some(&token)).await;
    for filter in ["$auth/#", "$auth/revocations", "$share/g/$auth/#"] {
        assert_eq!(client.subscribe(filter, 0).await, 0x87, "{filter}");
    }
    assert_eq!(client.publish("$auth/revocations", "{}", 1).await, 0x87);
    let open = Gateway::start(&[]).await;
    open.send(put(path)).await.expect(403);
    let answer = Connection::open(open.admin).await.send(post("/revocations").json("{\"sub\":\"a\"}")).await;
    assert_eq!(answer.status, 404);
}

#[tokio::test]
async fn a_revocation_that_names_nothing_is_refused_with_the_reason() {
    let world = Protected::start("").await;
    for (revocation, why) in [
        (json!({}), "one of jti"),
        (json!({"subject": "anna"}), "unknown field"),
        (json!({"sub": "anna", "iss": "elsewhere"}), "iss is not"),
        (json!({"jti": "x".repeat(5000)}), "4096 bytes"),
    ] {
        let refused = world.revoke(&revocation).await.expect(400);
        assert!(refused.text().contains(why), "{refused:?}");
    }
}
