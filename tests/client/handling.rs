//! Applications that handle messages slowly, give up waiting, drop the subscription, and return with a resume token.

use std::time::Duration;

use futures_util::future::join_all;
use pollgate_client::{Form, Start};
use tokio::time::{sleep, timeout};

use crate::reading::{client, expect, number, only, publish, settings, settle};
use crate::world::{Gateway, PATIENCE, until};

#[tokio::test]
async fn a_slow_handler_is_waited_for_and_costs_nothing_but_time() {
    let limits = [
        "--limit",
        "write_timeout=1s",
        "--limit",
        "websocket_ping=1s",
        "--limit",
        "websocket_pong_timeout=1s",
    ];
    let gateway = Gateway::start(&limits).await;
    join_all(Form::ALL.map(async |form| {
        let (client, told) = client(gateway.address, only(form));
        let stream = form.name();
        // Larger than all buffers, so that the gateway has to wait.
        let text = "x".repeat(20_000);
        let producer = client.producer(stream, "application/json");
        let messages = (0..400).map(|number| producer.publish(format!(r#"[{number},"{text}"]"#)));
        for outcome in join_all(messages).await {
            outcome.unwrap();
        }
        let mut subscription = client.subscribe([stream], Start::earliest());
        for expected in 0..400 {
            if expected % 150 == 1 {
                sleep(Duration::from_millis(2500)).await;
            }
            let item = timeout(PATIENCE, subscription.next()).await.expect("in time");
            let Some(pollgate_client::Item::Message(message)) = item else { panic!("{item:?}") };
            let start = format!("[{expected},");
            assert!(message.data.bytes().starts_with(start.as_bytes()), "{form}: {expected}");
        }
        assert_eq!(told.changes().len(), 1, "{form}: {:?}", told.all());
    }))
    .await;
}

#[tokio::test]
async fn asking_and_leaving_off_loses_and_doubles_nothing() {
    let gateway = Gateway::start(&[]).await;
    let (client, _) = client(gateway.address, settings());
    let producer = client.producer("s", "application/json");
    publish(&producer, 0..1).await;
    let mut subscription = client.subscribe(["s"], Start::earliest());
    let publishing = async {
        for number in 1..500 {
            publish(&producer, number..number + 1).await;
        }
    };
    let mut cancelled = 0;
    let reading = async {
        let mut expected = 0;
        while expected < 500 {
            tokio::select! {
                biased;
                number = number(&mut subscription) => {
                    assert_eq!(number, expected);
                    expected += 1;
                }
                () = tokio::task::yield_now() => cancelled += 1,
            }
        }
    };
    tokio::join!(publishing, reading);
    assert!(cancelled > 100, "{cancelled}");
}

#[tokio::test]
async fn the_cursor_is_behind_what_was_dealt_with_and_another_subscription_goes_on_there() {
    let gateway = Gateway::start(&[]).await;
    for form in Form::ALL {
        let (client, _) = client(gateway.address, only(form));
        let producer = client.producer(form.name(), "application/json");
        publish(&producer, 0..10).await;
        let mut subscription = client.subscribe([form.name()], Start::earliest());
        assert_eq!(subscription.resume_token(), None);
        expect(&mut subscription, 0..5).await;
        assert_eq!(subscription.resume_token(), None, "what came with it was not dealt with");
        expect(&mut subscription, 5..10).await;
        let token = settle(&mut subscription).await.to_string();
        drop(subscription);
        publish(&producer, 10..20).await;
        let mut next = client.subscribe([form.name()], Start::after(token.parse().unwrap()));
        expect(&mut next, 10..20).await;
    }
}

#[tokio::test]
async fn a_dropped_subscription_leaves_nothing_at_the_gateway() {
    let gateway = Gateway::start(&[]).await;
    for form in [Form::WebSocket, Form::Sse, Form::Ndjson, Form::LongPoll] {
        let (client, _) = client(gateway.address, only(form));
        publish(&client.producer("s", "application/json"), 0..1).await;
        let mut subscription = client.subscribe(["s"], Start::earliest());
        number(&mut subscription).await;
        let following = async || gateway.metric("pollgate_subscriptions").await;
        until("it is followed", async || following().await == 1.0).await;
        drop(subscription);
        until("nothing is followed", async || following().await == 0.0).await;
    }
    until("no connection but the one that asks", async || {
        gateway.metric("pollgate_connections").await <= 1.0
    })
    .await;
}
