//! A group of phones with their gateway, on one thread and one paused clock.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fastrand::Rng;
use pollgate::clock::Clock;
use pollgate::config::{MqttAddress, Settings, StorePlace};
use pollgate::limits::Span;
use pollgate::server::{Running, Server};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::link::Link;
use super::outcome::Outcome;
use super::phone::{Phone, Reader};
use super::publisher::{Published, beside, publish};
use super::trace::Trace;
use super::{Simulation, SimulationError};
use crate::model::radio::Radios;

/// The day: 15 January 2026.
pub(super) const MORNING: Duration = Duration::from_secs(1_768_435_200);

/// Where the gateway listens besides: nobody connects to this address by mistake, as a client of a server that has ended may to a port of
/// 127.0.0.1 that the simulated gateway was given.
pub(super) const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 83, 1)), 0);

/// Interval of the gateway's own pings to phones that send them by Mars's rule: longer than theirs.
const MARS_PING: Span = Span::seconds(3600);

/// How long phones have to catch up after the day's last message: until a form that was given up is surely tried again.
const CATCHING_UP: Duration = Duration::from_secs(3600);

/// Simulates the phones of one group.
pub(super) fn run(simulation: &Simulation, phones: Range<u32>) -> Result<Outcome, SimulationError> {
    // What gateway and clients draw at random, they draw from the generator of the thread.
    fastrand::seed(seed(simulation, phones.start, 0));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    let outcome = runtime.block_on(simulate(simulation, phones));
    // Nothing that is left is waited for: its clock stands still.
    runtime.shutdown_background();
    outcome
}

impl Simulation {
    /// The random numbers that decide when messages are published to a phone.
    pub(crate) fn schedule(&self, phone: u32) -> Rng {
        Rng::with_seed(seed(self, phone, 1))
    }
}

/// A seed for one part of the simulation.
fn seed(simulation: &Simulation, phone: u32, part: u64) -> u64 {
    Rng::with_seed(simulation.seed ^ (u64::from(phone) << 8) ^ (part << 60)).u64(..)
}

pub(super) async fn gateway(simulation: &Simulation) -> Result<Arc<Running>, SimulationError> {
    let mut settings = Settings {
        store: StorePlace::Memory,
        listen: LISTEN,
        admin: LISTEN,
        mqtt: MqttAddress::Off,
        ..Settings::default()
    };
    if simulation.reader == Reader::Mars {
        // These phones send the pings.
        settings.limits.websocket_ping = MARS_PING;
    }
    let hold = simulation.reader.hold();
    if hold > settings.hold_max.get() {
        settings.hold_max = format!("{}s", hold.as_secs()).parse().map_err(SimulationError::Hold)?;
    }
    let server = Server::bind_simulated(&settings, Clock::of_tokio(SystemTime::UNIX_EPOCH + MORNING))?;
    Ok(Arc::new(server.start().await?))
}

async fn simulate(simulation: &Simulation, phones: Range<u32>) -> Result<Outcome, SimulationError> {
    let gateway = gateway(simulation).await?;
    let trace = Arc::new(Trace::new(simulation.keeps_trace));
    let began = Instant::now();
    let end = began + simulation.day.length();
    let publisher = beside(gateway.clone())?;
    let mut reading = Vec::new();
    for phone in phones {
        let published = Arc::new(Published::default());
        let (all_published, mut expected) = watch::channel(None);
        let work = publish(
            publisher.clone(),
            phone,
            simulation.every,
            simulation.schedule(phone),
            (began, end),
            published.clone(),
        );
        let count = published.clone();
        let publishing = tokio::spawn(async move {
            work.await;
            all_published.send_replace(Some(count.count()));
            // The phone may still look at it.
            all_published.closed().await;
        });
        let link = Arc::new(Link::new(phone, seed(simulation, phone, 2), trace.clone(), began));
        let mut reader =
            Phone::start(phone, simulation.reader, &simulation.day, link, gateway.clone(), began)?;
        let link = reader.link.clone();
        let counted = tokio::spawn(async move {
            sleep_until(end).await;
            link.packets()
        });
        reading.push(tokio::spawn(async move {
            reader.read(&mut expected, end + CATCHING_UP).await;
            publishing.abort();
            (reader.seen.clone(), counted.await, published)
        }));
    }
    let (mut outcome, radios) = (Outcome::default(), Radios::default());
    for phone in reading {
        let (seen, packets, published) = phone.await.map_err(std::io::Error::other)?;
        let (packets, counts) =
            (packets.map_err(std::io::Error::other)?, (published.count(), published.refused()));
        outcome.add_phone(counts, &seen, &packets, &radios, simulation.day.length());
    }
    outcome.digest = trace.digest();
    outcome.trace = trace.text();
    Ok(outcome)
}
