//! Effects of proxies on upgraded connections.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::ends::{expect, hears, hops, says};
use crate::scripted::{Part, Scripted};
use crate::world::on_time;

const UPGRADE: &str = "GET /v1/stream/a?live=websocket HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\n\
                       Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const SWITCHES: [Part; 2] = [Part::Says(SWITCH), Part::Echoes];

async fn upgraded(scripted: &Scripted) -> TcpStream {
    let mut client = scripted.connect().await;
    client.write_all(UPGRADE.as_bytes()).await.unwrap();
    expect(&mut client, SWITCH).await;
    client
}

/// The client receives exactly the bytes that it has sent, and then the end.
#[tokio::test]
async fn an_upgraded_connection_passes_unchanged() {
    on_time(async || {
        for proxy in [
            "{ proxy-cut = { first-byte = 20, next-byte = 20 } }",
            "{ proxy-buffer = {} }",
            "{ no-streaming = { gives-up-after = 20 } }",
            "{ lossy-answers = { percent = 0, twice-every = 1 } }",
            "{ nat-idle = { after = 20 } }, { proxy-cut = { next-byte = 20 } }",
        ] {
            let scripted = Scripted::behind(&hops(proxy), &SWITCHES).await;
            let mut client = upgraded(&scripted).await;
            let sent: Vec<u8> = (0..=255).cycle().take(100_000).collect();
            client.write_all(&sent).await.unwrap();
            client.shutdown().await.unwrap();
            assert!(hears(&mut client).await.unwrap() == sent, "{proxy}");
            assert_eq!(*scripted.heard.lock(), [UPGRADE], "{proxy}");
            assert_eq!(scripted.middlebox.passed().faults, 0, "{proxy}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_proxy_without_websockets_strips_or_refuses() {
    on_time(async || {
        const PLAIN: [Part; 1] = [Part::Says("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n")];
        for (upgrade, status, heard) in [("stripped", "426", 1), ("refused", "400", 0)] {
            let network = hops(&format!("{{ no-websocket = {{ upgrade = '{upgrade}' }} }}"));
            let scripted = Scripted::behind(&network, &PLAIN).await;
            let got = scripted.ask(UPGRADE).await;
            assert!(got.starts_with(&format!("HTTP/1.1 {status} ")), "{upgrade}: {got}");
            let requests = scripted.heard.lock().clone();
            assert_eq!((requests.len(), scripted.middlebox.passed().faults), (heard, 1));
            assert!(
                requests
                    .iter()
                    .all(|request| !request.contains("Upgrade") && request.contains("Sec-WebSocket")),
                "{requests:?}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_websocket_is_cut_soon_after_its_upgrade() {
    on_time(async || {
        let scripted = Scripted::behind(&hops("{ websocket-cut = { after = 0.5 } }"), &SWITCHES).await;
        let began = Instant::now();
        let mut client = upgraded(&scripted).await;
        client.write_all(b"hello").await.unwrap();
        assert_eq!(hears(&mut client).await.unwrap(), b"hello");
        assert!(began.elapsed() > Duration::from_millis(490), "{:?}", began.elapsed());
        assert_eq!(scripted.middlebox.passed().faults, 1);
    })
    .await;
}

/// Only bytes from the server keep it alive.
#[tokio::test]
async fn a_proxy_cuts_a_websocket_without_bytes_from_the_server() {
    on_time(async || {
        let network = hops("{ proxy-cut = { next-byte = 0.5 } }");
        let scripted = Scripted::behind(&network, &SWITCHES).await;
        let began = Instant::now();
        let mut client = upgraded(&scripted).await;
        for _time in 0..4 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            client.write_all(b"hello").await.unwrap();
            expect(&mut client, "hello").await;
        }
        assert!(began.elapsed() > Duration::from_millis(700) && scripted.middlebox.passed().faults == 0);
        hears(&mut client).await.unwrap();
        assert_eq!(scripted.middlebox.passed().faults, 1);
        let deaf = crate::ends::Ends::of(&network).await;
        let (mut client, mut server) = deaf.connect_upgraded(UPGRADE, SWITCH).await;
        for _time in 0..3 {
            says(&mut client, &mut server).await;
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        hears(&mut client).await.unwrap();
        assert_eq!(deaf.middlebox.passed().faults, 1);
    })
    .await;
}
