//! Hold times of long polls and lifetimes of event streams, and how a client requests them.

use std::time::Duration;

use crate::world::{Gateway, Stopwatch, get, put};

#[tokio::test]
async fn the_requested_hold_is_clamped_and_reported() {
    let gateway = Gateway::start(&["--hold", "1s", "--hold-max", "1s"]).await;
    gateway.send(put("/v1/stream/s").json("")).await.expect(201);
    let poll = || get("/v1/stream/s?live=long-poll&offset=-1");
    let timed = |timeout: &str| get(format!("/v1/stream/s?live=long-poll&offset=-1&timeout={timeout}"));
    for (request, applied, least) in [
        (timed("0"), "wait=0", 0),
        (timed("3600"), "wait=1", 1000),
        (poll().header("prefer", "respond-async, wait=99"), "wait=1", 1000),
        (timed("0").header("prefer", "wait=1"), "wait=0", 0),
        (poll(), "", 900),
    ] {
        let since = Stopwatch::start();
        let answer = gateway.send(request).await.expect(204);
        let held = since.took();
        assert_eq!(answer.header("preference-applied"), applied);
        let (least, most) = (Duration::from_millis(least), Duration::from_millis(least + 900));
        assert!(held.is_within(&(least..most)), "{held:?}");
        assert_eq!(
            (answer.header("stream-up-to-date"), answer.header("cache-control")),
            ("true", "no-store")
        );
        assert!(!answer.next_offset().is_empty() && !answer.header("stream-cursor").is_empty());
    }
}

#[tokio::test]
async fn an_event_stream_sends_heartbeats_and_ends_with_its_offset() {
    let gateway = Gateway::start(&["--limit", "live_life=3s"]).await;
    gateway.send(put("/v1/stream/s").json("[1]")).await.expect(201);
    let since = Stopwatch::start();
    let mut events = gateway.connect().await.events("/v1/stream/s?live=sse&offset=-1&heartbeat=1").await;
    events.data().await;
    let first = events.control().await;
    let mut beats = 0;
    while let Some(event) = events.next().await {
        let control: serde_json::Value = serde_json::from_str(&event.data).unwrap();
        assert_eq!(
            (event.name.as_str(), &control["streamNextOffset"]),
            ("control", &first["streamNextOffset"])
        );
        beats += 1;
    }
    let lived = since.took();
    assert!((1..=4).contains(&beats), "{beats} heartbeats");
    let life = Duration::from_millis(2600)..Duration::from_secs(4);
    assert!(lived.is_within(&life), "3 s give or take 10 %, not {lived:?}");
}

#[tokio::test]
async fn an_event_stream_has_what_proxies_and_browsers_need() {
    let gateway = Gateway::start(&[]).await;
    gateway.send(put("/v1/stream/s").text("x")).await.expect(201);
    let events = gateway.connect().await.events("/v1/stream/s?live=sse&offset=-1").await;
    for (name, value) in [
        ("cache-control", "no-cache, no-transform"),
        ("x-accel-buffering", "no"),
        ("x-content-type-options", "nosniff"),
        ("cross-origin-resource-policy", "same-origin"),
        ("content-security-policy", "sandbox"),
    ] {
        assert_eq!(events.headers.get(name).map(|v| v.to_str().unwrap()), Some(value), "{name}");
    }
}
