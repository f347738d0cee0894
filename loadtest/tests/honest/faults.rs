//! A server with known faults: the comparison finds exactly these.

use std::time::Duration;

use loadtest::data::Run;
use loadtest::workload::{Plan, Workload, within};

use crate::fake::{Fake, Faults};
use crate::world::{Loadtest, alone, on_time};

const CLIENTS: u32 = 20;
const SECONDS: u64 = 6;
const WARM_UP: u64 = 1;
const RATE: f64 = 5.0;
const SEED: u64 = 11;

async fn against(faults: Faults) -> Run {
    read_by("long-poll:5s", faults).await
}

async fn read_by(strategy: &str, faults: Faults) -> Run {
    let fake = Fake::start(faults).await;
    let target = format!("http://{}", fake.address);
    let numbers =
        [CLIENTS.to_string(), SECONDS.to_string(), WARM_UP.to_string(), RATE.to_string(), SEED.to_string()];
    // These tests only count faults, so late sends are harmless.
    let mut arguments =
        vec!["--target", &target, "--strategy", strategy, "--late-after", "1s", "--repeat", "1"];
    for (name, number) in ["--clients", "--seconds", "--warm-up", "--rate", "--seed"].iter().zip(&numbers) {
        arguments.extend([name, number.as_str()]);
    }
    let ended = Loadtest::new(&arguments).run().await;
    assert_eq!(ended.code, Some(0));
    ended.report().runs.remove(0)
}

/// Returns the schedule that the command draws.
fn workload() -> Workload {
    Workload::new(Plan {
        clients: CLIENTS,
        streams: CLIENTS,
        rate: RATE,
        message_bytes: 256,
        warm_up: Duration::from_secs(WARM_UP),
        measured: Duration::from_secs(SECONDS),
        seed: SEED,
        run: 0,
    })
}

/// Counts the messages of the measured time, over all streams, whose number in their stream satisfies `hit`. The second
/// argument of `hit` is the stream's number of messages.
fn hits(hit: impl Fn(usize, usize) -> bool) -> u64 {
    let workload = workload();
    let window = workload.plan.window();
    let streams = (0..CLIENTS).map(|stream| {
        let times = workload.schedule(stream);
        let last = times.len();
        times.iter().enumerate().filter(|(number, at)| window.contains(at) && hit(*number, last)).count()
            as u64
    });
    streams.sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_faults_has_complete_deliveries() {
    let _turn = alone().await;
    let run = against(Faults::default()).await;
    let all: usize =
        (0..CLIENTS).map(|stream| within(workload().schedule(stream), &workload().plan.window())).sum();
    let counts = run.deliveries;
    assert_eq!((counts.intended, counts.delivered), (all as u64, all as u64));
    assert_eq!((counts.lost, counts.doubled, counts.out_of_order), (0, 0, 0));
}

/// Every 10th message is lost, every 7th doubled, every 13th swapped with the next one that is not lost. If several apply, the
/// fake prefers loss to the swap and the swap to doubling.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn losses_duplicates_and_reordering_are_counted_exactly() {
    let _turn = alone().await;
    let run = against(Faults { lose_every: 10, double_every: 7, swap_every: 13, ..Faults::default() }).await;
    let every = |number: usize, of: usize| number % of == of - 1;
    let lost = |number| every(number, 10);
    let swapped = |number| every(number, 13) && !lost(number);
    // At the end of a stream no message follows to be swapped with, so the message is lost.
    let follows = |number: usize, last: usize| (number + 1..last).any(|next| !lost(next) && !swapped(next));
    let expected_lost = hits(|number, last| lost(number) || (swapped(number) && !follows(number, last)));
    let expected_doubled = hits(|number, _| every(number, 7) && !lost(number) && !swapped(number));
    let expected_out_of_order = hits(|number, last| swapped(number) && follows(number, last));
    assert!(expected_lost > 30 && expected_doubled > 40 && expected_out_of_order > 20, "a blind test");
    let counts = run.deliveries;
    assert_eq!(
        (counts.lost, counts.doubled, counts.out_of_order),
        (expected_lost, expected_doubled, expected_out_of_order)
    );
}

fn is_last(stream: u32, sequence: u32) -> bool {
    workload().schedule(stream).len() == sequence as usize + 1
}

/// No later message reveals this loss, and a reader that polls has a last interval in which the message could still arrive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_last_message_of_a_stream_is_counted() {
    let _turn = alone().await;
    let window = workload().plan.window();
    let last = |stream| *workload().schedule(stream).last().unwrap();
    assert!((0..CLIENTS).all(|stream| window.contains(&last(stream))), "a blind test");
    for strategy in ["short-poll:2s", "long-poll:5s"] {
        let run = read_by(strategy, Faults { loses: Some(is_last), ..Faults::default() }).await;
        let counts = run.deliveries;
        assert_eq!((counts.lost, counts.doubled), (CLIENTS.into(), 0), "{strategy}: {counts:?}");
        assert_eq!(counts.intended, counts.delivered + counts.lost, "{strategy}");
        assert_eq!(counts.intended, hits(|_, _| true), "{strategy}");
    }
}

/// One append in 25 stalls for half a second and delays the appends of its stream behind it: at least 4 % of the messages, so
/// that the 99th percentile must show it and the median must not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_shows_in_the_tail() {
    on_time(async || {
        let _turn = alone().await;
        let run =
            against(Faults { stall_every: 25, stall: Duration::from_millis(500), ..Faults::default() }).await;
        let stalled = hits(|number, _| number % 25 == 24);
        assert!(stalled * 100 > 2 * run.deliveries.intended, "{stalled} of {}", run.deliveries.intended);
        let latency = run.latency.unwrap();
        assert!((500e3..700e3).contains(&latency.p99), "{:?}", latency.p99);
        assert!(latency.p50 < 50e3, "{:?}", latency.p50);
        // Messages that were due during the stall waited behind it, and their wait counts from their own intended time.
        let waited = latency.cdf.iter().filter(|(micros, _)| (100e3..450e3).contains(micros)).count();
        assert!(waited > 10, "only {waited} latencies between 100 and 450 ms");
        assert_eq!(run.deliveries.lost, 0);
    })
    .await;
}
