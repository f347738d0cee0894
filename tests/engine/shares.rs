//! What a client may store, and the number of streams, hold in sum for all gateways on one engine.

use std::cell::{Cell, RefCell};

use crate::server::Engine;
use crate::world::{Gateway, delete, get, post, put, until};

/// The clients of these tests have one address, and so one share.
async fn pair(engine: &Engine, limits: &[&str]) -> [Gateway; 2] {
    let arguments: Vec<&str> = limits.iter().flat_map(|limit| ["--limit", limit]).collect();
    [engine.gateway_with("one", &arguments).await, engine.gateway_with("other", &arguments).await]
}

async fn create(gateway: &Gateway, number: usize) -> u16 {
    gateway.send(put(format!("/v1/stream/s{number}")).json("")).await.status.as_u16()
}

/// Creates streams at both gateways in turn until one is refused. Returns how many there are, and why.
async fn until_refused(gateways: &[Gateway; 2], status: u16) -> (usize, String) {
    let (count, refused) = (Cell::new(0), RefCell::new(String::new()));
    // Not at once, as many more may be created until the next sweep.
    until("no more streams may be created", async || {
        let number = count.get();
        let answer = gateways[number % 2].send(put(format!("/v1/stream/s{number}")).json("")).await;
        if answer.status == 201 {
            count.set(number + 1);
            return false;
        }
        refused.replace(answer.expect(status).text());
        true
    })
    .await;
    (count.get(), refused.into_inner())
}

#[tokio::test]
async fn the_number_of_streams_is_limited_in_sum_and_so_are_those_of_one_client() {
    for (limits, status, word) in [
        (&["streams_max=20", "principal_share_percent=100"][..], 507, "streams-max"),
        (&["streams_max=2000", "principal_share_percent=1"][..], 429, "share-of-streams-used-up"),
    ] {
        let engine = Engine::volatile().await;
        let gateways = pair(&engine, limits).await;
        let (count, refused) = until_refused(&gateways, status).await;
        assert!(count >= 20 && refused.contains(word), "{count}: {refused}");
        until("both refuse", async || {
            create(&gateways[0], count).await == status && create(&gateways[1], count).await == status
        })
        .await;
        // What exists goes on.
        gateways[1].send(post("/v1/stream/s0").json("1")).await.expect(204);
        for number in 0..count {
            gateways[0].send(delete(format!("/v1/stream/s{number}"))).await.expect(204);
        }
        until("there is room", async || create(&gateways[1], 0).await == 201).await;
    }
}

#[tokio::test]
async fn the_bytes_in_the_streams_of_one_client_are_limited_in_sum() {
    let engine = Engine::start(&["--save", "", "--maxmemory", "200mb"]).await;
    let gateways = pair(&engine, &["principal_share_percent=1"]).await;
    for (gateway, number) in [(&gateways[0], 0), (&gateways[1], 1)] {
        assert_eq!(create(gateway, number).await, 201);
    }
    let body = format!("\"{}\"", "x".repeat(100_000));
    let append = async |gateway: &Gateway, number: usize| {
        gateway.send(post(format!("/v1/stream/s{number}")).json(&*body)).await
    };
    let mut sent = 0;
    let refused = loop {
        let answer = append(&gateways[sent % 2], sent % 2).await;
        if answer.status == 507 {
            break answer.text();
        }
        answer.expect(204);
        sent += 1;
    };
    assert!(sent >= 20 && refused.contains("share-used-up"), "{sent}: {refused}");
    // Reading goes on, and what is deleted makes room.
    gateways[1].send(get("/v1/stream/s0?offset=-1")).await.expect(200);
    for (number, gateway) in gateways.iter().enumerate() {
        gateway.send(delete(format!("/v1/stream/s{number}"))).await.expect(204);
    }
    assert_eq!(create(&gateways[1], 1).await, 201);
    let appended = async || append(&gateways[0], 1).await.status == 204;
    until("there is room", appended).await;
}
