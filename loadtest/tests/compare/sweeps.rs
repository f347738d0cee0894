//! Sweeps over settings and rates, and recommendations from measured figures.

use crate::forms::PATIENT;
use crate::world::{Loadtest, alone};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_finds_the_strategies_that_nothing_beats() {
    let _turn = alone().await;
    let lists = ["--interval", "300ms", "--hold", "2s", "--heartbeat", "1s", "--rate", "1,4"];
    let load = ["--clients", "40", "--seconds", "1", "--warm-up", "0.3"];
    let ended = Loadtest::new(&[&["sweep"], &lists[..], &load, &PATIENT].concat()).run().await;
    assert_eq!(ended.code, Some(0));
    let swept = ended.json("sweep");
    for (rate, report) in [(0, 1.0), (1, 4.0)] {
        let points = swept["sweep"]["rates"][rate]["points"].as_array().unwrap();
        let names: Vec<_> = points.iter().map(|point| point["strategy"].as_str().unwrap()).collect();
        let all = ["short-poll:300ms", "long-poll:2s", "sse:1s", "ndjson:1s", "websocket:1s", "mqtt:1s"];
        assert_eq!(names, all);
        assert_eq!(swept["reports"][rate]["workload"]["rate"], report);
        let front = swept["sweep"]["rates"][rate]["requestsFront"].as_array().unwrap();
        // An open connection sends almost no requests and is far quicker than a poll.
        assert!(!front.is_empty() && !front.contains(&0.into()), "{front:?}");
        assert!(points.iter().all(|point| point["joulesPerClientHour"].as_f64().unwrap() > 0.0));
    }
    assert!(ended.said.contains("nothing beats") && ended.page("sweep").contains("short-poll:300ms"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recommendation_says_whether_its_figures_were_measured() {
    let _turn = alone().await;
    let load = ["--clients", "40", "--seconds", "2", "--warm-up", "0.5", "--rate", "1"];
    let strategies = ["--strategy", "websocket", "--strategy", "short-poll:300ms"];
    let compared = Loadtest::new(&[&load[..], &strategies, &PATIENT].concat());
    assert_eq!(compared.run().await.code, Some(0));
    let report = compared.folder.join("report.json").display().to_string();

    let ask = async |network: &str| {
        let how = ["recommend", "--p95", "2s", "--rate", "1", "--network", network, "--report", &report];
        Loadtest::new_without_output(&how).run().await
    };
    let near = ask("none").await;
    assert_eq!(near.code, Some(0));
    let line = |said: &str, strategy: &str| {
        let line = said.lines().find(|line| line.starts_with(&format!("| {strategy} ")));
        line.unwrap_or_default().trim_end_matches([' ', '|']).to_owned()
    };
    for (strategy, source) in
        [("websocket", "measured"), ("short-poll:300ms", "measured"), ("sse", "predicted")]
    {
        assert!(line(&near.said, strategy).ends_with(source), "{strategy}: {}", near.said);
    }
    let far = ask("cloudflare").await;
    assert!(far.said.contains("the report has no run"), "{}", far.said);
    assert!(line(&far.said, "websocket:90s").ends_with("predicted"), "{}", far.said);
    assert!(far.said.contains("--hold-max 90s"), "{}", far.said);

    let impossible = Loadtest::new_without_output(&["recommend", "--p95", "10ms"]).run().await;
    assert_eq!(impossible.code, Some(1));
    assert!(impossible.said.contains("No strategy keeps this promise"), "{}", impossible.said);
    let unknown =
        Loadtest::new_without_output(&["recommend", "--p95", "2s", "--network", "moon"]).run().await;
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.said.contains("no network \"moon\"; there are none, unknown"), "{}", unknown.said);
}
