//! Publishing beyond the conformance tests: appends that create their stream, and helpful errors.

use crate::world::{Gateway, get, head, post, put};

#[tokio::test]
async fn create_makes_the_stream_with_the_type_of_the_first_message() {
    let gateway = Gateway::start(&[]).await;
    assert_eq!(gateway.send(post("/v1/stream/s").json("1")).await.expect(404).problem(), "stream-not-found");
    gateway.send(post("/v1/stream/s?create=1").json("1")).await.expect(204);
    gateway.send(post("/v1/stream/s?create=1").json("2")).await.expect(204);
    assert_eq!(gateway.send(get("/v1/stream/s")).await.expect(200).text(), "[1,2]");
    assert_eq!(gateway.send(head("/v1/stream/s")).await.header("content-type"), "application/json");
    let wrong = gateway.send(post("/v1/stream/s?create=1").text("x")).await.expect(409);
    assert_eq!(wrong.problem(), "content-type-mismatch");
    assert_eq!(
        gateway.send(post("/v1/stream/new?create=1").body("x")).await.expect(400).problem(),
        "content-type"
    );
    gateway.send(head("/v1/stream/new")).await.expect(404);
}

#[tokio::test]
async fn many_publishers_create_one_stream_together() {
    let gateway = std::sync::Arc::new(Gateway::start(&[]).await);
    let publishers: Vec<_> = (0..32)
        .map(|n| {
            let gateway = gateway.clone();
            tokio::spawn(async move { gateway.send(post("/v1/stream/s?create=1").json(n)).await.expect(204) })
        })
        .collect();
    for publisher in publishers {
        publisher.await.unwrap();
    }
    let mut read: Vec<u64> = serde_json::from_str(&gateway.send(get("/v1/stream/s")).await.text()).unwrap();
    read.sort_unstable();
    assert_eq!(read, (0..32).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_large_answer_comes_in_chunks_of_whole_messages() {
    let gateway = Gateway::start(&[]).await;
    gateway.send(put("/v1/stream/s").json("")).await.expect(201);
    let message = format!("\"{}\"", "x".repeat(300_000));
    for _ in 0..5 {
        gateway.send(post("/v1/stream/s").json(&message)).await.expect(204);
    }
    let first = gateway.send(get("/v1/stream/s")).await.expect(200);
    assert_eq!((first.json().as_array().unwrap().len(), first.header("stream-up-to-date")), (3, ""));
    let rest = gateway.send(get(format!("/v1/stream/s?offset={}", first.next_offset()))).await.expect(200);
    assert_eq!((rest.json().as_array().unwrap().len(), rest.header("stream-up-to-date")), (2, "true"));
}
