//! The clients of a simulation over real sockets, in real time.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use pollgate_client::{Client, Item, Start, Subscription};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::AgreeError;
use super::case::{Between, Case, ROUND_TRIP};
use crate::network::{Middlebox, Profile};
use crate::simulate::{Outcome, Published, Text, publish, stream};

/// How long late messages are waited for after the last one. Whatever arrives in a simulation, whose clients have an hour, arrives within that.
const CATCHING_UP: Duration = Duration::from_secs(90);

/// A client of a case on a stream of its own.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    case: Arc<Case>,
    /// Place of the case among all.
    place: usize,
    /// Number of the client in its case, which decides when messages are published to it.
    phone: u32,
    /// Number of its stream.
    stream: u32,
    published: Arc<Published>,
}

/// All clients of these cases, each with a stream of its own.
pub(super) fn readings(cases: &[Arc<Case>]) -> Vec<Reading> {
    let of_case = |(place, case): (usize, &Arc<Case>)| {
        let case = case.clone();
        (0..case.simulation.phones).map(move |phone| (place, phone, case.clone()))
    };
    let all = cases.iter().enumerate().flat_map(of_case).zip(0..);
    all.map(|((place, phone, case), stream)| Reading {
        case,
        place,
        phone,
        stream,
        published: Arc::default(),
    })
    .collect()
}

/// Publishes to all of these clients, from beside the gateway.
pub(super) async fn publish_all(
    readings: &[Reading],
    gateway: SocketAddr,
    began: Instant,
) -> Result<(), AgreeError> {
    let client = Client::builder(&format!("http://{gateway}")).build()?;
    let mut publishing = JoinSet::new();
    for Reading { case, phone, stream, published, .. } in readings {
        let simulation = &case.simulation;
        let times = (began, began + simulation.day.length());
        let random = simulation.schedule(*phone);
        publishing.spawn(publish(
            client.clone(),
            *stream,
            simulation.every,
            random,
            times,
            published.clone(),
        ));
    }
    sleep_until(began).await;
    publishing.join_all().await;
    Ok(())
}

/// Reads with all of these clients, and returns the figures of each case. Each value of `changes` is another network that the clients
/// are in; `all_published` becomes true behind the last message.
pub(super) async fn read_all(
    readings: &[Reading],
    gateway: SocketAddr,
    began: Instant,
    changes: &watch::Receiver<u32>,
    all_published: &watch::Receiver<bool>,
) -> Result<Vec<Outcome>, AgreeError> {
    let mut reading = JoinSet::new();
    for of_client in readings {
        let (of_client, changes) = (of_client.clone(), changes.clone());
        let all_published = all_published.clone();
        reading.spawn(async move {
            sleep_until(began).await;
            let client = MeasuredClient::start(&of_client, gateway)?;
            let place = of_client.place;
            Ok::<_, AgreeError>((place, client.read(of_client, began, changes, all_published).await))
        });
    }
    let cases = readings.iter().map(|reading| reading.place + 1).max().unwrap_or_default();
    let mut outcomes = vec![Outcome::default(); cases];
    for ended in reading.join_all().await {
        let (place, outcome) = ended?;
        if let Some(of_case) = outcomes.get_mut(place) {
            of_case.add(outcome);
        }
    }
    Ok(outcomes)
}

/// A client behind its network.
struct MeasuredClient {
    client: Client,
    /// Next to the client: counts its bytes and requests.
    tap: Middlebox,
    /// Further networks in the order of the path, which end with it.
    _path: Vec<Middlebox>,
}

impl MeasuredClient {
    /// Builds the path of a client, which does not connect yet.
    fn start(reading: &Reading, gateway: SocketAddr) -> Result<Self, AgreeError> {
        let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        let mut path = Vec::new();
        let mut next = gateway;
        if let Between::Middlebox(profile) = &reading.case.between {
            path.push(Middlebox::start(profile, any, next)?);
            next = path.last().map_or(next, Middlebox::address);
        }
        let delay = Middlebox::start(&Profile::delaying(ROUND_TRIP / 2), any, next)?;
        let tap = Middlebox::start(&Profile::none(), any, delay.address())?;
        path.push(delay);
        let address = tap.address();
        let client = Client::builder(&format!("http://{address}"))
            .settings(reading.case.simulation.reader.settings())
            .connector(move |_, _| connect(address))
            .build()?;
        Ok(Self { client, tap, _path: path })
    }

    async fn read(
        self,
        reading: Reading,
        began: Instant,
        mut changes: watch::Receiver<u32>,
        mut all_published: watch::Receiver<bool>,
    ) -> Outcome {
        self.client.network_changed(&reading.case.between.label(0));
        let end = began + reading.case.simulation.day.length();
        let mut subscription = self.client.subscribe([stream(reading.stream)], Start::earliest());
        let mut outcome = Outcome { phones: 1, ..Outcome::default() };
        let until_end = async {
            loop {
                tokio::select! {
                    biased;
                    Ok(()) = changes.changed() => {
                        let changes = *changes.borrow_and_update();
                        self.client.network_changed(&reading.case.between.label(changes));
                    }
                    () = receive(&mut subscription, &mut outcome, began) => {}
                    () = sleep_until(end) => break,
                }
            }
        };
        until_end.await;
        let passed = self.tap.passed();
        outcome.requests = passed.requests;
        outcome.connections = passed.connections;
        outcome.bytes = self.tap.bytes();
        // An error means that nothing is published any more.
        drop(all_published.wait_for(|all| *all).await);
        outcome.published = reading.published.count();
        while outcome.received < outcome.published {
            tokio::select! {
                biased;
                () = receive(&mut subscription, &mut outcome, began) => {}
                () = sleep_until(end + CATCHING_UP) => break,
            }
        }
        outcome
    }
}

/// Opens a connection, which takes a round trip.
async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    sleep(ROUND_TRIP).await;
    crate::wire::open(address).await
}

/// Takes the next message. Pends after the last item.
async fn receive(subscription: &mut Subscription, outcome: &mut Outcome, began: Instant) {
    let Some(item) = subscription.next().await else { return std::future::pending().await };
    let Item::Message(message) = item else { return };
    let Ok(Text { number, at }) = serde_json::from_slice(message.data.bytes()) else { return };
    match number.cmp(&outcome.received) {
        std::cmp::Ordering::Equal => {
            outcome.received += 1;
            outcome.latencies.record(began.elapsed().saturating_sub(Duration::from_micros(at)));
        }
        std::cmp::Ordering::Less => outcome.doubled += 1,
        std::cmp::Ordering::Greater => outcome.reordered += 1,
    }
}
