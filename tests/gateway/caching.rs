//! Cacheable responses: full pages of messages may be cached, a response that ends at the tail may not.

use crate::world::{Gateway, get, head, post, put};

const KEPT: &str = "public, max-age=60, stale-while-revalidate=300";

#[tokio::test]
async fn only_full_pages_are_kept_and_only_under_a_url_of_their_own() {
    let gateway = Gateway::start(&["--limit", "read_bytes_max=8"]).await;
    gateway.send(put("/v1/stream/s").json("[11111111,22222222]")).await.expect(201);
    gateway.send(post("/v1/stream/s").json("33333333")).await.expect(204);
    let page = gateway.send(get("/v1/stream/s?offset=-1")).await.expect(200);
    assert_eq!((page.header("cache-control"), page.header("stream-up-to-date")), (KEPT, ""));
    // A cache may answer a HEAD from a GET of the same URL.
    assert_eq!(gateway.send(get("/v1/stream/s")).await.expect(200).header("cache-control"), "no-cache");
    assert_eq!(gateway.send(head("/v1/stream/s")).await.expect(200).header("cache-control"), "no-store");
    let last = gateway.send(get(format!("/v1/stream/s?offset={}", page.next_offset()))).await.expect(200);
    assert_eq!((last.header("cache-control"), last.header("stream-up-to-date")), ("no-cache", "true"));
    // The next long poll starts at the offset of the response, so the response is never stale.
    let poll = format!("/v1/stream/s?offset={}&live=long-poll", page.next_offset());
    assert_eq!(gateway.send(get(poll)).await.expect(200).header("cache-control"), KEPT);
}

#[tokio::test]
async fn a_response_at_the_tail_must_be_revalidated() {
    let gateway = Gateway::start(&[]).await;
    gateway.send(put("/v1/stream/s").json("[1]")).await.expect(201);
    let messages = gateway.send(get("/v1/stream/s")).await.expect(200);
    let tag = messages.header("etag").to_owned();
    let twice = get("/v1/stream/s").header("if-none-match", "\"x\"").header("if-none-match", tag);
    assert_eq!(gateway.send(twice).await.expect(304).header("cache-control"), "no-cache");
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
async fn a_response_is_not_cacheable_beyond_the_lifetime_of_its_stream() {
    let gateway = Gateway::start(&["--limit", "read_bytes_max=8"]).await;
    gateway.send(put("/v1/stream/s").json("11111111").header("stream-ttl", 30)).await.expect(201);
    gateway.send(post("/v1/stream/s").json("22222222")).await.expect(204);
    assert_eq!(
        gateway.send(get("/v1/stream/s?offset=-1")).await.expect(200).header("cache-control"),
        "public, max-age=30"
    );
    assert_eq!(
        gateway.send(get("/v1/stream/s?offset=now")).await.expect(200).header("cache-control"),
        "no-store"
    );
}
