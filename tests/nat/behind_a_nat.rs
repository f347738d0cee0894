//! Clients behind the NAT.

use std::sync::Arc;
use std::time::Duration;

use pollgate_client::{Event, Form, Settings};
use tokio::time::{Instant, interval, timeout};

use crate::block_on;
use crate::network::{Network, SERVER};
use crate::reader::Reader;
use crate::world::{Gateway, Kind, Publisher, Raw, until};

/// Idle time after which the NAT forgets a connection.
const NAT_SECONDS: u32 = 10;

/// Time after the publish in which no answer may pass the NAT.
const WITHOUT_AN_ANSWER: Duration = Duration::from_secs(19);

/// Time limit for a client to recover, in addition to one and a half heartbeats.
const RECOVERY: Duration = Duration::from_secs(5);

/// Time limit of a delivery without faults, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Forms whose client waits for messages. A short poll has no idle connection.
const WAITING: [Form; 4] = [Form::WebSocket, Form::Sse, Form::Ndjson, Form::LongPoll];

/// Runs a scenario on the server's host, together with the gateway and its publishers.
fn on_the_server<F: Future<Output = ()>>(scenario: impl FnOnce(Arc<Network>, Gateway) -> F + Send + 'static) {
    let network = Arc::new(Network::with_nat_timeout(NAT_SECONDS));
    let server = network.clone();
    let running = network.on_server(move || {
        block_on(async {
            let listen = format!("{SERVER}:0");
            let gateway = Gateway::start(&["--listen", &listen, "--open"]).await;
            scenario(server, gateway).await;
        });
    });
    if let Err(panic) = running.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Settings with this heartbeat interval and hold time.
fn showing_life_every(seconds: u64) -> Settings {
    let heartbeat = Duration::from_secs(seconds);
    Settings { heartbeat_min: heartbeat, heartbeat_max: heartbeat, hold: heartbeat, ..Settings::default() }
}

/// Starts a reader of each form on a stream of its own, and its publisher. The first message has arrived.
async fn in_each_form(network: &Network, gateway: &Gateway, settings: Settings) -> Vec<(Publisher, Reader)> {
    let mut pairs = Vec::new();
    for form in WAITING {
        let stream = form.to_string();
        let mut publisher = Publisher::create(gateway, &stream, Kind::Json).await;
        publisher.append("0").await;
        let mut reader = Reader::start(network, gateway.address, &stream, form, settings.clone());
        reader.next(AT_ONCE).await;
        pairs.push((publisher, reader));
    }
    pairs
}

/// 1. A long poll waits behind the NAT.
/// 2. The NAT forgets the connection.
/// 3. The answer never arrives: the fault of the other scenarios is real.
#[test]
fn a_connection_that_the_nat_has_forgotten_is_dead_without_a_reset() {
    on_the_server(async |network, gateway| {
        let mut publisher = Publisher::create(&gateway, "s", Kind::Json).await;
        let address = gateway.address;
        let waiting = network.on_client(move || {
            block_on(async {
                let mut poll = Raw::open(address).await;
                poll.get("/v1/stream/s?offset=-1&live=long-poll&timeout=55").await.expect("open");
                timeout(WITHOUT_AN_ANSWER, poll.answer()).await.is_ok()
            })
        });
        gateway.until_held(1).await;
        assert_eq!(network.connections_known(), 1);
        until("the NAT forgets", async || network.connections_known() == 0).await;
        publisher.append("1").await;
        gateway.until_held(0).await;
        let waiting = tokio::task::spawn_blocking(move || waiting.join());
        let answered = waiting.await.expect("not cancelled").expect("no panic");
        assert!(!answered, "the NAT let the answer through");
    });
}

/// 1. Clients send heartbeats more often than the NAT forgets.
/// 2. Nothing is published for two and a half times the NAT's timeout.
/// 3. A message arrives at once, on the existing connection.
#[test]
fn a_heartbeat_below_the_nats_limit_keeps_the_connection() {
    on_the_server(async |network, gateway| {
        let mut pairs = in_each_form(&network, &gateway, showing_life_every(4)).await;
        tokio::time::sleep(Duration::from_secs(u64::from(NAT_SECONDS) * 5 / 2)).await;
        for (publisher, reader) in &mut pairs {
            publisher.append("1").await;
            reader.next(AT_ONCE).await;
            let events = reader.events.lock().expect("no panic");
            assert!(matches!(events[..], [Event::Form { from: None, .. }]), "{}: {events:?}", reader.form);
        }
    });
}

/// 1. Clients send heartbeats less often than the NAT forgets, so it forgets the connections.
/// 2. Messages are published: the first arrives within one and a half heartbeats and 5 s, and the others follow in order.
#[test]
fn a_client_abandons_a_forgotten_connection_and_loses_nothing() {
    const HEARTBEAT: u64 = 12;
    on_the_server(async |network, gateway| {
        let mut pairs = in_each_form(&network, &gateway, showing_life_every(HEARTBEAT)).await;
        until("the NAT forgets", async || network.connections_known() == 0).await;
        let published = Instant::now();
        for (publisher, _) in &mut pairs {
            publisher.append("[1,2,3]").await;
        }
        recovered(&mut pairs, published, HEARTBEAT, 3).await;
    });
}

/// 1. Messages are published five times a second.
/// 2. The client's address changes; neither end is told.
/// 3. Messages published after that arrive within one and a half heartbeats and 5 s, and nothing is lost.
#[test]
fn a_client_whose_address_changes_reconnects_and_misses_nothing() {
    const HEARTBEAT: u64 = 4;
    const EACH_ROUND: usize = 25;
    on_the_server(async |network, gateway| {
        let mut pairs = in_each_form(&network, &gateway, showing_life_every(HEARTBEAT)).await;
        let mut number = 1;
        let mut beat = interval(Duration::from_millis(200));
        for _ in 0..2 {
            for _ in 0..EACH_ROUND {
                beat.tick().await;
                for (publisher, _) in &mut pairs {
                    publisher.append(number.to_string()).await;
                }
                number += 1;
            }
            for (_, reader) in &mut pairs {
                for _ in 0..EACH_ROUND {
                    reader.next(RECOVERY + Duration::from_secs(HEARTBEAT * 3 / 2)).await;
                }
            }
            network.change_client_address();
        }
        let changed = Instant::now();
        for (publisher, _) in &mut pairs {
            publisher.append(number.to_string()).await;
        }
        recovered(&mut pairs, changed, HEARTBEAT, 1).await;
    });
}

/// Waits for `messages` messages in each form, all of them published at `since`.
async fn recovered(pairs: &mut [(Publisher, Reader)], since: Instant, heartbeat: u64, messages: usize) {
    let limit = Duration::from_secs(heartbeat * 3 / 2) + RECOVERY;
    for (_, reader) in pairs {
        let arrived = reader.next(limit).await;
        let took = arrived.saturating_duration_since(since);
        println!("{}: {took:.1?} of {limit:?}", reader.form);
        assert!(took <= limit, "{}: {took:?}, over {limit:?}", reader.form);
        for _ in 1..messages {
            reader.next(AT_ONCE).await;
        }
    }
}
