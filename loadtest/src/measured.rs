//! [`Measured`]: the measurements of a generator process, how shares are merged, and how they become a line of the report.

use std::collections::BTreeMap;
use std::iter::Sum;
use std::ops::Add;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::data::{Bytes, Deliveries, Energy, Latency, Opening, Requests, Wakes};
use crate::publisher::RoundTrips;
use crate::wire::TotalsAt;

/// A distribution as pairs of a value and its count.
pub type Pairs = Vec<(u64, u64)>;

/// The measurements of one generator process, or the merged ones of several.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measured {
    /// Whether the measured time was cut short.
    pub interrupted: bool,
    /// The measured time.
    pub measured: Duration,
    /// Counts of deliveries.
    pub deliveries: Deliveries,
    /// From the intended publish time to the receipt, in microseconds.
    pub latency: Pairs,
    /// From the arrival of a wake to the answer of the poll after it, in microseconds.
    pub wake_to_poll: Pairs,
    /// Requests and bytes of the readers in the measured time; connections since the start.
    pub totals: TotalsAt,
    /// What the readers had sent and received when all were connected.
    pub opening: TotalsAt,
    /// Energy of a client, as each generator with traced clients has found it, with one entry per radio.
    pub energy: Vec<Vec<Energy>>,
    /// Lateness of the publishers.
    pub lateness: Lateness,
    /// Round trips of the publishers.
    pub round_trips: RoundTrips,
    /// Processor time of the load generator in the measured time.
    pub processor: Duration,
    /// Each trouble with its count.
    pub troubles: BTreeMap<String, u64>,
}

/// Lateness of the publishers' sends.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Lateness {
    /// Messages that were due.
    pub intended: u64,
    /// Messages of these that were sent late or not at all.
    pub late: u64,
    /// 99th percentile of the delay; after a merge the largest of the processes.
    pub p99: Duration,
}

impl Lateness {
    /// Computes the lateness of `intended` messages from the histogram of delays in microseconds. A message is late after
    /// `late_after`; one without a delay was not sent and counts as late.
    pub fn of(intended: u64, lateness: &Histogram<u64>, late_after: Duration) -> Self {
        let limit = u64::try_from(late_after.as_micros()).unwrap_or(u64::MAX);
        let on_time = lateness.iter_recorded().filter(|value| value.value_iterated_to() <= limit);
        let on_time: u64 = on_time.map(|value| value.count_at_value()).sum();
        let p99 = Duration::from_micros(lateness.value_at_quantile(0.99));
        Self { intended, late: intended.saturating_sub(on_time), p99 }
    }

    /// Returns the share of late messages; `None` if no message was due.
    pub fn share(self) -> Option<f64> {
        ratio(self.late as f64, self.intended as f64)
    }
}

/// Converts a histogram to pairs of a value and its count.
pub fn pairs(times: &Histogram<u64>) -> Pairs {
    times.iter_recorded().map(|value| (value.value_iterated_to(), value.count_at_value())).collect()
}

impl Measured {
    /// Merges two shares of one run.
    pub fn and(mut self, other: Self) -> Self {
        self.interrupted |= other.interrupted;
        self.measured = self.measured.max(other.measured);
        self.deliveries = self.deliveries + other.deliveries;
        self.latency.extend(other.latency);
        self.wake_to_poll.extend(other.wake_to_poll);
        self.totals = self.totals + other.totals;
        self.opening = self.opening + other.opening;
        self.energy.extend(other.energy);
        self.lateness = Lateness {
            intended: self.lateness.intended + other.lateness.intended,
            late: self.lateness.late + other.lateness.late,
            p99: self.lateness.p99.max(other.lateness.p99),
        };
        self.round_trips = RoundTrips {
            count: self.round_trips.count + other.round_trips.count,
            sum: self.round_trips.sum + other.round_trips.sum,
        };
        self.processor += other.processor;
        for (trouble, count) in other.troubles {
            *self.troubles.entry(trouble).or_default() += count;
        }
        self
    }

    /// Returns the requests, and what else is counted, per hour of one of `clients` clients. The measured time is not zero.
    fn per_client_hour(&self, count: u64, clients: u32) -> f64 {
        3600.0 * count as f64 / (f64::from(clients) * self.measured.as_secs_f64())
    }

    /// Returns the request figures of `clients` clients.
    pub fn requests(&self, clients: u32) -> Requests {
        Requests {
            per_client_hour: self.per_client_hour(self.totals.requests, clients),
            empty_per_client_hour: self.per_client_hour(self.totals.empty_answers, clients),
            per_delivery: ratio(self.totals.requests as f64, self.deliveries.delivered as f64),
        }
    }

    /// Returns the cost of a connection, as far as the readers know it.
    pub fn opening(&self) -> Opening {
        let TotalsAt { up, down, headers_up, headers_down, connections, .. } = self.opening;
        let bytes = ratio((up + down + headers_up + headers_down) as f64, connections as f64);
        Opening { bytes, cpu: None }
    }

    /// Returns the byte figures of `clients` clients.
    pub fn bytes(&self, clients: u32) -> Bytes {
        let a_client_hour = |bytes: u64| self.per_client_hour(bytes, clients);
        let TotalsAt { up, down, headers_up, headers_down, .. } = self.totals;
        Bytes {
            up: a_client_hour(up),
            down: a_client_hour(down),
            up_with_packets: a_client_hour(up + headers_up),
            down_with_packets: a_client_hour(down + headers_down),
        }
    }

    /// Returns the energy of a client, one entry per radio profile.
    pub fn mean_energy(&self) -> Vec<Energy> {
        let generators = self.energy.len().max(1) as f64;
        let mut sums: Vec<Energy> = Vec::new();
        for energy in self.energy.iter().flatten() {
            let joules = energy.joules_per_client_hour / generators;
            let battery = energy.battery_per_day / generators;
            match sums.iter_mut().find(|sum| sum.radio == energy.radio) {
                Some(sum) => {
                    sum.joules_per_client_hour += joules;
                    sum.battery_per_day += battery;
                }
                None => sums.push(Energy {
                    radio: energy.radio.clone(),
                    joules_per_client_hour: joules,
                    battery_per_day: battery,
                }),
            }
        }
        sums
    }

    /// Returns the figures of the wakes of `clients` clients; `None` if there was none.
    pub fn wakes(&self, clients: u32) -> Option<Wakes> {
        let count: u64 = self.wake_to_poll.iter().map(|(_, count)| count).sum();
        let Latency { p50, p99, .. } = distribution(&self.wake_to_poll)?;
        let per_client_hour = self.per_client_hour(count, clients);
        Some(Wakes { per_client_hour, to_poll_p50: p50, to_poll_p99: p99 })
    }

    /// Returns the distribution of latencies; `None` if nothing arrived.
    pub fn latency(&self) -> Option<Latency> {
        distribution(&self.latency)
    }
}

/// Returns the distribution of values; `None` without a value.
fn distribution(pairs: &Pairs) -> Option<Latency> {
    let mut values = pairs.clone();
    values.sort_unstable();
    let all: u64 = values.iter().map(|(_, count)| count).sum();
    let sum: f64 = values.iter().map(|(value, count)| *value as f64 * *count as f64).sum();
    let (mut below, mut cdf) = (0, Vec::with_capacity(values.len()));
    for (value, count) in &values {
        below += count;
        cdf.push((*value as f64, ratio(below as f64, all as f64)?));
    }
    let (last, _) = *cdf.last()?;
    let at = |share: f64| cdf.iter().find(|(_, reached)| *reached >= share).map_or(last, |(value, _)| *value);
    let [p50, p90, p95, p99, p999, max] = [0.5, 0.9, 0.95, 0.99, 0.999, 1.0].map(at);
    Some(Latency { mean: ratio(sum, all as f64)?, p50, p90, p95, p99, p999, max, cdf: thinned(cdf) })
}

/// Reduces a distribution to about 400 points, enough for a plot. The last point is kept.
fn thinned(cdf: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let (step, last) = (cdf.len().div_ceil(400).max(1), cdf.len().saturating_sub(1));
    cdf.into_iter()
        .enumerate()
        .filter(|(at, _)| at % step == 0 || *at == last)
        .map(|(_, point)| point)
        .collect()
}

/// Divides; `None` if the divisor is not positive, since nothing per nothing is not 0.
pub fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then_some(part / whole)
}

impl Add for Deliveries {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            intended: self.intended + other.intended,
            delivered: self.delivered + other.delivered,
            lost: self.lost + other.lost,
            doubled: self.doubled + other.doubled,
            out_of_order: self.out_of_order + other.out_of_order,
        }
    }
}

impl Sum for Deliveries {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}
