//! Request bodies that arrive slowly: below the minimum rate, and just above it.

use std::time::Duration;

use tokio::time::interval;

use super::{BODY, Healthy, PAUSE, TEXT, around, short_of_patience};
use crate::world::get;

#[tokio::test]
async fn a_body_that_drips_is_answered_408_and_closed_and_nothing_is_stored() {
    let gateway = short_of_patience().await;
    let healthy = Healthy::start(&gateway).await;
    let one_byte_chunks = b"1\r\nx\r\n".repeat(1000);
    for (framing, body) in
        [("content-length: 1000", vec![b'x'; 1000]), ("transfer-encoding: chunked", one_byte_chunks)]
    {
        let mut raw = gateway.connect_raw().await;
        let head = format!(
            "POST {TEXT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\n{framing}\r\n\r\n"
        );
        raw.send(head).await.unwrap();
        let closed = raw.drip(body, PAUSE).await;
        assert!(closed.is_within(&around(BODY)), "{framing}: {closed:?}");
        assert_eq!(raw.answer().await.unwrap().unwrap().expect(408).problem(), "body-too-slow");
    }
    assert_eq!(gateway.send(get(TEXT)).await.expect(200).text(), "first");
    healthy.was_served().await;
}

#[tokio::test]
async fn a_body_that_arrives_slowly_but_steadily_is_accepted() {
    let gateway = short_of_patience().await;
    // 1.5 times `body_bytes_per_second_min`, for three times `body_timeout`.
    let (pieces, piece) = (30, vec![b'x'; 77]);
    let mut raw = gateway.connect_raw().await;
    let length = pieces * piece.len();
    let head = format!(
        "POST {TEXT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n"
    );
    raw.send(head).await.unwrap();
    let mut ticks = interval(Duration::from_millis(50));
    for _ in 0..pieces {
        ticks.tick().await;
        raw.send(&piece).await.unwrap();
    }
    raw.answer().await.unwrap().unwrap().expect(204);
    assert_eq!(gateway.send(get(TEXT)).await.expect(200).body.len(), "first".len() + length);
}
