//! Connections on which no complete request arrives.

use std::time::Duration;

use super::{FIRST_BYTE, HEAD, Healthy, IDLE, PAUSE, TEXT, around, short_of_patience};
use crate::world::{Gateway, PATIENCE, Stopwatch};

#[tokio::test]
async fn a_new_connection_without_a_first_byte_is_closed() {
    let gateway = short_of_patience().await;
    let healthy = Healthy::start(&gateway).await;
    let closed = gateway.connect_raw().await.closed().await;
    assert!(closed.is_within(&around(FIRST_BYTE)), "{closed:?}");
    healthy.was_served().await;
}

#[tokio::test]
async fn a_head_that_drips_is_closed_however_often_a_byte_comes() {
    let gateway = short_of_patience().await;
    let healthy = Healthy::start(&gateway).await;
    let endless = format!("GET {TEXT} HTTP/1.1\r\nhost: localhost\r\nx: {}", "y".repeat(5000));
    let closed = gateway.connect_raw().await.drip(endless.bytes(), PAUSE).await;
    assert!(closed.is_within(&around(HEAD)), "{closed:?}");
    // The same limit applies to the second head of a connection.
    let mut raw = gateway.connect_raw().await;
    raw.send(format!("GET {TEXT} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await.unwrap();
    raw.answer().await.unwrap().unwrap().expect(200);
    let closed = raw.drip(endless.bytes(), PAUSE).await;
    assert!(closed.is_within(&around(HEAD)), "{closed:?}");
    healthy.was_served().await;
}

#[tokio::test]
async fn the_time_limit_of_a_head_applies_to_later_requests_too() {
    let gateway = short_of_patience().await;
    let short = format!("GET {TEXT} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let held = format!("GET {TEXT}?offset=now&live=long-poll&timeout=1 HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let through_hyper = format!("OPTIONS {TEXT} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let endless = format!("GET {TEXT} HTTP/1.1\r\nhost: localhost\r\nx: {}", "y".repeat(5000));
    let begun = &endless[..60];
    for (first, status) in [(&short, 200), (&held, 204), (&through_hyper, 204)] {
        for drips in [false, true] {
            let mut raw = gateway.connect_raw().await;
            raw.send(format!("{first}{begun}")).await.unwrap();
            raw.answer().await.unwrap().unwrap().expect(status);
            let closed = match drips {
                true => raw.drip(endless[60..].bytes(), PAUSE).await,
                false => raw.closed().await,
            };
            assert!(closed.is_within(&around(HEAD)), "{first}, drips: {drips}: {closed:?}");
        }
    }
}

#[tokio::test]
async fn a_preface_of_http2_that_drips_is_closed() {
    let gateway = short_of_patience().await;
    let closed = gateway.connect_raw().await.drip(*b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", PAUSE).await;
    assert!(closed.is_within(&around(FIRST_BYTE)), "{closed:?}");
    let mut mute = gateway.connect_raw().await;
    mute.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let closed = mute.closed().await;
    assert!(closed.is_within(&around(IDLE)), "{closed:?}");
}

#[tokio::test]
async fn an_idle_keep_alive_connection_is_closed() {
    let gateway = short_of_patience().await;
    let healthy = Healthy::start(&gateway).await;
    let mut raw = gateway.connect_raw().await;
    raw.send(format!("GET {TEXT} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await.unwrap();
    raw.answer().await.unwrap().unwrap().expect(200);
    let closed = raw.closed().await;
    assert!(closed.is_within(&around(IDLE)), "{closed:?}");
    healthy.was_served().await;
}

#[tokio::test]
async fn an_idle_client_that_ignores_the_drain_does_not_delay_it() {
    let mut gateway = Gateway::start(&["--limit", "drain_spread=100ms"]).await;
    let mut raw = gateway.connect_raw().await;
    raw.send("GET /v1/stream/none HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    raw.answer().await.unwrap().unwrap().expect(404);
    gateway.signal("TERM");
    let since = Stopwatch::start();
    assert!(gateway.ended(PATIENCE).await.success());
    assert!(
        since.took().is_below(Duration::from_secs(4)),
        "the end comes {:?} after the signal",
        since.took()
    );
    assert!(raw.answer().await.unwrap().is_none(), "the end, not a reset");
}
