//! Energy of a phone's radio for a trace of a client's packets.

use std::time::Duration;

use fastrand::Rng;

use super::radio::{Radio, Radios};
use crate::data;

/// A packet, or several that are sent together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketEvent {
    /// Time since the start of the measured time.
    pub at: Duration,
    /// Whether the client sent it.
    pub up: bool,
    /// Bytes with the TCP and IP headers.
    pub bytes: u32,
}

/// Energy of a 4000 mAh battery at 3.85 V.
const BATTERY_JOULES: f64 = 4.0 * 3600.0 * 3.85;

impl Radios {
    /// Returns the energy of one client under each profile, from the packets of several clients that do the same. Those of each are in ascending
    /// order of time and lie within `horizon`.
    ///
    /// One client is assumed to do what they did one after the other, in a random order that is always the same: neighbours may have begun at
    /// similar moments. So a time between two packets may be longer than `horizon`, and who had no packet in it was not asleep all the time. The
    /// profiles assume that nothing else wakes the radio.
    pub fn energy(
        &self,
        clients: impl IntoIterator<Item = Vec<PacketEvent>>,
        horizon: Duration,
    ) -> Vec<data::Energy> {
        let mut clients: Vec<_> = clients.into_iter().collect();
        Rng::with_seed(0).shuffle(&mut clients);
        let (mut events, mut whole) = (Vec::new(), Duration::ZERO);
        for packets in clients {
            events.extend(packets.into_iter().map(|packet| PacketEvent { at: whole + packet.at, ..packet }));
            whole += horizon;
        }
        self.iter().map(|radio| per_client_hour(&radio.name, radio.mean_watts(&events, whole))).collect()
    }
}

/// The share of a phone's battery that this energy is.
pub fn battery_share(joules: f64) -> f64 {
    joules / BATTERY_JOULES
}

/// Converts a mean power above sleep to the figures of a report.
pub fn per_client_hour(radio: &str, watts: f64) -> data::Energy {
    let joules_per_client_hour = watts * 3600.0;
    data::Energy {
        radio: radio.to_owned(),
        joules_per_client_hour,
        battery_per_day: battery_share(joules_per_client_hour * 24.0),
    }
}

impl Radio {
    /// Returns the joules above sleep of a trace that starts with the radio asleep and ends at `horizon`: the sum in
    /// docs/design/cost-model.md without its first term, which every strategy pays.
    pub fn joules(&self, events: &[PacketEvent], horizon: Duration) -> f64 {
        let rest = events.last().map_or(Duration::ZERO, |last| horizon.saturating_sub(last.at));
        self.sum(events, None, rest)
    }

    /// Returns the mean watts above sleep of a client that repeats `events` for ever.
    ///
    /// The measured window begins within a tail and ends within another. The sum therefore treats it as a ring: the gap after
    /// the last packet is also the gap before the first. Otherwise a minute of polls every 25 s would come out a tenth too low.
    pub fn mean_watts(&self, events: &[PacketEvent], horizon: Duration) -> f64 {
        let (Some(first), Some(last), false) = (events.first(), events.last(), horizon.is_zero()) else {
            return 0.0;
        };
        let around = horizon.saturating_sub(last.at) + first.at;
        self.sum(events, Some(around), around) / horizon.as_secs_f64()
    }

    fn sum(&self, events: &[PacketEvent], before_first: Option<Duration>, after_last: Duration) -> f64 {
        let next = events.iter().skip(1).map(Some).chain([None]);
        let mut gap_before = before_first;
        let mut joules = 0.0;
        for (event, next) in events.iter().zip(next) {
            let gap_after = next.map_or(after_last, |next| next.at.saturating_sub(event.at));
            if gap_before.is_none_or(|gap| gap > self.tail_time()) {
                joules += self.promotion_joules();
            }
            joules += self.tail_joules(gap_after);
            let bytes = f64::from(event.bytes);
            joules +=
                if event.up { self.transfer_joules(bytes, 0.0) } else { self.transfer_joules(0.0, bytes) };
            gap_before = Some(gap_after);
        }
        joules
    }

    fn tail_joules(&self, gap: Duration) -> f64 {
        let gap = gap.as_secs_f64();
        self.stages().map(|(begin, end, watts)| watts * (gap.min(end) - begin).max(0.0)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(seconds: f64) -> PacketEvent {
        PacketEvent { at: Duration::from_secs_f64(seconds), up: true, bytes: 0 }
    }

    fn joules(events: &[PacketEvent], horizon: u64) -> Vec<f64> {
        let radios = Radios::default();
        radios.iter().map(|radio| radio.joules(events, Duration::from_secs(horizon))).collect()
    }

    #[test]
    fn one_isolated_packet_costs_the_published_energy() {
        let rounded: Vec<_> =
            joules(&[packet(5.0)], 60).iter().take(3).map(|joules| format!("{joules:.3}")).collect();
        assert_eq!(rounded, ["12.765", "7.382", "0.038"]);
    }

    #[test]
    fn a_gap_shorter_than_the_tail_keeps_the_radio_on() {
        // LTE: one promotion, 3 s and a whole tail of 11.576 s at 1.0755 W.
        let apart = joules(&[packet(0.0), packet(3.0)], 60)[0];
        assert!((apart - (0.2601 * 1.2107 + 14.576 * 1.0755)).abs() < 1e-9, "{apart}");
        // With a gap longer than the tail, the two packets are independent.
        let strangers = joules(&[packet(0.0), packet(20.0)], 60)[0];
        assert!((strangers - 2.0 * joules(&[packet(0.0)], 60)[0]).abs() < 1e-9, "{strangers}");
        // Only the 2 s of the tail before the horizon count.
        let cut = joules(&[packet(58.0)], 60)[0];
        assert!((cut - (0.2601 * 1.2107 + 2.0 * 1.0755)).abs() < 1e-9, "{cut}");
    }

    #[test]
    fn the_second_stage_of_a_tail_follows_the_first() {
        // 3G, half a second into the second stage.
        let joules = joules(&[packet(0.0), packet(8.5882)], 9)[1];
        let gap = 8.0882 * 0.8039 + 0.5 * 0.6013;
        let rest = (9.0 - 8.5882) * 0.8039;
        assert!((joules - (0.5821 * 0.6594 + gap + rest)).abs() < 1e-9, "{joules}");
    }

    #[test]
    fn sent_and_received_bytes_have_different_costs() {
        let megabyte = |up| PacketEvent { at: Duration::ZERO, up, bytes: 1_000_000 };
        let quiet = joules(&[packet(0.0)], 60)[0];
        assert!((joules(&[megabyte(true)], 60)[0] - quiet - 8.0 * 0.43839).abs() < 1e-9);
        assert!((joules(&[megabyte(false)], 60)[0] - quiet - 8.0 * 0.05197).abs() < 1e-9);
    }

    #[test]
    fn idle_power_is_not_charged_to_the_strategy() {
        let mut radio = Radios::default().iter().next().unwrap().clone();
        let before = radio.joules(&[packet(0.0)], Duration::from_secs(60));
        radio.idle_w = 0.1;
        let after = radio.joules(&[packet(0.0)], Duration::from_secs(60));
        assert!((before - after - 0.1 * (0.2601 + 11.576)).abs() < 1e-9);
    }

    #[test]
    fn energy_is_reported_per_client_hour_and_as_a_share_of_a_battery() {
        // One packet per second never lets an LTE radio sleep.
        let events: Vec<_> = (0..60).map(|second| packet(f64::from(second) + 0.5)).collect();
        let energy = |events: &[PacketEvent], horizon| Radios::default().energy([events.to_vec()], horizon);
        let lte = energy(&events, Duration::from_secs(60)).remove(0);
        assert_eq!(lte.radio, "LTE");
        assert!((lte.joules_per_client_hour - 1.0755 * 3600.0).abs() < 1e-6, "{lte:?}");
        assert!((lte.battery_per_day - 1.0755 * 86400.0 / 55_440.0).abs() < 1e-9, "{lte:?}");
        assert_eq!(energy(&[], Duration::from_secs(60))[0].joules_per_client_hour, 0.0);
        assert_eq!(energy(&events, Duration::ZERO)[0].joules_per_client_hour, 0.0);
    }

    #[test]
    fn short_windows_of_many_clients_tell_what_a_phone_takes_whose_packets_come_at_random() {
        // A packet every 20 s, at a moment that is a little later for each client.
        let window = |client: u32| match 20.0 * f64::from(client) / 200.0 {
            at if at < 4.0 => vec![packet(at)],
            _ => Vec::new(),
        };
        let lte = Radios::default().energy((0..200).map(window), Duration::from_secs(4)).remove(0);
        // The closed form of docs/design/cost-model.md.
        let (rate, tail) = (1.0 / 20.0, 11.576);
        let asleep = f64::exp(-rate * tail);
        let watts = 1.0755 * (1.0 - asleep) + rate * asleep * 0.2601 * 1.2107;
        let ratio = lte.joules_per_client_hour / (3600.0 * watts);
        assert!((0.9..1.1).contains(&ratio), "{ratio}");
    }
}
