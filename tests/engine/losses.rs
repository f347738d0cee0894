//! The engine has lost what it had acknowledged: readers are told, and nothing is read as if it were something else.

use serde_json::json;

use crate::deployment::{follow, two_servers};
use crate::server::Engine;
use crate::world::{get, post, put};

#[tokio::test]
async fn an_offset_that_the_engine_has_lost_is_a_gap_for_ever() {
    // Snapshots only when asked for.
    let mut engine = Engine::start(&["--appendonly", "no", "--save", "3600 1000000"]).await;
    let gateway = engine.gateway("one").await;
    gateway.send(put("/v1/stream/s").json("")).await.expect(201);
    let kept = gateway.send(post("/v1/stream/s").json(r#"["kept"]"#)).await.expect(204).next_offset();
    assert!(engine.command("SAVE").starts_with("+OK"));
    let lost = gateway.send(post("/v1/stream/s").json(r#"["lost","too"]"#)).await.expect(204).next_offset();
    engine.kill();
    engine.restart().await;

    let read = async |offset: &str| {
        let mut connection = gateway.connect().await;
        connection.send(get(format!("/v1/stream/s?offset={offset}"))).await
    };
    crate::world::until("the engine is used again", async || read(&kept).await.status == 200).await;
    let refused = read(&lost).await.expect(410);
    assert_eq!(refused.header("stream-gap"), "reason=epoch");
    assert_eq!(read("-1").await.expect(200).json(), json!(["kept"]));
    // The tail passes the lost offset.
    gateway.send(post("/v1/stream/s").json(r#"["new","and","more"]"#)).await.expect(204);
    read(&lost).await.expect(410);
    assert_eq!(read(&kept).await.expect(200).json(), json!(["new", "and", "more"]));
}

#[tokio::test]
async fn a_stream_that_is_created_again_after_a_loss_does_not_take_the_old_offsets() {
    let mut engine = Engine::volatile().await;
    let gateway = engine.gateway("one").await;
    gateway.send(put("/v1/stream/s").json("")).await.expect(201);
    let lost = gateway.send(post("/v1/stream/s").json("1")).await.expect(204).next_offset();
    engine.kill();
    engine.restart().await;
    let is_created = async || gateway.send(put("/v1/stream/s").json("")).await.status == 201;
    crate::world::until("the engine is used again", is_created).await;
    gateway.send(post("/v1/stream/s").json("[2,3]")).await.expect(204);
    let refused = gateway.send(get(format!("/v1/stream/s?offset={lost}"))).await.expect(410);
    assert_eq!(refused.header("stream-gap"), "reason=epoch");
}

/// The process of the primary is the same before and after.
#[tokio::test]
async fn a_primary_that_has_lost_appends_and_is_promoted_again_gives_their_offsets_to_nothing_else() {
    let ([first, second], [first_port, second_port]) = two_servers().await;
    let gateway = first.gateway("one").await;
    gateway.send(put("/v1/stream/s").json("")).await.expect(201);
    let kept = gateway.send(post("/v1/stream/s").json(r#"["kept"]"#)).await.expect(204).next_offset();
    follow(&second, first_port).await;
    assert_eq!(second.ask::<String>("REPLICAOF NO ONE"), "OK");
    let lost = gateway.send(post("/v1/stream/s").json(r#"["lost"]"#)).await.expect(204).next_offset();
    follow(&first, second_port).await;
    assert_eq!(first.ask::<String>("REPLICAOF NO ONE"), "OK");

    let appends =
        async || gateway.connect().await.send(post("/v1/stream/s").json(r#"["new"]"#)).await.status == 204;
    crate::world::until("the promoted server is used", appends).await;
    let read =
        async |offset: &str| gateway.connect().await.send(get(format!("/v1/stream/s?offset={offset}"))).await;
    let refused = read(&lost).await.expect(410);
    assert_eq!(refused.header("stream-gap"), "reason=epoch");
    assert_eq!(read(&kept).await.expect(200).json(), json!(["new"]));
}
