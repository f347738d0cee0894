//! Tools for operators: the token of the admin listener, the audit log, and the list of streams.

use std::path::Path;

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::authorization::Protected;
use crate::world::mqtt::{Hello, Mqtt, Packet};
use crate::world::{Answer, Connection, Gateway, PATIENCE, WebSocket, delete, get, post, put, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_listener_requires_its_token() {
    let folder = tempfile::tempdir().unwrap();
    let (file, secret) = (folder.path().join("token"), "0123456789abcdef0123456789abcdef");
    std::fs::write(&file, format!("{secret}\n")).unwrap();
    let gateway = Gateway::start(&["--admin-token-file", file.to_str().unwrap()]).await;
    let mut admin = Connection::open(gateway.admin).await;
    for path in ["/live", "/ready"] {
        admin.send(get(path)).await.expect(200);
    }
    for path in ["/", "/dashboard", "/dashboard.css", "/dashboard.js"] {
        let file = admin.send(get(path)).await.expect(200);
        assert!(!file.text().contains(secret), "{path}");
    }
    for path in [
        "/metrics",
        "/clients",
        "/streams",
        "/overview",
        "/overview?live=sse",
        "/export",
        "/revocations",
        "/nothing",
    ] {
        let refused = admin.send(get(path)).await.expect(401);
        assert_eq!(refused.header("www-authenticate"), "Bearer", "{path}");
        admin.send(get(path).header("authorization", format!("Bearer {secret}x"))).await.expect(401);
        if path.ends_with("live=sse") {
            continue;
        }
        let allowed = admin.send(get(path).header("authorization", format!("Bearer {secret}"))).await;
        assert_eq!(allowed.status.as_u16(), if path == "/nothing" { 404 } else { 200 }, "{path}");
    }
    for path in ["/revocations", "/drain", "/messages?stream=s"] {
        let mut admin = Connection::open(gateway.admin).await;
        admin.send(post(path).json(r#"{"sub":"anna"}"#)).await.expect(401);
    }
    assert_eq!(gateway.ask_admin("/ready").await.text(), "ready\n");
}

fn lines(log: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_log_says_who_did_what() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("audit.log");
    let mut world = Protected::start_with("", &["--audit-log", log.to_str().unwrap()], &[]).await;
    let anna = world.token(&["--subject", "anna", "--create", "a/#", "--append", "a/#", "--manage", "a/#"]);
    let as_anna = Some(anna.as_str());
    world.send(as_anna, put("/v1/stream/a/put").json("")).await.expect(201);
    world.send(as_anna, put("/v1/stream/a/put").json("")).await.expect(200);
    world.send(as_anna, post("/v1/stream/a/post?create=1").json("1")).await.expect(204);
    world.send(as_anna, post("/v1/stream/a/post?create=1").json("1")).await.expect(204);
    world.send(as_anna, delete("/v1/stream/a/put")).await.expect(204);
    world.send(as_anna, delete("/v1/stream/b")).await.expect(403);
    world.send(as_anna, get("/v1/stream/a/post")).await.expect(403);
    world.send(None, get("/v1/stream/a/post")).await.expect(401);

    let hello = Hello { version: 5, password: Some(anna.clone()), ..Hello::new("phone") };
    let mut first = Mqtt::connect(world.gateway.mqtt, &hello).await;
    assert_eq!(first.publish("a/mqtt", "1", 1).await, 0);
    assert_eq!(first.publish("b/mqtt", "1", 1).await, 0x87);
    assert_eq!(first.subscribe("a/#", 1).await, 0x87);
    let mut second = Mqtt::connect(world.gateway.mqtt, &hello).await;
    second.ping().await;
    let mut refused = Mqtt::open(world.gateway.mqtt, 5).await;
    refused.send(&Hello { password: Some("a.b.c".to_owned()), ..hello }.bytes()).await;
    assert!(matches!(refused.receive().await, Some(Packet::Connack { code: 0x86, .. })));

    let reader = world.token(&["--subject", "reader", "--read", "a/#"]);
    let path = "/v1/stream/a/post?offset=-1&live=websocket";
    let mut socket = WebSocket::open_as(world.gateway.address, path, &reader).await.unwrap();
    socket.send_text("2").await;
    socket.send_text(r#"{"auth":"a.b.c"}"#).await;
    assert_eq!(socket.closed().await.0, 4401);

    // The same client id of another subject is a different client.
    let mut polls: Vec<tokio::task::JoinHandle<Answer>> = Vec::new();
    let other = world.token(&["--subject", "other", "--read", "a/#"]);
    for (token, superseded) in [(&reader, false), (&reader, true), (&other, false)] {
        let poll = get("/v1/stream/a/post?offset=now&live=long-poll&timeout=50&client=phone");
        let poll = poll.header("authorization", format!("Bearer {token}"));
        let mut connection = world.gateway.connect().await;
        let poll = tokio::spawn(async move { connection.send(poll).await });
        if superseded {
            let older = polls.pop().unwrap();
            let answer = timeout(PATIENCE, older).await.expect("the older one ends").unwrap();
            assert_eq!((answer.status.as_u16(), answer.header("stream-superseded")), (204, "true"));
        }
        polls.push(poll);
        world.gateway.until_held(polls.len()).await;
    }

    let mut admin = Connection::open(world.gateway.admin).await;
    admin.send(get("/metrics")).await.expect(200);
    admin.send(get("/export")).await.expect(200);
    let mut admin = Connection::open(world.gateway.admin).await;
    admin.send(post("/revocations").json(r#"{"sub":"berta"}"#)).await.expect(200);

    let who = "pollgate anna";
    let expected = [
        // The stream that the fixture created.
        ("created", Some("pollgate"), json!("news")),
        ("created", Some(who), json!("a/put")),
        ("created", Some(who), json!("a/post")),
        ("deleted", Some(who), json!("a/put")),
        ("refused", Some(who), json!("b")),
        ("refused", Some(who), json!("a/post")),
        ("refused", None, json!("a/post")),
        ("created", Some(who), json!("a/mqtt")),
        ("refused", Some(who), json!("b/mqtt")),
        ("refused", Some(who), json!("a/#")),
        ("took-over", Some(who), json!(null)),
        ("refused", None, json!(null)),
        ("refused", Some("pollgate reader"), json!("a/post")),
        ("refused", Some("pollgate reader"), json!(null)),
        ("took-over", Some("pollgate reader"), json!("a/post")),
        ("admin", None, json!(null)),
        ("admin", None, json!(null)),
        ("revoked", None, json!(null)),
    ];
    until("all lines are written", async || lines(&log).len() >= expected.len()).await;
    let written = lines(&log);
    for (line, (event, subject, stream)) in written.iter().zip(&expected) {
        let starts = subject.is_none_or(|subject| line["who"].as_str().unwrap().starts_with(subject));
        assert_eq!((&line["event"], &line["stream"], starts), (&json!(event), stream, true), "{line}");
        assert!(line["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
        assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
    }
    assert_eq!(written.len(), expected.len(), "{written:#?}");
    assert!(!std::fs::read_to_string(&log).unwrap().contains(&anna[..20]), "no token");

    // A program that rotates logs renames the file and sends SIGHUP.
    std::fs::rename(&log, folder.path().join("audit.log.1")).unwrap();
    world.gateway.signal("HUP");
    until("the file is there again", async || log.exists()).await;
    world.send(None, delete("/v1/stream/b")).await.expect(401);
    until("it goes on", async || lines(&log).len() == 1).await;
    world.gateway.signal("TERM");
    assert!(timeout(PATIENCE, world.gateway.ended(PATIENCE)).await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_streams_are_listed_in_parts() {
    let gateway = Gateway::start(&[]).await;
    for (name, kind, body) in
        [("a/1", "application/json", "[1,2,3]"), ("a/2", "text/plain", "hello"), ("b", "text/plain", "")]
    {
        let create = put(format!("/v1/stream/{name}")).header("content-type", kind).body(body);
        gateway.send(create.header("stream-max-messages", 7).header("stream-ttl", 60)).await.expect(201);
    }
    let list = async |query: &str| gateway.ask_admin(&format!("/streams{query}")).await.expect(200).json();
    let mut held = gateway.connect_raw().await;
    held.get("/v1/stream/b?offset=now&live=long-poll&timeout=50").await.unwrap();
    gateway.until_held(1).await;

    let all = list("").await;
    assert_eq!(all["next"], Value::Null);
    let streams = all["streams"].as_array().unwrap();
    let names: Vec<_> = streams.iter().map(|stream| &stream["stream"]).collect();
    assert_eq!(names, ["a/1", "a/2", "b"]);
    assert_eq!((&streams[0]["messages"], &streams[0]["bytes"]), (&json!(3), &Value::Null));
    assert_eq!((&streams[1]["messages"], &streams[1]["bytes"]), (&Value::Null, &json!(5)));
    assert_eq!((&streams[0]["maxMessages"], &streams[0]["ttl"]), (&json!(7), &json!(60)));
    assert_eq!(
        streams.iter().map(|stream| stream["readers"].as_u64().unwrap()).collect::<Vec<_>>(),
        [0, 0, 1]
    );

    let first = list("?limit=2").await;
    assert_eq!((first["streams"].as_array().unwrap().len(), &first["next"]), (2, &json!("a/2")));
    let rest = list("?limit=2&after=a%2F2").await;
    assert_eq!((rest["streams"][0]["stream"].as_str(), &rest["next"]), (Some("b"), &Value::Null));
    for query in ["?limit=0", "?limit=1001", "?limit=x", "?after=", "?page=2"] {
        gateway.ask_admin(&format!("/streams{query}")).await.expect(400);
    }
    assert_eq!(list("?prefix=a/").await["streams"].as_array().unwrap().len(), 2);
    assert_eq!(list("?contains=%2F2").await["streams"][0]["stream"], "a/2");
    assert_eq!(list("?contains=c").await, json!({"streams": [], "next": null}));
    gateway.ask_admin("/streams?live=sse&limit=101").await.expect(400);
}
