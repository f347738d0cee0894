//! What a simulated day came to, for all phones together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::deaths::Deaths;
use super::link::Packets;
use super::phone::Seen;
use crate::model::energy::PacketEvent;
use crate::model::radio::Radios;

/// Times from the call of publish to the arrival.
#[derive(Debug, Default, Clone)]
pub struct Latencies(Vec<Duration>);

/// Sums over phones.
#[derive(Debug, Default, Clone)]
pub struct Outcome {
    /// Number of phones.
    pub phones: u64,
    /// Messages that the gateway acknowledged.
    pub published: u64,
    /// Publishes that the gateway refused.
    pub refused: u64,
    /// Messages that arrived, each counted once.
    pub received: u64,
    /// Messages that arrived again.
    pub doubled: u64,
    /// Messages that arrived after a later one.
    pub reordered: u64,
    /// Gaps that clients told.
    pub gaps: u64,
    /// Times to the arrival.
    pub latencies: Latencies,
    /// HTTP requests of the phones.
    pub requests: u64,
    /// Connections of the phones.
    pub connections: u64,
    /// Connections that a network forgot.
    pub forgotten: u64,
    /// What phones believed of their connections.
    pub deaths: Deaths,
    /// Content bytes between phones and gateway.
    pub bytes: u64,
    /// The same with the headers of packets.
    pub packet_bytes: u64,
    /// Times at which bytes arrived at a phone after a second or more of silence on their connection.
    pub arrivals: u64,
    /// Joules of the phones' radios above sleep, by the radio.
    pub joules: BTreeMap<Arc<str>, f64>,
    /// Digest of the trace: the same seed gives the same one.
    pub digest: u64,
    /// The traces as text, if they were kept.
    pub trace: String,
}

impl Outcome {
    /// Messages that were acknowledged and did not arrive.
    pub fn lost(&self) -> u64 {
        self.published.saturating_sub(self.received)
    }

    /// Whether every message was taken and arrived, once and in order.
    pub fn is_whole(&self) -> bool {
        self.lost() + self.refused + self.doubled + self.reordered + self.gaps == 0
    }

    /// Adds another group, or a client.
    pub(crate) fn add(&mut self, other: Self) {
        self.phones += other.phones;
        self.published += other.published;
        self.refused += other.refused;
        self.received += other.received;
        self.doubled += other.doubled;
        self.reordered += other.reordered;
        self.gaps += other.gaps;
        self.latencies.0.extend(other.latencies.0);
        self.requests += other.requests;
        self.connections += other.connections;
        self.forgotten += other.forgotten;
        self.deaths.add(other.deaths);
        self.bytes += other.bytes;
        self.packet_bytes += other.packet_bytes;
        self.arrivals += other.arrivals;
        for (radio, joules) in other.joules {
            *self.joules.entry(radio).or_default() += joules;
        }
        self.digest = self.digest.rotate_left(1) ^ other.digest;
        self.trace.push_str(&other.trace);
    }

    /// Adds a phone of this group, which lasted until `horizon`.
    pub(super) fn add_phone(
        &mut self,
        (published, refused): (u64, u64),
        seen: &Seen,
        packets: &Packets,
        radios: &Radios,
        horizon: Duration,
    ) {
        let joules = joules(&packets.events, radios, horizon);
        self.add(Self {
            phones: 1,
            published,
            refused,
            received: seen.received,
            doubled: seen.doubled,
            reordered: seen.reordered,
            gaps: seen.gaps,
            latencies: seen.latencies.clone(),
            requests: packets.requests,
            connections: packets.connections,
            forgotten: packets.forgotten,
            deaths: packets.deaths,
            bytes: packets.bytes,
            packet_bytes: packets.events.iter().map(|(packet, _)| u64::from(packet.bytes)).sum(),
            arrivals: packets.arrivals,
            joules,
            ..Self::default()
        });
    }
}

impl Latencies {
    pub(crate) fn record(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// The mean; `None` without a time.
    pub fn mean(&self) -> Option<Duration> {
        let count = self.0.len() as f64;
        (count > 0.0).then(|| self.0.iter().sum::<Duration>().div_f64(count))
    }

    /// The times at these shares of all, in ascending order of time; `None` without a time.
    pub fn quantiles<const N: usize>(&self, shares: [f64; N]) -> Option<[Duration; N]> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let last = sorted.len().checked_sub(1)?;
        let at = |share: f64| (last as f64 * share).round() as usize;
        Some(shares.map(|share| sorted.get(at(share).min(last)).copied().unwrap_or_default()))
    }
}

/// The energy of each radio for the packets that used it.
fn joules(events: &[(PacketEvent, Arc<str>)], radios: &Radios, horizon: Duration) -> BTreeMap<Arc<str>, f64> {
    let mut of_each: BTreeMap<Arc<str>, Vec<PacketEvent>> = BTreeMap::new();
    for (event, radio) in events {
        of_each.entry(radio.clone()).or_default().push(*event);
    }
    let known = |name: &Arc<str>| radios.iter().find(|radio| radio.name == **name).cloned();
    let joules = of_each.into_iter().map(|(name, events)| {
        let joules = known(&name).map_or(0.0, |radio| radio.joules(&events, horizon));
        (name, joules)
    });
    joules.collect()
}
