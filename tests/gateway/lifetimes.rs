//! Streams that are deleted, closed or expire while readers wait.

use crate::world::{Gateway, delete, get, head, post, put, until};

async fn held_poll(gateway: &Gateway) -> tokio::task::JoinHandle<crate::world::Answer> {
    let mut connection = gateway.connect().await;
    let poll =
        tokio::spawn(async move { connection.send(get("/v1/stream/s?live=long-poll&offset=now")).await });
    gateway.until_held(1).await;
    poll
}

#[tokio::test]
async fn a_deleted_stream_ends_polls_and_event_streams_at_once() {
    let gateway = Gateway::start(&[]).await;
    gateway.send(put("/v1/stream/s").json("")).await.expect(201);
    let poll = held_poll(&gateway).await;
    let mut events = gateway.connect().await.events("/v1/stream/s?live=sse&offset=-1").await;
    events.control().await;
    gateway.until_waiting(2).await;
    gateway.send(delete("/v1/stream/s")).await.expect(204);
    assert_eq!(poll.await.unwrap().expect(404).problem(), "stream-not-found");
    assert_eq!(events.next().await, None);
    gateway.until_waiting(0).await;
}

#[tokio::test]
async fn a_closed_stream_tells_its_readers_that_nothing_follows() {
    let gateway = Gateway::start(&[]).await;
    gateway.send(put("/v1/stream/s").json("")).await.expect(201);
    let poll = held_poll(&gateway).await;
    let mut events = gateway.connect().await.events("/v1/stream/s?live=sse&offset=-1").await;
    events.control().await;
    gateway.send(post("/v1/stream/s").json("9").header("stream-closed", "true")).await.expect(204);
    let answer = poll.await.unwrap().expect(200);
    assert_eq!((answer.text().as_str(), answer.header("stream-closed")), ("[9]", "true"));
    assert_eq!(events.data().await.replace('\n', ""), "[9]");
    assert_eq!(events.control().await["streamClosed"], true);
    assert_eq!(events.next().await, None);
    let after =
        gateway.send(get(format!("/v1/stream/s?live=long-poll&offset={}", answer.next_offset()))).await;
    assert_eq!(after.expect(204).header("stream-closed"), "true");
}

#[tokio::test]
async fn a_waiting_reader_keeps_an_idle_stream_alive_and_its_leaving_lets_it_end() {
    let gateway = Gateway::start(&[]).await;
    gateway.send(put("/v1/stream/s").json("").header("stream-ttl", 1)).await.expect(201);
    let poll = held_poll(&gateway).await;
    let outlived = tokio::time::Instant::now() + std::time::Duration::from_millis(2500);
    until("the TTL has passed twice", async || {
        gateway.send(head("/v1/stream/s")).await.expect(200);
        tokio::time::Instant::now() >= outlived
    })
    .await;
    gateway.send(post("/v1/stream/s").json("1")).await.expect(204);
    poll.await.unwrap().expect(200);
    until("the idle stream has ended", async || gateway.send(head("/v1/stream/s")).await.status == 404).await;
}

#[tokio::test]
async fn an_expiring_stream_ends_the_polls_that_it_holds() {
    let gateway = Gateway::start(&[]).await;
    let soon = pollgate::clock::Clock::start().now() + std::time::Duration::from_millis(1500);
    let expires = pollgate::clock::rfc3339(soon);
    gateway.send(put("/v1/stream/s").json("").header("stream-expires-at", &expires)).await.expect(201);
    assert_eq!(gateway.send(head("/v1/stream/s")).await.header("stream-expires-at"), expires);
    let poll = held_poll(&gateway).await;
    assert_eq!(poll.await.unwrap().expect(404).problem(), "stream-not-found");
}
