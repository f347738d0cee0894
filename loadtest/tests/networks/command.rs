//! `pollgate sub` behind each network.

use std::path::Path;
use std::process::Stdio;

use loadtest::network::{Middlebox, Profile, Profiles};
use loadtest::servers::gateway_program;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{Duration, sleep, timeout};

use crate::behind::Behind;
use crate::ends::ANY;
use crate::world::beside_others;

/// Messages behind each network, in bursts between which proxies have time to cut.
const BURSTS: u32 = 4;
const BURST: u32 = 25;

/// Longer than any of the networks takes, on a busy machine too.
const ENDS_WITHIN: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_every_network_the_command_prints_each_message_once_and_in_order() {
    let _turn = beside_others().await;
    let behind = Behind::of(&Profile::none(), &[]).await;
    let program = gateway_program(Path::new(env!("CARGO_BIN_EXE_loadtest"))).unwrap();
    let mut readers = JoinSet::new();
    let mut middleboxes = Vec::new();
    for profile in Profiles::default().all() {
        let middlebox =
            Middlebox::start(&profile.clone().scaled(0.1), ANY, behind.gateway.target.address).unwrap();
        let mut command = Command::new(&program);
        command.args(["sub", "numbers", "--from", "earliest", "--count"]);
        command.arg((BURSTS * BURST).to_string()).args(["--url", &format!("http://{}", middlebox.address())]);
        let reader =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let network = profile.name.clone();
        readers.spawn(async move {
            let output = timeout(ENDS_WITHIN, reader.wait_with_output()).await;
            (network.clone(), output.unwrap_or_else(|_| panic!("{network}: it hangs")).unwrap())
        });
        middleboxes.push(middlebox);
    }
    assert!(readers.len() >= 17, "{}", readers.len());
    let producer = behind.producer("numbers");
    let numbers: Vec<String> = (0..BURSTS * BURST).map(|number| number.to_string()).collect();
    for burst in numbers.chunks(BURST as usize) {
        for number in burst {
            producer.publish(number.clone()).await.unwrap();
        }
        // Proxies cut a connection that is silent for up to 10 s here.
        sleep(Duration::from_secs(2)).await;
    }
    let expected = numbers.join("\n") + "\n";
    while let Some(ended) = readers.join_next().await {
        let (network, output) = ended.unwrap();
        let remarks = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{network}: {remarks}");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected, "{network}: {remarks}");
    }
}
