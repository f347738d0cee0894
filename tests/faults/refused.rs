//! More connections at once than the rate limit allows: the surplus gets 503, and none is reset.

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::world::{Answer, Gateway, PATIENCE, Raw, alone};

const RATE: usize = 50;
const CLIENTS: usize = 600;
const STREAM: &str = "/v1/stream/storm?create=1";

#[tokio::test]
async fn a_storm_of_connections_is_answered_with_retry_after_and_none_is_reset() {
    let _turn = alone().await;
    let gateway = Gateway::start(&["--limit", &format!("connections_per_second_max={RATE}")]).await;
    let since = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(publish_once(gateway.address));
    }
    let (mut served, mut refused) = (0, 0);
    while let Some(outcome) = clients.join_next().await {
        let answer = outcome.expect("no panic").expect("an answer and an end without a reset");
        match answer.status.as_u16() {
            204 => served += 1,
            503 => {
                let seconds: u64 = answer.header("retry-after").parse().expect("seconds");
                assert!((1..=60).contains(&seconds), "{answer:?}");
                assert!(answer.says_close(), "{answer:?}");
                refused += 1;
            }
            _ => panic!("{answer:?}"),
        }
    }
    println!(
        "{CLIENTS} connections at once, {RATE} a second allowed: {served} served, {refused} refused, 0 reset"
    );
    assert!(served >= RATE, "only {served} were served");
    // The rate limit admits `RATE` connections at once, and `RATE` more per second.
    let allowed = RATE * (2 + since.elapsed().as_secs() as usize);
    assert!(refused >= CLIENTS.saturating_sub(allowed), "only {refused} were refused");
}

/// Appends a message that is too long to be read together with its head, and waits for the close if one is announced.
async fn publish_once(address: std::net::SocketAddr) -> std::io::Result<Answer> {
    let mut client = Raw::try_open(address).await?;
    let message = format!("\"{}\"", "x".repeat(60_000));
    let exchange = async {
        client.post(STREAM, &message).await?;
        let answer = client.whole_answer().await?;
        if answer.says_close() {
            client.end().await?;
        }
        Ok(answer)
    };
    timeout(PATIENCE, exchange).await.expect("an answer in time")
}
