//! The engine or its connections go away for a while.

use serde_json::json;

use crate::server::Engine;
use crate::world::{Gateway, PATIENCE, Request, delete, get, post, program, put, until};

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
async fn a_poll_of_a_stream_that_ends_while_the_connection_for_news_is_lost_ends_too() {
    let engine = Engine::volatile().await;
    let (one, other) = (engine.gateway("one").await, engine.gateway("other").await);
    for _ in 0..5 {
        one.send(put("/v1/stream/s").json("")).await.expect(201);
        let mut connection = one.connect().await;
        let poll = connection.send(held_poll());
        let end = async {
            holds_a_poll(&one).await;
            engine.command("CLIENT KILL TYPE pubsub");
            other.send(delete("/v1/stream/s")).await.expect(204);
        };
        let (answer, ()) = tokio::join!(poll, end);
        answer.expect(404);
    }
}

#[tokio::test]
async fn an_engine_whose_memory_is_full_refuses_appends_and_is_read() {
    let engine = Engine::start(&["--save", "", "--maxmemory", "16mb"]).await;
    // The only client may have all of it.
    let gateway = engine.gateway_with("one", &["--limit", "principal_share_percent=100"]).await;
    gateway.send(put("/v1/stream/s").text("")).await.expect(201);
    let mut refused = None;
    for _ in 0..1000 {
        let answer = gateway.send(post("/v1/stream/s").text(vec![b'x'; 60_000])).await;
        if answer.status != 204 {
            refused = Some(answer.expect(507));
            break;
        }
    }
    let refused = refused.expect("the engine is full");
    assert_eq!(refused.problem(), "store-full");
    // Far over the limit, and over new connections.
    engine.command("CONFIG SET maxmemory 1mb");
    gateway.send(get("/v1/stream/s")).await.expect(200);
    engine.command("CLIENT KILL TYPE normal SKIPME yes");
    let is_read = async || gateway.connect().await.send(get("/v1/stream/s")).await.status == 200;
    until("it is read over a new connection", is_read).await;
    gateway.send(delete("/v1/stream/s")).await.expect(204);
}

/// Starts a gateway that has to refuse the engine, and returns what it says.
pub async fn refusal_of(url: &str, arguments: &[&str]) -> String {
    let mut gateway = tokio::process::Command::new(program());
    gateway.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--mqtt", "off", "--store", url]);
    let output = tokio::time::timeout(PATIENCE, gateway.args(arguments).kill_on_drop(true).output());
    let output = output.await.expect("it ends").unwrap();
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn an_engine_that_may_delete_streams_by_itself_is_refused() {
    let engine = Engine::start(&["--save", "", "--maxmemory-policy", "allkeys-lru"]).await;
    let said = refusal_of(&engine.url(), &[]).await;
    assert!(said.contains("maxmemory-policy allkeys-lru"), "{said}");
}

#[tokio::test]
async fn an_engine_that_does_not_answer_is_an_error_at_the_start() {
    let mut engine = Engine::volatile().await;
    engine.kill();
    let said = refusal_of(&engine.url(), &[]).await;
    assert!(said.contains("--store: the engine cannot be used"), "{said}");
}
