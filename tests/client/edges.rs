//! A hostile network between an edge and its parent: clients of the edge get each message once and in order.

use std::time::Duration;

use futures_util::future::join_all;
use pollgate_client::Start;
use tokio::time::sleep;

use crate::reading::{client, expect, publish, settings};
use crate::relay::{Relay, Rule};
use crate::world::{Gateway, get, put, until};

const MESSAGES: u64 = 200;

/// Publishes numbers through the edge over some time, and reads them there.
async fn pass_through(edge: &Gateway, rule: Rule) {
    let (client, _) = client(edge.address, settings());
    let producer = client.producer("s", "application/json");
    publish(&producer, 0..1).await;
    let mut subscription = client.subscribe(["s"], Start::earliest());
    let publishing = async {
        for number in (1..MESSAGES).step_by(10) {
            publish(&producer, number..(number + 10).min(MESSAGES)).await;
            sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::join!(publishing, expect(&mut subscription, 0..MESSAGES));
    let all = edge.send(get("/v1/stream/s?offset=-1")).await;
    assert!(
        all.status == 503 || all.json() == (0..MESSAGES).collect::<serde_json::Value>(),
        "{rule:?}: {all:?}"
    );
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_behind_networks_that_break_forms_and_lose_answers() {
    let rules = [Rule::RefuseUpgrades, Rule::CutUpgraded, Rule::SwallowLive, Rule::LoseAnswers(5)];
    join_all(rules.map(async |rule| {
        let parent = Gateway::start(&[]).await;
        let relay = Relay::start(parent.address, rule).await;
        let edge = Gateway::start(&["--upstream", &format!("http://{}", relay.address)]).await;
        let cut = async {
            loop {
                sleep(Duration::from_millis(100)).await;
                relay.cut_upgraded();
            }
        };
        tokio::select! {
            () = pass_through(&edge, rule) => {}
            () = cut => {}
        }
        let at_parent = parent.send(get("/v1/stream/s?offset=-1")).await.expect(200);
        assert_eq!(at_parent.json(), (0..MESSAGES).collect::<serde_json::Value>(), "{rule:?}");
    }))
    .await;
}

#[tokio::test]
async fn a_portal_that_answers_in_place_of_the_parent_is_not_taken_for_it() {
    let parent = Gateway::start(&[]).await;
    parent.send(put("/v1/stream/s").json("[1]")).await.expect(201);
    let relay = Relay::start(parent.address, Rule::Captive).await;
    let edge = Gateway::start(&["--upstream", &format!("http://{}", relay.address)]).await;
    assert_eq!(edge.send(get("/v1/stream/s")).await.expect(503).problem(), "store-unreachable");
    relay.set(Rule::Open);
    until("the parent is reached", async || edge.send(get("/v1/stream/s")).await.status == 200).await;
}
