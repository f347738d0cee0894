//! Polls whose clients disconnect: with a FIN, with a reset, with bytes after their request, many per second and for a long
//! time.

use std::time::Duration;

use http_body_util::Empty;
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http2::handshake;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::measure::{json_stream, mib, until_empty};
use crate::world::mqtt::{Hello, Mqtt};
use crate::world::{Gateway, Raw, Stopwatch, alone, frame, get, handshake as websocket_handshake, until};

const STREAM: &str = "/v1/stream/left";
/// Time limit until the state of a disconnected client is released.
const GONE: Duration = Duration::from_secs(1);

/// Time limit until another client is served after all slots were taken by clients that disconnected.
const SERVED: Duration = Duration::from_millis(1500);
const SLOTS: usize = 500;

const POLLS_A_SECOND: u32 = 40;
const SECONDS: u32 = 8;

#[tokio::test]
async fn a_poll_whose_client_leaves_by_fin_or_by_reset_is_gone_within_a_second() {
    let _turn = alone().await;
    let gateway = Gateway::start(&[]).await;
    let target = target(&gateway).await;
    for by_reset in [false, true] {
        let poll = ask(&gateway, &target).await;
        gateway.until_held(1).await;
        leave(poll, by_reset);
        let gone = until_empty(&gateway).await;
        println!("a poll abandoned by {}: gone after {gone:?}", if by_reset { "RST" } else { "FIN" });
        assert!(gone.is_below(GONE), "{gone:?}");
    }
}

/// Bytes after a request: a part of the next one, whole ones, and more than the gateway reads at once.
fn bytes_behind() -> [String; 3] {
    let next = "GET /v1/stream/left HTTP/1.1\r\nHost: localhost\r\n\r\n";
    ["G".to_owned(), next.repeat(3), next.repeat(400)]
}

#[tokio::test]
async fn a_client_that_leaves_with_bytes_behind_its_request_is_gone_within_a_second() {
    let _turn = alone().await;
    let gateway = Gateway::start(&[]).await;
    let tail = json_stream(&gateway, STREAM).await;
    let many = "/v1/streams?stream=left&from=earliest";
    let envelope = gateway.send(get(many)).await.expect(200).json();
    let resume = envelope["resume"].as_str().expect("a resume token");
    let requests = [
        format!("{STREAM}?live=long-poll&timeout=55&offset={tail}"),
        format!("/v1/streams?stream=left&resume={resume}&live=long-poll&timeout=55"),
        format!("{STREAM}?live=sse&offset={tail}"),
        format!("{STREAM}?live=ndjson&offset={tail}"),
    ];
    for target in &requests {
        // Also a request that only hyper parses.
        for field in ["", "Connection: keep-alive, x\r\n"] {
            for behind in bytes_behind() {
                for (by_reset, at_once) in [(false, true), (false, false), (true, true), (true, false)] {
                    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{field}\r\n");
                    let mut poll = gateway.connect_raw().await;
                    let waits = async || match target.contains("live=long-poll") {
                        true => gateway.until_held(1).await,
                        false => gateway.until_waiting(1).await,
                    };
                    if at_once {
                        poll.send(format!("{request}{behind}")).await.expect("open");
                        waits().await;
                    } else {
                        poll.send(request).await.expect("open");
                        waits().await;
                        poll.send(&behind).await.expect("open");
                        sleep(Duration::from_millis(5)).await;
                    }
                    leave(poll, by_reset);
                    let gone = until_empty(&gateway).await;
                    let case = format!("{target} {field:?} {} bytes, by reset: {by_reset}", behind.len());
                    assert!(gone.is_below(GONE), "{case}, at once: {at_once}: {gone:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn five_hundred_abandoned_polls_with_a_byte_after_them_do_not_block_other_clients() {
    let _turn = alone().await;
    let slots = format!("connections_max={SLOTS}");
    let gateway = Gateway::start(&["--limit", &slots, "--limit", "connections_per_second_max=100000"]).await;
    let target = target(&gateway).await;
    // Waits for the end of the connections that created the stream.
    until("all slots are free", async || gateway.metric("pollgate_connections").await <= 1.0).await;
    let mut polls = Vec::new();
    for _ in 0..SLOTS {
        let mut poll = ask(&gateway, &target).await;
        poll.send("G").await.expect("open");
        polls.push(poll);
    }
    gateway.until_held(SLOTS).await;
    gateway.send(get(STREAM)).await.expect(503);
    let since = Stopwatch::start();
    drop(polls);
    until("a GET is answered", async || gateway.send(get(STREAM)).await.status == 200).await;
    let served = since.took();
    let stall = gateway.longest_stall().await;
    println!(
        "{SLOTS} polls vanish with a byte behind each: another client is served after {served:?}; a task held a worker \
         thread for at most {stall:.1?}"
    );
    assert!(served.is_below(SERVED), "{served:?}");
    let gone = until_empty(&gateway).await;
    assert!(gone.is_below(GONE), "{gone:?}");
}

#[tokio::test]
async fn clients_of_http2_websocket_and_mqtt_that_leave_within_a_frame_are_gone_within_a_second() {
    let _turn = alone().await;
    let gateway = Gateway::start(&[]).await;
    let target = target(&gateway).await;
    until("the connection is closed", async || gateway.metric("pollgate_connections").await <= 1.0).await;

    let stream = TcpStream::connect(gateway.address).await.expect("it accepts");
    let (mut sender, connection) =
        handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    let request = Request::get(format!("http://{}{target}", gateway.address)).body(Empty::<Bytes>::new());
    let answer = tokio::spawn(sender.send_request(request.expect("a request")));
    let connection = tokio::spawn(connection);
    gateway.until_held(1).await;
    // Dropped without a GOAWAY.
    connection.abort();
    answer.abort();
    let gone = until_empty(&gateway).await;
    assert!(gone.is_below(GONE), "HTTP/2: {gone:?}");

    for by_reset in [false, true] {
        let mut socket = gateway.connect_raw().await;
        let target = target.replace("long-poll&timeout=55", "websocket");
        socket.send(websocket_handshake(&target) + "\r\n").await.expect("open");
        socket.whole_answer().await.expect("open").expect(101);
        gateway.until_waiting(1).await;
        let message = frame(0x81, b"1234567890");
        socket.send(&message[..7]).await.expect("open");
        leave(socket, by_reset);
        let gone = until_empty(&gateway).await;
        assert!(gone.is_below(GONE), "WebSocket: {gone:?}");
    }

    let mut client = Mqtt::connect(gateway.mqtt, &Hello::new("leaver")).await;
    client.subscribe("left", 1).await;
    client.send(&[0x30, 20, 0]).await;
    gateway.until_mqtt_clients(1).await;
    let since = Stopwatch::start();
    drop(client);
    gateway.until_mqtt_clients(0).await;
    let gone = since.took();
    assert!(gone.is_below(GONE), "MQTT: {gone:?}");
}

#[tokio::test]
async fn forty_abandoned_polls_a_second_leave_no_waiter_and_no_memory() {
    let _turn = alone().await;
    let gateway = Gateway::start(&[]).await;
    let target = target(&gateway).await;
    abandon_for(&gateway, &target, SECONDS / 2).await;
    until_empty(&gateway).await;
    let before = gateway.memory_bytes();
    let most_held = abandon_for(&gateway, &target, SECONDS).await;
    let gone = until_empty(&gateway).await;
    let after = gateway.memory_bytes();
    println!(
        "{POLLS_A_SECOND} abandoned polls a second for {SECONDS} s: at most {most_held} held at a time, the \
         table empty after {gone:?}, PSS MiB {:.2} before and {:.2} after",
        mib(before),
        mib(after)
    );
    assert!(gone.is_below(GONE), "{gone:?}");
    assert!(most_held < 2 * POLLS_A_SECOND as usize, "{most_held} abandoned polls were held at once");
    assert!(after as f64 <= before as f64 * 1.1, "memory grew from {before} to {after} bytes");
}

/// Opens polls at the rate and abandons each one when the next is open, alternately by FIN and by reset. Returns the largest
/// number of held polls, which is read once per second.
async fn abandon_for(gateway: &Gateway, target: &str, seconds: u32) -> usize {
    let mut pace = interval(Duration::from_secs(1) / POLLS_A_SECOND);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut most_held = 0;
    let mut last = None;
    for round in 0..POLLS_A_SECOND * seconds {
        pace.tick().await;
        if let Some(poll) = last.replace(ask(gateway, target).await) {
            leave(poll, round % 2 == 0);
        }
        if round % POLLS_A_SECOND == 0 {
            most_held = most_held.max(gateway.metric("pollgate_held_polls").await as usize);
        }
    }
    most_held
}

async fn target(gateway: &Gateway) -> String {
    let tail = json_stream(gateway, STREAM).await;
    format!("{STREAM}?live=long-poll&timeout=55&offset={tail}")
}

async fn ask(gateway: &Gateway, target: &str) -> Raw {
    let mut poll = Raw::open(gateway.address).await;
    poll.get(target).await.expect("it takes the request");
    poll
}

fn leave(poll: Raw, by_reset: bool) {
    if by_reset {
        poll.reset();
    }
}
