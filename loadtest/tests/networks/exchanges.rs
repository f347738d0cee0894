//! Requests and responses that proxies pass on unchanged.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::ends::hops;
use crate::scripted::{Part, Scripted, until_it_ends_with};
use crate::world::on_time;

const REQUEST: &str = "POST /v1/stream/a?x=%20&y HTTP/1.1\r\nHost: here\r\nX-Odd-CASE: 1\r\nx-odd-case: 2\r\n\
                       Content-Length: 5\r\nAccept: */*\r\n\r\nhello";
const ANSWER: &str = "HTTP/1.1 200 Quite Fine\r\nContent-Type: text/PLAIN\r\nX-Odd-CASE: 1\r\nETag: \"a\"\r\n\
                      Content-Length: 6\r\n\r\nanswer";

/// Proxies that must not change these exchanges, with timeouts that do not expire.
const PROXIES: [&str; 7] = [
    "{ proxy-cut = { first-byte = 20, next-byte = 20 } }",
    "{ proxy-buffer = {} }",
    "{ proxy-buffer = { bytes = 4096 } }",
    "{ no-websocket = { upgrade = 'stripped' } }",
    "{ websocket-cut = { after = 0.1 } }",
    "{ no-streaming = { gives-up-after = 20 } }",
    "{ lossy-answers = { percent = 0 } }",
];

/// Each proxy forwards two exchanges on one client connection.
#[tokio::test]
async fn requests_and_answers_pass_byte_by_byte() {
    on_time(async || {
        for proxy in PROXIES {
            let scripted = Scripted::behind(&hops(proxy), &[Part::Says(ANSWER)]).await;
            let mut client = scripted.connect().await;
            for _time in 0..2 {
                client.write_all(REQUEST.as_bytes()).await.unwrap();
                assert_eq!(until_it_ends_with(&mut client, ANSWER).await, ANSWER, "{proxy}");
            }
            assert_eq!(*scripted.heard.lock(), [REQUEST, REQUEST], "{proxy}");
            let passed = scripted.middlebox.passed();
            assert_eq!((passed.connections, passed.requests, passed.faults), (1, 2, 0), "{proxy}");
        }
    })
    .await;
}

/// Each piece passes as it is sent, and the end of the connection ends the response.
#[tokio::test]
async fn streaming_responses_pass_piece_by_piece() {
    on_time(async || {
        const GOES_ON: [Part; 5] = [
            Part::Says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Part::Says("5\r\nfirst\r\n"),
            Part::Waits(Duration::from_millis(600)),
            Part::Says("6\r\nsecond\r\n"),
            Part::Says("0\r\n\r\n"),
        ];
        for proxy in [PROXIES[0], PROXIES[3], PROXIES[4], PROXIES[6]] {
            let scripted = Scripted::behind(&hops(proxy), &GOES_ON).await;
            let mut client = scripted.connect().await;
            client.write_all(REQUEST.as_bytes()).await.unwrap();
            let first = until_it_ends_with(&mut client, "first\r\n").await;
            assert!(first.ends_with("\r\n\r\n5\r\nfirst\r\n"), "{proxy}: {first}");
            let rest = until_it_ends_with(&mut client, "0\r\n\r\n").await;
            assert_eq!(rest, "6\r\nsecond\r\n0\r\n\r\n", "{proxy}");
        }
    })
    .await;
}

/// The exchange with the server ends with the client's connection, so that no poll is held without a client.
#[tokio::test]
async fn a_disconnect_of_the_client_ends_the_servers_connection() {
    for proxy in PROXIES {
        let scripted = Scripted::behind(&hops(proxy), &[Part::Echoes]).await;
        let mut client = scripted.connect().await;
        client.write_all(REQUEST.as_bytes()).await.unwrap();
        while scripted.heard.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        let ports = || open_ports(scripted.address.port());
        assert!(ports() > 0);
        drop(client);
        while ports() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// Counts the established connections to a local port, as listed by the kernel.
fn open_ports(port: u16) -> usize {
    let connections = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let (to, established) = (format!(":{port:04X}"), "01");
    let mut rows = connections.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.by_ref().filter(|row| row[2].ends_with(&to) && row[3] == established).count()
}

#[tokio::test]
async fn an_unreachable_server_is_a_bad_gateway() {
    let scripted = Scripted::behind(&hops(PROXIES[0]), &[Part::Closes]).await;
    assert!(scripted.ask(REQUEST).await.starts_with("HTTP/1.1 502 "));
}
