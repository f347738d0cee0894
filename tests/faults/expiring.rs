//! Ten thousand held polls with a token that expires: they end before it does, spread over a second, and come again.

use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;

use crate::world::{Gateway, Raw, alone, post, program, put, until};

const CROWD: usize = 10_000;
const STREAM: &str = "/v1/stream/crowd";

/// One poll in this many is looked at.
const LOOKED_AT: usize = 10;

/// Tenths of the second before the expiry; each has about a tenth of the polls.
const TENTHS: usize = 10;
const IN_A_TENTH_MAX: usize = CROWD / LOOKED_AT * 3 / 20;

fn pollgate(arguments: &[&str]) -> String {
    let output = Command::new(program()).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// When a token expires.
fn expiry(token: &str) -> Timestamp {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    Timestamp::from_second(claims["exp"].as_i64().unwrap()).unwrap()
}

/// Sends the poll of a client.
async fn poll((client, connection): (usize, &mut Raw), offset: &str, token: &str) {
    let target = format!("{STREAM}?live=long-poll&timeout=55&offset={offset}&client=phone-{client:05}");
    let request =
        format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n");
    connection.send(request).await.expect("it takes the request");
}

#[tokio::test]
async fn ten_thousand_held_polls_of_one_token_end_over_a_second_and_come_again() {
    let _turn = alone().await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    pollgate(&["keygen", &path("key")]);
    let token_for = |life: Duration| {
        let life = format!("{}s", life.as_secs());
        let rights = ["--create", "#", "--append", "#", "--read", "#", "--expires", &life];
        pollgate(&[&["token", "--key-file", &path("key")], &rights[..]].concat())
    };
    let lasting = token_for(Duration::from_secs(3600));
    let bearer = format!("Bearer {lasting}");
    let fields = ["--auth", &path("key"), "--access-log", &path("log")];
    let limits = ["--limit", "connections_per_second_max=100000", "--limit", "access_log_bytes_max=16777216"];
    let gateway = Gateway::start(&[&fields[..], &limits[..]].concat()).await;
    let created = gateway.send(put(STREAM).json("").header("authorization", &bearer)).await.expect(201);
    let mut offset = created.next_offset();

    // The time that this takes is enough for the same again, and for a look at a tenth.
    let since = Instant::now();
    let mut crowd = Vec::with_capacity(CROWD);
    for client in 0..CROWD {
        let mut connection = Raw::open(gateway.address).await;
        poll((client, &mut connection), &offset, &lasting).await;
        crowd.push(connection);
    }
    gateway.until_held(CROWD).await;
    let opening = since.elapsed();
    gateway.send(post(STREAM).json("1").header("authorization", &bearer)).await.expect(204);
    for connection in &mut crowd {
        offset = connection.whole_answer().await.expect("an answer").expect(200).next_offset();
    }

    let short = token_for(opening * 3 + Duration::from_secs(4));
    for poller in crowd.iter_mut().enumerate() {
        poll(poller, &offset, &short).await;
    }
    gateway.until_held(CROWD).await;
    let tenths = tenths_before(expiry(&short), &gateway).await;
    for (client, connection) in crowd.iter_mut().enumerate() {
        let answer = connection.whole_answer().await.expect("an answer").expect(204);
        assert_eq!(answer.next_offset(), offset);
        poll((client, connection), &offset, &lasting).await;
    }
    gateway.until_held(CROWD).await;
    gateway.send(post(STREAM).json("2").header("authorization", &bearer)).await.expect(204);
    for connection in &mut crowd {
        assert_eq!(connection.whole_answer().await.expect("an answer").expect(200).text(), "[2]");
    }

    // When each ended, by the clock of the gateway.
    let end = expiry(&short);
    let before = |at: &Timestamp| end.duration_since(*at).as_secs_f64();
    let last = ends(&path("log")).await.iter().map(before).fold(f64::INFINITY, f64::min);
    println!(
        "polls of one token are to end in the tenths of the second before its expiry, last first: {tenths:?}; the last one ended \
         {last:.3} s before"
    );
    assert!(tenths.iter().all(|polls| (1..=IN_A_TENTH_MAX).contains(polls)), "{tenths:?}");
    assert!(last > -1.0, "the last one ended {last} s before the expiry");
}

/// In which tenth of the second before the expiry of their token the held polls will end, as the gateway says. When they really do depends on the machine, too.
async fn tenths_before(expiry: Timestamp, gateway: &Gateway) -> [usize; TENTHS] {
    let mut tenths = [0; TENTHS];
    for client in (0..CROWD).step_by(LOOKED_AT) {
        let found =
            gateway.ask_admin(&format!("/clients?contains=phone-{client:05}")).await.expect(200).json();
        let deadline = found[0]["held"][0]["deadline"].as_str().expect("its poll is held");
        let deadline: Timestamp = deadline.parse().unwrap();
        let before = expiry.duration_since(deadline).as_secs_f64();
        // The text has whole milliseconds.
        assert!((0.0..=1.001).contains(&before), "{before} s before the expiry");
        tenths[((before * TENTHS as f64) as usize).min(TENTHS - 1)] += 1;
    }
    tenths
}

/// Returns when the polls ended that were answered with 204, once all of them are in the log.
async fn ends(log: &str) -> Vec<Timestamp> {
    let read = || {
        let text = std::fs::read_to_string(log).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let ended = lines.filter(|line| line["status"] == 204 && line["method"] == "GET");
        let end = |line: Value| {
            let begun: Timestamp = line["time"].as_str().unwrap().parse().unwrap();
            begun + Duration::from_millis(line["held_ms"].as_u64().unwrap())
        };
        ended.map(end).collect::<Vec<_>>()
    };
    until("all lines are written", async || read().len() == CROWD).await;
    read()
}
