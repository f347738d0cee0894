//! Gaps after retention or a recreated stream: a reader is always told, and never skips messages silently.

use crate::world::{Gateway, delete, get, head, post, put};

#[tokio::test]
async fn a_gap_after_trimming_has_the_number_missed_and_the_offset_to_continue_from() {
    let gateway = Gateway::start(&[]).await;
    let start = gateway
        .send(put("/v1/stream/s").json("").header("stream-max-messages", 3))
        .await
        .expect(201)
        .next_offset();
    gateway.send(post("/v1/stream/s").json("[1,2]")).await.expect(204);
    gateway.send(post("/v1/stream/s").json("[3,4,5]")).await.expect(204);

    for live in ["", "&live=long-poll", "&live=sse"] {
        let gap = gateway.send(get(format!("/v1/stream/s?offset={start}{live}"))).await.expect(410);
        assert_eq!((gap.problem().as_str(), gap.header("stream-gap")), ("gap", "reason=trimmed; missed=2"));
        assert_eq!(gap.header("cache-control"), "no-store");
        let earliest = gap.header("stream-earliest-offset").to_owned();
        let rest = gateway.send(get(format!("/v1/stream/s?offset={earliest}"))).await.expect(200);
        assert_eq!(rest.text(), "[3,4,5]");
        assert_eq!(gateway.send(head("/v1/stream/s")).await.header("stream-earliest-offset"), earliest);
    }
    assert_eq!(gateway.send(get("/v1/stream/s?offset=-1")).await.expect(200).text(), "[3,4,5]");
}

#[tokio::test]
async fn retention_by_bytes_and_by_age_trims() {
    let gateway = Gateway::start(&[]).await;
    gateway.send(put("/v1/stream/b").text("").header("stream-max-bytes", 8)).await.expect(201);
    gateway.send(put("/v1/stream/a").text("").header("stream-max-age", 1)).await.expect(201);
    for text in ["aaaa", "bbbb", "cccc"] {
        gateway.send(post("/v1/stream/b").text(text)).await.expect(204);
        gateway.send(post("/v1/stream/a").text(text)).await.expect(204);
    }
    assert_eq!(gateway.send(get("/v1/stream/b")).await.expect(200).text(), "bbbbcccc");
    crate::world::until("the age bound empties the stream", async || {
        gateway.send(get("/v1/stream/a")).await.expect(200).text().is_empty()
    })
    .await;
    let described = gateway.send(head("/v1/stream/b")).await.expect(200);
    assert_eq!((described.header("stream-max-bytes"), described.header("stream-max-age")), ("8", ""));
}

#[tokio::test]
async fn a_recreated_stream_is_detected_in_every_form() {
    let gateway = Gateway::start(&[]).await;
    gateway.send(put("/v1/stream/s").json("[1,2]")).await.expect(201);
    let old = gateway.send(get("/v1/stream/s")).await.next_offset();
    gateway.send(delete("/v1/stream/s")).await.expect(204);
    gateway.send(put("/v1/stream/s").json("[3,4,5,6]")).await.expect(201);
    for live in ["", "&live=long-poll", "&live=sse"] {
        let gap = gateway.send(get(format!("/v1/stream/s?offset={old}{live}"))).await.expect(410);
        assert_eq!((gap.problem().as_str(), gap.header("stream-gap")), ("gap", "reason=epoch"));
        let earliest = gap.header("stream-earliest-offset");
        assert_eq!(gateway.send(get(format!("/v1/stream/s?offset={earliest}"))).await.text(), "[3,4,5,6]");
    }
}

#[tokio::test]
async fn a_restart_of_a_store_in_memory_begins_a_new_epoch() {
    let gateway = Gateway::start(&[]).await;
    gateway.send(put("/v1/stream/s").json("[1]")).await.expect(201);
    let old = gateway.send(get("/v1/stream/s")).await.next_offset();
    drop(gateway);
    let gateway = Gateway::start(&[]).await;
    gateway.send(get(format!("/v1/stream/s?offset={old}"))).await.expect(404);
    gateway.send(put("/v1/stream/s").json("[1,2]")).await.expect(201);
    let gap = gateway.send(get(format!("/v1/stream/s?offset={old}"))).await.expect(410);
    assert_eq!(gap.header("stream-gap"), "reason=epoch");
}

#[tokio::test]
async fn a_reader_whose_position_is_trimmed_is_told_so() {
    // 1. The event stream sends small batches, and is not read until the log has been trimmed.
    //    On a busy machine the appends take longer than a reader may read nothing by default.
    let limits = ["--limit", "socket_send_bytes=8192", "--limit", "write_timeout=10m"];
    let gateway = Gateway::start(&limits).await;
    gateway.send(put("/v1/stream/s").text("").header("stream-max-messages", 8)).await.expect(201);
    let mut events = gateway.connect().await.events("/v1/stream/s?live=sse&offset=-1").await;
    events.control().await;
    // 2. Much more data is appended than the socket buffers hold.
    for _ in 0..1000 {
        gateway.send(post("/v1/stream/s").text("x".repeat(32 * 1024))).await.expect(204);
    }
    // 3. The reader gets the data in flight, then the gap with the offset to continue from, then the end. When it was
    //    told depends on the sockets; that what it got and what it missed make up all before that offset does not.
    let mut received = 0;
    let gap = loop {
        let event = events.next().await.expect("a gap before the end");
        match event.name.as_str() {
            "data" => received += event.data.len(),
            _ if event.data.contains("gap") => {
                break serde_json::from_str::<serde_json::Value>(&event.data).unwrap();
            }
            _ => {}
        }
    };
    let missed = gap["gap"].as_str().unwrap().strip_prefix("reason=trimmed; missed=").unwrap();
    let missed: usize = missed.parse().unwrap();
    let (_, position) = gap["streamNextOffset"].as_str().unwrap().split_once('_').unwrap();
    assert_eq!(received + missed, usize::from_str_radix(position, 16).unwrap());
    assert!(missed > 0);
    assert_eq!(events.next().await, None);
}
