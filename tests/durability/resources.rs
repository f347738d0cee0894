//! The system runs out of descriptors or memory, or interrupts a call: appends are refused or wait, and continue without a
//! restart. Acknowledged messages stay.

use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::crew::{Crew, Stream};
use crate::home::Home;
use crate::readers::expect_all;
use crate::stored;
use crate::sync_error::{Fault, Trace};
use crate::world::command::run;
use crate::world::{Answer, Connection, Gateway, PATIENCE, alone, get, post, put, until};

const STREAM: &str = "/v1/stream/s";

/// Size of one append; a file of the store has room for fewer than 16.
const BYTES: usize = 512 * 1024;

/// More appends than fit into the files that exist before the descriptors run out.
const APPENDS_MAX: usize = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_descriptors_appends_are_refused_until_there_are_some_again() {
    let _turn = alone().await;
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a new folder");
    let gateway = Gateway::start(&stored(&folder.path().join("store"), "always")).await;
    let mut client = gateway.connect().await;
    let mut admin = Connection::open(gateway.admin).await;
    client.send(put(STREAM).header("content-type", "application/octet-stream")).await.expect(201);

    limit_descriptors(&gateway, "4");
    let mut kept = 0;
    let refusal = loop {
        let answer = append(&mut client, kept).await;
        if answer.status != 204 {
            break answer;
        }
        kept += 1;
        assert!(kept < APPENDS_MAX, "the store never needs another file");
    };
    assert_eq!(refusal.status, 503, "{refusal:?}");
    assert!(refusal.headers.contains_key("retry-after"), "{refusal:?}");
    assert_eq!(length(&mut client).await, kept * BYTES, "readers go on");
    admin.send(get("/ready")).await.expect(200);

    limit_descriptors(&gateway, "1024");
    let since = Instant::now();
    while append(&mut client, kept).await.status != 204 {
        assert!(since.elapsed() < PATIENCE, "appends do not work again");
        sleep(Duration::from_millis(50)).await;
    }
    kept += 1;
    assert_eq!(length(&mut client).await, kept * BYTES);
    gateway.kill().await;
    let gateway = Gateway::start(&stored(&folder.path().join("store"), "always")).await;
    assert_eq!(length(&mut gateway.connect().await).await, kept * BYTES, "after a restart");
    println!("refused after {kept} appends without descriptors, and taken again without a restart");
}

/// A call fails several times in a row, in every thread.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_fails_temporarily_loses_nothing_and_needs_no_restart() {
    let _turn = alone().await;
    for (call, error, when) in [
        ("pwrite64", "ENOMEM", "20..26"),
        ("pwrite64", "EINTR", "20..40"),
        ("fdatasync", "EINTR", "10..30"),
        ("pwrite64", "EAGAIN", "30..32"),
    ] {
        let fault = Fault { call, error, when: when.into() };
        let acknowledged = outlive(&fault).await;
        println!("{call} fails with {error} {when}: {acknowledged} messages acknowledged, none lost");
    }
}

/// Runs publishers on a gateway with a fault. It must accept messages afterwards. Returns the number of acknowledged messages.
async fn outlive(fault: &Fault) -> u64 {
    const PUBLISHERS: usize = 2;
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a new folder");
    let store = folder.path().join("store");
    let trace = Trace(folder.path().join("trace"));
    let arguments = stored(&store, "always");
    let streams = Stream::of(PUBLISHERS);
    let gateway = Gateway::start(&arguments).await;
    for stream in &streams {
        stream.create(&gateway).await;
    }
    gateway.kill().await;
    let gateway = Gateway::start_under(&trace.strace(fault), &arguments).await.expect("it starts");
    let home = Home::default();
    home.is(&gateway);
    let mut crew = Crew::start(&home, PUBLISHERS, |_| 100);
    until("a call fails", async || trace.has_failed()).await;
    crew.more(50).await;
    gateway.ask_admin("/ready").await.expect(200);
    let ledger = tokio::time::timeout(PATIENCE, crew.finish()).await.expect("all are taken in the end");
    expect_all(&gateway, &streams, &ledger).await;
    gateway.kill().await;
    let gateway = Gateway::start(&arguments).await;
    expect_all(&gateway, &streams, &ledger).await;
    ledger.total()
}

async fn append(client: &mut Connection, n: usize) -> Answer {
    let body = vec![b'a' + (n % 26) as u8; BYTES];
    client.send(post(STREAM).header("content-type", "application/octet-stream").body(body)).await
}

/// Returns the length of the stream in bytes.
async fn length(client: &mut Connection) -> usize {
    let (mut length, mut offset) = (0, "-1".to_owned());
    loop {
        let answer = client.send(get(format!("{STREAM}?offset={offset}"))).await.expect(200);
        length += answer.body.len();
        offset = answer.next_offset();
        if answer.headers.contains_key("stream-up-to-date") {
            return length;
        }
    }
}

fn limit_descriptors(gateway: &Gateway, descriptors: &str) {
    run("prlimit", &["--pid", &gateway.id().to_string(), &format!("--nofile={descriptors}:1024")]);
}
