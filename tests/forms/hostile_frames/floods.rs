//! Many frames: a million fragments, and pings by a client that reads no pongs.

use tokio::time::{Duration, Instant};

use super::{ENDS, Fixture, GOES_ON, PING, TEXT_BEGINS};
use crate::world::{Stopwatch, alone, frame, until};

const MILLION: usize = 1_000_000;

#[tokio::test]
async fn a_million_fragments_are_one_message_and_cost_no_more_than_it() {
    let _alone = alone().await;
    let fixture = Fixture::start(&[]).await;
    for piece in [&b""[..], b"x"] {
        let mut socket = fixture.socket().await;
        let since = Instant::now();
        let fragments = frame(GOES_ON, piece).repeat(1000);
        socket.write(frame(TEXT_BEGINS, b"")).await.unwrap();
        for _ in 0..MILLION / 1000 {
            socket.write(&fragments).await.unwrap();
        }
        fixture.memory_is_flat("before the end");
        socket.write(frame(ENDS, b"")).await.unwrap();
        let answer = socket.json().await.unwrap();
        println!("10^6 fragments of {} bytes: answered after {:?}", piece.len(), since.elapsed());
        if piece.is_empty() {
            assert_eq!(answer["error"]["type"], "urn:pollgate:empty");
        } else {
            let tail = answer["appended"].as_str().expect("an offset");
            assert!(tail.ends_with(&format!("_{MILLION:016x}")), "{tail}");
        }
        fixture.memory_is_flat("afterwards");
    }
}

#[tokio::test]
async fn control_frames_between_fragments_are_answered_and_disturb_nothing() {
    let fixture = Fixture::start(&[]).await;
    let mut socket = fixture.socket().await;
    for bytes in
        [frame(TEXT_BEGINS, b"un"), frame(PING, b"one"), frame(0x8a, b"unasked"), frame(ENDS, b"touched")]
    {
        socket.write(bytes).await.unwrap();
    }
    let answers = [socket.json().await.unwrap(), socket.json().await.unwrap()];
    assert!(answers.iter().any(|answer| answer.get("appended").is_some()), "{answers:?}");
    assert!(answers.iter().any(|answer| answer["data"] == serde_json::json!(["untouched"])), "{answers:?}");
}

#[tokio::test]
async fn a_client_that_pings_and_does_not_read_is_cut_and_costs_no_more_than_its_buffers() {
    let _alone = alone().await;
    let mut fixture = Fixture::start(&["--limit", "write_timeout=500ms"]).await;
    let mut socket = fixture.socket().await;
    let pings = frame(PING, &[b'x'; 125]).repeat(500);
    // Not all are read: the gateway reads a frame after it has written the response to the previous one.
    let mut taken = 0;
    while socket.write(&pings).await.is_ok() {
        taken += pings.len();
        assert!(taken < 256 * 1024 * 1024, "the gateway reads on without being read");
        fixture.memory_is_flat("during the flood");
    }
    let cut = "pollgate_live_cut_total{form=\"websocket\"}";
    until(cut, async || fixture.gateway.metric(cut).await == 1.0).await;
    println!("a flood of pings was cut after {taken} bytes");
    fixture.memory_is_flat("after the flood");
    fixture.is_untouched().await;
}

#[tokio::test]
async fn a_client_that_does_not_answer_pings_is_closed_with_1008_at_its_time() {
    let limits = ["--limit", "websocket_ping=200ms", "--limit", "websocket_pong_timeout=300ms"];
    let fixture = Fixture::start(&limits).await;
    let since = Stopwatch::start();
    let mut mute = fixture.socket().await;
    let bytes = mute.bytes_to_end().await.expect("an end, not a reset");
    let took = since.took();
    let (ping, close) = ([PING, 0], b"\x88\x09\x03\xf0no pong");
    assert_eq!(bytes, [&ping[..], close].concat());
    // A ping without a pong, and the same time for the client's close frame.
    let expected = Duration::from_millis(200 + 300 + 300);
    assert!(took.is_within(&(expected..expected + Duration::from_secs(1))), "{took:?}");
}
