//! A primary that Sentinel watches fails, and its replica is promoted.

use rustix::process::Signal;
use serde_json::json;

use crate::deployment::Watched;
use crate::server::follows_news;
use crate::world::{Gateway, get, post, put, until};

async fn read(gateway: &Gateway, offset: &str) -> crate::world::Answer {
    gateway.connect().await.send(get(format!("/v1/stream/s?offset={offset}"))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_follow_a_promotion_and_nothing_that_the_replica_had_is_lost() {
    let mut engine = Watched::start(&[]).await;
    let (one, other) = (engine.gateway("one").await, engine.gateway("other").await);
    one.send(put("/v1/stream/s").json("")).await.expect(201);
    let offset = one.send(post("/v1/stream/s").json("1")).await.expect(204).next_offset();
    engine.is_replicated().await;
    let mut connection = other.connect().await;
    let poll = connection.send(get("/v1/stream/s?offset=now&live=long-poll&timeout=55"));
    let failover = async {
        until("the poll is held", async || other.metric("pollgate_held_polls").await > 0.0).await;
        engine.servers[0].kill();
        engine.promotes(1).await;
        let is_used = async || one.connect().await.send(post("/v1/stream/s").json("2")).await.status == 204;
        until("the promoted server is used", is_used).await;
    };
    let (answer, ()) = tokio::join!(poll, failover);
    assert_eq!(answer.expect(200).json(), json!([2]));
    // What the replica had continues.
    assert_eq!(read(&one, &offset).await.expect(200).json(), json!([2]));
    assert_eq!(read(&other, "-1").await.expect(200).json(), json!([1, 2]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_promoted_replica_lacks_is_a_gap() {
    let mut engine = Watched::start(&[]).await;
    let gateway = engine.gateway("one").await;
    gateway.send(put("/v1/stream/s").json("")).await.expect(201);
    let kept = gateway.send(post("/v1/stream/s").json(r#"["kept"]"#)).await.expect(204).next_offset();
    engine.is_replicated().await;
    // The replica may not follow any more.
    assert_eq!(engine.servers[0].ask::<String>("ACL SETUSER default -psync -sync"), "OK");
    let _cut: u64 = engine.servers[0].ask("CLIENT KILL TYPE replica");
    let lost = gateway.send(post("/v1/stream/s").json(r#"["lost"]"#)).await.expect(204).next_offset();
    engine.servers[0].kill();
    engine.promotes(1).await;
    until("the promoted server is used", async || read(&gateway, &kept).await.status == 200).await;
    let refused = read(&gateway, &lost).await.expect(410);
    assert_eq!(refused.header("stream-gap"), "reason=epoch");
    gateway.send(post("/v1/stream/s").json(r#"["new","and","more"]"#)).await.expect(204);
    read(&gateway, &lost).await.expect(410);
    assert_eq!(read(&gateway, &kept).await.expect(200).json(), json!(["new", "and", "more"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_was_replaced_while_it_hung_is_left() {
    let engine = Watched::start(&[]).await;
    let (one, other) = (engine.gateway("one").await, engine.gateway("other").await);
    one.send(put("/v1/stream/s").json("")).await.expect(201);
    engine.is_replicated().await;
    engine.servers[0].signal(Signal::STOP);
    engine.promotes(1).await;
    engine.servers[0].signal(Signal::CONT);
    engine.is_whole().await;
    let is_used = async || one.connect().await.send(post("/v1/stream/s").json("1")).await.status == 204;
    until("the promoted server is used", is_used).await;
    follows_news(&other).await;
    let mut connection = other.connect().await;
    let poll = connection.send(get("/v1/stream/s?offset=now&live=long-poll&timeout=55"));
    let append = async {
        until("the poll is held", async || other.metric("pollgate_held_polls").await > 0.0).await;
        one.send(post("/v1/stream/s").json("2")).await.expect(204);
    };
    let (answer, ()) = tokio::join!(poll, append);
    assert_eq!(answer.expect(200).json(), json!([2]));
}
