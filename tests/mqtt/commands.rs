//! `pollgate pub` and `sub` with the URL of another broker.

use std::process::{Output, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::idle::Mosquitto;
use crate::world::{PATIENCE, send_signal};

fn command(mosquitto: &Mosquitto, words: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pollgate"));
    command
        .args(words.split(' '))
        .args(["--url", &format!("mqtt://{}", mosquitto.address)])
        .kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

async fn ended(child: Child) -> Output {
    let output = timeout(PATIENCE, child.wait_with_output()).await.expect("it hangs").unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    output
}

#[tokio::test]
async fn messages_pass_mosquitto_once_and_in_their_order() {
    let mosquitto = Mosquitto::start().await;
    let mut reader = command(&mosquitto, "sub rooms/+").spawn().unwrap();
    let mut lines = BufReader::new(reader.stdout.take().unwrap()).lines();
    // A broker tells nobody who subscribes: what comes first shows that the reader has.
    let mut sent = 0;
    let first = loop {
        ended(command(&mosquitto, "pub rooms/0 0").spawn().unwrap()).await;
        sent += 1;
        assert!(sent < 3000, "the reader does not subscribe");
        if let Ok(line) = timeout(Duration::from_millis(20), lines.next_line()).await {
            break line.unwrap().unwrap();
        }
    };
    assert_eq!(first, "rooms/0\t0");
    let numbers: Vec<String> = (1..=300).map(|number| number.to_string()).collect();
    let mut publisher = command(&mosquitto, "pub rooms/1").spawn().unwrap();
    publisher.stdin.take().unwrap().write_all((numbers.join("\n") + "\n").as_bytes()).await.unwrap();
    ended(publisher).await;
    let mut found = Vec::new();
    while found.len() < numbers.len() {
        let line = timeout(PATIENCE, lines.next_line()).await.expect("no line").unwrap().unwrap();
        found.extend(line.strip_prefix("rooms/1\t").map(str::to_owned));
    }
    assert_eq!(found, numbers);
    send_signal(reader.id().unwrap(), Signal::TERM);
    ended(reader).await;
}
