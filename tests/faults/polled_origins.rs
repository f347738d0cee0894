//! A stream with an origin on a gateway that is killed again and again: each change of the origin is appended once.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::sleep;

use crate::world::{Gateway, Origin, get, put, until};

const FEED: &str = "/v1/stream/feed";

const KILLS: u64 = 20;

/// Elements of the origin; with each run another one changes.
const ELEMENTS: u64 = 50;

async fn gateway(store: &str) -> Gateway {
    Gateway::start(&["--poll-origins", "--outbound-allow", "127.0.0.1", "--store", store]).await
}

fn elements(run: u64) -> String {
    let version = |id: u64| (run + ELEMENTS - id) / ELEMENTS;
    let elements = (0..ELEMENTS).map(|id| format!("{{\"id\":{id},\"version\":{}}}", version(id)));
    format!("[{}]", elements.collect::<Vec<_>>().join(","))
}

#[tokio::test]
async fn kills_neither_lose_nor_repeat_what_an_origin_has() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().to_str().unwrap();
    let origin = Origin::start(elements(0)).await;
    let first = gateway(store).await;
    let creation = put(FEED)
        .header("content-type", "application/json")
        .header("stream-origin", origin.url())
        .header("stream-origin-interval", 1)
        .header("stream-origin-poll", "always")
        .header("stream-origin-key", "id");
    first.send(creation).await.expect(201);
    first.kill().await;
    for run in 1..=KILLS {
        origin.has(elements(run));
        let running = gateway(store).await;
        // Before, during or after the first poll of the run.
        sleep(Duration::from_millis(fastrand::u64(0..60))).await;
        running.kill().await;
    }
    let last = gateway(store).await;
    let expected: HashSet<String> = elements(KILLS).trim_matches(['[', ']']).split("},").map(id_of).collect();
    let found = async || -> Vec<String> {
        let all = last.send(get(FEED)).await.expect(200).json();
        all.as_array().unwrap().iter().map(ToString::to_string).collect()
    };
    until("the last change", async || {
        let known: HashSet<String> = found().await.iter().map(|element| id_of(element)).collect();
        expected.is_subset(&known)
    })
    .await;
    // A later poll appends nothing more.
    origin.until_asked(2).await;
    let found = found().await;
    let distinct: HashSet<_> = found.iter().collect();
    assert_eq!(distinct.len(), found.len(), "an element was appended twice: {found:?}");
}

fn id_of(element: &str) -> String {
    element.trim_end_matches('}').to_owned()
}
