//! Simulations agree with measurements through real networks, and with the formulas.

use serde_json::Value;

use crate::world::Loadtest;

/// Allowed relative difference of a median that the path's delay dominates, on a busy machine.
const DELAY: f64 = 0.25;

async fn figures(arguments: &[&str]) -> Vec<Value> {
    let ended = Loadtest::new_without_output(&[&["agree", "--json"], arguments].concat());
    let ended = ended.built_for_users().run().await;
    // 1: figures differ, such as delays on a busy machine.
    assert!(matches!(ended.code, Some(0 | 1)));
    serde_json::from_str(&ended.said).unwrap()
}

fn pair(row: &Value, name: &str) -> [f64; 2] {
    ["simulated", "measured"].map(|side| row[side][name].as_f64().unwrap())
}

/// Next to no processor time, so that it runs beside the other tests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs an optimised command, which LOADTEST_BINARY names; tests/run honest sets it"]
async fn simulated_clients_do_what_measured_ones_do() {
    let networks = ["none", "nat-idle:5s", "proxy-cut:5s", "no-websocket", "proxy-buffer", "lossy-answers"];
    let networks = networks.iter().flat_map(|network| ["--network", network]);
    let arguments: Vec<_> = networks.chain(["--clients", "4", "--lasting", "20s"]).collect();
    let rows = figures(&arguments).await;
    assert_eq!(rows.len(), 5 + 5 + 5 + 4 + 3 + 5);
    for row in &rows {
        assert!(pair(row, "published")[1] > 0.0, "{row:#}");
        for name in ["published", "lost", "doubled"] {
            let [simulated, measured] = pair(row, name);
            assert_eq!(simulated, measured, "{name}: {row:#}");
        }
        let apart = row["apart"].as_array().unwrap().iter().filter(|apart| apart["byChance"] == false);
        let apart: Vec<_> = apart.map(|apart| apart["figure"].as_str().unwrap()).collect();
        assert!(apart.iter().all(|figure| figure.starts_with('p')), "{row:#}");
        if row["network"] == "none" && row["strategy"] != "short-poll:2s" {
            let [simulated, measured] = pair(row, "p50Millis");
            assert!((simulated - measured).abs() <= DELAY * measured, "{row:#}");
        }
    }
}

/// Settings of the grid: a dozen, or as many as `AGREE_SETTINGS` says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs an optimised command, which LOADTEST_BINARY names; tests/run honest sets it"]
async fn formulas_agree_with_simulations() {
    let settings = std::env::var("AGREE_SETTINGS").unwrap_or_else(|_| "12".to_owned());
    let rows = figures(&["--formulas", "--settings", &settings]).await;
    assert_eq!(rows.len().to_string(), settings);
    for row in &rows {
        let within = |name: &str, share: f64| {
            let [formula, simulated] = ["formula", "simulated"].map(|side| row[name][side].as_f64().unwrap());
            assert!((simulated - formula).abs() <= share * formula, "{name}: {row:#}");
        };
        within("requests", 0.03);
        within("delayMillis", 0.1);
    }
}
