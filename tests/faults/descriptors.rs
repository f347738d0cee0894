//! Out of descriptors: connected clients are served, and new ones are accepted once there is room.

use std::time::Duration;

use tokio::time::Instant;

use crate::measure::json_stream;
use crate::world::{Connection, Gateway, Raw, Stopwatch, Took, alone, get};

const STREAM: &str = "/v1/stream/full";
const HELD: usize = 100;
const SURPLUS: usize = 1000;
const DESCRIPTORS: usize = 128;
const STARVED_FOR: Duration = Duration::from_secs(4);
const ROUNDS: u32 = 3;

#[tokio::test]
async fn without_descriptors_connected_clients_are_served_and_new_ones_wait_for_room() {
    let _turn = alone().await;
    let gateway = Gateway::start(&["--limit", "connections_per_second_max=100000"]).await;
    let mut tail = json_stream(&gateway, STREAM).await;
    let mut admin = Connection::open(gateway.admin).await;
    let mut publisher = Raw::open(gateway.address).await;
    let mut readers = Vec::new();
    for _ in 0..HELD {
        readers.push(Raw::open(gateway.address).await);
    }
    poll_all(&mut readers, &tail).await;
    gateway.until_held(HELD).await;
    // Duration of a round on this machine before the descriptors run out.
    let mut unstarved = Took::default();
    for _ in 0..ROUNDS {
        unstarved = unstarved.max(round(&mut publisher, &mut readers, &mut tail).await);
    }

    lower_descriptors(&gateway);
    let mut surplus = Vec::new();
    for _ in 0..SURPLUS {
        let mut client = Raw::open(gateway.address).await;
        client.get(STREAM).await.expect("and takes the request");
        surplus.push(client);
    }

    let since = Instant::now();
    let (mut rounds, mut slowest) = (0_u32, Took::default());
    while rounds < ROUNDS || since.elapsed() < STARVED_FOR {
        slowest = slowest.max(round(&mut publisher, &mut readers, &mut tail).await);
        rounds += 1;
    }
    let errors = accept_errors(&mut admin).await;
    let errors_a_second = errors / since.elapsed().as_secs_f64();

    drop(surplus);
    let since = Stopwatch::start();
    let mut late = Raw::open(gateway.address).await;
    late.get(STREAM).await.expect("and takes the request");
    let answer = late.whole_answer().await.expect("an answer");
    let let_in = since.took();
    let errors_of_leaving = accept_errors(&mut admin).await - errors;

    println!(
        "{DESCRIPTORS} descriptors, {HELD} held polls, {SURPLUS} connects: {rounds} rounds of an append to all \
         held polls meanwhile, the slowest {slowest:?}, before {unstarved:?}; {errors_a_second:.1} accept errors a second; let in \
         {let_in:?} after the surplus had left ({errors_of_leaving} errors in that time)"
    );
    assert_eq!(answer.status, 200);
    let most = 2 * unstarved.own() + Duration::from_secs(1);
    assert!(slowest.is_below(most), "a round took {slowest:?}, before {unstarved:?}");
    assert!(errors >= 1.0, "the descriptors did not run out");
    assert!(errors_a_second < 5.0, "the accept loop spins: {errors_a_second} errors a second");
    assert!(let_in.is_below(STARVED_FOR), "let in only after {let_in:?}");
}

/// Appends once, which answers all held polls, and holds them again.
async fn round(publisher: &mut Raw, readers: &mut [Raw], tail: &mut String) -> Took {
    let asked = Stopwatch::start();
    publisher.post(STREAM, "1").await.expect("an open connection");
    assert_eq!(publisher.whole_answer().await.expect("an answer").status, 204);
    for reader in &mut *readers {
        let answer = reader.whole_answer().await.expect("an answer");
        let answer = answer.expect(200);
        assert_eq!(&answer.body[..], &b"[1]"[..]);
        *tail = answer.next_offset();
    }
    poll_all(readers, tail).await;
    asked.took()
}

async fn poll_all(readers: &mut [Raw], offset: &str) {
    let target = format!("{STREAM}?live=long-poll&timeout=55&offset={offset}");
    for reader in readers {
        reader.get(&target).await.expect("an open connection");
    }
}

/// Reads the metric over an existing connection: a new one would not be accepted.
async fn accept_errors(admin: &mut Connection) -> f64 {
    let text = admin.send(get("/metrics")).await.text();
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix("pollgate_accept_errors_total ")?.parse().ok());
    value.expect("a metric")
}

fn lower_descriptors(gateway: &Gateway) {
    let (id, limit) = (gateway.id().to_string(), format!("--nofile={DESCRIPTORS}"));
    let done = std::process::Command::new("prlimit").args(["--pid", &id, &limit]).status();
    assert!(done.expect("prlimit runs").success());
}
