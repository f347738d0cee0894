//! Comparisons of every form on the gateway, in one and in several processes.

use loadtest::data::{Report, Run};

use crate::world::{Loadtest, beside_others};

/// Checks a report with `runs` runs of [`LOAD`].
pub(crate) fn check(report: &Report, runs: usize) {
    assert_eq!(report.runs.len(), runs);
    assert!(report.machine.cores > 0 && report.command.contains("--clients") && report.format == 2);
    for run in &report.runs {
        let name = format!("{} {}", run.server, run.strategy);
        let counts = run.deliveries;
        assert!(counts.intended > 50 && counts.delivered == counts.intended, "{name}: {counts:?}");
        assert_eq!((counts.lost, counts.doubled, counts.out_of_order), (0, 0, 0), "{name}");
        assert!(run.connections >= 60 && !run.interrupted, "{name}");
        let latency = run.latency.as_ref().unwrap();
        assert!(latency.p50 > 0.0 && latency.p50 <= latency.p99, "{name}: {latency:?}");
        assert!(latency.p99 <= latency.max, "{name}: {latency:?}");
        assert!(latency.cdf.is_sorted() && latency.cdf.last().unwrap().1 == 1.0, "{name}");
        // 256 bytes, 7200 times an hour, plus their framing. The limit is lower, since the first poll of a 5 s interval also
        // brings the messages since the start.
        assert!(run.bytes.down > 700_000.0, "{name}: {:?}", run.bytes);
        assert!(run.bytes.up_with_packets > run.bytes.up && run.bytes.down_with_packets > run.bytes.down);
        let cost = run.server_cost.expect("of a server that was started");
        // Erlang takes memory before it needs it, so that few clients change nothing.
        let has_spare_memory = run.server == "ejabberd";
        assert!(has_spare_memory || cost.user_bytes_per_client > 100.0, "{name}: {cost:?}");
        assert!(cost.cpu_per_delivery.unwrap() > 1.0, "{name}: {cost:?}");
        assert!(run.generator_cores > 0.0, "{name}");
    }
}

/// The tests of this file only count, so late sends are harmless.
pub(crate) const PATIENT: [&str; 4] = ["--late-after", "1s", "--repeat", "1"];

pub(crate) const LOAD: [&str; 14] = [
    "--clients",
    "60",
    "--seconds",
    "2",
    "--warm-up",
    "0.5",
    "--rate",
    "2",
    PATIENT[0],
    PATIENT[1],
    PATIENT[2],
    PATIENT[3],
    "--day-phones",
    "0",
];

fn of<'a>(report: &'a Report, strategy: &str) -> &'a Run {
    report.runs.iter().find(|run| run.strategy == strategy).expect(strategy)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_form_delivers_everything() {
    let _turn = beside_others().await;
    let ended = Loadtest::new(&LOAD).run().await;
    assert_eq!(ended.code, Some(0));
    let report = ended.report();
    check(&report, 7);
    let page = ended.page("report");
    assert!(page.contains("short-poll:5s") && page.contains("uPlot"), "no page of this report");
    for run in &report.runs {
        // Messages twice a second, or a poll every 5 s, which is longer than the run, keep an LTE radio on: 1.0755 W.
        let joules = run.energy[0].joules_per_client_hour;
        assert!(
            run.energy[0].radio == "LTE" && (3400.0..4200.0).contains(&joules),
            "{}: {joules} J",
            run.strategy
        );
    }
    assert!(ended.said.contains("strategy") && ended.said.contains("short-poll:5s"), "{}", ended.said);
    let polls = of(&report, "short-poll:1s");
    assert!((polls.requests.per_client_hour / 3600.0 - 1.0).abs() < 0.03, "{:?}", polls.requests);
    assert!(polls.requests.empty_per_client_hour > 100.0, "{:?}", polls.requests);
    let median = |run: &Run| run.latency.as_ref().unwrap().p50;
    assert!(median(of(&report, "sse")) < 100_000.0 && median(polls) > 200_000.0);
    assert!(polls.prediction.is_some() && of(&report, "sse").prediction.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn xmpp_clients_get_everything() {
    let _turn = beside_others().await;
    let how = ["--strategy", "xmpp:websocket", "--strategy", "xmpp:bosh"];
    let report = Loadtest::new(&[&LOAD[..], &how].concat()).run().await.report();
    check(&report, 2);
    // One request a message, or one for several that come together.
    let bosh = of(&report, "xmpp:bosh");
    let requests = bosh.requests.per_client_hour / 3600.0 * 60.0 * 2.0;
    let intended = bosh.deliveries.intended as f64;
    assert!(requests > 0.0 && requests < 1.3 * intended, "{requests} requests for {intended} messages");
}

/// 50 clients on 7 streams give the same counts in one process and in 3, with two repeats.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_processes_and_repeats_measure_together() {
    let _turn = beside_others().await;
    let load =
        ["--clients", "50", "--streams-shared", "7", "--seconds", "2", "--warm-up", "0.5", "--rate", "2"];
    let load = [&load[..], &PATIENT[..2]].concat();
    // Each client polls twice in the two seconds, unless the machine stands still for one.
    let how = ["--strategy", "sse", "--strategy", "short-poll:1s", "--repeat", "2"];
    let one = Loadtest::new(&[&load[..], &how[..]].concat()).run().await.report();
    let split = ["--clients-a-process", "17"];
    let three = Loadtest::new(&[&load[..], &how, &split].concat()).run().await.report();
    for (one, three) in one.runs.iter().zip(&three.runs) {
        assert_eq!(one.deliveries, three.deliveries, "{}", one.strategy);
        assert_eq!((three.deliveries.lost, three.connections), (0, 50));
        assert!(three.deliveries.intended > 200);
    }
    let (one, three) = (of(&one, "short-poll:1s"), of(&three, "short-poll:1s"));
    assert!((one.requests.per_client_hour / three.requests.per_client_hour - 1.0).abs() < 0.03);
}
