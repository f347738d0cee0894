//! The figures of a server in a round, and how those of two servers compare over the rounds.

mod table;

use hdrhistogram::Histogram;

use crate::medians::median_of;

pub use table::table;

/// What a load came to on a server in one round. Times are in microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// How often a second.
    pub rate: f64,
    /// What half of them took at most.
    pub p50: f64,
    /// What 99 % of them took at most.
    pub p99: f64,
    /// Processor time of the server for each; `None` for a server that somebody else has started.
    pub server_processor: Option<f64>,
    /// Processor time of the generator, as a share of one core.
    pub generator_cores: f64,
}

/// A generator that is busier than this has its one thread for a limit.
const GENERATOR_CORES_MAX: f64 = 0.9;

/// A server and what it came to, round by round.
#[derive(Debug, Clone)]
pub struct Standing {
    /// Of the server.
    pub server: &'static str,
    /// Its rounds; the same number for each server.
    pub rounds: Vec<Figures>,
}

/// The middle of some figures and how far they spread.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The least one.
    pub least: f64,
    /// The greatest one.
    pub greatest: f64,
}

/// One of the figures, where there is one.
pub type Pick = fn(&Figures) -> Option<f64>;

impl Figures {
    /// What the times of a round say, in microseconds. All else is in seconds: how long was measured, and the processor time
    /// of the server and of the generator in it.
    pub fn new(times: &Histogram<u64>, measured: f64, server: Option<f64>, generator: f64) -> Self {
        let count = times.len() as f64;
        Self {
            rate: count / measured,
            p50: times.value_at_quantile(0.5) as f64,
            p99: times.value_at_quantile(0.99) as f64,
            server_processor: server.map(|seconds| seconds * 1e6 / count),
            generator_cores: generator / measured,
        }
    }
}

impl Standing {
    /// A figure over the rounds.
    pub fn spread(&self, pick: Pick) -> Option<Spread> {
        Spread::of(self.rounds.iter().filter_map(pick).collect())
    }

    /// Says when the server waited for the generator, so that it can do more than was measured.
    pub fn distortion(&self) -> Option<String> {
        let cores = self.spread(|figures| Some(figures.generator_cores))?.median;
        let server = self.server;
        (cores > GENERATOR_CORES_MAX).then(|| {
            format!("{server}: the generator's thread was busy for {cores:.2} of the time, so the server can do more")
        })
    }

    /// A figure divided by that of a rival in the same round, over the rounds: what slows the machine down for a while is in
    /// both of them.
    pub fn ratio(&self, rival: &Self, pick: Pick) -> Option<Spread> {
        let pairs = self.rounds.iter().zip(&rival.rounds);
        Spread::of(pairs.filter_map(|(own, rivals)| Some(pick(own)? / pick(rivals)?)).collect())
    }
}

impl Spread {
    fn of(figures: Vec<f64>) -> Option<Self> {
        Some(Self {
            least: figures.iter().copied().min_by(f64::total_cmp)?,
            greatest: figures.iter().copied().max_by(f64::total_cmp)?,
            median: median_of(figures)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(server: &'static str, rates: [f64; 3]) -> Standing {
        let figures =
            |rate| Figures { rate, p50: 100.0, p99: 900.0, server_processor: None, generator_cores: 0.5 };
        Standing { server, rounds: rates.map(figures).to_vec() }
    }

    /// A machine that halves its speed in the second round: the medians say 1, the rounds say 2.
    #[test]
    fn ratios_are_those_of_the_rounds() {
        let own = standing("own", [4000.0, 2000.0, 4200.0]);
        let rival = standing("rival", [2000.0, 1000.0, 2000.0]);
        let ratio = own.ratio(&rival, |figures| Some(figures.rate)).unwrap();
        assert_eq!(ratio, Spread { median: 2.0, least: 2.0, greatest: 2.1 });
        assert_eq!(own.spread(|figures| Some(figures.rate)).unwrap().median, 4000.0);
        assert_eq!(own.ratio(&rival, |figures| figures.server_processor), None);
        assert_eq!(own.distortion(), None);
    }

    #[test]
    fn a_generator_without_time_left_is_said_so() {
        let mut busy = standing("busy", [1.0; 3]);
        busy.rounds.iter_mut().for_each(|round| round.generator_cores = 0.95);
        assert!(busy.distortion().unwrap().contains("0.95"));
    }
}
