//! Streams that the gateway fills from an origin, which it polls once for all their readers.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::authorization::Protected;
use crate::world::mqtt::{Hello, Mqtt};
use crate::world::{
    Answer, Gateway, Origin, PATIENCE, Reply, Request, WebSocket, alone, delete, get, head, next_line, post,
    put, until,
};

const FEED: &str = "/v1/stream/feed";

/// The metric of requests that found new content.
const NEW: &str =
    "pollgate_outbound_requests_total{purpose=\"origin\",destination=\"127.0.0.1\",outcome=\"new\"}";

/// Options of a gateway that polls origins on this machine.
const OPTIONS: [&str; 3] = ["--poll-origins", "--outbound-allow", "127.0.0.1"];

async fn gateway(options: &[&str]) -> Gateway {
    Gateway::start(&[&OPTIONS, options].concat()).await
}

/// The creation of a JSON stream that is polled each second.
fn creation(path: &str, origin: &Origin) -> Request {
    put(path)
        .header("content-type", "application/json")
        .header("stream-origin", origin.url())
        .header("stream-origin-interval", "1")
}

/// A parameter of the state of an origin; empty if it has none.
fn state(answer: &Answer, name: &str) -> String {
    let text = answer.header("stream-origin-status").to_owned();
    let mut parts = text.split("; ").filter_map(|part| part.split_once('='));
    parts.find(|(key, _)| *key == name).map_or_else(String::new, |(_, value)| value.to_owned())
}

/// Polls until the origin of a stream has a state, or fails for a reason.
async fn until_told(gateway: &Gateway, path: &str, expected: &str) -> Answer {
    let (mut connection, deadline) = (gateway.connect().await, Instant::now() + PATIENCE);
    loop {
        let answer = connection.send(get(format!("{path}?offset=now"))).await.expect(200);
        if [state(&answer, "state"), state(&answer, "reason")].contains(&expected.to_owned()) {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain: {expected}");
        sleep(Duration::from_millis(20)).await;
    }
}

fn long_poll(offset: &str) -> Request {
    get(format!("{FEED}?offset={offset}&live=long-poll&timeout=55"))
}

#[tokio::test]
async fn every_form_gets_the_content_and_the_state_of_the_origin() {
    let heartbeat = ["--limit", "live_heartbeat=1s"];
    let (origin, gateway) = (Origin::start(r#"{"n":1}"#).await, gateway(&heartbeat).await);
    let created = gateway.send(creation(FEED, &origin)).await.expect(201);
    assert_eq!(created.header("stream-origin-interval"), "1");
    assert_eq!(state(&gateway.send(head(FEED)).await.expect(200), "state"), "pending");
    // The stream has no readers, so its origin was not polled.
    assert_eq!(origin.received().len(), 0);

    let first = gateway.send(long_poll("-1")).await.expect(200);
    assert_eq!((first.text().as_str(), state(&first, "state").as_str()), (r#"[{"n":1}]"#, "ok"));
    assert!(!state(&first, "checked").is_empty(), "{first:?}");
    let offset = first.next_offset();

    let mut events = gateway.connect().await.events(format!("{FEED}?offset={offset}&live=sse")).await;
    assert_eq!(events.control().await["streamOrigin"]["state"], "ok");
    let mut socket =
        WebSocket::open(gateway.address, &format!("{FEED}?offset={offset}&live=websocket")).await.unwrap();
    assert_eq!(socket.json().await.unwrap()["streamOrigin"]["state"], "ok");
    let mut lines = gateway.connect().await;
    let (_, _, mut body) = lines.begin(get(format!("{FEED}?offset={offset}&live=ndjson"))).await.unwrap();
    let mut read = Vec::new();
    assert!(next_line(&mut body, &mut read).await.unwrap().contains(r#""streamOrigin":{"state":"ok""#));
    let mut mqtt = Mqtt::connect(gateway.mqtt, &Hello::new("reader")).await;
    mqtt.subscribe("+", 0).await;

    origin.has(r#"{"n":2}"#);
    assert_eq!(gateway.send(long_poll(&offset)).await.expect(200).text(), r#"[{"n":2}]"#);
    while events.next().await.unwrap().data != r#"[{"n":2}]"# {}
    let control = events.control().await;
    assert_eq!((&control["streamOrigin"]["state"], &control["upToDate"]), (&"ok".into(), &true.into()));
    while socket.json().await.unwrap()["data"][0]["n"] != 2 {}
    while !next_line(&mut body, &mut read).await.unwrap().contains(r#"{"n":2}"#) {}
    assert_eq!(mqtt.message().await.payload, br#"{"n":2}"#);
    let requests = origin.received();
    assert!(requests[1..].iter().all(|request| request.head.contains("if-none-match: ")), "{requests:?}");

    // Waiting readers are told about a failure.
    origin.replies(Reply::Status(503, ""));
    until_told(&gateway, FEED, "status-503").await;
    while socket.json().await.unwrap()["streamOrigin"]["reason"] != "status-503" {}
    let late = gateway.send(get(format!("{FEED}?offset=now&live=long-poll&timeout=1"))).await.expect(204);
    assert_eq!((state(&late, "state"), state(&late, "reason")), ("failing".into(), "status-503".into()));
    let mut events = gateway.connect().await.events(format!("{FEED}?offset=now&live=sse")).await;
    let control = events.control().await;
    assert_eq!(control["streamOrigin"]["reason"], "status-503", "{control}");
    assert!(control["streamOrigin"]["since"].is_string() && control["streamOrigin"]["next"].is_string());
    let many = gateway.send(get("/v1/streams?stream=feed&stream=other")).await.expect(200).json();
    assert_eq!(many["streamOrigins"]["feed"]["reason"], "status-503", "{many}");
    assert!(gateway.metric(NEW).await >= 2.0);
    assert_eq!(gateway.metric("pollgate_origin_up{destination=\"127.0.0.1\"}").await, 0.0);
    assert_eq!(gateway.metric("pollgate_origins").await, 1.0);
}

/// The cases run concurrently, each on its own stream.
#[tokio::test]
async fn each_failure_of_an_origin_is_told_with_its_reason_until_it_answers_again() {
    let limits = ["--limit", "origin_timeout=1s", "--limit", "origin_bytes_max=4096"];
    let gateway = gateway(&limits).await;
    let fails = async |reply: Reply, reason: &str| {
        let (origin, path) = (Origin::start("1").await, format!("/v1/stream/{reason}"));
        gateway.send(creation(&path, &origin)).await.expect(201);
        // A waiting reader keeps the origin polled.
        let mut reader = gateway.connect().await.events(format!("{path}?offset=-1&live=sse")).await;
        until_told(&gateway, &path, "ok").await;
        origin.replies(reply);
        let told = until_told(&gateway, &path, reason).await;
        assert_eq!(state(&told, "state"), "failing", "{reason}");
        assert_ne!(state(&told, "checked"), "", "{reason}");
        origin.has("1");
        until_told(&gateway, &path, "ok").await;
        assert_eq!((reader.control().await, reader.data().await.as_str()).1, "[1]");
        // Nothing was appended twice.
        assert_eq!(gateway.send(get(&path)).await.expect(200).text(), "[1]");
    };
    tokio::join!(
        fails(Reply::Status(500, ""), "status-500"),
        fails(Reply::Status(404, ""), "status-404"),
        fails(Reply::Status(301, "location: http://127.0.0.1:1/\r\n"), "moved"),
        fails(Reply::Status(302, "location: http://127.0.0.1:1/\r\n"), "redirect"),
        fails(Reply::Body("text/html", "<p>".into()), "media-type"),
        fails(Reply::Body("application/json", "{".into()), "json"),
        fails(Reply::Bytes("nonsense\r\n\r\n"), "malformed"),
        fails(Reply::Nothing, "timeout"),
        fails(Reply::Endless, "too-large"),
    );
}

#[tokio::test]
async fn retry_after_and_max_age_of_an_origin_are_respected() {
    let (origin, gateway) = (Origin::start("1").await, gateway(&[]).await);
    gateway.send(creation(FEED, &origin).header("stream-origin-poll", "always")).await.expect(201);
    origin.until_asked(2).await;
    for (reply, reason) in [
        (Reply::Status(429, "retry-after: 3600\r\n"), "status-429"),
        (Reply::Status(304, "cache-control: max-age=3600\r\n"), "ok"),
    ] {
        let stream = format!("{FEED}-{reason}");
        origin.replies(reply);
        gateway.send(creation(&stream, &origin).header("stream-origin-poll", "always")).await.expect(201);
        let told = until_told(&gateway, &stream, reason).await;
        let next: jiff::Timestamp = state(&told, "next").parse().unwrap();
        let wait = next.duration_since(jiff::Timestamp::now()).as_secs();
        assert!((3500..=3600).contains(&wait), "{wait}");
    }
}

/// 1 000 readers in all forms cause as many requests as one reader.
#[tokio::test]
async fn a_thousand_readers_cause_one_request_an_interval() {
    let _alone = alone().await;
    let (origin, gateway) = (Origin::start("0").await, gateway(&[]).await);
    gateway.send(creation(FEED, &origin)).await.expect(201);
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let mut connection = gateway.connect().await;
        readers.spawn(async move {
            let mut offset = "-1".to_owned();
            loop {
                let answer = connection.send(long_poll(&offset)).await;
                offset = answer.next_offset();
                if answer.text().ends_with("3]") {
                    return;
                }
            }
        });
    }
    for n in 1..=3 {
        origin.until_asked(1).await;
        origin.has(n);
    }
    while let Some(reader) = readers.join_next().await {
        reader.unwrap();
    }
    let requests = origin.received();
    // All have joined within the first poll or so: however long the machine took, no two requests are closer than the interval.
    let gaps = requests.windows(2).map(|pair| pair[1].at - pair[0].at);
    assert!(gaps.min().unwrap() >= Duration::from_millis(990), "{requests:?}");
}

#[tokio::test]
async fn after_a_kill_only_changed_elements_are_appended_and_a_deletion_stops_the_polls() {
    let directory = tempfile::tempdir().unwrap();
    let store = ["--store", directory.path().to_str().unwrap()];
    let (origin, first) = (Origin::start(r#"[{"id":1},{"id":2}]"#).await, gateway(&store).await);
    let create = || {
        let creation = creation(FEED, &origin).header("stream-origin-key", "id");
        creation.header("stream-origin-poll", "always").header("stream-max-messages", 100)
    };
    first.send(create()).await.expect(201);
    until("the elements", async || first.send(get(FEED)).await.text() == r#"[{"id":1},{"id":2}]"#).await;
    first.kill().await;

    origin.has(r#"[{"id":2,"new":true},{"id":1}]"#);
    let second = gateway(&store).await;
    let all = r#"[{"id":1},{"id":2},{"id":2,"new":true}]"#;
    until("the changed element", async || second.send(get(FEED)).await.text() == all).await;
    origin.until_asked(2).await;
    assert_eq!(second.send(get(FEED)).await.expect(200).text(), all);
    // The same creation succeeds, another one does not.
    second.send(create()).await.expect(200);
    second.send(create().header("stream-ttl", 60)).await.expect(409);
    second.send(put(FEED).header("content-type", "application/json")).await.expect(409);
    second.send(delete(FEED)).await.expect(204);
    second.send(put(FEED).json("1")).await.expect(201);
    second.send(post(FEED).json("2")).await.expect(204);
    until("the end of the polls", async || second.metric("pollgate_origins").await == 0.0).await;
    second.kill().await;

    // An ended origin stays ended.
    let third = gateway(&store).await;
    let answer = third.send(get(FEED)).await.expect(200);
    assert_eq!((answer.text().as_str(), answer.header("stream-origin-status")), ("[1,2]", ""));
    third.send(post(FEED).json("3")).await.expect(204);
}

#[tokio::test]
async fn clients_cannot_append_to_a_stream_with_an_origin() {
    let (origin, gateway) = (Origin::start("1").await, gateway(&["--limit", "origins_max=1"]).await);
    gateway.send(creation(FEED, &origin)).await.expect(201);
    for request in [
        post(FEED).json("2"),
        post(format!("{FEED}?create=1")).json("2"),
        post(FEED).header("stream-closed", "true"),
    ] {
        assert_eq!(gateway.send(request).await.expect(409).problem(), "has-origin");
    }
    let mut socket =
        WebSocket::open(gateway.address, &format!("{FEED}?offset=now&live=websocket")).await.unwrap();
    socket.send_text("2").await;
    while !socket.text().await.unwrap().contains("has-origin") {}
    let mut mqtt = Mqtt::connect(gateway.mqtt, &Hello::new("publisher")).await;
    assert!(mqtt.publish("feed", "2", 1).await >= 0x80);
    until("the origin", async || gateway.send(get(FEED)).await.text() == "[1]").await;
    // A fork does not inherit the origin.
    let fork = put("/v1/stream/fork").header("stream-forked-from", FEED);
    gateway.send(fork).await.expect(201);
    gateway.send(post("/v1/stream/fork").json("2")).await.expect(204);

    let another = creation("/v1/stream/another", &origin);
    assert_eq!(gateway.send(another).await.expect(429).problem(), "too-many-origins");
    gateway.send(delete(FEED)).await.expect(204);
    gateway.send(creation("/v1/stream/another", &origin)).await.expect(201);
}

/// Addresses behind host names are tested in `src/http_client/tests.rs`, with a name server that changes its answers.
#[tokio::test]
async fn origins_are_off_by_default_and_only_at_addresses_that_are_allowed() {
    let origin = Origin::start("1").await;
    let off = Gateway::start(&[]).await;
    assert_eq!(off.send(creation(FEED, &origin)).await.expect(403).problem(), "origins-off");
    let world = Protected::start("").await;
    let manager = world.token(&["--create", "#", "--manage", "#"]);
    for url in [
        "https://127.0.0.1/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[::ffff:127.0.0.1]/",
        "https://[fe80::1]/",
        "https://localhost/",
        "http://93.184.216.34/",
        &origin.url(),
    ] {
        let refused = world.send(Some(&manager), put(FEED).header("stream-origin", url)).await.expect(403);
        assert_eq!(refused.problem(), "origin-address", "{url}");
    }
    let gateway = gateway(&[]).await;
    for (name, value) in [
        ("stream-origin", "ftp://api.example/"),
        ("stream-origin", "https://user:secret@api.example/"),
        ("stream-origin-interval", "0"),
        ("stream-origin-interval", "9-1"),
        ("stream-origin-poll", "sometimes"),
        ("stream-origin-key", ""),
        ("stream-closed", "true"),
        ("stream-forked-from", "/v1/stream/a"),
    ] {
        let mut request = put(FEED).header(name, value);
        if name != "stream-origin" {
            request = request.header("stream-origin", "https://api.example/");
        }
        gateway.send(request).await.expect(400);
    }
    gateway.send(put(FEED).header("stream-origin-key", "id")).await.expect(400);
    gateway.send(put(FEED).header("stream-origin", "https://api.example/").text("1")).await.expect(400);
    gateway.send(get(FEED)).await.expect(404);
    assert_eq!(origin.received().len(), 0);
}

#[tokio::test]
async fn with_tokens_an_origin_needs_the_right_to_manage_and_is_shown_to_those_who_have_it() {
    let world = Protected::start_with("", &OPTIONS[1..], &[]).await;
    let origin = Origin::start("1").await;
    let creator = world.token(&["--create", "#", "--read", "#", "--append", "#"]);
    let manager = world.token(&["--create", "#", "--read", "#", "--manage", "#"]);
    assert_eq!(world.send(Some(&creator), creation(FEED, &origin)).await.expect(403).problem(), "forbidden");
    world.send(None, creation(FEED, &origin)).await.expect(401);
    world.send(Some(&manager), creation(FEED, &origin)).await.expect(201);
    let shown = world.send(Some(&manager), head(FEED)).await.expect(200);
    assert_eq!(shown.header("stream-origin"), origin.url());
    assert_eq!(shown.header("stream-origin-poll"), "while-read");
    let shown = world.send(Some(&creator), head(FEED)).await.expect(200);
    assert_eq!((shown.header("stream-origin"), state(&shown, "state").as_str()), ("", "pending"));
    assert_eq!(world.send(Some(&creator), post(FEED).json("2")).await.expect(409).problem(), "has-origin");
    assert!(!world.gateway.log().contains("secret"), "{}", world.gateway.log());
}

/// MQTT has no place for the state beside a message, so that it is a topic of its own.
#[tokio::test]
async fn mqtt_clients_are_told_when_an_origin_fails_and_when_it_answers_again() {
    let (origin, gateway) = (Origin::start("1").await, gateway(&[]).await);
    gateway.send(creation(FEED, &origin)).await.expect(201);
    let mut reader = Mqtt::connect(gateway.mqtt, &Hello::new("reader")).await;
    assert_eq!(reader.subscribe("$SYS/origin/feed", 1).await, 1);
    assert_eq!(reader.subscribe("#", 0).await, 0);
    let mut next = async |topic: &str| {
        let message = reader.take().await;
        assert_eq!(message.topic, topic);
        serde_json::from_slice::<serde_json::Value>(&message.payload).unwrap()
    };
    assert_eq!(next("feed").await, 1);
    let told = next("$SYS/origin/feed").await;
    assert_eq!((&told["state"], told["checked"].is_string()), (&"ok".into(), true), "{told}");
    origin.replies(Reply::Status(503, ""));
    let told = next("$SYS/origin/feed").await;
    assert_eq!((&told["state"], &told["reason"]), (&"failing".into(), &"status-503".into()), "{told}");
    assert!(told["since"].is_string(), "{told}");
    // A client that comes now gets it as a retained message.
    let mut late = Mqtt::connect(gateway.mqtt, &Hello::new("late")).await;
    assert_eq!(late.subscribe("$SYS/origin/feed", 0).await, 0);
    let retained = late.message().await;
    assert!(retained.retain && retained.payload.starts_with(b"{"), "{retained:?}");
    origin.has("2");
    let mut told = Vec::new();
    while told.len() < 2 {
        let message = reader.take().await;
        told.push((message.topic, message.payload));
    }
    told.sort();
    assert_eq!(told[1], ("feed".to_owned(), b"2".to_vec()));
    assert!(String::from_utf8_lossy(&told[0].1).contains("\"state\":\"ok\""), "{told:?}");
    assert_eq!(reader.publish("$SYS/origin/feed", "{}", 1).await, 0x87);
    gateway.send(delete(FEED)).await.expect(204);
    until("it ends with its stream", async || {
        gateway.send(get("/v1/stream/$SYS/origin/feed")).await.status == 404
    })
    .await;
}
