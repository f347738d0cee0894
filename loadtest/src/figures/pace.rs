//! [`Pace`]: the rate, duration and cost of one operation, for loads that repeat a single operation.

use hdrhistogram::Histogram;

use super::{Column, Figures};
use crate::table::time;

/// Figures of a repeated operation. Times are in microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Operations per second.
    pub rate: f64,
    /// 50th percentile of the duration.
    pub p50: f64,
    /// 99th percentile of the duration.
    pub p99: f64,
    /// Processor time of the server per operation; `None` for a server that this program did not start.
    pub server_processor: Option<f64>,
    /// Processor time of the generator, as a share of one core.
    pub generator_cores: f64,
    /// Number of threads of the generator.
    pub generator_threads: u32,
}

impl Pace {
    /// Builds the figures from the histogram of durations in microseconds. The other arguments are in seconds: the measured
    /// time, and the processor time of the server and of the generator in it. `None` if the histogram is empty.
    pub fn new(times: &Histogram<u64>, measured: f64, server: Option<f64>, generator: f64) -> Option<Self> {
        let count = times.len() as f64;
        (count > 0.0).then(|| Self {
            rate: count / measured,
            p50: times.value_at_quantile(0.5) as f64,
            p99: times.value_at_quantile(0.99) as f64,
            server_processor: server.map(|seconds| seconds * 1e6 / count),
            generator_cores: generator / measured,
            generator_threads: 1,
        })
    }
}

impl Figures for Pace {
    const COLUMNS: &'static [Column<Self>] = &[
        Column { header: "WHAT/s", pick: |figures| Some(figures.rate), write: |rate| format!("{rate:.0}") },
        Column { header: "p50", pick: |figures| Some(figures.p50), write: time },
        Column { header: "p99", pick: |figures| Some(figures.p99), write: time },
        Column {
            header: "server CPU",
            pick: |figures| figures.server_processor,
            write: |micros| format!("{micros:.1} us"),
        },
        Column {
            header: "generator cores",
            pick: |figures| Some(figures.generator_cores),
            write: |cores| format!("{cores:.2}"),
        },
    ];

    fn generator_cores(&self) -> f64 {
        self.generator_cores
    }

    fn generator_threads(&self) -> u32 {
        self.generator_threads
    }
}
