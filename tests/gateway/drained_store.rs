//! A drain closes the store properly under each sync policy, so that the next start does not suspect lost appends.

use std::path::Path;
use std::time::Duration;

use crate::world::{Gateway, get, post};

/// Hang detector of a drain.
const DRAINED: Duration = Duration::from_secs(60);

/// The log line of a start after a run that did not close its store.
const RENEWED: &str = "the end of the log may be missing";

async fn publish(gateway: &Gateway, numbers: std::ops::Range<u64>) -> String {
    let mut tail = String::new();
    for number in numbers {
        let answer = gateway.send(post("/v1/stream/s?create=1").json(number)).await.expect(204);
        tail = answer.next_offset();
    }
    tail
}

async fn start(directory: &Path, sync: &str) -> Gateway {
    let quick = ["--limit", "drain_spread=100ms"];
    Gateway::start(&[&["--store", directory.to_str().unwrap(), "--sync", sync], &quick[..]].concat()).await
}

#[tokio::test]
async fn offsets_stay_valid_after_a_drain_under_each_sync_policy_and_not_after_a_kill_without_sync() {
    for sync in ["never", "interval:1h", "always"] {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut gateway = start(directory.path(), sync).await;
        let mut tail = publish(&gateway, 0..20).await;
        for run in 1..=2u64 {
            gateway.signal("TERM");
            assert!(gateway.ended(DRAINED).await.success());
            drop(gateway);
            gateway = start(directory.path(), sync).await;
            assert!(!gateway.log().contains(RENEWED), "--sync {sync}, run {run}: {}", gateway.log());
            let there = gateway.send(get(format!("/v1/stream/s?offset={tail}"))).await.expect(200);
            assert_eq!(there.text(), "[]", "--sync {sync}, run {run}");
            tail = publish(&gateway, 20 * run..20 * (run + 1)).await;
        }
        let all: Vec<u64> = gateway
            .send(get("/v1/stream/s"))
            .await
            .json()
            .as_array()
            .unwrap()
            .iter()
            .map(|number| number.as_u64().unwrap())
            .collect();
        assert_eq!(all, (0..60).collect::<Vec<_>>());
        // Control: a kill does not close the store, and unsynced appends may be lost.
        gateway.kill().await;
        let gateway = start(directory.path(), sync).await;
        assert_eq!(gateway.log().contains(RENEWED), sync != "always", "--sync {sync}: {}", gateway.log());
    }
}
