//! Two epochs of a stream or of a producer with otherwise equal numbers are distinguished.

use crate::world::{Gateway, Request, delete, get, post, put};

#[tokio::test]
async fn an_entity_tag_of_an_earlier_epoch_does_not_match_at_the_same_length() {
    let gateway = Gateway::start(&[]).await;
    let mut tags: Vec<String> = Vec::new();
    for life in 1..=3 {
        gateway.send(put("/v1/stream/s").json(format!("[{life}]"))).await.expect(201);
        for target in ["/v1/stream/s", "/v1/stream/s?offset=-1"] {
            for tag in &tags {
                let changed = gateway.send(get(target).header("if-none-match", tag)).await.expect(200);
                assert_eq!(changed.text(), format!("[{life}]"), "{tag}");
            }
            let all = tags.join(", ");
            gateway.send(get(target).header("if-none-match", &all)).await.expect(200);
        }
        let tag = gateway.send(get("/v1/stream/s")).await.header("etag").to_owned();
        gateway.send(get("/v1/stream/s").header("if-none-match", &tag)).await.expect(304);
        tags.push(tag);
        gateway.send(delete("/v1/stream/s")).await.expect(204);
    }
}

/// An append by a producer.
fn by(id: &str, epoch: u64, sequence: u64) -> Request {
    let named = post("/v1/stream/s").header("producer-id", id);
    named.header("producer-epoch", epoch).header("producer-seq", sequence).json(sequence)
}

#[tokio::test]
async fn only_the_producer_epoch_that_closed_a_stream_may_repeat_the_close() {
    let gateway = Gateway::start(&[]).await;
    gateway.send(put("/v1/stream/s").json("")).await.expect(201);
    let closing = |id, epoch, sequence| by(id, epoch, sequence).header("stream-closed", "true");
    gateway.send(by("p", 4, 0)).await.expect(200);
    gateway.send(closing("p", 4, 1)).await.expect(200);
    gateway.send(closing("p", 4, 1)).await.expect(204);
    for (id, epoch, sequence) in
        [("p", 5, 1), ("p", 3, 1), ("p", 4, 0), ("p", 4, 2), ("q", 4, 1), ("p", 5, 0)]
    {
        let refused = gateway.send(closing(id, epoch, sequence)).await.expect(409);
        assert_eq!(refused.problem(), "stream-closed", "{id} {epoch} {sequence}");
        assert_eq!(refused.header("stream-closed"), "true");
    }
    assert_eq!(gateway.send(get("/v1/stream/s")).await.text(), "[0,1]");
}

#[tokio::test]
async fn a_sequence_number_of_an_earlier_producer_epoch_is_new_in_a_later_one() {
    let gateway = Gateway::start(&[]).await;
    gateway.send(put("/v1/stream/s").json("")).await.expect(201);
    for (epoch, sequence, status) in [
        (0, 0, 200),
        (0, 1, 200),
        (0, 1, 204),
        (1, 0, 200),
        (1, 0, 204),
        (0, 1, 403),
        (0, 0, 403),
        (1, 1, 200),
        (2, 1, 400),
        (1, 1, 204),
    ] {
        gateway.send(by("p", epoch, sequence)).await.expect(status);
    }
    assert_eq!(gateway.send(get("/v1/stream/s")).await.text(), "[0,1,0,1]");
}

#[tokio::test]
async fn an_append_without_a_sequence_keeps_the_last_sequence() {
    let gateway = Gateway::start(&[]).await;
    gateway.send(put("/v1/stream/s").json("")).await.expect(201);
    let sent = |sequence: &str| match sequence {
        "" => post("/v1/stream/s").json("\"none\""),
        sequence => post("/v1/stream/s").header("stream-seq", sequence).json(format!("\"{sequence}\"")),
    };
    for (sequence, status) in
        [("b", 204), ("", 204), ("a", 409), ("b", 409), ("", 204), ("c", 204), ("b", 409)]
    {
        gateway.send(sent(sequence)).await.expect(status);
    }
    assert_eq!(gateway.send(get("/v1/stream/s")).await.text(), r#"["b","none","none","c"]"#);
}

/// The position that a poll waits at also exists in the next epoch, in which other polls wait.
#[tokio::test]
async fn a_poll_held_at_the_tail_of_one_epoch_does_not_wait_in_the_next() {
    let gateway = Gateway::start(&[]).await;
    for _ in 0..5 {
        let old = gateway.send(put("/v1/stream/s").json("[1]")).await.expect(201).next_offset();
        let poll = |offset: &str| get(format!("/v1/stream/s?live=long-poll&offset={offset}"));
        let (mut first, request) = (gateway.connect().await, poll(&old));
        let held = tokio::spawn(async move { first.send(request).await });
        gateway.until_held(1).await;
        gateway.send(delete("/v1/stream/s")).await.expect(204);
        let new = gateway.send(put("/v1/stream/s").json("[2]")).await.expect(201).next_offset();
        let answer = held.await.unwrap();
        assert!(matches!(answer.status.as_u16(), 404 | 410), "{answer:?}");
        assert_eq!(gateway.send(poll(&old)).await.expect(410).header("stream-gap"), "reason=epoch");
        let (mut second, request) = (gateway.connect().await, poll(&new));
        let held = tokio::spawn(async move { second.send(request).await });
        gateway.until_held(1).await;
        gateway.send(post("/v1/stream/s").json("3")).await.expect(204);
        assert_eq!(held.await.unwrap().expect(200).text(), "[3]");
        gateway.send(delete("/v1/stream/s")).await.expect(204);
    }
}
