//! Tests of `GuardedStream` and its own timeouts: `TCP_USER_TIMEOUT` of the sockets is off, and the clock is paused.

use std::future::poll_fn;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::sleep;

use super::super::state::OpenConnection;
use super::*;
use crate::budget::{Account, Bounds, Budget, Charge};
use crate::clock::in_time;
use crate::stream::Principal;

/// A connection that holds nothing of a server.
struct Nothing;

impl OpenConnection for Nothing {}

const PIECE: [u8; 16 * 1024] = [7; 16 * 1024];

/// Returns the wrapped side of a connection and its client, which has a small receive buffer.
async fn connected(limits: Limits, phase: Phase) -> (GuardedStream, TcpStream, watch::Sender<Phase>) {
    connected_within(&Budget::unlimited(), limits, phase).await
}

async fn connected_within(
    budget: &Arc<Budget>,
    limits: Limits,
    phase: Phase,
) -> (GuardedStream, TcpStream, watch::Sender<Phase>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(128 * 1024).unwrap();
    let (client, accepted) = tokio::join!(socket.connect(listener.local_addr().unwrap()), listener.accept());
    let (stream, _) = accepted.unwrap();
    let unlimited = SockRef::from(&stream).tcp_user_timeout().unwrap();
    assert!(unlimited.is_none_or(|timeout| timeout.is_zero()), "{unlimited:?}");
    SockRef::from(&stream).set_send_buffer_size(512 * 1024).unwrap();
    let (state, (change, phase)) =
        (Arc::new(ConnectionState::new(Nothing, &budget.owner(Principal::GATEWAY))), watch::channel(phase));
    (
        GuardedStream::new(Transport::plain(stream), Bytes::new(), state, Arc::new(limits), phase),
        client.unwrap(),
        change,
    )
}

fn limits() -> Limits {
    Limits {
        write_timeout: "20s".parse().unwrap(),
        linger_timeout: "5s".parse().unwrap(),
        ..Limits::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_cut_at_once_if_memory_is_critical() {
    let budget = Budget::new(Bounds { memory_max: 64 << 20, streams_max: 1, share_percent: 100 });
    let (mut guarded, _client, _phase) = connected_within(&budget, limits(), Phase::Serving).await;
    let _held = Charge::new(&budget.owner(Principal(1)), Account::Messages, 62 << 20);
    let mut written_at = Instant::now();
    let error = in_time("a write to a client that does not read fails", async {
        loop {
            match guarded.write(&PIECE).await {
                Ok(_) => written_at = Instant::now(),
                Err(error) => return error,
            }
        }
    });
    assert_eq!(error.await.kind(), io::ErrorKind::TimedOut);
    let waited = written_at.elapsed().as_secs_f64();
    assert!(waited < 1.1, "{waited} s");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_given_up_after_the_write_timeout() {
    let (mut guarded, _client, _phase) = connected(limits(), Phase::Serving).await;
    let mut written_at = Instant::now();
    let error = in_time("a write to a client that does not read fails", async {
        loop {
            match guarded.write(&PIECE).await {
                Ok(_) => written_at = Instant::now(),
                Err(error) => return error,
            }
        }
    });
    let error = error.await;
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    let waited = written_at.elapsed().as_secs_f64();
    assert!((19.0..21.1).contains(&waited), "{waited} s");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_slow_again_and_again_has_all_of_the_timeout_each_time() {
    let (mut guarded, client, _phase) = connected(limits(), Phase::Serving).await;
    let reading = async {
        let mut taken = vec![0; 64 * 1024];
        for _ in 0..5 {
            sleep(Duration::from_secs(18)).await;
            client.readable().await.unwrap();
            // Reads everything on its way, so that the window of the connection opens again.
            while client.try_read(&mut taken).is_ok() {}
        }
    };
    let writing = async {
        loop {
            if let Err(error) = guarded.write(&PIECE).await {
                return error;
            }
        }
    };
    in_time("the client reads five times", async {
        tokio::select! {
            () = reading => {}
            error = writing => panic!("given up: {error}"),
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stays_or_goes_on_sending_is_waited_for_no_longer_than_it_may_linger() {
    for (phase, sends, limit) in [
        (Phase::Serving, false, 5),
        (Phase::Serving, true, 5),
        (Phase::Closing, false, 1),
        (Phase::Closing, true, 1),
    ] {
        let (mut guarded, mut client, _phase) = connected(limits(), phase).await;
        let since = Instant::now();
        let sending = async {
            while sends && client.write(&PIECE[..100]).await.is_ok() {
                sleep(Duration::from_millis(100)).await;
            }
            std::future::pending::<()>().await
        };
        in_time("the connection ends", async {
            tokio::select! {
                ended = guarded.shutdown() => ended.unwrap(),
                () = sending => {}
            }
        })
        .await;
        let waited = since.elapsed().as_secs_f64();
        let limit = f64::from(limit);
        assert!((limit..limit + 0.2).contains(&waited), "{phase:?}, sends: {sends}: {waited} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_is_not_waited_for() {
    let (mut guarded, client, _phase) = connected(limits(), Phase::Serving).await;
    let since = Instant::now();
    drop(client);
    in_time("the connection ends", guarded.shutdown()).await.unwrap();
    assert!(since.elapsed() < Duration::from_millis(10));
}

async fn left(guarded: &mut GuardedStream, leaves_by: LeavesBy) {
    in_time("the client is seen to leave", poll_fn(|context| guarded.poll_left(context, leaves_by)))
        .await
        .unwrap();
}

/// Waits until everything that the client has done so far has reached the socket, and returns whether it counts as gone.
async fn has_left(guarded: &mut GuardedStream, leaves_by: LeavesBy) -> bool {
    // Loopback delivers before the client's call returns; the runtime sees the event in its next turn.
    for _ in 0..10 {
        sleep(Duration::from_millis(1)).await;
        let polled = poll_fn(|context| Poll::Ready(guarded.poll_left(context, leaves_by))).await;
        if polled.is_ready() {
            return true;
        }
    }
    false
}

#[tokio::test]
async fn a_client_that_leaves_behind_unread_bytes_is_noticed() {
    for bytes in [0, 1, 100_000] {
        for by_reset in [false, true] {
            let (mut guarded, mut client, _phase) = connected(limits(), Phase::Serving).await;
            client.write_all(&vec![7; bytes]).await.unwrap();
            assert!(!has_left(&mut guarded, LeavesBy::Fin).await);
            if by_reset {
                client.set_zero_linger().unwrap();
            }
            drop(client);
            left(&mut guarded, if by_reset { LeavesBy::Reset } else { LeavesBy::Fin }).await;
        }
    }
}

#[tokio::test]
async fn a_client_that_only_sends_no_more_stays_where_a_reset_is_waited_for() {
    let (mut guarded, mut client, _phase) = connected(limits(), Phase::Serving).await;
    client.write_all(b"request").await.unwrap();
    client.shutdown().await.unwrap();
    assert!(!has_left(&mut guarded, LeavesBy::Reset).await);
    left(&mut guarded, LeavesBy::Fin).await;
    let mut read = Vec::new();
    in_time("all is read", guarded.read_to_end(&mut read)).await.unwrap();
    assert_eq!(read, b"request");
}

#[tokio::test]
async fn what_came_while_a_response_was_pending_is_read_afterwards_in_order_and_once() {
    for (first, second) in [(1, 1), (4096, 4096), (4096, 1), (60_000, 3)] {
        let (mut guarded, mut client, _phase) = connected(limits(), Phase::Serving).await;
        let sent: Vec<u8> = (0..first + second + 5).map(|number| (number % 251) as u8).collect();
        for piece in [&sent[..first], &sent[first..first + second]] {
            client.write_all(piece).await.unwrap();
            assert!(!has_left(&mut guarded, LeavesBy::Fin).await);
        }
        let mut read = vec![0; first + second];
        in_time("what came is read", guarded.read_exact(&mut read)).await.unwrap();
        client.write_all(&sent[first + second..]).await.unwrap();
        let mut rest = [0; 5];
        in_time("what comes later is read", guarded.read_exact(&mut rest)).await.unwrap();
        assert_eq!([&read[..], &rest[..]].concat(), sent);
    }
}
