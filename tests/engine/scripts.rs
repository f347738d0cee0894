//! An engine whose access list allows no functions: the gateway uses scripts in their place.

use serde_json::json;

use crate::server::{Engine, start_gateway};
use crate::world::{delete, get, post, put, until};

/// An engine with a user who may not use functions, and the URL of that user.
async fn without_functions(further: &str) -> (Engine, String) {
    let engine = Engine::volatile().await;
    let rights = format!("ACL SETUSER gate on >secret allkeys allchannels +@all {further}");
    assert_eq!(engine.ask::<String>(&rights), "OK");
    let url = format!("{}?user=gate&pass=secret", engine.url());
    (engine, url)
}

#[tokio::test]
async fn an_engine_that_allows_no_functions_gets_scripts() {
    for denied in ["-function -fcall -fcall_ro", "-fcall"] {
        let (engine, url) = without_functions(denied).await;
        let one = start_gateway(&url, "one", &[]).await;
        one.send(put("/v1/stream/s").json("")).await.expect(201);
        one.send(post("/v1/stream/s").json("[1,2]")).await.expect(204);
        assert_eq!(one.send(get("/v1/stream/s")).await.expect(200).json(), json!([1, 2]));
        // Gateways with and without functions share the streams.
        let other = engine.gateway("other").await;
        other.send(post("/v1/stream/s").json("3")).await.expect(204);
        assert_eq!(one.send(get("/v1/stream/s")).await.expect(200).json(), json!([1, 2, 3]));
        // The engine has forgotten the scripts.
        assert_eq!(engine.ask::<String>("SCRIPT FLUSH"), "OK");
        let appended = async || one.connect().await.send(post("/v1/stream/s").json("4")).await.status == 204;
        until("the scripts are loaded again", appended).await;
        assert_eq!(other.send(get("/v1/stream/s")).await.expect(200).json(), json!([1, 2, 3, 4]));
        one.send(delete("/v1/stream/s")).await.expect(204);
        assert!(engine.info("INFO commandstats", "cmdstat_evalsha").contains("calls="));
    }
}

#[tokio::test]
async fn functions_that_were_removed_are_loaded_again_before_a_request_fails() {
    let engine = Engine::volatile().await;
    let gateway = engine.gateway("one").await;
    gateway.send(put("/v1/stream/s").json("")).await.expect(201);
    assert_eq!(engine.ask::<String>("FUNCTION FLUSH"), "OK");
    gateway.send(post("/v1/stream/s").json("1")).await.expect(204);
    assert_eq!(engine.ask::<String>("FUNCTION FLUSH"), "OK");
    assert_eq!(gateway.send(get("/v1/stream/s")).await.expect(200).json(), json!([1]));
}
