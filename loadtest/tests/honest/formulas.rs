//! Short poll and long poll agree with the formulas of the cost model at three rates.

use crate::world::{Loadtest, alone};

/// Allowed relative deviation of the requests from the formula.
const REQUESTS: f64 = 0.03;

/// Allowed relative deviation of the mean latency from the formula; [`LATENCY_MICROS`] is allowed in any case.
const LATENCY: f64 = 0.1;
const LATENCY_MICROS: f64 = 1000.0;

/// 100 clients for 16 s at 1 and 2 messages a second, and 200 at 0.5: 1600 to 3200 messages. More clients for a shorter time
/// would give as much data, but debug builds on a busy machine fall behind.
///
/// Short poll every 400 ms: the number of requests is fixed except at the ends of the measured time. The latency is uniform
/// over 400 ms with a standard deviation of 115 ms, so the mean of 1600 has one of 2.9 ms: 10 % of 200 ms are 6.9 of them.
///
/// Long poll of 2 s: the formula gets the drawn rate, so only the split of the same number of messages into holds is random. A
/// client's gap of mean 1/L below 2 s makes one request, a longer one 1 + floor(gap / 2 s). The standard deviation of the
/// number of requests per gap is under 0.6, and that of the mean of 1600 under 1.5 % of one at 0.5 a second, where a gap makes
/// 1.58 requests: 0.95 %. 3 % are 3.2 of them there, and at least 5.6 at the other rates.
///
/// A debug build takes as long for a delivery as the allowed error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs an optimised command, which LOADTEST_BINARY names; tests/run honest sets it"]
async fn polls_agree_with_the_formulas_at_three_rates() {
    let _turn = alone().await;
    for (rate, clients) in [("0.5", "200"), ("1", "100"), ("2", "100")] {
        let load = [
            "--clients",
            clients,
            "--rate",
            rate,
            "--seconds",
            "16",
            "--warm-up",
            "1",
            "--late-after",
            "1s",
            "--repeat",
            "1",
        ];
        let strategies = ["--strategy", "short-poll:400ms", "--strategy", "long-poll:2s"];
        let ended = Loadtest::new(&[&load[..], &strategies].concat()).built_for_users().run().await;
        assert_eq!(ended.code, Some(0));
        for run in ended.report().runs {
            let (formula, name) = (run.prediction.unwrap(), &run.strategy);
            let mean = run.latency.unwrap().mean;
            let [by_requests, by_latency] =
                [formula.requests_deviation, formula.latency_deviation].map(Option::unwrap);
            let off = (mean - formula.mean_latency).abs();
            println!(
                "{name} at {rate}/s: {:.0} requests/h, {:+.2} %; mean {mean:.0} us, {:+.2} % ({off:.0} us)",
                run.requests.per_client_hour,
                by_requests * 100.0,
                by_latency * 100.0
            );
            assert_eq!(run.deliveries.lost, 0);
            assert!(by_requests.abs() <= REQUESTS, "{name} at {rate}: {formula:?}");
            assert!(
                by_latency.abs() <= LATENCY || off <= LATENCY_MICROS,
                "{name} at {rate}: {mean} {formula:?}"
            );
        }
    }
}
