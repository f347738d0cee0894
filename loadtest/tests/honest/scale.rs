//! What `scale` predicts for a few hundred clients agrees with a real gateway.

use crate::world::{Loadtest, alone};

/// Pairs of predicted and measured figures, by the strategy, with the largest deviation that is allowed. Requests and bytes are determined by
/// the strategy, and deviate by chance at the ends of the measured time. The processor time of an event depends on the machine, where it is
/// measured before, and on how busy that is; what a few hundred clients take of memory depends on the pages that the allocator happens to
/// keep. So these only have to be of the same size.
const BOUNDS: [(&str, f64); 4] = [("requests", 0.1), ("bytes", 0.15), ("cores", 2.0), ("memory", 2.0)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs an optimised command, which LOADTEST_BINARY names; tests/run honest sets it"]
async fn predictions_for_a_few_hundred_clients_agree_with_a_gateway_that_serves_them() {
    let _turn = alone().await;
    let strategies = ["--strategy", "short-poll:1s", "--strategy", "long-poll:2s"];
    let options = ["scale", "--measure", "--check", "600", "--messages", "200", "--seconds", "4", "--json"];
    let ended =
        Loadtest::new_without_output(&[&options[..], &strategies].concat()).built_for_users().run().await;
    assert_eq!(ended.code, Some(0));
    let (from, to) = (ended.said.find('{').unwrap(), ended.said.rfind('}').unwrap());
    let found: serde_json::Value = serde_json::from_str(&ended.said[from..=to]).unwrap();
    let checked = found["checked"].as_array().unwrap();
    assert_eq!(checked.len(), 2);
    for one in checked {
        assert_eq!(one["lost"], 0);
        for (figure, most) in BOUNDS {
            let [predicted, measured] =
                ["predicted", "measured"].map(|name| one[figure][name].as_f64().unwrap());
            let (strategy, ratio) = (&one["strategy"], predicted / measured);
            println!("{strategy} {figure}: {predicted:.3} predicted, {measured:.3} measured");
            assert!(ratio < 1.0 + most && ratio > 1.0 / (1.0 + most), "{strategy} {figure}: {one}");
        }
    }
}
