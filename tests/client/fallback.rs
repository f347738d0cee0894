//! Networks that block some forms: the client finds one that works, and a better one later.

use std::time::Duration;

use futures_util::future::join_all;
use pollgate_client::{Form, Item, Reason, Settings, Start};

use crate::reading::{client, expect, next, only, patient, publish, settings};
use crate::relay::{Relay, Rule};
use crate::world::{Gateway, Stopwatch, on_time, until};

#[tokio::test]
async fn a_refused_upgrade_leads_to_events_and_back_once_the_network_heals() {
    let gateway = Gateway::start(&[]).await;
    let relay = Relay::start(gateway.address, Rule::RefuseUpgrades).await;
    let (client, told) = client(relay.address, patient());
    let producer = client.producer("s", "application/json");
    publish(&producer, 0..10).await;
    let mut subscription = client.subscribe(["s"], Start::earliest());
    expect(&mut subscription, 0..10).await;
    until("events", async || subscription.form() == Some(Form::Sse)).await;
    relay.set(Rule::Open);
    until("a WebSocket", async || told.changes().last().unwrap().1 == Reason::Better).await;
    publish(&producer, 10..20).await;
    expect(&mut subscription, 10..20).await;
    let changes = [
        (Form::WebSocket, Reason::Start),
        (Form::Sse, Reason::Refused(400)),
        (Form::WebSocket, Reason::Better),
    ];
    assert_eq!(told.changes(), changes);
}

#[tokio::test]
async fn a_websocket_that_is_killed_is_given_up_within_three_tries_and_found_again() {
    on_time(async || {
        let gateway = Gateway::start(&[]).await;
        let relay = Relay::start(gateway.address, Rule::CutUpgraded).await;
        // The cut is earlier than this on any machine.
        let settings = Settings { stable_after: Duration::from_secs(3), ..patient() };
        let (client, told) = client(relay.address, settings.clone());
        let producer = client.producer("s", "application/json");
        publish(&producer, 0..50).await;
        let mut subscription = client.subscribe(["s"], Start::earliest());
        for tries in 1..=3 {
            // Each WebSocket delivers something before it is cut, and messages are published meanwhile.
            let end = tries * 50;
            expect(&mut subscription, end - 50..end).await;
            assert_eq!(relay.upgrades() as u64, tries);
            relay.cut_upgraded();
            publish(&producer, end..end + 50).await;
        }
        expect(&mut subscription, 150..200).await;
        until("events", async || subscription.form() == Some(Form::Sse)).await;
        assert_eq!(told.changes(), [(Form::WebSocket, Reason::Start), (Form::Sse, Reason::Cut)]);
        assert_eq!(relay.upgrades(), 3);
        relay.set(Rule::Open);
        let healed = Stopwatch::start();
        until("a WebSocket", async || subscription.form() == Some(Form::WebSocket)).await;
        let took = healed.took();
        let most = (settings.stable_after + settings.reprobe_after).mul_f64(1.2);
        assert!(took.is_below(most), "{took:?}");
        publish(&producer, 200..300).await;
        expect(&mut subscription, 200..300).await;
        assert_eq!(relay.upgrades(), 4);
    })
    .await;
}

#[tokio::test]
async fn where_no_live_form_gets_through_the_first_message_comes_by_a_poll_at_once() {
    let gateway = Gateway::start(&[]).await;
    let relay = Relay::start(gateway.address, Rule::SwallowLive).await;
    let (client, told) = client(relay.address, settings());
    let producer = client.producer("s", "application/json");
    publish(&producer, 0..500).await;
    let began = Stopwatch::start();
    let mut subscription = client.subscribe(["s"], Start::earliest());
    expect(&mut subscription, 0..1).await;
    let took = began.took();
    assert!(took.is_below(settings().envelope_timeout * 2), "{took:?}");
    let publishing = async {
        for number in (500..1000).step_by(50) {
            publish(&producer, number..number + 50).await;
        }
    };
    tokio::join!(publishing, expect(&mut subscription, 1..1000));
    until("long polls", async || subscription.form() == Some(Form::LongPoll)).await;
    let changes = told.changes();
    let forms: Vec<_> = changes.iter().map(|(form, _)| *form).take(4).collect();
    assert_eq!(forms, [Form::WebSocket, Form::Sse, Form::Ndjson, Form::LongPoll], "{changes:?}");
}

#[tokio::test]
async fn a_captive_portal_is_waited_for_and_judges_no_form() {
    let gateway = Gateway::start(&[]).await;
    let relay = Relay::start(gateway.address, Rule::Captive).await;
    let (client, told) = client(relay.address, patient());
    let mut subscription = client.subscribe(["s"], Start::earliest());
    until("three pages", async || told.all().len() > 3).await;
    relay.set(Rule::Open);
    publish(&client.producer("s", "application/json"), 0..10).await;
    loop {
        match next(&mut subscription).await {
            Item::Missing { .. } => {}
            Item::Message(message) => break assert_eq!(message.data.bytes(), b"0"),
            other => panic!("{other:?}"),
        }
    }
    expect(&mut subscription, 1..10).await;
    assert_eq!(told.changes(), [(Form::WebSocket, Reason::Start)]);
}

#[tokio::test]
async fn another_network_is_begun_anew_at_once() {
    let gateway = Gateway::start(&[]).await;
    let relay = Relay::start(gateway.address, Rule::RefuseUpgrades).await;
    let (client, told) = client(relay.address, patient());
    let producer = client.producer("s", "application/json");
    publish(&producer, 0..10).await;
    let mut subscription = client.subscribe(["s"], Start::earliest());
    expect(&mut subscription, 0..10).await;
    until("events", async || subscription.form() == Some(Form::Sse)).await;
    relay.set(Rule::Open);
    client.network_changed("elsewhere");
    until("a WebSocket", async || subscription.form() == Some(Form::WebSocket)).await;
    assert_eq!(told.changes().last(), Some(&(Form::WebSocket, Reason::NetworkChanged)));
    publish(&producer, 10..20).await;
    expect(&mut subscription, 10..20).await;
}

#[tokio::test]
async fn connections_that_die_without_a_word_are_noticed_by_their_silence() {
    let gateway = Gateway::start(&[]).await;
    join_all(Form::ALL.map(async |form| {
        let relay = Relay::start(gateway.address, Rule::Open).await;
        let (client, told) = client(relay.address, only(form));
        let stream = form.name();
        let producer = client.producer(stream, "application/json");
        publish(&producer, 0..10).await;
        let mut subscription = client.subscribe([stream], Start::earliest());
        expect(&mut subscription, 0..10).await;
        // Two heartbeats, so that the form has shown that it works.
        tokio::time::sleep(settings().heartbeat_min.mul_f64(2.2)).await;
        relay.forget_connections();
        let since = Stopwatch::start();
        publish(&producer, 10..20).await;
        expect(&mut subscription, 10..20).await;
        let patience = (settings().heartbeat_min * 3 / 2).max(settings().hold) + settings().answer_timeout;
        let took = since.took();
        assert!(took.is_below(patience + Duration::from_secs(1)), "{form}: {took:?}");
        assert_eq!(told.changes(), [(form, Reason::Start)]);
    }))
    .await;
}
