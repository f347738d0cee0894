//! A sweep: strategies over lists of settings and rates, and their Pareto fronts.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::data::{Deliveries, Run};
use crate::model::pareto::{Point, front};
use crate::strategies::Strategy;

/// Latencies that differ by less than this share are alike.
const ALIKE: f64 = 0.05;

/// The lists of settings to try. Each interval is a short poll, each hold a long poll, each heartbeat one strategy per live
/// form.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Grid {
    /// Intervals of short polls.
    pub intervals: Vec<Duration>,
    /// Hold times of long polls.
    pub holds: Vec<Duration>,
    /// Heartbeats of SSE, NDJSON, WebSocket and MQTT.
    pub heartbeats: Vec<Duration>,
    /// Messages per second to each stream.
    pub rates: Vec<f64>,
}

/// Result of a sweep.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sweep {
    /// Radio profile of the energy figures.
    pub radio: String,
    /// One entry per rate, because only runs of one rate are comparable.
    pub rates: Vec<SweptRate>,
}

/// The runs of one rate.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SweptRate {
    /// Messages per second to each stream.
    pub rate: f64,
    /// One per strategy.
    pub points: Vec<SweepPoint>,
    /// Indices of the points on the front of requests and p95, by ascending requests; without those that lost messages.
    pub requests_front: Vec<usize>,
    /// Indices of the points on the front of energy and p95; a point without energy is not on it.
    pub energy_front: Vec<usize>,
}

/// Figures of a run in a sweep.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SweepPoint {
    /// The strategy as on the command line.
    pub strategy: String,
    /// Requests per client-hour.
    pub requests_per_client_hour: f64,
    /// Joules per client-hour on the sweep's radio.
    pub joules_per_client_hour: Option<f64>,
    /// 95th percentile of the latency in microseconds; `None` if nothing arrived.
    pub p95: Option<f64>,
    /// What arrived. A point that lost more than 1 % is on no front.
    pub deliveries: Deliveries,
}

impl Grid {
    /// Returns the strategies of the grid; every rate runs all of them.
    pub fn strategies(&self) -> Vec<Strategy> {
        let short = self.intervals.iter().copied().map(Strategy::ShortPoll);
        let long = self.holds.iter().copied().map(Strategy::LongPoll);
        let forms = [Strategy::Sse, Strategy::Ndjson, Strategy::WebSocket, Strategy::Mqtt];
        let live = forms.into_iter().flat_map(|form| self.heartbeats.iter().copied().map(Some).map(form));
        short.chain(long).chain(live).collect()
    }
}

impl Sweep {
    /// Builds the sweep from the runs of each rate, with the energy on `radio`.
    pub fn new(radio: &str, runs: &[(f64, Vec<Run>)]) -> Self {
        let rates = runs.iter().map(|(rate, runs)| SweptRate::new(*rate, runs, radio)).collect();
        Self { radio: radio.to_owned(), rates }
    }
}

impl fmt::Display for Sweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for swept in &self.rates {
            let names = |front: &[usize]| {
                let points = front.iter().filter_map(|&index| swept.points.get(index));
                let names: Vec<_> = points.map(|point| point.strategy.as_str()).collect();
                if names.is_empty() { "nothing to compare".to_owned() } else { names.join(", ") }
            };
            writeln!(f, "at {} messages a second nothing beats, in p95 latency and", swept.rate)?;
            writeln!(f, "  requests: {}", names(&swept.requests_front))?;
            writeln!(f, "  energy ({}): {}", self.radio, names(&swept.energy_front))?;
            for point in swept.points.iter().filter(|point| !point.deliveries.are_comparable()) {
                let Deliveries { intended, lost, .. } = point.deliveries;
                writeln!(f, "  left out, because it lost {lost} of {intended} messages: {}", point.strategy)?;
            }
        }
        Ok(())
    }
}

impl SweptRate {
    fn new(rate: f64, runs: &[Run], radio: &str) -> Self {
        let points: Vec<_> = runs.iter().map(|run| SweepPoint::new(run, radio)).collect();
        let front_by = |cost: fn(&SweepPoint) -> Option<f64>| {
            let costs = points.iter().map(|point| {
                let latency = point.p95.filter(|_| point.deliveries.are_comparable())?;
                Some(Point { cost: cost(point)?, latency })
            });
            front(&costs.collect::<Vec<_>>(), ALIKE)
        };
        let requests_front = front_by(|point| Some(point.requests_per_client_hour));
        let energy_front = front_by(|point| point.joules_per_client_hour);
        Self { rate, points, requests_front, energy_front }
    }
}

impl SweepPoint {
    fn new(run: &Run, radio: &str) -> Self {
        let energy = run.energy.iter().find(|energy| energy.radio == radio);
        Self {
            strategy: run.strategy.clone(),
            requests_per_client_hour: run.requests.per_client_hour,
            joules_per_client_hour: energy.map(|energy| energy.joules_per_client_hour),
            p95: run.latency.as_ref().map(|latency| latency.p95),
            deliveries: run.deliveries,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn a_grid_combines_each_setting_with_each_of_its_forms() {
        let seconds = |list: &[u64]| list.iter().copied().map(Duration::from_secs).collect();
        let grid = Grid {
            intervals: seconds(&[1, 5]),
            holds: seconds(&[25]),
            heartbeats: seconds(&[15, 45]),
            rates: vec![0.2],
        };
        let texts: Vec<_> = grid.strategies().iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "short-poll:1s",
                "short-poll:5s",
                "long-poll:25s",
                "sse:15s",
                "sse:45s",
                "ndjson:15s",
                "ndjson:45s",
                "websocket:15s",
                "websocket:45s",
                "mqtt:15s",
                "mqtt:45s"
            ]
        );
    }

    #[test]
    fn each_rate_has_its_own_fronts() {
        let mut runs = fixture::report().runs;
        runs[0].energy.clear();
        let sweep = Sweep::new("LTE", &[(0.2, runs.clone()), (2.0, runs[..2].to_vec())]);
        let [both, two] = &sweep.rates[..] else { panic!("{sweep:?}") };
        // The faster of the two short polls sends more requests, so both are on the front.
        assert_eq!((two.requests_front.as_slice(), two.energy_front.as_slice()), (&[1, 0][..], &[1][..]));
        assert_eq!(both.points.len(), runs.len());
        assert!(!both.requests_front.contains(&1), "an open connection beats a short poll in both");
    }

    #[test]
    fn what_does_not_deliver_is_never_best() {
        let mut runs = fixture::report().runs;
        for (run, lost_percent) in runs.iter_mut().zip([100, 2, 1]) {
            let (intended, lost) = (1000, 10 * lost_percent);
            run.deliveries =
                Deliveries { intended, delivered: intended - lost, lost, ..Deliveries::default() };
        }
        // Nothing was delivered, so the radio hardly ran.
        runs[0].latency = None;
        runs[0].requests.per_client_hour = 0.1;
        let names: Vec<_> = runs[..3].iter().map(|run| run.strategy.clone()).collect();
        let sweep = Sweep::new("LTE", &[(0.2, runs[..3].to_vec()), (2.0, runs[..1].to_vec())]);
        let fronts: Vec<_> =
            sweep.rates.iter().map(|swept| (&*swept.requests_front, &*swept.energy_front)).collect();
        assert_eq!(fronts, [(&[2][..], &[2][..]), (&[], &[])]);
        let text = sweep.to_string();
        assert!(
            text.contains(&format!("left out, because it lost 20 of 1000 messages: {}\n", names[1])),
            "{text}"
        );
        assert!(text.contains("requests: nothing to compare\n"), "{text}");
    }
}
