//! What a client behind the NAT sees.

use std::sync::Arc;
use std::time::Duration;

use pollgate_client::{Event, Form, Settings};
use tokio::time::{Instant, interval, timeout};

use crate::block_on;
use crate::network::{Network, SERVER};
use crate::reader::Reader;
use crate::world::{Gateway, Kind, Publisher, Raw, until};

/// How long the NAT remembers a connection without a packet.
const NAT_SECONDS: u32 = 10;

/// From the publishing of a message until the answer is given up that the NAT does not let through.
const WITHOUT_AN_ANSWER: Duration = Duration::from_secs(19);

/// What a client may take to come back beyond one and a half times its heartbeat.
const RECOVERY: Duration = Duration::from_secs(5);

/// When everything works, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(2);

/// The forms whose client waits. A short poll never has a quiet connection.
const WAITING: [Form; 4] = [Form::WebSocket, Form::Sse, Form::Ndjson, Form::LongPoll];

/// Runs a scenario on the server's host, so that the gateway and whoever asks it are there.
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

/// One that shows life this often, and holds polls so long.
fn showing_life_every(seconds: u64) -> Settings {
    let heartbeat = Duration::from_secs(seconds);
    Settings { heartbeat_min: heartbeat, heartbeat_max: heartbeat, hold: heartbeat, ..Settings::default() }
}

/// A reader in each form, of one stream each, and the publishers of those. The first message has arrived.
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
/// 3. The answer never comes: so what the other scenarios survive does happen.
#[test]
fn a_connection_that_the_nat_has_forgotten_is_dead_without_a_word() {
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

/// 1. Clients show life more often than the NAT forgets.
/// 2. For two and a half times as long as it remembers nothing is published.
/// 3. A message arrives at once, on the connection that was there.
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

/// 1. Clients show life less often than the NAT forgets, which it does.
/// 2. A message is published: it arrives within one and a half heartbeats and 5 s, and those behind it in order.
#[test]
fn a_connection_that_was_forgotten_is_given_up_and_nothing_is_lost() {
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

/// 1. Messages come five times a second.
/// 2. The client's address changes, without a word to anybody.
/// 3. What is published after that arrives within one and a half heartbeats and 5 s, and nothing is lost.
#[test]
fn a_client_whose_address_changes_comes_back_and_misses_nothing() {
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

/// Waits for so many messages in each form, all of them published at `since`.
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
