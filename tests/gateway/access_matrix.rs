//! Every front and delivery form over TLS, with every kind of credentials, as one complete table.

mod table;
mod tunnel;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use http_body_util::BodyExt;
use ring::hmac;
use ring::signature::Ed25519KeyPair;
use serde_json::{Value, json};

use crate::authorization::pollgate;
use crate::world::mqtt::{Hello, Mqtt, Packet};
use crate::world::{
    Answer, Close, Connection, Gateway, Raw, Request, WebSocket, delete, get, handshake, post, put, until,
};
use table::{CREDENTIALS, Credentials, FRONTS, Front, Outcome, expected};
use tunnel::Tunnel;

struct World {
    gateway: Gateway,
    current: Value,
    rotated: Value,
    removed: Value,
    /// For clients without a certificate.
    plain: Tunnel,
    _folder: tempfile::TempDir,
}

/// The rights that certificates grant.
fn rules() -> String {
    let own = "['news', 'made']";
    let rules = [
        ("not-granted", "", "['other']"),
        ("other-tenant", "tenant = 'another'\n", own),
        ("granted", "", own),
        ("revoked", "", own),
    ];
    let rules = rules.map(|(name, tenant, streams)| {
        let rights = ["read", "append", "create", "manage"].map(|right| format!("{right} = {streams}\n"));
        let name = format!("name = 'uri'\nmatches = 'spiffe://example.org/{name}'\n");
        format!("[[certificate]]\n{name}{tenant}{}", rights.concat())
    });
    format!("key_file = 'keys'\n{}", rules.concat())
}

/// A file with a certificate of these tests.
fn certificate(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gateway/certificates").join(name)
}

async fn send(address: SocketAddr, request: Request) -> Answer {
    Connection::open(address).await.send(request).await
}

impl World {
    /// A gateway with two keys, and a third one that was removed.
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [current, rotated, removed] = ["current", "rotated", "removed"].map(|name| {
            let path = folder.path().join(name);
            pollgate(&["keygen", path.to_str().unwrap()]);
            serde_json::from_str::<Value>(&std::fs::read_to_string(path).unwrap()).unwrap()
        });
        let (keys, next) = (folder.path().join("keys"), folder.path().join("next"));
        std::fs::write(&keys, json!({"keys": [current, rotated, removed]}).to_string()).unwrap();
        let auth = folder.path().join("auth.toml");
        std::fs::write(&auth, rules()).unwrap();
        let files = [
            ("--auth", auth),
            ("--tls-certificate", certificate("gateway.pem")),
            ("--tls-key", certificate("key.pem")),
            ("--tls-client-ca", certificate("authority.pem")),
            ("--tls-client-crl", certificate("revoked-list.pem")),
        ];
        let files = files.iter().flat_map(|(option, file)| [*option, file.to_str().unwrap()]);
        let limits = ["--limit", "websocket_auth_timeout=1s", "--limit", "failed_logins_max=0"];
        let (config, secret) = (folder.path().join("config.toml"), folder.path().join("secret"));
        std::fs::write(&secret, "a secret of the webhook").unwrap();
        let app = format!(
            "[[wake]]\nname = \"push\"\nkind = \"webhook\"\nurl = \"http://127.0.0.1:9/\"\nkey_file = {secret:?}\n"
        );
        std::fs::write(&config, app).unwrap();
        let files = files.chain(["--config", config.to_str().unwrap()]);
        let gateway = Gateway::start(&files.chain(limits).collect::<Vec<_>>()).await;
        let plain = Tunnel::open(&gateway, None).await;
        let world = Self { gateway, current, rotated, removed, plain, _folder: folder };
        let owner = token(&world.current, |_, claims| {
            claims["streams"] = json!({"create": ["#"], "append": ["#"]});
        });
        let create = put("/v1/stream/news").json("[1]");
        world.send(as_bearer(create, Some(&owner))).await.expect(201);
        let of_removed = token(&world.removed, |_, _| {});
        let ask =
            async || world.send(as_bearer(get("/v1/stream/news"), Some(&of_removed))).await.status.as_u16();
        assert_eq!(ask().await, 200);
        std::fs::write(&next, json!({"keys": [world.current, world.rotated]}).to_string()).unwrap();
        std::fs::rename(next, keys).unwrap();
        until("the removed key is refused", async || ask().await == 401).await;
        world
    }

    /// Sends a request of a client without a certificate.
    async fn send(&self, request: Request) -> Answer {
        send(self.plain.http, request).await
    }

    /// The token for the credentials.
    fn token(&self, credentials: Credentials) -> Option<String> {
        let now = seconds();
        let current = |change: fn(&mut Value, u64)| token(&self.current, |_, claims| change(claims, now));
        let is_beside = matches!(
            credentials,
            Credentials::NotGrantedBesideCertificate | Credentials::MalformedBesideCertificate
        );
        if credentials.certificate().is_some() && !is_beside {
            return None;
        }
        Some(match credentials.as_token() {
            Credentials::None => return None,
            Credentials::Granted => current(|_, _| {}),
            Credentials::RotatedKey => token(&self.rotated, |_, _| {}),
            Credentials::RemovedKey => token(&self.removed, |_, _| {}),
            Credentials::NotGranted => current(|claims, _| {
                claims["streams"] =
                    json!({"read": ["other"], "append": ["other"], "create": ["other"], "manage": ["other"]});
            }),
            Credentials::OtherTenant => current(|claims, _| claims["tenant"] = json!("other")),
            Credentials::Malformed => "not.a.token".to_owned(),
            Credentials::Expired => current(|claims, now| {
                (claims["iat"], claims["exp"]) = (json!(now - 3600), json!(now - 60));
            }),
            Credentials::NotYetValid => current(|claims, now| claims["nbf"] = json!(now + 600)),
            Credentials::TooLongLife => current(|claims, now| claims["exp"] = json!(now + 90_000)),
            Credentials::WrongAudience => current(|claims, _| claims["aud"] = json!("another service")),
            Credentials::WrongIssuer => current(|claims, _| claims["iss"] = json!("https://id.example")),
            Credentials::WrongAlgorithm => {
                let message = message(&self.current, |header, _| header["alg"] = json!("HS256"));
                let public = URL_SAFE_NO_PAD.decode(self.current["x"].as_str().unwrap()).unwrap();
                let key = hmac::Key::new(hmac::HMAC_SHA256, &public);
                format!("{message}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, message.as_bytes())))
            }
            Credentials::Unsigned => {
                format!("{}.", message(&self.current, |header, _| header["alg"] = json!("none")))
            }
            Credentials::Tampered => {
                let (of, claims) =
                    (token(&self.current, |_, claims| claims["sub"] = json!("b")), current(|_, _| {}));
                let parts: Vec<_> = claims.split('.').collect();
                format!("{}.{}.{}", parts[0], parts[1], of.split('.').next_back().unwrap())
            }
            other => unreachable!("{other:?} has no token"),
        })
    }

    async fn outcome(&self, front: Front, token: Option<&str>, tunnel: &Tunnel) -> Outcome {
        if front != Front::Admin && tunnel.has_certificate && !tunnel.is_trusted(front.is_mqtt()).await {
            return Outcome::Untrusted;
        }
        let made = "/v1/stream/made";
        let request = match front {
            Front::ShortPoll => get("/v1/stream/news"),
            Front::HeldPoll => get("/v1/stream/news?offset=now&live=long-poll&timeout=1"),
            Front::Sse => get("/v1/stream/news?offset=-1&live=sse"),
            Front::Ndjson => get("/v1/stream/news?offset=-1&live=ndjson"),
            Front::ManyStreams => get("/v1/streams?stream=news"),
            Front::Append => post("/v1/stream/news").json("2"),
            Front::Create => put(made).json(""),
            Front::Delete => delete(made),
            Front::Ticket => post("/v1/ticket").json(r#"{"stream":["news"],"live":"sse"}"#),
            Front::Device => put("/v1/devices/phone")
                .json(r#"{"streams":{"news":null},"channels":[{"app":"push","credential":"t"}]}"#),
            Front::Subscription => {
                let webhook = json!({"url": "https://a.example/"});
                let body = json!({"type": "webhook", "streams": ["news"], "webhook": webhook});
                put("/v1/stream/__ds/subscriptions/s").json(body)
            }
            Front::Admin => {
                let mut connection = Connection::open(self.gateway.admin).await;
                return of_status(connection.send(as_bearer(get("/live"), token)).await.status.as_u16());
            }
            Front::WebSocket => return websocket(tunnel.http, token).await,
            Front::MqttWithCookie => return mqtt_with_cookie(tunnel.http, token).await,
            Front::Mqtt3Subscribe | Front::Mqtt5Subscribe | Front::Mqtt5Publish => {
                return mqtt(front, tunnel.mqtt, token).await;
            }
        };
        if front == Front::Delete {
            let owner = self.token(Credentials::Granted);
            self.send(as_bearer(put(made).json(""), owner.as_deref())).await;
        }
        // Only the head: some responses never end.
        let mut connection = Connection::open(tunnel.http).await;
        let (status, _, body) = connection.begin(as_bearer(request, token)).await.unwrap();
        let outcome = of_status(status.as_u16());
        if front != Front::ManyStreams || outcome != Outcome::Allowed {
            return outcome;
        }
        let body: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
        if body["batches"][0]["missing"] == true { Outcome::Missing } else { Outcome::Allowed }
    }
}

async fn websocket(address: SocketAddr, token: Option<&str>) -> Outcome {
    let field = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let head = handshake("/v1/stream/news?offset=-1&live=websocket") + &field;
    match WebSocket::open_with(Raw::open(address).await, head).await {
        Err(answer) => of_status(answer.status.as_u16()),
        // A client without a token may send it in a frame.
        Ok(mut socket) => match socket.json().await {
            Ok(_) => Outcome::Allowed,
            Err(Close(4401, _)) => Outcome::Unauthorized,
            Err(other) => panic!("{other:?}"),
        },
    }
}

async fn mqtt_with_cookie(address: SocketAddr, token: Option<&str>) -> Outcome {
    let cookie = token.map(|token| format!("cookie: __Host-pollgate={token}\r\n")).unwrap_or_default();
    let head = handshake("/mqtt") + "sec-websocket-protocol: mqtt\r\norigin: https://localhost\r\n" + &cookie;
    let mut client = match WebSocket::open_with(Raw::open(address).await, head).await {
        Err(answer) => return of_status(answer.status.as_u16()),
        Ok(socket) => Mqtt::open(socket.carrying().await, 5).await,
    };
    subscribed(&mut client, &Hello::new("with-cookie")).await
}

async fn mqtt(front: Front, address: SocketAddr, token: Option<&str>) -> Outcome {
    let version = if front == Front::Mqtt3Subscribe { 4 } else { 5 };
    let hello = Hello { version, password: token.map(str::to_owned), ..Hello::new(&format!("{front:?}")) };
    let mut client = Mqtt::open(address, version).await;
    if front != Front::Mqtt5Publish {
        return subscribed(&mut client, &hello).await;
    }
    match connected(&mut client, &hello).await {
        Outcome::Allowed => of_reason(client.publish("news", "3", 1).await),
        refused => refused,
    }
}

async fn connected(client: &mut Mqtt, hello: &Hello) -> Outcome {
    client.send(&hello.bytes()).await;
    match client.receive().await {
        Some(Packet::Connack { code: 0, .. }) => Outcome::Allowed,
        Some(Packet::Connack { code: 4 | 5 | 0x86 | 0x87, .. }) => Outcome::Unauthorized,
        other => panic!("{other:?}"),
    }
}

async fn subscribed(client: &mut Mqtt, hello: &Hello) -> Outcome {
    match connected(client, hello).await {
        Outcome::Allowed => of_reason(client.subscribe("news", 1).await),
        refused => refused,
    }
}

fn of_reason(code: u8) -> Outcome {
    match code {
        0 | 1 => Outcome::Allowed,
        0x80 | 0x87 => Outcome::Forbidden,
        other => panic!("{other}"),
    }
}

fn of_status(status: u16) -> Outcome {
    match status {
        200..300 => Outcome::Allowed,
        401 => Outcome::Unauthorized,
        403 => Outcome::Forbidden,
        404 => Outcome::Missing,
        other => panic!("status {other}"),
    }
}

fn as_bearer(request: Request, token: Option<&str>) -> Request {
    match token {
        Some(token) => request.header("authorization", format!("Bearer {token}")),
        None => request,
    }
}

fn seconds() -> u64 {
    #[allow(clippy::disallowed_methods, reason = "tokens have the time of day")]
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The signed part of a token with all rights to two streams, after `change` of its header and claims.
fn message(key: &Value, change: impl FnOnce(&mut Value, &mut Value)) -> String {
    let now = seconds();
    let mut header = json!({"alg": "EdDSA", "typ": "JWT", "kid": key["kid"]});
    let streams = ["news", "made"];
    let mut claims = json!({
        "iss": "pollgate", "aud": "pollgate", "sub": "a", "iat": now, "exp": now + 600,
        "streams": {"read": streams, "append": streams, "create": streams, "manage": streams},
    });
    change(&mut header, &mut claims);
    let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    format!("{}.{}", encode(&header), encode(&claims))
}

fn token(key: &Value, change: impl FnOnce(&mut Value, &mut Value)) -> String {
    let message = message(key, change);
    let seed = URL_SAFE_NO_PAD.decode(key["d"].as_str().unwrap()).unwrap();
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(pair.sign(message.as_bytes())))
}

/// The end of open connections, by expiry, revocation or a removed key, is tested in [`revocation`](crate::revocation).
#[tokio::test]
async fn each_front_and_form_answers_each_kind_of_credentials_as_the_table_says() {
    let world = World::start().await;
    let mut wrong = Vec::new();
    for credentials in CREDENTIALS {
        let token = world.token(credentials);
        let tunnel = Tunnel::open(&world.gateway, credentials.certificate()).await;
        let owner = world.token(Credentials::Granted);
        let news =
            async || world.send(as_bearer(get("/v1/stream/news"), owner.as_deref())).await.expect(200).text();
        let before = news().await;
        let outcome = async |front| (front, world.outcome(front, token.as_deref(), &tunnel).await);
        // Requests that change nothing run concurrently.
        let (changing, reading): (Vec<_>, Vec<_>) =
            FRONTS.into_iter().partition(|front| front.changes_streams());
        let mut outcomes = join_all(reading.into_iter().map(outcome)).await;
        for front in changing {
            outcomes.push(outcome(front).await);
        }
        for (front, outcome) in outcomes {
            let expected = expected(front, credentials);
            if outcome != expected {
                wrong.push(format!("{front:?} with {credentials:?}: {outcome:?} instead of {expected:?}"));
            }
        }
        if credentials.as_token() == Credentials::OtherTenant {
            assert_eq!(news().await, before);
            let made = as_bearer(get("/v1/stream/made"), owner.as_deref());
            world.send(made).await.expect(200);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
