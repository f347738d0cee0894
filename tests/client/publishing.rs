//! Publishing over networks that lose responses and repeat requests: each message is stored once.

use pollgate_client::{Form, ProducerSettings, PublishError, Start};

use crate::reading::{client, expect, only, publish, settings};
use crate::relay::{Relay, Rule};
use crate::world::{Gateway, get, post, put};

#[tokio::test]
async fn lost_answers_and_doubled_requests_lose_and_double_nothing() {
    let gateway = Gateway::start(&[]).await;
    let relay = Relay::start(gateway.address, Rule::LoseAnswers(3)).await;
    let (publisher, _) = client(relay.address, settings());
    let producer = publisher.producer("s", "application/json");
    for number in (0..1000).step_by(5) {
        publish(&producer, number..number + 5).await;
    }
    let (reader, _) = client(gateway.address, only(Form::ShortPoll));
    expect(&mut reader.subscribe(["s"], Start::earliest()), 0..1000).await;
    let stored: Vec<u64> = serde_json::from_str(&gateway.send(get("/v1/stream/s")).await.text()).unwrap();
    assert_eq!(stored, (0..1000).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_is_published_meanwhile_goes_out_together() {
    let gateway = Gateway::start(&[]).await;
    let (client, _) = client(gateway.address, settings());
    let producer = client.producer("s", "application/json");
    publish(&producer, 0..2000).await;
    let requests = gateway.metric("pollgate_requests_total{operation=\"append\",status=\"200\"}").await;
    assert!(requests <= 10.0, "{requests} requests");
    assert_eq!(gateway.send(get("/v1/stream/s")).await.json().as_array().unwrap().len(), 2000);
}

#[tokio::test]
async fn what_is_refused_is_told_to_those_whose_message_it_was() {
    let gateway = Gateway::start(&[]).await;
    let (client, _) = client(gateway.address, settings());
    let producer = client.producer("s", "application/json");
    let not_json = producer.publish("{").await;
    assert!(matches!(not_json, Err(PublishError::NotJson(_))), "{not_json:?}");
    // Valid, but nested deeper than the gateway accepts.
    let deep = "[".repeat(100) + &"]".repeat(100);
    let (before, refused, behind) =
        tokio::join!(producer.publish("[1]"), producer.publish(deep), producer.publish("null"));
    assert_eq!((before, behind), (Ok(()), Ok(())));
    let Err(PublishError::Refused(refusal)) = refused else { panic!("{refused:?}") };
    assert_eq!(refusal.kind, "json-depth");
    assert_eq!(gateway.send(get("/v1/stream/s")).await.text(), "[[1],null]");
    gateway.send(post("/v1/stream/s").header("Stream-Closed", "true")).await.expect(204);
    let closed = producer.publish("2").await;
    assert!(
        matches!(&closed, Err(PublishError::Refused(refusal)) if refusal.kind == "stream-closed"),
        "{closed:?}"
    );
}

#[tokio::test]
async fn a_later_start_of_a_producer_fences_the_earlier_one() {
    let gateway = Gateway::start(&[]).await;
    let (client, _) = client(gateway.address, settings());
    let named = |epoch| ProducerSettings {
        content_type: "text/plain".to_owned(),
        create: true,
        id: Some("sensor".to_owned()),
        epoch,
    };
    let (first, second) = (client.producer_with("s", named(0)), client.producer_with("s", named(1)));
    first.publish("a").await.unwrap();
    second.publish("b").await.unwrap();
    assert_eq!(first.publish("c").await, Err(PublishError::Fenced));
    assert_eq!(gateway.send(get("/v1/stream/s")).await.text(), "ab");
}

#[tokio::test]
async fn a_stream_that_was_made_anew_is_published_into_from_its_beginning() {
    let gateway = Gateway::start(&[]).await;
    let (client, _) = client(gateway.address, settings());
    let producer = client.producer("s", "application/json");
    publish(&producer, 0..3).await;
    gateway.send(crate::world::delete("/v1/stream/s")).await.expect(204);
    gateway.send(put("/v1/stream/s").json("[]")).await.expect(201);
    publish(&producer, 3..6).await;
    assert_eq!(gateway.send(get("/v1/stream/s")).await.text(), "[3,4,5]");
}
