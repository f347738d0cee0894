//! What clients may do on a gateway with `--auth`: by token, in each front and form, and until the token ends.

use std::path::PathBuf;
use std::process::Command;

use http_body_util::BodyExt;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::world::mqtt::{Hello, Mqtt, Packet};
use crate::world::{
    Answer, Gateway, PATIENCE, Raw, Request, WebSocket, delete, get, handshake, head, post, put, until,
};

/// A gateway that checks tokens, its key, and the stream `news` with one message.
pub(crate) struct Protected {
    pub(crate) gateway: Gateway,
    pub(crate) folder: TempDir,
}

pub(crate) fn pollgate(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_pollgate")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Protected {
    pub(crate) async fn start(settings: &str) -> Self {
        Self::start_with(settings, &[], &[]).await
    }

    /// Starts it with additional arguments and environment variables.
    pub(crate) async fn start_with(settings: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        pollgate(&["keygen", &path("key")]);
        std::fs::write(path("auth.toml"), format!("key_file = 'key'\n{settings}")).unwrap();
        let (auth, access_log) = (path("auth.toml"), path("access.log"));
        let arguments = [&["--auth", &auth, "--access-log", &access_log], arguments].concat();
        let gateway = Gateway::start_with(&arguments, variables).await;
        let protected = Self { gateway, folder };
        let owner = protected.token(&["--create", "#", "--append", "#"]);
        protected.send(Some(&owner), put("/v1/stream/news").json("[1]")).await.expect(201);
        protected
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.folder.path().join("key")
    }

    pub(crate) fn token(&self, rights: &[&str]) -> String {
        let key = self.key();
        pollgate(&[&["token", "--key-file", key.to_str().unwrap()], rights].concat())
    }

    pub(crate) async fn send(&self, token: Option<&str>, request: Request) -> Answer {
        let request = match token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        };
        self.gateway.send(request).await
    }
}

/// One request of each operation and form on `stream`, with the right that it needs.
fn requests(stream: &str) -> Vec<(&'static str, Request)> {
    let path = format!("/v1/stream/{stream}");
    vec![
        ("read", get(&path)),
        ("read", get(format!("{path}?offset=-1"))),
        ("read", head(&path)),
        ("read", get(format!("{path}?offset=-1&live=long-poll"))),
        ("read", get(format!("{path}?offset=now&live=long-poll&timeout=0"))),
        ("read", get(format!("/v1/streams?stream={stream}"))),
        ("read", get(format!("/v1/streams?stream={stream}&live=long-poll&timeout=0"))),
        ("read", post("/v1/streams").json(format!("{{\"stream\":[\"{stream}\"]}}"))),
        ("append", post(&path).json("2")),
        ("append", post(&path).json("[3]").header("prefer", "return=minimal")),
        ("create", put(&path).json("[1]")),
        ("manage", delete(&path)),
    ]
}

#[tokio::test]
async fn each_operation_needs_its_own_right() {
    let world = Protected::start("").await;
    for right in ["read", "append", "create", "manage"] {
        let token = world.token(&[&format!("--{right}"), "news", "--read", "other"]);
        for (needed, request) in requests("news") {
            let shown = format!("{request:?}");
            let answer = world.send(Some(&token), request.clone()).await;
            if needed == right {
                assert!(answer.status.as_u16() < 300 || answer.status == 304, "{right}: {shown}: {answer:?}");
            } else {
                assert_eq!(answer.status, 403, "{right}: {shown}: {answer:?}");
                assert_eq!(answer.header("www-authenticate"), "Bearer error=\"insufficient_scope\"");
            }
            let anonymous = world.send(None, request).await;
            assert_eq!(anonymous.status, 401, "{shown}: {anonymous:?}");
            assert_eq!(anonymous.header("www-authenticate"), "Bearer");
        }
    }
}

/// A refusal does not reveal whether a stream exists.
#[tokio::test]
async fn a_forbidden_stream_and_a_missing_one_get_the_same_response() {
    let world = Protected::start("").await;
    let token = world.token(&["--read", "other"]);
    for ((_, existing), (_, missing)) in requests("news").into_iter().zip(requests("nope")) {
        let (existing, missing) =
            (world.send(Some(&token), existing).await, world.send(Some(&token), missing).await);
        assert_eq!((existing.status, existing.body), (missing.status, missing.body));
    }
}

#[tokio::test]
async fn live_forms_and_websockets_need_the_right_to_read() {
    let world = Protected::start("").await;
    let (reader, other) = (world.token(&["--read", "news"]), world.token(&["--read", "other"]));
    for form in ["sse", "ndjson"] {
        let target = format!("/v1/stream/news?offset=-1&live={form}");
        world.send(Some(&other), get(&target)).await.expect(403);
        world.send(None, get(&target)).await.expect(401);
        let request = get(&target).header("authorization", format!("Bearer {reader}"));
        let mut connection = world.gateway.connect().await;
        assert_eq!(connection.begin(request).await.unwrap().0, 200, "{form}");
    }
    let target = "/v1/stream/news?offset=-1&live=websocket";
    let head = handshake(target) + &format!("authorization: Bearer {other}\r\n");
    let raw = Raw::open(world.gateway.address).await;
    assert_eq!(WebSocket::open_with(raw, head).await.err().unwrap().status, 403);
}

#[tokio::test]
async fn public_streams_need_no_token_and_only_they_may_be_cached() {
    let world = Protected::start("public = ['news']\n").await;
    let owner = world.token(&["--create", "#", "--read", "#"]);
    world.send(Some(&owner), put("/v1/stream/inner").json("[1]")).await.expect(201);
    let target = "/v1/stream/news?offset=-1";
    assert_eq!(world.send(None, get(target)).await.expect(200).header("cache-control"), "no-cache");
    world.send(None, post("/v1/stream/news").json("2")).await.expect(401);
    for target in ["/v1/stream/inner?offset=-1", "/v1/stream/inner?offset=-1&live=long-poll"] {
        let inner = world.send(Some(&owner), get(target)).await.expect(200);
        assert_eq!(inner.header("cache-control"), "private, no-store", "{target}");
        assert_eq!(inner.header("vary"), "authorization, cookie");
    }
    let inner = world.send(Some(&owner), get("/v1/stream/inner?offset=-1")).await;
    let again = get("/v1/stream/inner?offset=-1").header("if-none-match", inner.header("etag"));
    world.send(Some(&owner), again.clone()).await.expect(304);
    world.send(None, again).await.expect(401);
}

#[tokio::test]
async fn invalid_tokens_are_refused_and_never_shown() {
    let world = Protected::start("").await;
    let marker = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJwb2xsZ2F0ZSJ9.marker";
    let answer = world.send(Some(marker), get("/v1/stream/news")).await.expect(401);
    assert_eq!(answer.header("www-authenticate"), "Bearer error=\"invalid_token\"");
    assert_eq!(answer.problem(), "unauthorized");
    let in_query =
        world.gateway.send(get(format!("/v1/stream/news?access_token={marker}"))).await.expect(400);
    assert_eq!(in_query.problem(), "token-in-query");
    let metrics = world.gateway.ask_admin("/metrics").await.text();
    let access_log = || std::fs::read_to_string(world.folder.path().join("access.log")).unwrap();
    until("both requests are logged", async || access_log().matches("/v1/stream/news").count() >= 3).await;
    for text in [answer.text(), in_query.text(), world.gateway.log(), metrics, access_log()] {
        assert!(!text.contains("marker"), "{text}");
    }
}

/// The client gets an empty response with its offset, and continues with its next token.
#[tokio::test]
async fn a_held_poll_and_an_event_stream_end_with_the_token() {
    let world = Protected::start("").await;
    let key = world.key();
    let short =
        || pollgate(&["token", "--key-file", key.to_str().unwrap(), "--read", "news", "--expires", "6s"]);
    let (token, target) = (short(), "/v1/stream/news?offset=now&live=long-poll&timeout=50");
    let ended = timeout(PATIENCE, world.send(Some(&token), get(target))).await.unwrap().expect(204);
    assert!(!ended.next_offset().is_empty());
    // Polls end up to a second before the expiry, so that clients do not all reconnect at once.
    while world.send(Some(&token), get(target)).await.status == 204 {}
    world.send(Some(&token), get(target)).await.expect(401);
    let token = short();
    let request =
        get("/v1/stream/news?offset=now&live=sse").header("authorization", format!("Bearer {token}"));
    let mut connection = world.gateway.connect().await;
    let (_, _, body) = connection.begin(request).await.unwrap();
    timeout(PATIENCE, body.collect()).await.expect("the stream ends with the token").unwrap();
}

pub(crate) async fn mqtt(world: &Protected, id: &str, password: Option<&str>) -> Mqtt {
    let hello = Hello { password: password.map(str::to_owned), ..Hello::new(id) };
    Mqtt::try_connect(world.gateway.mqtt, &hello).await.unwrap()
}

#[tokio::test]
async fn mqtt_clients_have_the_rights_of_their_password() {
    let world = Protected::start("").await;
    let token = world.token(&["--read", "news/#", "--append", "inbox/+", "--create", "inbox/a"]);
    let mut client = mqtt(&world, "one", Some(&token)).await;
    for (filter, code) in [
        ("news/#", 0),
        ("news", 0),
        ("$share/g/news/+", 0),
        ("#", 0x87),
        ("inbox/a", 0x87),
        ("$share/g/#", 0x87),
    ] {
        assert_eq!(client.subscribe(filter, 0).await, code, "{filter}");
    }
    for (topic, code) in [("inbox/a", 0), ("inbox/b", 0x87), ("news/x", 0x87), ("inbox", 0x87)] {
        assert_eq!(client.publish(topic, "1", 1).await, code, "{topic}");
    }
    let refused = async |hello: Hello| {
        let mut client = Mqtt::open(world.gateway.mqtt, 5).await;
        client.send(&hello.bytes()).await;
        match client.receive().await {
            Some(Packet::Connack { code, .. }) => code,
            other => panic!("{other:?}"),
        }
    };
    let invalid = Some("no.token.here".to_owned());
    assert_eq!(refused(Hello { password: invalid, ..Hello::new("two") }).await, 0x86);
    assert_eq!(refused(Hello::new("three")).await, 0x87);
    let will = Some(("inbox/b/c".to_owned(), "gone".to_owned(), Vec::new()));
    let hello = Hello { will, password: Some(token), ..Hello::new("four") };
    assert_eq!(refused(hello).await, 0x87);
}

#[tokio::test]
async fn an_mqtt_connection_ends_with_its_token_and_a_client_id_belongs_to_the_subject() {
    let world = Protected::start("").await;
    let mine = world.token(&["--read", "news", "--subject", "a", "--expires", "6s"]);
    let other = world.token(&["--read", "news", "--subject", "b"]);
    let mut first = mqtt(&world, "same", Some(&mine)).await;
    let _stranger = mqtt(&world, "same", Some(&other)).await;
    let ended = timeout(PATIENCE, first.receive()).await.expect("it ends with its token");
    assert_eq!(ended, Some(Packet::Disconnect(0xa0)), "and the stranger did not take it over");
}

/// Client ids and producer ids belong to the subject: another subject with the same ids cannot end polls or fence producers.
#[tokio::test]
async fn ids_of_clients_and_producers_belong_to_the_subject() {
    let world = Protected::start("").await;
    let of = |subject: &str| world.token(&["--read", "news", "--append", "news", "--subject", subject]);
    let (anna, ben) = (of("anna"), of("ben"));
    let poll = |token: &str| {
        let target = "/v1/stream/news?offset=now&live=long-poll&timeout=50&client=phone";
        let request = get(target).header("authorization", format!("Bearer {token}"));
        let connection = world.gateway.connect();
        async move { connection.await.send(request).await }
    };
    let append = async |token: &str, epoch: u64| {
        let fields = [
            ("producer-id", "p".to_owned()),
            ("producer-epoch", epoch.to_string()),
            ("producer-seq", "0".to_owned()),
        ];
        let request = fields
            .into_iter()
            .fold(post("/v1/stream/news").json("1"), |request, (name, value)| request.header(name, value));
        world.send(Some(token), request).await.status.as_u16()
    };
    let (of_anna, of_ben, publishing) = tokio::join!(poll(&anna), poll(&ben), async {
        world.gateway.until_held(2).await;
        let clients = world.gateway.ask_admin("/clients").await.text();
        assert!(clients.contains("pollgate anna\\u001fphone"), "{clients}");
        // A retry gets 204, and a fenced epoch 403.
        [append(&ben, 5).await, append(&anna, 0).await, append(&anna, 0).await, append(&ben, 4).await]
    });
    assert_eq!(publishing, [200, 200, 204, 403]);
    for answer in [of_anna, of_ben] {
        assert_eq!((answer.status.as_u16(), answer.header("stream-superseded")), (200, ""));
    }
}

/// An issuer on this machine publishes its key over HTTP.
#[tokio::test]
async fn keys_of_an_issuer_are_fetched_from_its_url() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    pollgate(&["keygen", &path("key")]);
    pollgate(&["keygen", &path("other")]);
    let issuer = Gateway::start(&[]).await;
    let keys = std::fs::read_to_string(path("key")).unwrap();
    issuer.send(put("/v1/stream/keys").text(keys)).await.expect(201);
    let settings = format!(
        "[[issuer]]\nname = 'pollgate'\naudience = 'pollgate'\njwks_url = 'http://{}/v1/stream/keys'\n",
        issuer.address
    );
    std::fs::write(path("auth.toml"), settings).unwrap();
    let gateway = Gateway::start(&["--auth", &path("auth.toml")]).await;
    let ask = async |key: &str| {
        let token = pollgate(&["token", "--key-file", &path(key), "--read", "news"]);
        gateway.send(get("/v1/stream/news").header("authorization", format!("Bearer {token}"))).await
    };
    until("the key is known", async || ask("key").await.status == 404).await;
    // The keys were fetched just now. The next fetch, half a minute later, may return the other key.
    let pending = ask("other").await.expect(503);
    assert_eq!(
        (pending.problem(), pending.header("retry-after").is_empty()),
        ("keys-pending".to_owned(), false)
    );
    assert_eq!(gateway.metric("pollgate_key_fetches_failed_total").await, 0.0);
}

/// Each subject has its own rate, over HTTP and MQTT together.
#[tokio::test]
async fn a_subject_that_appends_too_fast_is_told_when_to_come_again() {
    let world = Protected::start_with("", &["--limit", "append_bytes_per_second_max=1"], &[]).await;
    let of = |subject: &str| world.token(&["--append", "news", "--subject", subject]);
    let append = async |token: &str| {
        let message = format!("\"{}\"", "a".repeat(600));
        world.send(Some(token), post("/v1/stream/news").json(message)).await
    };
    let (anna, ben) = (of("anna"), of("ben"));
    append(&anna).await.expect(204);
    let refused = append(&of("anna")).await.expect(429);
    assert_eq!(refused.problem(), "too-fast");
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((500..=1300).contains(&wait), "{wait} s until 1204 bytes are paid for, less a burst");
    let mut client = mqtt(&world, "phone", Some(&anna)).await;
    assert_eq!(client.publish("news", "1", 1).await, 0x97);
    append(&ben).await.expect(204);
}
