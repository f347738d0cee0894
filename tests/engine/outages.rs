//! The engine or its connections go away for a while.

use serde_json::json;

use crate::server::Engine;
use crate::world::{Gateway, Request, get, post, put, until};

/// Waits until a poll is held.
async fn holds_a_poll(gateway: &Gateway) {
    until("the poll is held", async || gateway.metric("pollgate_held_polls").await > 0.0).await;
}

fn held_poll() -> Request {
    get("/v1/stream/s?offset=now&live=long-poll&timeout=55")
}

#[tokio::test]
async fn while_the_engine_is_away_polls_stay_held_and_appends_are_refused_for_now() {
    let mut engine = Engine::durable().await;
    let (one, other) = (engine.gateway("one").await, engine.gateway("other").await);
    one.send(put("/v1/stream/s").json("")).await.expect(201);
    let mut connection = one.connect().await;
    let poll = connection.send(held_poll());
    let outage = async {
        holds_a_poll(&one).await;
        engine.kill();
        let refused = other.send(post("/v1/stream/s").json("0")).await.expect(503);
        assert_eq!(refused.problem(), "store-unreachable");
        assert!(!refused.header("retry-after").is_empty());
        one.send(get("/v1/stream/s")).await.expect(503);
        assert!(one.metric("pollgate_held_polls").await > 0.0, "the poll stays held");
        engine.restart().await;
        let appended = async || other.send(post("/v1/stream/s").json("1")).await.status == 204;
        until("the engine is used again", appended).await;
    };
    let (answer, ()) = tokio::join!(poll, outage);
    assert_eq!(answer.expect(200).json(), json!([1]));
}

#[tokio::test]
async fn a_gateway_that_has_lost_the_connection_for_news_misses_no_message() {
    let engine = Engine::volatile().await;
    let (one, other) = (engine.gateway("one").await, engine.gateway("other").await);
    one.send(put("/v1/stream/s").json("")).await.expect(201);
    for number in 0..5 {
        let mut connection = one.connect().await;
        let poll = connection.send(held_poll());
        let cut = async {
            holds_a_poll(&one).await;
            engine.command("CLIENT KILL TYPE pubsub");
            other.send(post("/v1/stream/s").json(number.to_string())).await.expect(204);
        };
        let (answer, ()) = tokio::join!(poll, cut);
        assert_eq!(answer.expect(200).json(), json!([number]));
    }
}

#[tokio::test]
async fn an_engine_that_may_delete_streams_by_itself_is_refused() {
    let engine = Engine::start(&["--save", "", "--maxmemory-policy", "allkeys-lru"]).await;
    let url = engine.url();
    let output = std::process::Command::new(crate::world::program())
        .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--mqtt", "off", "--store", &url])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("maxmemory-policy allkeys-lru"), "{said}");
}

#[tokio::test]
async fn an_engine_that_does_not_answer_is_an_error_at_the_start() {
    let mut engine = Engine::volatile().await;
    engine.kill();
    let url = engine.url();
    let output = std::process::Command::new(crate::world::program())
        .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--mqtt", "off", "--store", &url])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("--store: the engine cannot be used"), "{said}");
}
