//! A gateway that is killed or drained: the client waits for it, and continues at its position.

use std::net::SocketAddr;

use futures_util::future::join_all;
use pollgate_client::{Client, Event, Form, Item, Reason, Settings, Start};
use tempfile::TempDir;
use tokio::time::{Duration, sleep};

use crate::reading::{client, expect, next, only, patient, publish, settings};
use crate::relay::{Relay, Rule};
use crate::world::{Gateway, PATIENCE, get, put, reserved_port, until};

fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

async fn gateway(directory: &TempDir) -> Gateway {
    Gateway::start(&["--store", directory.path().to_str().unwrap(), "--sync", "never"]).await
}

/// Creates the stream `s` and idle ones, so that updates change only a part of the resume token.
async fn create(gateway: &Gateway) -> Vec<String> {
    let streams: Vec<_> =
        std::iter::once("s".to_owned()).chain((0..20).map(|n| format!("idle/{n}"))).collect();
    for stream in &streams {
        gateway.send(put(format!("/v1/stream/{stream}")).json("[]")).await.expect(201);
    }
    streams
}

/// Publishes 1000 numbers one after the other, over some time.
async fn slowly(client: &Client, stream: &str) {
    let producer = client.producer(stream, "application/json");
    for number in (0..1000).step_by(4) {
        publish(&producer, number..number + 4).await;
        sleep(Duration::from_millis(8)).await;
    }
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_when_the_gateway_is_killed_and_started_again() {
    join_all(Form::ALL.map(async |form| {
        let directory = directory();
        let mut running = gateway(&directory).await;
        let relay = Relay::start(running.address, Rule::Open).await;
        let (client, told) = client(relay.address, only(form));
        let mut subscription = client.subscribe(create(&running).await, Start::earliest());
        let restarts = async {
            for _ in 0..3 {
                sleep(Duration::from_millis(150)).await;
                running.kill().await;
                running = gateway(&directory).await;
                relay.lead_to(running.address);
            }
            running
        };
        let (_running, (), ()) =
            tokio::join!(restarts, slowly(&client, "s"), expect(&mut subscription, 0..1000));
        assert_eq!(told.changes().len(), 1, "{form}: {:?}", told.all());
    }))
    .await;
}

#[tokio::test]
async fn a_drain_is_no_failure_of_a_form() {
    join_all(Form::ALL.map(async |form| {
        let directory = directory();
        let mut running = gateway(&directory).await;
        // It, and all that it could fall back to.
        let forms = Form::ALL.into_iter().skip_while(|other| *other != form).collect();
        let relay = Relay::start(running.address, Rule::Open).await;
        let (client, told) = client(relay.address, Settings { forms, ..settings() });
        let mut subscription = client.subscribe(create(&running).await, Start::earliest());
        let restart = async {
            // Until the form has shown that it works.
            sleep(settings().stable_after + settings().heartbeat_min / 2).await;
            running.signal("TERM");
            running.ended(PATIENCE).await;
            running = gateway(&directory).await;
            relay.lead_to(running.address);
            running
        };
        let (_running, (), ()) =
            tokio::join!(restart, slowly(&client, "s"), expect(&mut subscription, 0..1000));
        assert_eq!(told.changes().len(), 1, "{form}: {:?}", told.all());
    }))
    .await;
}

#[tokio::test]
async fn a_gateway_that_is_not_there_yet_is_waited_for() {
    let gateway = Gateway::start(&[]).await;
    let address = SocketAddr::from(([127, 0, 0, 1], reserved_port()));
    let (client, told) = client(address, patient());
    let mut subscription = client.subscribe(["s"], Start::earliest());
    until("three tries", async || {
        told.all().iter().filter(|event| matches!(event, Event::Restart { .. })).count() >= 3
    })
    .await;
    gateway.send(put("/v1/stream/s").json("[0]")).await.expect(201);
    let _relay = Relay::start_at(address, gateway.address, Rule::Open).await;
    expect(&mut subscription, 0..1).await;
    assert_eq!(told.changes(), [(Form::WebSocket, Reason::Start)]);
}

#[tokio::test]
async fn the_last_messages_reach_over_a_restart_each_with_an_offset_to_read_on_from() {
    let directory = directory();
    let mut running = gateway(&directory).await;
    for numbers in [0..3, 3..5] {
        let (client, _) = client(running.address, settings());
        publish(&client.producer("s", "application/json"), numbers).await;
        running.kill().await;
        running = gateway(&directory).await;
    }
    let (client, _) = client(running.address, only(Form::Ndjson));
    let mut subscription = client.subscribe(["s"], Start::history(4));
    for number in 1..5 {
        let Item::Message(message) = next(&mut subscription).await else { panic!("no message {number}") };
        assert_eq!(message.data.bytes(), number.to_string().as_bytes());
        let offset = message.offset.unwrap();
        let rest = running.send(get(format!("/v1/stream/s?offset={offset}"))).await.expect(200).json();
        assert_eq!(rest, (number + 1..5).collect::<serde_json::Value>(), "behind {offset}");
    }
}
