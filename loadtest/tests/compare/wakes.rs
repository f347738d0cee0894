//! Clients that sleep: providers wake them, and they poll.

use crate::forms::PATIENT;
use crate::world::{Loadtest, beside_others};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_sleep_are_woken_and_get_everything() {
    let _turn = beside_others().await;
    let load = ["--clients", "40", "--seconds", "6", "--warm-up", "0.5", "--rate", "0.3"];
    let strategies = ["push:fcm", "push:web", "sms", "mqtt"];
    let asked: Vec<_> = strategies.iter().flat_map(|strategy| ["--strategy", strategy]).collect();
    let ended = Loadtest::new(&[&load[..], &PATIENT, &asked, &["--all-columns"]].concat()).run().await;
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    let report = ended.report();
    for (run, strategy) in report.runs.iter().zip(strategies) {
        assert_eq!(run.strategy, strategy);
        let counts = run.deliveries;
        assert!(counts.intended > 30 && counts.delivered == counts.intended, "{strategy}: {counts:?}");
        assert_eq!((counts.doubled, counts.out_of_order), (0, 0), "{strategy}");
        let Some(wakes) = run.wakes else {
            assert_eq!(strategy, "mqtt");
            continue;
        };
        let hours = 40.0 * 6.0 / 3600.0;
        let (woken, delivered) = (wakes.per_client_hour * hours, counts.delivered as f64);
        // Messages that arrive while a wake is under way need none of their own. A wake before the measured time, or one whose
        // message was published before it, counts on one side alone.
        assert!(woken > delivered / 3.0 && woken < delivered * 1.3, "{strategy}: {woken} of {delivered}");
        // Each wake costs a connection and two polls: one for the messages, and one that says that they have arrived.
        let polls = run.requests.per_client_hour / wakes.per_client_hour;
        assert!((1.6..2.6).contains(&polls), "{strategy}: {polls} polls a wake");
        assert!(run.connections > 80, "{strategy}: {} connections", run.connections);
        assert!(wakes.to_poll_p50 > 0.0 && wakes.to_poll_p50 <= wakes.to_poll_p99, "{strategy}: {wakes:?}");
    }
    assert!(
        ended.said.contains("wakes/h") && ended.page("report").contains("wake to poll p50"),
        "{}",
        ended.said
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_runs_already_cannot_wake_the_clients_of_a_run() {
    let load = ["--target", "http://127.0.0.1:9", "--strategy", "push:fcm"];
    let ended = Loadtest::new(&load).run().await;
    assert!(ended.said.contains("does not know this program's push services"), "{}", ended.said);
}
