//! The loads against a server with known faults.

use std::time::Duration;

use clap::Parser;
use loadtest::cli::{Cli, Command, Rounds};
use loadtest::figures::Pace;
use loadtest::loads::Load;
use loadtest::loads::fan_out::FannedOut;
use loadtest::loads::hold::Held;
use loadtest::rounds::{RoundError, rounds};
use tokio::sync::watch;

use crate::fake::{Fake, Faults};
use crate::world::{Loadtest, alone, on_time};

/// Parses a command line for a load on `fake`.
fn command(load: &str, fake: &Fake) -> Command {
    let line =
        format!("loadtest {load} --rounds 1 --seconds 1 --warm-up 0.2 --target http://{}", fake.address);
    Cli::try_parse_from(line.split(' ')).unwrap().command.unwrap()
}

async fn round<L: Load>(load: &L, wanted: &Rounds) -> Result<L::Figures, RoundError> {
    let (_go_on, stop) = watch::channel(false);
    Ok(rounds(load, wanted, stop).await?.standings[0].rounds[0])
}

/// Returns the figures of one round of a load that repeats one operation.
async fn figures(load: &str, faults: Faults) -> Result<Pace, RoundError> {
    match command(load, &*Fake::start(faults).await) {
        Command::Appends(wanted) => round(&wanted.load(), &wanted.rounds).await,
        Command::ShortPolls(wanted) => round(&wanted.load(), &wanted.rounds).await,
        Command::Wake(wanted) => round(&wanted.load(), &wanted.rounds).await,
        _ => panic!("{load} does not repeat one operation"),
    }
}

async fn hold(how: &str, faults: Faults) -> Result<Held, RoundError> {
    let Command::Hold(wanted) = command(&format!("hold {how}"), &*Fake::start(faults).await) else {
        panic!("no hold")
    };
    round(&wanted.load(), &wanted.rounds).await
}

async fn fan_out(how: &str, faults: Faults) -> Result<FannedOut, RoundError> {
    let Command::FanOut(wanted) = command(&format!("fan-out {how}"), &*Fake::start(faults).await) else {
        panic!("no fan-out")
    };
    round(&wanted.load(), &wanted.rounds).await
}

fn slow() -> Faults {
    Faults { stall_every: 1, stall: Duration::from_millis(20), ..Faults::default() }
}

/// 8 connections with one append in flight each, which takes 20 ms: at most 400 a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn append_times_match_the_delay_of_the_server() {
    on_time(async || {
        let _turn = alone().await;
        let of_slow = figures("appends --connections 8", slow()).await.unwrap();
        assert!((20e3..40e3).contains(&of_slow.p50) && of_slow.p99 >= of_slow.p50, "{of_slow:?}");
        assert!((200.0..=408.0).contains(&of_slow.rate), "{of_slow:?}");
        assert!(of_slow.server_processor.is_none() && of_slow.generator_cores > 0.0, "{of_slow:?}");
        let of_quick = figures("appends --connections 8", Faults::default()).await.unwrap();
        assert!(of_quick.p50 < 20e3 && of_quick.rate > 408.0, "{of_quick:?}");
    })
    .await;
}

/// The server shows a message after 20 ms, so its reader cannot have it earlier.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wake_times_match_the_delay_of_the_server() {
    on_time(async || {
        let _turn = alone().await;
        let of_slow = figures("wake --held 3 --rate 20", slow()).await.unwrap();
        assert!((20e3..40e3).contains(&of_slow.p50) && of_slow.p99 >= of_slow.p50, "{of_slow:?}");
        assert!((19.0..=21.0).contains(&of_slow.rate), "{of_slow:?}");
        let of_quick = figures("wake --held 3 --rate 20", Faults::default()).await.unwrap();
        assert!(of_quick.p50 < 20e3, "{of_quick:?}");
    })
    .await;
}

/// Each of 100 messages a second takes 20 ms, one after the other: the last one is sent a second late, and its wait counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_above_the_servers_capacity_shows_in_the_times() {
    on_time(async || {
        let _turn = alone().await;
        let late = figures("wake --rate 100", slow()).await.unwrap();
        assert!(late.p50 > 200e3 && late.rate > 95.0, "{late:?}");
    })
    .await;
}

/// Most polls are not held again within the half millisecond between two messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polls_that_are_not_held_in_time_fail_the_run() {
    on_time(async || {
        let _turn = alone().await;
        let unheld = figures("wake --rate 2000", Faults::default()).await.unwrap_err().to_string();
        assert!(unheld.contains("no poll was held when"), "{unheld}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_that_is_refused_fails_the_run() {
    on_time(async || {
        let _turn = alone().await;
        let fake = Fake::start(Faults { refuse_every: 5, ..Faults::default() }).await;
        let target = format!("http://{}", fake.address);
        let how = ["appends", "--rounds", "1", "--seconds", "1", "--warm-up", "0.2", "--target", &target];
        let ended = Loadtest::new_without_output(&how).run().await;
        assert_eq!(ended.code, Some(1));
        assert!(ended.said.contains("pollgate: answered 500"), "{}", ended.said);
        let refused =
            figures("wake", Faults { refuse_every: 10, ..Faults::default() }).await.unwrap_err().to_string();
        assert!(refused.contains("publishing: answered 500"), "{refused}");
    })
    .await;
}

/// wrk also has 8 requests in flight, and takes its own times; it ignores the content of responses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrk_times_match_the_delay_of_the_server() {
    on_time(async || {
        let _turn = alone().await;
        let pause = Faults { answer_pause: Duration::from_millis(20), ..Faults::default() };
        for (load, faults) in [("appends", slow()), ("short-polls", pause)] {
            let of_slow = figures(&format!("{load} --generator wrk --connections 8"), faults).await.unwrap();
            assert!((20e3..40e3).contains(&of_slow.p50) && of_slow.p99 >= of_slow.p50, "{of_slow:?}");
            assert!((200.0..=408.0).contains(&of_slow.rate) && of_slow.generator_threads == 2, "{of_slow:?}");
        }
        let forgetful = Faults { forgets_offsets: true, ..Faults::default() };
        let stale = figures("short-polls --generator wrk", forgetful).await.unwrap_err().to_string();
        assert!(stale.contains("a message that was read before"), "{stale}");
        let refusing = Faults { refuse_every: 100, ..Faults::default() };
        let refused = figures("appends --generator wrk", refusing).await.unwrap_err().to_string();
        assert!(refused.contains("wrk: answers beyond 2xx and 3xx"), "{refused}");
    })
    .await;
}

/// The poll for a lost message is never answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_message_fails_the_run() {
    on_time(async || {
        let _turn = alone().await;
        let lost =
            figures("wake", Faults { lose_every: 10, ..Faults::default() }).await.unwrap_err().to_string();
        assert!(lost.contains("an answer that never came"), "{lost}");
    })
    .await;
}

/// 8 connections with one poll in flight each, which takes 20 ms: at most 400 a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_poll_times_match_the_delay_of_the_server() {
    on_time(async || {
        let _turn = alone().await;
        let pause = Faults { answer_pause: Duration::from_millis(20), ..Faults::default() };
        let of_slow = figures("short-polls --connections 8", pause).await.unwrap();
        assert!((20e3..40e3).contains(&of_slow.p50) && of_slow.p99 >= of_slow.p50, "{of_slow:?}");
        assert!((200.0..=408.0).contains(&of_slow.rate), "{of_slow:?}");
        let of_quick = figures("short-polls --connections 8", Faults::default()).await.unwrap();
        assert!(of_quick.p50 < 20e3 && of_quick.rate > 408.0, "{of_quick:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_poll_that_returns_an_old_message_fails_the_run() {
    on_time(async || {
        let _turn = alone().await;
        let forgetful = Faults { forgets_offsets: true, ..Faults::default() };
        let stale = figures("short-polls", forgetful).await.unwrap_err().to_string();
        assert!(stale.contains("a message that was read before"), "{stale}");
    })
    .await;
}

/// A server that takes 20 ms to accept each of 20 connections does not hold all polls before 400 ms, though they were sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polls_count_as_held_only_after_the_server_has_read_them() {
    on_time(async || {
        let _turn = alone().await;
        let slow = Faults { accept_pause: Duration::from_millis(20), ..Faults::default() };
        let of_slow = hold("--clients 20", slow).await.unwrap();
        assert!((400e3..1000e3).contains(&of_slow.all_held), "{of_slow:?}");
        assert!(of_slow.memory_a_client().is_none() && of_slow.connects_dropped.is_some(), "{of_slow:?}");
        let of_quick = hold("--clients 20", Faults::default()).await.unwrap();
        assert!(of_quick.all_held < 400e3, "{of_quick:?}");
    })
    .await;
}

/// The first polls are answered before the last ones are sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polls_that_are_never_all_held_at_once_fail_the_run() {
    on_time(async || {
        let _turn = alone().await;
        let (accept_pause, hold_max) = (Duration::from_millis(20), Some(Duration::from_millis(100)));
        for how in ["--clients 20", "--clients 20 --at-once 3"] {
            let faults = Faults { accept_pause, hold_max, ..Faults::default() };
            let early = hold(how, faults).await.unwrap_err().to_string();
            assert!(early.contains("before all were held"), "{early}");
        }
    })
    .await;
}

/// Memory is measured a second later, when the polls are no longer held.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polls_that_are_not_held_to_the_end_fail_the_run() {
    on_time(async || {
        let _turn = alone().await;
        let hasty = Faults { hold_max: Some(Duration::from_millis(500)), ..Faults::default() };
        let early = hold("--clients 5", hasty).await.unwrap_err().to_string();
        assert!(early.contains("an answer where nothing was published"), "{early}");
    })
    .await;
}

/// The message is visible after 20 ms, and each poll is answered 20 ms later; the publisher does not wait for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fan_out_times_match_the_delay_of_the_server() {
    on_time(async || {
        let _turn = alone().await;
        let faults = Faults { answer_pause: Duration::from_millis(20), ..slow() };
        let of_slow = fan_out("--clients 10", faults).await.unwrap();
        assert!((40e3..60e3).contains(&of_slow.first) && (40e3..80e3).contains(&of_slow.last), "{of_slow:?}");
        assert!(of_slow.first <= of_slow.median && of_slow.median <= of_slow.last, "{of_slow:?}");
        assert!(
            (20e3..40e3).contains(&of_slow.publisher) && of_slow.server_processor.is_none(),
            "{of_slow:?}"
        );
        let of_quick = fan_out("--clients 10", Faults::default()).await.unwrap();
        assert!(of_quick.last < 40e3 && of_quick.publisher < 20e3, "{of_quick:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_incomplete_fan_out_fails_the_run() {
    on_time(async || {
        let _turn = alone().await;
        for (faults, why) in [
            (Faults { lose_every: 5, ..Faults::default() }, "an answer that never came"),
            (Faults { double_every: 5, ..Faults::default() }, "an answer that is not the one message"),
            (Faults { refuse_every: 5, ..Faults::default() }, "publishing: answered 500"),
        ] {
            let failed = fan_out("--clients 3", faults).await.unwrap_err().to_string();
            assert!(failed.contains(why), "{failed}");
        }
    })
    .await;
}
