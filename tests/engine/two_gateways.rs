//! Any gateway, any offset: what is appended at one is read at the other.

use futures_util::future::join_all;
use serde_json::json;

use crate::server::Engine;
use crate::world::mqtt::{Hello, Mqtt};
use crate::world::{delete, get, post, put};

#[tokio::test]
async fn a_held_poll_is_answered_by_an_append_at_the_other_gateway() {
    let engine = Engine::volatile().await;
    let (one, other) = (engine.gateway("one").await, engine.gateway("other").await);
    one.send(put("/v1/stream/s").json("")).await.expect(201);
    for number in 0..20 {
        let mut connection = one.connect().await;
        let poll = connection.send(get("/v1/stream/s?offset=now&live=long-poll&timeout=50"));
        let append = async {
            let is_held = async || one.metric("pollgate_held_polls").await > 0.0;
            crate::world::until("the poll is held", is_held).await;
            other.send(post("/v1/stream/s").json(json!({ "n": number }).to_string())).await.expect(204);
        };
        let (answer, ()) = tokio::join!(poll, append);
        assert_eq!(answer.expect(200).json(), json!([{ "n": number }]));
    }
}

#[tokio::test]
async fn an_offset_of_one_gateway_goes_on_at_the_other_and_nothing_is_missed() {
    let engine = Engine::volatile().await;
    let gateways = [engine.gateway("one").await, engine.gateway("other").await];
    gateways[0].send(put("/v1/stream/s").json("")).await.expect(201);
    let (mut offset, mut read) = ("-1".to_owned(), Vec::new());
    for number in 0..50 {
        gateways[number % 2].send(post("/v1/stream/s").json(number.to_string())).await.expect(204);
        let answer =
            gateways[(number + number / 2) % 2].send(get(format!("/v1/stream/s?offset={offset}"))).await;
        let answer = answer.expect(200);
        offset = answer.next_offset();
        read.extend(answer.json().as_array().unwrap().iter().map(|number| number.as_u64().unwrap()));
    }
    assert_eq!(read, (0..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn appends_that_share_a_call_get_their_own_offsets_and_are_announced_together() {
    const APPENDS: usize = 20;
    let engine = Engine::volatile().await;
    let gateway = engine.gateway("one").await;
    gateway.send(put("/v1/stream/s").json("")).await.expect(201);
    // Nobody would be told otherwise.
    let mut watcher = gateway.connect().await;
    let _live = watcher.begin(get("/v1/stream/s?offset=now&live=sse")).await.unwrap();
    engine.command("CONFIG RESETSTAT");
    // Further appends wait for the call of the first.
    engine.command("CLIENT PAUSE 300 ALL");
    let append = async |number: usize| {
        let mut connection = gateway.connect().await;
        connection.send(post("/v1/stream/s").json(number.to_string())).await.expect(204).next_offset()
    };
    let offsets = join_all((0..APPENDS).map(append)).await;
    let numbers = async |offset: &str| -> Vec<usize> {
        let answer = gateway.send(get(format!("/v1/stream/s?offset={offset}"))).await.expect(200);
        serde_json::from_value(answer.json()).unwrap()
    };
    let all = numbers("-1").await;
    for (number, offset) in offsets.iter().enumerate() {
        let index = all.iter().position(|other| *other == number).expect("it was appended");
        assert_eq!(numbers(offset).await, all[index + 1..], "behind {number}");
    }
    let announced = engine.calls("spublish");
    assert!((1..APPENDS).contains(&announced), "{announced}");
}

#[tokio::test]
async fn a_producers_retry_at_the_other_gateway_is_a_duplicate() {
    let engine = Engine::volatile().await;
    let (one, other) = (engine.gateway("one").await, engine.gateway("other").await);
    let append = |sequence: u64| {
        let append = post("/v1/stream/s?create=1").json("1");
        append.header("producer-id", "p").header("producer-epoch", 0).header("producer-seq", sequence)
    };
    one.send(append(0)).await.expect(200);
    // 204 says that it was appended already (protocol, section 5.2.1).
    other.send(append(0)).await.expect(204);
    other.send(append(1)).await.expect(200);
    assert_eq!(one.send(get("/v1/stream/s")).await.expect(200).json(), json!([1, 1]));
}

#[tokio::test]
async fn an_mqtt_subscriber_gets_each_message_of_both_gateways_once_and_in_order() {
    let engine = Engine::volatile().await;
    let gateways = [engine.gateway("one").await, engine.gateway("other").await];
    let mut subscriber = Mqtt::connect(gateways[0].mqtt, &Hello::new("reader")).await;
    assert_eq!(subscriber.subscribe("room/#", 1).await, 1);
    for number in 0..100 {
        let append = post("/v1/stream/room/a?create=1").text(number.to_string());
        gateways[number % 2].send(append).await.expect(204);
    }
    for number in 0..100 {
        let message = subscriber.take().await;
        assert_eq!(String::from_utf8_lossy(&message.payload), number.to_string());
    }
}

#[tokio::test]
async fn a_deletion_at_one_gateway_ends_a_held_poll_at_the_other() {
    let engine = Engine::volatile().await;
    let (one, other) = (engine.gateway("one").await, engine.gateway("other").await);
    one.send(put("/v1/stream/s").json("")).await.expect(201);
    let mut connection = one.connect().await;
    let poll = connection.send(get("/v1/stream/s?offset=now&live=long-poll&timeout=50"));
    let end = async {
        let is_held = async || one.metric("pollgate_held_polls").await > 0.0;
        crate::world::until("the poll is held", is_held).await;
        other.send(delete("/v1/stream/s")).await.expect(204);
    };
    let (answer, ()) = tokio::join!(poll, end);
    answer.expect(404);
}
