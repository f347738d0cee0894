//! Wait queues: the held polls of a client, as the client and the operator see them.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::world::{Answer, Gateway, Request, Stopwatch, get, post, put, until};

async fn gateway_with_streams(arguments: &[&str], streams: usize) -> Gateway {
    let gateway = Gateway::start(arguments).await;
    for n in 0..streams {
        gateway.send(put(format!("/v1/stream/s{n}")).json("")).await.expect(201);
    }
    gateway
}

fn poll(stream: usize, client: &str) -> Request {
    get(format!("/v1/stream/s{stream}?live=long-poll&offset=-1&client={client}"))
}

async fn hold(gateway: &Gateway, request: Request) -> JoinHandle<Answer> {
    let mut connection = gateway.connect().await;
    tokio::spawn(async move { connection.send(request).await })
}

#[tokio::test]
async fn a_newer_poll_for_the_same_stream_ends_the_older_one_at_once() {
    let gateway = gateway_with_streams(&[], 2).await;
    let older = hold(&gateway, poll(0, "phone")).await;
    let other_stream = hold(&gateway, poll(1, "phone")).await;
    let other_client = hold(&gateway, poll(0, "laptop")).await;
    let anonymous = hold(&gateway, get("/v1/stream/s0?live=long-poll&offset=-1")).await;
    gateway.until_held(4).await;

    let newer =
        hold(&gateway, get("/v1/stream/s0?live=long-poll&offset=-1").header("client-id", "phone")).await;
    let ended = older.await.unwrap().expect(204);
    assert_eq!(ended.header("stream-superseded"), "true");
    assert!(!ended.next_offset().is_empty());
    gateway.until_held(4).await;

    for stream in 0..2 {
        gateway.send(post(format!("/v1/stream/s{stream}")).json("1")).await.expect(204);
    }
    for held in [other_stream, other_client, anonymous, newer] {
        let answer = held.await.unwrap().expect(200);
        assert_eq!((answer.text().as_str(), answer.header("stream-superseded")), ("[1]", ""));
    }
}

#[tokio::test]
async fn a_poll_that_is_answered_at_once_supersedes_too() {
    let gateway = gateway_with_streams(&[], 1).await;
    let older = hold(&gateway, poll(0, "phone")).await;
    gateway.until_held(1).await;
    gateway.send(get("/v1/stream/s0?live=long-poll&offset=-1&client=phone&timeout=0")).await.expect(204);
    assert_eq!(older.await.unwrap().expect(204).header("stream-superseded"), "true");
}

#[tokio::test]
async fn a_client_holds_sixteen_polls_and_no_more() {
    let gateway = gateway_with_streams(&[], 17).await;
    let mut held = Vec::new();
    for stream in 0..16 {
        held.push(hold(&gateway, poll(stream, "greedy")).await);
    }
    gateway.until_held(16).await;
    let refused = gateway.send(poll(16, "greedy")).await.expect(429);
    assert_eq!(refused.problem(), "too-many-polls");
    assert!((1..=5).contains(&refused.header("retry-after").parse::<u32>().unwrap()));
    held.push(hold(&gateway, poll(3, "greedy")).await);
    assert_eq!(held.remove(3).await.unwrap().expect(204).header("stream-superseded"), "true");
    held.push(hold(&gateway, poll(16, "modest")).await);
    gateway.until_held(17).await;
}

#[tokio::test]
async fn the_operator_sees_who_waits_for_what_and_for_how_long() {
    let gateway = gateway_with_streams(&["--limit", "client_idle_timeout=1s"], 2).await;
    let held = hold(&gateway, poll(0, "phone")).await;
    gateway.until_held(1).await;
    let second = hold(&gateway, poll(1, "phone")).await;
    gateway.until_held(2).await;
    let _anonymous = hold(&gateway, get("/v1/stream/s1?live=long-poll&offset=-1")).await;
    gateway.until_held(3).await;

    let clients = gateway.ask_admin("/clients").await.expect(200).json();
    let names: Vec<_> = clients.as_array().unwrap().iter().map(|c| c["client"].as_str().unwrap()).collect();
    assert_eq!((names.len(), names[1]), (2, "phone"));
    assert!(names[0].starts_with("anonymous-"));
    assert_eq!(
        gateway.ask_admin(&format!("/clients/{}", names[0])).await.expect(200).json()["held"][0]["stream"],
        "s1"
    );

    let phone = gateway.ask_admin("/clients/phone").await.expect(200).json();
    assert_eq!((&phone["held"][0]["stream"], &phone["held"][1]["stream"]), (&"s0".into(), &"s1".into()));
    let tail = gateway.send(crate::world::head("/v1/stream/s0")).await.next_offset();
    assert_eq!(phone["held"][0]["offset"], tail);
    let [since, deadline] =
        ["since", "deadline"].map(|key| phone["held"][0][key].as_str().unwrap().to_owned());
    assert!(since < deadline && since.ends_with('Z') && since.len() == "2026-01-01T00:00:00.000Z".len());

    gateway.send(post("/v1/stream/s0").json("1")).await.expect(204);
    gateway.send(post("/v1/stream/s1").json("1")).await.expect(204);
    held.await.unwrap().expect(200);
    second.await.unwrap().expect(200);
    let idle = gateway.ask_admin("/clients/phone").await.expect(200).json();
    assert_eq!((&idle["held"], &idle["answered"]), (&serde_json::json!([]), &2.into()));
    assert!(idle["lastSeen"].is_string());

    until("the idle client is forgotten", async || {
        gateway.ask_admin("/clients").await.json().as_array().unwrap().is_empty()
    })
    .await;
    gateway.ask_admin("/clients/phone").await.expect(404);
}

#[tokio::test]
async fn a_client_that_leaves_leaves_no_waiter() {
    let gateway = gateway_with_streams(&[], 1).await;
    let held = hold(&gateway, poll(0, "phone")).await;
    let events = gateway.connect().await.events("/v1/stream/s0?live=sse&offset=-1").await;
    gateway.until_waiting(2).await;
    held.abort();
    drop(events);
    gateway.until_held(0).await;
    gateway.until_waiting(0).await;
    assert_eq!(gateway.metric("pollgate_watched_streams").await, 0.0);
}

/// Polls again after each response, and returns the number of polls.
async fn poll_for(gateway: &Gateway, time: Duration, target: &str) -> u32 {
    let mut connection = gateway.connect().await;
    let mut answers = 0;
    let polls = async {
        loop {
            connection.send(get(target)).await.expect(204);
            answers += 1;
        }
    };
    let _over = timeout(time, polls).await;
    answers
}

#[tokio::test]
async fn two_programs_with_one_client_id_are_delayed_and_logged() {
    let gateway = gateway_with_streams(&[], 2).await;
    let target = |client: &str| format!("/v1/stream/s0?live=long-poll&offset=-1&client={client}");
    let (shared, time) = (target("shared"), Duration::from_secs(3));
    let both = tokio::join!(poll_for(&gateway, time, &shared), poll_for(&gateway, time, &shared));
    assert!((2..=6).contains(&(both.0 + both.1)), "{both:?} answers");
    let delayed = gateway.metric("pollgate_takeovers_delayed_total{kind=\"polls\"}").await;
    assert!((1.0..=4.0).contains(&delayed), "{delayed}");
    let log = gateway.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("use one client id")).collect();
    assert!(lines.len() == 1 && lines[0].contains("shared"), "{log}");

    // Neither program misses a message, and other clients are not slowed down.
    let held = [hold(&gateway, poll(0, "shared")).await, hold(&gateway, poll(0, "shared")).await];
    gateway.until_waiting(2).await;
    gateway.send(post("/v1/stream/s0").json("1")).await.expect(204);
    for held in held {
        let answer = held.await.unwrap().expect(200);
        assert_eq!((answer.text().as_str(), answer.header("stream-superseded")), ("[1]", ""));
    }
    let older = hold(&gateway, poll(1, "alone")).await;
    gateway.until_held(1).await;
    let since = Stopwatch::start();
    let _newer = hold(&gateway, poll(1, "alone")).await;
    assert_eq!(older.await.unwrap().expect(204).header("stream-superseded"), "true");
    assert!(since.took().is_below(Duration::from_secs(1)), "{:?}", since.took());
}
