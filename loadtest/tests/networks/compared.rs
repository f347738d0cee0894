//! Comparisons through a hostile network.

use loadtest::data::{Report, Run};

use crate::world::{Loadtest, beside_others};

const LOAD: [&str; 13] = [
    "compare",
    "--clients",
    "5",
    "--seconds",
    "2",
    "--warm-up",
    "0.5",
    "--rate",
    "8",
    "--late-after",
    "1s",
    "--repeat",
    "1",
];

async fn through(network: &str, strategies: &[&str]) -> Report {
    let how: Vec<_> = strategies.iter().flat_map(|strategy| ["--strategy", strategy]).collect();
    let ended = Loadtest::new(&[&LOAD[..], &["--network", network], &how].concat()).run().await;
    assert_eq!(ended.code, Some(0));
    let report = ended.report();
    assert_eq!((report.workload.network.as_deref(), report.runs.len()), (Some(network), strategies.len()));
    report
}

fn of<'a>(report: &'a Report, strategy: &str) -> &'a Run {
    report.runs.iter().find(|run| run.strategy == strategy).unwrap()
}

fn is_complete(run: &Run) -> bool {
    run.deliveries.intended > 20 && run.deliveries.delivered == run.deliveries.intended
}

fn is_cut_off(run: &Run) -> bool {
    run.deliveries.lost > 20 && run.deliveries.delivered == 0
}

/// A strategy that cannot work is a line of the report with its reason, and does not delay the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strategies_that_a_network_blocks_are_reported_as_lost() {
    let _turn = beside_others().await;
    let report = through("no-streaming:1s", &["long-poll:2s", "sse", "websocket", "mqtt"]).await;
    assert!(is_complete(of(&report, "long-poll:2s")), "{:?}", report.runs);
    for (strategy, why) in
        [("sse", "answered 502"), ("websocket", "WebSocket: "), ("mqtt", "closed the connection")]
    {
        let run = of(&report, strategy);
        assert!(is_cut_off(run), "{strategy}: {:?}", run.deliveries);
        assert!(run.notes.iter().any(|note| note.contains(why)), "{strategy}: {:?}", run.notes);
        assert!(
            run.notes.iter().any(|note| note.starts_with("5 times no way to read")),
            "{strategy}: {:?}",
            run.notes
        );
    }
}

/// Timeouts of a real path, and a network that works after 2 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn networks_of_the_cost_model_and_recovered_ones_deliver_everything() {
    let _turn = beside_others().await;
    let report = through("heroku", &["short-poll:500ms", "sse", "websocket"]).await;
    assert!(report.runs.iter().all(is_complete), "{:?}", report.runs);
    let report = through("captive:2s", &["short-poll:500ms"]).await;
    assert!(is_complete(&report.runs[0]), "{:?}", report.runs[0].deliveries);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_network_is_an_error() {
    let ended = Loadtest::new(&["compare", "--network", "moon"]).run().await;
    assert_eq!(ended.code, Some(2));
    assert!(ended.said.contains("no network \"moon\"; there are nat-idle, "), "{}", ended.said);
}
