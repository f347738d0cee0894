//! Header fields and tokens: carried by each request, replaced while the client runs, and refused.

use pollgate_client::{Form, Item, PublishError, Reason, Start, Token};

use crate::reading::{builder, client, expect, next, only, publish, settings, settle};
use crate::relay::{Relay, Rule, bearer};
use crate::world::Gateway;

#[tokio::test]
async fn every_request_carries_the_header_fields_and_the_token() {
    let gateway = Gateway::start(&[]).await;
    for form in Form::ALL {
        let relay = Relay::start(gateway.address, Rule::Open).await;
        let (builder, _) = builder(&format!("http://{}", relay.address), only(form));
        let builder = builder.header("X-Tenant", "blue-whale").token(Token::new("sesame").unwrap());
        let client = builder.build().unwrap();
        let shown = format!("{client:?}");
        assert!(!shown.contains("blue-whale") && !shown.contains("sesame"), "{shown}");
        let producer = client.producer(form.name(), "application/json");
        publish(&producer, 0..3).await;
        expect(&mut client.subscribe([form.name()], Start::earliest()), 0..3).await;
        let heads = relay.heads();
        assert!(heads.len() >= 2);
        for head in heads {
            assert!(head.contains("\r\nx-tenant: blue-whale\r\n"), "{form}: {head}");
            assert!(head.contains(&bearer("sesame")), "{form}: {head}");
        }
    }
}

#[tokio::test]
async fn a_token_that_is_replaced_is_sent_from_then_on() {
    let gateway = Gateway::start(&[]).await;
    for form in Form::ALL {
        let relay = Relay::start(gateway.address, Rule::NeedToken("old")).await;
        let token = Token::new("old").unwrap();
        let (builder, _) = builder(&format!("http://{}", relay.address), only(form));
        let client = builder.token(token.clone()).build().unwrap();
        let producer = client.producer(form.name(), "application/json");
        publish(&producer, 0..1).await;
        let mut subscription = client.subscribe([form.name()], Start::earliest());
        expect(&mut subscription, 0..1).await;
        token.replace("new").unwrap();
        // A poll that is under way has the old one.
        relay.set(Rule::Open);
        publish(&producer, 1..2).await;
        expect(&mut subscription, 1..2).await;
        relay.set(Rule::NeedToken("new"));
        publish(&producer, 2..3).await;
        expect(&mut subscription, 2..3).await;
        assert!(relay.heads().last().unwrap().contains(&bearer("new")), "{form}");
    }
}

#[tokio::test]
async fn credentials_that_are_not_accepted_end_a_subscription_and_a_publish() {
    let gateway = Gateway::start(&[]).await;
    let (direct, _) = client(gateway.address, settings());
    publish(&direct.producer("s", "application/json"), 0..2).await;
    let mut every = Form::ALL.map(only).to_vec();
    every.push(settings());
    for settings in every {
        let forms = settings.forms.clone();
        let relay = Relay::start(gateway.address, Rule::NeedToken("right")).await;
        let token = Token::new("right").unwrap();
        let (builder, _) = builder(&format!("http://{}", relay.address), settings);
        let client = builder.token(token.clone()).build().unwrap();
        let mut subscription = client.subscribe(["s"], Start::earliest());
        expect(&mut subscription, 0..2).await;
        let read = settle(&mut subscription).await;
        drop(subscription);

        token.replace("wrong").unwrap();
        let mut subscription = client.subscribe(["s"], Start::after(read));
        let Item::Refused(refusal) = next(&mut subscription).await else { panic!("{forms:?}") };
        assert_eq!((refusal.status, &*refusal.kind), (401, "unauthorized"), "{forms:?}");
        assert!(subscription.next().await.is_none());
        let refused = client.producer("s", "application/json").publish("2").await;
        assert!(
            matches!(&refused, Err(PublishError::Refused(refusal)) if refusal.status == 401),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn a_form_that_is_forbidden_on_the_path_is_left_for_another_one() {
    let gateway = Gateway::start(&[]).await;
    let relay = Relay::start(gateway.address, Rule::ForbidUpgrades).await;
    let (client, told) = client(relay.address, settings());
    publish(&client.producer("s", "application/json"), 0..3).await;
    let mut subscription = client.subscribe(["s"], Start::earliest());
    expect(&mut subscription, 0..3).await;
    publish(&client.producer("s", "application/json"), 3..4).await;
    expect(&mut subscription, 3..4).await;
    let expected = [(Form::WebSocket, Reason::Start), (Form::Sse, Reason::Refused(403))];
    assert_eq!(told.changes(), expected, "{:?}", told.all());
}
