//! The loads on real servers, and what can not be a fair fight.

use crate::world::{Ended, Loadtest, alone};

const SHORT: [&str; 6] = ["--rounds", "1", "--seconds", "1", "--warm-up", "0.5"];

async fn load(arguments: &[&str]) -> Ended {
    Loadtest::new_without_output(&[arguments, &SHORT].concat()).run().await
}

/// The line of the table that begins so, as its numbers.
fn line(ended: &Ended, name: &str) -> Vec<f64> {
    let line = ended.said.lines().find(|line| line.trim_start().starts_with(name)).expect(name);
    let words = line.trim_start().trim_start_matches(name).split([' ', '(', ')']);
    words.filter_map(|word| word.parse().ok()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_and_a_rival_take_turns() {
    let _turn = alone().await;
    for (command, what, least) in [("appends", "appends/s", 500.0), ("wake", "wakes/s", 15.0)] {
        let ended = load(&[command, "--rival", "nchan"]).await;
        assert_eq!(ended.code, Some(0));
        assert!(ended.said.contains(what) && ended.said.contains("messages in memory"), "{}", ended.said);
        let (own, rival, ratio) =
            (line(&ended, "pollgate  "), line(&ended, "nchan  "), line(&ended, "pollgate : nchan  "));
        // Median, least and greatest of each column: of one round they are the same.
        assert!(own.len() == 15 && own[0] == own[1] && own[1] == own[2], "{own:?}");
        assert!(own[0] > least && rival[0] > least, "{own:?} {rival:?}");
        assert!((own[0] / rival[0] / ratio[0] - 1.0).abs() < 0.02, "{own:?} {rival:?} {ratio:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_not_be_fair_is_refused() {
    let _turn = alone().await;
    let here = env!("CARGO_TARGET_TMPDIR");
    for (arguments, why) in [
        (&["--rival", "nchan", "--store", here][..], "nchan keeps messages in memory alone"),
        (&["--store", "/dev/shm"], "tmpfs is no disk"),
        (&["--rival", "mosquitto"], "mosquitto has no long-poll"),
        (&["--rival", "durable-streams=/no/such/program"], "durable-streams is not installed"),
    ] {
        let ended = load(&[&["appends"], arguments].concat()).await;
        assert_eq!(ended.code, Some(2), "{arguments:?}");
        assert!(ended.said.contains(why), "{}", ended.said);
    }
}
