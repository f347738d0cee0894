//! What shared caches may keep: messages, but never "nothing new".

use crate::world::{Gateway, get, post, put};

#[tokio::test]
async fn messages_may_be_kept_and_the_tail_must_be_asked_again() {
    let gateway = Gateway::start(&[]).await;
    gateway.send(put("/v1/stream/s").json("[1]")).await.expect(201);
    let messages = gateway.send(get("/v1/stream/s")).await.expect(200);
    assert_eq!(messages.header("cache-control"), "public, max-age=60, stale-while-revalidate=300");
    let tail = format!("/v1/stream/s?offset={}", messages.next_offset());
    let nothing = gateway.send(get(&tail)).await.expect(200);
    assert_eq!((nothing.text().as_str(), nothing.header("cache-control")), ("[]", "no-cache"));

    let tag = nothing.header("etag").to_owned();
    let unchanged =
        gateway.send(get(&tail).header("if-none-match", format!("\"x\", W/{tag}"))).await.expect(304);
    assert_eq!((unchanged.body.len(), unchanged.header("etag")), (0, tag.as_str()));
    assert_eq!(unchanged.next_offset(), nothing.next_offset());
    gateway.send(post("/v1/stream/s").json("2")).await.expect(204);
    assert_eq!(gateway.send(get(&tail).header("if-none-match", &tag)).await.expect(200).text(), "[2]");

    let tag = gateway.send(get(&tail)).await.header("etag").to_owned();
    gateway.send(post("/v1/stream/s").header("stream-closed", "true")).await.expect(204);
    let closed = gateway.send(get(&tail).header("if-none-match", &tag)).await.expect(200);
    assert_eq!(closed.header("stream-closed"), "true");
}

#[tokio::test]
async fn a_stream_that_ends_is_not_kept_longer_than_it_lives() {
    let gateway = Gateway::start(&[]).await;
    gateway.send(put("/v1/stream/s").json("[1]").header("stream-ttl", 30)).await.expect(201);
    assert_eq!(
        gateway.send(get("/v1/stream/s")).await.expect(200).header("cache-control"),
        "public, max-age=30"
    );
    assert_eq!(
        gateway.send(get("/v1/stream/s?offset=now")).await.expect(200).header("cache-control"),
        "no-store"
    );
}
