//! A generator that falls behind reports this as an error.

use std::time::Duration;

use crate::fake::{Fake, Faults};
use crate::world::{Loadtest, alone};

/// No machine sends 400 000 messages a second in this way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generator_that_falls_behind_fails_the_run() {
    let _turn = alone().await;
    let fake = Fake::start(Faults { stall: Duration::ZERO, ..Faults::default() }).await;
    let target = format!("http://{}", fake.address);
    let load = [
        "--clients",
        "2",
        "--rate",
        "200000",
        "--size",
        "40",
        "--seconds",
        "2",
        "--warm-up",
        "0.5",
        "--repeat",
        "1",
    ];
    let ended = Loadtest::new(&[&["--target", &target, "--strategy", "long-poll:1s"], &load[..]].concat())
        .run()
        .await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.said.contains("the generator fell behind"), "{}", ended.said);
}
