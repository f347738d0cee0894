//! Tests of idle connections on a paused clock, over real sockets.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::super::context::Service;
use super::super::keep_alive::SHEDDING_TIME;
use super::super::state::{ConnectionState, IdleConnections, OpenConnection, Phase};
use super::*;
use crate::budget::Budget;
use crate::clock::{Clock, in_time};
use crate::http::api::access::AccessPolicy;
use crate::http::api::gateway::HoldPolicy;
use crate::hub::Hub;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::store::Memory;
use crate::stream::Principal;

struct Nothing;

impl OpenConnection for Nothing {}

const REQUEST: &[u8] = b"GET /v1/stream/missing HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// The context of a connection, and the phase of its server.
fn context() -> (ConnectionContext, watch::Sender<Phase>) {
    let (limits, metrics, clock) = (Arc::new(Limits::default()), Arc::new(Metrics::new()), Clock::start());
    let hub = Hub::new(Arc::new(Memory::new()), limits.clone(), metrics.clone(), clock);
    let holds = HoldPolicy { default: Duration::from_secs(25), max: Duration::from_secs(55) };
    let access = AccessPolicy::new(IpAddr::V4(Ipv4Addr::LOCALHOST), &[], &[]).unwrap();
    let (mqtt_sockets, _) = mpsc::channel(1);
    let gateway = Gateway::new(Arc::new(hub), limits.clone(), holds, metrics, clock, access, mqtt_sockets);
    let (change, phase) = watch::channel(Phase::Serving);
    let state = Arc::new(ConnectionState::new(Nothing, &Budget::unlimited().owner(Principal::GATEWAY)));
    let service = Arc::new(Service::Gateway(Arc::new(gateway)));
    (ConnectionContext { service, limits, state, idle: IdleConnections::of(phase.clone()), phase }, change)
}

/// A connection that is being served, its client, and the phase of the server.
async fn connected() -> (TcpStream, watch::Sender<Phase>) {
    let (context, change) = context();
    (connect(context).await, change)
}

/// The client of a connection that is being served.
async fn connect(context: ConnectionContext) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (client, accepted) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    tokio::spawn(serve(Transport::plain(accepted.unwrap().0), Bytes::new(), context));
    client.unwrap()
}

/// Sends a request and reads its answer.
async fn request(client: &mut TcpStream) {
    client.write_all(REQUEST).await.unwrap();
    let (mut answer, mut byte) = (Vec::new(), [0]);
    while !answer.ends_with(b"}\n") {
        client.read_exact(&mut byte).await.unwrap();
        answer.extend(byte);
    }
    assert!(answer.starts_with(b"HTTP/1.1 404 "), "{}", String::from_utf8_lossy(&answer));
}

/// Whether the gateway closes an idle connection within a time.
async fn closes_within(client: &mut TcpStream, time: Duration) -> bool {
    match timeout(time, client.read(&mut [0; 1])).await {
        Ok(read) => {
            assert_eq!(read.unwrap(), 0);
            true
        }
        Err(_) => false,
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_closes_early_while_memory_is_critical() {
    in_time("the connections close", async {
        for phase in [Phase::Serving, Phase::Shedding, Phase::Closing] {
            let (mut client, change) = connected().await;
            request(&mut client).await;
            assert!(!closes_within(&mut client, Duration::from_secs(60)).await);
            request(&mut client).await;
            change.send_replace(phase);
            // The connection has a task of its own, so a moment may pass on the paused clock.
            let soon = match phase {
                Phase::Serving => Duration::from_secs(76),
                Phase::Shedding => SHEDDING_TIME + Duration::from_millis(100),
                Phase::Closing | Phase::Stopped => Duration::from_millis(100),
            };
            let is_early = closes_within(&mut client, Duration::from_secs(74).min(soon)).await;
            assert_eq!(is_early, phase != Phase::Serving, "{phase:?}");
            assert!(is_early || closes_within(&mut client, Duration::from_secs(2)).await, "{phase:?}");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_was_idle_while_memory_was_critical_may_be_used_and_be_idle_again() {
    in_time("the connection closes", async {
        let (mut client, change) = connected().await;
        request(&mut client).await;
        change.send_replace(Phase::Shedding);
        request(&mut client).await;
        change.send_replace(Phase::Serving);
        request(&mut client).await;
        assert!(!closes_within(&mut client, Duration::from_secs(74)).await);
        change.send_replace(Phase::Closing);
        assert!(closes_within(&mut client, Duration::from_millis(100)).await);
    })
    .await;
}

/// The allocator has size classes of 192 and 224 bytes.
#[tokio::test]
async fn a_connection_without_its_socket_and_what_it_waits_for_fits_into_192_bytes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (client, _accepted) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let served = serve(Transport::plain(client.unwrap()), Bytes::new(), context().0);
    assert!(size_of_val(&*served) <= 192, "{}", size_of_val(&*served));
}

/// A response that hyper has begun is taken over once everything before it is written, and its reader may have been answered by then.
#[tokio::test(start_paused = true)]
async fn an_append_that_hyper_has_parsed_is_answered_though_its_reader_was_answered_long_before() {
    in_time("both are answered", async {
        let (reading, _change) = context();
        let state = Arc::new(ConnectionState::new(Nothing, reading.state.owner()));
        let ConnectionContext { service, limits, phase, .. } = &reading;
        let (service, limits, phase) = (service.clone(), limits.clone(), phase.clone());
        let idle = IdleConnections::of(phase.clone());
        let publishing = ConnectionContext { service, limits, state: state.clone(), phase, idle };
        let (mut reader, mut publisher) = (connect(reading).await, connect(publishing).await);
        let mut answer = [0; 1024];
        let fields = "host: localhost\r\ncontent-type: text/plain\r\n";
        let create = format!("PUT /v1/stream/s HTTP/1.1\r\n{fields}content-length: 0\r\n\r\n");
        reader.write_all(create.as_bytes()).await.unwrap();
        assert!(reader.read(&mut answer).await.unwrap() > 0);
        let poll = b"GET /v1/stream/s?offset=now&live=long-poll HTTP/1.1\r\nhost: localhost\r\n\r\n";
        reader.write_all(poll).await.unwrap();
        state.set_unsent(true);
        let chunks = format!("{fields}transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n");
        let append = format!("POST /v1/stream/s HTTP/1.1\r\n{chunks}");
        publisher.write_all(append.as_bytes()).await.unwrap();
        let read = reader.read(&mut answer).await.unwrap();
        assert!(answer[..read].ends_with(b"x"), "{}", String::from_utf8_lossy(&answer[..read]));
        state.set_unsent(false);
        // Wakes the connection.
        publisher.write_all(b"G").await.unwrap();
        let read = publisher.read(&mut answer).await.unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 204 "), "{}", String::from_utf8_lossy(&answer[..read]));
    })
    .await;
}
