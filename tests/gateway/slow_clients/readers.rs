//! Clients that read their responses slowly, stop reading, or disconnect.

use std::time::Duration;

use tokio::time::{Instant, interval};

use super::{FIRST_BYTE, Healthy, TEXT, WRITE, around, short_of_patience};
use crate::world::{Gateway, Raw, Stopwatch, get, post, put, until};

const LARGE: &str = "/v1/stream/large";

async fn with_large_messages() -> Gateway {
    let gateway = short_of_patience().await;
    gateway.send(put(LARGE).header("content-type", "text/plain")).await.expect(201);
    for _ in 0..4 {
        gateway.send(post(LARGE).text(vec![b'x'; 1024 * 1024])).await.expect(204);
    }
    gateway
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_closed_and_costs_no_one_else_anything() {
    let gateway = with_large_messages().await;
    let healthy = Healthy::start(&gateway).await;
    until("the healthy client alone", async || gateway.metric("pollgate_connections").await == 2.0).await;
    for query in ["?offset=-1", "?offset=-1&live=long-poll", "?offset=-1&live=sse"] {
        let mut reader = Raw::open_narrow(gateway.address).await;
        let since = Stopwatch::start();
        reader.send(format!("GET {LARGE}{query} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await.unwrap();
        until("the reader is there", async || gateway.metric("pollgate_connections").await == 3.0).await;
        until("the reader is gone", async || gateway.metric("pollgate_connections").await == 2.0).await;
        let took = since.took();
        assert!(took.is_within(&around(WRITE)), "{query}: {took:?}");
    }
    healthy.was_served().await;
}

#[tokio::test]
async fn a_reader_that_reads_slowly_but_steadily_is_served() {
    let gateway = with_large_messages().await;
    for query in ["?offset=-1", "?offset=-1&live=sse"] {
        let mut reader = Raw::open_narrow(gateway.address).await;
        reader.send(format!("GET {LARGE}{query} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await.unwrap();
        let mut ticks = interval(Duration::from_millis(50));
        let until = Instant::now() + 3 * WRITE;
        while Instant::now() < until {
            ticks.tick().await;
            reader.take(1024).await;
        }
        let here = gateway.metric("pollgate_connections").await;
        assert_eq!(here, 2.0, "{query}: the reader and the admin's own");
    }
}

#[tokio::test]
async fn a_client_that_closed_its_half_is_gone_within_a_second_whatever_it_waited_for() {
    let gateway = short_of_patience().await;
    let healthy = Healthy::start(&gateway).await;
    for target in [format!("{TEXT}?offset=now&live=long-poll"), format!("{TEXT}?offset=now&live=sse")] {
        let mut raw = gateway.connect_raw().await;
        raw.send(format!("GET {target} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await.unwrap();
        gateway.until_waiting(1).await;
        raw.finish().await;
        let closed = raw.closed().await;
        assert!(closed.is_below(Duration::from_secs(1)), "{target}: {closed:?}");
        gateway.until_waiting(0).await;
    }
    for begun in [
        "",
        "GET /v1/str",
        "POST /v1/stream/text HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\nhalf",
    ] {
        let mut raw = gateway.connect_raw().await;
        raw.send(begun).await.unwrap();
        raw.finish().await;
        let closed = raw.closed().await;
        assert!(closed.is_below(FIRST_BYTE), "{begun:?}: {closed:?}");
    }
    assert_eq!(gateway.send(get(TEXT)).await.expect(200).text(), "first");
    healthy.was_served().await;
}
