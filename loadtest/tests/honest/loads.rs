//! The loads against a server whose faults are known.

use std::time::Duration;

use clap::Parser;
use loadtest::cli::{Cli, Command};
use loadtest::figures::Pace;
use loadtest::rounds::{RoundError, rounds};
use tokio::sync::watch;

use crate::fake::{Fake, Faults};
use crate::world::{Loadtest, alone};

/// What one round on a server with these faults comes to.
async fn figures(load: &str, faults: Faults) -> Result<Pace, RoundError> {
    let fake = Fake::start(faults).await;
    let line =
        format!("loadtest {load} --rounds 1 --seconds 1 --warm-up 0.2 --target http://{}", fake.address);
    let (_go_on, stop) = watch::channel(false);
    let outcome = match Cli::try_parse_from(line.split(' ')).unwrap().command {
        Some(Command::Appends(wanted)) => rounds(&wanted.load(), &wanted.rounds, stop).await?,
        Some(Command::Wake(wanted)) => rounds(&wanted.load(), &wanted.rounds, stop).await?,
        _ => panic!("{load} is no load"),
    };
    Ok(outcome.standings[0].rounds[0])
}

fn slow() -> Faults {
    Faults { stall_every: 1, stall: Duration::from_millis(20), ..Faults::default() }
}

/// 8 connections with an append under way each, which takes 20 ms: at most 400 a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_takes_what_the_server_takes() {
    let _turn = alone().await;
    let of_slow = figures("appends --connections 8", slow()).await.unwrap();
    assert!((20e3..40e3).contains(&of_slow.p50) && of_slow.p99 >= of_slow.p50, "{of_slow:?}");
    assert!((200.0..=408.0).contains(&of_slow.rate), "{of_slow:?}");
    assert!(of_slow.server_processor.is_none() && of_slow.generator_cores > 0.0, "{of_slow:?}");
    let of_quick = figures("appends --connections 8", Faults::default()).await.unwrap();
    assert!(of_quick.p50 < 20e3 && of_quick.rate > 408.0, "{of_quick:?}");
}

/// A message that the server shows after 20 ms can not be with its reader before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wake_takes_what_the_server_takes() {
    let _turn = alone().await;
    let of_slow = figures("wake --held 3 --rate 20", slow()).await.unwrap();
    assert!((20e3..40e3).contains(&of_slow.p50) && of_slow.p99 >= of_slow.p50, "{of_slow:?}");
    assert!((19.0..=21.0).contains(&of_slow.rate), "{of_slow:?}");
    let of_quick = figures("wake --held 3 --rate 20", Faults::default()).await.unwrap();
    assert!(of_quick.p50 < 20e3, "{of_quick:?}");
}

/// 20 ms for each of 100 messages a second, one after the other: the last one goes out a second late, and its wait counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_that_the_server_can_not_keep_shows_in_the_times() {
    let _turn = alone().await;
    let late = figures("wake --rate 100", slow()).await.unwrap();
    assert!(late.p50 > 200e3 && late.rate > 95.0, "{late:?}");
}

/// A poll is not held anew within half a millisecond and less, each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polls_that_are_not_held_in_time_fail_the_run() {
    let _turn = alone().await;
    let unheld = figures("wake --rate 2000", Faults::default()).await.unwrap_err().to_string();
    assert!(unheld.contains("no poll was held when"), "{unheld}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_that_is_refused_fails_the_run() {
    let _turn = alone().await;
    let fake = Fake::start(Faults { refuse_every: 100, ..Faults::default() }).await;
    let target = format!("http://{}", fake.address);
    let how = ["appends", "--rounds", "1", "--seconds", "1", "--warm-up", "0.2", "--target", &target];
    let ended = Loadtest::new_without_output(&how).run().await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.said.contains("pollgate: answered 500"), "{}", ended.said);
    let refused =
        figures("wake", Faults { refuse_every: 10, ..Faults::default() }).await.unwrap_err().to_string();
    assert!(refused.contains("publishing: answered 500"), "{refused}");
}

/// The poll of a message that is lost is never answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_lost_fails_the_run() {
    let _turn = alone().await;
    let lost = figures("wake", Faults { lose_every: 10, ..Faults::default() }).await.unwrap_err().to_string();
    assert!(lost.contains("an answer that never came"), "{lost}");
}
