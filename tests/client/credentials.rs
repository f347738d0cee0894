//! Header fields and tokens: carried by each request, replaced while the client runs, and refused.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use pollgate_client::{Form, Item, PublishError, Reason, Start, Token};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::reading::{builder, client, expect, next, only, patient, publish, settings, settle};
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
    let (client, told) = client(relay.address, patient());
    publish(&client.producer("s", "application/json"), 0..3).await;
    let mut subscription = client.subscribe(["s"], Start::earliest());
    expect(&mut subscription, 0..3).await;
    publish(&client.producer("s", "application/json"), 3..4).await;
    expect(&mut subscription, 3..4).await;
    let expected = [(Form::WebSocket, Reason::Start), (Form::Sse, Reason::Refused(403))];
    assert_eq!(told.changes(), expected, "{:?}", told.all());
}

fn pollgate(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_pollgate")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A gateway that checks tokens, and its key.
async fn protected() -> (Gateway, TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key").to_str().unwrap().to_owned();
    pollgate(&["keygen", &key]);
    (Gateway::start(&["--auth", &key]).await, folder, key)
}

#[tokio::test]
async fn a_subscription_outlives_its_tokens_in_every_form_and_loses_nothing() {
    let (gateway, _folder, key) = protected().await;
    let url = format!("http://{}", gateway.address);
    join_all(Form::ALL.map(async |form| {
        let (fetched, key, url) = (Arc::new(AtomicUsize::new(0)), key.clone(), url.clone());
        let (count, signer) = (fetched.clone(), key.clone());
        let token = Token::fetched_by(move || {
            count.fetch_add(1, Ordering::Relaxed);
            let rights = ["--read", form.name(), "--expires", "2s"];
            let token = pollgate(&[&["token", "--key-file", &signer], &rights[..]].concat());
            async { Ok::<_, String>(token) }
        });
        let owner = ["--create", "#", "--append", "#"];
        let owner = pollgate(&[&["token", "--key-file", &key], &owner[..]].concat());
        let (publishing, _) = builder(&url, settings());
        let publisher = publishing.token(Token::new(&owner).unwrap()).build().unwrap();
        let producer = publisher.producer(form.name(), "application/json");
        publish(&producer, 0..1).await;
        let (builder, _) = builder(&url, only(form));
        let client = builder.token(token).build().unwrap();
        let begun = Instant::now();
        let mut subscription = client.subscribe([form.name()], Start::earliest());
        expect(&mut subscription, 0..1).await;
        for number in 1.. {
            publish(&producer, number..number + 1).await;
            expect(&mut subscription, number..number + 1).await;
            if fetched.load(Ordering::Relaxed) >= 3 {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
        // Nobody asks for tokens without end: each is in use for a second, half of its life.
        let most = 3 + begun.elapsed().as_secs();
        assert!(fetched.load(Ordering::Relaxed) as u64 <= most, "{form}");
    }))
    .await;
}

/// The next token goes over the open socket, so that nothing is interrupted.
#[tokio::test]
async fn a_websocket_outlives_its_tokens() {
    let (gateway, _folder, key) = protected().await;
    let relay = Relay::start(gateway.address, Rule::Open).await;
    let rights = ["--read", "s", "--create", "s", "--append", "s"];
    let sign = move |life: &str| {
        pollgate(&[&["token", "--key-file", &key], &rights[..], &["--expires", life][..]].concat())
    };
    let (publishing, _) = builder(&format!("http://{}", gateway.address), settings());
    let publisher = publishing.token(Token::new(&sign("1h")).unwrap()).build().unwrap();
    let producer = publisher.producer("s", "application/json");
    let fetched = Arc::new(AtomicUsize::new(0));
    let counted = fetched.clone();
    let token = Token::fetched_by(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        let token = sign("4s");
        async { Ok::<_, String>(token) }
    });
    let (builder, _) = builder(&format!("http://{}", relay.address), only(Form::WebSocket));
    publish(&producer, 0..1).await;
    let mut subscription = builder.token(token).build().unwrap().subscribe(["s"], Start::earliest());
    expect(&mut subscription, 0..1).await;
    // The fourth is fetched when the first one has expired.
    for number in 1.. {
        if fetched.load(Ordering::Relaxed) >= 4 {
            break;
        }
        publish(&producer, number..number + 1).await;
        expect(&mut subscription, number..number + 1).await;
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(relay.heads().len(), 1, "{:?}", relay.heads());
}

#[tokio::test]
async fn a_subscription_whose_tokens_are_refused_says_unauthorized() {
    let (gateway, _folder, key) = protected().await;
    let url = format!("http://{}", gateway.address);
    let rights = ["--read", "#", "--create", "#", "--append", "#"];
    let good = pollgate(&[&["token", "--key-file", &key], &rights[..]].concat());
    let (publishing, _) = builder(&url, settings());
    let publisher = publishing.token(Token::new(&good).unwrap()).build().unwrap();
    publish(&publisher.producer("s", "application/json"), 0..1).await;
    for form in Form::ALL {
        let (count, url) = (Arc::new(AtomicUsize::new(0)), url.clone());
        let fetched = count.clone();
        let (builder, _) = builder(&url, only(form));
        let token = Token::fetched_by(move || {
            let number = fetched.fetch_add(1, Ordering::Relaxed);
            async move { Ok::<_, String>(format!("wrong-{number}")) }
        });
        let mut subscription = builder.token(token).build().unwrap().subscribe(["s"], Start::earliest());
        let Item::Refused(refusal) = next(&mut subscription).await else { panic!("{form}") };
        assert_eq!((refusal.status, &*refusal.kind), (401, "unauthorized"), "{form}");
        assert!(subscription.next().await.is_none());
        assert_eq!(count.load(Ordering::Relaxed), 2, "{form}");
    }
}

#[tokio::test]
async fn a_stream_that_the_token_does_not_grant_is_told_once_and_the_others_are_read() {
    let (gateway, _folder, key) = protected().await;
    let url = format!("http://{}", gateway.address);
    let sign =
        |rights: &[&str]| Token::new(&pollgate(&[&["token", "--key-file", &key], rights].concat())).unwrap();
    let (publishing, _) = builder(&url, settings());
    let publisher = publishing.token(sign(&["--create", "#", "--append", "#"])).build().unwrap();
    for form in Form::ALL {
        let (builder, _) = builder(&url, only(form));
        let client = builder.token(sign(&["--read", form.name()])).build().unwrap();
        publish(&publisher.producer(form.name(), "application/json"), 0..1).await;
        let mut subscription = client.subscribe([form.name(), "hidden"], Start::earliest());
        expect(&mut subscription, 0..1).await;
        let Item::Forbidden { stream } = next(&mut subscription).await else { panic!("{form}") };
        assert_eq!(&*stream, "hidden");
        publish(&publisher.producer(form.name(), "application/json"), 1..9).await;
        expect(&mut subscription, 1..9).await;
    }
}
